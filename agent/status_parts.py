"""The agent's status as the text for people reads it: each part of the tree with the keys that it needs, and no more.

What answers at the agent's port may be an agent of another version, or something else, so nothing is read that was not
checked against its part here. Keys that a part does not name are left alone. Whole numbers are bounded, so that sums
and dates of them are.

Source: `agent.status`, which writes the tree.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

Whole = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
"""A count, an age or an amount of nanoTON: all TON that there are fit."""
Time = Annotated[int, Meta(ge=0, le=1 << 32)]
"""Unix seconds, as the chain has them."""


class AgentPart(TypedDict):
    """What every agent says."""

    version: str
    uptime_s: Whole
    node_key: str


class Chain(TypedDict):
    error: str | None
    seqno: Whole | None
    age_s: Whole | None
    epoch: Whole | None
    clock: str | None
    epoch_start_s: NotRequired[Time | None]
    epoch_end_s: NotRequired[Time | None]
    open_epochs: NotRequired[list[Whole]]
    participants: NotRequired[Whole]
    wallet_nanoton: NotRequired[Whole | None]


class ChainPart(TypedDict):
    chain: Chain | None


class Peer(TypedDict):
    node_key: str
    connected: bool
    in_roster: bool
    role: str | None
    address_from: str | None
    heard_ago_s: float | None
    rtt_ms: float | None
    dial_errors: list[str]


class Reach(TypedDict):
    weight: Whole
    total_weight: Whole


class ReachPart(TypedDict):
    reach: Reach | None
    not_dialled: dict[str, str]


class PeersPart(ReachPart):
    peers: list[Peer]


class Error(TypedDict):
    code: str | None
    message: NotRequired[str]


class Standing(TypedDict):
    valid: bool
    error: NotRequired[Error | None]
    valid_until_s: NotRequired[Time]
    tcb_status: NotRequired[str]
    advisories: NotRequired[list[str]]
    measurement: NotRequired[str]
    machine: NotRequired[str]
    gpus: NotRequired[Whole]


class CollateralError(TypedDict):
    message: str


class OwnEvidence(TypedDict):
    valid: bool
    valid_until_s: Time | None
    alarm: str | None
    collateral_error: CollateralError | None
    own: Standing | None
    place_taken_by: str | None
    is_gpu_taken: NotRequired[bool]


class Evidence(OwnEvidence):
    """With that of the others."""

    peers: dict[str, Standing]
    settled: dict[str, Time]
    missing: list[str]


class OwnEvidencePart(TypedDict):
    evidence: OwnEvidence


class EvidencePart(TypedDict):
    evidence: Evidence
    time_s: Time


class Work(TypedDict):
    tokens: Whole
    tasks: Whole
    tokens_per_s: NotRequired[float | None]
    head: Whole | None
    error: str | None


class WorkPart(TypedDict):
    work: Work


class Source(TypedDict):
    source: str
    instance: Whole
    provenance: str | None
    error: str | None
    notes: list[str]
    sampled_s: NotRequired[Time | None]
    gauges: NotRequired[dict[str, float]]


class SourcesPart(TypedDict):
    sources: list[Source]


class Proposal(TypedDict):
    kind: str
    target: str | None
    hash: str
    ready_s: Time
    expires_s: Time


class Pool(TypedDict):
    status: str
    is_paused: bool
    paused_until_s: Time | None
    obstacle: str | None
    proposals: list[Proposal]


class PoolPart(TypedDict):
    pool: Pool | None


class Policy(TypedDict):
    hash: str
    is_held: bool
    epoch: Whole | None
    from_s: Time


class PoliciesPart(TypedDict):
    policies: list[Policy]
    time_s: Time


class Entry(TypedDict):
    status: str
    not_earning: str | None
    reputation: Whole
    stake_nanoton: Whole
    pending_nanoton: Whole
    withdraw_at_s: Time | None
    held_nanoton: Whole
    held_until_s: Time | None


class EntryPart(TypedDict):
    entry: Entry | None
    chain: Chain | None


class LogPart(TypedDict):
    is_own_log_known: bool


class Close(TypedDict):
    epoch: Whole
    view: Whole | None
    observations: Whole
    attested_weight: Whole
    total_weight: Whole
    certified: bool
    waiting_for: Whole
    operators: NotRequired[Whole]
    leader: NotRequired[str | None]
    unseen: NotRequired[list[str]]
    unattested: NotRequired[list[str]]


class ClosePart(TypedDict):
    close: Close | None


class Settled(TypedDict):
    epoch: Whole
    root: str
    settled_s: NotRequired[Time]


class SettledPart(TypedDict):
    settled: Settled | None


class Own(TypedDict):
    """Scores have more bits than other figures."""

    epoch: Whole
    tokens: Whole
    metered_tokens: Whole | None
    score: int
    total_score: int
    earned_nanoton: NotRequired[Whole]
    reasons: list[str]


class OwnPart(TypedDict):
    own: Own | None
    claimable_nanoton: Whole | None


class Reconciliation(TypedDict):
    alarm: str | None
    epochs: NotRequired[Whole]
    metered: NotRequired[Whole]
    receipts: NotRequired[Whole | None]
    paid: NotRequired[Whole | None]


class BooksPart(TypedDict):
    reconciliation: Reconciliation | None
