"""How long the close of an epoch takes, in round-trip times between the operators.

The same pool under growing delays between agents (the way to the chain stays short). For each epoch: from its end to
the first certificate, less what the policy allots to late records and to collecting; and from the proposal to the
certificate. A straight line through the points, time over round-trip time, says how many round trips each takes (its
slope) and what does not depend on them (its offset: computing, and waiting for the chain's next block and look).

It is a proposal and an attest, so one round trip is the least; what was lost or comes late costs more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from devnet_audit import Auditor

from agent.devnet.layout import agent_name
from agent.errors import OperationError
from gossip.policy import parse_policy
from tests.chaos.books import Watchdog
from tests.chaos.links import Link
from tests.chaos.network import open_network
from tests.chaos.pool import CHAIN, HOME, TWIN, LivingPool
from tests.chaos.stage import READY_S, Stage

AGENTS, EPOCH_S = 7, 15
ONE_WAY_MS = (0, 25, 100, 250)
EPOCHS_EACH = 2
STEPS = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One epoch under one delay; seconds. `after_allotted_s` is from the end of what the policy allots on."""

    epoch: int
    rtt_s: float
    after_allotted_s: float
    from_proposal_s: float


async def measure(directory: Path, seed: int) -> dict[str, Any]:
    """Run a pool in this empty folder, two epochs under each delay, and fit.

    Raises:
        OperationError: the pool did not get through.
    """
    points: list[Point] = []
    names = [agent_name(index) for index in range(AGENTS)]
    async with open_network([*names, CHAIN, TWIN], HOME, seed) as network:

        async def drive(pool: LivingPool) -> None:
            policy = parse_policy((directory / "policy.toml").read_text())
            stage = Stage(pool, policy, Watchdog(Auditor(directory)), seed)
            await stage.until(stage.is_level, READY_S, "at the start: every agent up to date")
            for one_way_ms in ONE_WAY_MS:
                await stage.near_end(lead_s=EPOCH_S / 3)
                await network.set(permutations(names, 2), Link(delay_s=one_way_ms / 1000))
                for _ in range(EPOCHS_EACH):
                    end_s = await stage.near_end()
                    await stage.settles(end_s)
                    epoch = stage.settled_since(end_s)[0].pot.epoch
                    points.append(_point(directory, epoch, end_s + stage.settle_s, one_way_ms / 500))

        pool = LivingPool(directory, network, drive, wrapper=("timed_agent", STEPS), agents=AGENTS, epoch_s=EPOCH_S)
        if await pool.run() is None:
            raise OperationError("interrupted")
    return {
        "benchmark": "rtt",
        "agents": AGENTS,
        "points": [asdict(point) for point in points],
        "after_allotted": _fit(points, "after_allotted_s"),
        "from_proposal": _fit(points, "from_proposal_s"),
    }


def _point(directory: Path, epoch: int, allotted_until_s: int, rtt_s: float) -> Point:
    steps = [json.loads(line) for path in directory.glob(f"*.{STEPS}") for line in path.read_text().splitlines()]
    at_s = {
        step: min(each["at_s"] for each in steps if each["step"] == step and each["epoch"] == epoch)
        for step in ("propose", "certified")
    }
    unix_s = time.time() - time.monotonic()
    return Point(
        epoch=epoch,
        rtt_s=rtt_s,
        after_allotted_s=round(at_s["certified"] + unix_s - allotted_until_s, 3),
        from_proposal_s=round(at_s["certified"] - at_s["propose"], 3),
    )


def _fit(points: Sequence[Point], name: str) -> dict[str, float]:
    values = [(point.rtt_s, getattr(point, name)) for point in points]
    slope, offset = linear_regression([rtt_s for rtt_s, _ in values], [value for _, value in values])
    largest_s = max(rtt_s for rtt_s, _ in values)
    in_rtts = median(value / rtt_s for rtt_s, value in values if rtt_s == largest_s)
    return {"round_trips": round(slope, 2), "rest_s": round(offset, 3), "in_rtts_at_largest": round(in_rtts, 2)}
