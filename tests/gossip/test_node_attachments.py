"""What evidence names by hash: fetched before the record is placed, kept, served on; and who is told of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import trio
from node_pool import Network, inline, until
from pool_fixture import POOL, START_S, Author, evidence, key
from trio.testing import MockClock

from gossip.log_chain import EVIDENCE_UNSETTLED_MAX, GENESIS, Head
from gossip.records import Record, make_record


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


ATTACHED = {hashlib.sha256(data).digest(): data for data in (b"collateral", b"GPU reports", b"handshake")}
COLLATERAL, GPU, HANDSHAKE = ATTACHED


def record_of(i: int) -> Record:
    body = replace(evidence(START_S), collateral_digest=COLLATERAL, gpu_digest=GPU, handshake_digest=HANDSHAKE)
    return make_record(key(i), POOL, 1, bytes(32), body)


async def test_all_attachments_come_from_peers_before_the_record_is_placed(autojump_clock: MockClock) -> None:
    network, record = Network(3), record_of(2)
    told = []
    receiver = network.members[0]
    receiver.node.on_evidence = told.append
    await receiver.node.take_records([record.wire])
    assert {wanted.id for wanted in receiver.node.all_wanted} == set(ATTACHED)
    assert receiver.node.logs[key(2).public].head == GENESIS
    assert told == []
    for member in network.members[1:]:
        member.store.objects |= ATTACHED
        await member.node.take_records([record.wire])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.puller.run)
        await until(lambda: receiver.node.logs[key(2).public].head.seq == 1)
        nursery.cancel_scope.cancel()
    assert ATTACHED.items() <= receiver.store.objects.items()
    assert [each.hash for each in told] == [record.hash]
    assert receiver.node.all_wanted == frozenset()
    await receiver.node.take_records([record.wire])
    assert len(told) == 1


async def test_an_attachment_of_another_hash_is_refused(autojump_clock: MockClock) -> None:
    network, record = Network(2), record_of(1)
    receiver, liar = network.members
    liar.store.objects |= dict.fromkeys(ATTACHED, b"something else")
    await receiver.node.take_records([record.wire])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.puller.run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert not ATTACHED.keys() & receiver.store.objects.keys()
    assert receiver.node.logs[key(1).public].head == GENESIS
    assert sum(receiver.node.drops.values()) > 0


async def test_nothing_is_fetched_for_a_record_that_cannot_be_placed(autojump_clock: MockClock) -> None:
    network = Network(2)
    node = network.members[0].node
    far = replace(evidence(START_S), collateral_digest=COLLATERAL)
    await node.take_records([make_record(key(1), POOL, 1_000_000, bytes(32), far).wire])
    assert node.all_wanted == frozenset()


async def test_a_log_holds_so_much_unsettled_evidence_and_no_more(autojump_clock: MockClock) -> None:
    network, author = Network(2), Author(1)
    records = [author.prove(START_S - 1000 + i) for i in range(EVIDENCE_UNSETTLED_MAX + 2)]
    await network.members[0].node.take_records([record.wire for record in records])
    assert network.members[0].node.logs[key(1).public].head.seq == EVIDENCE_UNSETTLED_MAX
    settled = Head(records[0].seq, records[0].hash)
    network.members[0].node.logs.rebase(key(1).public, settled, 0)
    await network.members[0].node.take_records([record.wire for record in records])
    assert network.members[0].node.logs[key(1).public].head.seq == EVIDENCE_UNSETTLED_MAX + 1
