"""Peers that lie with care, and peers that are merely slow: neither keeps from a node what others have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from node_pool import Member, Network, advanced, inline, until
from pool_fixture import POOL, START_S, Author, Chain, evidence, key, operator_set
from trio.testing import MockClock

from gossip import codec, sync
from gossip.epoch_events import Heard
from gossip.fetching import ATTACHMENT_TRIES, SHUN_S
from gossip.log_chain import BRANCHES_MAX, Head, RecordRange
from gossip.messages import Observation
from gossip.pull import BRANCH_PAUSE_S, EXCHANGE_S
from gossip.records import Record, make_record
from gossip.settlement import Base, Reading
from gossip.sync import RecordsRequest, WatermarksRequest, parse_request


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def first_and_last(n: int) -> tuple[int, int]:
    """Of `n` members those whose keys sort first and last: heads and ranges go in this order."""
    order = sorted(range(n), key=lambda i: key(i).public)
    return order[0], order[-1]


def others(network: Network, *taken: int) -> list[Member]:
    return [member for member in network.members if member.i not in taken]


def long_log(i: int) -> Author:
    """More records than one answer holds."""
    author = Author(i)
    author.prove()
    for _ in range(sync.RECORDS_MAX + 10):
        author.work(seconds=1)
    return author


async def give(member: Member, *records: Record) -> None:
    await member.node.take_records([record.wire for record in records])


def branch(author: Author, variant: int, length: int) -> list[Record]:
    """Records that follow the author's head, others for each `variant`."""
    made: list[Record] = []
    for i in range(length):
        previous = made[-1].hash if made else author.head.hash
        body = evidence(START_S + 100 * variant + i)
        made.append(make_record(key(author.i), POOL, author.head.seq + 1 + i, previous, body))
    return made


# Logs that cannot be fetched to their end.


@pytest.mark.parametrize(("mine", "theirs"), [(2, 2), (2, 1), (1, 2)])
async def test_a_long_log_that_is_forked_at_its_tip_keeps_back_no_other(
    autojump_clock: MockClock, mine: int, theirs: int
) -> None:
    network = Network(4)
    bad, honest = first_and_last(4)
    asked, asking = others(network, bad, honest)
    author, other = long_log(bad), Author(honest)
    branches = [branch(author, 1, mine), branch(author, 2, theirs)]
    for member, tip in ((asking, branches[0]), (asked, branches[1])):
        await give(member, *author.records, *tip)
    other.prove()
    await give(asked, *other.records, *(other.work() for _ in range(3)))
    await asking.puller.sync(asked.node.key.public)
    assert asking.node.logs[key(honest).public].head == other.head
    assert all(asking.node.logs[key(bad).public].knows(record.hash) for record in branches[1]), "nor itself"


async def test_a_branch_that_fills_an_answer_and_fits_nowhere_keeps_back_no_other(autojump_clock: MockClock) -> None:
    network = Network(4)
    bad, honest = first_and_last(4)
    asked, asking = others(network, bad, honest)
    long, other = long_log(bad), Author(honest)
    await give(asking, *branch(Author(bad), 1, 5))
    other.prove()
    await give(asked, *long.records, *other.records)
    await asking.puller.sync(asked.node.key.public)
    assert asking.node.logs[key(honest).public].head == other.head
    assert asking.node.logs[key(bad).public].holds(long.head)


async def test_a_branch_that_fits_nowhere_is_fetched_now_and_then(autojump_clock: MockClock) -> None:
    network = Network(2)
    asked, asking = network.members
    author = written(1, 3)
    for variant in range(BRANCHES_MAX):
        await give(asking, *author.records, *branch(author, variant, 1))
    await give(asked, *author.records, *branch(author, 99, 1))
    costs = []
    for pause_s in (0, 0, BRANCH_PAUSE_S):
        await trio.sleep(pause_s)
        before = network.requests
        assert not await asking.puller.sync(asked.node.key.public)
        costs.append(network.requests - before)
    assert costs == [2, 1, 2]


async def test_a_dead_log_of_which_one_side_kept_more_keeps_back_no_other(autojump_clock: MockClock) -> None:
    network = Network(4)
    bad, honest = first_and_last(4)
    asked, asking = others(network, bad, honest)
    dead, other = long_log(bad), Author(honest)
    await give(asked, *dead.records)
    for member in (asked, asking):
        member.node.machine.base = Base(readings={key(bad).public: Reading(dead=True)})
        member.node.logs.rebase(key(bad).public, Reading().head, 0, is_dead=True)
    assert asked.node.heads() == asking.node.heads(), "nothing above a dead log's base is told"
    other.prove()
    await give(asked, *other.records)
    before = network.requests
    assert await asking.puller.sync(asked.node.key.public)
    assert asking.node.logs[key(honest).public].head == other.head
    assert network.requests == before + 2
    assert not asking.node.drops


# Peers that are correct and slow.


ANSWER_S = 14.9
"""Just before the transport gives a peer up."""


def slow_down(network: Network, slow: set[int], answer: Callable[[bytes], bytes] | None = None) -> None:
    """Let these members answer after `ANSWER_S`: with `answer`, or with what they hold."""
    real = network.request

    async def request(asker: int, peer: bytes, payload: bytes) -> bytes:
        if network.index[peer] not in slow:
            await trio.sleep(0.05)
            return await real(asker, peer, payload)
        await trio.sleep(ANSWER_S)
        return answer(payload) if answer is not None else await real(asker, peer, payload)

    network.request = request  # type: ignore[method-assign]


def drip(author: Author) -> Callable[[bytes], bytes]:
    """Name all of the author's records, and hand over one at a time."""

    def answer(payload: bytes) -> bytes:
        request = parse_request(payload)
        match request:
            case WatermarksRequest():
                return sync.encode_heads({key(author.i).public: author.head})
            case RecordsRequest(ranges):
                return sync.encode_records([author.records[min(ranges[0].first, len(author.records)) - 1].wire])
            case _:
                return codec.encode(None)

    return answer


def written(i: int, count: int) -> Author:
    author = Author(i)
    author.prove()
    for _ in range(count - 1):
        author.work(seconds=1)
    return author


async def test_slow_participants_do_not_delay_that_the_own_log_is_known(autojump_clock: MockClock) -> None:
    network = Network(10)
    slow_down(network, set(range(4, 10)), drip(written(9, 100)))
    with trio.move_on_after(5) as limit:
        await network.members[0].puller.recover_own_log(operator_set(4))
    assert not limit.cancelled_caught


async def test_slow_operators_of_less_than_a_third_delay_it_by_moments(autojump_clock: MockClock) -> None:
    network = Network(7)
    slow_down(network, {1, 2}, drip(written(1, 100)))
    with trio.move_on_after(5) as limit:
        await network.members[0].puller.recover_own_log(operator_set(7))
    assert not limit.cancelled_caught


async def test_an_exchange_with_a_peer_that_drips_ends_and_what_it_brought_is_kept(autojump_clock: MockClock) -> None:
    network = Network(3)
    dripping = key(2).public
    slow_down(network, {2}, drip(written(2, 100)))
    puller = network.members[0].puller
    began_s = trio.current_time()
    assert not await puller._guarded(dripping, puller.sync)
    assert trio.current_time() - began_s <= EXCHANGE_S
    assert network.members[0].node.logs[dripping].head.seq == 1
    assert network.members[0].node.drops == {"peer: took too long": 1}
    assert {puller._pick() for _ in range(20)} == {key(1).public}
    await trio.sleep(SHUN_S)
    assert {puller._pick() for _ in range(20)} == {key(1).public, dripping}


async def test_a_peer_that_is_slow_and_brings_nothing_is_left_alone(autojump_clock: MockClock) -> None:
    network = Network(3)
    slow_down(network, {2})
    puller = network.members[0].puller
    assert await puller._guarded(key(2).public, puller.sync)
    assert {puller._pick() for _ in range(20)} == {key(1).public}


async def test_a_step_of_the_node_is_not_cut_short_by_the_end_of_an_exchange(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held in memory and not in the store would be told, and lost."""
    network = Network(2)
    member, author = network.members[0], written(1, 5)

    async def slow_disk(function: Callable[..., object], *arguments: object, **_options: object) -> object:
        await trio.sleep(2 * EXCHANGE_S)
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", slow_disk)

    async def take(_peer: bytes) -> bool:
        await give(member, *author.records)
        return True

    await member.puller._guarded(key(1).public, take)
    assert member.node.logs[key(1).public].head == author.head
    assert len(list(member.store.all_records())) == 5


async def test_peers_that_drip_hold_up_a_branch_that_a_close_needs_for_moments(autojump_clock: MockClock) -> None:
    network, chain = Network(8), Chain(operator_set(8))
    author = written(7, 60)
    trunk = Author(7)
    trunk.head = Head(author.records[58].seq, author.records[58].hash)
    fork = branch(trunk, 1, 2)
    me, holder = network.members[0], network.members[1]
    await give(me, *author.records)
    for member in network.members[1:4]:
        await give(member, *author.records[:59], *fork)
    for member in network.members:
        await member.node.handle(advanced(chain, 8))
    slow_down(network, {4, 5, 6, 7}, drip(author))
    observation = next(m for m in holder.node.machine.messages(1) if isinstance(m, Observation))
    await me.node.handle(Heard(observation))
    wanted = observation.logs[key(7).public].head

    async def look_on() -> None:
        while True:
            await trio.sleep(3)
            chain.now_s += 3
            await me.node.handle(advanced(chain, 8))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(me.puller._fetch_wanted)
        nursery.start_soon(look_on)
        await until(lambda: me.node.logs[key(7).public].holds(wanted), limit_s=5 * EXCHANGE_S)
        nursery.cancel_scope.cancel()
    assert me.node.logs[key(7).public].fork is not None


async def test_a_page_without_news_that_does_not_advance_is_the_last(autojump_clock: MockClock) -> None:
    network = Network(2)
    member, author = network.members[0], written(1, 100)
    await give(member, *author.records)
    network.hostile[1] = lambda _request: sync.encode_records([author.records[0].wire])
    assert not await member.puller._fetch_range(RecordRange(key(1).public, 1, 100), key(1).public)
    assert network.requests == 1


# Hints.


async def test_claims_of_slow_participants_do_not_hold_up_what_operators_announce(autojump_clock: MockClock) -> None:
    network, chain = Network(10), Chain(operator_set(10))
    member, *rest = network.members
    for each in network.members:
        await each.node.handle(advanced(chain, 10))
    made = [next(m for m in each.node.machine.messages(1) if isinstance(m, Observation)) for each in rest[:5]]
    slow_down(network, set(range(6, 10)), lambda _request: codec.encode(None))
    for i in range(6, 10):
        member.node.hear_of(1, [bytes([i, k]) + bytes(30) for k in range(256)], key(i).public)
    for observation in made:
        member.node.hints.note_announced(observation.digest, observation.operator)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller._fetch_wanted)
        await until(lambda: member.node.machine.progress().observations == 6, limit_s=2)
        await until(lambda: not member.node.hints, limit_s=4 * ANSWER_S)
        nursery.cancel_scope.cancel()
    assert all(member.node.machine.observation(observation.digest) is not None for observation in made)


async def test_an_attachment_that_nobody_has_is_given_up_and_wanted_again_with_its_record(
    autojump_clock: MockClock,
) -> None:
    network = Network(3)
    node = network.members[0].node
    record = make_record(key(2), POOL, 1, bytes(32), replace(evidence(START_S), collateral_digest=b"\x01" * 32))
    await node.take_records([record.wire])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.members[0].puller._fetch_wanted)
        await until(lambda: not node.hints)
        nursery.cancel_scope.cancel()
    assert network.requests == ATTACHMENT_TRIES
    await node.take_records([record.wire])
    assert {wanted.id for wanted in node.all_wanted} == {b"\x01" * 32}
