"""The settlements that the journal keeps, for commands that look back; read as of one moment, beside a running agent.

A settlement is held against its payload hash, and follows the one before by its `prev`. Whether it is the one that
landed, the chain alone says; `SettledEpochs.chained` leads from what stands there to an earlier epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent import journal_file
from agent.config import Config
from agent.errors import DamagedRowError, OperationError
from agent.identity import load_key
from contracts.model import ZERO_HASH
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head
from gossip.records import CloseBody, PoolId, parse_record
from gossip.settlement import Base, Settlement, verify_checkpoint


@dataclass(frozen=True, slots=True)
class SettledEpochs:
    """What the journal at `path` has of settled epochs: the newest ones (`agent.retention.EPOCHS_KEPT`)."""

    path: Path
    database: sqlite3.Connection
    pool: PoolId

    def epochs(self) -> list[int]:
        """The epochs that are kept, ascending."""
        return [epoch for (epoch,) in self.database.execute("SELECT epoch FROM landed ORDER BY epoch")]

    def settlement(self, epoch: int) -> Settlement:
        """The settlement of this epoch.

        Raises:
            OperationError: it is not kept here; the message says which are.
            JournalError: it is damaged.
        """
        row = self.database.execute("SELECT checkpoint, payload_hash FROM landed WHERE epoch = ?", (epoch,)).fetchone()
        if row is None:
            kept = self.epochs()
            known = f"it has those of epochs {kept[0]} to {kept[-1]}" if kept else "it has none yet"
            raise OperationError(f"{self.path}: the settlement of epoch {epoch} is not here; {known}")
        return self._verified(*row)

    def before(self, settlement: Settlement) -> Base:
        """The base on which this settlement was counted.

        Raises:
            OperationError: the settlement before is not kept here any more.
            JournalError: it is damaged.
        """
        if settlement.payload.prev == ZERO_HASH:
            return Base()
        return self._named(settlement.payload.prev, settlement.payload.epoch - 1).base()

    def chained(self, payload_hash: bytes, landed_epoch: int, epoch: int) -> Settlement:
        """The settlement of `epoch` on which, by each one's `prev`, the one builds that landed with this hash.

        Raises:
            OperationError: this journal does not lead there.
            JournalError: what does is damaged.
        """
        if not 1 <= epoch <= landed_epoch:
            raise OperationError(f"epoch {epoch} has not settled; the last one that did is {landed_epoch}")
        settlement = self._named(payload_hash, landed_epoch)
        while settlement.payload.epoch > epoch:
            settlement = self._named(settlement.payload.prev, settlement.payload.epoch - 1)
        return settlement

    def is_closed(self, node_key: bytes, head: Head) -> bool:
        """Whether the log's last counted record closed it; also if that record is not here (nobody is accused unseen).

        Raises:
            JournalError: the record is damaged.
        """
        row = self.database.execute(
            "SELECT node_key, seq, hash, wire, crc FROM record WHERE node_key = ? AND seq = ? AND hash = ?",
            (node_key, head.seq, head.hash),
        ).fetchone()
        if row is None:
            return True
        try:
            *_, wire = journal_file.unsealed(row)
            return isinstance(parse_record(wire, self.pool).body, CloseBody)
        except (DamagedRowError, InvalidMessageError) as error:
            raise journal_file.damaged(self.path, str(error)) from error

    def _named(self, payload_hash: bytes, epoch: int) -> Settlement:
        query = "SELECT checkpoint, payload_hash FROM landed WHERE payload_hash = ?"
        row = self.database.execute(query, (payload_hash,)).fetchone()
        if row is None:
            raise OperationError(
                f"{self.path}: the settlement of epoch {epoch} is not here: not caught up with yet, or too old"
            )
        return self._verified(*row)

    def _verified(self, checkpoint: bytes, payload_hash: bytes) -> Settlement:
        try:
            return verify_checkpoint(checkpoint, payload_hash)
        except InvalidMessageError as error:
            raise journal_file.damaged(self.path, f"checkpoint: {error}") from error


@contextmanager
def reading_settlements(config: Config) -> Iterator[SettledEpochs]:
    """Open the config's journal for the length of the block, for reading; an agent may run meanwhile.

    Raises:
        JournalError: missing, damaged, or of another key or pool.
        KeyFileError: the node key, whose journal it has to be, cannot be read.
    """
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    path = config.journal_file
    journal_file.require_present(path)
    with journal_file.explaining(path, "read"), closing(journal_file.connect_reading(path)) as database:
        journal_file.require_identity(path, database, node_key, pool)
        yield SettledEpochs(path, database, pool)
