"""Direct streams alone bring every store level, whatever some of the peers answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import trio
from node_pool import LIMIT_S, NOW_S, Member, MemoryStore, Network, advanced, follow, inline, tick, until
from pool_fixture import POOL, START_S, Author, Chain, evidence, frame, key, operator_set, work
from trio.testing import MockClock

from gossip import codec, sync
from gossip.epoch_events import Heard, ObjectId
from gossip.errors import OwnForkError
from gossip.log_chain import GENESIS, Head
from gossip.messages import Observation, ObservedLog, make_observation
from gossip.records import CloseBody, Record, make_record
from gossip.sync import ObjectRequest, RecordsRequest, WatermarksRequest, parse_request


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def heads(member: Member) -> dict[bytes, Head]:
    return {node_key: member.node.logs[node_key].head for node_key in member.node.logs}


async def write(member: Member, count: int) -> list[Record]:
    records = [await member.node.append(evidence(NOW_S))]
    for i in range(count - 1):
        start_s = NOW_S - 1000 + 10 * i
        records.append(await member.node.append(work(start_s, start_s + 10, 100, records[0].hash)))
    return records


# Anti-entropy.


async def test_records_spread_by_anti_entropy_alone(autojump_clock: MockClock) -> None:
    network = Network(4)
    for member in network.members:
        await write(member, 3 + member.i)  # all their gossip is lost
    async with trio.open_nursery() as nursery:
        for member in network.members:
            nursery.start_soon(member.puller.run)
        await until(lambda: all(heads(m) == heads(network.members[0]) for m in network.members))
        nursery.cancel_scope.cancel()
    wires = {frozenset(m.store.all_records()) for m in network.members}
    assert len(wires) == 1
    assert len(wires.pop()) == 3 + 4 + 5 + 6
    assert all(not m.node.drops for m in network.members)


async def test_a_partition_heals(autojump_clock: MockClock) -> None:
    network = Network(3)
    async with trio.open_nursery() as nursery:
        for member in network.members:
            nursery.start_soon(member.puller.run)
        network.down = {2}
        await write(network.members[0], 5)
        await write(network.members[2], 5)
        await until(lambda: heads(network.members[1])[key(0).public].seq == 5)
        assert heads(network.members[1])[key(2).public] == GENESIS
        assert heads(network.members[2])[key(0).public] == GENESIS
        network.down = set()
        await until(lambda: heads(network.members[0]) == heads(network.members[2]))
        nursery.cancel_scope.cancel()
    assert heads(network.members[2])[key(0).public].seq == 5


async def test_a_backlog_of_many_batches_comes_in_one_sync(autojump_clock: MockClock) -> None:
    network = Network(2)
    author = Author(0)
    author.prove()
    for _ in range(2 * sync.RECORDS_MAX):
        author.work(seconds=1)
    await network.members[0].node.take_records([r.wire for r in author.records])
    await network.members[1].puller.sync(key(0).public)
    assert heads(network.members[1])[key(0).public] == author.head


async def test_both_branches_of_a_fork_reach_everyone(autojump_clock: MockClock) -> None:
    network = Network(2)
    for i, member in enumerate(network.members):
        branch = make_record(key(0), POOL, 1, bytes(32), evidence(START_S + i))
        await member.node.take_records([branch.wire])
    for member, peer in ((0, 1), (1, 0)):
        await network.members[member].puller.sync(key(peer).public)
    for member in network.members:
        (fork,) = member.node.logs.forks()
        assert (fork.node_key, fork.seq) == (key(0).public, 1)


# Peers that lie.


def lie(answer: bytes) -> Callable[[bytes], bytes]:
    return lambda _request: answer


HEAD_OF_NOTHING = sync.encode_heads({key(0).public: Head(1000, b"\x01" * 32)})


@pytest.mark.parametrize(
    "hostile",
    [
        lie(b""),
        lie(b"garbage"),
        lie(codec.encode(None)),
        lie(codec.encode(((bytes(32), -1, bytes(32)),))),
        lie(codec.encode(tuple((bytes(32), 1, bytes(32)) for _ in range(sync.LOGS_MAX + 1)))),
        lie(bytes(sync.RESPONSE_BYTES_MAX + 1)),
        lambda request: HEAD_OF_NOTHING if b"watermarks" in request else sync.encode_records([]),
        lambda request: HEAD_OF_NOTHING if b"watermarks" in request else sync.encode_records([b"no record"]),
        lambda request: HEAD_OF_NOTHING if b"watermarks" in request else sync.encode_object(b"x"),
    ],
    ids=[
        "empty", "garbage", "nil", "bad head", "too many", "too long", "no records", "bad records", "another answer",
    ],
)  # fmt: skip
async def test_a_peer_that_answers_garbage_is_counted_and_the_others_are_asked_on(
    autojump_clock: MockClock, hostile: Callable[[bytes], bytes]
) -> None:
    network = Network(3)
    network.hostile[1] = hostile
    await write(network.members[2], 4)
    member = network.members[0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller.run)
        await until(lambda: heads(member)[key(2).public].seq == 4)
        nursery.cancel_scope.cancel()
    assert heads(member)[key(0).public] == GENESIS
    assert len(list(member.store.all_records())) == 4


async def test_random_answers_to_everything_change_nothing(autojump_clock: MockClock) -> None:
    network = Network(2)
    draw = random.Random(11)
    member, chain = network.members[0], Chain(operator_set(2))
    await member.node.handle(advanced(chain, 2))
    writes = list(member.store.writes)

    def answer(_request: bytes) -> bytes:
        size = draw.randrange(60)
        items = [draw.randbytes(32), draw.randrange(5), None, draw.randbytes(9), "text", (draw.randbytes(32),) * 2, ()]
        return draw.choice([draw.randbytes(size), codec.encode(tuple(draw.choices(items, k=draw.randrange(6))))])

    network.hostile[1] = answer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller.run)
        await trio.sleep(LIMIT_S * 10)
        nursery.cancel_scope.cancel()
    assert member.store.writes == writes
    assert sum(member.node.drops.values()) > 100
    assert len(member.node.drops) < 20


async def test_an_unreachable_peer_is_counted(autojump_clock: MockClock) -> None:
    network = Network(2)
    network.down = {1}
    member = network.members[0]
    member.puller._peers = lambda: [key(1).public]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller.run)
        await until(lambda: member.node.drops["peer: PeerUnavailableError"] >= 3)
        nursery.cancel_scope.cancel()
    assert set(member.node.drops) == {"peer: PeerUnavailableError"}


async def test_an_object_other_than_the_one_asked_for_is_dropped(autojump_clock: MockClock) -> None:
    network = Network(2)
    member, chain = network.members[0], Chain(operator_set(2))
    await member.node.handle(advanced(chain, 2))
    other = make_observation(
        key(1),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=frame(2).policy.hash,
        base=bytes(32),
        logs={key(i).public: ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0) for i in range(2)},
        forks=(),
    )
    network.hostile[1] = lie(sync.encode_object(other.wire))
    for kind in ("observation", "checkpoint", "attachment"):
        wanted = ObjectId(kind=kind, id=b"\x07" * 32)
        assert not await member.puller._guarded(
            key(1).public, lambda peer, wanted=wanted: member.puller._fetch_object(peer, wanted)
        )
    assert sum(member.node.drops.values()) == 3
    assert member.store.objects == MemoryStore().objects
    assert member.node.machine.progress().observations == 1


async def test_an_observation_is_passed_on_by_who_did_not_make_it(autojump_clock: MockClock) -> None:
    """Large ones never travel by gossip: nobody should have to meet every maker."""
    network, chain = Network(3), Chain(operator_set(3))
    for member in network.members:
        await member.node.handle(advanced(chain, 3))
    maker, between, last = network.members
    made = [m for m in maker.node.machine.messages(1) if isinstance(m, Observation)]
    assert len(made) == 1
    await between.node.handle(Heard(made[0]))
    assert between.store.observation(made[0].digest) is None
    network.down = {0}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(last.puller.run)
        await until(lambda: last.node.machine.observation(made[0].digest) is not None)
        nursery.cancel_scope.cancel()


# The own log.


async def recover(member: Member, n: int = 4) -> None:
    with trio.fail_after(60):
        await member.puller.recover_own_log(operator_set(n))


async def test_a_fresh_node_is_ready_when_enough_operators_answered(autojump_clock: MockClock) -> None:
    network = Network(4)
    network.down = {2, 3}  # with itself and one other, two of four: not more than two thirds
    with pytest.raises(trio.TooSlowError):
        await recover(network.members[0])
    network.down = {3}
    await recover(network.members[0])
    assert heads(network.members[0])[key(0).public] == GENESIS


async def test_exactly_two_thirds_of_the_operators_are_not_enough(autojump_clock: MockClock) -> None:
    network = Network(3)
    network.down = {2}
    with pytest.raises(trio.TooSlowError):
        await recover(network.members[0], 3)
    network.down = set()
    await recover(network.members[0], 3)
    assert network.requests > 0


async def test_a_restored_database_learns_its_newer_records_and_goes_on_behind_them(autojump_clock: MockClock) -> None:
    network = Network(4)
    member = network.members[0]
    records = await write(member, 8)
    await network.members[2].node.take_records([r.wire for r in records])
    member.store.own = [r.wire for r in records[:3]]
    member.store.by_number = {(r.node_key, r.seq): [r] for r in records[:3]}
    member.open()
    assert heads(member)[key(0).public].seq == 3
    await recover(member)
    assert heads(member)[key(0).public].hash == records[-1].hash
    following = await member.node.append(CloseBody())
    assert (following.seq, following.prev_hash) == (9, records[-1].hash)


async def lost_branch(network: Network, held: Sequence[Record], lost: Sequence[Record]) -> Member:
    """Member 0 holds `held`, member 1 what member 0 signed before its database was replaced."""
    member = network.members[0]
    member.store.append(held)
    member.open()
    await network.members[1].node.take_records([r.wire for r in lost])
    return member


@pytest.mark.parametrize(("mine", "theirs"), [(1, 1), (3, 1), (1, 3), (2, 2)])
async def test_a_log_that_peers_contradict_is_not_continued(autojump_clock: MockClock, mine: int, theirs: int) -> None:
    branches = []
    for variant, length in ((1, mine), (2, theirs)):
        author = Author(0)
        author.prove()
        for i in range(length):
            author.append(evidence(START_S + 10 * variant + i))
        branches.append(author.records)
    network = Network(4)
    member = await lost_branch(network, *branches)
    with pytest.raises(OwnForkError):
        await recover(member)
    with pytest.raises(OwnForkError):
        await member.node.append(CloseBody())


async def test_a_peer_that_names_a_head_and_does_not_show_it_does_not_count(autojump_clock: MockClock) -> None:
    """One that lies must not let a node go on that does not know its own log, nor keep it from the others."""
    network = Network(4)
    boast = sync.encode_heads({key(0).public: Head(9, b"\x01" * 32)})
    for i in (1, 2):
        network.hostile[i] = lambda request: boast if b"watermarks" in request else sync.encode_records([])
    member = network.members[0]
    with pytest.raises(trio.TooSlowError):
        await recover(member)
    del network.hostile[2]
    await recover(member)
    assert member.node.drops["answer: watermarks"] > 0


async def test_a_clock_that_is_behind_does_not_hide_a_lost_record(autojump_clock: MockClock) -> None:
    """A virtual machine restored with an old disk and an old clock must not sign a number twice."""
    network = Network(4)
    record = make_record(key(0), POOL, 1, bytes(32), work(NOW_S - 10, NOW_S, 1, bytes(32)))
    for member in network.members[1:]:
        await member.node.take_records([record.wire])
    member = network.members[0]
    member.clock_offset_s = -7200
    with pytest.raises(trio.TooSlowError):
        await recover(member)
    member.clock_offset_s = 0
    await recover(member)
    assert heads(member)[key(0).public].hash == record.hash


async def test_a_large_own_log_is_learnt_to_its_end(autojump_clock: MockClock) -> None:
    network = Network(4)
    large = Author(0)
    for i in range(80):  # more than one answer holds
        large.append(evidence_of(14_000, i))
    lost = [*large.records, large.append(CloseBody())]
    fork = make_record(key(0), POOL, 80, large.records[78].hash, evidence_of(10, 0))
    member = await lost_branch(network, [*large.records[:79], fork], lost)
    with pytest.raises(OwnForkError):
        await recover(member)


def evidence_of(size: int, variant: int) -> object:
    body = evidence(START_S + variant)
    return type(body)(
        quote=bytes(size),
        collateral_digest=body.collateral_digest,
        gpu_digest=None,
        handshake_digest=None,
        anchor_seqno=body.anchor_seqno,
        anchor_root_hash=body.anchor_root_hash,
        anchor_time_s=body.anchor_time_s,
    )


# The close.


async def test_direct_streams_alone_settle_an_epoch_and_bring_back_who_was_away(autojump_clock: MockClock) -> None:
    """Invariant 7: all of gossip is lost; and a node that missed it all takes the checkpoint from peers."""
    network, chain = Network(4), Chain(operator_set(4))
    advanced(chain, 4)
    for member in network.members[:3]:
        author = Author(member.i)
        records = [author.prove(), author.work(seconds=50, tokens=5000)]
        await member.node.take_records([r.wire for r in records])
    network.down = {3}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, chain)
        for member in network.members[:3]:
            nursery.start_soon(member.puller.run)
        await until(lambda: len({frozenset(m.store.all_records()) for m in network.members[:3]}) == 1)
        for member in network.members[:3]:
            nursery.start_soon(follow, member, chain)
        await until(lambda: chain.landed.epoch >= 1)
        await until(lambda: all(m.node.machine.base.epoch >= 1 for m in network.members[:3]))
        network.down = set()
        away = network.members[3]
        nursery.start_soon(away.puller.run)
        nursery.start_soon(follow, away, chain)
        await until(lambda: away.node.machine.base.payload_hash == chain.landed.payload_hash)
        nursery.cancel_scope.cancel()
    assert len({m.node.machine.base.payload_hash for m in network.members}) == 1
    assert chain.payloads[0].total_earned_nanoton > 0
    assert all(m.store.last_landed() is not None for m in network.members)
    assert all(not m.node.drops["proposal: proposal"] for m in network.members)


async def test_requests_are_the_ones_of_the_protocol(autojump_clock: MockClock) -> None:
    """What a node asks can be parsed by its own rules, within the limits."""
    network = Network(2)
    asked = []

    def record(request: bytes) -> bytes:
        parsed = parse_request(request)
        asked.append(type(parsed))
        match parsed:
            case WatermarksRequest():
                return HEAD_OF_NOTHING
            case RecordsRequest():
                return sync.encode_records([])
            case ObjectRequest():
                return sync.encode_object(None)
            case _:
                return sync.encode_close(sync.CloseState(observations=(b"\x01" * 32,)))

    network.hostile[1] = record
    member = network.members[0]
    await member.node.handle(advanced(Chain(operator_set(2)), 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.puller.run)
        await until(lambda: len(set(asked)) == 4)
        nursery.cancel_scope.cancel()
    assert not member.node.drops
