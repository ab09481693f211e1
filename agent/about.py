"""What the command tells about itself: its version, and what a shell needs to complete it."""

from __future__ import annotations

import argparse
from importlib import metadata

from agent.output import answer, say


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    return answer(options, {"version": metadata.version("gpupool-agent")}, version_text())


def version_text() -> str:
    """Name and version."""
    return f"gpupool-agent {metadata.version('gpupool-agent')}"


def completions(options: argparse.Namespace) -> int:
    """Print the completions of a shell."""
    from agent.command_line import build_parser
    from agent.completing import completion_script

    say(completion_script(build_parser(), options.shell))
    return 0
