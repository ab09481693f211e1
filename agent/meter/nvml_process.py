"""The killable child: starts `agent.meter.nvml_child`, asks it, and ends it for good when it does not answer.

Decides how long the driver is waited for, when it is tried again, and how many processes may be stuck in it. What
the child says is bounded and parsed (`nvml_report`); whatever it does, the agent goes on.

1. A question is answered within `ANSWER_TIMEOUT_S`, or the child is killed. Opening NVML may take longer, up to
   `OPEN_TIMEOUT_S`, because a driver that nobody uses initialises its GPUs first; a question in that time fails, and
   the child goes on opening.
2. A child that hung, crashed, gave what cannot be, or said that NVML or a GPU is lost is replaced after a pause, from
   `PAUSE_MIN_S` doubled up to `PAUSE_MAX_S`; after one that served for `STEADY_S` the pauses begin anew. With a GPU
   lost it serves on until then: the other GPUs count.
3. A process that sleeps in the kernel survives SIGKILL until its call returns. It is left to itself and reaped
   later; while `STUCK_MAX` are in that state, no more is started.
4. The child ends when its standard input does: it does not outlive the agent, however that ends.

Source: pipe(7), wait(2), proc(5) on uninterruptible sleep.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.meter.nvml_report import (
    LIBRARY_MISMATCH,
    LINE_BYTES_MAX,
    NO_DRIVER,
    NO_LIBRARY,
    Failure,
    Frame,
    Opened,
    Report,
    decode_frame,
)

ANSWER_TIMEOUT_S = 5.0
OPEN_TIMEOUT_S = 60.0
PAUSE_MIN_S = 1.0
PAUSE_MAX_S = 300.0
STEADY_S = 600.0
STUCK_MAX = 3
_REAP_S = 1.0
_COMMAND = (sys.executable, "-I", "-m", "agent.meter.nvml_child")

log = logging.getLogger(__name__)


class Sending(Protocol):
    """Where questions go."""

    async def send_all(self, data: bytes) -> None: ...
    async def aclose(self) -> None: ...


class Receiving(Protocol):
    """Where answers come from; b"" at their end."""

    async def receive_some(self) -> bytes | bytearray: ...
    async def aclose(self) -> None: ...


class ChildProcess(Protocol):
    """The part of `trio.Process` that is needed here."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> Sending | None: ...
    @property
    def stdout(self) -> Receiving | None: ...
    def kill(self) -> None: ...
    def poll(self) -> int | None: ...
    async def wait(self) -> int: ...


Start = Callable[[], Awaitable[ChildProcess]]


async def start_child() -> ChildProcess:
    """Start the child with this Python, in a session of its own: Ctrl-C reaches only us. Its errors go to ours."""
    process: ChildProcess = await trio.lowlevel.open_process(
        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    return process


class NvmlProcess:
    """At most one child in service, and those that cannot be killed."""

    def __init__(self, start: Start = start_child) -> None:
        self._start = start
        self._child: _Child | None = None
        self._stuck: list[ChildProcess] = []
        self._failures = 0
        self._reason = "the driver was not asked yet"
        self._next_start_s = 0.0

    async def report(self) -> tuple[Opened, Report]:
        """Ask the driver once; twice `ANSWER_TIMEOUT_S` is the longest that takes. Cancelled, the child is killed.

        Raises:
            SourceUnavailableError: no driver, no answer in time, or it is not time yet to try again.
            InvalidSourceError: an answer that is none.
        """
        if self._child is not None and self._child.is_outworn and trio.current_time() >= self._next_start_s:
            await self.aclose()
        child = self._child or await self._start_anew()
        is_kept = False
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                opened = await child.opened()
            with trio.fail_after(ANSWER_TIMEOUT_S):
                report = await child.ask()
            is_kept = True
            if report.lost and not child.is_outworn:
                child.is_outworn = True
                self._fail(child, "a GPU is lost")
            return opened, report
        except trio.TooSlowError:
            is_kept = child.is_opening and trio.current_time() < child.started_s + OPEN_TIMEOUT_S
            if is_kept:
                raise SourceUnavailableError("NVML: the driver still initialises its GPUs") from None
            self._fail(child, f"the driver did not answer within {ANSWER_TIMEOUT_S:g} s; its process was killed")
            raise SourceUnavailableError(f"NVML: {self._reason}") from None
        except (SourceUnavailableError, InvalidSourceError) as error:
            self._fail(child, str(error).removeprefix("NVML: "))
            raise
        finally:
            if not is_kept:
                await self.aclose()

    async def aclose(self) -> None:
        """Kill the child, if there is one; waits a second at most, also when cancelled."""
        child, self._child = self._child, None
        if child is None:
            return
        child.process.kill()
        with trio.move_on_after(_REAP_S) as scope:
            scope.shield = True
            await child.aclose()
            await child.process.wait()
        if child.process.poll() is None:
            log.error("NVML: process %d cannot be killed: it waits in the GPU driver", child.process.pid)
            self._stuck.append(child.process)

    async def _start_anew(self) -> _Child:
        wait_s = self._next_start_s - trio.current_time()
        if wait_s > 0:
            raise SourceUnavailableError(f"NVML: {self._reason}; next try in {wait_s:.0f} s")
        self._stuck = [process for process in self._stuck if process.poll() is None]
        if len(self._stuck) >= STUCK_MAX:
            pids = ", ".join(str(process.pid) for process in self._stuck)
            raise SourceUnavailableError(
                f"NVML: processes {pids} wait in the GPU driver and cannot be killed: restart the host"
            )
        try:
            process = await self._start()
        except OSError as error:
            raise SourceUnavailableError(f"NVML: its process cannot be started: {error}") from error
        self._child = _Child(process)
        return self._child

    def _fail(self, child: _Child, reason: str) -> None:
        """Note why the child is to be replaced, and when (rule 2)."""
        now_s = trio.current_time()
        self._failures = 1 if now_s - child.started_s > STEADY_S else self._failures + 1
        self._next_start_s = now_s + min(PAUSE_MIN_S * 2 ** min(self._failures - 1, 16), PAUSE_MAX_S)
        self._reason = reason


class _Child:
    """A child in service and what it has said so far."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self.started_s = trio.current_time()
        self.is_outworn = False
        self._opened: Opened | None = None
        self._buffer = bytearray()

    @property
    def is_opening(self) -> bool:
        return self._opened is None

    async def opened(self) -> Opened:
        """Its first word. Cancelled, it is waited for again."""
        if self._opened is None:
            frame = await self._next()
            if not isinstance(frame, Opened):
                raise InvalidSourceError("NVML: its process did not begin as it should")
            self._opened = frame
        return self._opened

    async def ask(self) -> Report:
        """Ask once. Cancelled, the child is of no use any more."""
        assert self.process.stdin is not None
        if self._buffer:
            await self._next()  # which raises if it is a failure after the last answer
            raise InvalidSourceError("NVML: its process spoke without being asked")
        # One that has ended takes no question: what it said last tells why.
        with suppress(trio.BrokenResourceError):
            await self.process.stdin.send_all(b"?")
        frame = await self._next()
        if not isinstance(frame, Report):
            raise InvalidSourceError("NVML: its process did not answer what it was asked")
        return frame

    async def aclose(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                await pipe.aclose()

    async def _next(self) -> Frame:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise InvalidSourceError(f"NVML: its process said more than {LINE_BYTES_MAX} bytes at once")
            chunk = await self.process.stdout.receive_some()
            if not chunk:
                raise SourceUnavailableError(
                    f"NVML: the process that asks the driver {_end(await self.process.wait())}"
                )
            self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        frame = decode_frame(line)
        if isinstance(frame, Failure):
            raise SourceUnavailableError(f"NVML: {_explained(frame)}")
        return frame


def _explained(failure: Failure) -> str:
    """What a failure of NVML means on a host, and what helps."""
    said = f"{failure.message} ({failure.code})"
    if failure.code in (NO_LIBRARY, NO_DRIVER):
        return (
            f"no NVIDIA driver here: {said}. On a Cocoon host this is as it should be: the GPU is passed through to "
            f"the guest, and the host cannot see it; elsewhere, install or load the driver"
        )
    if failure.code == LIBRARY_MISMATCH:
        return f"the driver was updated and not loaded anew: {said}; load it, or restart the host"
    return said


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
