"""The doctor beside the page: a child process that looks now and then, for as long as somebody has the page open.

Decides when the doctor looks, how long it is waited for, and what of its words is believed. It looks at disks, sockets
and the chain, and is asked by whoever opens the page: so nothing of it happens in the agent's process or at its cost.

1. Nobody on the page, no child: it ends `IDLE_S` after the page was last asked for. Meanwhile it looks once in
   `INTERVAL_S`.
2. It has the lowest priority that it may take, and goes first when memory runs out. A round that takes longer than
   `ROUND_S`, or whose answer is none, ends it; the next look comes after `INTERVAL_S`.
3. Its answer is one line of at most `LINE_BYTES_MAX`, read into a form.
4. It ends when its standard input does: it does not outlive the agent, however that ends.
5. What it found last is kept, however old: how long that says anything is decided where it is shown
   (`agent.page.verdict`).

Elsewhere: what it looks at (`agent.doctor`), the child (`agent.page.diagnosing_child`).
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import trio

from agent.errors import SourceUnavailableError
from agent.meter.nvml_process import ChildProcess
from agent.page.facts import Diagnosis, Said

INTERVAL_S = 30.0
IDLE_S = 90.0
ROUND_S = 45.0
"""The doctor itself ends within 15 s; on a busy host, at the lowest priority, the start alone takes a while."""
LINE_BYTES_MAX = 256 * 1024
FINDINGS_MAX = 64
_TEXT_CHARS_MAX = 4000
_REAP_S = 1.0

Text = Annotated[str, msgspec.Meta(max_length=_TEXT_CHARS_MAX)]

log = logging.getLogger(__name__)


class SaidForm(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in the child's answer."""

    severity: str
    code: Text
    cause: Text
    fix: Text


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the child."""

    found_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] | None = None
    earns: bool | None
    verdict: Text
    findings: Annotated[list[SaidForm], msgspec.Meta(max_length=FINDINGS_MAX)]
    fine: int
    unknown: int


Start = Callable[[], Awaitable[ChildProcess]]


class Diagnosing:
    """Keeps `latest`, the last diagnosis, while `look` is called now and then; `silence` is why none came, if so."""

    def __init__(self, config: Path, start: Start | None = None) -> None:
        self.latest: Diagnosis | None = None
        self.silence: str | None = None
        self._start = start or (lambda: start_child(config))
        self._looked = trio.Event()
        self._looked_s = float("-inf")

    def look(self) -> None:
        """Somebody has the page open now."""
        self._looked_s = trio.current_time()
        self._looked.set()

    async def run(self) -> None:
        """Let the doctor look while somebody wants to know, for ever. Cancelled, the child is killed."""
        while True:
            await self._looked.wait()
            self._looked = trio.Event()
            if not self._is_watched():
                continue
            try:
                await self._serve()
            except (OSError, SourceUnavailableError) as error:
                if str(error) != self.silence:
                    log.warning("the status page has no diagnosis: %s", error)
                self.silence = str(error)
                await trio.sleep(INTERVAL_S)

    def _is_watched(self) -> bool:
        return trio.current_time() - self._looked_s < IDLE_S

    async def _serve(self) -> None:
        """One child, until nobody looks any more.

        Raises:
            OSError: it cannot be started.
            SourceUnavailableError: it gave no answer in time, or one that is none.
        """
        child = await self._start()
        try:
            while self._is_watched():
                with trio.move_on_after(ROUND_S) as scope:
                    self.latest, self.silence = await _ask(child), None
                if scope.cancelled_caught:
                    raise SourceUnavailableError(f"the doctor did not come to an end within {ROUND_S:.0f} s")
                await trio.sleep(INTERVAL_S)
        finally:
            child.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(_REAP_S):
                await child.wait()


async def start_child(config: Path) -> ChildProcess:
    """Start the child for these settings with this Python, in a session of its own; its errors go to ours."""
    process: ChildProcess = await trio.lowlevel.open_process(
        (sys.executable, "-I", "-m", "agent.page.diagnosing_child", str(config)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    return process


async def _ask(child: ChildProcess) -> Diagnosis:
    """One round. Cancelled, the child is to be killed: its answer would be taken for the next one."""
    assert child.stdin is not None
    assert child.stdout is not None
    line = b""
    try:
        await child.stdin.send_all(b"\n")
        while not line.endswith(b"\n"):
            chunk = await child.stdout.receive_some()
            if not chunk:
                raise SourceUnavailableError("the doctor ended without an answer")
            line += chunk
            if len(line) > LINE_BYTES_MAX:
                raise SourceUnavailableError("the doctor's answer is too long")
        return _diagnosis(msgspec.json.decode(line, type=Answer))
    except trio.BrokenResourceError as error:
        raise SourceUnavailableError("the doctor ended without an answer") from error
    except msgspec.MsgspecError as error:
        raise SourceUnavailableError(f"the doctor's answer is none: {error}") from error


def _diagnosis(answer: Answer) -> Diagnosis:
    return Diagnosis(
        found_s=answer.found_s,
        epoch=answer.epoch,
        earns=answer.earns,
        verdict=answer.verdict,
        findings=tuple(
            Said(severity=each.severity, code=each.code, cause=each.cause, fix=each.fix) for each in answer.findings
        ),
        fine=answer.fine,
        unknown=answer.unknown,
    )
