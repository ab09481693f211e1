"""What a pool agrees on: its operators, its parameters, its name, and what may change them.

Ranges are those that the contract enforces (`invalid_params`, `invalid_metadata`, `invalid_set`), so a value
of these is one that the contract takes.

Source: `contracts/src/types.tolk`; CONTRACTS, "Must exist".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from contracts.errors import InvalidValueError
from contracts.model.base import (
    BPS,
    DAY_S,
    HOUR_S,
    NANO,
    OPERATORS_MAX,
    PARTICIPANTS_MAX,
    PROPOSAL_LIFE_S,
    Address,
    require_bytes,
    require_range,
    require_uint,
)
from contracts.opcodes import CertificateKind


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

    def require_distinct(self) -> None:
        """Raise `InvalidValueError` if a node key stands twice: nobody makes, proposes or signs such a set.

        The contract takes one, as an operator of both weights; so a pool that has one can be read all the same.
        """
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
class EpochTerms:
    """What is pinned to an epoch when it begins. `fee_bps` of 10,000 goes to the operators."""

    fee_bps: int
    policy_hash: bytes
    max_refund_nanoton: int = NANO // 10
    """At most so much of a settlement's cost comes back to its submitter, out of the operators' fees."""
    auto_distribute: bool = False
    """Anyone may push what participants earned to them."""
    min_distribution_nanoton: int = 0
    """A push passes over less."""

    def __post_init__(self) -> None:
        require_range("fee_bps", self.fee_bps, 0, BPS)
        require_bytes("policy_hash", self.policy_hash, 32)
        require_uint("max_refund_nanoton", self.max_refund_nanoton, 120)
        require_uint("min_distribution_nanoton", self.min_distribution_nanoton, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeRules:
    """What the registry keeps to. `slash_bps` of 10,000 of the stake goes where a slash names no amount."""

    min_stake_nanoton: int = 100 * NANO
    slash_bps: int = 1000
    withdrawal_delay_s: int = 7 * DAY_S
    heartbeat_timeout_s: int = 0
    """0: nobody is taken for gone."""
    min_uptime_pct: int = 90

    def __post_init__(self) -> None:
        require_uint("min_stake_nanoton", self.min_stake_nanoton, 120)
        if self.min_stake_nanoton == 0:
            raise InvalidValueError("min_stake_nanoton: expected at least 1")
        require_range("slash_bps", self.slash_bps, 0, BPS)
        require_range("withdrawal_delay_s", self.withdrawal_delay_s, HOUR_S, 30 * DAY_S)
        require_uint("heartbeat_timeout_s", self.heartbeat_timeout_s, 32)
        require_range("min_uptime_pct", self.min_uptime_pct, 0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParams:
    """Everything that is changed by a proposal which waits `parameter_delay_s`."""

    terms: EpochTerms
    rules: StakeRules = field(default_factory=StakeRules)
    max_participants: int = 1000
    parameter_delay_s: int = 3 * DAY_S
    upgrade_delay_s: int = 8 * DAY_S
    """A day longer than a withdrawal takes at least, so that nobody has to stay for an upgrade; never under a week."""
    emergency: bool = False
    """The guardian may pause the pool."""
    guardian: Address | None = None

    def __post_init__(self) -> None:
        require_range("max_participants", self.max_participants, 0, PARTICIPANTS_MAX)
        require_range("parameter_delay_s", self.parameter_delay_s, HOUR_S, 30 * DAY_S)
        upgrade_delay_min_s = max(7 * DAY_S, self.rules.withdrawal_delay_s + DAY_S)
        require_range("upgrade_delay_s", self.upgrade_delay_s, upgrade_delay_min_s, 90 * DAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMetadata:
    """How a pool presents itself: printable text of at most 64, 256, 100 and 100 bytes of UTF-8."""

    name: str = ""
    description: str = ""
    website: str = ""
    contact: str = ""

    def __post_init__(self) -> None:
        for name, bytes_max in METADATA_BYTES_MAX.items():
            text = getattr(self, name)
            if not text.isprintable():
                raise InvalidValueError(f"{name}: expected printable text without line breaks")
            try:
                length = len(text.encode())
            except UnicodeEncodeError:
                raise InvalidValueError(f"{name}: expected text of whole characters") from None
            if length > bytes_max:
                raise InvalidValueError(f"{name}: {length} bytes, at most {bytes_max} are taken")


METADATA_BYTES_MAX = {"name": 64, "description": 256, "website": 100, "contact": 100}


class UpgradeTarget(IntEnum):
    """Which contract's code a proposal replaces."""

    POOL = 0
    REWARDS = 1
    REGISTRY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What waits to be applied: one per kind (PROPOSE_SET, PROPOSE_PARAMS, PROPOSE_UPGRADE).

    `hash` is that of the set's, the parameters' or the code's cell.
    """

    kind: CertificateKind
    hash: bytes
    since_s: int
    not_before_s: int = 0
    """As it was announced: delays that are shortened later do not bring it forward."""
    target: UpgradeTarget = UpgradeTarget.POOL
    params: PoolParams | None = None

    def __post_init__(self) -> None:
        if self.kind not in PROPOSAL_KINDS:
            raise InvalidValueError(f"kind: {self.kind!r} proposes nothing")
        require_bytes("hash", self.hash, 32)
        require_uint("since_s", self.since_s, 32)
        require_uint("not_before_s", self.not_before_s, 32)
        if (self.params is None) == (self.kind == CertificateKind.PROPOSE_PARAMS):
            raise InvalidValueError("params: a change of parameters has them, and nothing else has")

    def ready_s(self, params: PoolParams) -> int:
        """From when it can be applied, with the parameters in force; it is dead at `expires_s`."""
        upgrade = self.kind == CertificateKind.PROPOSE_UPGRADE
        delay_s = params.upgrade_delay_s if upgrade else params.parameter_delay_s
        return max(self.not_before_s, self.since_s + delay_s)

    def expires_s(self, params: PoolParams) -> int:
        """The last second at which it can be applied."""
        return self.ready_s(params) + PROPOSAL_LIFE_S


PROPOSAL_KINDS = frozenset(
    {CertificateKind.PROPOSE_SET, CertificateKind.PROPOSE_PARAMS, CertificateKind.PROPOSE_UPGRADE}
)
