"""Two hosts with one node key, on real transports: the second one stops before it signs, the first one is told."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from node_pool import MemoryStore
from pool_fixture import POOL, key, operator_set, policy, verdict
from transport_nodes import LOOPBACK, eventually

from agent.gossiping import Gossiping, join_pool
from agent.tables import P2pTable, PeerTable
from gossip import greeting
from gossip.acquaintances import Acquaintances, Run
from gossip.errors import KeyInUseError
from gossip.node import open_node
from gossip.roster import Roster

OPERATORS = 3
OTHERS = range(OPERATORS, 12)
BEFORE = min(OTHERS, key=lambda i: key(i).public)
AFTER = max(OTHERS, key=lambda i: key(i).public)
"""Participants whose keys come before, and after, those of operators: which of two connections goes depends on it."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _listens_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LISTEN_S", 6.0)
    monkeypatch.setattr(greeting, "SOON_S", 0.5)


def roster() -> Roster:
    operators = [key(i).public for i in range(OPERATORS)]
    members = frozenset([*operators, *(key(i).public for i in OTHERS)])
    return Roster(weights=dict.fromkeys(operators, 1), operators=frozenset(operators), participants=members)


@asynccontextmanager
async def host(
    i: int,
    folder: Path,
    seeds: list[Gossiping],
    *,
    ended: frozenset[bytes] = frozenset(),
    started_ago_s: int = 0,
    listen: tuple[str, ...] = (LOOPBACK,),
) -> AsyncIterator[Gossiping]:
    """An agent of participant `i`, as far as peers see it; it knows where the seeds are."""
    members = [key(k).public for k in (*range(OPERATORS), *OTHERS)]
    node = open_node(
        key(i), POOL, policy(), MemoryStore(), verdict, participants=members, now_s=lambda: int(time.time())
    )
    peers = tuple(PeerTable(node_key=s.node.key.public.hex(), addresses=s.transport.addresses) for s in seeds)
    config = P2pTable(listen=listen, peers=peers, sync_interval_s=0.5, close_interval_s=0.5)
    run = Run(agent="test/1", id=os.urandom(16), started_s=int(time.time()) - started_ago_s, ended=ended)
    acquaintances = Acquaintances(key(i), POOL, run, policies=list)
    async with join_pool(node, config, folder / run.id.hex(), acquaintances) as gossiping:
        gossiping.set_roster(roster())
        yield gossiping


async def start(gossiping: Gossiping) -> None:
    """What a daemon does before it writes its first record."""
    await gossiping.learn_own_log(operator_set(OPERATORS), remembers=True)


@asynccontextmanager
async def operators(folder: Path) -> AsyncIterator[list[Gossiping]]:
    async with (
        host(0, folder, []) as first,
        host(1, folder, [first]) as second,
        host(2, folder, [first, second]) as third,
        trio.open_nursery() as nursery,
    ):
        for each in (first, second, third):
            nursery.start_soon(each.run)
        yield [first, second, third]
        nursery.cancel_scope.cancel()


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


async def outcome(gossiping: Gossiping) -> str:
    """How the start of an agent ends: what it says, or "signs"."""
    said = "signs"
    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gossiping.run)
                await start(gossiping)
                nursery.cancel_scope.cancel()
    except* KeyInUseError as group:
        said = str(next(leaves(group)))
    return said


@pytest.mark.parametrize("listen", [(LOOPBACK,), ()], ids=["listens", "only dials"])
@pytest.mark.parametrize("shared", [BEFORE, AFTER], ids=["a small key", "a large key"])
async def test_the_second_host_stops_before_it_signs_and_the_first_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: int, listen: tuple[str, ...]
) -> None:
    async with (
        operators(tmp_path) as seeds,
        host(shared, tmp_path, seeds, started_ago_s=100) as first,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(first.run)
        await start(first)
        async with host(shared, tmp_path, seeds, listen=listen) as second:
            said = await outcome(second)
        assert "this node key runs on another host" in said
        assert "from 127.0.0.1:" in said
        await eventually(lambda: first.acquaintances.rival(int(time.time())) is not None)
        await eventually(lambda: "Stop that one" in caplog.text)
        await eventually(lambda: len(first.connected()) == OPERATORS)
        nursery.cancel_scope.cancel()


async def test_a_restart_on_the_same_journal_signs_at_once(tmp_path: Path) -> None:
    async with operators(tmp_path) as seeds:
        async with host(AFTER, tmp_path, seeds) as before:
            assert await outcome(before) == "signs"
        began_s = trio.current_time()
        async with host(AFTER, tmp_path, seeds, ended=frozenset([before.acquaintances.run.id])) as after:
            assert await outcome(after) == "signs"
        assert not after.acquaintances.has_suspect
        assert trio.current_time() - began_s < 60


async def test_an_agent_that_moved_to_another_host_listens_and_then_signs(tmp_path: Path) -> None:
    async with operators(tmp_path) as seeds:
        async with host(AFTER, tmp_path, seeds, started_ago_s=100) as before:
            assert await outcome(before) == "signs"
        async with host(AFTER, tmp_path, seeds) as after:
            assert await outcome(after) == "signs"
            assert after.acquaintances.has_suspect


async def test_an_operator_with_two_hosts(tmp_path: Path) -> None:
    """Each of the other two tells them."""
    async with operators(tmp_path) as seeds:
        await start(seeds[2])
        async with host(2, tmp_path, seeds[:2]) as second:
            said = await outcome(second)
        await eventually(lambda: seeds[2].acquaintances.rival(int(time.time())) is not None)
        assert "this node key runs on another host" in said


async def test_of_two_hosts_that_begin_together_at_most_one_signs(tmp_path: Path) -> None:
    async with (
        operators(tmp_path) as seeds,
        host(AFTER, tmp_path, seeds) as one,
        host(AFTER, tmp_path, seeds) as other,
        trio.open_nursery() as nursery,
    ):
        said: list[str] = []

        async def note(gossiping: Gossiping) -> None:
            """Whoever signs goes on: where one was much faster, it is what the other one hears of."""
            try:
                async with trio.open_nursery() as running:
                    running.start_soon(gossiping.run)
                    await start(gossiping)
                    said.append("signs")
            except* KeyInUseError as group:
                said.append(str(next(leaves(group))))

        nursery.start_soon(note, one)
        nursery.start_soon(note, other)
        await eventually(lambda: len(said) >= 2)
        assert said.count("signs") <= 1
        nursery.cancel_scope.cancel()
