"""The embedded chain on disk: one SQLite file that each block is written to before anyone hears of it.

Decides: what is kept (the blocks and account versions of the last `HISTORY_BLOCKS`), and whether a
file is a chain that this program wrote whole.

Untrusted input: the file. Rules: SQLite must find it sound, the format must be this one, and whoever
loads it compares the ids of the blocks that follow from it with those that it names (`node`).
Everything else raises `StorageCorruptError`; a file in use by another process `StorageBusyError`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pytoniq_core import Cell

from contracts.devchain.accounts import StoredAccount
from contracts.devchain.blocks import Tip
from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.errors import InvalidMessageError, StorageBusyError, StorageCorruptError
from contracts.devchain.ledger import Changes
from contracts.devchain.tl import BlockId

HISTORY_BLOCKS = 2000
FILE_NAME = "chain.sqlite3"

_FORMAT = b"devchain/1"
_PRUNE_EVERY = 64
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE block (
    seqno INTEGER PRIMARY KEY, time_s INTEGER NOT NULL, end_lt INTEGER NOT NULL,
    masterchain_root BLOB NOT NULL, masterchain_file BLOB NOT NULL,
    masterchain_state BLOB NOT NULL, masterchain_depth INTEGER NOT NULL,
    shard_root BLOB NOT NULL, shard_file BLOB NOT NULL, shard_state BLOB NOT NULL, shard_depth INTEGER NOT NULL);
CREATE TABLE account (
    account BLOB NOT NULL, seqno INTEGER NOT NULL, cell BLOB NOT NULL, PRIMARY KEY (account, seqno)) WITHOUT ROWID;
CREATE TABLE tx (
    account BLOB NOT NULL, lt INTEGER NOT NULL, seqno INTEGER NOT NULL, cell BLOB NOT NULL,
    PRIMARY KEY (account, lt)) WITHOUT ROWID;
CREATE INDEX tx_of_block ON tx (seqno);
CREATE INDEX account_of_block ON account (seqno);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTransaction:
    seqno: int
    cell: Cell


class Storage:
    """The open file. One process at a time; closed by the context manager."""

    def __init__(self, directory: Path, *, history_blocks: int = HISTORY_BLOCKS) -> None:
        """Open or create the file in `directory` (which is created, readable by this user only).

        Raises:
            StorageCorruptError: the file is no chain of this format, or is damaged.
            StorageBusyError: another process has it open.
        """
        self.path = directory / FILE_NAME
        self.history_blocks = history_blocks
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        with self._translated():
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("BEGIN EXCLUSIVE")
            self._database.execute("COMMIT")
            tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables == 0:
                self._database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            elif self._database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise StorageCorruptError(self._refusal("it is damaged"))
        if tables == 0:
            self.set_meta(format=_FORMAT)
        elif self.meta("format") != _FORMAT:
            raise StorageCorruptError(self._refusal("it is not a chain of this format"))

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def meta(self, key: str) -> bytes | None:
        with self._translated():
            row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, **values: bytes) -> None:
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def append(self, tip: Tip, changes: Changes) -> None:
        """Write a block with what changed in it; durable when this returns."""
        with self._transaction():
            self._database.execute(
                "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(tip.seqno, tip.time_s, tip.end_lt),
                    *(tip.masterchain.root_hash, tip.masterchain.file_hash, *tip.masterchain_state),
                    *(tip.shard.root_hash, tip.shard.file_hash, *tip.shard_state),
                ),
            )
            accounts = ((a, tip.seqno, stored.boc) for a, stored in changes.accounts.items())
            self._database.executemany("INSERT INTO account VALUES (?, ?, ?)", accounts)
            rows = ((t.address.account, t.lt, tip.seqno, to_boc(t.cell)) for t in changes.transactions)
            self._database.executemany("INSERT INTO tx VALUES (?, ?, ?, ?)", rows)
            if tip.seqno % _PRUNE_EVERY == 0:
                self._prune(tip.seqno - self.history_blocks)

    def _prune(self, base: int) -> None:
        """Forget blocks before `base`, and account versions that a later one up to `base` replaces."""
        self._database.execute("DELETE FROM block WHERE seqno < ?", (base,))
        self._database.execute("DELETE FROM tx WHERE seqno <= ?", (base,))
        self._database.execute(
            "DELETE FROM account WHERE seqno < (SELECT max(newer.seqno) FROM account AS newer"
            " WHERE newer.account = account.account AND newer.seqno <= ?)",
            (base,),
        )

    def tips(self) -> Iterator[Tip]:
        """The blocks that are kept, oldest first."""
        with self._translated():
            rows = self._database.execute("SELECT * FROM block ORDER BY seqno").fetchall()
        for row in rows:
            seqno, time_s, end_lt, mc_root, mc_file, mc_state, mc_depth, *shard = row
            root, file, state, depth = shard
            yield Tip(
                seqno=seqno,
                time_s=time_s,
                end_lt=end_lt,
                masterchain=BlockId(workchain=-1, seqno=seqno, root_hash=mc_root, file_hash=mc_file),
                shard=BlockId(workchain=0, seqno=seqno, root_hash=root, file_hash=file),
                masterchain_state=(mc_state, mc_depth),
                shard_state=(state, depth),
            )

    def accounts_until(self, seqno: int) -> dict[bytes, StoredAccount]:
        """Every account as block `seqno` has it."""
        query = "SELECT account, cell, max(seqno) FROM account WHERE seqno <= ? GROUP BY account"
        return {row[0]: StoredAccount(self._cell(row[1]), row[1]) for row in self._rows(query, seqno)}

    def accounts_of(self, seqno: int) -> dict[bytes, StoredAccount]:
        """The accounts that changed in block `seqno`."""
        query = "SELECT account, cell FROM account WHERE seqno = ?"
        return {row[0]: StoredAccount(self._cell(row[1]), row[1]) for row in self._rows(query, seqno)}

    def transactions_of(self, seqno: int) -> list[Cell]:
        """The transactions of block `seqno`, in order of their logical times."""
        rows = self._rows("SELECT cell FROM tx WHERE seqno = ? ORDER BY lt", seqno)
        return [self._cell(row[0]) for row in rows]

    def transaction(self, account: bytes, lt: int) -> StoredTransaction | None:
        with self._translated():
            query = "SELECT seqno, cell FROM tx WHERE account = ? AND lt = ?"
            row = self._database.execute(query, (account, lt)).fetchone()
        return None if row is None else StoredTransaction(seqno=row[0], cell=self._cell(row[1]))

    def _rows(self, query: str, seqno: int) -> list[tuple[bytes, ...]]:
        with self._translated():
            return self._database.execute(query, (seqno,)).fetchall()

    def _cell(self, boc: bytes) -> Cell:
        try:
            return from_boc(boc)
        except InvalidMessageError as error:
            raise StorageCorruptError(self._refusal(str(error))) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._database.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StorageBusyError(f"{self.path}: another process has this chain open") from error
            raise StorageCorruptError(self._refusal(str(error))) from error
        except sqlite3.DatabaseError as error:
            raise StorageCorruptError(self._refusal(str(error))) from error

    def _refusal(self, reason: str) -> str:
        return f"{self.path}: {reason}; restore it from a copy, or start with an empty directory"
