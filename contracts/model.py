"""Values of the pool's contracts: what the agent reads from the chain and what it sends there.

Plain frozen values; lengths and ranges are checked at construction, so that whatever holds one of
these may rely on it. Cells are made from them, and they from cells, in `contracts.layout` only.

Source: CONTRACTS and PROTOCOL in the design; `contracts/src/*.tolk` for what stands on chain.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import IntEnum

from contracts.errors import InvalidValueError

NANO = 10**9
"""nanoTON in one TON."""

ZERO_HASH = bytes(32)
"""`prev` of the first epoch: nothing has landed before it."""

BPS = 10_000
REPUTATION_START = 500
REPUTATION_MAX = 1000
QUALITY_MAX = 1000
OPERATORS_MAX = 180
"""A certificate of more signatures than this would not fit the gas limit of one message."""

_COINS_MAX = 2**120 - 1


def require_uint(name: str, value: int, bits: int) -> None:
    """Raise `InvalidValueError` unless `value` is an integer in [0, 2**bits)."""
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise InvalidValueError(f"{name}: expected an unsigned integer of {bits} bits, got {value!r}")


def require_bytes(name: str, value: bytes, length: int) -> None:
    """Raise `InvalidValueError` unless `value` is exactly `length` bytes."""
    if type(value) is not bytes or len(value) != length:
        raise InvalidValueError(f"{name}: expected {length} bytes, got {value!r:.80}")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A standard TON address: `workchain` (int8) and the account's 32-byte hash."""

    workchain: int
    account: bytes

    def __post_init__(self) -> None:
        if type(self.workchain) is not int or not -128 <= self.workchain < 128:
            raise InvalidValueError(f"workchain: expected int8, got {self.workchain!r}")
        require_bytes("account", self.account, 32)

    def __str__(self) -> str:
        """Raw form, `0:<64 hex digits>`: unambiguous, the form for logs, files and --json."""
        return f"{self.workchain}:{self.account.hex()}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the raw form (`0:hex`) or the friendly one (48 characters, base64 or base64url).

        Raises:
            InvalidValueError: the text is neither, or its checksum is wrong.
        """
        if ":" in text:
            head, _, tail = text.partition(":")
            try:
                return cls(int(head), bytes.fromhex(tail))
            except ValueError:
                raise InvalidValueError(f"not a TON address: {text!r:.80}") from None
        try:
            raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidValueError(f"not a TON address: {text!r:.80}") from None
        if len(raw) != 36 or binascii.crc_hqx(raw[:34], 0) != int.from_bytes(raw[34:], "big"):
            raise InvalidValueError(f"not a TON address (length or checksum): {text!r:.80}")
        return cls(int.from_bytes(raw[1:2], "big", signed=True), raw[2:34])

    def friendly(self, *, bounceable: bool = True, testnet: bool = False) -> str:
        """The 48-character form that wallets and explorers show."""
        tag = (0x11 if bounceable else 0x51) | (0x80 if testnet else 0)
        body = bytes([tag]) + self.workchain.to_bytes(1, "big", signed=True) + self.account
        return base64.urlsafe_b64encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "big")).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One member of the operator set: Ed25519 node key (32 bytes), weight (uint32, > 0)."""

    node_key: bytes
    weight: int

    def __post_init__(self) -> None:
        require_bytes("node_key", self.node_key, 32)
        require_uint("weight", self.weight, 32)
        if self.weight == 0:
            raise InvalidValueError("weight: an operator's weight is at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSet:
    """The operators by index (their position here is their index on chain) and the set's number."""

    set_id: int
    operators: tuple[Operator, ...]

    def __post_init__(self) -> None:
        require_uint("set_id", self.set_id, 32)
        if not 1 <= len(self.operators) <= OPERATORS_MAX:
            raise InvalidValueError(f"operators: expected 1 to {OPERATORS_MAX}, got {len(self.operators)}")
        if len({o.node_key for o in self.operators}) != len(self.operators):
            raise InvalidValueError("operators: a node key stands twice")

    @property
    def total_weight(self) -> int:
        return sum(o.weight for o in self.operators)

    def is_quorum(self, weight: int) -> bool:
        """More than two thirds of the weight: what a certificate needs."""
        return 3 * weight > 2 * self.total_weight

    def is_witnessed(self, weight: int) -> bool:
        """More than one third of the weight: at least one honest operator is among them."""
        return 3 * weight > self.total_weight

    def index_of(self, node_key: bytes) -> int | None:
        """Index of the operator with this key, or None if it is not in the set."""
        return next((i for i, o in enumerate(self.operators) if o.node_key == node_key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParams:
    """What the owner fixes when the pool begins. `fee_bps` of 10,000 goes to the operators."""

    fee_bps: int
    min_stake_nanoton: int
    max_participants: int
    registration_open: bool
    policy_hash: bytes
    max_refund_nanoton: int
    """At most so much of a settlement's cost comes back to its submitter, out of the operators' fees."""

    def __post_init__(self) -> None:
        if not 0 <= self.fee_bps <= BPS:
            raise InvalidValueError(f"fee_bps: expected 0..{BPS}, got {self.fee_bps}")
        require_uint("min_stake_nanoton", self.min_stake_nanoton, 120)
        require_uint("max_participants", self.max_participants, 32)
        require_bytes("policy_hash", self.policy_hash, 32)
        require_uint("max_refund_nanoton", self.max_refund_nanoton, 120)


class ParticipantStatus(IntEnum):
    ACTIVE = 0
    INACTIVE = 1
    SUSPENDED = 2
    WITHDRAWING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A registry entry. `address` is the owner (who is paid); `node_key` signs the records."""

    address: Address
    node_key: bytes
    stake_nanoton: int
    status: ParticipantStatus
    reputation: int
    joined_s: int
    worker: Address | None = None

    def __post_init__(self) -> None:
        require_bytes("node_key", self.node_key, 32)
        require_uint("stake_nanoton", self.stake_nanoton, 120)
        require_uint("joined_s", self.joined_s, 32)
        if not 0 <= self.reputation <= REPUTATION_MAX:
            raise InvalidValueError(f"reputation: expected 0..{REPUTATION_MAX}, got {self.reputation}")


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


class CertificateKind(IntEnum):
    SETTLE = 1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEpoch:
    """A finalized, not yet settled epoch: its time span [start_s, end_s), its pot, when it was finalized."""

    epoch: int
    start_s: int
    end_s: int
    pot_nanoton: int
    fee_nanoton: int
    finalized_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """The last settlement that the rewards contract took. `epoch` 0 and zero hashes: none yet."""

    epoch: int
    payload_hash: bytes
    totals_root: bytes
    previous_root: bytes
    """Totals root of the settlement before: claims against it are still paid."""
    total_earned_nanoton: int
    settled_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardsState:
    """RewardDistribution as read from its account: the running epoch, the open ones, the landed one."""

    pool: Address
    current_epoch: int
    current_start_s: int
    current_end_s: int
    epoch_duration_s: int
    received_nanoton: int
    """Received for the running epoch, so far; the operators' fee is taken of this."""
    carried_nanoton: int
    """Dust and forfeits of settled epochs that go into the running epoch's pot; free of a further fee."""
    distributed_nanoton: int
    """Paid to participants, ever."""
    liabilities_nanoton: int
    """Owed by the contract: running and open pots, unpaid entitlements, pending fees."""
    pending_fees_nanoton: int
    fee_bps: int
    open_epochs: tuple[OpenEpoch, ...]
    landed: Landed
    paid_nanoton: dict[bytes, int]
    """Account hash of a participant -> nanoTON ever paid to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """PoolOperator as read from its account."""

    owner: Address
    pool_id: int
    phase: int
    """0 owner, 1 quorum (one way)."""
    registry: Address
    rewards: Address
    fee_bps: int
    min_stake_nanoton: int
    max_participants: int
    registration_open: bool
    policy_hash: bytes
    max_refund_nanoton: int
    operator_set: OperatorSet | None
    """None until the hand-over to the quorum."""
