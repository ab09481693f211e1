"""Logs and what their authors write, for tests of where a record is put."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from pool_fixture import POOL, START_S, Author, evidence, key

from gossip.errors import InvalidMessageError
from gossip.log_chain import GENESIS, Head, Log, Placement
from gossip.records import Record, make_record

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
