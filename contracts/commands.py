"""What a pool can be commanded: one value per kind, by certificate or, before the hand-over, by the owner.

Decides nothing; the contracts judge. `gov_seqno` is the pool's + 1, `Target.seqno` the entry's + 1, so that no
command works twice. Cells are made of these, and they of cells, by `layout.command_cell` and `layout.read_command`.

Source: `contracts/src/certificate.tolk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from pytoniq_core import Cell

from contracts.errors import InvalidValueError
from contracts.model import (
    PROPOSAL_KINDS,
    REPUTATION_MAX,
    Address,
    CertificateKind,
    OperatorSet,
    PoolMetadata,
    PoolParams,
    SettlePayload,
    UpgradeTarget,
    require_bytes,
    require_range,
    require_uint,
)


class SlashReason(IntEnum):
    OFFLINE = 1
    INVALID_ATTESTATION = 2
    FORK = 3
    MALICE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The registry entry that a command is about: an owner who comes again (`joined_s`) is another one."""

    participant: Address
    joined_s: int
    seqno: int

    def __post_init__(self) -> None:
        if self.participant.workchain != 0:
            raise InvalidValueError("participant: only workchain 0 takes part")
        require_uint("joined_s", self.joined_s, 32)
        require_uint("seqno", self.seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slash:
    """Take stake away, to be held 7 days for an appeal. `amount_nanoton` 0: the rules' share of the stake."""

    kind: ClassVar[CertificateKind] = CertificateKind.SLASH
    target: Target
    amount_nanoton: int
    reason: SlashReason
    evidence_hash: bytes

    def __post_init__(self) -> None:
        require_uint("amount_nanoton", self.amount_nanoton, 120)
        require_bytes("evidence_hash", self.evidence_hash, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSlash:
    """Give the held stake back, in time."""

    kind: ClassVar[CertificateKind] = CertificateKind.CANCEL_SLASH
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReputation:
    kind: ClassVar[CertificateKind] = CertificateKind.REPUTATION
    target: Target
    reputation: int

    def __post_init__(self) -> None:
        require_range("reputation", self.reputation, 0, REPUTATION_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Suspend, and start the withdrawal of the whole stake."""

    kind: ClassVar[CertificateKind] = CertificateKind.REMOVE
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend:
    """Suspend (`suspended`), or lift a suspension."""

    kind: ClassVar[CertificateKind] = CertificateKind.SUSPEND
    target: Target
    suspended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeSet:
    """Propose the operator set whose cell has this hash; it takes over once it has signed `AcceptSet`."""

    kind: ClassVar[CertificateKind] = CertificateKind.PROPOSE_SET
    gov_seqno: int
    set_hash: bytes

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)
        require_bytes("set_hash", self.set_hash, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptSet:
    """Take over: signed by the proposed set itself, whose number is the current one's + 1."""

    kind: ClassVar[CertificateKind] = CertificateKind.ACCEPT_SET
    operator_set: OperatorSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeParams:
    kind: ClassVar[CertificateKind] = CertificateKind.PROPOSE_PARAMS
    gov_seqno: int
    params: PoolParams

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    kind: ClassVar[CertificateKind] = CertificateKind.PAUSE
    gov_seqno: int

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """End a pause, and let the guardian pause once more."""

    kind: ClassVar[CertificateKind] = CertificateKind.RESUME
    gov_seqno: int

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """For ever: nobody registers any more; what is owed is paid."""

    kind: ClassVar[CertificateKind] = CertificateKind.CLOSE
    gov_seqno: int

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeUpgrade:
    """Propose the code with this hash for one of the three contracts."""

    kind: ClassVar[CertificateKind] = CertificateKind.PROPOSE_UPGRADE
    gov_seqno: int
    target: UpgradeTarget
    code_hash: bytes

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)
        require_bytes("code_hash", self.code_hash, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelProposal:
    """Withdraw the proposal of this kind (one of `PROPOSAL_KINDS`)."""

    kind: ClassVar[CertificateKind] = CertificateKind.CANCEL
    gov_seqno: int
    proposal: CertificateKind

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)
        if self.proposal not in PROPOSAL_KINDS:
            raise InvalidValueError(f"proposal: {self.proposal!r} proposes nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRegistration:
    kind: ClassVar[CertificateKind] = CertificateKind.REGISTRATION
    gov_seqno: int
    open: bool

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMetadata:
    kind: ClassVar[CertificateKind] = CertificateKind.METADATA
    gov_seqno: int
    metadata: PoolMetadata

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeesTo:
    """Pay the operators' fees to `recipient`, `amount_nanoton` of them at most.

    As many as there are when it lands: a settlement in between refunds its submitter from the same fees. Without
    any it is refused (`nothing_pending`), and has used up its number.
    """

    kind: ClassVar[CertificateKind] = CertificateKind.FEES_TO
    gov_seqno: int
    recipient: Address
    amount_nanoton: int

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)
        require_uint("amount_nanoton", self.amount_nanoton, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerMessage:
    """Send `body` from the rewards contract to `dest`; `value_nanoton` comes from the submitter."""

    kind: ClassVar[CertificateKind] = CertificateKind.OWNER_MESSAGE
    gov_seqno: int
    dest: Address
    value_nanoton: int
    body: Cell

    def __post_init__(self) -> None:
        require_uint("gov_seqno", self.gov_seqno, 32)
        require_uint("value_nanoton", self.value_nanoton, 120)


EntryCommand = Slash | CancelSlash | SetReputation | Remove | Suspend
"""About one registry entry: has a `target`."""

GovernanceCommand = (
    ProposeSet
    | ProposeParams
    | Pause
    | Resume
    | Close
    | ProposeUpgrade
    | CancelProposal
    | SetRegistration
    | SetMetadata
    | FeesTo
    | OwnerMessage
)
"""About the pool: has a `gov_seqno`."""

Command = SettlePayload | AcceptSet | EntryCommand | GovernanceCommand
