"""The journal: one SQLite file with everything that must survive, durable before anything is said.

Decides nothing; it keeps its promises (`gossip.store`): a method that writes returns when the write is on
disk (WAL, synchronous=FULL), or raises, and then the agent stops.

1. One process has the file: a second one is refused at start (exclusive lock).
2. A missing file is never silently made anew: a node without its log could sign a second record for a
   number that is taken. `gpupool init` makes it.
3. The file belongs to one node key and one pool, and says so.
4. The own log grows by exactly what extends it, checked and inserted in one transaction.

Source: PROTOCOL, "Durable before sent".
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from agent.errors import JournalError
from gossip.epoch_events import Message
from gossip.errors import InvalidMessageError
from gossip.messages import Attest
from gossip.records import PoolId, Record, UnverifiedRecord, parse_record
from gossip.settlement import Settlement, encode_checkpoint, verify_checkpoint
from gossip.wire import kind_of

SCHEMA_VERSION = 1
EPOCHS_KEPT = 16
"""Messages and checkpoints of older settled epochs, and records behind their cuts, are forgotten."""
READ_BATCH = 100
WINDOWS_KEPT = 10_000
"""Closed windows that wait to become records, while the own log is not known yet: a week of them."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE record (node_key BLOB, seq INTEGER, hash BLOB, wire BLOB NOT NULL,
    PRIMARY KEY (node_key, seq, hash)) WITHOUT ROWID;
CREATE TABLE message (epoch INTEGER, kind TEXT, id BLOB, wire BLOB NOT NULL,
    PRIMARY KEY (epoch, kind, id)) WITHOUT ROWID;
CREATE INDEX message_by_id ON message (id);
CREATE TABLE landed (epoch INTEGER PRIMARY KEY, payload_hash BLOB UNIQUE NOT NULL, checkpoint BLOB NOT NULL);
CREATE TABLE attachments (digest BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE witness (node_key BLOB PRIMARY KEY, seconds INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meter (source TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE window (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
"""


def create_journal(path: Path, *, node_key: bytes, pool: PoolId) -> None:
    """Make a new, empty journal for this node key and pool.

    Raises:
        JournalError: the file exists, or its folder cannot be written.
    """
    # Beside its place and then linked there: a file cut short never passes for a journal.
    log, fresh = path.with_name(path.name + "-wal"), path.with_name(path.name + ".new")
    for taken in (path, log):
        if taken.exists():
            raise JournalError(f"{taken}: exists already; it holds this agent's log and is never overwritten")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with closing(sqlite3.connect(fresh)) as database, database:
            database.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
            database.executemany("INSERT INTO meta VALUES (?, ?)", _identity(node_key, pool).items())
        path.hardlink_to(fresh)
        fresh.unlink()
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"{path}: cannot be created: {error}") from error


def open_journal(path: Path, *, node_key: bytes, pool: PoolId) -> Journal:
    """Open the journal of this node key and pool, and check it.

    Raises:
        JournalError: missing, damaged, in use by another process, or of another key or pool; the message
            names the way out.
    """
    if not path.exists():
        raise JournalError(
            f"{path}: missing. A new agent: run `gpupool init`. A lost disk: restore the newest backup of this file; "
            "without one, start anew with a new wallet and node key: this key may have signed records that are gone"
        )
    with ExitStack() as stack:
        try:
            database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
            stack.callback(database.close)
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                database.execute(f"PRAGMA {pragma}")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            found = dict(database.execute("SELECT key, value FROM meta"))
        except sqlite3.Error as error:
            raise JournalError(_unreadable(path, error)) from error
        if verdict != "ok":
            raise JournalError(_damaged(path, verdict))
        for key, value in _identity(node_key, pool).items():
            if found.get(key) != value:
                raise JournalError(
                    f"{path}: belongs to another {key.replace('_', ' ')}; check identity and pool in the config"
                )
        stack.pop_all()
        return Journal(path, database, node_key, pool)


def _identity(node_key: bytes, pool: PoolId) -> dict[str, bytes]:
    return {
        "schema": str(SCHEMA_VERSION).encode(),
        "node_key": node_key,
        "network": str(pool.network).encode(),
        "pool": pool.account,
    }


def _unreadable(path: Path, error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{path}: in use by another process; is an agent running already?"
        case sqlite3.SQLITE_ERROR | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, str(error))
        case _:
            return f"{path}: cannot be opened: {error}; check the disk, and owner and mode of the file and its folder"


def _damaged(path: Path, detail: str) -> str:
    return f"{path}: damaged ({detail}). Restore the newest backup, or start anew with a new wallet and node key"


class Journal:
    """The open journal; see `gossip.store.Store` for what each method promises. Thread-safe."""

    def __init__(self, path: Path, database: sqlite3.Connection, node_key: bytes, pool: PoolId) -> None:
        self._path = path
        self._database = database
        self._node_key = node_key
        self._pool = pool
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._database.close()

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
            database.execute("INSERT INTO record VALUES (?, ?, ?, ?)", _row(record))
            if window is not None:
                database.execute("DELETE FROM window WHERE id = ?", (window,))

    def append(self, records: Sequence[Record]) -> None:
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?)", map(_row, records))

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
            query = "SELECT wire FROM record WHERE node_key = ? AND seq BETWEEN ? AND ? ORDER BY seq"
            yield from (wire for (wire,) in self._read(query, (node_key, first, end)))
            first = end + 1

    def all_records(self) -> Iterator[bytes]:
        for (node_key,) in self._read("SELECT DISTINCT node_key FROM record"):
            for (wire,) in self._read("SELECT wire FROM record WHERE node_key = ? ORDER BY seq", (node_key,)):
                yield wire

    def own_head(self) -> UnverifiedRecord | None:
        """The last record that this node signed: for whoever examines a journal."""
        rows = self._read("SELECT wire FROM record WHERE node_key = ? ORDER BY seq DESC LIMIT 1", (self._node_key,))
        return parse_record(rows[0][0], self._pool) if rows else None

    # The close of epochs.

    def keep_messages(self, epoch: int, messages: Sequence[Message]) -> None:
        if messages:
            rows = [(epoch, kind_of(m), _message_id(m), m.wire) for m in messages]
            with self._transaction() as database:
                database.executemany("INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?)", rows)

    def messages(self, epoch: int) -> Sequence[tuple[str, bytes]]:
        order = "CASE kind WHEN 'observation' THEN 0 WHEN 'proposal' THEN 1 ELSE 2 END"
        return self._read(f"SELECT kind, wire FROM message WHERE epoch = ? ORDER BY {order}, id", (epoch,))

    def observation(self, digest: bytes) -> bytes | None:
        return self._one("SELECT wire FROM message WHERE kind = 'observation' AND id = ?", digest)

    def keep_landed(self, settlement: Settlement) -> None:
        epoch = settlement.payload.epoch
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO landed VALUES (?, ?, ?)",
                (epoch, settlement.payload_hash, encode_checkpoint(settlement)),
            )
            self._forget(database, epoch - EPOCHS_KEPT)

    def last_landed(self) -> Settlement | None:
        rows = self._read("SELECT checkpoint, payload_hash FROM landed ORDER BY epoch DESC LIMIT 1")
        return self._settlement(*rows[0]) if rows else None

    def find_checkpoint(self, payload_hash: bytes | None) -> bytes | None:
        """Bytes of the settlement with this payload hash; of the last one for None."""
        return self.last_checkpoint() if payload_hash is None else self.checkpoint(payload_hash)

    def last_checkpoint(self) -> bytes | None:
        """Bytes of the last landed settlement."""
        rows = self._read("SELECT checkpoint FROM landed ORDER BY epoch DESC LIMIT 1")
        return rows[0][0] if rows else None

    def checkpoint(self, payload_hash: bytes) -> bytes | None:
        return self._one("SELECT checkpoint FROM landed WHERE payload_hash = ?", payload_hash)

    def _forget(self, database: sqlite3.Connection, epoch: int) -> None:
        rows = database.execute("SELECT checkpoint, payload_hash FROM landed WHERE epoch <= ?", (epoch,)).fetchall()
        for checkpoint, payload_hash in rows:
            cut = self._settlement(checkpoint, payload_hash).readings
            database.executemany(
                "DELETE FROM record WHERE node_key = ? AND seq < ?", [(key, r.head.seq) for key, r in cut.items()]
            )
        database.execute("DELETE FROM landed WHERE epoch <= ?", (epoch,))
        database.execute("DELETE FROM message WHERE epoch <= ?", (epoch,))

    def _settlement(self, checkpoint: bytes, payload_hash: bytes) -> Settlement:
        try:
            return verify_checkpoint(checkpoint, payload_hash)
        except InvalidMessageError as error:
            raise JournalError(_damaged(self._path, str(error))) from error

    # Collateral, witnessed uptime, meter state.

    def keep_attachment(self, digest: bytes, body: bytes) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO attachments VALUES (?, ?)", (digest, body))

    def attachment(self, digest: bytes) -> bytes | None:
        return self._one("SELECT body FROM attachments WHERE digest = ?", digest)

    def keep_witness(self, seconds: Mapping[bytes, int]) -> None:
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO witness VALUES (?, ?)", seconds.items())

    def witness(self) -> Mapping[bytes, int]:
        return dict(self._read("SELECT node_key, seconds FROM witness"))

    def keep_meter(self, source: str, state: bytes, windows: Sequence[bytes] = ()) -> int:
        """Keep the counter state of a source together with the windows that it closed: each counts once.

        Returns how many of the oldest windows had to give way (`WINDOWS_KEPT`).
        """
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meter VALUES (?, ?)", (source, state))
            database.executemany("INSERT INTO window (body) VALUES (?)", [(window,) for window in windows])
            oldest = "DELETE FROM window WHERE id <= (SELECT max(id) FROM window) - ?"
            return database.execute(oldest, (WINDOWS_KEPT,)).rowcount

    def windows_waiting(self) -> int:
        """How many closed windows are no records yet."""
        waiting: int = self._read("SELECT count(*) FROM window")[0][0]
        return waiting

    def next_window(self) -> tuple[int, bytes] | None:
        """The oldest closed window that is no record yet: its number, for `append_own`, and its bytes."""
        rows = self._read("SELECT id, body FROM window ORDER BY id LIMIT 1")
        return rows[0] if rows else None

    def drop_window(self, number: int) -> None:
        """Strike off a window that cannot become a record any more."""
        with self._transaction() as database:
            database.execute("DELETE FROM window WHERE id = ?", (number,))

    def meter(self, source: str) -> bytes | None:
        """The counter state last kept for this source."""
        return self._one("SELECT state FROM meter WHERE source = ?", source)

    # SQLite.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; any failure of the disk becomes a JournalError and nothing is kept."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failed("written", error) from error

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._database.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._failed("read", error) from error

    def _one(self, query: str, key: object) -> bytes | None:
        rows = self._read(query, (key,))
        return rows[0][0] if rows else None

    def _failed(self, what: str, error: sqlite3.Error) -> JournalError:
        return JournalError(
            f"{self._path}: cannot be {what}: {error}. Nothing was sent that depends on it; mend the disk"
        )


def _row(record: Record) -> tuple[bytes, int, bytes, bytes]:
    return record.node_key, record.seq, record.hash, record.wire


def _message_id(message: Message) -> bytes:
    return message.operator + message.cert_hash if isinstance(message, Attest) else message.digest
