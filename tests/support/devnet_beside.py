"""A dev network beside the test, as a user starts it; its processes are found, so that they can be held or ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 30.0
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Devnet:
    """One that runs, with its files in `folder`."""

    folder: Path
    process: subprocess.Popen[bytes]

    def target(self, agent: str) -> str:
        """`host:port` at which this agent answers."""
        web = tomllib.loads((self.folder / agent / "agent.toml").read_text())["web"]
        return f"{web.get('host', '127.0.0.1')}:{web['port']}"

    def pid(self, *words: str) -> int:
        """The process whose command line has these words.

        Raises:
            LookupError: there is none, or several.
        """
        found = [pid for pid in _children(self.process.pid) if set(words) <= set(_command(pid))]
        if len(found) != 1:
            raise LookupError(f"{len(found)} processes of the dev network have {words} in their command line")
        return found[0]

    def agent_pid(self, agent: str) -> int:
        """The process of this agent."""
        return self.pid("run", str(self.folder / agent / "agent.toml"))

    def wait(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Return once `is_so()`.

        Raises:
            TimeoutError: it is not, in time, or the dev network has ended.
        """
        until_s = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > until_s or self.process.poll() is not None:
                raise TimeoutError(f"{what}: not in {timeout_s:.0f} s; {_last_line(self.folder.with_suffix('.log'))}")
            time.sleep(POLL_S)


@contextmanager
def run_devnet(folder: Path, *options: str) -> Iterator[Devnet]:
    """Run `gpupool devnet` with these options within the block; then interrupt it, as Ctrl-C does."""
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "devnet", "--dir", str(folder), "--keep", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Devnet(folder, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Have a process stand still within the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _children(parent: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
