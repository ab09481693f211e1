"""One agent under watch: what the doctor says of it first, and which alerts a real Prometheus has for it.

The doctor runs as an operator would run it: its own process, on the agent's host, with its clock.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from prometheus_run import Prometheus

from agent.doctor.findings import Severity
from agent.identity import load_key
from agent.keys.marker import note_backup
from tests.chaos.errors import ViolationError
from tests.faults.fault import Fault
from tests.faults.pool import FaultPool, Settings

LOOK_S = 1.0
NAMED_WITHIN_S, ALERT_WITHIN_S, WELL_WITHIN_S = 150.0, 60.0, 120.0
_WORST_FIRST = (Severity.PROBLEM, Severity.WARNING, Severity.NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `gpupool doctor --json` said, and with which exit code it ended."""

    code: int
    findings: list[dict[str, str]]

    @property
    def first(self) -> dict[str, str] | None:
        """The first problem; without one the first warning; without one the first note."""
        of = {severity: [each for each in self.findings if each["severity"] == severity] for severity in _WORST_FIRST}
        return next((of[severity][0] for severity in _WORST_FIRST if of[severity]), None)

    def text(self) -> str:
        """For a message: what was found, worst first."""
        told = [f"{each['severity']} {each['code']}: {each['cause']}" for each in self.findings if _is_told(each)]
        return f"exit code {self.code}; " + "; ".join(told)[:1500]


class Patient:
    """An agent of `pool` by its room's name; `config` are its settings, `prometheus` watches it under `name`."""

    def __init__(self, pool: FaultPool, name: str, config: Path, prometheus: Prometheus | None) -> None:
        self.pool = pool
        self.name = name
        self.config = config
        self._prometheus = prometheus

    @property
    def settings(self) -> Settings:
        """Its settings file as it is now."""
        return Settings(self.config)

    def note_backup(self) -> None:
        """Note that its keys are backed up, as `gpupool keys backup` does: else every diagnosis warns of it."""
        for name in ("node.key", "wallet.key"):
            path = self.config.parent / name
            note_backup(path, public_key=load_key(path).public, backup=Path("/backup"), made_s=1)

    async def doctor(self) -> Diagnosis:
        """Ask the doctor once."""
        clock = self.pool.directory / f"{self.name}.clock"
        program = ["-m", "tests.chaos.skewed_agent", str(clock), "doctor", "--config", str(self.config), "--json"]
        command = [*self.pool.prefix(self.name), sys.executable, *program]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        try:
            value: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise ViolationError(f"the doctor gave no JSON: {done.stderr.decode()[-300:]}") from error
        return Diagnosis(code=done.returncode, findings=value["findings"])

    async def until_named(self, fault: Fault) -> dict[str, str]:
        """Ask until the doctor names this fault first, with its severity; what it said.

        Raises:
            ViolationError: it does not in time, or its exit code is another than that of the problem's class.
        """
        until_s = time.monotonic() + NAMED_WITHIN_S
        while True:
            said = await self.doctor()
            first = said.first
            if first is not None and (first["code"], first["severity"]) == (fault.code, fault.severity):
                if bool(said.code) is not (fault.severity is Severity.PROBLEM):
                    raise ViolationError(f"{fault.name}: {fault.severity} with exit code {said.code}")
                return first
            if time.monotonic() > until_s:
                raise ViolationError(f"{fault.name}: the doctor does not name {fault.code} first: {said.text()}")
            await trio.sleep(LOOK_S)

    async def until_alert(self, fault: Fault) -> str | None:
        """Wait until one of the fault's alerts fires for this agent; which, or None if there is nobody to ask.

        Raises:
            ViolationError: none does in time.
        """
        if self._prometheus is None or not fault.alerts:
            return None
        until_s = time.monotonic() + ALERT_WITHIN_S
        while True:
            firing = await trio.to_thread.run_sync(self._prometheus.firing)
            for alert in fault.alerts:
                if self.name in firing.get(alert, ()):
                    return alert
            if time.monotonic() > until_s:
                own = sorted(alert for alert, of in firing.items() if self.name in of)
                raise ViolationError(f"{fault.name}: none of {', '.join(fault.alerts)} fires; of this agent: {own}")
            await trio.sleep(LOOK_S)

    async def until_well(self, fault: Fault | None = None) -> None:
        """Ask until the doctor finds no problem, and no warning of this fault.

        Raises:
            ViolationError: it finds one still.
        """
        until_s = time.monotonic() + WELL_WITHIN_S
        while True:
            said = await self.doctor()
            codes = {each["code"] for each in said.findings if each["severity"] == Severity.WARNING}
            if said.code == 0 and (fault is None or fault.code not in codes):
                return
            if time.monotonic() > until_s:
                what = "before the first fault" if fault is None else f"{fault.name}: healed"
                raise ViolationError(f"{what}: the doctor finds no peace: {said.text()}")
            await trio.sleep(LOOK_S)


def _is_told(finding: dict[str, str]) -> bool:
    return finding["severity"] in _WORST_FIRST
