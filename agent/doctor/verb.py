"""What `gpupool doctor` does: collect, diagnose, tell."""

from __future__ import annotations

import argparse
from io import StringIO
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

from agent.doctor.collecting import collect
from agent.doctor.diagnosis import diagnose, exit_code, first_problem, verdict
from agent.doctor.findings import Severity
from agent.doctor.screen import findings_text
from agent.errors import DENIED, ConfigError
from agent.output import answer, terminal_columns

_SILENT = (Severity.OK, Severity.NOT_APPLICABLE)
"""A program hears of what could not be checked without asking for all: it reads no last line that counts them."""


def doctor(options: argparse.Namespace) -> int:
    """Say why this node does not earn; the exit code is the class of the first problem.

    Raises:
        ConfigError: this user may not read the settings: that is no finding, as the agent may.
    """
    _require_permission(options.config)
    facts = trio.run(collect, options.config, strict_exception_groups=True)
    findings = diagnose(facts)
    said = verdict(facts, findings)
    problem = first_problem(findings)
    value = {
        "earns": said.earns,
        "verdict": said.text,
        "exit_code": exit_code(findings),
        "first": None if problem is None else problem.code,
        "findings": [each.value() for each in findings if options.all or each.severity not in _SILENT],
    }
    text = findings_text(findings, said.text, shows_all=options.all, width=terminal_columns())
    answer(options, value, _printed(text))
    return exit_code(findings)


def _require_permission(config: Path) -> None:
    try:
        config.open("rb").close()
    except PermissionError as error:
        raise ConfigError(f"{config}: {DENIED}") from error
    except OSError:
        return  # a finding


def _printed(text: Text) -> str:
    """In colour where a terminal shows it."""
    if terminal_columns() is None:
        return text.plain
    console = Console(file=StringIO(), force_terminal=True, highlight=False, soft_wrap=True)
    with console.capture() as capture:
        console.print(text, end="")
    return capture.get()
