"""Pools in a world that loses, delays, cuts off, kills and lies: every invariant holds after every step.

A failure names its seed; `python -m tests.sim.run --start SEED --seeds 1 --trace` replays it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossip.records import ReceiptBody
from tests.sim import run
from tests.sim.bugs import BY_NAME
from tests.sim.plan import AHEAD_S, Plan, Vice, draw_plan_of
from tests.sim.working import CEILINGS
from tests.sim.world import World, simulate

ROOT = Path(__file__).parents[2]
BLOCKS, BLOCK = 10, 15
SEEDS = BLOCKS * BLOCK
LONG_SEEDS, LONG_BLOCKS = 1000, 5


def plans() -> list[Plan]:
    return [draw_plan_of(seed) for seed in range(SEEDS)]


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_invariant_holds_at_every_step(block: int) -> None:
    found = [simulate(seed) for seed in range(block * BLOCK, (block + 1) * BLOCK)]
    assert [outcome.violation for outcome in found if outcome.violation is not None] == []
    assert sum(outcome.settled for outcome in found) >= BLOCK


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("block", range(LONG_BLOCKS))
def test_every_invariant_holds_over_a_thousand_seeds(block: int) -> None:
    size = LONG_SEEDS // LONG_BLOCKS
    found = [*run.outcomes(range(block * size, (block + 1) * size), processes=2)]
    assert [outcome.violation for outcome in found if outcome.violation is not None] == []
    assert len(found) == size


def test_the_seeds_hold_every_kind_of_trouble() -> None:
    drawn = plans()
    assert {len(plan.operators.operators) for plan in drawn} == {4, 5, 7}
    assert {vice for plan in drawn for vices in plan.hostile.values() for vice in vices} == set(Vice)
    assert {plan.is_within_f for plan in drawn} == {True, False}
    assert {plan.ceiling for plan in drawn} == set(CEILINGS)
    assert {skew for plan in drawn for skew in plan.skew_s.values()} >= {AHEAD_S, -AHEAD_S, 0}
    for trouble in (
        "loss",
        "gossip_loss",
        "duplication",
        "crash",
        "transaction_loss",
        "partitions",
        "outages",
        "rotation",
    ):
        assert 5 < sum(bool(getattr(plan, trouble)) for plan in drawn) < SEEDS, trouble
    walls = [{(wall.from_s, wall.senders, wall.receivers) for wall in plan.partitions} for plan in drawn]
    one_way = [wall for of_plan in walls for wall in of_plan if (wall[0], wall[2], wall[1]) not in of_plan]
    assert 5 < len(one_way) < sum(map(len, walls))
    assert any(not plan.hostile and plan.heal_s == 0 for plan in drawn)


def first_world(ceiling: str) -> World:
    """The first seed with this ceiling, run to its end."""
    plan = next(plan for plan in plans() if plan.ceiling == ceiling and plan.is_within_f and plan.hostile)
    world = World(plan.seed)
    world.run()
    return world


def test_receipts_are_counted_in_the_seeds_that_ask_for_them() -> None:
    counted = [record for log in first_world("receipts").watch.books.counted.values() for record in log]
    held = [receipt for record in counted if isinstance(record.body, ReceiptBody) for receipt in record.body.receipts]
    assert len(held) > len({receipt.id for receipt in held}) > 0, "some jobs are claimed more than once"
    assert not any(
        isinstance(r.body, ReceiptBody) for log in first_world("none").watch.books.counted.values() for r in log
    )


def test_payments_are_counted_in_the_seeds_that_ask_for_them() -> None:
    accounts = first_world("worker-contract").watch.books.accounts.values()
    assert any(account.credited == account.paid < account.metered for account in accounts if account.paid)
    assert any(account.metered and not account.credited for account in accounts), "some are paid by no contract"


def test_the_same_seed_gives_the_same_trace_in_any_process() -> None:
    here = run.report([simulate(seed) for seed in range(3)], "none", with_traces=False)
    command = [sys.executable, "-m", "tests.sim.run", "--seeds", "3", "--processes", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout.splitlines()[-1])
    assert there["traces"] == here["traces"]
    assert len({simulate(seed).trace for seed in range(3)}) == 3


def test_a_violation_says_how_to_replay_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seeds", "1", "--bug", "shown-before-durable", "--processes", "1"]) == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("seed 0, step ")
    assert lines[-1] == "replay: python -m tests.sim.run --start 0 --seeds 1 --trace --bug shown-before-durable"
    assert json.loads(summary)["violations"] == [0]
    assert simulate(0, BY_NAME["shown-before-durable"]).violation == lines[-2]
