"""Records: the signed entries of a participant's append-only log.

Decides whether bytes are a well-formed record of this pool and whether its signature holds; whether it
continues its log is decided in `gossip.log_chain`. Every byte here comes from a peer or from disk.

1. `signed` is the canonical array ["gpupool/record/1", network, pool, node_key, seq, prev_hash, kind, body].
2. `hash` is SHA-256 of `signed`; the signature is not part of it.
3. Checked cheapest first: size, canonical form, pool, field ranges, signature.

Source: PROTOCOL, "Records".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from contracts.signing import SigningKey
from gossip import codec
from gossip.codec import Value
from gossip.errors import InvalidMessageError

TAG = "gpupool/record/1"
RECORD_BYTES_MAX = 32 * 1024
QUOTE_BYTES_MAX = 16 * 1024
ATTACHMENT_BYTES_MAX = 256 * 1024
"""What evidence names by its hash: collateral is the largest."""
COUNTERS_MAX = 16


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
    TASK = 4


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
class WorkBody:
    """Work of the window [start_s, end_s) as one source saw it; None is "not measured", never zero.

    `counters` are (unit, amount), ascending by unit; `latency_ms` is (p50, p95, p99);
    `evidence` is the hash of the evidence record in force.
    """

    start_s: int
    end_s: int
    source: str
    provenance: str
    counters: tuple[tuple[int, int], ...]
    gpu_seconds: int | None
    energy_mj: int | None
    failed: int | None
    latency_ms: tuple[int, int, int] | None
    gap_s: int
    evidence: bytes | None

    def amount(self, units: tuple[int, ...]) -> int:
        """Sum of the counters of the given units."""
        return sum(amount for unit, amount in self.counters if unit in units)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptBody:
    """A counter-signed statement: `signer` (a gateway or client) owes `participant` `tokens` for `job_id`."""

    signer: bytes
    job_id: bytes
    participant: bytes
    time_s: int
    tokens: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class CloseBody:
    """The participant leaves; nothing after it counts."""


Body: TypeAlias = EvidenceBody | WorkBody | ReceiptBody | CloseBody


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedRecord:
    """A well-formed record whose signature nobody checked yet."""

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
    """A record whose signature holds. Made by `verify_record` and `make_record` only."""


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
    """Check the signature.

    Raises:
        InvalidMessageError: it does not hold under the record's node key.
    """
    codec.require_signature(record.node_key, record.signed, record.signature)
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
    """Sign the next record of one's own log; it must be durable before it is sent."""
    kind, fields = _write_body(body)
    signed = codec.encode((TAG, pool.network, pool.account, key.public, seq, prev_hash, kind, fields))
    wire = codec.seal(signed, key)
    return trust_record(parse_record(wire, pool))


def _write_body(body: Body) -> tuple[int, Value]:
    match body:
        case EvidenceBody():
            anchor = (body.anchor_seqno, body.anchor_root_hash, body.anchor_time_s)
            attached = (body.collateral_digest, body.gpu_digest, body.handshake_digest)
            return Kind.EVIDENCE.value, (body.quote, attached, anchor)
        case WorkBody():
            work: Value = (
                body.start_s,
                body.end_s,
                body.source,
                body.provenance,
                body.counters,
                body.gpu_seconds,
                body.energy_mj,
                body.failed,
                body.latency_ms,
                body.gap_s,
                body.evidence,
            )
            return Kind.WORK.value, work
        case ReceiptBody():
            claim = (body.signer, body.job_id, body.participant, body.time_s, body.tokens, body.signature)
            return Kind.RECEIPT.value, claim
        case CloseBody():
            return Kind.CLOSE.value, ()


def _read_body(kind: int, body: Value) -> Body:
    match kind:
        case Kind.EVIDENCE:
            return _read_evidence(body)
        case Kind.WORK:
            return _read_work(body)
        case Kind.RECEIPT:
            return _read_receipt(body)
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
    start, end, source, provenance, counters, gpu, energy, failed, latency, gap, evidence = codec.as_array(
        body, "work", 11
    )
    start_s, end_s = codec.as_uint(start, "start_s", 32), codec.as_uint(end, "end_s", 32)
    gap_s = codec.as_uint(gap, "gap_s", 32)
    if start_s >= end_s or gap_s > end_s - start_s:
        raise InvalidMessageError("work: the window is empty or shorter than its gap")
    return WorkBody(
        start_s=start_s,
        end_s=end_s,
        source=codec.as_text(source, "source", length_max=32),
        provenance=codec.as_text(provenance, "provenance", length_max=128),
        counters=_read_counters(counters),
        gpu_seconds=codec.as_optional_uint(gpu, "gpu_seconds", 32),
        energy_mj=codec.as_optional_uint(energy, "energy_mj"),
        failed=codec.as_optional_uint(failed, "failed", 32),
        latency_ms=_read_latency(latency),
        gap_s=gap_s,
        evidence=codec.as_optional_bytes(evidence, "evidence", 32),
    )


def _read_counters(value: Value) -> tuple[tuple[int, int], ...]:
    counters = []
    last = 0
    for item in codec.as_array(value, "counters", length_max=COUNTERS_MAX):
        unit, amount = codec.as_array(item, "counter", 2)
        unit = codec.as_uint(unit, "unit", 8)
        if unit <= last:
            raise InvalidMessageError("counters: units must ascend")
        last = unit
        counters.append((unit, codec.as_uint(amount, "amount", 48)))
    return tuple(counters)


def _read_latency(value: Value) -> tuple[int, int, int] | None:
    if value is None:
        return None
    p50, p95, p99 = (codec.as_uint(item, "latency_ms", 32) for item in codec.as_array(value, "latency_ms", 3))
    if not p50 <= p95 <= p99:
        raise InvalidMessageError("latency_ms: quantiles must not descend")
    return p50, p95, p99


def _read_receipt(body: Value) -> ReceiptBody:
    signer, job_id, participant, time_s, tokens, signature = codec.as_array(body, "receipt", 6)
    return ReceiptBody(
        signer=codec.as_bytes(signer, "signer", 32),
        job_id=codec.as_bytes(job_id, "job_id", length_max=64),
        participant=codec.as_bytes(participant, "participant", 32),
        time_s=codec.as_uint(time_s, "time_s", 32),
        tokens=codec.as_uint(tokens, "tokens", 48),
        signature=codec.as_bytes(signature, "signature", 64),
    )
