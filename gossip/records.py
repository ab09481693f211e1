"""Records: the signed entries of a participant's append-only log.

Decides whether bytes are a well-formed record of this pool and whether its signature holds; whether it
continues its log is decided in `gossip.log_chain`. Every byte here comes from a peer or from disk.

1. `signed` is the canonical array ["gpupool/record/1", network, pool, node_key, seq, prev_hash, kind, body].
2. `hash` is SHA-256 of `signed`; the signature is not part of it.
3. Checked cheapest first: size, canonical form, pool, field ranges, signature, signatures of the receipts in it.
4. A receipt that was not signed for the network, the pool and the log that it stands in makes its record invalid, as
   the record's own signature would. So those of a record that is held hold, and nobody checks them again.

Source: PROTOCOL, "Records".
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TypeAlias, TypeVar

from contracts.signing import SigningKey
from gossip import codec
from gossip.codec import Value
from gossip.errors import InvalidMessageError

TAG = "gpupool/record/1"
RECEIPT_TAG = "gpupool/receipt/1"
RECORD_BYTES_MAX = 32 * 1024
QUOTE_BYTES_MAX = 16 * 1024
ATTACHMENT_BYTES_MAX = 256 * 1024
"""What evidence names by its hash: collateral is the largest."""
COUNTERS_MAX = 16
"""Of one reading."""
READINGS_MAX = 17
"""Readings of one window: eight engines, eight Cocoon workers, and the GPUs' driver."""
RECEIPTS_MAX = 100
"""Of one record."""
JOB_ID_BYTES_MAX = 64
"""The signer's name for a job."""

_Key = TypeVar("_Key", int, tuple[int, int], tuple[bytes, bytes])


class Kind(IntEnum):
    EVIDENCE = 1
    WORK = 2
    RECEIPT = 3
    CLOSE = 4


class Unit(IntEnum):
    """What a counter counts. Units are never added to one another unless the policy says so."""

    PROMPT_TOKEN = 1
    GENERATION_TOKEN = 2
    ADJUSTED_TOKEN = 3
    """Cocoon's: tokens times the coefficients of model and worker."""
    TASK = 4
    """A request that was answered."""
    FAILED_TASK = 5
    GPU_BUSY_MS = 6
    """Summed over the host's GPUs."""
    ENERGY_MJ = 7
    CACHED_TOKEN = 8
    """Prompt tokens that cost nothing, being cached; among those of `PROMPT_TOKEN`."""


class Source(IntEnum):
    """What kind of source counted. Which kind a pool counts by is its policy's choice."""

    ENGINE = 1
    """The inference engine's own counters."""
    COCOON = 2
    """A Cocoon worker's statistics."""
    NVML = 3
    """The GPUs' driver."""


@dataclass(frozen=True, slots=True, order=True)
class PoolId:
    """The network (TON global id, signed 32 bits) and the account hash (32 bytes) of the pool contract."""

    network: int
    account: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBody:
    """A TDX quote, bound to the node key and to an anchor block, and what belongs to it by SHA-256.

    The attachments (collateral, GPU evidence, handshake with a guest) are larger than a record may be, and many
    records name the same collateral: they travel by themselves.
    """

    quote: bytes
    collateral_digest: bytes
    gpu_digest: bytes | None
    handshake_digest: bytes | None
    anchor_seqno: int
    anchor_root_hash: bytes
    anchor_time_s: int

    @property
    def attachments(self) -> tuple[bytes, ...]:
        """The digests of all that the verdict on this evidence needs besides."""
        return tuple(d for d in (self.collateral_digest, self.gpu_digest, self.handshake_digest) if d is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWork:
    """What one source counted in a window. A unit that is not there was not measured, which is not zero.

    `instance` tells several of one kind apart, 0..255; `counters` are (unit, amount), ascending by unit;
    `latency_ms` is (p50, p95, p99); during `gap_s` of the window's seconds nobody watched the source.
    """

    source: int
    instance: int = 0
    provenance: str
    counters: tuple[tuple[int, int], ...]
    latency_ms: tuple[int, int, int] | None = None
    gap_s: int = 0

    def amount(self, *units: int) -> int:
        """Sum of the counters of the given units."""
        return sum(amount for unit, amount in self.counters if unit in units)

    def counts(self, unit: int) -> bool:
        """Whether the source measured this unit at all."""
        return any(unit == counted for counted, _ in self.counters)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkBody:
    """Work of the window [start_s, end_s), as each source saw it, ascending by (source, instance).

    `evidence` is the hash of the evidence record in force.
    """

    start_s: int
    end_s: int
    readings: tuple[SourceWork, ...]
    evidence: bytes | None

    def of(self, source: int) -> tuple[SourceWork, ...]:
        """The readings of one kind of source."""
        return tuple(reading for reading in self.readings if reading.source == source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The word of `signer` (a gateway or client; 32 bytes) that a participant spent `tokens` on `job_id`.

    The signed text names the participant's node key: it holds in no other log.
    """

    signer: bytes
    job_id: bytes
    time_s: int
    tokens: int
    signature: bytes

    @property
    def id(self) -> tuple[bytes, bytes]:
        """It counts once by this."""
        return self.signer, self.job_id


@dataclass(frozen=True, slots=True)
class ReceiptBody:
    """Receipts that others handed in, ascending by (signer, job id), at most `RECEIPTS_MAX`."""

    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class CloseBody:
    """The participant leaves; nothing after it counts."""


Body: TypeAlias = EvidenceBody | WorkBody | ReceiptBody | CloseBody


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedRecord:
    """A well-formed record whose signatures nobody checked yet."""

    pool: PoolId
    node_key: bytes
    seq: int
    prev_hash: bytes
    body: Body
    signed: bytes
    signature: bytes
    hash: bytes

    @property
    def wire(self) -> bytes:
        return codec.encode((self.signed, self.signature))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(UnverifiedRecord):
    """A record whose signature holds, and those of its receipts. Made by `verify_record` and `make_record` only."""


def parse_record(wire: bytes, pool: PoolId) -> UnverifiedRecord:
    """Read a record's wire form: the envelope [signed, signature].

    Raises:
        InvalidMessageError: not canonical, of another pool or network, or a field out of range.
    """
    signed, signature = codec.open_envelope(wire, bytes_max=RECORD_BYTES_MAX)
    fields = codec.as_array(codec.decode(signed, bytes_max=RECORD_BYTES_MAX), "record", 8)
    tag, network, account, node_key, seq, prev_hash, kind, body = fields
    if tag != TAG or network != pool.network or account != pool.account:
        raise InvalidMessageError("record: of another protocol version, network or pool")
    seq = codec.as_uint(seq, "seq")
    if seq == 0:
        raise InvalidMessageError("seq: starts at 1")
    return UnverifiedRecord(
        pool=pool,
        node_key=codec.as_bytes(node_key, "node_key", 32),
        seq=seq,
        prev_hash=codec.as_bytes(prev_hash, "prev_hash", 32),
        body=_read_body(codec.as_uint(kind, "kind", 8), body),
        signed=signed,
        signature=signature,
        hash=hashlib.sha256(signed).digest(),
    )


def verify_record(record: UnverifiedRecord) -> Record:
    """Check the signatures: the record's, then its receipts'.

    Raises:
        InvalidMessageError: one does not hold, or a receipt was signed for another log.
    """
    codec.require_signature(record.node_key, record.signed, record.signature)
    _require_receipts(record.pool, record.node_key, record.body)
    return trust_record(record)


def trust_record(record: UnverifiedRecord) -> Record:
    """Take a record that this node verified before it stored it: reading it back costs no signature check."""
    return Record(
        pool=record.pool,
        node_key=record.node_key,
        seq=record.seq,
        prev_hash=record.prev_hash,
        body=record.body,
        signed=record.signed,
        signature=record.signature,
        hash=record.hash,
    )


def make_record(key: SigningKey, pool: PoolId, seq: int, prev_hash: bytes, body: Body) -> Record:
    """Sign the next record of one's own log; it must be durable before it is sent.

    Raises:
        InvalidMessageError: a field is out of range, or a receipt does not hold: nobody would take the record.
    """
    _require_receipts(pool, key.public, body)
    kind, fields = _write_body(body)
    signed = codec.encode((TAG, pool.network, pool.account, key.public, seq, prev_hash, kind, fields))
    return trust_record(parse_record(codec.seal(signed, key), pool))


def receipt_text(pool: PoolId, node_key: bytes, receipt: Receipt) -> bytes:
    """What the signer signs: the canonical array [tag, network, pool, node key, signer, job id, time, tokens]."""
    named = (RECEIPT_TAG, pool.network, pool.account, node_key)
    return codec.encode((*named, receipt.signer, receipt.job_id, receipt.time_s, receipt.tokens))


def _require_receipts(pool: PoolId, node_key: bytes, body: Body) -> None:
    if isinstance(body, ReceiptBody):
        for receipt in body.receipts:
            codec.require_signature(receipt.signer, receipt_text(pool, node_key, receipt), receipt.signature)


def _write_body(body: Body) -> tuple[int, Value]:
    match body:
        case EvidenceBody():
            anchor = (body.anchor_seqno, body.anchor_root_hash, body.anchor_time_s)
            attached = (body.collateral_digest, body.gpu_digest, body.handshake_digest)
            return Kind.EVIDENCE.value, (body.quote, attached, anchor)
        case WorkBody():
            readings = tuple(
                (r.source, r.instance, r.provenance, r.counters, r.latency_ms, r.gap_s) for r in body.readings
            )
            return Kind.WORK.value, (body.start_s, body.end_s, readings, body.evidence)
        case ReceiptBody():
            claims = tuple((r.signer, r.job_id, r.time_s, r.tokens, r.signature) for r in body.receipts)
            return Kind.RECEIPT.value, (claims,)
        case CloseBody():
            return Kind.CLOSE.value, ()


def _read_body(kind: int, body: Value) -> Body:
    match kind:
        case Kind.EVIDENCE:
            return _read_evidence(body)
        case Kind.WORK:
            return _read_work(body)
        case Kind.RECEIPT:
            return _read_receipts(body)
        case Kind.CLOSE:
            codec.as_array(body, "close", 0)
            return CloseBody()
        case _:
            raise InvalidMessageError(f"kind: {kind} is unknown")


def _read_evidence(body: Value) -> EvidenceBody:
    quote, attached, anchor = codec.as_array(body, "evidence", 3)
    collateral, gpu, handshake = codec.as_array(attached, "attached", 3)
    seqno, root_hash, time_s = codec.as_array(anchor, "anchor", 3)
    return EvidenceBody(
        quote=codec.as_bytes(quote, "quote", length_max=QUOTE_BYTES_MAX),
        collateral_digest=codec.as_bytes(collateral, "collateral_digest", 32),
        gpu_digest=codec.as_optional_bytes(gpu, "gpu_digest", 32),
        handshake_digest=codec.as_optional_bytes(handshake, "handshake_digest", 32),
        anchor_seqno=codec.as_uint(seqno, "anchor_seqno", 32),
        anchor_root_hash=codec.as_bytes(root_hash, "anchor_root_hash", 32),
        anchor_time_s=codec.as_uint(time_s, "anchor_time_s", 32),
    )


def _read_work(body: Value) -> WorkBody:
    start, end, items, evidence = codec.as_array(body, "work", 4)
    start_s, end_s = codec.as_uint(start, "start_s", 32), codec.as_uint(end, "end_s", 32)
    if start_s >= end_s:
        raise InvalidMessageError("work: the window is empty")
    items = codec.as_array(items, "readings", length_max=READINGS_MAX)
    readings = tuple(_read_reading(item, end_s - start_s) for item in items)
    _require_ascending([(reading.source, reading.instance) for reading in readings], "readings: sources")
    evidence = codec.as_optional_bytes(evidence, "evidence", 32)
    return WorkBody(start_s=start_s, end_s=end_s, readings=readings, evidence=evidence)


def _read_reading(item: Value, window_s: int) -> SourceWork:
    source, instance, provenance, counters, latency, gap = codec.as_array(item, "reading", 6)
    gap_s = codec.as_uint(gap, "gap_s", 32)
    if gap_s > window_s:
        raise InvalidMessageError("reading: the gap is longer than its window")
    return SourceWork(
        source=codec.as_uint(source, "source", 8),
        instance=codec.as_uint(instance, "instance", 8),
        provenance=sys.intern(codec.as_text(provenance, "provenance", length_max=128)),  # alike in all of its records
        counters=_read_counters(counters),
        latency_ms=_read_latency(latency),
        gap_s=gap_s,
    )


def _read_counters(value: Value) -> tuple[tuple[int, int], ...]:
    items = (codec.as_array(item, "counter", 2) for item in codec.as_array(value, "counters", length_max=COUNTERS_MAX))
    counters = tuple((codec.as_uint(unit, "unit", 8), codec.as_uint(amount, "amount", 48)) for unit, amount in items)
    _require_ascending([0, *(unit for unit, _ in counters)], "counters: units")
    return counters


def _read_latency(value: Value) -> tuple[int, int, int] | None:
    if value is None:
        return None
    p50, p95, p99 = (codec.as_uint(item, "latency_ms", 32) for item in codec.as_array(value, "latency_ms", 3))
    if not p50 <= p95 <= p99:
        raise InvalidMessageError("latency_ms: quantiles must not descend")
    return p50, p95, p99


def _read_receipts(body: Value) -> ReceiptBody:
    (items,) = codec.as_array(body, "receipts", 1)
    receipts = tuple(_read_receipt(item) for item in codec.as_array(items, "receipts", length_max=RECEIPTS_MAX))
    if not receipts:
        raise InvalidMessageError("receipts: none")
    _require_ascending([receipt.id for receipt in receipts], "receipts: signers and jobs")
    return ReceiptBody(receipts)


def _read_receipt(item: Value) -> Receipt:
    signer, job_id, time_s, tokens, signature = codec.as_array(item, "receipt", 5)
    return Receipt(
        signer=codec.as_bytes(signer, "signer", 32),
        job_id=codec.as_bytes(job_id, "job_id", length_max=JOB_ID_BYTES_MAX),
        time_s=codec.as_uint(time_s, "time_s", 32),
        tokens=codec.as_uint(tokens, "tokens", 48),
        signature=codec.as_bytes(signature, "signature", 64),
    )


def _require_ascending(keys: Sequence[_Key], what: str) -> None:
    if any(key >= following for key, following in pairwise(keys)):
        raise InvalidMessageError(f"{what} must ascend")
