"""The pool that a host joins: a dev network of one agent, in the machines' network."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from agent.identity import load_key
from tests.packaging.package_test.machine import StepFailedError, wait_for

EPOCHS = 500
EPOCH_S = 20
UP_WITHIN_S = 90.0
STOP_S = 20.0


class Pool:
    """The running dev network; `folder` holds its files."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder = folder
        self._log = folder.with_suffix(".log")
        program = ("-m", "agent", "devnet", "--agents", "1", "--epochs", str(EPOCHS), "--epoch-seconds", str(EPOCH_S))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, *program, "--dir", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Wait until the operators have taken over. Raises StepFailedError."""

        def is_up() -> bool:
            if self._process.poll() is not None:
                raise StepFailedError(f"the dev network ended: see {self._log}")
            return "handed the pool over" in self._log.read_text()

        wait_for("the dev network is up", is_up, within_s=UP_WITHIN_S)

    def stop(self) -> None:
        """Stop it, as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def how_to_join(self) -> list[str]:
        """The arguments of `gpupool init` that say which pool, which chain, which engine, which peer."""
        seat = self.folder / "agent-0"
        config: dict[str, Any] = tomllib.loads((seat / "agent.toml").read_text())
        server, node_key = config["chain"]["liteservers"][0], load_key(seat / "node.key").public.hex()
        return [
            *("--network", str(config["pool"]["network"]), "--pool", config["pool"]["address"]),
            *("--liteserver", f"{server['host']}:{server['port']}:{server['public_key']}"),
            *("--engine", config["engine"]["url"], "--peer", f"{node_key}@{config['p2p']['listen'][0]}"),
        ]
