"""The journal on a disk that fails: one clear line, nothing said to be kept that is not, and no second try."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from failing_calls import fail_from_now_on, needs_filter
from forked import forked
from journal_scene import KEY, OWN, contents, written_journal
from pool_fixture import POOL, Author

from agent.errors import JournalError
from agent.journal import Journal, create_journal, open_journal
from gossip.records import CloseBody, Record, make_record, parse_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written_journal(tmp_path / "journal.sqlite")


def next_record(journal: Journal) -> Record:
    head = journal.own_head()
    assert head is not None
    return make_record(KEY, POOL, head.seq + 1, head.hash, CloseBody())


def said_by(run: object) -> str:
    """The JournalError that this raises, as text; empty if it raises none."""
    try:
        run()
    except JournalError as error:
        return str(error)
    return ""


@needs_filter
@pytest.mark.parametrize(
    ("calls", "code", "said"),
    [
        (("fsync", "fdatasync"), errno.EIO, "SQLITE_IOERR_FSYNC"),
        (("pwrite64",), errno.EIO, "SQLITE_IOERR_WRITE"),
        (("pwrite64",), errno.ENOSPC, "database or disk is full"),
    ],
)
def test_a_write_that_fails_stops_the_journal_for_good(path: Path, calls: list[str], code: int, said: str) -> None:
    before = contents(path)

    def write(report: BinaryIO) -> None:
        journal = open_journal(path, **OWN)
        record = next_record(journal)
        fail_from_now_on(calls, code)
        first = said_by(lambda: journal.append_own(record))
        assert said in first, first
        assert str(path) in first
        assert "Nothing was sent that depends on it" in first
        assert "start the agent again" in first
        for again in (lambda: journal.append_own(record), journal.own_head, lambda: journal.keep_meter("engine", b"")):
            assert said_by(again) == first, "a second try may succeed over what never reached the disk"
        report.write(b"!")

    with forked(write) as child:
        assert child.read(1) == b"!"
        assert child.wait() == 0
    after = contents(path)
    unchanged = {name for name in before if after[name] == before[name]}
    # A commit whose fsync failed may be there: it was never sent, and the own log goes on from it.
    assert unchanged >= set(before) - {"records"}
    assert len(after["records"]) - len(before["records"]) in (0, 1)
    with closing(open_journal(path, **OWN)) as journal:
        journal.append_own(next_record(journal))


@needs_filter
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EIO, "damaged (database disk image is malformed). `gpupool db check`"),  # a sector that cannot be read
        (errno.ESTALE, "cannot be read: disk I/O error, SQLITE_IOERR_READ"),
    ],
)
def test_a_read_that_fails_stops_the_journal_for_good(path: Path, code: int, said: str) -> None:
    def read(report: BinaryIO) -> None:
        journal = open_journal(path, **OWN)
        journal._database.execute("PRAGMA shrink_memory")  # nothing is answered from memory
        fail_from_now_on(["pread64"], code)
        first = said_by(lambda: list(journal.all_records()))
        assert said in first, first
        assert said_by(lambda: journal.keep_meter("engine", b"")) == first
        report.write(b"!")

    with forked(read) as child:
        assert child.read(1) == b"!"
        assert child.wait() == 0


SMALL_DISK = """
import subprocess, sys
from contextlib import closing
from pathlib import Path

sys.path[:0] = sys.argv[2:]
from journal_scene import KEY, OWN
from pool_fixture import POOL, Author
from agent.errors import JournalError
from agent.journal import create_journal, open_journal

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", folder], check=True)
path, ballast = folder / "journal.sqlite", folder / "ballast"
create_journal(path, **OWN)
ballast.write_bytes(bytes(64 * 1024))
author = Author(0)
journal = open_journal(path, **OWN)
try:
    for _ in range(5000):
        journal.append_own(author.work())
except JournalError as error:
    print(error)
journal.close()
kept = len(author.records) - 1
ballast.unlink()
with closing(open_journal(path, **OWN)) as journal:
    assert list(journal.records(KEY.public, 1, 1 << 62)) == [record.wire for record in author.records[:kept]]
    journal.append_own(author.records[kept])
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
try:
    open_journal(path, **OWN)
except JournalError as error:
    print(error)
print(kept)
"""


@pytest.mark.slow
def test_a_disk_that_is_full_and_one_that_is_read_only(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0 or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    support = Path(__file__).parents[1] / "support"
    command = [unshare, "-m", sys.executable, "-c", SMALL_DISK, tmp_path, support, Path(__file__).parents[2]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    full, read_only, kept = done.stdout.splitlines()
    assert "cannot be written: database or disk is full" in full
    assert "make room on the disk, then start the agent again" in full
    assert "cannot be opened: Read-only file system. check the disk" in read_only
    assert int(kept) > 50


def test_a_file_that_another_program_writes_is_in_use(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal, closing(sqlite3.connect(path)) as other:
        journal._database.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="in use by another process"):
            journal.keep_meter("engine", b"")


# The own log, as it is found at opening.


def remove(path: Path, condition: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(f"DELETE FROM record WHERE {condition}", (KEY.public,)).rowcount


def test_an_own_log_with_a_hole_is_not_gone_on_with(path: Path) -> None:
    remove(path, "node_key = ? AND seq = 7")
    with pytest.raises(JournalError, match=r"damaged \(own record 8 follows none that is here\).*gpupool db check"):
        open_journal(path, **OWN)


def test_an_own_record_that_changed_is_not_gone_on_with(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE record SET wire = zeroblob(length(wire)) WHERE node_key = ? AND seq = 7", (KEY.public,)
        )
    with pytest.raises(JournalError, match=r"damaged \(a row does not match its checksum"):
        open_journal(path, **OWN)


def test_what_a_settlement_counted_may_be_gone(path: Path) -> None:
    """A restored journal goes on from a settled base that it has no records behind."""
    remove(path, "node_key = ? AND seq < 32")
    with closing(open_journal(path, **OWN)) as journal:
        assert journal.own_head().seq == 32


def test_an_own_log_may_go_on_from_a_settled_base_over_a_gap(path: Path) -> None:
    with closing(open_journal(path, **OWN)) as journal:
        base = journal.last_landed().base().reading(KEY.public).head
    assert base.seq == 31
    remove(path, "node_key = ? AND seq BETWEEN 20 AND 31")
    with closing(open_journal(path, **OWN)) as journal:
        assert [parse_record(wire, POOL).seq for wire in journal.records(KEY.public, 19, 40)] == [19, 32]


def test_a_journal_of_an_older_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = CAST('1' AS BLOB) WHERE key = 'schema'")
    with pytest.raises(JournalError, match="of schema 1, which no released agent wrote; this one has 4"):
        open_journal(path, **OWN)


def test_an_empty_log_of_an_old_file_is_no_obstacle_and_a_full_one_is(tmp_path: Path) -> None:
    path, log = tmp_path / "journal.sqlite", tmp_path / "journal.sqlite-wal"
    log.touch()
    create_journal(path, **OWN)
    with closing(open_journal(path, **OWN)) as journal:
        journal.append_own(Author(0).work())
        path.unlink()
        with pytest.raises(JournalError, match="-wal: exists already"):
            create_journal(path, **OWN)
