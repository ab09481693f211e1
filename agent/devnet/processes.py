"""Operating-system processes of the dev network: started, waited for, stopped; their output goes to files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from agent.errors import OperationError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LINE_BYTES_MAX = 65_536


class Child:
    """One process; `log` is the file that takes its error output."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._is_paused = False
        self.stopping = False

    @property
    def code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    async def read_ready(self) -> dict[str, Any]:
        """The JSON line that the process prints when it is ready.

        Raises:
            OperationError: it ended, or printed nothing or something else in time.
        """
        line = b""
        with trio.move_on_after(READY_TIMEOUT_S):
            assert self._process.stdout is not None
            while b"\n" not in line and len(line) < LINE_BYTES_MAX:
                chunk = await self._process.stdout.receive_some(4096)
                if not chunk:
                    break
                line += chunk
        if b"\n" not in line:
            raise OperationError(f"{self.name} did not start: {self.last_words()}")
        try:
            value = json.loads(line.partition(b"\n")[0])
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise OperationError(f"{self.name}: its first line is not a JSON object: {line[:80]!r}")
        return value

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """The last line of its log, for an error message."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:300] if lines else f"no output (exit code {self.code})"

    def pause(self) -> None:
        """Have it stand still until `resume`; if it does already, or has ended, nothing happens."""
        if not self._is_paused and self.code is None:
            self._process.send_signal(signal.SIGSTOP)
            self._is_paused = True

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._is_paused and self.code is None:
            self._process.send_signal(signal.SIGCONT)
            self._is_paused = False

    def kill(self) -> None:
        """Pull the plug: SIGKILL, nothing is saved."""
        self.stopping = True
        self._process.kill()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL if it does not end in time."""
        self.stopping = True
        self.resume()  # who stands still takes no other signal
        if self.code is None:
            self._process.terminate()
            with trio.move_on_after(STOP_TIMEOUT_S):
                await self._process.wait()
        if self.code is None:
            self._process.kill()
            await self._process.wait()


async def start(
    name: str, arguments: Sequence[str], log: Path, *, reads_ready: bool = False, prefix: Sequence[str] = ()
) -> Child:
    """Start this Python with `arguments` (`-m module ...`), in its own session: Ctrl-C reaches only us.

    `prefix` goes before it and must not leave a process of its own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await trio.lowlevel.open_process(
            [*prefix, sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads_ready else output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    return Child(name, process, log)


async def run_json(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a `gpupool ... --json` command to its end and return what it printed.

    Raises:
        OperationError: it failed; the message is its own.
    """
    done = await trio.run_process(
        [sys.executable, "-m", "agent", *arguments], capture_stdout=True, capture_stderr=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise OperationError(f"{name}: {said[-1] if said else signal.strsignal(-done.returncode)}")
    value: dict[str, Any] = json.loads(done.stdout)
    return value
