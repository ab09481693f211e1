"""Runs scenarios on one pool, from the first block to the balanced books."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devnet_audit import Auditor

from agent.devnet.layout import agent_name
from agent.errors import AgentError
from gossip.policy import parse_policy
from tests.chaos.books import Watchdog
from tests.chaos.cage import mount_small_disk
from tests.chaos.errors import ViolationError
from tests.chaos.network import open_network
from tests.chaos.pool import CHAIN, HOME, TWIN, LivingPool
from tests.chaos.report import Outcome, Report
from tests.chaos.scenarios import FULL_DISK_AGENT, SCENARIOS, Scenario
from tests.chaos.stage import READY_S, Stage

AGENTS = 7
SMALL_DISK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, in an empty folder, in epochs of so many seconds."""

    directory: Path
    names: Sequence[str]
    seed: int
    epoch_s: int


async def run(settings: Settings) -> Report:
    """Run these scenarios. Cancelled or failed, no process of the pool is left.

    A scenario that fails ends the run: what follows on a broken pool says nothing.
    """
    started_s = time.monotonic()
    outcomes: list[Outcome] = []
    names = [agent_name(index) for index in range(AGENTS)]
    mount_small_disk(settings.directory / names[FULL_DISK_AGENT] / "data", SMALL_DISK_BYTES)
    async with open_network([*names, CHAIN, TWIN], HOME, settings.seed) as network:

        async def drive(pool: LivingPool) -> None:
            policy = parse_policy((pool.directory / "policy.toml").read_text())
            stage = Stage(pool, policy, Watchdog(Auditor(pool.directory)), settings.seed)
            await stage.until(stage.is_level, READY_S, "at the start: every agent up to date")
            chosen = [scenario for scenario in SCENARIOS if scenario.name in settings.names]
            for scenario in chosen:
                outcomes.append(await _play(scenario, stage))
                if outcomes[-1].violation is not None:
                    raise ViolationError(f"{scenario.name}: {outcomes[-1].violation}")
            await stage.all_is_paid()

        pool = LivingPool(
            settings.directory, network, drive, agents=AGENTS, epoch_s=settings.epoch_s, seed=settings.seed
        )
        faults = await _live(pool)
        return Report(
            seed=settings.seed,
            outcomes=outcomes,
            epochs=pool.epochs,
            books=pool.books,
            faults=faults,
            packets=await network.packets(),
            took_s=round(time.monotonic() - started_s),
        )


async def _live(pool: LivingPool) -> list[str]:
    """The pool's whole life; what went wrong in it."""
    try:
        if await pool.run() is None:
            pool.faults.append("interrupted")
    except* (ViolationError, AgentError) as group:
        pool.faults += [str(error) for error in _leaves(group)]
    return pool.faults


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


async def _play(scenario: Scenario, stage: Stage) -> Outcome:
    started_s, before, violation = time.monotonic(), len(stage.pool.landings), None
    stage.pool.say(f"--- {scenario.name}: {scenario.does}")
    stage.noted = {}
    try:
        await scenario.run(stage)
    except ViolationError as error:
        violation = str(error)
    return Outcome(
        name=scenario.name,
        does=scenario.does,
        took_s=round(time.monotonic() - started_s),
        settled=len(stage.pool.landings) - before,
        measured=stage.noted,
        violation=violation,
    )
