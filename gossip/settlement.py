"""What one settlement leaves behind: the base on which the next epoch is counted.

A base is everything about the past that the next tally needs: per participant how far its log was
counted and the cumulative readings, per address what was ever earned. Its hashes stand in the landed
payload (`cut_root`, `totals_root`), so a node that was away takes a base from any peer as a
*checkpoint* and trusts only the chain (docs/adr/0005).

1. `cut_root` is SHA-256 of the canonical array of the readings, ascending by node key.
2. `totals_root` is the hash of the leaves' dictionary (CONTRACTS, "Cumulative entitlement").
3. A checkpoint is a base if and only if payload, readings and leaves hash to what landed.

Source: PROTOCOL, "Words" (base, cut) and "Epoch close" step 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from contracts import layout, proof
from contracts.errors import ContractsError
from contracts.model import ZERO_HASH, Address, Leaf, SettlePayload
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.log_chain import GENESIS, Head

if TYPE_CHECKING:
    from gossip.credit import Credit

CUT_TAG = "gpupool/cut/1"
CHECKPOINT_TAG = "gpupool/checkpoint/1"
CHECKPOINT_BYTES_MAX = 16 * 1024 * 1024
PARTICIPANTS_MAX = 40_000
"""Everybody who ever earned. A checkpoint holds 16,100 at worst, or a full registry of 10,000 and all who left. Between
peers the bound of an answer decides (`gossip.sync`): 4,000 at worst, with 16 GPUs each and paid through worker
contracts; 9,100 without GPUs; 10,500 without those contracts either."""
EVIDENCE_KEPT_MAX = 2
"""Of a participant in a checkpoint: one that is renewed before it expires has two."""
GPUS_MAX = 16
"""That one piece of evidence proves."""
GPU_ID_BYTES = 16
"""The beginning of a GPU's identity: a checkpoint has many, and nobody makes a genuine GPU of another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceWindow:
    """Evidence that was found valid: its record's hash, from when until when it holds, and which machine it is of."""

    record: bytes
    from_s: int
    until_s: int
    machine: bytes
    """32 bytes; equal for all nodes on one machine."""
    gpus: tuple[bytes, ...] = ()
    """The GPUs that it proves, `GPU_ID_BYTES` each, ascending."""
    tokens_per_s: int
    """What these GPUs are believed at most, by the policy that it was judged by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """Where a participant stands with its Cocoon worker contract, while the policy counts by it; cumulative."""

    metered_tokens: int = 0
    """After the cap of the rate."""
    paid_tokens: int = 0
    """By the chain, since it was first read."""
    worker: bytes | None = None
    """Account (32 bytes) of the contract that `worker_tokens` is a reading of."""
    worker_tokens: int = 0

    @property
    def credited_tokens(self) -> int:
        """All that both sides agree on."""
        return min(self.metered_tokens, self.paid_tokens)

    def at_most_ahead(self, tokens: int) -> Payments:
        """The same, with at most so many tokens paid that nobody has metered yet."""
        return replace(self, paid_tokens=min(self.paid_tokens, self.metered_tokens + tokens))

    def lapsed(self) -> Payments:
        """The same contract, counted anew from here: nothing of before is credited any more."""
        return replace(self, metered_tokens=0, paid_tokens=0)

    def parted(self) -> Payments:
        """The same, with no contract read: what it pays meanwhile may be for the work of another node key."""
        return replace(self, worker=None, worker_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where one participant's log stood when it was last counted. All figures are cumulative.

    `dead` says that the log forked after `head`, or that `head` closed it: nothing above it ever counts.
    """

    head: Head = GENESIS
    work_end_s: int = 0
    witnessed_s: int = 0
    credited_s: int = 0
    """How much of `witnessed_s` was credited as uptime, or lapsed."""
    payments: Payments = Payments()
    dead: bool = False
    evidence: tuple[EvidenceWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The last settled epoch (0: none), its payload's hash, readings by node key, earnings by address."""

    epoch: int = 0
    payload_hash: bytes = ZERO_HASH
    readings: Mapping[bytes, Reading] = field(default_factory=dict)
    earned_nanoton: Mapping[Address, int] = field(default_factory=dict)

    def reading(self, node_key: bytes) -> Reading:
        """The reading of this key; an empty one for a participant that is new."""
        return self.readings.get(node_key, _NEW)


_NEW = Reading()
_NO_PAYMENTS = Payments()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The whole outcome of an epoch: what the certificate signs and what it stands for."""

    payload: SettlePayload
    leaves: tuple[Leaf, ...]
    readings: Mapping[bytes, Reading]
    credits: Mapping[bytes, Credit] = field(default_factory=dict, compare=False)
    """How the figures came about, by node key. Of a settlement that others computed: the own ones, or none."""

    @property
    def payload_hash(self) -> bytes:
        payload_hash: bytes = layout.payload_cell(self.payload).hash
        return payload_hash

    def base(self) -> Base:
        """The base of the next epoch, once this settlement has landed."""
        return Base(
            epoch=self.payload.epoch,
            payload_hash=self.payload_hash,
            readings=self.readings,
            earned_nanoton={leaf.participant: leaf.earned_nanoton for leaf in self.leaves},
        )


def cut_root(readings: Mapping[bytes, Reading]) -> bytes:
    """Hash of the readings (rule 1), 32 bytes."""
    return hashlib.sha256(codec.encode((CUT_TAG, _write_readings(readings)))).digest()


def totals_root(leaves: Sequence[Leaf]) -> bytes:
    """Hash of the leaves' dictionary, 32 bytes; zeros when there is none."""
    return proof.totals_tree(leaves).root_hash if leaves else ZERO_HASH


def encode_checkpoint(settlement: Settlement) -> bytes:
    """Bytes from which any node restores this settlement, given the payload hash on chain."""
    payload = layout.payload_cell(settlement.payload).to_boc()
    leaves = tuple(_write_leaf(leaf) for leaf in settlement.leaves)
    return codec.encode((CHECKPOINT_TAG, payload, leaves, _write_readings(settlement.readings)))


def verify_checkpoint(data: bytes, payload_hash: bytes) -> Settlement:
    """Restore a settlement from a peer's bytes and hold it against the payload hash that landed.

    Raises:
        InvalidMessageError: not a checkpoint, or not the one behind `payload_hash`.
    """
    tag, payload_boc, leaves, readings = codec.as_array(
        codec.decode(data, bytes_max=CHECKPOINT_BYTES_MAX), "checkpoint", 4
    )
    if tag != CHECKPOINT_TAG:
        raise InvalidMessageError("checkpoint: of another protocol version")
    try:
        cell = layout.parse_boc(codec.as_bytes(payload_boc, "payload", length_max=4096))
        payload = layout.settle_payload(cell)
        settlement = Settlement(
            payload=payload,
            leaves=tuple(_read_leaf(leaf) for leaf in codec.as_array(leaves, "leaves", length_max=PARTICIPANTS_MAX)),
            readings=_read_readings(readings),
        )
        root = totals_root(settlement.leaves)
    except ContractsError as error:
        raise InvalidMessageError(f"checkpoint: {error}") from error
    if cell.hash != payload_hash or settlement.payload_hash != payload_hash:
        raise InvalidMessageError("checkpoint: not the payload that landed")
    if root != payload.totals_root or len(settlement.leaves) != payload.count:
        raise InvalidMessageError("checkpoint: the leaves do not give the settled root")
    if cut_root(settlement.readings) != payload.cut_root:
        raise InvalidMessageError("checkpoint: the readings do not give the settled cut")
    return settlement


def _write_readings(readings: Mapping[bytes, Reading]) -> codec.Value:
    return tuple(
        (
            node_key,
            reading.head.seq,
            reading.head.hash,
            reading.work_end_s,
            reading.witnessed_s,
            reading.credited_s,
            _write_payments(reading.payments),
            reading.dead,
            tuple((w.record, w.from_s, w.until_s, w.machine, w.gpus, w.tokens_per_s) for w in reading.evidence),
        )
        for node_key, reading in sorted(readings.items())
    )


def _read_readings(value: codec.Value) -> dict[bytes, Reading]:
    readings: dict[bytes, Reading] = {}
    for item in codec.as_array(value, "readings", length_max=PARTICIPANTS_MAX):
        fields = codec.as_array(item, "reading", 9)
        node_key, seq, head, work_end, witnessed, credited, payments, dead, evidence = fields
        windows = codec.as_array(evidence, "evidence", length_max=EVIDENCE_KEPT_MAX)
        readings[codec.as_bytes(node_key, "node_key", 32)] = Reading(
            head=Head(codec.as_uint(seq, "seq"), codec.as_bytes(head, "head", 32)),
            work_end_s=codec.as_uint(work_end, "work_end_s", 32),
            witnessed_s=codec.as_uint(witnessed, "witnessed_s", 48),
            credited_s=codec.as_uint(credited, "credited_s", 48),
            payments=_read_payments(payments),
            dead=codec.as_bool(dead, "dead"),
            evidence=tuple(_read_window(window) for window in windows),
        )
    return readings


def _write_payments(payments: Payments) -> codec.Value:
    """None for whoever is not paid through a worker contract: a checkpoint has thousands of them."""
    if payments == _NO_PAYMENTS:
        return None
    return payments.metered_tokens, payments.paid_tokens, payments.worker, payments.worker_tokens


def _read_payments(value: codec.Value) -> Payments:
    if value is None:
        return _NO_PAYMENTS
    metered, paid, worker, worker_tokens = codec.as_array(value, "payments", 4)
    payments = Payments(
        metered_tokens=codec.as_uint(metered, "metered_tokens"),
        paid_tokens=codec.as_uint(paid, "paid_tokens"),
        worker=codec.as_optional_bytes(worker, "worker", 32),
        worker_tokens=codec.as_uint(worker_tokens, "worker_tokens"),
    )
    if payments == _NO_PAYMENTS:
        raise InvalidMessageError("payments: none at all are written as nil")
    return payments


def _read_window(value: codec.Value) -> EvidenceWindow:
    record, from_s, until_s, machine, gpus, tokens_per_s = codec.as_array(value, "window", 6)
    return EvidenceWindow(
        record=codec.as_bytes(record, "record", 32),
        from_s=codec.as_uint(from_s, "from_s", 33),
        until_s=codec.as_uint(until_s, "until_s", 33),
        machine=codec.as_bytes(machine, "machine", 32),
        gpus=tuple(
            codec.as_bytes(gpu, "gpu", GPU_ID_BYTES) for gpu in codec.as_array(gpus, "gpus", length_max=GPUS_MAX)
        ),
        tokens_per_s=codec.as_uint(tokens_per_s, "tokens_per_s", 33),
    )


# Amounts and scores have up to 128 bits, more than a msgpack integer: they travel as 16 bytes, big-endian.


def _write_leaf(leaf: Leaf) -> codec.Value:
    return (
        leaf.participant.account,
        leaf.earned_nanoton.to_bytes(16, "big"),
        leaf.score.to_bytes(16, "big"),
        leaf.tokens,
        leaf.tasks,
        leaf.uptime_s,
        leaf.quality,
        leaf.reputation,
        leaf.flags,
    )


def _read_leaf(value: codec.Value) -> Leaf:
    account, earned, score, tokens, tasks, uptime_s, quality, reputation, flags = codec.as_array(value, "leaf", 9)
    return Leaf(
        participant=Address(0, codec.as_bytes(account, "participant", 32)),
        earned_nanoton=int.from_bytes(codec.as_bytes(earned, "earned", 16), "big"),
        score=int.from_bytes(codec.as_bytes(score, "score", 16), "big"),
        tokens=codec.as_uint(tokens, "tokens", 64),
        tasks=codec.as_uint(tasks, "tasks", 32),
        uptime_s=codec.as_uint(uptime_s, "uptime_s", 32),
        quality=codec.as_uint(quality, "quality", 16),
        reputation=codec.as_uint(reputation, "reputation", 16),
        flags=codec.as_uint(flags, "flags", 8),
    )
