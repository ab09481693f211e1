"""The journal's file: its tables, who may open it, and how damage to it is found.

Decides whether a file is a journal that can be trusted. A disk, and whoever copied the file, may have changed any
byte of it; a file made to deceive is not defended against here (an export is: `agent.db.archive`).

1. One process writes: it holds a lock (flock) beside the file. Others may read meanwhile, each from one snapshot.
2. A row that nothing else vouches for carries a checksum over its columns: SQLite keeps none of its pages, and its
   own check sees the form of a page, not what stands in it. Attachments and checkpoints are named by their hash.
3. A record follows one that is here, or the head of a settled base: a log has no gaps besides.

Source: PROTOCOL, "Durable before sent"; SQLite, "PRAGMA integrity_check", "Write-ahead logging".
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import DENIED, DamagedRowError, ForeignJournalError, JournalError, UnusableJournalError
from agent.files import sync_folder
from gossip import codec
from gossip.epoch_events import Message
from gossip.log_chain import GENESIS, Head
from gossip.messages import Attest
from gossip.records import PoolId, UnverifiedRecord
from gossip.settlement import Settlement

SCHEMA_VERSION = 4
"""Rises with every change of `SCHEMA`; `agent.migrations` leads there."""
RUNS_KEPT = 16
LOCK_WAIT_S = 5.0
LOG_FILE_BYTES_MAX = 64 * 1024 * 1024
"""To this length SQLite cuts its log back after a burst."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE record (node_key BLOB, seq INTEGER, hash BLOB, wire BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (node_key, seq, hash)) STRICT, WITHOUT ROWID;
CREATE TABLE named (node_key BLOB, seq INTEGER, hash BLOB, digest BLOB,
    PRIMARY KEY (node_key, seq, hash, digest)) STRICT, WITHOUT ROWID;
CREATE INDEX named_by_digest ON named (digest);
CREATE TABLE message (epoch INTEGER, kind TEXT, id BLOB, wire BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (epoch, kind, id)) STRICT, WITHOUT ROWID;
CREATE INDEX message_by_id ON message (id);
CREATE TABLE landed (epoch INTEGER PRIMARY KEY, payload_hash BLOB UNIQUE NOT NULL, checkpoint BLOB NOT NULL) STRICT;
CREATE TABLE outcome (payload_hash BLOB PRIMARY KEY, epoch INTEGER NOT NULL, checkpoint BLOB NOT NULL) STRICT;
CREATE TABLE attachments (digest BLOB PRIMARY KEY, epoch INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE witness (node_key BLOB PRIMARY KEY, seconds INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meter (source TEXT PRIMARY KEY, state BLOB NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE window (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE run (id BLOB PRIMARY KEY, started_s INTEGER NOT NULL, place BLOB NOT NULL, version TEXT NOT NULL,
    crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the second over a damaged schema, which it quotes."""

OWN_LOG = "own_log"
"""Key in `meta`: whether the own log is all here (`KNOWN`), or peers must be asked without trusting this file."""
KNOWN, UNKNOWN = b"known", b"unknown"
AGENT_VERSION = "agent_version"
"""Key in `meta`: the version of the agent that ran with this journal last."""
KEY_IN_USE = "key_in_use"
"""Key in `meta`: why the last run stopped, if another host used the node key (text); empty since it started well."""


def lock(path: Path) -> int:
    """Lock the journal at `path` against other processes, until the descriptor that it gives is closed.

    Raises:
        JournalError: another process holds it, or the lock's file cannot be made.
    """
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:  # a command of root's must not lock the agent's own user out
            os.fchown(descriptor, path.stat().st_uid, path.stat().st_gid)
    except OSError as error:
        raise failure(path, "opened", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalError(_IN_USE.format(path=path)) from error
    return descriptor


def connect(path: Path) -> sqlite3.Connection:
    """Connect for writing; every commit is on disk when it returns. Raises sqlite3.Error."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=LOCK_WAIT_S)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"journal_size_limit={LOG_FILE_BYTES_MAX}"):
            database.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        database.close()
        raise
    return database


def connect_reading(path: Path) -> sqlite3.Connection:
    """Connect for reading one snapshot, beside an agent that runs. Raises sqlite3.Error."""
    database = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, timeout=LOCK_WAIT_S
    )
    try:
        database.execute("BEGIN")
    except sqlite3.Error:
        database.close()
        raise
    return database


def require_present(path: Path) -> None:
    """Raise `UnusableJournalError` unless a file stands at `path`; `JournalError` if that cannot be seen."""
    try:
        path.stat()
    except FileNotFoundError as error:
        raise UnusableJournalError(_MISSING.format(path=path)) from error
    except PermissionError as error:
        raise JournalError(f"{path}: {DENIED}") from error
    except OSError as error:
        raise failure(path, "opened", error) from error


def require_vacant(path: Path) -> None:
    """Raise `JournalError` if a journal stands at `path`, or the log of one: SQLite would play it into a new file."""
    log = path.with_name(path.name + "-wal")
    for taken in (path, log):
        # Whoever only read a journal leaves an empty log behind.
        if taken.exists() and (taken == path or taken.stat().st_size):
            raise JournalError(f"{taken}: exists already; it holds this agent's log and is never overwritten")


def link_new(fresh: Path, path: Path) -> None:
    """Give a finished file its name, unless that is taken, and make that durable. Raises OSError."""
    path.hardlink_to(fresh)
    fresh.unlink()
    sync_folder(path.parent)


def identity(node_key: bytes, pool: PoolId) -> dict[str, bytes]:
    """What `meta` says about whose journal it is."""
    return {
        "schema": str(SCHEMA_VERSION).encode(),
        "node_key": node_key,
        "network": str(pool.network).encode(),
        "pool": pool.account,
    }


def require_sound(path: Path, database: sqlite3.Connection) -> None:
    """Check the file's form: the whole check, as a quick one does not see keys out of order, behind which are rows.

    Raises:
        JournalError: it is damaged.
        sqlite3.Error: it cannot be read.
    """
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict)


def require_identity(path: Path, database: sqlite3.Connection, node_key: bytes, pool: PoolId) -> None:
    """Check whose journal it is, and that it is of this agent's schema.

    Raises:
        JournalError: of another schema.
        ForeignJournalError: of another node key, network or pool.
        sqlite3.Error: it cannot be read.
    """
    schema = read_schema(path, database)
    if schema < SCHEMA_VERSION:
        raise JournalError(
            f"{path}: was written by an older agent (schema {schema}, this one has {SCHEMA_VERSION}). Start the agent "
            "once: it brings the journal to its schema, and keeps a copy"
        )
    if schema > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: was written by a newer agent (schema {schema}, this one has {SCHEMA_VERSION}). Use that version"
        )
    require_owner(path, database, node_key, pool)


def require_owner(path: Path, database: sqlite3.Connection, node_key: bytes, pool: PoolId) -> None:
    """Check whose journal it is, of whatever schema.

    Raises:
        ForeignJournalError: of another node key, network or pool.
        sqlite3.Error: it cannot be read.
    """
    found = dict(database.execute("SELECT key, value FROM meta"))
    for key, value in identity(node_key, pool).items():
        if key != "schema" and found.get(key) != value:
            what = key.replace("_", " ")
            raise ForeignJournalError(f"{path}: belongs to another {what}; check identity and pool in the config")


def read_schema(path: Path, database: sqlite3.Connection) -> int:
    """The number of the file's schema.

    Raises:
        JournalError: there is none.
        sqlite3.Error: it cannot be read.
    """
    found = read_meta(database, "schema")
    if found is None or not found.isdigit() or len(found) > 4:
        raise damaged(path, "it does not say of what schema it is")
    return int(found)


def read_node_key(path: Path, database: sqlite3.Connection) -> bytes:
    """The node key (32 bytes) whose journal it says it is.

    Raises:
        UnusableJournalError: it does not say so.
        sqlite3.Error: it cannot be read.
    """
    found = read_meta(database, "node_key")
    if found is None or len(found) != 32:
        raise damaged(path, "it does not say whose it is")
    return found


def read_meta(database: sqlite3.Connection, key: str) -> bytes | None:
    """What `meta` says under this key. Raises sqlite3.Error."""
    row = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None or not isinstance(row[0], bytes) else row[0]


# Rows.


def note_run(database: sqlite3.Connection, run: bytes, started_s: int, place: bytes, version: str) -> frozenset[bytes]:
    """Note a run of the agent, and that its version wrote last; the ids of those before it at the same place."""
    rows = database.execute("SELECT id, started_s, place, version, crc FROM run WHERE place = ?", (place,)).fetchall()
    before = frozenset(unsealed(row)[0] for row in rows)
    database.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", sealed(run, started_s, place, version))
    oldest = "DELETE FROM run WHERE id NOT IN (SELECT id FROM run ORDER BY id = ? DESC, started_s DESC LIMIT ?)"
    database.execute(oldest, (run, RUNS_KEPT))
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (AGENT_VERSION, version.encode()))
    return before


def enqueue(database: sqlite3.Connection, items: Sequence[bytes], most: int) -> int:
    """Put items behind those that wait to become records, of which `most` are kept; how many of the oldest gave way."""
    database.executemany("INSERT INTO window (body, crc) VALUES (?, ?)", [sealed(each) for each in items])
    oldest = "DELETE FROM window WHERE id <= (SELECT max(id) FROM window) - ?"
    return database.execute(oldest, (most,)).rowcount


def sealed(*values: codec.Value) -> tuple[codec.Value, ...]:
    """A row with its checksum as the last column."""
    return *values, zlib.crc32(codec.encode(values))


def unsealed(row: Sequence[Any]) -> Sequence[Any]:
    """The row without its checksum.

    Raises:
        DamagedRowError: the checksum is not that of the other columns.
    """
    if sealed(*row[:-1])[-1] != row[-1]:
        raise DamagedRowError(f"a row does not match its checksum: {row[:-2]!r:.200}")
    return row[:-1]


def message_id(message: Message) -> bytes:
    """Under which a message is kept: one per maker and certificate for attests, else its digest."""
    return message.operator + message.cert_hash if isinstance(message, Attest) else message.digest


def unlinked(records: Sequence[UnverifiedRecord], settlements: Callable[[], Iterator[Settlement]]) -> list[int]:
    """Numbers of those records of one log (ascending by number) that follow nothing (rule 3).

    `settlements` gives the settlements kept; it is asked only where there is a gap. What is behind the lowest
    number kept was counted and forgotten.
    """
    lowest = records[0].seq if records else 0
    held = {Head(record.seq, record.hash) for record in records} | {GENESIS}
    loose = [r for r in records if (r.seq == 1 or r.seq > lowest) and Head(r.seq - 1, r.prev_hash) not in held]
    if not loose:
        return []
    bases = {each.base().reading(records[0].node_key).head for each in settlements()}
    return [record.seq for record in loose if Head(record.seq - 1, record.prev_hash) not in bases]


# What is said of a file that cannot be used.


def damaged(path: Path, detail: str) -> UnusableJournalError:
    return UnusableJournalError(
        f"{path}: damaged ({detail}). `gpupool db check` says what is still good. Move the file away. "
        "Restore the newest export with `gpupool db import`; without one, `gpupool run --fresh` asks the operators "
        "what this key signed, or `gpupool keys rotate` replaces the key"
    )


@contextmanager
def explaining(path: Path, what: str) -> Iterator[None]:
    """Turn an error of SQLite in the block into a JournalError that says what to do. `what` as for `failure`."""
    try:
        yield
    except UNREADABLE as error:
        raise failure(path, what, error) from error


def failure(path: Path, what: str, error: Exception) -> JournalError:
    """What comes of an error of the disk while the journal should be "opened", "read" or "written"."""
    detail = str(error.strerror) if isinstance(error, OSError) else str(error)
    code = getattr(error, "sqlite_errorcode", _code_of(error)) & 0xFF
    if what == "read" and code == sqlite3.SQLITE_CANTOPEN and is_denied(path):
        return JournalError(f"{path}: {DENIED}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalError(_IN_USE.format(path=path))
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, detail)
    if code == sqlite3.SQLITE_IOERR:
        detail += f", {getattr(error, 'sqlite_errorname', '')}"
    advice = _ADVICE.get(code, "check the disk, and owner and mode of the file and its folder")
    nothing = "" if what == "opened" else "Nothing was sent that depends on it; "
    return JournalError(f"{path}: cannot be {what}: {detail}. {nothing}{advice}")


def is_denied(path: Path) -> bool:
    """Whether this user may not read what stands at `path`; SQLite tells no reason why it cannot open a file.

    The file is not opened for that: to close it again would take SQLite's locks from a writer in this process.
    """
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK, effective_ids=True)


def _code_of(error: Exception) -> int:
    """SQLite's code for an error that carries none: raised by Python over what it read, or by the system."""
    is_content = isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)
    return sqlite3.SQLITE_ERROR if is_content else sqlite3.SQLITE_CANTOPEN


_MISSING = (
    "{path}: missing. A new agent: run `gpupool init`. A lost disk: `gpupool db import` the newest export, never an "
    "older copy of this file. Without one, `gpupool run --fresh` asks the operators what this key signed; if it "
    "may have signed records that nobody else holds, replace the key: `gpupool keys rotate`"
)
_IN_USE = "{path}: in use by another process; is an agent running already?"
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on the disk, then start the agent again",
    sqlite3.SQLITE_IOERR: "the disk is full or failing: see `df` and `dmesg`, mend the disk, start the agent again",
}
