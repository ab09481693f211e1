"""The export of a journal: one file from which the journal can be made anew, on any host and by any later schema.

Decides whether a file is a whole export of this node key and pool. Every byte of it is untrusted.

1. gzip around frames: 4 bytes of length (big-endian), then a canonical array. The first frame is (tag, network, pool,
   node key), the last ("end", number of frames before it, SHA-256 of them); nothing follows.
2. Between them stands what cannot be computed, in the order of `KINDS`: records, attachments, the close's messages,
   outcomes, checkpoints, witnessed seconds, meter states, windows. Each is bounded, and parsed and verified with its
   signature or hash as if a peer had sent it. What only this host vouches for (the last three) the digest protects.
3. An export is of one moment (one snapshot); a damaged row ends it. Neither it nor an import overwrites a file; what
   fails leaves nothing behind, and an export that a kill cut short lacks its end.

Source: `gossip.codec` for canonical arrays; RFC 1952.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from agent import journal_file
from agent.db.examining import examine
from agent.errors import DamagedRowError, InvalidExportError, InvalidSourceError, JournalError
from agent.files import give_to_folders_owner
from agent.journal import WINDOWS_KEPT, Journal, create_journal, open_journal
from agent.journal_file import unsealed
from agent.meter.work import decode_state
from agent.pending import decode_pending
from agent.progress import Tell, counted, silent, unknown
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.records import ATTACHMENT_BYTES_MAX, PoolId, Record, parse_record, verify_record
from gossip.settlement import CHECKPOINT_BYTES_MAX, verify_checkpoint
from gossip.wire import parse_message

TAG = "gpupool/journal/1"
FRAME_BYTES_MAX = CHECKPOINT_BYTES_MAX + 1024
SOURCE_LENGTH_MAX = 64
BATCH = 500
LENGTH_BYTES = 4

KINDS = {
    "record": "SELECT node_key, seq, hash, wire, crc FROM record ORDER BY node_key, seq",
    "attachment": "SELECT digest, body FROM attachments ORDER BY digest",
    "message": "SELECT epoch, kind, id, wire, crc FROM message ORDER BY epoch, kind, id",
    "outcome": "SELECT payload_hash, checkpoint FROM outcome ORDER BY epoch, payload_hash",
    "landed": "SELECT payload_hash, checkpoint FROM landed ORDER BY epoch",
    "witness": "SELECT node_key, seconds, crc FROM witness ORDER BY node_key",
    "meter": "SELECT source, state, crc FROM meter ORDER BY source",
    "window": "SELECT body, crc FROM window ORDER BY id",
}


def export_journal(journal: Path, target: Path, *, node_key: bytes, pool: PoolId, tell: Tell = silent) -> Counter[str]:
    """Write the journal of this node key and pool to `target`; returns how many rows of each kind.

    `tell` hears of the progress.

    Raises:
        JournalError: it cannot be read, is damaged or of another key or pool, or `target` exists or cannot be written.
    """
    with journal_file.explaining(journal, "read"), closing(journal_file.connect_reading(journal)) as database:
        journal_file.require_identity(journal, database, node_key, pool)
        with _new_file(target) as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as file:
            try:
                return _write(file, database, node_key, pool, tell)
            except (DamagedRowError, InvalidMessageError) as error:
                raise journal_file.damaged(journal, str(error)) from error


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """A file that was not there, for the owner only; on disk at the end of the block, or gone again."""
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            try:
                yield raw
                raw.flush()
                os.fsync(raw.fileno())
            except BaseException:
                target.unlink()
                raise
    except FileExistsError as error:
        raise JournalError(f"{target}: exists already; an export is never overwritten") from error
    except OSError as error:
        raise JournalError(f"{target}: cannot be written: {error.strerror}") from error


def _write(
    file: gzip.GzipFile, database: sqlite3.Connection, node_key: bytes, pool: PoolId, tell: Tell
) -> Counter[str]:
    digest, counts = hashlib.sha256(), Counter[str]()

    def put(*values: codec.Value) -> None:
        frame = codec.encode(values)
        digest.update(frame)
        file.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)

    put(TAG, pool.network, pool.account, node_key)
    for kind, query in KINDS.items():
        tell(f"writing {kind}")
        for row in counted(tell, database.execute(query), partial(_total, database, query)):
            put(kind, *_exported(kind, row))
            counts[kind] += 1
    put("end", counts.total() + 1, digest.digest())
    return counts


def _total(database: sqlite3.Connection, query: str) -> int:
    total: int = database.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: S608 - of KINDS
    return total


def _exported(kind: str, row: Sequence[Any]) -> Sequence[codec.Value]:
    """Of a row, which is checked, what cannot be computed from the rest of it."""
    match kind:
        case "attachment":
            digest, body = row
            if hashlib.sha256(body).digest() != digest:
                raise DamagedRowError(f"attachment {digest.hex()}")
            return (body,)
        case "outcome" | "landed":
            verify_checkpoint(row[1], row[0])
            return row
        case "record":
            return unsealed(row)[3:]
        case "message":
            epoch, name, _, wire = unsealed(row)
            return epoch, name, wire
        case _:
            return unsealed(row)


def import_journal(source: Path, journal: Path, *, node_key: bytes, pool: PoolId, tell: Tell) -> Counter[str]:
    """Make the journal of this node key and pool from an export; returns how many rows of each kind.

    The own log is not known then: the agent learns from operators what the key signed since. What root makes belongs
    to the owner of its folder, whose agent has to open it. `tell` hears of the progress.

    Raises:
        InvalidExportError: the file cannot be read, or is no whole export of this node key and pool.
        JournalError: there is a journal already, or it cannot be written.
    """
    journal_file.require_vacant(journal)
    draft = journal.with_name(journal.name + ".import")
    try:
        _remove(draft)
        create_journal(draft, node_key=node_key, pool=pool, is_key_new=False)
        with closing(open_journal(draft, node_key=node_key, pool=pool)) as made, _reading(source) as file:
            tell("taking rows in")
            counts = _Import(made, pool).run(counted(tell, _rows(file, node_key, pool), unknown))
        with closing(journal_file.connect_reading(draft)) as database:
            found = examine(database, node_key, pool, tell)
        if found.damaged:
            raise InvalidExportError(f"{source}: {found.findings[0]}")
        give_to_folders_owner(draft)
        journal_file.link_new(draft, journal)
    except OSError as error:
        raise JournalError(f"{journal}: cannot be created: {error.strerror}") from error
    finally:
        _remove(draft)
    return counts


@contextmanager
def _reading(source: Path) -> Iterator[gzip.GzipFile]:
    """The export, decompressed; what is found wrong with it in the block is the file's fault."""
    try:
        with source.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidExportError(f"{source}: damaged, or no export of a journal: {error}") from error
    except OSError as error:
        raise InvalidExportError(f"{source}: cannot be read: {error.strerror}") from error
    except (InvalidMessageError, InvalidSourceError, msgspec.DecodeError) as error:
        raise InvalidExportError(f"{source}: {error}") from error


def _remove(draft: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _rows(file: gzip.GzipFile, node_key: bytes, pool: PoolId) -> Iterator[tuple[codec.Value, ...]]:
    """The rows between the first frame and the last, both checked: the last only after all rows were taken."""
    digest, count = hashlib.sha256(), 0
    while True:
        frame = _frame(file)
        fields = codec.as_array(codec.decode(frame, bytes_max=FRAME_BYTES_MAX), "row", length_max=8)
        if count == 0:
            if fields != (TAG, pool.network, pool.account, node_key):
                raise InvalidMessageError("it is of another node key, network or pool, or no export of a journal")
        elif fields[:1] == ("end",):
            if fields[1:] != (count, digest.digest()) or file.read(1):
                raise InvalidMessageError("its end does not match what stands before it")
            return
        else:
            yield fields
        digest.update(frame)
        count += 1


def _frame(file: gzip.GzipFile) -> bytes:
    length = int.from_bytes(_exactly(file, LENGTH_BYTES), "big")
    if length > FRAME_BYTES_MAX:
        raise InvalidMessageError(f"a row of {length} bytes, at most {FRAME_BYTES_MAX} are allowed")
    return _exactly(file, length)


def _exactly(file: gzip.GzipFile, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise InvalidMessageError("it is cut short")
    return data


class _Import:
    """Takes the rows of an export into an empty journal, each verified; many of them in one transaction."""

    def __init__(self, journal: Journal, pool: PoolId) -> None:
        self._journal = journal
        self._pool = pool
        self._records: list[Record] = []
        self._witness: dict[bytes, int] = {}
        self._meter: tuple[str, bytes] | None = None
        self._windows: list[bytes] = []

    def run(self, rows: Iterable[tuple[codec.Value, ...]]) -> Counter[str]:
        counts = Counter[str]()
        for kind, *values in rows:
            self._take(kind, values)
            counts[str(kind)] += 1
        self._flush()
        if self._meter is not None:
            self._journal.keep_meter(*self._meter, self._windows)
        return counts

    def _take(self, kind: codec.Value, values: Sequence[codec.Value]) -> None:
        match kind, values:
            case "record", [bytes(wire)]:
                self._records.append(verify_record(parse_record(wire, self._pool)))
            case "attachment", [bytes(body)] if len(body) <= ATTACHMENT_BYTES_MAX:
                self._journal.keep_attachment(hashlib.sha256(body).digest(), body)
            case "message", [int(epoch), str(name), bytes(wire)]:
                message = parse_message(name, wire, self._pool)
                if message.epoch != epoch:
                    raise InvalidMessageError("message: of another epoch")
                self._journal.keep_messages(epoch, [message])
            case "outcome", [bytes(payload_hash), bytes(checkpoint)]:
                outcome = verify_checkpoint(checkpoint, payload_hash)
                self._journal.keep_messages(outcome.payload.epoch, (), outcome)
            case "landed", [bytes(payload_hash), bytes(checkpoint)]:
                self._journal.keep_landed(verify_checkpoint(checkpoint, payload_hash))
            case "witness", [node_key, seconds]:
                self._witness[codec.as_bytes(node_key, "node_key", 32)] = codec.as_uint(seconds, "seconds", 48)
            case "meter", [str(source), bytes(state)] if len(source) <= SOURCE_LENGTH_MAX:
                decode_state(state)
                self._meter = source, state
                self._journal.keep_meter(source, state)
            case "window", [bytes(body)] if len(self._windows) < WINDOWS_KEPT:
                decode_pending(body)
                self._windows.append(body)
            case _:
                raise InvalidMessageError(f"row: {str(kind)!r:.40} of this form is unknown")
        if len(self._records) + len(self._witness) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        self._journal.append(self._records)
        self._journal.keep_witness(self._witness)
        self._records, self._witness = [], {}
