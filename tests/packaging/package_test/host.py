"""What an operator does on a host that has the package: set it up, join, look, claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.packaging.package_test.machine import Machine, require, wait_for
from tests.packaging.package_test.pool import EPOCH_S, Pool

UNIT = "gpupool-agent.service"
CONFIG = "/etc/gpupool/agent.toml"
EARNS_WITHIN_S = 6.0 * EPOCH_S
NANO = 1_000_000_000


class Host:
    """A machine with an agent, joined to a pool."""

    def __init__(self, machine: Machine, pool: Pool) -> None:
        self.machine = machine
        self._pool = pool

    def install(self, package: Path) -> None:
        """Install the package with dpkg; the network leads nowhere."""
        (self.machine.root / "root" / package.name).write_bytes(package.read_bytes())
        self.machine.run("dpkg", "--install", f"/root/{package.name}")

    def bring_platform(self, folder: str = "/etc/gpupool") -> None:
        """Make what proves this host to a development network; a real host has TDX instead."""
        given = self._pool.folder
        self.machine.run("install", "-d", folder)
        self.machine.run("gpupool", "attest", "platform", f"{folder}/platform", "--root-dir", f"{given}/tdx-root")
        self.machine.run("chown", "-R", "gpupool:", f"{folder}/platform")
        self.machine.run("install", "--mode=644", f"{given}/tdx-root/root.der", f"{folder}/root.der")

    def init(self, folder: str, data: str, *, p2p_port: int, web_port: int) -> None:
        """`gpupool init`, as root."""
        options = ("--dir", folder, "--data-dir", data, "--policy-file", f"{self._pool.folder}/policy.toml")
        proof = ("--software-dir", f"{folder}/platform", "--software-root", f"{folder}/root.der")
        ports = ("--listen", f"/ip4/127.0.0.1/tcp/{p2p_port}", "--web-port", str(web_port))
        self.machine.run("gpupool", "init", *self._pool.how_to_join(), *options, *proof, *ports)

    def join(self) -> None:
        """Set up the agent of this host and register it; the wallet is one of the pool's that has TON."""
        self.bring_platform()
        self.machine.run("install", "--mode=600", f"{self._pool.folder}/customer.key", "/etc/gpupool/wallet.key")
        self.init("/etc/gpupool", "/var/lib/gpupool", p2p_port=4001, web_port=9464)
        self.machine.run("gpupool", "pool", "register", "--stake", "100")

    def start(self, unit: str = UNIT) -> None:
        """Start a unit; returns once it said READY=1."""
        self.machine.run("systemctl", "start", unit)
        require(self.machine.show(unit, "ActiveState") == "active", f"{unit} is active")

    def stop(self, unit: str = UNIT) -> None:
        """Stop a unit, which has to end by itself."""
        self.machine.run("systemctl", "stop", unit)
        require(self.machine.show(unit, "Result") == "success", f"{unit} stops in time and cleanly")

    def status(self) -> dict[str, Any]:
        """What the running agent says of itself."""
        value: dict[str, Any] = json.loads(self.machine.run("gpupool", "status", "--json"))
        return value

    def wait_until_earning(self) -> int:
        """Wait until an epoch settled with work of this host; nanoTON earned in all. Raises StepFailedError."""
        self._wait("it earns", lambda: self._earned() > 0)
        return self._earned()

    def wait_until_earning_more(self) -> int:
        """Wait until that grew. Raises StepFailedError."""
        before = self._earned()
        self._wait("it earns more", lambda: self._earned() > before)
        return self._earned() - before

    def _earned(self) -> int:
        own = self.status()["own"]
        return int(own["earned_nanoton"]) if own is not None else 0

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        wait_for(f"{self.machine.name}: {what}", holds, within_s=EARNS_WITHIN_S)

    def wait_for_line(self, text: str, *, within_s: float = EARNS_WITHIN_S) -> str:
        """Wait until `systemctl status` shows this; the whole line."""
        wait_for(
            f"{self.machine.name}: STATUS has {text!r}",
            lambda: text in self.machine.show(UNIT, "StatusText"),
            within_s=within_s,
        )
        return self.machine.show(UNIT, "StatusText")
