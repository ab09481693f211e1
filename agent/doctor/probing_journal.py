"""The journal, looked at beside an agent that may run: it is read from one snapshot and never written.

It blocks, for `EXAMINE_S` at most: what is not examined by then is unknown, `gpupool db check` takes its time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from agent import journal_file
from agent.db.examining import Examination, examine
from agent.doctor.facts import Holder, JournalFacts, Maybe, SettledFacts, Trial, Unknown
from agent.errors import DENIED, ForeignJournalError, JournalError
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.settlement import verify_checkpoint

EXAMINE_S = 5.0
_TICK_INSTRUCTIONS = 10_000
"""Of SQLite's machine, between two looks at the time."""
COMMAND_MAX = 120
LOCKS = Path("/proc/locks")
_LOCK_WORDS = 8
_NO_KEY = Unknown("the node key cannot be used, and the journal is not opened without it")


class _TooLongError(JournalError):
    """The examination takes too long."""


def look_at_journal(
    path: Path, node_key: bytes | None, pool: PoolId, earlier: JournalFacts | None = None
) -> JournalFacts:
    """Look at the journal of this node key and pool; what an `earlier` look examined is not examined again."""
    try:
        path.stat()
    except FileNotFoundError:
        return _unread(missing=f"{path}: there is no journal", unusable=None, reason="there is no journal")
    except OSError as error:
        why = DENIED if isinstance(error, PermissionError) else error.strerror
        return _unread(missing=None, unusable=f"{path}: {why}", reason="the journal cannot be read")
    if node_key is None:
        return _unread(missing=None, unusable=_NO_KEY, reason=_NO_KEY.reason)
    try:
        with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
            journal_file.require_identity(path, database, node_key, pool)
            (waiting,) = database.execute("SELECT count(*) FROM window").fetchone()
            return JournalFacts(
                missing=None,
                unusable=None,
                damage=_damage(database, node_key, pool) if earlier is None else earlier.damage,
                windows_waiting=waiting,
                settled=_settled(database, node_key),
                key_in_use=_key_in_use(database),
            )
    except ForeignJournalError as error:
        reason = "the journal is of another agent"
        return replace(_unread(missing=None, unusable=Unknown(reason), reason=reason), foreign=str(error))
    except JournalError as error:
        return _unread(missing=None, unusable=str(error), reason="the journal cannot be read")


def _unread(*, missing: str | None, unusable: Trial, reason: str) -> JournalFacts:
    unknown = Unknown(reason)
    return JournalFacts(missing=missing, unusable=unusable, damage=unknown, windows_waiting=unknown, settled=unknown)


def _damage(database: sqlite3.Connection, node_key: bytes, pool: PoolId) -> Trial:
    """What is damaged in it, as far as the time allows to look."""
    until = time.monotonic() + EXAMINE_S

    def tell(_: str) -> None:
        if time.monotonic() > until:
            raise _TooLongError

    database.set_progress_handler(lambda: time.monotonic() > until, _TICK_INSTRUCTIONS)
    try:
        found = examine(database, node_key, pool, tell)
        tell("the end")  # an interruption of the last part looks like damage
    except _TooLongError:
        return Unknown(f"the journal is not examined whole within {EXAMINE_S:.0f} s; `gpupool db check` does it")
    finally:
        database.set_progress_handler(None, 0)
    return _damage_text(found)


def _damage_text(found: Examination) -> str | None:
    if not found.damaged:
        return None
    more = f", and {found.damaged - 1} more" if found.damaged > 1 else ""
    return f"the journal is damaged: {found.findings[0]}{more}"


def _settled(database: sqlite3.Connection, node_key: bytes) -> Maybe[SettledFacts | None]:
    row = database.execute("SELECT payload_hash, checkpoint FROM landed ORDER BY epoch DESC LIMIT 1").fetchone()
    if row is None:
        return None
    try:
        settlement = verify_checkpoint(row[1], row[0])
    except InvalidMessageError as error:
        return Unknown(f"the last settlement in the journal: {error}")
    reading = settlement.readings.get(node_key)
    return SettledFacts(
        epoch=settlement.payload.epoch,
        total_score=settlement.payload.total_score,
        leaves={leaf.participant: leaf for leaf in settlement.leaves},
        is_dead=reading is not None and reading.dead,
    )


def _key_in_use(database: sqlite3.Connection) -> str | None:
    row = database.execute("SELECT value FROM meta WHERE key = ?", (journal_file.KEY_IN_USE,)).fetchone()
    return None if row is None else bytes(row[0]).decode(errors="replace") or None


def find_holder(path: Path) -> Maybe[Holder | None]:
    """The process that holds the journal's lock, None if none does. The lock is asked for shared, and let go of."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unknown(f"{path}: its lock cannot be looked at: {error.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(os.fstat(descriptor).st_ino)
    except OSError as error:
        return Unknown(f"{path}: its lock cannot be looked at: {error.strerror}")
    finally:
        os.close(descriptor)
    return None


def _holder(inode: int) -> Holder:
    """Who holds a lock on this inode (proc(5), /proc/locks); what a sandbox hides is not shown."""
    try:
        lines = [line.split() for line in LOCKS.read_text().splitlines()]
        locks = [each for each in lines if len(each) == _LOCK_WORDS and each[1] == "FLOCK"]
        pid = next(int(each[4]) for each in locks if each[5].rpartition(":")[2] == str(inode) and int(each[4]) > 0)
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except (OSError, ValueError, StopIteration):
        return Holder(pid=None, command="", is_agent=True)
    return Holder(pid=pid, command=" ".join(words)[:COMMAND_MAX], is_agent="run" in words)
