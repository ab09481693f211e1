"""Nodes on real transports: through one seed everybody finds everybody, restarts need none, participants get along."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from node_pool import MemoryStore
from pool_fixture import POOL, key, operator_set, policy, verdict
from transport_nodes import LOOPBACK, eventually

from agent.address_file import load_addresses
from agent.gossiping import ALONE_S, Gossiping, join_pool
from agent.reach import HOLD_S
from agent.tables import P2pTable, PeerTable
from gossip.acquaintances import Acquaintances, Run
from gossip.addresses import make_address_record
from gossip.greeting import Greeter
from gossip.node import open_node
from gossip.records import CloseBody, PoolId
from gossip.roster import Roster
from gossip.transport import PeerView

OPERATORS, MEMBERS = 3, 5

pytestmark = pytest.mark.slow


def roster(operators: int = OPERATORS, members: int = MEMBERS) -> Roster:
    return Roster(
        weights={key(i).public: 1 for i in range(operators)},
        operators=frozenset(key(i).public for i in range(operators)),
        participants=frozenset(key(i).public for i in range(members)),
    )


@asynccontextmanager
async def joined(
    i: int, folder: Path, seed: Gossiping | None = None, listen: tuple[str, ...] = (LOOPBACK,), members: int = MEMBERS
) -> AsyncIterator[Gossiping]:
    """Member `i` of a pool, whose config names at most one other."""
    node = open_node(
        key(i),
        POOL,
        policy(),
        MemoryStore(),
        verdict,
        participants=[key(k).public for k in range(members)],
        now_s=lambda: int(time.time()),
    )
    peers = ()
    if seed is not None:
        peers = (PeerTable(node_key=seed.node.key.public.hex(), addresses=seed.transport.addresses),)
    config = P2pTable(listen=listen, peers=peers, sync_interval_s=0.5, close_interval_s=0.5, address_interval_s=0.5)
    run = Run(agent="test", id=bytes([i]) * 16, started_s=int(time.time()))
    acquaintances = Acquaintances(key(i), POOL, run, policies=lambda: [policy().hash])
    async with join_pool(node, config, folder / f"{i}", acquaintances) as gossiping:
        gossiping.set_roster(roster(members=members))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gossiping.run)
            yield gossiping
            nursery.cancel_scope.cancel()


def has(gossiping: Gossiping, *members: int) -> Callable[[], bool]:
    return lambda: set(gossiping.connected()) == {key(i).public for i in members}


async def test_one_seed_is_enough_and_participants_stay_with_the_operators(tmp_path: Path) -> None:
    """0, 1, 2 are operators; 3 only dials, and 4 is a participant with an address."""
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(joined(0, tmp_path))
        others = [
            await stack.enter_async_context(joined(i, tmp_path, seed, () if i == 3 else (LOOPBACK,)))
            for i in range(1, MEMBERS)
        ]
        everybody = [seed, *others]
        for gossiping, peers in zip(
            everybody, [(1, 2, 3, 4), (0, 2, 3, 4), (0, 1, 3, 4), (0, 1, 2), (0, 1, 2)], strict=True
        ):
            await eventually(has(gossiping, *peers))
            assert gossiping.reach() == (3, 3)
        assert [g.address_source(key(0).public) for g in others] == ["config"] * 4
        assert others[1].address_source(key(1).public) == "record"
        assert others[1].address_source(key(3).public) is None

        # What a participant says reaches the other participant, with whom it is not connected; so does its own log.
        talker, listener = others[2], others[3]
        await talker.learn_own_log(operator_set(OPERATORS), remembers=True)
        record = await talker.node.append(CloseBody())
        await eventually(lambda: listener.node.logs[key(3).public].head.hash == record.hash)

        # Operators witness those who answer; participants witness nobody.
        await eventually(lambda: set(seed.node.witness.seconds) == {key(i).public for i in range(MEMBERS)})
        assert talker.node.witness.seconds == {}
        dropped = {reason for gossiping in everybody for reason in gossiping.node.drops}
        # Connections that both ends opened at once are cut to one, with what is asked over the other.
        assert dropped <= {"peer: PeerUnavailableError", "hello: PeerUnavailableError"}


async def test_a_restart_needs_no_seed(tmp_path: Path) -> None:
    async with joined(0, tmp_path, members=3) as seed, joined(1, tmp_path, seed, members=3) as other:
        async with joined(2, tmp_path, seed, members=3) as third:
            await eventually(has(third, 0, 1))
        assert len(load_addresses(tmp_path / "2")) == 3
        await eventually(has(other, 0))
        async with joined(2, tmp_path, members=3) as third:
            await eventually(has(third, 0, 1))
            assert third.address_source(key(0).public) == "record"


async def test_a_damaged_address_file_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1").write_bytes(b"\x93garbage")
    async with joined(0, tmp_path, members=2) as seed, joined(1, tmp_path, seed, members=2) as other:
        await eventually(lambda: other.node.addresses.addresses(key(0).public))
    assert "peers are asked instead" in caplog.text
    assert len(load_addresses(tmp_path / "1")) == 2


async def test_a_participant_that_joins_becomes_part_of_the_roster(tmp_path: Path) -> None:
    async with joined(0, tmp_path, members=2) as seed, joined(1, tmp_path, seed, members=3) as other:
        await eventually(has(seed, 1))
        async with joined(2, tmp_path, other, members=3) as third:
            await eventually(has(other, 0, 2))
            assert key(2).public not in seed.node.registered
            assert seed.node.addresses.addresses(key(2).public) == ()
            seed.node.register(key(i).public for i in range(3))
            seed.set_roster(roster(members=3))
            await eventually(has(third, 0, 1))
            await eventually(has(seed, 1, 2))
            await eventually(lambda: seed.address_source(key(2).public) == "record")


def gossiping_of(config: P2pTable, network: int, addresses: tuple[str, ...], folder: Path) -> Gossiping:
    """One without a network: only what it would say of itself."""
    node = open_node(
        key(0), PoolId(network, POOL.account), policy(), MemoryStore(), verdict, participants=[], now_s=lambda: 0
    )
    transport: Any = SimpleNamespace(addresses=addresses)
    acquaintances = Acquaintances(key(0), POOL, Run(agent="test", id=bytes(16), started_s=0), policies=list)
    greeter = Greeter(node, acquaintances)
    return Gossiping(node, transport, config, folder / "addresses", acquaintances, greeter)


MAINNET = -239
PRIVATE = ("/ip4/0.0.0.0/tcp/4001/p2p/12D3KooW",)


@pytest.mark.parametrize(
    ("config", "network", "hosts", "told", "warns"),
    [
        (P2pTable(), MAINNET, ("10.0.0.5",), (), True),
        (P2pTable(), MAINNET, (), (), True),
        (P2pTable(), MAINNET, ("8.8.4.4",), ("/ip4/8.8.4.4/tcp/4001",), False),
        (P2pTable(), POOL.network, ("10.0.0.5",), ("/ip4/10.0.0.5/tcp/4001",), False),
        (P2pTable(listen=()), MAINNET, ("8.8.4.4",), (), False),
        (
            P2pTable(announce=("/dns4/agent.example.org/tcp/4001",)),
            MAINNET,
            ("10.0.0.5",),
            ("/dns4/agent.example.org/tcp/4001",),
            False,
        ),
    ],
    ids=["behind NAT", "no route", "public", "development", "only dials", "announced"],
)
async def test_what_a_node_says_of_itself_and_when_it_warns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    config: P2pTable,
    network: int,
    hosts: tuple[str, ...],
    told: tuple[str, ...],
    warns: bool,
) -> None:
    monkeypatch.setattr("agent.gossiping.host_addresses", lambda: hosts)
    gossiping = gossiping_of(config, network, PRIVATE, tmp_path)
    assert gossiping.own_addresses() == told
    gossiping._warn_if_unreachable()
    assert ("nobody can dial this node" in caplog.text) is warns


async def test_witnessed_seconds_and_addresses_are_written_only_when_they_changed(tmp_path: Path) -> None:
    gossiping = gossiping_of(P2pTable(), POOL.network, PRIVATE, tmp_path)
    store = gossiping.node.store
    assert isinstance(store, MemoryStore)
    await gossiping._save()
    assert store.writes == []
    assert not (tmp_path / "addresses").exists()
    gossiping.node.witness.hear(key(1).public, 100)
    gossiping.node.addresses.keep_own(
        make_address_record(key(0), POOL, issued_s=1, addresses=["/ip4/10.0.0.5/tcp/4001"])
    )
    for _ in range(2):
        await gossiping._save()
    assert store.writes == ["witness"]
    assert store.seconds == {key(1).public: 5}
    gossiping.node.witness.settle({}, [key(0).public], 100)
    for _ in range(2):
        await gossiping._save()
    assert store.writes == ["witness"] * 2
    assert store.seconds == {}, "the key is in the pool no more"
    assert load_addresses(tmp_path / "addresses") == gossiping.node.addresses.wires()


async def test_a_configured_key_that_is_not_registered_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peers = tuple(PeerTable(node_key=key(i).public.hex(), addresses=("/ip4/10.0.0.5/tcp/1",)) for i in (1, 9))
    gossiping = gossiping_of(P2pTable(peers=peers), POOL.network, PRIVATE, tmp_path)
    gossiping.transport.set_roster = lambda peers, **more: None  # type: ignore[method-assign]
    gossiping.set_roster(Roster())
    assert gossiping.not_dialled() == {}, "before the chain was seen nobody is known to be missing"
    for members in (2, 3):
        gossiping.set_roster(roster(operators=2, members=members))
    said = f"p2p.peers[1].node_key: {key(9).public.hex()[:16]} is not registered in this pool: it is not dialled"
    assert [record.getMessage() for record in caplog.records] == [said]
    gossiping.set_roster(roster(operators=2, members=10))
    assert gossiping.not_dialled() == {}


@pytest.mark.parametrize(
    ("addresses", "errors", "why"),
    [
        ((), (), "name an operator in p2p.peers"),
        (("/ip4/10.0.0.5/tcp/1",), (), "no dial has come to an end yet"),
        (("/ip4/10.0.0.5/tcp/1",), ("/ip4/10.0.0.5/tcp/1: timed out",), "at /ip4/10.0.0.5/tcp/1: timed out"),
        (("/ip4/10.0.0.5/tcp/1",), ("a", "b", "c", "d", "e"), "at d; and 1 more"),
    ],
    ids=["no address", "dials go on", "failed", "many failed"],
)
async def test_a_node_that_stays_alone_says_why_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    addresses: tuple[str, ...],
    errors: tuple[str, ...],
    why: str,
) -> None:
    gossiping = gossiping_of(P2pTable(), POOL.network, PRIVATE, tmp_path)
    view = PeerView(
        node_key=key(1).public,
        in_roster=True,
        connected=False,
        last_heard_s=None,
        rtt_s=None,
        addresses=addresses,
        dial_errors=errors,
    )
    connected = [key(1).public]
    transport: Any = SimpleNamespace(peers=lambda: (view,), connected=lambda: connected)
    gossiping.transport, gossiping.roster = transport, roster(operators=2, members=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gossiping._watch_alone)
        await trio.sleep(10 * ALONE_S)
        assert caplog.text == ""
        for times in (1, 2):
            connected.clear()
            await trio.sleep(10 * ALONE_S)
            assert caplog.text.count(why) == times
            assert caplog.text.count("nobody is connected for 60 s") == times
            connected.append(key(1).public)
            await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_a_quorum_that_comes_and_goes_is_in_the_log_and_in_the_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level("INFO", "agent.gossiping")
    gossiping = gossiping_of(P2pTable(), POOL.network, PRIVATE, tmp_path)
    gossiping.roster = roster()
    connected: list[bytes] = []
    monkeypatch.setattr(gossiping, "connected", lambda: connected)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gossiping._watch_reach)
        await trio.sleep(1)
        assert gossiping.reach_watch.obstacle == "no other operator connected"
        for keys in ([1, 2], [1]):
            connected[:] = [key(i).public for i in keys]
            await trio.sleep(10 * HOLD_S)
        assert gossiping.reach_watch.obstacle is not None
        nursery.cancel_scope.cancel()
    said = [(record.levelname, record.getMessage().partition(" are ")[0]) for record in caplog.records]
    assert said == [
        ("INFO", "operators with 3 of 3 of the weight"),
        ("INFO", "operators"),
        ("WARNING", "operators with 2 of 3 of the weight"),
    ]
