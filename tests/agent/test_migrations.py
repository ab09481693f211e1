"""An older journal is copied, then brought to this agent's schema: whatever happens, the old or the new is there."""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import pytest
from failing_calls import fail_from_now_on, needs_filter
from forked import forked
from journal_scene import OWN, contents, written_journal

from agent import migrations
from agent.db.examining import examine
from agent.errors import ForeignJournalError, JournalError
from agent.journal import open_journal
from agent.journal_file import AGENT_VERSION, SCHEMA_VERSION, connect_reading, read_meta, require_identity
from agent.migrations import BACKUPS_KEPT, backups, new_tables, tables

OLD_SCHEMA = Path(__file__).with_name("journal_schema_3.sql").read_text()
"""As agents of schema 3 made it."""
TABLES = ("meta", "record", "named", "message", "landed", "outcome", "attachments", "witness", "meter", "window")
STEPS = frozenset({"execute", "backup", "fsync", "link", "unlink", "statvfs", "touch", "close"})
"""Calls before each of which a test kills the process."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of schema 3 with something in every table."""
    new, old = written_journal(tmp_path / "new.sqlite"), tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(old, isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=WAL;" + OLD_SCHEMA)
        database.execute("ATTACH ? AS new", (str(new),))
        for table in TABLES:
            database.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
        database.execute("UPDATE meta SET value = CAST('3' AS BLOB) WHERE key = 'schema'")
        database.execute("DELETE FROM meta WHERE key = ?", (AGENT_VERSION,))
    return old


def rows(path: Path) -> dict[str, list[Any]]:
    """All rows of the tables of schema 3, without asking the agent."""
    with closing(connect_reading(path)) as database:
        return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def schema_of(path: Path) -> bytes | None:
    with closing(connect_reading(path)) as database:
        return read_meta(database, "schema")


def test_an_older_journal_answers_what_it_did_and_is_as_a_new_one(path: Path) -> None:
    new = path.with_name("new.sqlite")
    assert contents(path) == contents(new)
    with closing(connect_reading(path)) as database:
        assert tables(database) == new_tables()
        require_identity(path, database, **OWN)
        assert examine(database, OWN["node_key"], OWN["pool"], lambda _: None).damaged == 0
    with closing(open_journal(path, **OWN)) as journal:
        assert journal.begin_run(b"1" * 16, 5, b"here" * 4, "0.2.0") == frozenset()
        assert journal.begin_run(b"2" * 16, 6, b"here" * 4, "0.2.0") == {b"1" * 16}


def test_the_copy_is_whole_private_and_does_not_claim_to_know_the_own_log(path: Path) -> None:
    before = rows(path)
    open_journal(path, **OWN).close()
    (copy,) = backups(path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    after = rows(copy)
    assert dict(after.pop("meta")) == dict(before.pop("meta")) | {"own_log": b"unknown"}
    assert after == before
    open_journal(path, **OWN).close()
    assert backups(path) == [copy], "it is migrated once"


def test_few_copies_are_kept_and_the_newest(path: Path) -> None:
    for year in range(2001, 2006):
        path.with_name(f"{path.name}.schema-3-{year}0101T000000Z.backup").touch()
    open_journal(path, **OWN).close()
    kept = backups(path)
    assert len(kept) == BACKUPS_KEPT
    assert kept[0].name.endswith("20050101T000000Z.backup")


def test_an_old_copy_that_cannot_be_removed_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for year in range(2001, 2003):
        path.with_name(f"{path.name}.schema-3-{year}0101T000000Z.backup").mkdir()
    open_journal(path, **OWN).close()
    assert schema_of(path) == str(SCHEMA_VERSION).encode()
    assert "an old copy cannot be removed" in caplog.text


def test_a_run_that_was_changed_on_disk_is_said_to_be_damage(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal:
        journal.begin_run(b"1" * 16, 5, b"here" * 4, "0.2.0")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE run SET started_s = 6")
    with (
        closing(open_journal(path, **OWN)) as journal,
        pytest.raises(JournalError, match="a row does not match its checksum"),
    ):
        journal.begin_run(b"2" * 16, 6, b"here" * 4, "0.2.0")


@pytest.mark.parametrize("found", [SCHEMA_VERSION + 1, 9999])
def test_a_journal_of_a_newer_agent_is_refused_and_left_alone(path: Path, found: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(found).encode(),))
    before = rows(path)
    with pytest.raises(JournalError, match=f"written by a newer agent \\(schema {found}, this one has"):
        open_journal(path, **OWN)
    assert rows(path) == before
    assert backups(path) == []


@pytest.mark.parametrize("found", [b"", b"0x3", b"99999", b"-1", None])
def test_a_schema_that_is_no_number_is_damage(path: Path, found: bytes | None) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        if found is None:
            database.execute("DELETE FROM meta WHERE key = 'schema'")
        else:
            database.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (found,))
    with pytest.raises(JournalError, match="it does not say of what schema it is"):
        open_journal(path, **OWN)


def test_a_journal_of_another_key_is_not_migrated(path: Path) -> None:
    with pytest.raises(ForeignJournalError, match="belongs to another node key"):
        open_journal(path, node_key=bytes(32), pool=OWN["pool"])
    assert (schema_of(path), backups(path)) == (b"3", [])


def test_tables_that_are_not_as_expected_end_the_migration_and_nothing_is_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE surprise (id INTEGER)")
    before = rows(path)
    with pytest.raises(JournalError, match="its tables are not as expected"):
        open_journal(path, **OWN)
    assert rows(path) == before


def test_without_room_nothing_is_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "free_bytes", lambda _: 1000)
    before = rows(path)
    with pytest.raises(JournalError, match=r"no room to bring it to this one: \d+ bytes are missing"):
        open_journal(path, **OWN)
    assert rows(path) == before
    assert backups(path) == []
    monkeypatch.undo()
    assert contents(path) == contents(path.with_name("new.sqlite"))


@needs_filter
@pytest.mark.parametrize(("calls", "code"), [(["pwrite64"], errno.ENOSPC), (["fsync", "fdatasync"], errno.EIO)])
def test_a_disk_that_fails_on_the_way_leaves_the_old_journal(path: Path, calls: list[str], code: int) -> None:
    before = rows(path)

    def upgrade(report: BinaryIO) -> None:
        fail_from_now_on(calls, code)
        try:
            open_journal(path, **OWN)
        except JournalError as error:
            report.write(str(error).encode())
        report.write(b"!")

    with forked(upgrade) as child:
        said = child.reports.read().decode()
        assert child.wait() == 0
    assert "cannot be" in said
    assert rows(path) == before
    assert contents(path) == contents(path.with_name("new.sqlite"))


def upgrade_until(path: Path, call: int) -> None:
    """Open the journal, and die as of a `kill -9` before the call of `STEPS` with this number."""
    numbers = itertools.count(1)

    def die(_frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in STEPS and next(numbers) == call:
            os._exit(9)

    sys.setprofile(die)
    open_journal(path, **OWN)
    sys.setprofile(None)


@pytest.mark.slow
def test_killed_before_any_step_the_old_journal_or_the_new_one_is_there(path: Path) -> None:
    before, kept = rows(path), path.read_bytes()
    log = path.with_name(path.name + "-wal")
    schemas = []
    for call in itertools.count(1):
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
        path.write_bytes(kept)
        with forked(lambda _, call=call: upgrade_until(path, call)) as child:
            code = child.wait()
        schemas.append(schema_of(path))
        assert {table: held for table, held in rows(path).items() if table != "meta"} == {
            table: held for table, held in before.items() if table != "meta"
        }
        assert contents(path) == contents(path.with_name("new.sqlite"))
        assert len(backups(path)) >= 1
        if code == 0:
            break
    assert not log.exists() or log.stat().st_size == 0
    assert call > len(STEPS)
    assert set(schemas) == {b"3", str(SCHEMA_VERSION).encode()}
    assert sorted(schemas) == schemas, "there is one moment at which the old one becomes the new one"
