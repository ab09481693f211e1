"""Examines a journal whole: what is damaged, and what is still good.

Decides whether every row is what the agent once wrote. The file is untrusted. It is only read, from one snapshot,
so an agent may run meanwhile; a part that cannot be read does not keep the others from being examined.

1. SQLite checks its own pages and indexes (`integrity_check`).
2. Each row is held against its checksum or its hash, and is parsed: canonical, of this pool, under its own key.
3. Each log is a chain (`agent.journal_file`, rule 3); own records and all messages bear their signatures. Other
   participants' signatures were verified before the record was kept, and its checksum vouches for it since.
4. Checkpoints give the payload hash that landed, and each builds on the one before, where that is kept.
5. All that kept evidence names is here.

Source: SQLite, "PRAGMA integrity_check"; PROTOCOL, "Records".
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.errors import DamagedRowError, InvalidSourceError
from agent.journal_file import UNREADABLE, message_id, unlinked, unsealed
from agent.meter.work import decode_state
from agent.pending import decode_pending
from agent.progress import Tell, counted
from gossip.errors import InvalidMessageError
from gossip.log_chain import GENESIS, Head
from gossip.records import EvidenceBody, PoolId, UnverifiedRecord, parse_record, verify_record
from gossip.settlement import Settlement, verify_checkpoint
from gossip.wire import kind_of, parse_message

FINDINGS_MAX = 100
"""Of so many the words are kept; all are counted."""
PROGRESS_ROWS = 50_000


@dataclass(slots=True)
class Examination:
    """What was found: rows that are good by table, what is damaged in words, how far the own log reaches."""

    good: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    damaged: int = 0
    own_head: Head = GENESIS
    settled_epoch: int = 0

    def find(self, what: str) -> None:
        """Note one piece of damage."""
        self.damaged += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)


def examine(database: sqlite3.Connection, node_key: bytes, pool: PoolId, tell: Tell) -> Examination:
    """Examine the journal of this node key and pool; `tell` hears of the progress."""
    return _Examiner(database, node_key, pool, tell).run()


class _Examiner:
    def __init__(self, database: sqlite3.Connection, node_key: bytes, pool: PoolId, tell: Tell) -> None:
        self._database = database
        self._node_key = node_key
        self._pool = pool
        self._tell = tell
        self._result = Examination()
        self._settlements: list[Settlement] = []

    def run(self) -> Examination:
        for name, part in (
            ("pages", self._pages),
            ("outcome", self._outcomes),
            ("landed", self._landed),  # before the records: a log may go on from a settled base
            ("record", self._records),
            ("message", self._messages),
            ("attachments", self._attachments),
            ("named", self._named),
            ("witness", self._witness),
            ("meter", self._meter),
            ("window", self._windows),
            ("run", self._runs),
        ):
            self._tell(f"checking {name}")
            try:
                part()
            except UNREADABLE as error:
                self._result.find(f"{name}: cannot be read any further: {error}")
        return self._result

    def _pages(self) -> None:
        for (finding,) in self._database.execute(f"PRAGMA integrity_check({FINDINGS_MAX})"):
            if finding != "ok":
                self._result.find(f"pages: {finding}")

    def _outcomes(self) -> None:
        for epoch, payload_hash, checkpoint in self._rows("outcome", "epoch, payload_hash, checkpoint", "epoch"):
            with self._finding("outcome", f"of epoch {epoch}"):
                _require_epoch(verify_checkpoint(checkpoint, payload_hash), epoch)

    def _landed(self) -> None:
        previous: Settlement | None = None
        for epoch, payload_hash, checkpoint in self._rows("landed", "epoch, payload_hash, checkpoint", "epoch"):
            with self._finding("landed", f"settlement of epoch {epoch}"):
                settlement = verify_checkpoint(checkpoint, payload_hash)
                _require_epoch(settlement, epoch)
                if previous is not None and previous.payload.epoch == epoch - 1:
                    _require_follows(settlement, previous)
                self._result.settled_epoch = epoch
                self._settlements.append(settlement)
                previous = settlement

    def _records(self) -> None:
        log: list[UnverifiedRecord] = []
        for row in self._rows("record", "node_key, seq, hash, wire, crc", "node_key, seq"):
            with self._finding("record", f"{row[1]} of {_short(row[0])}"):
                record = self._record(row)
                if log and log[-1].node_key != record.node_key:
                    self._chain(log)
                    log = []
                log.append(record)
                if record.node_key == self._node_key:
                    self._result.own_head = Head(record.seq, record.hash)
        self._chain(log)

    def _record(self, row: Sequence[Any]) -> UnverifiedRecord:
        node_key, seq, key, wire = unsealed(row)
        record = parse_record(wire, self._pool)
        if (record.node_key, record.seq, record.hash) != (node_key, seq, key):
            raise DamagedRowError("kept under another name")
        return verify_record(record) if node_key == self._node_key else record

    def _chain(self, log: Sequence[UnverifiedRecord]) -> None:
        for seq in unlinked(log, lambda: iter(self._settlements)):
            self._result.find(f"record: {seq} of {_short(log[0].node_key)}: follows none that is here")

    def _messages(self) -> None:
        for row in self._rows("message", "epoch, kind, id, wire, crc", "epoch"):
            with self._finding("message", f"{row[1]} of epoch {row[0]}"):
                epoch, kind, key, wire = unsealed(row)
                message = parse_message(kind, wire, self._pool)
                if (message.epoch, kind_of(message), message_id(message)) != (epoch, kind, key):
                    raise DamagedRowError("kept under another name")

    def _attachments(self) -> None:
        for digest, body in self._rows("attachments", "digest, body", "digest"):
            with self._finding("attachments", _short(digest)):
                if hashlib.sha256(body).digest() != digest:
                    raise DamagedRowError("is not what its digest says")

    def _named(self) -> None:
        """What evidence names is noted once (`named`), for pruning, and is here."""
        for row in self._rows("record", "node_key, seq, hash, wire, crc", "node_key, seq"):
            try:
                body = self._record(row).body
            except (DamagedRowError, InvalidMessageError):
                continue  # found already
            for digest in body.attachments if isinstance(body, EvidenceBody) else ():
                with self._finding("named", f"{_short(digest)} by record {row[1]} of {_short(row[0])}"):
                    self._require_held((*row[:3], digest))

    def _require_held(self, name: tuple[bytes, int, bytes, bytes]) -> None:
        noted = "SELECT 1 FROM named WHERE node_key = ? AND seq = ? AND hash = ? AND digest = ?"
        if self._database.execute(noted, name).fetchone() is None:
            raise DamagedRowError("is not noted")
        if self._database.execute("SELECT 1 FROM attachments WHERE digest = ?", name[3:]).fetchone() is None:
            raise DamagedRowError("is not here")

    def _witness(self) -> None:
        for row in self._rows("witness", "node_key, seconds, crc", "node_key"):
            with self._finding("witness", _short(row[0])):
                unsealed(row)

    def _meter(self) -> None:
        for row in self._rows("meter", "source, state, crc", "source"):
            with self._finding("meter", f"{row[0]}"):
                _, state = unsealed(row)
                decode_state(state)

    def _windows(self) -> None:
        for number, *row in self._rows("window", "id, body, crc", "id"):
            with self._finding("window", f"{number}"):
                (body,) = unsealed(row)
                decode_pending(body)

    def _runs(self) -> None:
        for row in self._rows("run", "id, started_s, place, version, crc", "started_s"):
            with self._finding("run", _short(row[0])):
                unsealed(row)

    def _rows(self, table: str, columns: str, order: str) -> Iterator[Any]:
        rows = self._database.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608 - of ours
        for count, row in enumerate(counted(self._tell, rows, lambda: self._total(table)), 1):
            if count % PROGRESS_ROWS == 0:
                self._tell(f"checking {table}: {count} rows")
            yield row

    def _total(self, table: str) -> int | None:
        """How many rows there are; what is damaged may not say."""
        try:
            total: int = self._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - as above
        except UNREADABLE:
            return None
        return total

    @contextmanager
    def _finding(self, table: str, row: str) -> Iterator[None]:
        """Count the row as good, or as damaged by what is raised over it."""
        try:
            yield
        except _DAMAGE as error:
            self._result.find(f"{table}: {row:.80}: {error}")
        else:
            self._result.good[table] += 1


# A column whose type changed on disk raises a TypeError.
_DAMAGE = (DamagedRowError, InvalidMessageError, InvalidSourceError, msgspec.DecodeError, TypeError)


def _require_epoch(settlement: Settlement, epoch: int) -> None:
    if settlement.payload.epoch != epoch:
        raise DamagedRowError("it is of another epoch")


def _require_follows(settlement: Settlement, previous: Settlement) -> None:
    if settlement.payload.prev != previous.payload_hash:
        raise DamagedRowError("does not build on the one before")


def _short(key: object) -> str:
    return key.hex()[:16] if isinstance(key, bytes) else str(key)
