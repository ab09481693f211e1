"""Migrations: brings a journal that an older agent wrote to the schema of this one, without ever risking it.

Decides whether a file is of an older schema that is known here, and what is done about it. The file's owner was
checked, and the lock is held (`agent.journal.open_journal`). What stands in the file is not trusted more than ever.

1. First a copy is set aside, whole and on disk before anything is changed: `journal.sqlite.schema-3-TIME.backup`. The
   newest `BACKUPS_KEPT` stay. A copy does not count as knowing the own log: it grows old at once.
2. All steps, and the number of the new schema, are one transaction. It is committed only if the tables are then those
   that a new journal has, so a kill at any moment leaves the old journal or the new one.
3. There is no way back but the copy: a journal of a newer schema is refused by name, and nothing is written to it.
4. A step is a list of SQL statements, never code of the agent: that changes, and a step must not.

Source: SQLite, "Online Backup API", "Transactional DDL" (lang_transaction), "File Locking And Concurrency".
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agent.errors import JournalError, UnusableJournalError
from agent.files import give_to_folders_owner, sync_folder
from agent.journal_file import (
    OWN_LOG,
    SCHEMA,
    SCHEMA_VERSION,
    UNKNOWN,
    explaining,
    failure,
    read_schema,
)

BACKUPS_KEPT = 2
SPARE_BYTES = 16 * 1024 * 1024
"""What must be left on the disk besides the copy and the log of the migration, each as long as the journal at worst."""

STEPS: Mapping[int, Sequence[str]] = {
    3: (
        "CREATE TABLE run (id BLOB PRIMARY KEY, started_s INTEGER NOT NULL, place BLOB NOT NULL, "
        "version TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
}
"""By the schema that they lead away from, to the next one."""

log = logging.getLogger(__name__)


def migrate(path: Path, database: sqlite3.Connection) -> None:
    """Bring the journal at `path`, open for writing here, to this agent's schema, if it is of an older one.

    Raises:
        JournalError: of a newer schema or an unknown one, or the disk has no room or fails; the journal is as it was.
    """
    schema = read_schema(path, database)
    if schema == SCHEMA_VERSION:
        return
    require_known(path, schema)
    require_room(path, database)
    backup = set_aside(path, database, schema)
    with explaining(path, "written"):
        _take_steps(path, database, schema)
    log.warning("%s: brought from schema %d to %d; as it was: %s", path, schema, SCHEMA_VERSION, backup)
    try:
        for old in backups(path)[:-BACKUPS_KEPT]:
            old.unlink()
    except OSError as error:
        log.warning("%s: an old copy cannot be removed: %s", error.filename, error.strerror)


def require_known(path: Path, schema: int) -> None:
    """Raise `UnusableJournalError` unless there are steps from this schema to that of this agent."""
    if schema > SCHEMA_VERSION:
        copies = backups(path)
        copy = f" To go back for good, stop the agent and see docs/upgrading.md about {copies[-1]}." if copies else ""
        raise UnusableJournalError(
            f"{path}: was written by a newer agent (schema {schema}, this one has {SCHEMA_VERSION}). Install that "
            f"version again: an older one cannot read it.{copy}"
        )
    if any(each not in STEPS for each in range(schema, SCHEMA_VERSION)):
        raise UnusableJournalError(
            f"{path}: of schema {schema}, which no released agent wrote; this one has {SCHEMA_VERSION}. Move the file "
            "away and start with `gpupool run --fresh`"
        )


def require_room(path: Path, database: sqlite3.Connection) -> None:
    """Raise `JournalError` unless the disk has room for the copy and the migration."""
    missing = needed_bytes(path, database) - free_bytes(path)
    if missing > 0:
        raise JournalError(
            f"{path}: is of an older schema, and there is no room to bring it to this one: {missing} bytes are missing "
            f"in {path.parent}. Nothing was changed; make room, then start the agent again"
        )


def needed_bytes(path: Path, database: sqlite3.Connection) -> int:
    """What the disk must have free before the journal is migrated."""
    with explaining(path, "read"):
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
    return 2 * int(pages) * int(page_bytes) + SPARE_BYTES


def free_bytes(path: Path) -> int:
    """What is left for the agent on the disk of the journal."""
    try:
        found = os.statvfs(path.parent)
    except OSError as error:
        raise failure(path, "opened", error) from error
    return found.f_bavail * found.f_frsize


def set_aside(path: Path, database: sqlite3.Connection, schema: int) -> Path:
    """Copy the journal beside itself, whole and on disk; returns where.

    Raises:
        JournalError: the disk fails or is full; what was begun is gone.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_name(f"{path.name}.schema-{schema}-{stamp}.backup")
    fresh = path.with_name(f"{path.name}.backup.new")
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        give_to_folders_owner(fresh)
        with explaining(target, "written"), closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with no log beside it
            copy.execute("UPDATE meta SET value = ? WHERE key = ?", (UNKNOWN, OWN_LOG))
            (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise JournalError(f"{target}: the copy of the journal is not sound ({verdict}); nothing was changed")
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)  # one of this second was of the same journal: an attempt that was cut short
        sync_folder(path.parent)
    except OSError as error:
        raise failure(target, "written", error) from error
    finally:
        fresh.unlink(missing_ok=True)
    return target


def backups(path: Path) -> list[Path]:
    """The copies beside the journal at `path`, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.schema-*.backup"), key=lambda each: each.name.rsplit("-", 1)[-1])


def _take_steps(path: Path, database: sqlite3.Connection, schema: int) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        for each in range(schema, SCHEMA_VERSION):
            for statement in STEPS[each]:
                database.execute(statement)
        database.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA_VERSION).encode(),))
        if tables(database) != new_tables():
            raise JournalError(f"{path}: cannot be brought to schema {SCHEMA_VERSION}: its tables are not as expected")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    sync_folder(path.parent)


def tables(database: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """Name and definition of every table and index, spaces aside."""
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return frozenset((name, "".join(sql.split())) for name, sql in rows)


def new_tables() -> frozenset[tuple[str, str]]:
    """The tables of a journal that is made now."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMA)
        return tables(database)
