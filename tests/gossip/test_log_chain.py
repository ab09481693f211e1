"""Logs: wherever records come from and in whatever order, the chain above the base is the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, Author, evidence, key, reading, work

from gossip import sync
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import (
    BRANCHES_MAX,
    CLOCK_TOLERANCE_S,
    GENESIS,
    ITEM_BYTES,
    OBSERVED_AHEAD_MAX_S,
    RECORD_SPACING_S,
    UNSETTLED_BURST,
    UNSETTLED_BYTES_MAX,
    UNSETTLED_BYTES_PER_S,
    ForkProof,
    Head,
    Log,
    LogBook,
    Placement,
    RecordRange,
    size_of,
)
from gossip.pull import BATCHES_PER_SYNC_MAX
from gossip.receipts import make_receipt
from gossip.records import RECORD_BYTES_MAX, CloseBody, ReceiptBody, Record, Source, Unit, WorkBody, make_record

LATER_S = START_S + 10**6
WINDOW_MAX_S = 60


def insert(log: Log, record: Record, now_s: int = LATER_S) -> Placement:
    expected = None
    with suppress(InvalidMessageError):
        expected = log.place(record, now_s=now_s, window_max_s=WINDOW_MAX_S)
    placement = log.insert(record, now_s=now_s, window_max_s=WINDOW_MAX_S)
    assert placement is expected
    return placement


def fill(log: Log, records: Sequence[Record]) -> None:
    for record in records:
        assert insert(log, record) is Placement.EXTENDED


def fill_at(log: Log, records: Sequence[Record], now_s: int) -> None:
    assert [insert(log, record, now_s) for record in records] == [Placement.EXTENDED] * len(records)


def author(count: int) -> Author:
    """A log of one piece of evidence and `count` - 1 windows of 10 s."""
    made = Author(0)
    made.prove()
    for _ in range(count - 1):
        made.work()
    return made


def branch(made: Author, seq: int, variant: int, length: int = 1) -> list[Record]:
    """`length` records from `seq` on that contradict those of `made`."""
    previous = made.records[seq - 2] if seq > 1 else None
    head = Head(seq - 1, previous.hash) if previous else GENESIS
    records = []
    for _ in range(length):
        record = make_record(key(0), POOL, head.seq + 1, head.hash, evidence(START_S + variant))
        records.append(record)
        head = Head(record.seq, record.hash)
    return records


def head_of(record: Record) -> Head:
    return Head(record.seq, record.hash)


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


def test_a_log_that_grows_too_fast_waits_and_one_that_is_settled_goes_on() -> None:
    made, log = Author(0), Log(key(0).public)
    for i in range(UNSETTLED_BURST + 3):
        made.append(WorkBody(start_s=START_S + i, end_s=START_S + i + 1, readings=(), evidence=None))
    log.settled_s = LATER_S
    fill(log, made.records[:UNSETTLED_BURST])
    for later_s, number, expected in [
        (0, 1, Placement.EARLY),
        (RECORD_SPACING_S - 1, 1, Placement.EARLY),
        (RECORD_SPACING_S, 1, Placement.EXTENDED),
        (RECORD_SPACING_S, 2, Placement.EARLY),
        (-1000, 2, Placement.EARLY),
    ]:
        record = made.records[UNSETTLED_BURST + number - 1]
        assert insert(log, record, LATER_S + later_s) is expected
    log.rebase(head_of(made.records[0]), 0)
    assert insert(log, made.records[UNSETTLED_BURST + 1], LATER_S) is Placement.EARLY, "the clock of the base counts"
    log.rebase(head_of(made.records[2]), 0)
    assert insert(log, made.records[UNSETTLED_BURST + 1], LATER_S) is Placement.EXTENDED


def large(made: Author, quote_bytes: int = 16_000) -> Record:
    """The next record of a log, a large one."""
    return made.append(replace(evidence(), quote=bytes(quote_bytes)))


def test_a_log_that_takes_too_many_bytes_waits_for_as_long_as_they_take() -> None:
    made, log = Author(0), Log(key(0).public)
    log.settled_s = LATER_S
    size = len(large(made).wire)
    held = UNSETTLED_BYTES_MAX // size
    for _ in range(held + 1):
        large(made)
    fill_at(log, made.records[:held], LATER_S)
    due_s = LATER_S - (-(size * (held + 1) - UNSETTLED_BYTES_MAX) // UNSETTLED_BYTES_PER_S)
    for now_s, expected in [(0, Placement.EARLY), (due_s - 1, Placement.EARLY), (due_s, Placement.EXTENDED)]:
        assert insert(log, made.records[held], now_s) is expected
    assert insert(log, made.records[held + 1], due_s) is Placement.EARLY
    cut = made.records[1]
    log.rebase(head_of(cut), START_S)
    assert insert(log, made.records[held + 1], due_s) is Placement.EXTENDED, "what is settled takes nothing"


def test_what_takes_more_in_memory_than_on_the_wire_counts_for_more() -> None:
    made = Author(0)
    dense, plain = made.work(), made.append(replace(made.records[0].body, readings=()))
    assert size_of(plain) == len(plain.wire)
    assert size_of(dense) == len(dense.wire) + 5 * ITEM_BYTES, "a reading with four counters"
    assert size_of(made.prove()) == len(made.records[-1].wire)


def test_each_branch_has_its_own_bytes() -> None:
    """Else whoever shows a branch to a node would keep others from it, and nobody would see the fork."""
    made, other, log = Author(0), Author(0), Log(key(0).public)
    log.settled_s = LATER_S
    records = [large(made) for _ in range(200)]
    fill_at(log, records[: log.seq_wanted(LATER_S)], LATER_S)
    while insert(log, records[log.head.seq], LATER_S) is Placement.EXTENDED:
        pass
    full = log.head.seq
    twins = [large(other, 15_999) for _ in range(full + 2)]
    assert [insert(log, record, LATER_S) for record in twins[:full]] == [Placement.FORKED] * full
    assert insert(log, twins[full + 1], LATER_S) is Placement.GAP
    assert insert(log, records[full], LATER_S) is Placement.EARLY


def test_what_is_asked_for_is_never_early() -> None:
    made, log = Author(0), Log(key(0).public)
    log.settled_s = LATER_S
    wanted = log.seq_wanted(LATER_S)
    assert wanted == UNSETTLED_BYTES_MAX // RECORD_BYTES_MAX
    while (last := log.seq_wanted(LATER_S)) > log.head.seq:
        fill_at(log, [large(made) for _ in range(last - log.head.seq)], LATER_S)
    assert wanted < log.head.seq < 3 * wanted
    later_s = LATER_S + RECORD_BYTES_MAX // UNSETTLED_BYTES_PER_S
    assert log.seq_wanted(later_s) > log.head.seq


def test_an_observation_names_nothing_that_is_too_much_for_others() -> None:
    """A node takes its own records whatever they are."""
    made, log = Author(0), Log(key(0).public)
    log.settled_s = LATER_S
    fill_at(log, [large(made) for _ in range(100)], LATER_S + 10**6)
    named, peer = log.head_by(LATER_S), Log(key(0).public)
    peer.settled_s = LATER_S
    for record in made.records:
        insert(peer, record, LATER_S)
    assert named == peer.head
    assert 0 < named.seq < log.head.seq
    assert log.head_by(LATER_S + 10**6) == log.head


def honest_days(made: Author, days: int) -> None:
    """What an honest node writes: a window a minute, of an engine and the GPUs, and evidence four times a day."""
    gpus = replace(reading(0), source=Source.NVML, provenance="nvml 550.90.07", latency_ms=None)
    gpus = replace(gpus, counters=((Unit.GPU_BUSY_MS, 480_000), (Unit.ENERGY_MJ, 280_000_000)))
    for minute in range(days * 24 * 60):
        if minute % 360 == 0:
            made.prove(made.end_s - 60)
        both = WorkBody(
            start_s=made.end_s,
            end_s=made.end_s + 60,
            readings=(reading(100_000, provenance="vllm"), gpus),
            evidence=made.evidence_hash,
        )
        made.append(both)
        made.end_s += 60


@pytest.mark.slow
def test_who_was_away_while_a_pool_stalled_for_two_weeks_gets_the_whole_log() -> None:
    made, logs = Author(0), LogBook(window_max_s=WINDOW_MAX_S)
    logs.open([key(0).public])
    logs.date(START_S)
    honest_days(made, 14)
    asked = 0
    while wanted := sync.wanted_after(logs, {key(0).public: made.head}, made.end_s):
        ((_, first, last),) = [(r.node_key, r.first, r.last) for r in wanted]
        answer = made.records[first - 1 : last][: sync.RECORDS_MAX]
        assert {logs.insert(record, now_s=made.end_s) for record in answer} == {Placement.EXTENDED}
        asked += 1
    assert logs[key(0).public].head == made.head
    assert asked <= BATCHES_PER_SYNC_MAX, "in one exchange with one peer"
    assert logs[key(0).public].head_by(made.end_s) == made.head


def test_a_log_whose_base_has_no_date_is_not_delayed() -> None:
    assert Log(key(0).public).seq_wanted(LATER_S) > 10**6


def test_an_observation_names_what_others_hold_by_the_chains_time() -> None:
    made, log = Author(0), Log(key(0).public)
    made.prove()
    for _ in range(20):
        made.work()
    fill(log, made.records)
    third = made.records[3].body
    assert isinstance(third, WorkBody)
    assert log.head_by(third.end_s - OBSERVED_AHEAD_MAX_S) == head_of(made.records[3])
    assert log.head_by(third.end_s - OBSERVED_AHEAD_MAX_S - 1) == head_of(made.records[2])
    assert log.head_by(LATER_S) == log.head
    log.rebase(head_of(made.records[3]), third.end_s)
    assert log.head_by(0) == log.base


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
