"""How a command answers: text or JSON on standard output, remarks on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def say(text: str) -> None:
    """Print for the user: the command's answer, on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Tell the user what is going on, on standard error."""
    sys.stderr.write(f"gpupool: {text}\n")


def answer(options: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    """Print `value` as JSON if it was asked for, else `text`."""
    say(json.dumps(value, indent=2) if options.json else text)
    return 0
