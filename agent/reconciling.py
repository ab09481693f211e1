"""Three-way reconciliation: what this host metered, what others signed for, and what the chain paid.

Pure. Each side knows something that the others do not; where they drift apart, work is lost or somebody errs.

1. Sides are compared over the last `EPOCHS_KEPT` epochs together: receipts and payments come late.
2. A side that is not known is left out; two at least are needed. An epoch in which a side is not known that others
   know is left out, too.
3. They disagree by (most - least) / most; below `TOKENS_MIN` tokens nothing is compared. An alarm comes above the
   tolerance, from `EPOCHS_MIN` epochs on, and names every side that is so far short of the most.

Source: METERING, "Why am I not earning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EPOCHS_KEPT = 8
EPOCHS_MIN = 3
TOKENS_MIN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Tokens of one settled epoch by each side, in the policy's units; None: not known."""

    epoch: int
    metered: int
    receipts: int | None = None
    paid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The sides' sums over `epochs`, how far they are apart (0..1), and what to do if that is too far."""

    epoch: int
    epochs: int
    metered: int
    receipts: int | None
    paid: int | None
    disagreement: float | None
    alarm: str | None

    def value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "metered": self.metered,
            "receipts": self.receipts,
            "paid": self.paid,
            "disagreement": self.disagreement,
            "alarm": self.alarm,
        }


def reconcile(books: Sequence[Books], tolerance: float) -> Reconciliation:
    """Compare the sides over the latest of `books` (at least one, ascending by epoch); `tolerance` is 0..1."""
    latest = list(books[-EPOCHS_KEPT:])
    for side in ("receipts", "paid"):
        latest = [each for each in latest if getattr(each, side) is not None] or latest
    metered = sum(each.metered for each in latest)
    receipts = _sum([each.receipts for each in latest])
    paid = _sum([each.paid for each in latest])
    known = [side for side in (metered, receipts, paid) if side is not None]
    disagreement = None
    if len(known) > 1 and max(known) >= TOKENS_MIN:
        disagreement = (max(known) - min(known)) / max(known)
    is_far = disagreement is not None and disagreement > tolerance and len(latest) >= EPOCHS_MIN
    return Reconciliation(
        epoch=latest[-1].epoch,
        epochs=len(latest),
        metered=metered,
        receipts=receipts,
        paid=paid,
        disagreement=disagreement,
        alarm=_alarm(metered, receipts, paid, tolerance) if is_far else None,
    )


def _sum(side: Sequence[int | None]) -> int | None:
    """All of one side; None if it is known of no epoch."""
    return sum(each for each in side if each is not None) if any(each is not None for each in side) else None


def _alarm(metered: int, receipts: int | None, paid: int | None, tolerance: float) -> str:
    """What is most likely, and what helps."""
    sides = {"metered here": metered, "in receipts": receipts, "paid on chain": paid}
    amounts = {name: amount for name, amount in sides.items() if amount is not None}
    said = ", ".join(f"{amount:,} {name}" for name, amount in amounts.items())
    most = max(amounts.values())
    short = [name for name, amount in amounts.items() if (most - amount) / most > tolerance]
    return f"{said}: {'; '.join(_WHY_SHORT[name] for name in short)}"


_WHY_SHORT = {
    "metered here": "the meter missed work: look at its gaps (gpupool work explain)",
    "in receipts": "work without receipts: do all gateways hand theirs in, and does nobody else use the engine?",
    "paid on chain": "work that no proxy paid for: ask it, and look whether its payments land",
}
