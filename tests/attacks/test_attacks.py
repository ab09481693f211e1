"""A node under every attack of `tests.attacks.arsenal`: it lives, stays small, and serves its honest peers."""

from __future__ import annotations

import json
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
        assert outcome.faults() == [], json.dumps([outcome.name, outcome.before, outcome.after], indent=1)


async def test_a_stopped_peer_is_noticed_and_found_again():
    async with open_field() as (victim, honest):
        victim.signal(signal.SIGSTOP)
        with trio.fail_after(30):
            while honest.is_connected():  # noqa: ASYNC110 another process's doing
                await trio.sleep(0.1)
            victim.signal(signal.SIGCONT)
            await honest.until_heard()
        assert honest.is_connected()


def test_the_units_allow_what_is_assumed_here():
    files = [path for path in UNITS.rglob("*") if path.suffix in {".service", ".conf"}]
    limits = [limit for path in files for limit in re.findall(r"^MemoryMax=(\d+)([KMG])$", path.read_text(), re.M)]
    assert limits
    sizes = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    assert all(int(number) * sizes[unit] >= MEMORY_BYTES_MAX for number, unit in limits)
