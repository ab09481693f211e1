"""How fast a log may grow: what comes too early waits, honest logs never do, and nobody names what others lack."""

from __future__ import annotations

from dataclasses import replace

import pytest
from log_scene import LATER_S, WINDOW_MAX_S, fill, fill_at, head_of, insert
from pool_fixture import START_S, Author, evidence, key, reading

from gossip import sync
from gossip.log_chain import (
    ITEM_BYTES,
    OBSERVED_AHEAD_MAX_S,
    RECORD_SPACING_S,
    UNSETTLED_BURST,
    UNSETTLED_BYTES_MAX,
    UNSETTLED_BYTES_PER_S,
    Log,
    LogBook,
    Placement,
    size_of,
)
from gossip.pull import BATCHES_PER_SYNC_MAX
from gossip.records import RECORD_BYTES_MAX, Record, Source, Unit, WorkBody


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
