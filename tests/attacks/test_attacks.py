"""A node under every attack of `tests.attacks.arsenal`: it lives, stays small, and serves its honest peers."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import trio

from tests.attacks.arsenal import ATTACKS
from tests.attacks.battle import MEMORY_BYTES_MAX, Outcome, fight, open_field, table

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

UNITS = Path(__file__).parents[2] / "systemd"


async def test_a_node_under_attack_serves_its_honest_peers(capsys):
    outcomes: list[Outcome] = []
    async with open_field() as (victim, honest):
        for name in ATTACKS:
            outcomes.append(await fight(victim, honest, name))
            assert victim.is_alive, name
    with capsys.disabled():
        print("\n" + table(outcomes))  # noqa: T201
    for outcome in outcomes:
        assert outcome.faults() == [], (outcome.name, outcome.before, outcome.after)


async def test_a_stopped_peer_is_noticed_and_found_again():
    async with open_field() as (victim, honest):
        victim.signal(signal.SIGSTOP)
        with trio.fail_after(30):
            while honest.is_connected():  # noqa: ASYNC110 another process's doing
                await trio.sleep(0.1)
            victim.signal(signal.SIGCONT)
            await honest.until_heard()
        assert honest.is_connected()


def test_the_unit_allows_what_is_assumed_here():
    limits = [
        row for unit in UNITS.glob("*.service") for row in re.findall(r"^MemoryMax=(.*)$", unit.read_text(), re.M)
    ]
    if not limits:
        pytest.skip("no unit names a memory limit yet")
    sizes = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    assert all(int(limit[:-1]) * sizes[limit[-1]] >= MEMORY_BYTES_MAX for limit in limits)
