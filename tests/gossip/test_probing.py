"""Probing: everybody is asked once in each bucket, at a moment that nobody can foresee, and only an answer counts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from node_pool import NOW_S, Member, Network, inline
from pool_fixture import key
from trio.testing import MockClock

from gossip import sync
from gossip.errors import PeerNotConnectedError, PeerUnavailableError
from gossip.probing import IN_FLIGHT_MAX, Prober, ProbeSchedule
from gossip.settlement import Base, Reading

BUCKET_S = 300


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def keys(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


def taken(schedule: ProbeSchedule, now_s: int) -> list[bytes]:
    found = []
    while (peer := schedule.take(now_s)) is not None:
        found.append(peer)
    return found


# The schedule.


@given(st.integers(0, 10**6), st.integers(1, 3600), st.integers(0, 50), st.integers())
def test_everybody_has_one_moment_within_the_bucket(now_s: int, bucket_s: int, count: int, seed: int) -> None:
    schedule = ProbeSchedule(bucket_s, random.Random(seed))
    assert schedule.turn(now_s, keys(count))
    end_s = (now_s // bucket_s + 1) * bucket_s
    assert sorted(taken(schedule, end_s - 1)) == keys(count), "each in time"
    assert not schedule.turn(end_s - 1, keys(count))
    assert taken(schedule, end_s) == []
    assert schedule.turn(end_s, keys(count))


def test_moments_lie_evenly_and_differ_from_bucket_to_bucket() -> None:
    schedule = ProbeSchedule(BUCKET_S, random.Random(1))
    orders = []
    for bucket in range(3):
        start_s = bucket * BUCKET_S
        schedule.turn(start_s, keys(1000))
        tenths = [taken(schedule, start_s + tenth * BUCKET_S // 10) for tenth in range(1, 11)]
        assert all(60 < len(each) < 140 for each in tenths)  # of 1,000 in tenths: no burst anywhere
        orders.append([peer for each in tenths for peer in each])
    assert len({tuple(order) for order in orders}) == 3


def test_a_bucket_that_runs_already_is_used_for_what_is_left_of_it() -> None:
    schedule = ProbeSchedule(BUCKET_S, random.Random(1))
    schedule.turn(290, keys(100))
    assert taken(schedule, 289) == []
    assert len(taken(schedule, 297)) == 100


def test_who_does_not_answer_has_one_more_moment_later_in_the_same_bucket() -> None:
    schedule = ProbeSchedule(BUCKET_S, random.Random(1))
    schedule.turn(0, keys(1))
    (peer,) = taken(schedule, BUCKET_S)
    schedule.retry(peer, 200)
    assert taken(schedule, 200) == []
    assert taken(schedule, BUCKET_S) == [peer]
    schedule.retry(peer, 250)
    assert taken(schedule, BUCKET_S) == []


def test_a_failure_that_comes_too_late_plans_nothing_in_the_next_bucket() -> None:
    schedule = ProbeSchedule(BUCKET_S, random.Random(1))
    schedule.turn(0, keys(1))
    (peer,) = taken(schedule, BUCKET_S)
    schedule.retry(peer, BUCKET_S + 1)
    assert taken(schedule, 10 * BUCKET_S) == []


def test_what_is_left_of_a_bucket_is_dropped_when_the_next_begins() -> None:
    schedule = ProbeSchedule(BUCKET_S, random.Random(1))
    schedule.turn(0, keys(10))
    schedule.turn(BUCKET_S, keys(3))
    assert len(taken(schedule, 2 * BUCKET_S)) == 3


# The prober, over a network.


def prober_of(member: Member, count: int = 4) -> Prober:
    prober = Prober(member.node, member, lambda: [key(i).public for i in range(count)])
    prober._random = random.Random(member.i)
    return prober


async def probe_for(member: Member, duration_s: float, count: int = 4) -> None:
    with trio.move_on_after(duration_s):
        await prober_of(member, count).run()


async def test_each_bucket_is_credited_once_for_everybody_who_answers(autojump_clock: MockClock) -> None:
    network = Network(4)
    network.down = {3}
    member = network.members[0]
    await probe_for(member, 50)  # ten buckets of five seconds, NOW_S begins one
    assert NOW_S % 5 == 0
    assert member.node.witness.seconds == {key(i).public: 50 for i in range(3)}
    assert network.requests <= 10 * (2 + 2), "nobody is asked more than once, but for one more time"
    assert not member.node.drops


async def test_one_probe_that_is_lost_costs_nothing_and_two_cost_the_bucket(autojump_clock: MockClock) -> None:
    network = Network(2)
    member, asked = network.members[0], Counter[int]()

    async def request(peer: bytes, payload: bytes, **_limits: float) -> bytes:
        bucket = network.now_s() // BUCKET_S
        asked[bucket] += 1
        if asked[bucket] <= 1 + bucket % 2:
            raise PeerUnavailableError("lost")
        return await network.request(0, peer, payload)

    member.request = request  # type: ignore[method-assign]
    member.node.witness.bucket_s = BUCKET_S
    await probe_for(member, 10 * BUCKET_S - NOW_S % BUCKET_S, 2)
    assert set(asked.values()) == {2}
    assert member.node.witness.seconds[key(1).public] == 5 * BUCKET_S


async def test_who_is_not_connected_has_no_second_chance(autojump_clock: MockClock) -> None:
    """Being there half of the time is worth half of the time."""
    network = Network(2)
    member, asked = network.members[0], Counter[int]()

    async def request(peer: bytes, payload: bytes, **_limits: float) -> bytes:
        asked[network.now_s() // 20] += 1
        if network.now_s() % 2:
            raise PeerNotConnectedError("off")
        return await network.request(0, peer, payload)

    member.request = request  # type: ignore[method-assign]
    member.node.witness.bucket_s = 20
    await probe_for(member, 100 * 20, 2)
    assert set(asked.values()) == {1}
    assert 30 * 20 < member.node.witness.seconds[key(1).public] < 70 * 20


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage", sync.encode_object(bytes(32)), sync.encode_object(bytes(64)), sync.encode_records([])],
    ids=["empty", "garbage", "another nonce", "too long", "no nonce"],
)
async def test_an_answer_without_the_nonce_is_no_sign_of_life(autojump_clock: MockClock, answer: bytes) -> None:
    """Nor is one that was recorded: the nonce is new each time."""
    network = Network(2)
    member = network.members[0]
    network.hostile[1] = lambda _request: answer
    await probe_for(member, 20, 2)
    assert member.node.witness.seconds == {key(0).public: 20}
    assert sum(member.node.drops.values()) >= 4


async def test_neither_requests_nor_records_of_a_peer_credit_it(autojump_clock: MockClock) -> None:
    network = Network(2)
    await network.members[1].puller.sync(key(0).public)
    await network.members[0].puller.sync(key(1).public)
    assert network.members[0].node.witness.seconds == {}


async def test_who_does_not_witness_probes_nobody(autojump_clock: MockClock) -> None:
    network = Network(2)
    member = network.members[0]
    with trio.move_on_after(20):
        await Prober(member.node, member, lambda: ()).run()
    assert network.requests == 0
    assert member.node.witness.seconds == {}


async def test_readings_go_on_from_the_base_and_let_go_of_who_is_gone(autojump_clock: MockClock) -> None:
    network = Network(2)
    member = network.members[0]
    member.node.witness._seconds[b"x" * 32] = 5
    member.node.machine.base = Base(readings={key(1).public: Reading(witnessed_s=1000)})
    await probe_for(member, 10, 2)
    assert member.node.witness.seconds == {key(0).public: 10, key(1).public: 1005}


async def test_silent_peers_hold_up_nobody_else(autojump_clock: MockClock) -> None:
    """Those that are connected and do not answer wait for their time limit, side by side."""
    network = Network(2)
    member = network.members[0]
    under_way = most = 0

    async def request(_peer: bytes, _payload: bytes, *, timeout_s: float, **_limits: float) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await trio.sleep(timeout_s)
        finally:
            under_way -= 1
        return b""

    member.request = request  # type: ignore[method-assign]
    prober = Prober(member.node, member, lambda: keys(1000))
    prober._random = random.Random(0)
    with trio.move_on_after(30):
        await prober.run()
    assert most == IN_FLIGHT_MAX
    assert under_way == 0
