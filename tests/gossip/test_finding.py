"""Finding peers: with one peer known all are found; what liars say is counted and left."""

from __future__ import annotations

import random

import pytest
import trio
from node_pool import NOW_S, Member, Network, inline
from pool_fixture import POOL, key
from trio.testing import MockClock

from gossip import codec, sync
from gossip.address_book import REPLACED_AFTER_S
from gossip.addresses import make_address_record
from gossip.finding import PAGES_MAX, REISSUE_S, Finder
from gossip.serve import serve
from gossip.sync import ADDRESS_RANGES, AddressesRequest, AddressPage, parse_request
from gossip.wire import ADDRESS, encode_gossip


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def place(i: int) -> str:
    return f"/ip4/203.0.113.7/tcp/{4001 + i}"


def wire_of(i: int, issued_s: int = NOW_S, port: int = 0) -> bytes:
    return make_address_record(key(i), POOL, issued_s=issued_s, addresses=[place(i + port)])


def finder_of(member: Member, addresses: list[str] | None = None) -> Finder:
    """One whose peers are those that it knows an address of, besides the seed, which is member 0."""
    own = [place(member.i)] if addresses is None else addresses

    def connected() -> list[bytes]:
        network = member.network
        known = {0} | {i for i in range(network.n) if member.node.addresses.addresses(key(i).public)}
        inbound = {m.i for m in network.members if m.node.addresses.addresses(key(member.i).public)}
        return [key(i).public for i in sorted((known | inbound) - {member.i} - network.down)]

    finder = Finder(member.node, member, connected, lambda: own, interval_s=10.0)
    finder._random = random.Random(member.i)
    return finder


def knows(member: Member) -> set[int]:
    return {i for i in range(member.network.n) if member.node.addresses.addresses(key(i).public)}


async def test_everybody_finds_everybody_through_one_seed(autojump_clock: MockClock) -> None:
    network = Network(12)
    async with trio.open_nursery() as nursery:
        for member in network.members:
            nursery.start_soon(finder_of(member).run)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert all(knows(member) == set(range(12)) for member in network.members)
    assert len({member.node.addresses.digests() for member in network.members}) == 1
    assert all(not member.node.drops for member in network.members)


async def test_a_node_that_only_dials_issues_nothing_and_finds_all_the_others(autojump_clock: MockClock) -> None:
    network = Network(5)
    async with trio.open_nursery() as nursery:
        for member in network.members:
            nursery.start_soon(finder_of(member, [] if member.i == 4 else None).run)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert all(knows(member) == {0, 1, 2, 3} for member in network.members)
    assert network.members[4].node.outbox.statistics().current_buffer_used == 0


async def test_strangers_are_told_nothing() -> None:
    network = Network(2)
    node = network.members[0].node
    node.take_address(wire_of(0))
    stranger = key(9)
    own = make_address_record(stranger, POOL, issued_s=NOW_S, addresses=[place(9)])
    request = AddressesRequest(first=0, digests=bytes(ADDRESS_RANGES * 8), own=own)
    page = sync.parse_page(await serve(node, stranger.public, sync.encode_request(request)), request)
    assert page == AddressPage(next=ADDRESS_RANGES, wires=())
    assert node.addresses.wires() == (wire_of(0),)
    page = sync.parse_page(await serve(node, key(1).public, sync.encode_request(request)), request)
    assert page.wires == (wire_of(0),)
    assert dict(node.drops) == {"address: participant": 1}


# The own record.


def issued(member: Member) -> list[bytes]:
    found = []
    while member.node.outbox.statistics().current_buffer_used:
        found.append(member.node.outbox.receive_nowait())
    return found


async def test_the_own_record_is_issued_anew_on_change_and_every_some_hours(autojump_clock: MockClock) -> None:
    member = Network(2).members[0]
    addresses = [place(0)]
    finder = finder_of(member, addresses)
    finder.issue()
    finder.issue()
    assert issued(member) == [encode_gossip(ADDRESS, wire_of(0))]
    addresses[:] = [place(5)]
    finder.issue()  # in the same second: behind the first nevertheless
    assert issued(member) == [encode_gossip(ADDRESS, wire_of(0, NOW_S + 1, 5))]
    await trio.sleep(REISSUE_S)
    finder.issue()
    assert len(issued(member)) == 0
    await trio.sleep(2)
    finder.issue()
    assert issued(member) == [encode_gossip(ADDRESS, wire_of(0, NOW_S + REISSUE_S + 2, 5))]
    addresses.clear()
    finder.issue()  # it only dials from now on: the old record is taken back
    (last,) = issued(member)
    assert last == encode_gossip(
        ADDRESS, make_address_record(key(0), POOL, issued_s=NOW_S + REISSUE_S + 3, addresses=[])
    )
    assert member.node.addresses.addresses(key(0).public) == ()


async def test_a_clock_that_stepped_back_issues_behind_the_last_record(autojump_clock: MockClock) -> None:
    member = Network(2).members[0]
    member.node.take_address(wire_of(0, NOW_S + 100, 3))
    member.clock_offset_s = -5000
    finder_of(member).issue()
    record = member.node.addresses.record(key(0).public)
    assert record is not None
    assert (record.issued_s, record.addresses) == (NOW_S + 101, (place(0),))


# Peers that lie.


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"garbage",
        codec.encode((0, ())),
        codec.encode((ADDRESS_RANGES, (b"no record",))),
        codec.encode((ADDRESS_RANGES, (wire_of(9),))),
        codec.encode((ADDRESS_RANGES, (wire_of(2, NOW_S + 10_000),))),
        codec.encode((ADDRESS_RANGES, (wire_of(2)[:-1] + b"\x00",))),
        bytes(sync.RESPONSE_BYTES_MAX + 1),
    ],
    ids=["empty", "garbage", "no advance", "no record", "a stranger's", "the future's", "forged", "too long"],
)
async def test_what_is_wrong_is_counted_and_changes_nothing(autojump_clock: MockClock, page: bytes) -> None:
    network = Network(3)
    member = network.members[0]
    network.hostile[1] = lambda _request: page
    await finder_of(member).ask(key(1).public)
    assert sum(member.node.drops.values()) == 1
    assert member.node.addresses.wires() == ()


async def test_a_peer_that_always_has_one_more_page_is_left_after_some(autojump_clock: MockClock) -> None:
    network = Network(2)
    asked = []

    def endless(request: bytes) -> bytes:
        parsed = parse_request(request)
        assert isinstance(parsed, AddressesRequest)
        asked.append(parsed.first)
        return sync.encode_page(AddressPage(next=parsed.first + 1, wires=()))

    network.hostile[1] = endless
    await finder_of(network.members[0]).ask(key(1).public)
    assert asked == list(range(PAGES_MAX))


async def test_a_flood_of_records_makes_others_dial_no_more_often(autojump_clock: MockClock) -> None:
    """Each names another victim; a record of a key counts once a minute, whoever brings it."""
    network = Network(3)
    member = network.members[0]
    seen = set()
    for second in range(300):
        await member.node.take_gossip(encode_gossip(ADDRESS, wire_of(1, NOW_S + second, second)))
        seen.add(member.node.addresses.addresses(key(1).public))
        await trio.sleep(1)
    assert len(seen) <= 2 + 300 // REPLACED_AFTER_S
    assert len(member.node.addresses.wires()) == 1


async def test_an_old_record_that_is_replayed_changes_nothing(autojump_clock: MockClock) -> None:
    member = Network(2).members[0]
    old, new = wire_of(1, NOW_S - 10), wire_of(1, NOW_S, 1)
    for wire in (old, new, old):
        await trio.sleep(2 * REPLACED_AFTER_S)
        await member.node.take_gossip(encode_gossip(ADDRESS, wire))
    assert member.node.addresses.wires() == (new,)
    assert not member.node.drops
