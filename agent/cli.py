"""The command `gpupool`: runs a verb, and turns every end that it may come to into an exit code and one line.

1. The exit codes are those of `agent.output`; the doctor has its own besides (`agent.doctor.findings`).
2. An error is one line on standard error. With --json there is an object besides, on standard output, where a script
   looks: `error` (a name that stays), `message`, `exit_code`; of attestation's also `fault` and `remedy`.
3. No traceback is shown unless --debug is given: neither of an error in the program, nor of one in a thread, at exit,
   or in a library's log. Only a crash of Python itself says where it was (`agent.undumpable`).
4. No verb's memory comes into a core dump, with --debug neither: it may hold a key.

The tree of verbs stands in `agent.command_line`. All else is imported within `main`: an interrupt, or a broken
installation, ends like any other error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import AgentError, ConfigError, KeyFileError, UnusableJournalError, UsageError
from agent.output import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_JOURNAL,
    EXIT_KEY,
    EXIT_OUTPUT,
    EXIT_USAGE,
    OutputError,
    note,
    say,
)
from agent.texts import one_line

_STDIN = Path("-")
_OF_THE_KEY = frozenset({"KeyInUseError", "OwnForkError"})
"""By name, as `gossip` is not imported for every command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, that of the process if none is given; return the exit code.

    Raises:
        SystemExit: after --help, --version and wrong usage, as argparse has it.
    """
    given = sys.argv[1:] if arguments is None else arguments
    is_debugged = "--debug" in given
    if arguments is None:
        _take_over(is_debugged=is_debugged)
    try:
        options = _parse(given)
        if arguments is None:
            _forbid_dumps()
        outcome: int = options.run(options)
        return outcome
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if is_debugged:
            _show_traceback(error)
        code = _explain(error, as_json="--json" in given)
        if isinstance(error, UsageError):
            sys.exit(code)
        return code


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """The arguments, all of them known."""
    from agent.command_line import build_parser, require_order

    parser = build_parser()
    require_order(parser, given)
    options, unknown = parser.parse_known_args(given)
    if "--debug" in unknown:
        options.parser.error("--debug goes first: gpupool --debug ...")
    if unknown:
        options.parser.error(f"unknown arguments: {' '.join(unknown)}")
    if list(vars(options).values()).count(_STDIN) > 1:
        raise ConfigError('"-" stands twice, and standard input can be read once')
    return options


def _explain(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong; the exit code."""
    causes = list(_leaves(error))
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return EXIT_INTERRUPTED
    expected = _expected()
    cause = next((cause for cause in causes if isinstance(cause, expected)), causes[0])
    if isinstance(cause, OutputError) and cause.is_broken_pipe:
        return EXIT_BROKEN_PIPE
    is_expected = isinstance(cause, expected)
    code, text = _exit_code(cause, is_expected), _text(cause, is_expected)
    note(one_line(text))
    if as_json:
        with suppress(OutputError):  # the line was said, and the exit code tells the rest
            say(json.dumps({**_value(cause, is_expected), "exit_code": code}, indent=2))
    return code


def _expected() -> tuple[type[Exception], ...]:
    """The roots of all errors that are raised on purpose, as far as they can be imported."""
    roots: list[type[Exception]] = [AgentError]
    with suppress(ImportError):  # a broken installation: then it is the error that is told
        from attestation.errors import AttestationError
        from contracts.errors import ContractsError
        from gossip.errors import GossipError

        roots += [AttestationError, ContractsError, GossipError]
    return tuple(roots)


def _exit_code(cause: BaseException, is_expected: bool) -> int:
    if isinstance(cause, OutputError):
        return EXIT_OUTPUT
    if isinstance(cause, UsageError | ConfigError | KeyFileError):
        return EXIT_USAGE
    if isinstance(cause, UnusableJournalError):
        return EXIT_JOURNAL
    if type(cause).__name__ in _OF_THE_KEY:
        return EXIT_KEY
    return EXIT_FAILED if is_expected else EXIT_INTERNAL


def _text(cause: BaseException, is_expected: bool) -> str:
    if not is_expected:
        return f"{_unexpected(cause)} (`gpupool --debug` shows where)"
    remedy = getattr(cause, "remedy", None)
    if remedy is None:
        return str(cause)
    # Attestation's errors say who is at fault: of a file, its sender is whoever made it.
    who = "at fault: whoever made this file; " if getattr(cause, "fault", None) == "sender" else ""
    return f"{cause}; {who}{remedy}"


def _unexpected(error: BaseException) -> str:
    return f"unexpected {type(error).__name__}: {error}"


def _value(cause: BaseException, is_expected: bool) -> dict[str, Any]:
    """An error as JSON. Its name is its class's, unless it has a code of its own."""
    named = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(cause).__name__.removesuffix("Error")).lower()
    value = {"error": getattr(cause, "code", named) if is_expected else "unexpected"}
    value["message"] = str(cause) if is_expected else _unexpected(cause)
    return value | {name: getattr(cause, name) for name in ("fault", "remedy") if hasattr(cause, name) and is_expected}


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside the groups that nurseries raise."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _show_traceback(error: BaseException) -> None:
    import traceback

    note("".join(traceback.format_exception(error)))


def _forbid_dumps() -> None:
    """Rule 4; before a verb runs, as any may load a key."""
    from agent.undumpable import forbid_dumps

    forbid_dumps()


def _take_over(*, is_debugged: bool) -> None:
    """Make rule 3 hold where no `except` reaches, and what cannot be encoded be escaped: for the whole process."""
    _fill_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if is_debugged:
        return
    sys.excepthook = lambda _kind, error, _traceback: _remark(error)
    sys.unraisablehook = lambda unraisable: _remark(unraisable.exc_value)
    threading.excepthook = lambda failed: _remark(failed.exc_value)
    logging.lastResort = _OneLine(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _fill_descriptors() -> None:
    """Give the journal, or a socket, no number of a standard stream that is closed: others write there blindly."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def _remark(error: BaseException | None) -> None:
    """Say in one line what went wrong aside; interrupts and readers that went away are no news."""
    if error is not None and not isinstance(error, KeyboardInterrupt | BrokenPipeError | SystemExit):
        note(one_line(f"{_unexpected(error)} (`gpupool --debug` shows where)"))


class _OneLine(logging.Handler):
    """What libraries log where nobody set up logging: a line each, without traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        note(one_line(record.getMessage()))
