"""How a command answers: text or JSON on standard output, remarks on standard error; and how it ends, by its exit code.

An answer that cannot be written is an error of its own (`OutputError`): its exit code can be taken for no verdict.
The exit codes are stable; the doctor has its own besides, 10 to 16 (`agent.doctor.findings`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from contextlib import suppress
from typing import Any, TextIO

from agent.errors import AgentError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_JOURNAL = 65
"""EX_DATAERR of sysexits.h: a supervisor that starts the agent again mends nothing."""
EXIT_INTERNAL = 70
"""EX_SOFTWARE of sysexits.h."""
EXIT_OUTPUT = 74
"""EX_IOERR of sysexits.h."""
EXIT_KEY = 78
"""EX_CONFIG of sysexits.h: a supervisor that starts the agent again makes it worse."""
EXIT_INTERRUPTED = 130
"""What a shell shows for SIGINT."""
EXIT_BROKEN_PIPE = 141
"""What a shell shows for SIGPIPE."""

EXIT_CODES = {
    0: "done",
    EXIT_FAILED: "failed; the message says why",
    EXIT_USAGE: "wrong usage or settings; or nothing was done for want of --yes",
    EXIT_JOURNAL: "the journal is missing, damaged, or not this agent's",
    EXIT_INTERNAL: "an error in the program",
    EXIT_OUTPUT: "standard output cannot be written",
    EXIT_KEY: "the node key runs on another host, or its log is forked",
    EXIT_INTERRUPTED: "interrupted",
    EXIT_BROKEN_PIPE: "nobody reads standard output any more",
}
"""What each says, to people and in the manual page."""


class OutputError(AgentError):
    """Standard output cannot be written: its reader, or the disk behind it, is at fault.

    `is_broken_pipe`: whoever read it went away, as `head` does, and wants to hear nothing of it.
    """

    def __init__(self, message: str, *, is_broken_pipe: bool = False) -> None:
        super().__init__(message)
        self.is_broken_pipe = is_broken_pipe


def say(text: str) -> None:
    """Print for the user: the command's answer, on standard output.

    Raises:
        OutputError: it is closed, or cannot be written.
    """
    stream: TextIO | None = sys.stdout
    if stream is None:
        raise OutputError("standard output is closed")
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        _divert(stream)
        raise OutputError(
            f"standard output: cannot be written: {error.strerror}", is_broken_pipe=isinstance(error, BrokenPipeError)
        ) from error


def note(text: str) -> None:
    """Tell the user what is going on, on standard error; who cannot be told is not told."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"gpupool: {text}\n")
        stream.flush()
    except OSError:
        _divert(stream)


def answer(options: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    """Print `value` as JSON if it was asked for, else `text`."""
    say(json.dumps(value, indent=2) if options.json else text)
    return 0


def terminal_columns() -> int | None:
    """How wide the terminal is that shows the answer; None where something else takes it, which wants lines whole."""
    stream: TextIO | None = sys.stdout
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else None


def _divert(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: the interpreter writes it at its end, and would complain again."""
    with suppress(OSError, ValueError):  # a stream without a descriptor holds nothing back
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
