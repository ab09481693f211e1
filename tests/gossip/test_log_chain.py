"""Logs: wherever records come from and in whatever order, the chain above the base is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_scene import LATER_S, WINDOW_MAX_S, author, branch, fill, head_of, insert
from pool_fixture import POOL, START_S, Author, evidence, key, work

from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import (
    BRANCHES_MAX,
    CLOCK_TOLERANCE_S,
    GENESIS,
    ForkProof,
    Head,
    Log,
    LogBook,
    Placement,
    RecordRange,
)
from gossip.receipts import make_receipt
from gossip.records import CloseBody, ReceiptBody, make_record


def test_a_log_grows_to_its_last_record() -> None:
    made, log = author(5), Log(key(0).public)
    fill(log, made.records)
    assert log.head == made.head
    assert [record.seq for record in log.chain(log.head)] == [5, 4, 3, 2, 1]
    assert log.fork is None
    assert len(log) == 5
    assert log.work_end_s(log.head) == made.end_s
    assert log.holds(made.head)
    assert log.holds(GENESIS)


def test_known_gap_and_settled() -> None:
    made, log = author(6), Log(key(0).public)
    assert insert(log, made.records[1]) is Placement.GAP
    fill(log, made.records[:4])
    assert insert(log, made.records[2]) is Placement.KNOWN
    assert insert(log, made.records[5]) is Placement.GAP
    log.rebase(head_of(made.records[2]), log.work_end_s(head_of(made.records[2])))
    assert insert(log, made.records[2]) is Placement.KNOWN  # the base itself
    assert insert(log, made.records[1]) is Placement.SETTLED
    assert insert(log, branch(made, 2, 1)[0]) is Placement.SETTLED
    assert log.head == head_of(made.records[3])
    assert len(log) == 1


@given(st.permutations(range(8)), st.data())
def test_any_order_of_arrival_gives_the_same_log(order: list[int], data: st.DataObject) -> None:
    made, log = author(8), Log(key(0).public)
    again = data.draw(st.lists(st.integers(0, 7), max_size=10))
    pending = [*order, *again]
    for _ in range(len(made.records)):  # as anti-entropy offers them again and again
        for i in pending:
            insert(log, made.records[i])
    assert log.head == made.head
    assert log.fork is None
    assert len(log) == 8


@given(
    st.integers(2, 6),
    st.integers(2, 6),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_finds_the_same_lowest_fork(first: int, second: int, length: int, random: object) -> None:
    made = author(6)
    records = [*made.records, *branch(made, first, 1, length), *branch(made, second, 2, length)]
    log = Log(key(0).public)
    for _ in range(10):
        random.shuffle(records)
        for record in records:
            insert(log, record)
    assert log.fork is not None
    assert log.fork.seq == min(first, second)
    assert log.fork.first.hash != log.fork.second.hash
    assert log.fork.first.seq == log.fork.second.seq
    assert len(log) == len(records)
    for record in records:  # every branch can be walked: observations may name it
        assert list(log.chain(head_of(record)))[-1].seq == 1


def test_the_head_stays_on_the_chain_seen_first() -> None:
    made, log = author(4), Log(key(0).public)
    other = branch(made, 3, 1, length=4)
    fill(log, made.records)
    assert [insert(log, record) for record in other[:2]] == [Placement.FORKED, Placement.FORKED]
    assert insert(log, other[2]) is Placement.EXTENDED  # extends its own branch: no other record of number 5 is here
    assert log.head == made.head
    assert log.fork == ForkProof(made.records[2], other[0])
    assert log.held(3) == (made.records[2], other[0])


def test_a_window_in_the_future_waits_and_is_taken_later() -> None:
    made, log = Author(0), Log(key(0).public)
    record = made.work(seconds=10)
    end_s = record.body.end_s
    assert insert(log, record, end_s - CLOCK_TOLERANCE_S - 1) is Placement.EARLY
    assert log.head == GENESIS
    assert insert(log, record, end_s - CLOCK_TOLERANCE_S) is Placement.EXTENDED


def test_receipts_dated_in_the_future_wait_for_the_last_of_them() -> None:
    own = key(0).public
    dated = [
        make_receipt(key(9), POOL, own, job_id=b"%d" % i, time_s=time_s, tokens=1)
        for i, time_s in enumerate((0, LATER_S, 1))
    ]
    record, log = Author(0).append(ReceiptBody(tuple(dated))), Log(key(0).public)
    assert insert(log, record, LATER_S - CLOCK_TOLERANCE_S - 1) is Placement.EARLY
    assert insert(log, record, LATER_S - CLOCK_TOLERANCE_S) is Placement.EXTENDED


def test_evidence_anchored_in_the_future_waits() -> None:
    record, log = Author(0).prove(LATER_S), Log(key(0).public)
    assert insert(log, record, LATER_S - CLOCK_TOLERANCE_S - 1) is Placement.EARLY
    assert insert(log, record, LATER_S - CLOCK_TOLERANCE_S) is Placement.EXTENDED


def test_a_close_never_waits() -> None:
    assert insert(Log(key(0).public), Author(0).append(CloseBody()), 0) is Placement.EXTENDED


@pytest.mark.parametrize("gap_s", [-1, -10])
def test_windows_must_not_overlap(gap_s: int) -> None:
    made, log = author(3), Log(key(0).public)
    fill(log, made.records)
    made.end_s += gap_s
    with pytest.raises(InvalidMessageError, match="before the previous one"):
        insert(log, made.work())


def test_overlap_is_found_across_records_of_other_kinds_and_across_the_base() -> None:
    made, log = author(3), Log(key(0).public)
    fill(log, [*made.records, made.prove()])
    end_s = made.end_s
    log.rebase(made.head, log.work_end_s(made.head))
    assert log.base_work_end_s == end_s
    made.end_s -= 1
    with pytest.raises(InvalidMessageError, match="before the previous one"):
        insert(log, made.work())


def test_the_longest_window() -> None:
    made, log = Author(0), Log(key(0).public)
    fill(log, [made.work(seconds=WINDOW_MAX_S)])
    with pytest.raises(InvalidMessageError, match="longer"):
        insert(log, made.work(seconds=WINDOW_MAX_S + 1))


def test_a_number_that_does_not_follow_is_refused() -> None:
    made, log = author(3), Log(key(0).public)
    fill(log, made.records)
    with pytest.raises(InvalidMessageError, match="number"):
        insert(log, make_record(key(0), POOL, 5, made.head.hash, evidence()))


def test_nothing_follows_a_close() -> None:
    made, log = author(2), Log(key(0).public)
    fill(log, [*made.records, made.append(CloseBody())])
    with pytest.raises(InvalidMessageError, match="closed"):
        insert(log, made.work())


def test_branches_of_one_number_are_bounded() -> None:
    made, log = author(2), Log(key(0).public)
    fill(log, made.records)
    for variant in range(1, BRANCHES_MAX):
        assert insert(log, branch(made, 2, variant)[0]) is Placement.FORKED
    with pytest.raises(InvalidMessageError, match=str(BRANCHES_MAX)):
        insert(log, branch(made, 2, BRANCHES_MAX)[0])
    assert len(log) == 1 + BRANCHES_MAX


def test_a_head_that_is_not_here_names_its_range() -> None:
    made, log = author(6), Log(key(0).public)
    fill(log, made.records[:3])
    with pytest.raises(DataUnavailableError) as caught:
        list(log.chain(made.head))
    (missing,) = caught.value.missing
    assert isinstance(missing, RecordRange)
    assert missing.node_key == key(0).public
    assert missing.last == 6
    assert missing.first <= 4
    assert not log.holds(made.head)
    assert not log.holds(Head(2, made.records[0].hash))  # the number must be that of the record


def test_a_head_beside_the_base_is_invalid() -> None:
    made, log = author(4), Log(key(0).public)
    fill(log, made.records)
    log.rebase(head_of(made.records[1]), START_S)
    for beside in (Head(2, bytes(32)), Head(1, made.records[0].hash)):
        with pytest.raises(InvalidMessageError):
            list(log.chain(beside))
    assert list(log.chain(log.base)) == []


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_rebase_keeps_what_descends_from_the_cut(cut: int) -> None:
    made, log = author(6), Log(key(0).public)
    fill(log, made.records)
    other = branch(made, 3, 1, length=2)
    for record in other:
        insert(log, record)
    base = head_of(made.records[cut - 1])
    log.rebase(base, log.work_end_s(base))
    assert log.base == base
    assert log.head == made.head
    assert [record.seq for record in log.chain(made.head)] == list(range(6, cut, -1))
    assert len(log) == 6 - cut + (2 if cut < 3 else 0)


def test_rebase_onto_the_other_branch_moves_the_head_there() -> None:
    made, log = author(6), Log(key(0).public)
    fill(log, made.records)
    other = branch(made, 3, 1, length=2)
    for record in other:
        insert(log, record)
    log.rebase(head_of(other[0]), log.work_end_s(head_of(other[0])))
    assert log.head == head_of(other[1])
    assert len(log) == 1
    assert log.fork is not None


def test_rebase_onto_a_cut_that_is_not_here_waits_for_its_records() -> None:
    made, log = author(6), Log(key(0).public)
    fill(log, made.records[:2])
    log.rebase(head_of(made.records[3]), made.records[3].body.end_s)
    assert log.head == log.base == head_of(made.records[3])
    assert insert(log, made.records[5]) is Placement.GAP
    fill(log, made.records[4:])
    assert log.head == made.head


def test_a_book_holds_open_logs_only() -> None:
    logs = LogBook(window_max_s=WINDOW_MAX_S)
    logs.open([key(0).public])
    stranger = make_record(key(1), POOL, 1, bytes(32), work(START_S, START_S + 10, 1, bytes(32)))
    with pytest.raises(InvalidMessageError, match="participant"):
        logs.insert(stranger, now_s=LATER_S)
    assert key(1).public not in logs
    made = author(3)
    for record in made.records:
        logs.insert(record, now_s=LATER_S)
    logs.open([key(0).public, key(1).public])  # opening again loses nothing
    assert logs[key(0).public].head == made.head
    assert set(logs) == {key(0).public, key(1).public}
    assert len(logs) == 3
    assert logs.forks() == ()
    logs.insert(branch(made, 2, 1)[0], now_s=LATER_S)
    assert [fork.seq for fork in logs.forks()] == [2]
    logs.rebase(key(2).public, Head(9, bytes(32)), 0)
    assert logs[key(2).public].head == Head(9, bytes(32))


def test_a_log_that_was_settled_as_dead_holds_nothing_above_its_base_and_takes_nothing() -> None:
    made = author(4)
    log = Log(key(0).public)
    fill(log, made.records[:3])
    log.rebase(Head(2, made.records[1].hash), START_S, is_dead=True)
    assert (len(log), log.head) == (0, log.base)
    for record in made.records[2:]:
        assert insert(log, record) is Placement.SETTLED
    assert (len(log), log.head) == (0, log.base)


def test_a_fork_above_the_settled_cut_is_known_after_it() -> None:
    made = author(4)
    log = Log(key(0).public)
    fill(log, made.records)
    insert(log, branch(made, 3, 1)[0])
    fork = log.fork
    log.rebase(Head(2, made.records[1].hash), START_S)
    assert fork is not None
    assert log.fork is not None
    assert {log.fork.first, log.fork.second} == {fork.first, fork.second}


def test_a_fork_beside_the_settled_cut_is_forgotten() -> None:
    """The record before it does not extend the base: every observation that proved it would be invalid."""
    made = author(1)
    beside = make_record(key(0), POOL, 1, bytes(32), evidence(START_S + 1))
    above = [make_record(key(0), POOL, 2, beside.hash, evidence(START_S + i)) for i in (2, 3)]
    log = Log(key(0).public)
    for record in (beside, *above):
        insert(log, record)
    assert log.fork == ForkProof(*above)
    log.rebase(made.head, START_S)
    assert log.fork is None
