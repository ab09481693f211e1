"""What the page shows, as one value: collected by `agent.page.looking`, drawn by `agent.page.document`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.earnings.report import EpochEarnings
from agent.invoking import spelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One of the doctor's findings, in its words; `severity` is problem, warning or note."""

    severity: str
    code: str
    cause: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the doctor found at `found_s` (Unix seconds); `earns` None: not known.

    `epoch` is the last one that it saw settled, 0 for none, None if that is not known.
    """

    found_s: int
    epoch: int | None
    earns: bool | None
    verdict: str
    findings: tuple[Said, ...]
    fine: int
    """Checks that found nothing wrong, or nothing to look at."""
    unknown: int
    """Checks that could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One node on the map. `connected` is None for this node itself, as is what was heard of it here."""

    node_key: str
    is_operator: bool
    connected: bool | None
    heard_ago_s: float | None = None
    rtt_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The peers that are shown, this node first, operators next; and how many there are of each kind.

    Of the operators connected, `operators_unusable` are not in reach: their version is not known yet, or none to work
    with. `heard_s` says by observing operator how long it heard each of those shown, in the epoch `epoch`.
    """

    peers: tuple[Peer, ...] = ()
    operators: int = 0
    operators_connected: int = 0
    operators_unusable: int = 0
    participants: int = 0
    participants_connected: int = 0
    epoch: int | None = None
    heard_s: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastClose:
    """How far the last close had come when it was looked at last; weights of the operator set, the total above 0."""

    epoch: int
    attested_weight: int
    total_weight: int

    @property
    def is_quorum(self) -> bool:
        """Whether more than two thirds of the weight were seen to attest."""
        return 3 * self.attested_weight > 2 * self.total_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """Everything, as of `now_s` (Unix seconds).

    `config` is the settings file of this agent, `status` its own (`agent.status.own_status`). `trouble` is why this
    process is not healthy, or not ready, in one line. `diagnosis` is the doctor's last, None while it looks for the
    first time; `silence` is why none came. `last_close` is the last one that this agent saw since it started, None
    before that. `epochs` ascend; `no_epochs` is why there are none to show.
    """

    now_s: int
    config: Path
    status: Mapping[str, Any]
    trouble: str | None
    diagnosis: Diagnosis | None
    silence: str | None
    last_close: LastClose | None
    epochs: tuple[EpochEarnings, ...]
    no_epochs: str | None
    neighbours: Neighbours

    def spelled(self, text: str) -> str:
        """A text of the agent with the commands in it as they act on this agent; the doctor's are so already."""
        return spelled(text, self.config)
