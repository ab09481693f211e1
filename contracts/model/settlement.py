"""What a settlement is made of, and the certificates around it and every other command.

Source: PROTOCOL ("Settlement") and CONTRACTS ("Certificate") in the design; `contracts/src/certificate.tolk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from contracts.errors import InvalidValueError
from contracts.model.base import Address, require_bytes, require_uint
from contracts.opcodes import CertificateKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What one participant has in a settlement: `earned_nanoton` ever, and the figures of this epoch.

    The dictionary's key is `participant`'s 32-byte account hash; all participants live in workchain 0.
    """

    participant: Address
    earned_nanoton: int
    score: int
    tokens: int
    tasks: int
    uptime_s: int
    quality: int
    reputation: int
    flags: int = 0

    def __post_init__(self) -> None:
        if self.participant.workchain != 0:
            raise InvalidValueError("participant: only workchain 0 takes part")
        require_uint("earned_nanoton", self.earned_nanoton, 120)
        require_uint("score", self.score, 128)
        require_uint("tokens", self.tokens, 64)
        require_uint("tasks", self.tasks, 32)
        require_uint("uptime_s", self.uptime_s, 32)
        require_uint("quality", self.quality, 16)
        require_uint("reputation", self.reputation, 16)
        require_uint("flags", self.flags, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlePayload:
    """What a certificate settles: the totals of `epoch`, chained by `prev` to what landed before.

    `prev` is the hash of the landed payload of the epoch before (32 zero bytes for the first one);
    `total_earned_nanoton` is the sum of the leaves' cumulative earnings.
    """

    kind: ClassVar[CertificateKind] = CertificateKind.SETTLE
    epoch: int
    prev: bytes
    totals_root: bytes
    count: int
    total_score: int
    total_earned_nanoton: int
    tasks: int
    tokens: int
    policy_hash: bytes
    cut_root: bytes

    def __post_init__(self) -> None:
        require_uint("epoch", self.epoch, 32)
        for name in ("prev", "totals_root", "policy_hash", "cut_root"):
            require_bytes(name, getattr(self, name), 32)
        require_uint("count", self.count, 32)
        require_uint("total_score", self.total_score, 128)
        require_uint("total_earned_nanoton", self.total_earned_nanoton, 120)
        require_uint("tasks", self.tasks, 64)
        require_uint("tokens", self.tokens, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateDomain:
    """What every certificate of a pool names besides its content, so that it fits nowhere else."""

    global_id: int
    pool: Address
    set_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An operator's Ed25519 signature (64 bytes) over a certificate cell's hash, by set index."""

    index: int
    signature: bytes

    def __post_init__(self) -> None:
        require_uint("index", self.index, 16)
        require_bytes("signature", self.signature, 64)
