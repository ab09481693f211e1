"""The journal: what it said is durable is there after any end, and what it cannot keep it refuses."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from forked import NUMBER, forked
from pool_fixture import POOL, START_S, Author, evidence, fill, frame, key, log_book, verdict, work

from agent.errors import JournalError
from agent.journal import WINDOWS_KEPT, Journal, create_journal, open_journal
from agent.retention import EPOCHS_KEPT
from gossip.cut import CutPoint
from gossip.log_chain import GENESIS, Head
from gossip.messages import ListedObservation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.records import PoolId, Record, make_record, parse_record
from gossip.settlement import Base, Settlement, encode_checkpoint
from gossip.tally import tally

KEY = key(0)
OWN = {"node_key": KEY.public, "pool": POOL}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "journal.sqlite"
    create_journal(path, **OWN)
    return path


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(open_journal(path, **OWN)) as journal:
        yield journal


def reopened(path: Path) -> closing[Journal]:
    return closing(open_journal(path, **OWN))


def own_records(count: int) -> list[Record]:
    author = Author(0)
    author.prove()
    for _ in range(count - 1):
        author.work()
    return author.records


def settled(epoch: int, base: Base, head: Head = GENESIS, author: Author | None = None) -> Settlement:
    logs = log_book(1)
    if author is not None:
        fill(logs, author.records)
        if base.epoch:
            logs.rebase(KEY.public, base.reading(KEY.public).head, base.reading(KEY.public).work_end_s)
    cut = {KEY.public: CutPoint(head=head, dead=False, witnessed_s=0, worker_tokens=0)}
    return tally(frame(1, epoch), base, cut, logs, verdict)


# Creating and opening.


def test_a_new_journal_is_private_and_empty(path: Path, journal: Journal) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(journal.all_records()) == []
    assert journal.own_head() is None
    assert journal.last_landed() is None
    assert journal.next_window() is None
    beside = ["journal.sqlite", "journal.sqlite-shm", "journal.sqlite-wal", "journal.sqlite.lock"]
    assert sorted(p.name for p in path.parent.iterdir()) == beside


def test_it_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(JournalError, match="never overwritten"):
        create_journal(path, **OWN)
    assert path.read_bytes() == before


def test_the_log_of_a_journal_that_was_removed_is_not_played_into_a_new_one(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    log.write_bytes(b"old frames")
    path.unlink()
    with pytest.raises(JournalError, match="-wal"):
        create_journal(path, **OWN)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=str(tmp_path / "file")):
        create_journal(tmp_path / "file" / "journal.sqlite", **OWN)


def test_an_init_that_was_cut_short_leaves_nothing_that_passes_for_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.with_name("journal.sqlite.new").write_bytes(b"half a file")
    create_journal(path, **OWN)
    with reopened(path) as journal:
        assert journal.own_head() is None


def test_a_missing_journal_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with pytest.raises(
        JournalError,
        match=r"missing.*gpupool init.*db import.*never an older copy.*run --fresh.*replace the key: `gpupool keys",
    ):
        open_journal(path, **OWN)
    assert not path.exists()


@pytest.mark.parametrize(
    ("whose", "named"),
    [
        ({"node_key": key(1).public, "pool": POOL}, "node key"),
        ({"node_key": KEY.public, "pool": PoolId(-3, POOL.account)}, "network"),
        ({"node_key": KEY.public, "pool": PoolId(POOL.network, bytes(32))}, "pool"),
    ],
)
def test_it_belongs_to_one_key_and_pool_and_is_let_go_when_refused(path: Path, whose: dict, named: str) -> None:
    with pytest.raises(JournalError, match=f"another {named}.*check identity and pool"):
        open_journal(path, **whose)
    with reopened(path) as journal:  # the refused one does not hold the lock
        assert journal.own_head() is None


def test_another_process_is_locked_out(path: Path) -> None:
    def hold(report: BinaryIO) -> None:
        journal = open_journal(path, **OWN)
        report.write(b"!")
        os.read(gate_out, 1)
        journal.close()

    gate_out, gate_in = os.pipe()
    with forked(hold) as child:
        assert child.read(1) == b"!"
        with pytest.raises(JournalError, match="in use by another process"):
            open_journal(path, **OWN)
        os.write(gate_in, b"!")
        assert child.wait() == 0
    with reopened(path) as journal:
        assert journal.own_head() is None


# Damage.


def filled(path: Path) -> bytes:
    with reopened(path) as journal:
        for record in own_records(60):
            journal.append_own(record)
        journal.keep_landed(settled(1, Base()))
    return path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a database" * 1000, id="another file"),
        pytest.param(b"SQLite format 3\x00" + bytes(5000), id="header only"),
    ],
)
def test_what_is_no_journal_is_refused_with_a_way_out(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"damaged.*Restore.*`gpupool keys rotate` replaces the key"):
        open_journal(path, **OWN)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_with_a_way_out(path: Path, share: float) -> None:
    data = filled(path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(JournalError, match=r"damaged.*Restore"):
        open_journal(path, **OWN)


@pytest.mark.parametrize("page", range(12))
def test_a_page_of_garbage_is_refused_or_harms_nothing_that_is_read(path: Path, page: int) -> None:
    data = bytearray(filled(path))
    expected = [record.wire for record in own_records(60)]
    start = 4096 * page
    assert start < len(data)
    data[start : start + 4096] = hashlib.shake_256(b"garbage").digest(4096)
    path.write_bytes(data)
    try:
        with reopened(path) as journal:
            assert list(journal.all_records()) == expected
            assert journal.last_landed() is not None
    except JournalError as error:
        assert "Restore" in str(error)


def test_a_checkpoint_that_changed_on_disk_is_refused(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE landed SET checkpoint = zeroblob(100)")
    with reopened(path) as journal, pytest.raises(JournalError, match=r"damaged.*Restore"):
        journal.last_landed()


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        open_journal(tmp_path, **OWN)


# Records.


def test_own_records_come_back_in_order(path: Path) -> None:
    records = own_records(1200)  # more than one page of reading
    with reopened(path) as journal:
        journal.append(records[:-1])
        journal.append_own(records[-1])
    with reopened(path) as journal:
        assert [parse_record(w, POOL).hash for w in journal.all_records()] == [r.hash for r in records]
        assert list(journal.records(KEY.public, 1, 1 << 62)) == [r.wire for r in records]
        assert list(journal.records(KEY.public, 499, 502)) == [r.wire for r in records[498:502]]
        assert list(journal.records(KEY.public, 5, 4)) == []
        assert list(journal.records(KEY.public, 0, (1 << 63) - 1))[-1] == records[-1].wire
        assert list(journal.records(key(1).public, 1, 100)) == []
        assert journal.own_head().hash == records[-1].hash


def test_a_number_is_signed_once(journal: Journal) -> None:
    records = own_records(3)
    for record in records:
        journal.append_own(record)
    other = make_record(KEY, POOL, 3, records[1].hash, work(START_S, START_S + 5, 1, bytes(32)))
    for again in (other, records[2], records[0]):
        with pytest.raises(JournalError, match="exists already"):
            journal.append_own(again)
    assert [parse_record(w, POOL).hash for w in journal.all_records()] == [r.hash for r in records]


def test_an_own_record_that_came_back_from_peers_takes_its_number(journal: Journal) -> None:
    """A restored database learns its newer records from peers: they count as signed."""
    records = own_records(3)
    journal.append(records)
    with pytest.raises(JournalError):
        journal.append_own(make_record(KEY, POOL, 3, records[1].hash, records[1].body))


def test_both_branches_of_a_fork_are_kept_and_known_records_are_skipped(journal: Journal) -> None:
    first = make_record(key(1), POOL, 1, bytes(32), work(START_S, START_S + 5, 1, bytes(32)))
    second = make_record(key(1), POOL, 1, bytes(32), work(START_S, START_S + 6, 1, bytes(32)))
    journal.append([first, second])
    journal.append([second, first])
    assert set(journal.records(key(1).public, 1, 1)) == {first.wire, second.wire}
    assert len(list(journal.all_records())) == 2


# Windows.


def test_a_window_is_struck_off_with_its_record_and_not_otherwise(path: Path) -> None:
    records = own_records(2)
    with reopened(path) as journal:
        journal.keep_meter("engine", b"state 1", [b"window 1", b"window 2"])
        number, body = journal.next_window()
        assert body == b"window 1"
        assert journal.waiting() == [b"window 1", b"window 2"]
        journal.append_own(records[0], number)
        with pytest.raises(JournalError):
            journal.append_own(records[0], journal.next_window()[0])  # refused: the window stays
        assert journal.next_window()[1] == b"window 2"
    with reopened(path) as journal:
        assert journal.meter("engine") == b"state 1"
        number, body = journal.next_window()
        assert body == b"window 2"
        journal.drop_window(number)
        assert journal.next_window() is None
        journal.keep_meter("engine", b"state 2", [b"window 3"])
        assert journal.next_window()[0] > number  # a number is never used again
        assert journal.meter("engine") == b"state 2"
        assert journal.meter("other") is None


def test_waiting_windows_are_bounded(journal: Journal) -> None:
    journal.keep_meter("engine", b"", [NUMBER.pack(i) for i in range(WINDOWS_KEPT + 5)])
    assert journal.next_window()[1] == NUMBER.pack(5)


# The close of epochs.


def test_messages_and_objects_come_back(path: Path) -> None:
    observation = make_observation(
        KEY,
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=bytes(32),
        base=bytes(32),
        logs={KEY.public: ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0)},
        forks=(),
    )
    listed = (ListedObservation(index=0, digest=observation.digest),)
    proposal = make_proposal(KEY, POOL, epoch=1, view=0, set_id=1, listed=listed, cert_hash=bytes(32))
    attests = [make_attest(key(i), POOL, epoch=1, cert_hash=bytes(32)) for i in range(2)]
    with reopened(path) as journal:
        journal.keep_messages(1, (attests[0], proposal, observation))
        journal.keep_messages(1, (observation, *attests))
        journal.keep_messages(2, ())
    with reopened(path) as journal:
        kept = journal.messages(1)
        assert [kind for kind, _ in kept] == ["observation", "proposal", "attest", "attest"]
        assert {wire for _, wire in kept} == {observation.wire, proposal.wire, *(a.wire for a in attests)}
        assert journal.messages(2) == []
        assert journal.observation(observation.digest) == observation.wire
        assert journal.observation(proposal.digest) is None


def test_landed_settlements_and_retention(path: Path) -> None:
    author = Author(0)
    author.prove()
    base, landed = Base(), []
    with reopened(path) as journal:
        journal.append(author.records)
        for epoch in range(1, EPOCHS_KEPT + 4):
            record = author.work()
            journal.append_own(record)
            settlement = settled(epoch, base, author.head, author)
            journal.keep_messages(epoch, (make_attest(KEY, POOL, epoch=epoch, cert_hash=bytes(32)),))
            journal.keep_landed(settlement)
            journal.keep_landed(settlement)  # told twice, kept once
            base = settlement.base()
            landed.append(settlement)
    with reopened(path) as journal:
        assert journal.last_landed() == landed[-1]
        assert journal.find_checkpoint(None) == encode_checkpoint(landed[-1])
        kept = [journal.checkpoint(s.payload_hash) is not None for s in landed]
        assert kept == [False] * 3 + [True] * EPOCHS_KEPT
        assert [bool(journal.messages(epoch)) for epoch in range(1, EPOCHS_KEPT + 4)] == kept
        first = parse_record(next(journal.records(KEY.public, landed[2].readings[KEY.public].head.seq, 1 << 62)), POOL)
        assert Head(first.seq, first.hash) == landed[2].readings[KEY.public].head  # what the oldest kept one builds on
        assert parse_record(next(journal.all_records()), POOL).hash == first.hash
        with pytest.raises(JournalError):
            journal.append_own(author.records[-1])


def test_what_was_attested_is_served_until_its_epoch_has_landed(path: Path) -> None:
    outcome, other = settled(1, Base()), settled(2, Base())
    attest = make_attest(KEY, POOL, epoch=1, cert_hash=bytes(32))
    with reopened(path) as journal:
        journal.keep_messages(1, (attest,), outcome)
        journal.keep_messages(1, (attest,), outcome)
        journal.keep_messages(2, (), other)
    with reopened(path) as journal:
        assert set(map(encode_checkpoint, journal.outcomes())) == {encode_checkpoint(outcome), encode_checkpoint(other)}
        assert journal.checkpoint(outcome.payload_hash) == encode_checkpoint(outcome)
        assert journal.last_landed() is None
        journal.keep_landed(outcome)
        assert journal.outcomes() == [other]
        assert journal.checkpoint(outcome.payload_hash) == encode_checkpoint(outcome)


def test_attachments_and_witness(path: Path) -> None:
    with reopened(path) as journal:
        digest = hashlib.sha256(b"body").digest()
        journal.keep_attachment(digest, b"body")
        journal.keep_attachment(digest, b"body")
        journal.keep_witness({KEY.public: 5, key(1).public: 7})
        journal.keep_witness({KEY.public: 10})
    with reopened(path) as journal:
        assert journal.attachment(digest) == b"body"
        assert journal.attachment(b"e" * 32) is None
        assert journal.witness() == {KEY.public: 10, key(1).public: 7}
        journal.keep_witness({KEY.public: 15}, gone=[key(1).public, key(2).public])
        assert journal.witness() == {KEY.public: 15}


def test_an_own_record_that_does_not_follow_the_last_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    author = Author(0)
    journal.append_own(author.prove())
    stray = make_record(key(0), POOL, 2, b"\x05" * 32, evidence())
    with pytest.raises(JournalError, match="does not follow"):
        journal.append_own(stray)
    assert journal.own_head().seq == 1


def test_records_behind_a_gap_in_the_numbers_are_served(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    late = [make_record(key(1), POOL, seq, bytes(32), evidence()) for seq in (1600, 1601, 1750)]
    journal.append(late)
    assert list(journal.records(key(1).public, 1, 1700)) == [late[0].wire, late[1].wire]
    assert list(journal.records(key(1).public, 1, 1 << 62)) == [record.wire for record in late]
