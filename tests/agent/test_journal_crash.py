"""The journal at ends that nobody announced: killed at any moment, or on a disk that is full."""

from __future__ import annotations

import hashlib
import itertools
import random
import resource
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from forked import NUMBER, forked
from journal_scene import close_messages, settle_at_heads
from pool_fixture import POOL, START_S, Author, evidence, key, work

from agent.db.examining import examine
from agent.errors import JournalError
from agent.journal import create_journal, open_journal
from agent.journal_file import connect_reading
from gossip.records import Record, make_record, parse_record
from gossip.settlement import Base

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
    for _ in range(30):
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


def close_epochs_for_ever(path: Path, report: BinaryIO) -> None:
    """Keep what each epoch's close makes durable, and report (epoch, step) after the journal said that it is."""
    journal = open_journal(path, **OWN)
    while True:
        last = journal.last_landed()
        base = last.base() if last is not None else Base()
        epoch = base.epoch + 1
        settlement = settle_at_heads([Author(0)], epoch, base)
        for step, keep in enumerate(
            (
                lambda: journal.keep_attachment(collateral(epoch), b"%d" % epoch),  # noqa: B023 called now
                lambda: journal.append([evidence_of(epoch)]),  # noqa: B023
                lambda: journal.keep_messages(epoch, close_messages(epoch), settlement),  # noqa: B023
                lambda: journal.keep_landed(settlement),  # noqa: B023
            )
        ):
            keep()
            report.write(NUMBER.pack(4 * epoch + step))


def collateral(epoch: int) -> bytes:
    return hashlib.sha256(b"%d" % epoch).digest()


def evidence_of(epoch: int) -> Record:
    """The only record of another participant: one per epoch, so that none follows another."""
    body = replace(evidence(), collateral_digest=collateral(epoch))
    return make_record(key(epoch), POOL, 1, bytes(32), body)


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_every_durable_step_of_the_close_whole(path: Path) -> None:
    last, draw = 0, random.Random(20261122)
    for _ in range(12):
        with forked(lambda report: close_epochs_for_ever(path, report)) as child:
            for _ in range(draw.randrange(1, 9)):
                (last,) = NUMBER.unpack(child.read(NUMBER.size))
            child.kill()
            rest = child.reports.read()
            if len(rest) >= NUMBER.size:
                (last,) = NUMBER.unpack(rest[-NUMBER.size :])
        epoch, step = divmod(last, 4)
        with closing(open_journal(path, **OWN)) as journal:
            assert journal.attachment(collateral(epoch)) == b"%d" % epoch
            if step >= 1:
                assert list(journal.records(key(epoch).public, 1, 1)) == [evidence_of(epoch).wire]
            if step >= 2:
                assert len(journal.messages(epoch)) == 4
            landed = journal.last_landed()
            assert (landed.payload.epoch if landed is not None else 0) in (epoch - (step < 3), epoch)
            kept = journal.messages(epoch)
            assert len(kept) in (0, 4), "one transaction"
            assert len(journal.outcomes()) == (len(kept) == 4 and (landed is None or landed.payload.epoch < epoch))
        with closing(connect_reading(path)) as database:
            assert examine(database, KEY.public, POOL, lambda _: None).findings == []


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
                for again in (journal.next_window, lambda: journal.append_own(record, 1)):  # noqa: B023 called now
                    with pytest.raises(JournalError, match="mend the disk"):
                        again()
                return

    with forked(fill_disk) as child:
        (failed,) = NUMBER.unpack(child.read(NUMBER.size))
        assert child.wait() == 0
    assert 1 < failed < 400
    with closing(open_journal(path, **OWN)) as journal:
        assert [parse_record(w, POOL).hash for w in journal.all_records()] == [r.hash for r in records[: failed - 1]]
        assert journal.next_window()[1] == b"window %d" % (failed - 1)  # its window still waits
        journal.append_own(records[failed - 1], journal.next_window()[0])  # with room again, it goes on
