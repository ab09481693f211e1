"""Audit flags: whose work the operators look at more closely. They never change what anybody earns.

Pure, in integers, independent of the order of participants. Compared are those that have tokens in the epoch.

1. OUTLIER: in one of these figures the participant is farther from the pool's median than the policy's number of
   median absolute deviations:
   * tokens per second of uptime (inflated counters, or a GPU that it does not say);
   * tasks per second of uptime;
   * tasks per million tokens (tokens without requests behind them, or requests that were invented);
   * quality.
   The deviation counts as at least one hundredth of the median: in a pool of like machines, in which it is next to
   zero, rounding makes nobody an outlier. A figure whose median is zero is not compared, nor is anything among fewer
   than `COMPARED_MIN`: too few say nothing of what is usual.
2. PICKED: drawn in an order that the cut's hash gives, the first `picks`. The draw needs no comparison, so it also
   finds whoever cheats exactly as much as everybody else.

Why this measure: half of a pool can report anything without moving median or deviation beyond what honest ones
report; a mean and a standard deviation are moved by a single liar. It finds who stands out, not who lies: a faster GPU
stands out as well, and where most of a pool inflate alike the honest do.

What the draw is worth: nobody knows the cut's hash before the logs of all are observed, but whoever makes the last
record of the cut, or leads the close, can try a few. So a pick is an auditor's to-do list, not a lottery for money.

Source: PROTOCOL, "Tally" (outliers); F. R. Hampel, "The influence curve and its role in robust estimation" (1974).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntFlag

from contracts.model import Address
from contracts.permutation import permutation
from gossip.policy import Audit
from gossip.score import Figures

COMPARED_MIN = 5
_SEED_TAG = b"gpupool/audit/1"
_FLOOR = 100
"""The deviation counts as at least this part of the median."""


class Flag(IntFlag):
    """Bits of a leaf's `flags` (8 bits)."""

    OUTLIER = 1
    PICKED = 2


def flags(figures: Sequence[Figures], addresses: Sequence[Address], audit: Audit, seed: bytes) -> list[int]:
    """The flags of each participant, in the order given. `seed` is the cut's hash (32 bytes)."""
    outliers = _outliers(figures, audit.outlier_mads)
    picked = _picked([a for a, f in zip(addresses, figures, strict=True) if f.tokens], audit.picks, seed)
    return [
        int(Flag.OUTLIER if i in outliers else 0) | int(Flag.PICKED if address in picked else 0)
        for i, address in enumerate(addresses)
    ]


def _outliers(figures: Sequence[Figures], mads: int) -> set[int]:
    compared = [i for i, f in enumerate(figures) if f.tokens]
    if len(compared) < COMPARED_MIN:
        return set()
    columns = [
        [1000 * figures[i].tokens // max(1, figures[i].uptime_s) for i in compared],
        [10**6 * figures[i].tasks // max(1, figures[i].uptime_s) for i in compared],
        [10**6 * figures[i].tasks // figures[i].tokens for i in compared],
        [figures[i].quality for i in compared],
    ]
    return {compared[k] for column in columns for k in far_off(column, mads)}


def far_off(values: Sequence[int], mads: int) -> set[int]:
    """Places of the values (at least one) that are farther from the median than `mads` deviations (rule 1)."""
    doubled = _doubled_median(values)
    if doubled == 0:
        return set()
    distances = [abs(2 * value - doubled) for value in values]
    # Of the median twice, of the distances 2x, of their median 4x: both sides below are 4 x _FLOOR of the figure.
    deviation = max(_FLOOR * _doubled_median(distances), 2 * doubled)
    return {i for i, distance in enumerate(distances) if 2 * _FLOOR * distance > mads * deviation}


def _doubled_median(values: Sequence[int]) -> int:
    """The sum of the two middle values, or twice the middle one: an integer in any case."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]


def _picked(addresses: Sequence[Address], picks: int, seed: bytes) -> set[Address]:
    ordered = sorted(addresses)
    order = permutation(hashlib.sha256(_SEED_TAG + seed).digest(), len(ordered))
    return {ordered[place] for place in order[:picks]}
