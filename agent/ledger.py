"""The ledger: what was measured, settled and paid, kept for people, in an SQLite file beside the journal.

Nothing that is signed or counted depends on it, so it never stops the agent: what cannot be written is not kept, and
the log says so. The disk, and whoever changed the file, is not trusted.

1. A file that is damaged, of another version, or of another key or pool is set aside (`ledger.sqlite.aside`, in the
   place of an older one) and begun anew.
2. Rounds of raw readings are kept for `KEEP_S` and in `BYTES_MAX` for all; the oldest go first, a few at each round.
   Windows stay for `WINDOWS_KEEP_S`; epochs and payments for ever.
3. A commit is not awaited on disk (synchronous=NORMAL): after a power cut the last seconds may be missing, what is
   there is whole.
4. A window is measured again from an *anchor*: the meter's state before a round. There is one for each round that
   closed a window, and for the first round after a start or a failed write, so rounds between are never missing.

Elsewhere: its rows (`agent.ledger_rows`), reading it (`agent.ledger_reader`).

Source: METERING, "Counters" (raw samples); SQLite, "Write-Ahead Logging".
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent import journal_file
from agent.config import Config
from agent.ledger_rows import EpochRow, PaidRow, RawReading, WindowRow, bounded, split_sample
from agent.meter.work import MeterState, WindowLimits, WorkWindow, encode_state
from gossip.records import PoolId, Record, WorkBody

SCHEMA_VERSION = b"1"
KEEP_S = 7 * 86_400
WINDOWS_KEEP_S = 28 * 86_400
BYTES_MAX = 256 * 1024 * 1024
PRUNED_ROUNDS_MAX = 1000
"""In one step, while there is no room; a sixteenth of all if that is less."""
OLD_SAMPLES_MAX = 100
"""So many of the oldest are looked at, at one round, whether they are too old."""
WRITTEN_AGAIN = 60
"""After so many transactions a failure is said to be over."""
_LOG_FILE_BYTES_MAX = 8 * 1024 * 1024
_LOCK_WAIT_S = 1.0
_FORM_NOTED_ROUNDS = 64
"""It is written so often that a form is still in use."""
_FORMS_REMEMBERED_MAX = 256

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE form (id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, used INTEGER NOT NULL,
    names BLOB NOT NULL) STRICT;
CREATE TABLE sample (round INTEGER, source INTEGER, instance INTEGER, time_s INTEGER NOT NULL, form INTEGER,
    start_s INTEGER, figures BLOB, words BLOB, PRIMARY KEY (round, source, instance)) STRICT, WITHOUT ROWID;
CREATE TABLE anchor (round INTEGER PRIMARY KEY, state BLOB) STRICT;
CREATE TABLE window (start_s INTEGER PRIMARY KEY, end_s INTEGER NOT NULL, body BLOB NOT NULL,
    seq INTEGER, record BLOB, evidence BLOB) STRICT;
CREATE INDEX window_by_seq ON window (seq);
CREATE TABLE epoch (epoch INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE paid (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
"""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Codes of a file that is not what it was: the last one stands for a table that is not there."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def ledger_file(config: Config) -> Path:
    """Where the ledger of this agent is."""
    return config.journal_file.with_name("ledger.sqlite")


def ledger_meta(node_key: bytes, pool: PoolId) -> dict[str, bytes]:
    """What `meta` says of a ledger of this version: whose it is."""
    return {**journal_file.identity(node_key, pool), "schema": SCHEMA_VERSION}


def open_ledger(
    path: Path, *, node_key: bytes, pool: PoolId, keep_s: int = KEEP_S, bytes_max: int = BYTES_MAX
) -> Ledger:
    """Open the ledger of this node key and pool, or begin it; one that is of no use is set aside. Never fails."""
    ledger = Ledger(path, node_key, pool, keep_s=keep_s, bytes_max=bytes_max)
    ledger.begin()
    return ledger


class Ledger:
    """The open ledger. Thread-safe; each method may block as long as the disk takes, and none raises for its sake."""

    def __init__(self, path: Path, node_key: bytes, pool: PoolId, *, keep_s: int, bytes_max: int) -> None:
        self._path = path
        self._meta = ledger_meta(node_key, pool)
        self._keep_s = keep_s
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._failure: str | None = None
        """What was said of the last failure, until it is said to be over."""
        self._written = 0
        """Transactions since the last failure."""
        self._opening: int | None = None
        """The anchored round in which the open window began, or in which this process found it."""
        self._forms: dict[bytes, tuple[int, int]] = {}
        """By digest: the form's number, and the round in which its use was last written down."""
        self._paid: PaidRow | None = None

    def begin(self) -> None:
        """Open the file now, so that it is there and sound before it is needed."""
        self._write(lambda _: None)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            self._let_go()

    def keep_round(
        self,
        time_s: int,
        readings: Sequence[RawReading],
        *,
        before: MeterState | None,
        windows: Sequence[WorkWindow],
        limits: WindowLimits,
    ) -> int | None:
        """Keep what every source that is set said at `time_s`; the round's number, or None if it was not kept.

        `before` is the meter's state that the round was observed on, `windows` are those that it closed.
        """
        if not readings:
            return None
        return self._write(lambda database: self._insert_round(database, time_s, readings, before, windows, limits))

    def note_record(self, record: Record) -> None:
        """Note which own record a window became."""
        body = record.body
        if isinstance(body, WorkBody):
            row = (record.seq, record.hash, body.evidence, body.start_s, body.end_s)
            self._write(
                lambda database: database.execute(
                    "UPDATE window SET seq = ?, record = ?, evidence = ? WHERE start_s = ? AND end_s = ?", row
                ).close()
            )

    def keep_epoch(self, row: EpochRow) -> EpochRow:
        """Keep what came of an epoch; the row that stands, which gives way to none but one that says how it came.

        If nothing can be kept, that is `row`.
        """
        return self._write(lambda database: self._insert_epoch(database, row)) or row

    def keep_paid(self, row: PaidRow) -> None:
        """Note what the chain ever paid to an account; only what is new is written. Call it as often as you like."""
        with self._lock:
            known = self._paid
        if known is None or (known.account, known.paid_nanoton) != (row.account, row.paid_nanoton):
            self._write(lambda database: self._insert_paid(database, row))

    # Inside one transaction each.

    def _insert_round(
        self,
        database: sqlite3.Connection,
        time_s: int,
        readings: Sequence[RawReading],
        before: MeterState | None,
        windows: Sequence[WorkWindow],
        limits: WindowLimits,
    ) -> int:
        (last,) = database.execute("SELECT max(round) FROM sample").fetchone()
        number: int = (last or 0) + 1
        for reading in readings:
            row = (number, reading.source, reading.instance, time_s, *self._columns(database, reading, number))
            database.execute("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        if windows or self._opening is None:
            state = None if before is None else zlib.compress(encode_state(before))
            database.execute("INSERT INTO anchor VALUES (?, ?)", (number, state))
        opening = number if self._opening is None else self._opening
        for window in windows:
            body = WindowRow(window=window, limits=limits, first=opening, last=number)
            row = (window.start_s, window.end_s, msgspec.json.encode(body))
            database.execute("INSERT OR REPLACE INTO window (start_s, end_s, body) VALUES (?, ?, ?)", row)
            opening = number
        self._opening = opening
        self._prune(database, number, time_s)
        return number

    def _columns(self, database: sqlite3.Connection, reading: RawReading, number: int) -> tuple[object, ...]:
        """Form, start, figures and words of a reading."""
        sample = reading.sample
        if sample is None:
            return None, None, None, msgspec.json.encode(bounded([reading.error or ""]))
        names, figures = split_sample(sample)
        words = msgspec.json.encode(bounded(sample.notes)) if sample.notes else None
        return self._form(database, names, number), sample.counters.start_s, figures, words

    def _form(self, database: sqlite3.Connection, names: bytes, number: int) -> int:
        """The number of a form, which is in use at this round."""
        digest = hashlib.sha256(names).digest()
        known = self._forms.get(digest)
        if known is not None and number - known[1] < _FORM_NOTED_ROUNDS:
            return known[0]
        row = database.execute(
            "INSERT INTO form (digest, used, names) VALUES (?, ?, ?) "
            "ON CONFLICT (digest) DO UPDATE SET used = excluded.used RETURNING id",
            (digest, number, names),
        ).fetchone()
        if len(self._forms) >= _FORMS_REMEMBERED_MAX:
            self._forms.clear()
        self._forms[digest] = (row[0], number)
        return int(row[0])

    def _insert_epoch(self, database: sqlite3.Connection, row: EpochRow) -> EpochRow:
        found = database.execute("SELECT body FROM epoch WHERE epoch = ?", (row.epoch,)).fetchone()
        known = None if found is None else msgspec.json.decode(found[0], type=EpochRow)
        if known is not None and (known.is_computed or not row.is_computed):
            return known
        database.execute("INSERT OR REPLACE INTO epoch VALUES (?, ?)", (row.epoch, msgspec.json.encode(row)))
        return row

    def _insert_paid(self, database: sqlite3.Connection, row: PaidRow) -> None:
        last = database.execute("SELECT body FROM paid ORDER BY id DESC LIMIT 1").fetchone()
        known = None if last is None else msgspec.json.decode(last[0], type=PaidRow)
        if known is None or (known.account, known.paid_nanoton) != (row.account, row.paid_nanoton):
            database.execute("INSERT INTO paid (body) VALUES (?)", (msgspec.json.encode(row),))
        self._paid = row

    def _prune(self, database: sqlite3.Connection, number: int, time_s: int) -> None:
        """Let go of the oldest rounds, but not of this one, and of the oldest windows (rule 2)."""
        too_old = _first(
            database,
            "SELECT max(round) FILTER (WHERE time_s < ?) FROM "
            "(SELECT round, time_s FROM sample ORDER BY round LIMIT ?)",
            time_s - self._keep_s,
            OLD_SAMPLES_MAX,
        )
        if too_old is not None:
            self._drop_rounds(database, too_old)
        database.execute("DELETE FROM window WHERE start_s < ?", (time_s - WINDOWS_KEEP_S,))
        while _bytes_used(database) > self._bytes_max:
            first = _first(database, "SELECT min(round) FROM sample")
            if first == number:
                return
            self._drop_rounds(database, min(number - 1, first + min(PRUNED_ROUNDS_MAX, (number - first) // 16)))
            # Without room a window goes with its rounds.
            oldest_s = _first(database, "SELECT min(time_s) FROM sample")
            database.execute("DELETE FROM window WHERE start_s < ?", (oldest_s,))

    def _drop_rounds(self, database: sqlite3.Connection, through: int) -> None:
        """Let go of the rounds up to this one, and of the forms that none of the others has."""
        database.execute("DELETE FROM sample WHERE round <= ?", (through,))
        database.execute("DELETE FROM anchor WHERE round <= ?", (through,))
        # Of a form that is in use after `through`, this was written down since, or there is a sample that soon after.
        unused = (
            "DELETE FROM form WHERE used <= ? AND id NOT IN "
            "(SELECT form FROM sample WHERE round BETWEEN ? AND ? AND form IS NOT NULL)"
        )
        if database.execute(unused, (through, through + 1, through + _FORM_NOTED_ROUNDS)).rowcount:
            self._forms.clear()

    # The file.

    def _write(self, write: Callable[[sqlite3.Connection], T]) -> T | None:
        """Carry out one transaction; after a failure, which is said once, nothing of it is kept and None comes back."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._open()
                outcome = _transact(self._database, write)
            except (OSError, _UselessError, msgspec.DecodeError, *journal_file.UNREADABLE) as error:
                self._give_up(error)
                return None
            self._written += 1
            # On a disk that is all but full some succeed and some fail.
            if self._failure is not None and self._written >= WRITTEN_AGAIN:
                log.info("%s: written again", self._path)
                self._failure = None
            return outcome

    def _open(self) -> sqlite3.Connection:
        """The file, sound and of this key and pool; begun anew if there is none. Raises sqlite3.Error, OSError."""
        try:
            return self._connect()
        except (_UselessError, *journal_file.UNREADABLE) as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_LOCK_WAIT_S)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"journal_size_limit={_LOG_FILE_BYTES_MAX}"):
                database.execute(f"PRAGMA {pragma}")
            if _first(database, "SELECT count(*) FROM sqlite_schema") == 0:
                _transact(database, self._lay_out)
            _require_sound(database, self._meta)
        except BaseException:
            database.close()
            raise
        return database

    def _lay_out(self, database: sqlite3.Connection) -> None:
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.executemany("INSERT INTO meta VALUES (?, ?)", self._meta.items())

    def _set_aside(self, error: Exception) -> None:
        """Rename the file and its log (rule 1). Raises OSError."""
        aside = self._path.with_name(self._path.name + ".aside")
        log.warning("%s: %s; it is begun anew, and what was there is set aside as %s", self._path, error, aside)
        for suffix in ("-wal", "-shm", ""):
            old, new = self._path.with_name(self._path.name + suffix), aside.with_name(aside.name + suffix)
            new.unlink(missing_ok=True)
            if old.exists():
                old.rename(new)

    def _give_up(self, error: Exception) -> None:
        """Close the file after a failure, so that the next write begins with what is on disk then."""
        self._let_go()
        if _is_damage(error):
            try:
                self._set_aside(error)
                return
            except OSError as another:
                error = another
        if str(error) != self._failure:
            log.warning("%s: cannot be written: %s; samples and earnings are not kept meanwhile", self._path, error)
        self._failure, self._written = str(error), 0

    def _let_go(self) -> None:
        """Forget all that is known of the file."""
        if self._database is not None:
            self._database.close()
        self._database, self._opening, self._paid = None, None, None
        self._forms.clear()


class _UselessError(Exception):
    """The file is no ledger, or not this agent's."""


def _require_sound(database: sqlite3.Connection, meta: Mapping[str, bytes]) -> None:
    """Raise `_UselessError` or sqlite3.Error unless the pages are whole and the file is this agent's."""
    verdict = _first(database, "PRAGMA quick_check(1)")
    if verdict != "ok":
        raise _UselessError(f"damaged ({verdict})")
    found = dict(database.execute("SELECT key, value FROM meta"))
    for key, value in meta.items():
        if found.get(key) != value:
            raise _UselessError(f"of another {key.replace('_', ' ')}")


def _transact(database: sqlite3.Connection, write: Callable[[sqlite3.Connection], T]) -> T:
    database.execute("BEGIN IMMEDIATE")
    try:
        outcome = write(database)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    return outcome


def _is_damage(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF) in _DAMAGED
    return not isinstance(error, OSError)


def _bytes_used(database: sqlite3.Connection) -> int:
    pages, free, page_bytes = (
        _first(database, f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_bytes)


def _first(database: sqlite3.Connection, query: str, *parameters: object) -> Any:
    """The first value of the answer."""
    (value,) = database.execute(query, parameters).fetchone()
    return value
