"""From the ledger's rows to what each epoch brought. Pure.

1. Earned in an epoch is the pot times the share; where the pot is not known here, what the cumulative amount grew by
   since the epoch before; where that one is not known either, neither is this.
2. Claimed is what the chain had ever paid by the time that the next epoch settled; unclaimed is the rest.
3. What was earned in epochs that this node did not see is in the cumulative amount, and in no line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.earnings.reasons import lost_time, why_less
from agent.ledger_rows import EpochRow, PaidRow
from gossip.score import split

CHECKPOINT_REASON = "taken from other nodes: how it was counted is not known here"
RESTART_REASON = "how it was counted is not known since a restart"
UNREGISTERED_REASON = "this node key was not registered"
NOTHING_REASON = "the operators saw nothing of this node's, or it was suspended or inactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEarnings:
    """One epoch. Amounts in nanoTON, ever for `cumulative`, `claimed` and `unclaimed`; None: not known, not zero.

    `metered_tokens` are those of all windows of the cut, whether they counted or not.
    """

    epoch: int
    end_s: int | None
    settled_s: int | None
    metered_tokens: int | None
    credited_tokens: int
    uptime_s: int
    tasks: int
    reasons: tuple[str, ...]
    score: int
    total_score: int
    pot_nanoton: int | None
    earned_nanoton: int | None
    cumulative_nanoton: int
    claimed_nanoton: int | None
    unclaimed_nanoton: int | None
    flags: int

    @property
    def share(self) -> float:
        """Of the pot, 0 to 1."""
        return self.score / self.total_score if self.total_score else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of the epochs shown; the last three amounts are as of the last one.

    `metered_unknown` and `earned_unknown` are how many epochs a sum lacks; it is None if it lacks all of them.
    """

    epochs: int
    metered_tokens: int | None
    metered_unknown: int
    credited_tokens: int
    earned_nanoton: int | None
    earned_unknown: int
    cumulative_nanoton: int
    claimed_nanoton: int | None
    unclaimed_nanoton: int | None


def earnings(
    rows: Sequence[EpochRow], paid: Sequence[PaidRow], first: int | None = None, last: int | None = None
) -> list[EpochEarnings]:
    """What each of the epochs `first` to `last` (None: no bound) brought; `rows` ascend by epoch, `paid` as seen."""
    before = [None, *rows]
    return [
        _epoch(row, previous, paid)
        for previous, row in zip(before, rows, strict=False)
        if (first is None or row.epoch >= first) and (last is None or row.epoch <= last)
    ]


def totals(lines: Sequence[EpochEarnings]) -> Totals:
    """The sums of at least one epoch, over those of which it is known."""
    metered = [line.metered_tokens for line in lines if line.metered_tokens is not None]
    earned = [line.earned_nanoton for line in lines if line.earned_nanoton is not None]
    return Totals(
        epochs=len(lines),
        metered_tokens=sum(metered) if metered else None,
        metered_unknown=len(lines) - len(metered),
        credited_tokens=sum(line.credited_tokens for line in lines),
        earned_nanoton=sum(earned) if earned else None,
        earned_unknown=len(lines) - len(earned),
        cumulative_nanoton=lines[-1].cumulative_nanoton,
        claimed_nanoton=lines[-1].claimed_nanoton,
        unclaimed_nanoton=lines[-1].unclaimed_nanoton,
    )


def _epoch(row: EpochRow, previous: EpochRow | None, paid: Sequence[PaidRow]) -> EpochEarnings:
    credit = row.credit
    claimed = next((p.paid_nanoton for p in reversed(paid) if p.epoch <= row.epoch and p.account == row.account), None)
    return EpochEarnings(
        epoch=row.epoch,
        end_s=row.end_s,
        settled_s=row.settled_s,
        metered_tokens=None if credit is None else credit.metered_tokens + credit.uncovered_tokens,
        credited_tokens=row.tokens,
        uptime_s=row.uptime_s,
        tasks=row.tasks,
        reasons=reasons_of(row),
        score=row.score,
        total_score=row.total_score,
        pot_nanoton=row.pot_nanoton,
        earned_nanoton=_earned(row, previous),
        cumulative_nanoton=row.cumulative_nanoton,
        claimed_nanoton=claimed,
        unclaimed_nanoton=None if claimed is None else max(0, row.cumulative_nanoton - claimed),
        flags=row.flags,
    )


def _earned(row: EpochRow, previous: EpochRow | None) -> int | None:
    if row.pot_nanoton is not None and 0 <= row.score <= row.total_score > 0:
        return split(row.pot_nanoton, [row.score, row.total_score - row.score])[0]
    if row.epoch == 1 or row.total_score == 0:
        return row.cumulative_nanoton if row.total_score else 0
    if previous is None or previous.epoch != row.epoch - 1 or previous.account != row.account:
        return None
    return row.cumulative_nanoton - previous.cumulative_nanoton


def reasons_of(row: EpochRow) -> tuple[str, ...]:
    """Why less was credited than was metered, and which time was lost; or why it is not known. Empty: all counted."""
    if row.credit is not None:
        lost = None if row.epoch_s is None else lost_time(row.credit, row.epoch_s)
        return (*why_less(row.credit), *(() if lost is None else (lost,)))
    if row.account is None:
        return (UNREGISTERED_REASON,)
    if row.is_computed:
        return (NOTHING_REASON,)
    return (RESTART_REASON if row.is_recalled else CHECKPOINT_REASON,)
