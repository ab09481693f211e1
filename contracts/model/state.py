"""What the three contracts hold, as read from their accounts.

Source: `contracts/src/storage.tolk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from contracts.model.base import (
    REPUTATION_MAX,
    REPUTATION_START,
    ZERO_HASH,
    Address,
    require_bytes,
    require_range,
    require_uint,
)
from contracts.model.governance import EpochTerms, OperatorSet, PoolMetadata, PoolParams, Proposal, StakeRules


class PoolStatus(IntEnum):
    ACTIVE = 0
    PAUSED = 1
    CLOSED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """PoolOperator."""

    owner: Address
    pool_id: int
    phase: int
    """0 owner, 1 quorum (one way)."""
    registry: Address
    rewards: Address
    params: PoolParams
    operator_set: OperatorSet | None = None
    """None until the hand-over to the quorum."""
    previous_set: OperatorSet | None = None
    """Settles the epochs that began under it."""
    status: PoolStatus = PoolStatus.ACTIVE
    """By command; a guardian's pause is `paused_until_s`."""
    paused_until_s: int = 0
    """By the guardian; 0: it has not paused since the last resume."""
    registration_open: bool = True
    gov_seqno: int = 0
    """Of the last command that has one."""
    active_count: int = 0
    """This and the next two as the registry told them last."""
    pooled_stake_nanoton: int = 0
    counters_seqno: int = 0
    cocoon_root: Address | None = None
    pending: tuple[Proposal, ...] = ()
    """Ascending by kind."""
    metadata: PoolMetadata = field(default_factory=PoolMetadata)
    created_s: int = 0
    updated_s: int = 0
    """When the metadata changed last."""
    exit_by_s: int = 0
    """By when all that was asked back under longer withdrawal delays can be had; no upgrade is applied before."""
    tasks: int = 0
    """This and `tokens`: of all settled epochs."""
    tokens: int = 0

    @property
    def policy_hash(self) -> bytes:
        """Of the parameters in force: it is pinned to the epochs that begin from now on."""
        return self.params.terms.policy_hash

    def is_paused(self, now_s: int) -> bool:
        """Settlements, slashes, fees, registrations and upgrades are refused now."""
        return self.status == PoolStatus.PAUSED or now_s < self.paused_until_s

    def set_of(self, set_id: int) -> OperatorSet | None:
        """The current or the previous operator set, if it has this number."""
        known = (self.operator_set, self.previous_set)
        return next((s for s in known if s is not None and s.set_id == set_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedTerms:
    """What an epoch keeps from its beginning. `set_id` settles it; 0: it began under the owner."""

    set_id: int
    terms: EpochTerms

    def __post_init__(self) -> None:
        require_uint("set_id", self.set_id, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEpoch:
    """A finalized, not yet settled epoch: its time span [start_s, end_s), its pot, when it was finalized."""

    epoch: int
    start_s: int
    end_s: int
    pot_nanoton: int
    fee_nanoton: int
    finalized_s: int
    pinned: PinnedTerms

    @property
    def set_id(self) -> int:
        """Number of the operator set that settles it; 0: any, the epoch began under the owner."""
        return self.pinned.set_id

    @property
    def policy_hash(self) -> bytes:
        return self.pinned.terms.policy_hash


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
    """RewardDistribution: the running epoch, the open ones, the landed one."""

    pool: Address
    registry: Address
    current_epoch: int
    current_start_s: int
    current_end_s: int
    epoch_duration_s: int
    running: PinnedTerms
    next: PinnedTerms
    """Of the epoch that begins when the running one is finalized."""
    received_nanoton: int
    """Received for the running epoch, so far; the operators' fee is taken of this."""
    carried_nanoton: int
    """Dust, forfeits and slashed stake that go into the running epoch's pot; free of a further fee."""
    open_pots_nanoton: int
    """Of all open epochs."""
    pending_fees_nanoton: int
    received_before_nanoton: int
    """Received in all epochs before the running one."""
    distributed_nanoton: int
    """Paid to participants, ever."""
    fees_collected_nanoton: int
    """Paid to operators, ever; refunds are part of it."""
    open_epochs: tuple[OpenEpoch, ...]
    landed: Landed
    paid_nanoton: dict[bytes, int]
    """Account hash of a participant -> nanoTON ever paid to it."""

    @property
    def unpaid_nanoton(self) -> int:
        """Earned by participants and not yet paid."""
        return self.landed.total_earned_nanoton - self.distributed_nanoton

    @property
    def liabilities_nanoton(self) -> int:
        """Owed by the contract: running and open pots, unpaid entitlements, pending fees."""
        running = self.received_nanoton + self.carried_nanoton
        return running + self.open_pots_nanoton + self.pending_fees_nanoton + self.unpaid_nanoton


class ParticipantStatus(IntEnum):
    ACTIVE = 0
    INACTIVE = 1
    """Its stake fell below the minimum."""
    SUSPENDED = 2
    WITHDRAWING = 3
    """The whole stake is asked back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """What a participant contributed in the epochs that were proven to the registry."""

    score: int
    uptime_s: int
    tasks: int
    tokens: int
    epochs: int
    last_epoch: int

    def __post_init__(self) -> None:
        require_uint("score", self.score, 128)
        for name in ("uptime_s", "tasks", "tokens"):
            require_uint(name, getattr(self, name), 64)
        require_uint("epochs", self.epochs, 32)
        require_uint("last_epoch", self.last_epoch, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A registry entry. `address` is the owner (who is paid); `node_key` signs the records."""

    address: Address
    node_key: bytes
    stake_nanoton: int
    status: ParticipantStatus = ParticipantStatus.ACTIVE
    reputation: int = REPUTATION_START
    joined_s: int = 0
    worker: Address | None = None
    heartbeat_s: int = 0
    seqno: int = 0
    """Of the last certificate about this entry."""
    pending_nanoton: int = 0
    """Of the stake, asked back; paid from `withdraw_at_s` on."""
    withdraw_at_s: int = 0
    held_nanoton: int = 0
    """Slashed, beside the stake; open to appeal until `held_until_s`."""
    held_until_s: int = 0
    rotated_s: int = 0
    """When the node key was replaced last; 0: it is the first."""
    gpu_spec_hash: bytes = ZERO_HASH
    gpu_count: int = 0
    lifetime: Lifetime | None = None
    """None until a contribution was proven."""

    def __post_init__(self) -> None:
        require_bytes("node_key", self.node_key, 32)
        require_bytes("gpu_spec_hash", self.gpu_spec_hash, 32)
        for name in ("stake_nanoton", "pending_nanoton", "held_nanoton"):
            require_uint(name, getattr(self, name), 120)
        for name in ("joined_s", "heartbeat_s", "seqno", "withdraw_at_s", "held_until_s", "rotated_s"):
            require_uint(name, getattr(self, name), 32)
        require_uint("gpu_count", self.gpu_count, 8)
        require_range("reputation", self.reputation, 0, REPUTATION_MAX)
        require_range("pending_nanoton", self.pending_nanoton, 0, self.stake_nanoton)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryState:
    """ParticipantRegistry. `participants` ascend by account; the sums are theirs."""

    pool: Address
    rewards: Address | None
    """None, as `rules`, until the pool has told."""
    rules: StakeRules | None
    paused_until_s: int
    """Stakes and contributions wait; `UNTIL_RESUME_S`: until a command resumes."""
    count: int
    active_count: int
    total_stake_nanoton: int
    total_pending_nanoton: int
    slashed_nanoton: int
    """Held beside the stakes."""
    counters_seqno: int
    roots: dict[int, bytes]
    """Epoch -> totals root, of the last `EPOCH_ROOTS_MAX` settled epochs that had leaves."""
    participants: tuple[Participant, ...]
