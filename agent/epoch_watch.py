"""Watching an epoch close: when each step was reached, and one line that says what came of it.

Looks at what the machine and the chain show; decides nothing. A step between two looks counts from the second one.

Source: PROTOCOL, "Epoch close"; the steps are those of an operator, in their order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import StrEnum

from agent.metrics.registry import Metrics
from agent.screens import ton
from contracts.model import Address, Landed, Leaf
from gossip.epoch_events import Progress
from gossip.settlement import Settlement

log = logging.getLogger(__name__)


class Step(StrEnum):
    OBSERVED = "observed"
    """This node said how far it holds the logs."""
    PROPOSED = "proposed"
    """It holds a proposal, its own or another's."""
    ATTESTED = "attested"
    """It signed the totals."""
    CERTIFIED = "certified"
    """It holds signatures of more than two thirds of the weight."""
    LANDED = "landed"
    """The chain shows the epoch settled."""


@dataclass(slots=True)
class _Closing:
    """What was seen of one epoch's close; `reached` is in Unix seconds."""

    epoch: int
    end_s: int
    progress: Progress
    reached: dict[Step, int] = field(default_factory=dict)


class EpochWatch:
    """The closes of one agent's pool, one after another."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._closing: _Closing | None = None
        self._earned: dict[int, int] = {}
        """By epoch, the last one alone: what this node had earned with it in all, in nanoTON."""

    def look(self, progress: Progress | None, end_s: int, now_s: int) -> None:
        """Note what has been reached of the open epoch, which ended at `end_s`."""
        if progress is None:
            return
        if self._closing is None or self._closing.epoch != progress.epoch:
            self._closing = _Closing(progress.epoch, end_s, progress)
        self._closing.progress = progress
        steps = {
            Step.OBSERVED: progress.has_observed,
            Step.PROPOSED: progress.proposals > 0,
            Step.ATTESTED: progress.has_attested,
            Step.CERTIFIED: progress.certified,
        }
        for step, is_reached in steps.items():
            if is_reached:
                self._closing.reached.setdefault(step, now_s)

    def settled(self, settlement: Settlement, landed: Landed, own: Address | None) -> None:
        """Tell people and metrics what came of an epoch; `own` is this node's address in the registry, if any."""
        payload = settlement.payload
        leaf = next((leaf for leaf in settlement.leaves if leaf.participant == own), None)
        closing = self._closing if self._closing is not None and self._closing.epoch == payload.epoch else None
        if closing is not None and landed.epoch == payload.epoch:
            closing.reached[Step.LANDED] = landed.settled_s
            # A step is noted when it is looked for, which may be after the landing.
            closing.reached = {step: min(at_s, landed.settled_s) for step, at_s in closing.reached.items()}
        self._metrics.settled_epoch.set(payload.epoch)
        if landed.epoch == payload.epoch:
            self._metrics.settled_time.set(landed.settled_s)
        log.info(
            "epoch %d settled%s: %d participants, %d tokens, %d tasks; %s; root %s",
            payload.epoch,
            self._course(closing),
            payload.count,
            payload.tokens,
            payload.tasks,
            self._own_text(payload.epoch, leaf, payload.total_score),
            payload.totals_root.hex()[:16],
        )
        self._earned = {payload.epoch: leaf.earned_nanoton} if leaf is not None else {}

    def _course(self, closing: _Closing | None) -> str:
        """How the close went, for the line and the metrics; nothing of an epoch that others closed."""
        if closing is None:
            return ""
        lags = {step: max(0, reached_s - closing.end_s) for step, reached_s in closing.reached.items()}
        for step in Step:
            if step in lags:
                self._metrics.close_step.set(step, lags[step])
        progress = closing.progress
        if Step.LANDED in lags:
            self._metrics.certificate_lag.set(lags[Step.LANDED])
        steps = ", ".join(f"{step} +{lags[step]} s" for step in Step if step in lags)
        view = "" if progress.view is None else f" in view {progress.view}"
        return f"{view} ({steps}; {progress.observations} of {progress.operators} operators observed)"

    def _own_text(self, epoch: int, leaf: Leaf | None, total_score: int) -> str:
        if leaf is None:
            return "this node has no part in it"
        if not leaf.score:
            return f"nothing of this node's counted in it; {ton(leaf.earned_nanoton)} in all"
        before = self._earned.get(epoch - 1)
        earned = "" if before is None else f"{ton(leaf.earned_nanoton - before)} earned, "
        share = 100 * leaf.score / total_score if total_score else 0.0
        return f"{earned}{ton(leaf.earned_nanoton)} in all, share {share:.1f} %, uptime {leaf.uptime_s} s"
