"""`gpupool status --watch`: a live screen of the running agent, until q or Ctrl-C.

It asks the agent every few seconds, and has the doctor look now and then, with what it found before; both go on while
the screen is drawn. An agent that goes away is shown as away, with what it said last, until it comes back. What it says
is untrusted as far as the screen is concerned: it is read into a form, and nothing in it moves the cursor.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import trio
from rich.console import Console
from rich.live import Live

from agent.client import open_client
from agent.config import Config, load_config
from agent.doctor.collecting import collect
from agent.doctor.diagnosis import diagnose
from agent.doctor.facts import Facts
from agent.doctor.findings import Finding
from agent.doctor.probing_agent import read_running
from agent.doctor.status_form import Status
from agent.errors import ConfigError, OperationError
from agent.watch_view import Frame, watch_view

DOCTOR_INTERVAL_S = 30.0
INTERVAL_S_MIN, INTERVAL_S_MAX = 0.2, 3600.0
LEAVE = frozenset(b"qQ\x03\x04")
"""q; and Ctrl-C or Ctrl-D, should the terminal hand them over as characters."""


def watch(options: argparse.Namespace) -> int:
    """Show the live screen; 0 once the user leaves.

    Raises:
        ConfigError: there is no terminal, or none that draws, an option does not fit, or the settings cannot be used.
    """
    interval_s: float = options.interval
    if options.json:
        raise ConfigError("--watch: not with --json; ask for `gpupool status --json` again and again instead")
    if not (math.isfinite(interval_s) and INTERVAL_S_MIN <= interval_s <= INTERVAL_S_MAX):
        raise ConfigError(f"--interval {interval_s:g}: expected {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("--watch: needs a terminal; without one: gpupool status, or --json")
    if Console().is_dumb_terminal:
        raise ConfigError(
            f"--watch: no screen can be drawn on this terminal (TERM={os.environ['TERM']}): gpupool status, or name "
            "the terminal that it is, as TERM=xterm gpupool status --watch"
        )
    config = load_config(options.config)
    if not config.web.port:
        raise ConfigError(f"{config.path}: web.port is 0: the agent's port is not known")
    try:
        trio.run(_Watch(config, interval_s).run, strict_exception_groups=True)
    except* KeyboardInterrupt:
        pass  # Ctrl-C is one of the ways out
    return 0


@dataclass(slots=True)
class Seen:
    """What was seen last; `away` is why nothing newer came."""

    status: Status | None = None
    seen_s: float = 0.0
    away: str | None = None
    findings: list[Finding] | None = None

    def frame(self, now_s: float) -> Frame:
        """What to draw at `now_s` (Unix seconds)."""
        return Frame(
            status=self.status,
            away=self.away,
            seen_ago_s=None if self.status is None else int(now_s - self.seen_s),
            findings=self.findings,
            now_s=int(now_s),
        )


class _Watch:
    def __init__(self, config: Config, interval_s: float) -> None:
        self._config = config
        self._interval_s = interval_s
        self._seen = Seen()

    async def run(self) -> None:
        """Look and draw until a key says enough; the terminal is left as it was."""
        with (
            _keys_at_once(sys.stdin.fileno()) as keys,
            Live(console=Console(), screen=True, auto_refresh=False) as live,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look, live)
                nursery.start_soon(self._diagnose)
                await _until_left(keys)
                nursery.cancel_scope.cancel()

    async def _look(self, live: Live) -> None:
        async with open_client(self._config) as client:
            while True:
                await look(client, self._seen)
                live.update(watch_view(self._seen.frame(time.time())), refresh=True)
                await trio.sleep(self._interval_s)

    async def _diagnose(self) -> None:
        facts: Facts | None = None
        while True:
            facts = await collect(self._config.path, before=facts)
            self._seen.findings = diagnose(facts)
            await trio.sleep(DOCTOR_INTERVAL_S)


async def look(client: httpx.AsyncClient, seen: Seen) -> None:
    """Ask the agent once; that it does not answer is noted, not raised."""
    try:
        seen.status, seen.seen_s, seen.away = await read_running(client), time.time(), None
    except OperationError as error:
        seen.away = str(error)


async def _until_left(keys: int) -> None:
    """Wait until a key that leaves was pressed, or nobody can press one any more."""
    while True:
        await trio.lowlevel.wait_readable(keys)
        try:
            pressed = os.read(keys, 64)
        except OSError:
            return  # the terminal is gone
        if not pressed or LEAVE & set(pressed):
            return


@contextmanager
def _keys_at_once(descriptor: int) -> Iterator[int]:
    """The terminal hands over each key as it is pressed, and does not show it; afterwards it is as before."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
