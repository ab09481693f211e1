"""One log, one writer: what a node does that may not remember its log, or is not the only one that signs it."""

from __future__ import annotations

import pytest
import trio
from node_pool import NOW_S, Member, Network, inline
from pool_fixture import evidence, key, operator_set
from trio.testing import MockClock

from gossip.errors import OwnForkError
from gossip.log_chain import GENESIS
from gossip.records import CloseBody, Record


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


async def recover(member: Member, *, remembers: bool, weights: list[int] | None = None) -> None:
    """Learn the own log; it counts as known then, as for an agent whose key was nowhere else."""
    with trio.fail_after(60):
        await member.puller.recover_own_log(operator_set(member.network.n, weights), remembers=remembers)
    member.node.is_own_log_known = True


async def test_a_new_database_does_not_count_itself(autojump_clock: MockClock) -> None:
    network = Network(4)
    network.down = {3}  # with itself and two others: three of four; without itself two of three
    await recover(network.members[0], remembers=True)
    with pytest.raises(trio.TooSlowError):
        await recover(network.members[0], remembers=False)
    network.down = set()
    await recover(network.members[0], remembers=False)


async def test_of_the_others_more_than_two_thirds_of_the_weight_are_enough(autojump_clock: MockClock) -> None:
    network = Network(4)
    network.down = {3}
    await recover(network.members[0], remembers=False, weights=[90, 4, 3, 3])
    network.down = {2, 3}
    with pytest.raises(trio.TooSlowError):
        await recover(network.members[0], remembers=False, weights=[90, 4, 3, 3])


async def test_the_only_operator_has_nobody_to_ask(autojump_clock: MockClock) -> None:
    member = Network(1).members[0]
    await recover(member, remembers=False)
    assert member.node.is_own_log_known


async def test_a_new_database_takes_over_the_whole_log(autojump_clock: MockClock) -> None:
    network = Network(4)
    member = network.members[0]
    records = [await member.node.append(evidence(NOW_S - 10 + i)) for i in range(5)]
    await network.members[2].node.take_records([record.wire for record in records])
    member.store.own, member.store.by_number = [], {}
    member.open()
    assert member.node.logs[key(0).public].head == GENESIS
    await recover(member, remembers=False)
    following = await member.node.append(CloseBody())
    assert (following.seq, following.prev_hash) == (6, records[-1].hash)


async def twin_of(member: Member) -> Record:
    """A record that another node signs with the key of this one, on top of what both hold."""
    twin = Network(member.network.n).members[0]
    await twin.node.take_records(list(member.store.all_records()))
    return await twin.node.append(CloseBody())


async def test_another_writer_is_noticed_by_its_first_record(autojump_clock: MockClock) -> None:
    member = Network(4).members[0]
    await recover(member, remembers=True)
    first = await member.node.append(evidence(NOW_S))
    theirs = await twin_of(member)
    with pytest.raises(OwnForkError, match=r"another agent signs with it.*Stop every other agent of this key"):
        await member.node.take_records([theirs.wire])
    assert set(member.store.all_records()) == {first.wire, theirs.wire}, "it is kept: the next start goes on from it"


async def test_another_writer_that_forked_the_log_is_noticed(autojump_clock: MockClock) -> None:
    member = Network(4).members[0]
    await recover(member, remembers=True)
    await member.node.append(evidence(NOW_S))
    theirs = await twin_of(member)
    mine = await member.node.append(evidence(NOW_S + 1))
    with pytest.raises(OwnForkError, match=r"two records of one number.*replace the key: gpupool keys rotate"):
        await member.node.take_records([theirs.wire])
    assert {mine.wire, theirs.wire} <= set(member.store.all_records()), "both are evidence"
    member.open()
    with pytest.raises(OwnForkError, match="two records of one number"):
        await recover(member, remembers=True)
    with pytest.raises(OwnForkError, match="two records of one number"):
        await member.node.append(evidence(NOW_S + 2))


async def test_own_records_that_come_back_are_no_alarm(autojump_clock: MockClock) -> None:
    member = Network(4).members[0]
    await recover(member, remembers=True)
    mine = await member.node.append(evidence(NOW_S))
    await member.node.take_records([mine.wire])
    assert member.node.logs[key(0).public].head.seq == 1
