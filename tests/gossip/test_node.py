"""The node: durable before sent, one step at a time, and nothing that a peer sends ends it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio
from node_pool import NOW_S, DiskError, MemoryStore, Network, advanced, inline
from pool_fixture import POOL, START_S, Author, Chain, evidence, key, operator_set, work

from gossip import codec
from gossip.epoch_events import Advanced, Heard, Submit
from gossip.errors import InvalidMessageError, OwnForkError
from gossip.log_chain import GENESIS, Placement
from gossip.messages import Attest, Proposal, make_attest, make_proposal, parse_attest
from gossip.node import OUTBOX_MAX, Node, open_node
from gossip.records import CloseBody, make_record, parse_record
from gossip.serve import serve
from gossip.wire import ATTEST, GOSSIP_BYTES_MAX, PROPOSAL, RECORD, encode_gossip, parse_gossip

WINDOW = (NOW_S - 10, NOW_S)


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def sent(node: Node) -> list[tuple[str, bytes]]:
    messages = []
    while True:
        try:
            messages.append(parse_gossip(node.outbox.receive_nowait()))
        except trio.WouldBlock:
            return messages


def state(node: Node, store: MemoryStore) -> tuple[object, ...]:
    """What garbage must not change."""
    heads = {node_key: node.logs[node_key].head for node_key in node.logs}
    return heads, list(store.writes), node.machine.messages(1), node.machine.progress(), node.machine.wanted


# The own log.


async def test_an_own_record_is_durable_before_it_is_sent() -> None:
    member = Network(4).members[0]
    node, order = member.node, []
    append_own, publish = member.store.append_own, node._publish
    member.store.append_own = lambda *a: (order.append("durable"), append_own(*a))[1]
    node._publish = lambda data: (order.append("sent"), publish(data))[1]
    record = await node.append(evidence(NOW_S), window=7)
    assert order == ["durable", "sent"]
    assert sent(node) == [(RECORD, record.wire)]
    assert member.store.windows == [7]
    assert node.logs[key(0).public].head.hash == record.hash
    following = await node.append(CloseBody())
    assert (following.seq, following.prev_hash) == (2, record.hash)


async def test_a_disk_that_fails_sends_nothing_and_takes_no_number() -> None:
    member = Network(4).members[0]
    member.store.is_broken = True
    with pytest.raises(DiskError):
        await member.node.append(evidence(NOW_S))
    assert sent(member.node) == []
    assert member.node.logs[key(0).public].head == GENESIS
    member.store.is_broken = False
    assert (await member.node.append(evidence(NOW_S))).seq == 1


async def test_records_appended_at_once_get_one_number_each() -> None:
    member = Network(4).members[0]
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(member.node.append, evidence(NOW_S))
    records = [parse_record(wire, POOL) for wire in member.store.own]
    assert [r.seq for r in records] == list(range(1, 21))
    assert [r.prev_hash for r in records[1:]] == [r.hash for r in records[:-1]]


async def test_a_window_that_overlaps_the_own_log_is_refused_and_takes_no_number() -> None:
    member = Network(4).members[0]
    await member.node.append(work(*WINDOW, 100, bytes(32)))
    with pytest.raises(InvalidMessageError, match="work"):
        await member.node.append(work(WINDOW[0] - 5, WINDOW[1] - 5, 100, bytes(32)))
    assert member.node.logs[key(0).public].head.seq == 1
    assert len(member.store.own) == 1


async def test_an_own_record_that_would_not_extend_the_own_log_is_never_signed_twice() -> None:
    member = Network(4).members[0]
    await member.node.append(evidence(NOW_S))
    other = make_record(key(0), POOL, 1, bytes(32), CloseBody())
    assert (await member.node.take_records([other.wire]))[Placement.FORKED] == 1
    with pytest.raises(OwnForkError):
        await member.node.append(evidence(NOW_S))
    assert len(member.store.own) == 1


async def test_an_own_window_that_a_clock_stepped_back_from_is_written_all_the_same() -> None:
    """Peers whose clocks are right take it when it is time; it must not end the agent."""
    network = Network(2)
    record = await network.members[0].node.append(work(NOW_S + 100, NOW_S + 110, 1, bytes(32)))
    peer = network.members[1]
    assert await peer.node.take_records([record.wire]) == {Placement.EARLY: 1}
    assert list(peer.store.all_records()) == []
    peer.clock_offset_s = 110
    assert await peer.node.take_records([record.wire]) == {Placement.EXTENDED: 1}


# What peers send.


async def test_records_of_peers_are_verified_and_kept_and_are_no_signs_of_life() -> None:
    member, author = Network(4).members[0], Author(1)
    records = [author.prove(), author.work()]
    placed = await member.node.take_records([r.wire for r in reversed(records)])
    assert placed == {Placement.GAP: 1, Placement.EXTENDED: 1}
    await member.node.take_gossip(encode_gossip(RECORD, records[1].wire))
    await member.node.take_gossip(encode_gossip(RECORD, records[1].wire))  # known: not verified again
    assert list(member.store.all_records()) == [r.wire for r in records]
    assert member.node.witness.seconds == {}  # anybody can hand them in, at any time
    assert member.node.verified == 3
    assert member.node.drops == {}


async def test_forged_and_foreign_records_are_dropped_and_counted_by_reason() -> None:
    member, author = Network(4).members[0], Author(1)
    good = author.prove()
    before = state(member.node, member.store)
    forged = codec.encode((good.signed, bytes(64)))
    stolen = codec.encode((good.signed, key(2).sign(good.signed)))
    stranger = make_record(key(9), POOL, 1, bytes(32), evidence())
    await member.node.take_records([forged, stolen, stranger.wire, b"garbage", codec.encode(1)])
    assert state(member.node, member.store) == before
    assert sum(member.node.drops.values()) == 5
    assert member.node.drops["record: signature"] == 2
    assert member.node.drops["record: participant"] == 1
    assert (await member.node.take_records([good.wire]))[Placement.EXTENDED] == 1


async def test_garbage_on_the_topic_is_dropped_and_its_reasons_are_few() -> None:
    """Reasons become metric labels: a peer must not be able to make new ones."""
    member = Network(4).members[0]
    before = state(member.node, member.store)
    draw = random.Random(7)
    good = make_attest(key(1), POOL, epoch=1, cert_hash=bytes(32)).wire
    count = 400
    for i in range(count):
        kind = draw.choice([RECORD, "observation", PROPOSAL, ATTEST, "nothing"])
        data = [
            lambda: draw.randbytes(draw.randrange(200)),
            lambda kind=kind: encode_gossip(kind, draw.randbytes(draw.randrange(200))),
            lambda kind=kind, i=i: encode_gossip(
                kind, codec.seal(codec.encode((i, draw.randbytes(9), "x" * i)), key(1))
            ),
            lambda: encode_gossip(
                ATTEST, codec.encode((codec.open_envelope(good, bytes_max=1024)[0], draw.randbytes(64)))
            ),
            lambda i=i: bytes(GOSSIP_BYTES_MAX + 1 + i),
            lambda i=i: encode_gossip(RECORD, codec.seal(codec.encode((b"", i, i * 1.5)), key(i % 50))),
        ][i % 6]()
        await member.node.take_gossip(data)
    assert sum(member.node.drops.values()) == count
    assert len(member.node.drops) < 25
    assert state(member.node, member.store) == before


async def test_a_garbage_request_is_refused_and_counted() -> None:
    member = Network(4).members[0]
    before = state(member.node, member.store)
    for data in (b"", b"\xc1", codec.encode(1), codec.encode(("gpupool/sync/1", ("steal", 1))), bytes(2_000_000)):
        with pytest.raises(InvalidMessageError):
            await serve(member.node, key(1).public, data)
    assert sum(member.node.drops.values()) == 5
    assert all(reason.startswith("request: ") for reason in member.node.drops)
    assert state(member.node, member.store) == before
    assert member.node.witness.seconds == {}  # garbage is no sign of life


async def test_a_forged_attest_is_dropped() -> None:
    network = Network(4)
    member, chain = network.members[0], Chain(operator_set(4))
    await member.node.handle(advanced(chain, 4))
    before = state(member.node, member.store)
    attest = make_attest(key(1), POOL, epoch=1, cert_hash=bytes(32))
    signed, _ = codec.open_envelope(attest.wire, bytes_max=1024)
    stolen = codec.seal(signed, key(2))  # signed by another operator than it names
    fields = list(codec.decode(signed, bytes_max=1024))
    fields[-1] = key(2).sign(bytes(32))  # the certificate's signature of another operator
    mixed = codec.seal(codec.encode(fields), key(1))
    for wire in (stolen, mixed):
        await member.node.take_gossip(encode_gossip(ATTEST, wire))
        with pytest.raises(InvalidMessageError):
            parse_attest(wire, POOL)
    outsider = make_attest(key(9), POOL, epoch=1, cert_hash=bytes(32))
    await member.node.take_gossip(encode_gossip(ATTEST, outsider.wire))
    assert state(member.node, member.store) == before
    assert sum(member.node.drops.values()) == 3
    await member.node.take_gossip(encode_gossip(ATTEST, attest.wire))
    progress = member.node.machine.progress()
    assert (progress.attested_weight, key(1).public in progress.unattested, len(progress.unattested)) == (1, False, 3)


async def test_a_proposal_with_a_wrong_root_is_counted_and_not_attested() -> None:
    network, chain = Network(4), Chain(operator_set(4))
    for member in network.members:
        await member.node.handle(advanced(chain, 4))
    said = {m.i: sent(m.node) for m in network.members}
    for i, messages in said.items():
        for kind, wire in messages:
            if kind == "observation":
                for member in network.members:
                    if member.i != i:
                        await member.node.take_gossip(encode_gossip(kind, wire))
    ((leader, good),) = [
        (m.i, message)
        for m in network.members
        for message in m.node.machine.messages(1)
        if isinstance(message, Proposal)
    ]
    assert good.leader == key(leader).public
    wrong = make_proposal(
        key(leader), POOL, epoch=1, view=good.view, set_id=1, listed=good.listed, cert_hash=b"\x01" * 32
    )
    follower = network.members[(leader + 1) % 4]
    await follower.node.take_gossip(encode_gossip(PROPOSAL, wrong.wire))
    assert follower.node.drops == {"proposal: proposal": 1}
    assert not [m for m in follower.node.machine.messages(1) if isinstance(m, Attest)]
    await follower.node.take_gossip(encode_gossip(PROPOSAL, good.wire))  # its leader has had its turn
    assert follower.node.drops == {"proposal: proposal": 2}
    assert not [m for m in follower.node.machine.messages(1) if isinstance(m, Attest)]
    other = network.members[(leader + 2) % 4]
    await other.node.take_gossip(encode_gossip(PROPOSAL, good.wire))
    (attest,) = [m for m in other.node.machine.messages(1) if isinstance(m, Attest)]
    assert attest.cert_hash == good.cert_hash


async def test_what_stands_behind_an_attest_is_durable_before_it_is_sent() -> None:
    network, chain = Network(1), Chain(operator_set(1))
    member = network.members[0]
    member.store.is_broken = True
    with pytest.raises(DiskError):
        await member.node.handle(advanced(chain, 1))
    assert sent(member.node) == []


async def test_a_pool_of_one_settles_alone() -> None:
    network, chain = Network(1), Chain(operator_set(1))
    member = network.members[0]
    await member.node.handle(advanced(chain, 1))
    submits = []
    while True:
        try:
            action = member.node.chain_actions.receive_nowait()
        except trio.WouldBlock:
            break
        submits += [action] if isinstance(action, Submit) else []
    (submit,) = submits
    assert chain.submit(submit)
    assert [kind for kind, _ in sent(member.node)] == ["observation", PROPOSAL, ATTEST]


async def test_a_full_outbox_drops_and_counts_but_never_waits() -> None:
    member = Network(4).members[0]
    for i in range(OUTBOX_MAX + 3):
        await member.node.append(work(NOW_S + i, NOW_S + i + 1, 100, bytes(32)))
    assert member.node.drops == {"outbox: full": 3}
    assert len(member.store.own) == OUTBOX_MAX + 3
    assert len(sent(member.node)) == OUTBOX_MAX


async def test_chain_actions_that_nobody_takes_do_not_block_the_node() -> None:
    member, chain = Network(1).members[0], Chain(operator_set(1))
    event = advanced(chain, 1)
    for step in range(100):
        chain.now_s += 5 * step
        await member.node.handle(
            Advanced(view=chain.view(), operators=event.operators, frame=event.frame, witnessed_s={})
        )
    assert member.node.drops["chain action: nobody took it"] > 0


# Starting again.


async def test_a_node_starts_again_with_what_it_stored() -> None:
    network, chain = Network(1), Chain(operator_set(1))
    member = network.members[0]
    await member.node.append(evidence(START_S - 100))
    await member.node.append(work(START_S, START_S + 10, 1000, member.node.logs[key(0).public].head.hash))
    await member.node.handle(advanced(chain, 1))
    said = sent(member.node)
    assert [kind for kind, _ in said] == [RECORD, RECORD, "observation", PROPOSAL, ATTEST]
    head = member.node.logs[key(0).public].head
    member.store.seconds = {key(0).public: 50}
    member.open()
    assert member.node.logs[key(0).public].head == head
    assert member.node.witness.seconds == {key(0).public: 50}
    await member.node.handle(advanced(chain, 1))
    assert not [kind for kind, _ in sent(member.node) if kind == "observation"]  # one observation per epoch
    again = {m.cert_hash for m in member.node.machine.messages(1) if isinstance(m, Attest)}
    assert again == {parse_attest(wire, POOL).cert_hash for kind, wire in said if kind == ATTEST}
    assert (await member.node.append(evidence(NOW_S))).seq == 3


async def test_a_clock_that_stepped_back_before_the_start_takes_nothing_out_of_the_own_log() -> None:
    """Else the next record would take a number that is signed already."""
    member = Network(1).members[0]
    await member.node.append(work(*WINDOW, 100, bytes(32)))
    member.clock_offset_s = -3600
    member.open()
    assert member.node.logs[key(0).public].head.seq == 1
    assert (await member.node.append(CloseBody())).seq == 2


async def test_a_damaged_store_is_refused_at_the_start() -> None:
    member = Network(1).members[0]
    await member.node.append(evidence(NOW_S))
    member.store.all_records = lambda: iter([b"garbage"])
    with pytest.raises(InvalidMessageError):
        member.open()


async def test_records_of_who_left_the_pool_are_no_obstacle() -> None:
    network = Network(2)
    member, author = network.members[0], Author(1)
    await member.node.take_records([author.prove().wire])
    again = open_node(
        key(0),
        POOL,
        member.node.policy,
        member.store,
        lambda *_: None,
        participants=[key(0).public],
        now_s=lambda: NOW_S,
    )
    assert set(again.logs) == {key(0).public}


async def test_a_message_of_no_open_epoch_waits_without_being_acted_upon() -> None:
    member, chain = Network(4).members[0], Chain(operator_set(4))
    attest = make_attest(key(1), POOL, epoch=1, cert_hash=bytes(32))
    await member.node.handle(replace(advanced(chain, 4), frame=None))
    await member.node.handle(Heard(attest))
    assert member.node.machine.messages(1) == ()
    await member.node.handle(advanced(chain, 4))
    assert attest in member.node.machine.messages(1)
    await member.node.handle(Heard(make_attest(key(1), POOL, epoch=0, cert_hash=bytes(32))))
    assert len([m for m in member.node.machine.messages(1) if isinstance(m, Attest)]) == 1
