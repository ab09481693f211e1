"""Scores: how an epoch's work of each participant becomes its share, in integers only.

The default strategy, "weighted": each figure counts by its share of the pool's sum of that figure,
weighted per mille (tokens 500, uptime 200, tasks 200, quality 100 by default), and the result is
multiplied by (500 + reputation) / 1000. Independent of the order of participants.

Source: PROTOCOL, "Tally"; CONTRACTS, "Rules".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.model import QUALITY_MAX
from gossip.policy import Quality, Score

SCALE = 10**12
"""A participant that did all the work of a pool with reputation 500 has this score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one participant did in an epoch, after every cap."""

    tokens: int = 0
    uptime_s: int = 0
    tasks: int = 0
    quality: int = 0
    reputation: int


def weighted_scores(figures: Sequence[Figures], weights: Score) -> list[int]:
    """Score of each participant, in the order given."""
    parts = [
        (weights.tokens, [f.tokens for f in figures]),
        (weights.uptime, [f.uptime_s for f in figures]),
        (weights.tasks, [f.tasks for f in figures]),
        (weights.quality, [f.quality for f in figures]),
    ]
    parts = [(weight, values) for weight, values in parts if sum(values)]
    return [
        sum(weight * SCALE * values[i] // (1000 * sum(values)) for weight, values in parts)
        * (500 + f.reputation)
        // 1000
        for i, f in enumerate(figures)
    ]


def quality(*, tasks: int, failed: int, latency_p95_ms: int | None, targets: Quality) -> int:
    """Quality of an epoch's work, 0..1000: half failures, half latency; 0 without any finished task.

    A source that measures no latency is judged by its failures alone.
    """
    if tasks == 0:
        return 0
    failed_per_mille = 1000 * failed // (tasks + failed)
    reliable = QUALITY_MAX - min(QUALITY_MAX, QUALITY_MAX * failed_per_mille // targets.failure_max_per_mille)
    if latency_p95_ms is None:
        return reliable
    swift = min(QUALITY_MAX, QUALITY_MAX * targets.latency_p95_target_ms // max(1, latency_p95_ms))
    return (reliable + swift) // 2
