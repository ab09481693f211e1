"""The running agent's status, read into a form: the part that the doctor looks at.

What answers at the agent's port may be an older agent, a newer one, or none: each section is read on its own, keys
that are not there count as not told, others are skipped. A section of another form, or with a number that is none of
this agent's, is unknown; the rest still counts.

Source: `agent.status`, which writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from agent.doctor.facts import Maybe, Unknown

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""By two clocks, or one that was set: below zero where the later one is behind."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A section; every key may be absent."""


class ErrorForm(Form, frozen=True):
    code: str | None = None
    message: str = ""
    remedy: str | None = None


class AgentForm(Form, frozen=True):
    """The top of the tree."""

    version: str = ""
    uptime_s: Seconds = 0
    node_key: str = ""
    is_own_log_known: bool = True


class ChainForm(Form, frozen=True):
    error: str | None = None
    seqno: Count | None = None
    age_s: Seconds | None = None
    epoch: Count | None = None
    epoch_end_s: Count | None = None
    clock: str | None = None


class PoolForm(Form, frozen=True):
    obstacle: str | None = None


class OwnEvidenceForm(Form, frozen=True):
    valid: bool = True
    error: ErrorForm | None = None


class EvidenceForm(Form, frozen=True):
    valid: bool = False
    valid_until_s: Count | None = None
    alarm: str | None = None
    error: ErrorForm | None = None
    collateral_error: ErrorForm | None = None
    own: OwnEvidenceForm | None = None
    place_taken_by: str | None = None
    is_gpu_taken: bool = False


class WorkForm(Form, frozen=True):
    tokens: Count = 0
    tasks: Count = 0
    tokens_per_s: float | None = None
    error: str | None = None


class SourceForm(Form, frozen=True):
    """One source of measurements; `gauges` are figures of now by name."""

    source: str = ""
    instance: Count = 0
    provenance: str | None = None
    sampled_s: Count | None = None
    error: str | None = None
    restarts: Count = 0
    restarted_s: Seconds | None = None
    gauges: dict[str, float] = {}
    notes: list[str] = []

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.source} {self.instance}"


class MemoryForm(Form, frozen=True):
    """What is used of the tightest limit on the agent's memory."""

    used_bytes: Count = 0
    limit_bytes: Count = 0
    limited_by: str = ""


class StepBackForm(Form, frozen=True):
    """When this host's clock was set back last, and by how much."""

    by_s: Seconds = 0
    at_s: Seconds = 0


class RiftForm(Form, frozen=True):
    """Operators of another version of `what` ("protocol" or "tally")."""

    what: str = ""
    stops: bool = False
    is_outdated: bool = False
    text: str = ""


class KeyInUseForm(Form, frozen=True):
    text: str = ""


class VersionsForm(Form, frozen=True):
    rifts: list[RiftForm] = []
    key_in_use: KeyInUseForm | None = None


class PeerForm(Form, frozen=True):
    node_key: str = ""
    connected: bool = False
    in_roster: bool = False
    role: str | None = None
    dial_errors: list[str] = []


class ReachForm(Form, frozen=True):
    weight: Count = 0
    total_weight: Count = 0


class CloseForm(Form, frozen=True):
    epoch: Count = 0
    view: Count | None = None
    operators: Count | None = None
    observations: Count = 0
    attested_weight: Count = 0
    total_weight: Count = 0
    certified: bool = False
    waiting_for: Count = 0


class SettledForm(Form, frozen=True):
    epoch: Count = 0
    adopted_epoch: Count = 0


class OwnForm(Form, frozen=True):
    """The own part in the last settled epoch."""

    epoch: Count = 0
    tokens: Count = 0
    metered_tokens: Count | None = None
    score: Count = 0
    total_score: Count = 0
    earned_nanoton: Count = 0
    reasons: list[str] = []


class ReconciliationForm(Form, frozen=True):
    alarm: str | None = None


_UNTOLD = Unknown("the agent does not say")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The sections, each as it was told. `close`, `own`, `memory` and `clock_step_back` are None if there is none."""

    agent: Maybe[AgentForm] = _UNTOLD
    chain: Maybe[ChainForm] = _UNTOLD
    pool: Maybe[PoolForm] = _UNTOLD
    evidence: Maybe[EvidenceForm] = _UNTOLD
    work: Maybe[WorkForm] = _UNTOLD
    sources: Maybe[list[SourceForm]] = _UNTOLD
    peers: Maybe[list[PeerForm]] = _UNTOLD
    not_dialled: Maybe[dict[str, str]] = _UNTOLD
    dialled_at: Maybe[list[str]] = _UNTOLD
    """Where this node says that others can dial it."""
    reach: Maybe[ReachForm] = _UNTOLD
    close: Maybe[CloseForm | None] = _UNTOLD
    settled: Maybe[SettledForm] = _UNTOLD
    own: Maybe[OwnForm | None] = _UNTOLD
    claimable_nanoton: Maybe[int] = _UNTOLD
    reconciliation: Maybe[ReconciliationForm] = _UNTOLD
    versions: Maybe[VersionsForm] = _UNTOLD
    memory: Maybe[MemoryForm | None] = _UNTOLD
    clock_step_back: Maybe[StepBackForm | None] = _UNTOLD


_Form = TypeVar("_Form")


def read_status(tree: Mapping[str, Any]) -> Status:
    """Read a status; what is not as it should be is unknown."""
    return Status(
        agent=_read(dict(tree), AgentForm, "agent"),
        chain=_section(tree, "chain", ChainForm),
        pool=_section(tree, "pool", PoolForm),
        evidence=_section(tree, "evidence", EvidenceForm),
        work=_section(tree, "work", WorkForm),
        sources=_section(tree, "sources", list[SourceForm]),
        peers=_section(tree, "peers", list[PeerForm]),
        not_dialled=_section(tree, "not_dialled", dict[str, str]),
        dialled_at=_section(tree, "dialled_at", list[str]),
        reach=_section(tree, "reach", ReachForm),
        close=_optional(tree, "close", CloseForm),
        settled=_section(tree, "settled", SettledForm),
        own=_optional(tree, "own", OwnForm),
        claimable_nanoton=_section(tree, "claimable_nanoton", Count),
        reconciliation=_section(tree, "reconciliation", ReconciliationForm),
        versions=_section(tree, "versions", VersionsForm),
        memory=_optional(tree, "memory", MemoryForm),
        clock_step_back=_optional(tree, "clock_step_back", StepBackForm),
    )


def _section(tree: Mapping[str, Any], name: str, form: type[_Form]) -> Maybe[_Form]:
    if name not in tree:
        return Unknown(f"this version of the agent does not tell of `{name}`")
    if tree[name] is None:
        return Unknown(f"the agent does not know `{name}` yet")
    return _read(tree[name], form, name)


def _optional(tree: Mapping[str, Any], name: str, form: type[_Form]) -> Maybe[_Form | None]:
    if name in tree and tree[name] is None:
        return None
    return _section(tree, name, form)


def _read(value: object, form: type[_Form], name: str) -> Maybe[_Form]:
    try:
        return msgspec.convert(value, form)
    except (msgspec.ValidationError, RecursionError) as error:
        return Unknown(f"the agent tells of `{name}` in a form that this command does not know: {error}")
