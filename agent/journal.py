"""The journal: one SQLite file with everything that must survive, durable before anything is said.

Decides nothing; it keeps its promises (`gossip.store`): a method that writes returns when the write is on
disk (WAL, synchronous=FULL), or raises, and then the agent stops. What it reads is checked: a row that changed on
disk is never an answer.

1. One process writes the file: a second one is refused at start. It may be read meanwhile (`gpupool db`).
2. A missing file is never silently made anew: a node without its log could sign a second record for a
   number that is taken. `gpupool init` makes it with a new key; `gpupool run --fresh` and `gpupool db import`
   note that the own log is not known yet.
3. The file belongs to one node key and one pool, and says so.
4. The own log grows by exactly what extends it, checked and inserted in one transaction.
5. After an error of the disk nothing is read or written any more: a retry may lie.

Elsewhere: tables, lock, damage (`agent.journal_file`), what is let go of (`agent.retention`), older schemas
(`agent.migrations`), export (`agent.db`).

Source: PROTOCOL, "Durable before sent".
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from agent import journal_file, retention
from agent.errors import DamagedRowError, JournalError
from agent.journal_file import KNOWN, OWN_LOG, UNKNOWN, enqueue, message_id, sealed
from agent.migrations import migrate
from gossip.epoch_events import Message
from gossip.errors import InvalidMessageError
from gossip.records import EvidenceBody, PoolId, Record, UnverifiedRecord, parse_record
from gossip.settlement import Settlement, encode_checkpoint, verify_checkpoint
from gossip.wire import kind_of

READ_BATCH = 100
WINDOWS_KEPT = 10_000
"""Closed windows that wait to become records, while the own log is not known yet: a week of them."""

_RECORDS = "SELECT node_key, seq, hash, wire, crc FROM record"
_MESSAGES = "SELECT epoch, kind, id, wire, crc FROM message"


def create_journal(path: Path, *, node_key: bytes, pool: PoolId, is_key_new: bool = True) -> None:
    """Make a new, empty journal for this node key and pool.

    `is_key_new` says that the key never signed a record; else the own log has to be learnt from others first.

    Raises:
        JournalError: the file exists, or its folder cannot be written.
    """
    # Beside its place and then linked there: a file cut short never passes for a journal.
    fresh = path.with_name(path.name + ".new")
    journal_file.require_vacant(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with closing(sqlite3.connect(fresh)) as database, database:
            database.executescript("PRAGMA journal_mode=WAL;" + journal_file.SCHEMA)
            rows = journal_file.identity(node_key, pool) | {OWN_LOG: KNOWN if is_key_new else UNKNOWN}
            database.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        journal_file.link_new(fresh, path)
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"{path}: cannot be created: {error}") from error


def open_journal(path: Path, *, node_key: bytes, pool: PoolId) -> Journal:
    """Open the journal of this node key and pool, and check it.

    Raises:
        JournalError: missing, damaged, in use by another process, or of another key or pool; the message
            names the way out.
    """
    journal_file.require_present(path)
    with ExitStack() as stack:
        stack.callback(os.close, journal_file.lock(path))
        with journal_file.explaining(path, "opened"):
            database = journal_file.connect(path)
            stack.callback(database.close)
            journal_file.require_sound(path, database)
            journal_file.require_owner(path, database, node_key, pool)
            migrate(path, database)
        journal = Journal(path, database, node_key, pool)
        journal.require_own_log()
        journal.on_close = stack.pop_all()
        return journal


class Journal:
    """The open journal; see `gossip.store.Store` for what each method promises. Thread-safe."""

    def __init__(self, path: Path, database: sqlite3.Connection, node_key: bytes, pool: PoolId) -> None:
        self._path = path
        self._database = database
        self._node_key = node_key
        self._pool = pool
        self._lock = threading.Lock()
        self._failure: JournalError | None = None
        """Why nothing may be read or written any more: an error of the disk is not tried again."""
        self.on_close = ExitStack()

    def close(self) -> None:
        with self._lock:
            self.on_close.close()

    # The own log.

    def require_own_log(self) -> None:
        """Check that each own record follows one that is here, or a settled base.

        Raises:
            JournalError: one is missing or not what it was: going on could sign a number twice.
        """
        wires = [wire for *_, wire in self._rows(f"{_RECORDS} WHERE node_key = ? ORDER BY seq", (self._node_key,))]
        try:
            records = [parse_record(wire, self._pool) for wire in wires]
            loose = journal_file.unlinked(records, self._settlements)
        except InvalidMessageError as error:
            raise self._damaged(f"own log: {error}") from error
        if loose:
            raise self._damaged(f"own record {loose[0]} follows none that is here")

    @property
    def is_own_log_known(self) -> bool:
        """Whether this file may count as knowing the own log; else operators must have said all that they know."""
        return self._one("SELECT value FROM meta WHERE key = ?", OWN_LOG) == KNOWN

    def note_own_log_known(self) -> None:
        """From now on this file knows the own log: peers said all that they know of it."""
        self.note(OWN_LOG, KNOWN)

    def note(self, key: str, value: bytes) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def begin_run(self, run: bytes, started_s: int, place: bytes, version: str) -> frozenset[bytes]:
        """Note a run of the agent (`gossip.acquaintances.Run`); the ids of those before it, which ended for sure."""
        with self._transaction() as database:
            try:
                return journal_file.note_run(database, run, started_s, place, version)
            except DamagedRowError as error:
                raise self._damaged(str(error)) from error

    # Records.

    def append_own(self, record: Record, window: int | None = None) -> None:
        with self._transaction() as database:
            last = database.execute(
                "SELECT seq, hash FROM record WHERE node_key = ? ORDER BY seq DESC LIMIT 1", (record.node_key,)
            ).fetchone()
            if last is not None and record.seq <= last[0]:
                raise JournalError(f"{self._path}: own record {record.seq} exists already; not signing a second one")
            # A gap is a log that peers knew further: it goes on from the settled base.
            if last is not None and record.seq == last[0] + 1 and record.prev_hash != last[1]:
                raise JournalError(f"{self._path}: own record {record.seq} does not follow the one before it")
            self._insert(database, [record])
            if window is not None:
                database.execute("DELETE FROM window WHERE id = ?", (window,))

    def append(self, records: Sequence[Record]) -> None:
        with self._transaction() as database:
            self._insert(database, records)

    def _insert(self, database: sqlite3.Connection, records: Sequence[Record]) -> None:
        rows = [sealed(record.node_key, record.seq, record.hash, record.wire) for record in records]
        database.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?)", rows)
        evidence = [(r, r.body) for r in records if isinstance(r.body, EvidenceBody)]
        named = [(r.node_key, r.seq, r.hash, digest) for r, body in evidence for digest in body.attachments]
        database.executemany("INSERT OR IGNORE INTO named VALUES (?, ?, ?, ?)", named)

    def records(self, node_key: bytes, first: int, last: int) -> Iterator[bytes]:
        # Pages by number, so that the lock is not held while the reader does something else.
        while first <= last:
            (end,) = self._read(
                "SELECT max(seq) FROM (SELECT DISTINCT seq FROM record WHERE node_key = ? AND seq BETWEEN ? AND ? "
                "ORDER BY seq LIMIT ?)",
                (node_key, first, last, READ_BATCH),
            )[0]
            if end is None:
                return
            query = f"{_RECORDS} WHERE node_key = ? AND seq BETWEEN ? AND ? ORDER BY seq"
            yield from (wire for *_, wire in self._rows(query, (node_key, first, end)))
            first = end + 1

    def all_records(self) -> Iterator[bytes]:
        for (node_key,) in self._read("SELECT DISTINCT node_key FROM record"):
            yield from (wire for *_, wire in self._rows(f"{_RECORDS} WHERE node_key = ? ORDER BY seq", (node_key,)))

    def own_head(self) -> UnverifiedRecord | None:
        """The last record that this node signed: for whoever examines a journal."""
        rows = self._rows(f"{_RECORDS} WHERE node_key = ? ORDER BY seq DESC LIMIT 1", (self._node_key,))
        return parse_record(rows[0][-1], self._pool) if rows else None

    # The close of epochs.

    def keep_messages(self, epoch: int, messages: Sequence[Message], outcome: Settlement | None = None) -> None:
        """`outcome` is the settlement that an attest among the messages stands for: it may land at any time."""
        rows = [sealed(epoch, kind_of(m), message_id(m), m.wire) for m in messages]
        if not rows and outcome is None:
            return
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?)", rows)
            if outcome is not None:
                kept = (outcome.payload_hash, epoch, encode_checkpoint(outcome))
                database.execute("INSERT OR IGNORE INTO outcome VALUES (?, ?, ?)", kept)

    def messages(self, epoch: int) -> Sequence[tuple[str, bytes]]:
        order = "CASE kind WHEN 'observation' THEN 0 WHEN 'proposal' THEN 1 ELSE 2 END"
        rows = self._rows(f"{_MESSAGES} WHERE epoch = ? ORDER BY {order}, id", (epoch,))
        return [(kind, wire) for _, kind, _, wire in rows]

    def observation(self, digest: bytes) -> bytes | None:
        rows = self._rows(f"{_MESSAGES} WHERE kind = 'observation' AND id = ?", (digest,))
        return rows[0][-1] if rows else None

    def outcomes(self) -> Sequence[Settlement]:
        """The settlements that may still land: what this node attested and saw none of land."""
        return [self._settlement(*row) for row in self._read("SELECT checkpoint, payload_hash FROM outcome")]

    def keep_landed(self, settlement: Settlement) -> None:
        epoch = settlement.payload.epoch
        with self._transaction() as database:
            kept = (epoch, settlement.payload_hash, encode_checkpoint(settlement))
            database.execute("INSERT OR IGNORE INTO landed VALUES (?, ?, ?)", kept)
            database.execute("DELETE FROM outcome WHERE epoch <= ?", (epoch,))
            retention.forget(database, settlement, self._node_key, self._settlement)

    def last_landed(self) -> Settlement | None:
        rows = self._read("SELECT checkpoint, payload_hash FROM landed ORDER BY epoch DESC LIMIT 1")
        return self._settlement(*rows[0]) if rows else None

    def find_checkpoint(self, payload_hash: bytes | None) -> bytes | None:
        """Bytes of the settlement with this payload hash; of the last landed one for None."""
        if payload_hash is not None:
            return self.checkpoint(payload_hash)
        rows = self._read("SELECT checkpoint FROM landed ORDER BY epoch DESC LIMIT 1")
        return rows[0][0] if rows else None

    def checkpoint(self, payload_hash: bytes) -> bytes | None:
        landed = self._one("SELECT checkpoint FROM landed WHERE payload_hash = ?", payload_hash)
        # Attested: it may have landed while nobody who knows its proposal was running.
        return landed or self._one("SELECT checkpoint FROM outcome WHERE payload_hash = ?", payload_hash)

    def _settlements(self) -> Iterator[Settlement]:
        for row in self._read("SELECT checkpoint, payload_hash FROM landed"):
            yield self._settlement(*row)

    def _settlement(self, checkpoint: bytes, payload_hash: bytes) -> Settlement:
        try:
            return verify_checkpoint(checkpoint, payload_hash)
        except InvalidMessageError as error:
            raise self._damaged(f"checkpoint: {error}") from error

    # Collateral, witnessed uptime, meter state.

    def keep_attachment(self, digest: bytes, body: bytes) -> None:
        # Kept anew, it is not pruned before a record names it.
        with self._transaction() as database:
            database.execute(
                "INSERT INTO attachments VALUES (?, (SELECT coalesce(max(epoch), 0) FROM landed), ?) "
                "ON CONFLICT (digest) DO UPDATE SET epoch = excluded.epoch",
                (digest, body),
            )

    def attachment(self, digest: bytes) -> bytes | None:
        body = self._one("SELECT body FROM attachments WHERE digest = ?", digest)
        if body is not None and hashlib.sha256(body).digest() != digest:
            raise self._damaged(f"attachment {digest.hex()}")
        return body

    def prune(self, after: bytes) -> bytes | None:
        """Let go of old attachments in a slice behind this digest (`retention.prune`); the last one seen, or None.

        No record may be on its way meanwhile that names one: see `agent.pruning`.
        """
        with self._transaction() as database:
            return retention.prune(database, after)

    def keep_witness(self, seconds: Mapping[bytes, int], gone: Collection[bytes] = ()) -> None:
        with self._transaction() as database:
            database.executemany("DELETE FROM witness WHERE node_key = ?", [(node_key,) for node_key in gone])
            rows = [sealed(node_key, each) for node_key, each in seconds.items()]
            database.executemany("INSERT OR REPLACE INTO witness VALUES (?, ?, ?)", rows)

    def witness(self) -> Mapping[bytes, int]:
        return dict(self._rows("SELECT node_key, seconds, crc FROM witness"))

    def keep_meter(self, source: str, state: bytes, windows: Sequence[bytes] = ()) -> int:
        """Keep the counter state of a source together with the windows that it closed: each counts once.

        Returns how many of the oldest windows had to give way (`WINDOWS_KEPT`).
        """
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meter VALUES (?, ?, ?)", sealed(source, state))
            return enqueue(database, windows, WINDOWS_KEPT)

    def queue(self, item: bytes) -> int:
        """Keep what shall become a record behind the closed windows; returns as `keep_meter` does."""
        with self._transaction() as database:
            return enqueue(database, [item], WINDOWS_KEPT)

    def windows_waiting(self) -> int:
        """How many closed windows are no records yet."""
        return int(self._read("SELECT count(*) FROM window")[0][0])

    def waiting(self) -> list[bytes]:
        """All that waits to become records, the oldest first."""
        return [body for (body,) in self._rows("SELECT body, crc FROM window ORDER BY id")]

    def next_window(self) -> tuple[int, bytes] | None:
        """The oldest closed window that is no record yet: its number, for `append_own`, and its bytes."""
        rows = self._read("SELECT id, body, crc FROM window ORDER BY id LIMIT 1")
        return (rows[0][0], *self._intact(rows[0][1:])) if rows else None

    def drop_window(self, number: int) -> None:
        """Strike off a window that cannot become a record any more."""
        with self._transaction() as database:
            database.execute("DELETE FROM window WHERE id = ?", (number,))

    def meter(self, source: str) -> bytes | None:
        """The counter state last kept for this source."""
        rows = self._rows("SELECT source, state, crc FROM meter WHERE source = ?", (source,))
        return rows[0][-1] if rows else None

    # SQLite.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; any failure of the disk becomes a JournalError and nothing is kept."""
        with self._lock:
            self._require_sound()
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except journal_file.UNREADABLE as error:
                raise self._failed(journal_file.failure(self._path, "written", error)) from error

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            self._require_sound()
            try:
                return self._database.execute(query, parameters).fetchall()
            except journal_file.UNREADABLE as error:
                raise self._failed(journal_file.failure(self._path, "read", error)) from error

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows whose last column is their checksum, without it."""
        return [self._intact(row) for row in self._read(query, parameters)]

    def _intact(self, row: Sequence[Any]) -> Sequence[Any]:
        try:
            return journal_file.unsealed(row)
        except DamagedRowError as error:
            raise self._damaged(str(error)) from error

    def _one(self, query: str, key: object) -> bytes | None:
        rows = self._read(query, (key,))
        return rows[0][0] if rows else None

    def _require_sound(self) -> None:
        # After a failed fsync the next one may succeed over data that never reached the disk.
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def _damaged(self, detail: str) -> JournalError:
        return self._failed(journal_file.damaged(self._path, detail))

    def _failed(self, error: JournalError) -> JournalError:
        self._failure = self._failure or error
        return error
