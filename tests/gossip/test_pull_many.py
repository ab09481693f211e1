"""What is wanted comes from many peers at once; what was merely heard of costs little."""

from __future__ import annotations

import pytest
import trio
from node_pool import LIMIT_S, Network, advanced, inline, until
from pool_fixture import Author, Chain, key, operator_set
from trio.testing import MockClock

from gossip import wire
from gossip.epoch_events import Heard
from gossip.errors import PeerUnavailableError
from gossip.fetching import FETCHES_MAX, GAP_SPACING_S
from gossip.log_chain import RecordRange
from gossip.messages import Observation
from gossip.wire import NOTICE, RECORD, encode_gossip, parse_gossip


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


async def closing(n: int) -> Network:
    """A pool of operators that each observed the end of epoch 1, and told nobody."""
    network, chain = Network(n), Chain(operator_set(n))
    for member in network.members:
        await member.node.handle(advanced(chain, n))
    return network


TIMEOUT_S = 15
"""When the transport gives a peer up."""


async def test_six_of_nine_peers_that_never_answer_cost_a_timeout_or_two(autojump_clock: MockClock) -> None:
    network = await closing(10)
    member, *others = network.members
    made = [m for other in others for m in other.node.machine.messages(1) if isinstance(m, Observation)]
    for holder in others[6:]:
        for observation in made:
            await holder.node.handle(Heard(observation))
    answer = network.request

    async def request(asker: int, peer: bytes, payload: bytes) -> bytes:
        if network.index[peer] <= 6:
            await trio.sleep(TIMEOUT_S)
            raise PeerUnavailableError("silent")
        return await answer(asker, peer, payload)

    network.request = request  # type: ignore[method-assign]
    for silent in others[:6]:
        member.node.hear_of(1, [o.digest for o in made], silent.node.key.public)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller.run)
        await until(lambda: member.node.machine.progress().observations == 10, limit_s=3 * TIMEOUT_S)
        nursery.cancel_scope.cancel()
    assert all(member.node.machine.observation(observation.digest) is not None for observation in made)


async def test_an_observation_too_large_for_gossip_is_announced_and_fetched_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "GOSSIP_BYTES_MAX", 300)
    network = await closing(3)
    maker, taker, outsider = network.members
    (data,) = [data for data in drained(maker.node.outbox) if parse_gossip(data)[0] == NOTICE]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.puller.run)
        await taker.node.take_gossip(data, maker.node.key.public)
        await until(lambda: taker.node.machine.progress().observations == 2, limit_s=2)
        nursery.cancel_scope.cancel()
    assert network.requests == 1
    for origin in (None, key(77).public):
        await outsider.node.take_gossip(data, origin)
    assert not outsider.node.hints, "worth nothing from anybody but an operator"


def drained(channel: trio.MemoryReceiveChannel[bytes]) -> list[bytes]:
    return [channel.receive_nowait() for _ in range(channel.statistics().current_buffer_used)]


async def test_notices_of_nothing_are_dropped_with_the_first_that_their_source_does_not_have(
    autojump_clock: MockClock,
) -> None:
    network = await closing(3)
    member = network.members[0]
    member.node.hear_of(1, [bytes([i]) * 32 for i in range(50)], key(1).public)
    member.node.hear_of(2, [bytes([99]) * 32], key(1).public)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller._fetch_wanted)
        await until(lambda: not member.node.hints)
        await trio.sleep(LIMIT_S)
        nursery.cancel_scope.cancel()
    assert 0 < network.requests <= FETCHES_MAX // 2


async def test_a_record_whose_predecessor_was_lost_has_it_fetched_soon(autojump_clock: MockClock) -> None:
    network = Network(2)
    author = Author(0)
    records = [author.prove(), *(author.work() for _ in range(5))]
    holder, member = network.members
    await holder.node.take_records([r.wire for r in records])
    await member.node.take_records([records[0].wire])
    log = member.node.logs[key(0).public]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller._fetch_wanted)
        await member.node.take_gossip(encode_gossip(RECORD, records[-1].wire))
        await until(lambda: log.head == author.head, limit_s=2)
        await trio.sleep(LIMIT_S)
        nursery.cancel_scope.cancel()
    assert network.requests == 1


async def test_a_participant_that_skips_numbers_costs_a_request_now_and_then(autojump_clock: MockClock) -> None:
    network = Network(2)
    member, author = network.members[1], Author(0)
    records = [author.prove(), *(author.work() for _ in range(200))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller._fetch_wanted)
        for record in records[1:]:
            await member.node.take_gossip(encode_gossip(RECORD, record.wire))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert 0 < network.requests <= 200 / GAP_SPACING_S + 1


async def test_a_branch_below_the_own_head_is_fetched_whole(autojump_clock: MockClock) -> None:
    """What a proposal lists may stand on a fork that began anywhere above the base."""
    network, branches = Network(2), [Author(0), Author(0)]
    for variant, author in enumerate(branches):
        author.prove()
        author.end_s += variant
        for _ in range(4):
            author.work()
    member, other = network.members
    for each, author in zip(network.members, branches, strict=True):
        await each.node.take_records([r.wire for r in author.records])
    wanted = RecordRange(key(0).public, 1, branches[1].head.seq)
    peers, plan = [other.node.key.public], member.puller._plan
    (narrow,) = plan.next([wanted], {}, peers, 0)
    assert not await member.puller._perform(narrow, peers[0]), "its last record alone follows none that is here"
    plan.done(narrow, 0, has_brought=False)
    (whole,) = plan.next([wanted], {}, peers, 1)
    assert await member.puller._perform(whole, peers[0])
    assert member.node.logs[key(0).public].holds(branches[1].head)


async def test_logs_of_those_who_left_are_not_named_once_they_are_settled(autojump_clock: MockClock) -> None:
    """What is said of logs does not grow with everybody who was ever in the pool."""
    member, author = Network(3).members[0], Author(2)
    await member.node.take_records([author.prove().wire])
    member.node.register(key(i).public for i in range(2))
    assert set(member.node.heads()) == {key(i).public for i in range(3)}, "its record is not counted yet"
    member.node.logs.rebase(key(2).public, author.head, 0)
    assert set(member.node.heads()) == {key(i).public for i in range(2)}
