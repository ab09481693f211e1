"""Scores: how an epoch's work of each participant becomes its share of the pot, in integers only.

Pure. The figures come from the tally, after every cap; the strategy and its numbers (per mille) from the policy. Of
each strategy holds:

1. It is independent of the order of participants, and equals get equals.
2. No more of a figure ever lowers the own score; nobody's score is negative.
3. All scores of a pool at reputation 500 come to about `SCALE` (hybrid: times its factors); each is multiplied by
   (500 + reputation) / 1000 at the end. Below 2**128 for any figures that a leaf can hold.
4. Who has no tokens, uptime or tasks has no score.

The strategies:

* **weighted**: each figure by its share of the pool's sum of it, weighted. A figure that nobody has counts for nobody.
  Quality counts by the second of uptime: by head, a second participant with one good answer would have as much of it.
* **proportional**: tokens by their share.
* **tiered**: a base by tokens, and a bonus. Who worked is ranked by quality: the top has a whole bonus, the next
  have a half, each in proportion to its tokens (by head, one token of the best quality would buy a bonus). Whoever
  fewer than `top` of those that worked are better than is in the top: equals share a tier.
* **guaranteed minimum**: by tokens, but nobody that worked has less than a part of the average, times its reliability:
  who was there for a second has that much of it. What that takes comes from what the others have above their own
  minimum, in proportion. The minimum is one before reputation.
* **hybrid**: weighted, times a factor that goes with quality and one that goes with reliability.

Quality and reliability are 0..10000. What a figure is made of is said at `quality` and `reliability`.

Elsewhere: what counts at all (`gossip.credit`), who is looked at more closely (`gossip.audit`).

Source: PROTOCOL, "Tally"; CONTRACTS, "Rules".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.model import REPUTATION_START, Address
from gossip.policy import GuaranteedScore, HybridScore, ProportionalScore, Quality, Score, TieredScore, WeightedScore

SCALE = 10**12
"""A participant that did all the work of a pool with reputation 500 has this score."""
QUALITY_MAX = 10_000
RELIABILITY_MAX = 10_000
_MILLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one participant did in an epoch, after every cap. `quality` and `reliability` are 0..10000."""

    tokens: int = 0
    uptime_s: int = 0
    tasks: int = 0
    quality: int = 0
    reliability: int = 0
    reputation: int
    """0..1000."""


def scores(figures: Sequence[Figures], score: Score) -> list[int]:
    """Score of each participant under the policy's strategy, in the order given."""
    match score:
        case WeightedScore():
            parts = _weighted(figures, score)
        case ProportionalScore():
            parts = _shares([f.tokens for f in figures], SCALE)
        case TieredScore():
            parts = _tiered(figures, score)
        case GuaranteedScore():
            parts = _guaranteed(figures, score)
        case HybridScore():
            parts = _hybrid(figures, score)
    return [part * (REPUTATION_START + f.reputation) // _MILLE for part, f in zip(parts, figures, strict=True)]


def split(pot_nanoton: int, scored: Sequence[int]) -> list[int]:
    """The amount (nanoTON) of each score, rounded down; all zero if all scores are.

    The amounts and the dust add up to the pot exactly. The dust, less than one nanoTON a participant (the whole pot if
    nobody has a score), is in no leaf: the contract carries it into the pot of a later epoch.

    Raises:
        ValueError: the pot or a score is negative.
    """
    if pot_nanoton < 0 or any(each < 0 for each in scored):
        raise ValueError("split: a negative pot or score")
    return _shares(scored, pot_nanoton)


def require_split(pot_nanoton: int, participants: Sequence[Address], amounts: Sequence[int]) -> None:
    """Check a split, whoever made it: one amount per participant, none negative, nobody twice, none out of nothing.

    Raises:
        ValueError: it breaks one of these; a program that made it must not go on.
    """
    if len(participants) != len(amounts) or len(set(participants)) != len(participants):
        raise ValueError("split: expected one amount for each participant")
    if any(amount < 0 for amount in amounts):
        raise ValueError("split: a negative amount")
    dust = pot_nanoton - sum(amounts)
    if dust < 0 or (any(amounts) and dust >= len(amounts)):
        raise ValueError(f"split: the amounts of {len(amounts)} leave {dust} of {pot_nanoton} nanoTON")


def quality(
    *,
    tasks: int,
    failed: int | None,
    latency_p95_ms: int | None,
    steady_windows: int,
    timed_windows: int,
    targets: Quality,
) -> int:
    """Quality of an epoch's work, 0..10000: the mean of what was measured of three parts; 0 without a finished task.

    * Acceptance: 10000 if no request failed, 0 from the share of failures on that the policy tolerates at most,
      linear between. `failed` None: the source counts no failures.
    * Latency: 10000 at the target or below, then target / latency. `latency_p95_ms` None: not measured.
    * Consistency: how many of the counted windows with tasks (`timed_windows`) met both targets (`steady_windows`). A
      short outage costs more here than in a mean over the epoch, long ones less.

    A part that was not measured is left out, and is not zero: a source is not held to what it cannot tell. Where
    nothing was measured nothing was shown: 0.
    """
    if tasks == 0:
        return 0
    parts = []
    if failed is not None:
        lost = QUALITY_MAX * _MILLE * failed // ((tasks + failed) * targets.failure_max_per_mille)
        parts.append(QUALITY_MAX - min(QUALITY_MAX, lost))
    if latency_p95_ms is not None:
        parts.append(min(QUALITY_MAX, QUALITY_MAX * targets.latency_p95_target_ms // max(1, latency_p95_ms)))
    if timed_windows:
        parts.append(QUALITY_MAX * min(steady_windows, timed_windows) // timed_windows)
    return sum(parts) // len(parts) if parts else 0


def reliability(*, worked_s: int, witnessed_s: int, epoch_s: int) -> int:
    """Reliability in an epoch of `epoch_s` (at least 1) seconds, 0..10000: half of it each, at most the epoch's length.

    * Participation: how much of the epoch's length the counted windows cover, less their gaps; idle ones count.
    * Presence: how much of it operators witnessed and had not credited yet.
    """
    seconds = min(max(0, worked_s), epoch_s) + min(max(0, witnessed_s), epoch_s)
    return RELIABILITY_MAX * seconds // (2 * epoch_s)


def _shares(values: Sequence[int], whole: int) -> list[int]:
    """`whole` by the share of each value, rounded down; zeros if all values are."""
    total = sum(values)
    return [whole * value // total for value in values] if total else [0] * len(values)


def _weighted(figures: Sequence[Figures], weights: WeightedScore) -> list[int]:
    columns = [
        _shares([f.tokens for f in figures], SCALE * weights.tokens // _MILLE),
        _shares([f.uptime_s for f in figures], SCALE * weights.uptime // _MILLE),
        _shares([f.tasks for f in figures], SCALE * weights.tasks // _MILLE),
        _shares([f.quality * f.uptime_s for f in figures], SCALE * weights.quality // _MILLE),
    ]
    return [sum(row) for row in zip(*columns, strict=True)]


def _tiered(figures: Sequence[Figures], tiers: TieredScore) -> list[int]:
    base = SCALE * tiers.base // _MILLE
    ranked = sorted(f.quality for f in figures if f.tokens)
    halves = []
    for f in figures:
        better = len(ranked) - bisect_right(ranked, f.quality)
        place = better * _MILLE
        whole_up_to, half_up_to = tiers.top * len(ranked), (tiers.top + tiers.next) * len(ranked)
        halves.append(f.tokens * (2 if place < whole_up_to else 1 if place < half_up_to else 0))
    bonuses = _shares(halves, SCALE - base)
    return [sum(row) for row in zip(_shares([f.tokens for f in figures], base), bonuses, strict=True)]


def _guaranteed(figures: Sequence[Figures], rule: GuaranteedScore) -> list[int]:
    """Each has its minimum and its part of what is left, by what it has above the minimum (module docstring)."""
    worked = sum(1 for f in figures if f.tokens)
    earned = _shares([f.tokens for f in figures], SCALE)
    minima = [
        SCALE * rule.minimum * min(f.reliability, RELIABILITY_MAX) // (_MILLE * RELIABILITY_MAX * worked)
        if f.tokens
        else 0
        for f in figures
    ]
    above = [max(0, share - minimum) for share, minimum in zip(earned, minima, strict=True)]
    rest = _shares(above, SCALE - sum(minima))
    return [sum(row) for row in zip(minima, rest, strict=True)]


def _hybrid(figures: Sequence[Figures], rule: HybridScore) -> list[int]:
    weights = WeightedScore(tokens=rule.tokens, uptime=rule.uptime, tasks=rule.tasks, quality=0)
    return [
        part
        * _factor(f.quality, QUALITY_MAX, rule.quality_min, rule.quality_max)
        * _factor(f.reliability, RELIABILITY_MAX, rule.reliability_min, rule.reliability_max)
        // _MILLE**2
        for part, f in zip(_weighted(figures, weights), figures, strict=True)
    ]


def _factor(value: int, value_max: int, low: int, high: int) -> int:
    """Per mille, from `low` at 0 to `high` at `value_max`."""
    return low + (high - low) * min(value, value_max) // value_max
