"""A child process for tests that kill, limit or lock out a process: forked, so that it starts in no time."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO


@dataclass
class Child:
    """A running child; `reports` is what it writes."""

    pid: int
    reports: BinaryIO
    status: int | None = None

    def read(self, size: int) -> bytes:
        """The next `size` bytes that the child reported; fewer when it ended."""
        return self.reports.read(size)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Wait for the end; the exit code, or the negative number of the signal that ended it."""
        if self.status is None:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.status


@contextmanager
def forked(run: Callable[[BinaryIO], None]) -> Iterator[Child]:
    """Fork a child that calls `run(report)`; it is killed at the end of the block if it still runs.

    The child exits with 0 when `run` returned and 1 when it raised; nothing of pytest runs in it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb", buffering=0) as report:
                run(report)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as reports:
        child = Child(pid, reports)
        try:
            yield child
        finally:
            child.kill()


NUMBER = struct.Struct(">Q")
"""How children report numbers."""
