"""Agents of several versions in one pool, on real transports: they work together, or say clearly why not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from node_pool import MemoryStore
from pool_fixture import POOL, key, operator_set, policy, verdict
from transport_nodes import LOOPBACK, eventually
from trio.testing import MockClock

from agent import gossiping as module
from agent.gossiping import Gossiping, join_pool
from agent.tables import P2pTable, PeerTable
from agent.versions import versions_value
from gossip import greeting, serve, sync
from gossip.acquaintances import Acquaintances, Run, Terms
from gossip.hello import encode_hello, parse_hello
from gossip.node import Node, open_node
from gossip.roster import Roster
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import topic

MEMBERS = [key(i).public for i in range(3)]
ROSTER = Roster(weights=dict.fromkeys(MEMBERS, 1), operators=frozenset(MEMBERS), participants=frozenset(MEMBERS))

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "SOON_S", 0.1)
    monkeypatch.setattr(module, "VERSIONS_CHECK_S", 0.1)


class Other(Acquaintances):
    """Says of itself what an agent of another version would."""

    def __init__(self, i: int, protocols: tuple[int, ...], tallies: tuple[int, ...]) -> None:
        super().__init__(key(i), POOL, Run(agent="other/2", id=bytes(16), started_s=int(time.time())), policies=list)
        self._versions = protocols, tallies

    def say(self, to: bytes, now_s: int) -> bytes:
        hello = parse_hello(super().say(to, now_s), POOL, peer=self._key.public, own=to)
        protocols, tallies = self._versions
        return encode_hello(replace(hello, protocols=protocols, tallies=tallies))


def node_of(i: int) -> Node:
    return open_node(
        key(i), POOL, policy(), MemoryStore(), verdict, participants=MEMBERS, now_s=lambda: int(time.time())
    )


@asynccontextmanager
async def agent(
    i: int, folder: Path, seeds: list[Transport], versions: tuple[tuple[int, ...], tuple[int, ...]] = ((1,), (1,))
) -> AsyncIterator[Gossiping]:
    peers = tuple(PeerTable(node_key=each.node_key.hex(), addresses=each.addresses) for each in seeds)
    config = P2pTable(listen=(LOOPBACK,), peers=peers, sync_interval_s=0.5, close_interval_s=0.5)
    async with (
        join_pool(node_of(i), config, folder / str(i), Other(i, *versions)) as gossiping,
        trio.open_nursery() as nursery,
    ):
        gossiping.set_roster(ROSTER)
        nursery.start_soon(gossiping.run)
        yield gossiping
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def silent(i: int) -> AsyncIterator[Transport]:
    """An agent that knows nothing of hellos."""
    node = node_of(i)
    config = TransportConfig(listen=(LOOPBACK,), topic=topic(POOL), request_bytes_max=sync.REQUEST_BYTES_MAX)
    async with open_transport(
        key(i).seed, config, serve=lambda peer, request: serve.serve(node, peer, request)
    ) as transport:
        transport.set_roster(dict.fromkeys(MEMBERS, ()))
        yield transport


async def test_peers_that_say_no_hello_are_worked_with(tmp_path: Path) -> None:
    async with silent(0) as first, silent(1) as second, agent(2, tmp_path, [first, second]) as ours:
        await eventually(lambda: set(ours.connected()) == {key(0).public, key(1).public})
        assert ours.acquaintances.terms(key(0).public) is Terms.SILENT
        await ours.learn_own_log(operator_set(3), remembers=True)
        told = versions_value(ours.acquaintances, ours.roster, int(time.time()))
        assert (told["silent"], told["agents"], told["rifts"]) == (2, {}, [])


async def test_a_peer_of_another_protocol_is_refused_by_both_and_both_say_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent(0, tmp_path, [], ((2,), (1,))) as theirs, agent(1, tmp_path, [theirs.transport]) as ours:
        await eventually(lambda: ours.acquaintances.terms(key(0).public) is Terms.OTHER_PROTOCOL)
        assert ours.transport.connected() == [key(0).public]
        assert ours.connected() == []
        assert ours.reach() == (1, 3)
        text = "this agent speaks protocol 1; operators with 1 of 3 of the weight are of protocol 2"
        await eventually(lambda: f"{text}: epochs cannot settle with them; upgrade this agent" in caplog.text)


async def test_a_peer_of_another_tally_is_worked_with_and_the_alarm_comes_before_an_epoch_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with agent(0, tmp_path, [], ((1,), (2,))) as theirs, agent(1, tmp_path, [theirs.transport]) as ours:
        await eventually(lambda: ours.connected() == [key(0).public])
        text = "this agent computes tally 1; operators with 1 of 3 of the weight are of tally 2"
        await eventually(lambda: f"{text}: epochs cannot settle with them; upgrade this agent" in caplog.text)
        (rift,) = versions_value(ours.acquaintances, ours.roster, int(time.time()))["rifts"]
        assert (rift["what"], rift["stops"], rift["is_outdated"], rift["weight"]) == ("tally", True, True, 1)


async def test_a_newer_peer_that_still_speaks_our_version_is_a_fellow(tmp_path: Path) -> None:
    async with agent(0, tmp_path, [], ((1, 2), (1, 2))) as theirs, agent(1, tmp_path, [theirs.transport]) as ours:
        await eventually(lambda: ours.connected() == [key(0).public] and theirs.connected() == [key(1).public])
        told = versions_value(ours.acquaintances, ours.roster, int(time.time()))
        assert (told["rifts"], told["agents"], told["key_in_use"]) == ([], {"other/2": 1}, None)


async def test_a_peer_that_names_other_versions_each_time_does_not_fill_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ours = Gossiping.__new__(Gossiping)
    ours.acquaintances, ours.roster = Other(1, (1,), (1,)), ROSTER
    ours.acquaintances.keep_only(MEMBERS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours._watch_versions)
        for tally in range(2, 60):
            said = Other(0, (1,), (tally, tally + 1)).say(key(1).public, 1)
            ours.acquaintances.take(key(0).public, said, 1, None)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert caplog.text.count("this agent computes tally 1") == 1
