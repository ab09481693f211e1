"""The journal at ends that nobody announced: killed at any moment, or on a disk that is full."""

from __future__ import annotations

import itertools
import random
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from forked import NUMBER, forked
from pool_fixture import POOL, START_S, Author, key, work

from agent.errors import JournalError
from agent.journal import create_journal, open_journal
from gossip.records import make_record, parse_record

KEY = key(0)
OWN = {"node_key": KEY.public, "pool": POOL}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "journal.sqlite"
    create_journal(path, **OWN)
    return path


def write_for_ever(path: Path, report: BinaryIO) -> None:
    """Append one random record per window, and report (number, hash) after the journal said it is durable."""
    journal = open_journal(path, **OWN)
    head = journal.own_head()
    while True:
        count = int.from_bytes(journal.meter("engine") or b"", "big") + 1
        journal.keep_meter("engine", count.to_bytes(8, "big"), [NUMBER.pack(count)])
        number, raw = journal.next_window()
        (window,) = NUMBER.unpack(raw)
        body = work(START_S + window, START_S + window + 1, random.SystemRandom().getrandbits(40), bytes(32))
        record = make_record(KEY, POOL, head.seq + 1 if head else 1, head.hash if head else bytes(32), body)
        journal.append_own(record, number)
        report.write(NUMBER.pack(record.seq) + record.hash)
        head = record


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_said_and_counts_no_window_twice(path: Path) -> None:
    said: dict[int, bytes] = {}
    draw = random.Random(20261121)
    for _ in range(25):
        with forked(lambda report: write_for_ever(path, report)) as child:
            for _ in range(draw.randrange(1, 12)):
                report = child.read(NUMBER.size + 32)
                assert len(report) == NUMBER.size + 32
                said[NUMBER.unpack(report[: NUMBER.size])[0]] = report[NUMBER.size :]
            child.kill()
            rest = child.reports.read()
            for i in range(0, len(rest) - len(rest) % 40, 40):
                said[NUMBER.unpack(rest[i : i + 8])[0]] = rest[i + 8 : i + 40]
        with closing(open_journal(path, **OWN)) as journal:
            records = [parse_record(wire, POOL) for wire in journal.all_records()]
            assert [record.seq for record in records] == list(range(1, len(records) + 1))  # one per number, no gap
            assert all(b.prev_hash == a.hash for a, b in itertools.pairwise(records))
            assert {seq: records[seq - 1].hash for seq in said} == said
            counted = [record.body.start_s - START_S for record in records]
            closed = int.from_bytes(journal.meter("engine") or b"", "big")
        with closing(sqlite3.connect(path)) as database:
            waiting = [NUMBER.unpack(body)[0] for (body,) in database.execute("SELECT body FROM window ORDER BY id")]
        assert counted + waiting == list(range(1, closed + 1))  # every window once: a record, or waiting


def test_a_full_disk_is_an_error_and_nothing_is_half_kept(path: Path) -> None:
    author = Author(0)
    records = [author.work() for _ in range(400)]

    def fill_disk(report: BinaryIO) -> None:
        journal = open_journal(path, **OWN)
        journal.keep_meter("engine", b"", [b"window %d" % i for i in range(len(records))])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        for record in records:
            try:
                journal.append_own(record, journal.next_window()[0])
            except JournalError as error:
                assert "mend the disk" in str(error)
                report.write(NUMBER.pack(record.seq))
                report.write(journal.next_window()[1])
                return

    with forked(fill_disk) as child:
        (failed,) = NUMBER.unpack(child.read(NUMBER.size))
        window = child.reports.read()
        assert child.wait() == 0
    assert 1 < failed < 400
    assert window == b"window %d" % (failed - 1)  # its window still waits
    with closing(open_journal(path, **OWN)) as journal:
        assert [parse_record(w, POOL).hash for w in journal.all_records()] == [r.hash for r in records[: failed - 1]]
        assert journal.next_window()[1] == window
        journal.append_own(records[failed - 1], journal.next_window()[0])  # with room again, it goes on
