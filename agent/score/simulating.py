"""What each score strategy would have paid for an epoch that settled, from the settlement's own leaves.

Pure. The figures are those that were credited under the pool's policy: another strategy, had it been in force, would
have been worth other behaviour. Two things a settlement does not hold:

* the pot: it is what the epoch paid altogether, at least (the dust, under one nanoTON a participant, is not seen);
* reliability: it is taken as uptime over the epoch's length, which it is at least; the epoch's length, unless given, is
  the longest time that operators witnessed anybody in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.model import Address, Leaf
from gossip.policy import GuaranteedScore, HybridScore, ProportionalScore, Score, TieredScore, WeightedScore
from gossip.score import Figures, reliability, scores, split
from gossip.settlement import Base, Settlement

STRATEGIES: Mapping[str, Score] = {
    "weighted": WeightedScore(tokens=500, uptime=200, tasks=200, quality=100),
    "proportional": ProportionalScore(),
    "tiered": TieredScore(base=850, top=500, next=300),
    "guaranteed-minimum": GuaranteedScore(minimum=500),
    "hybrid": HybridScore(
        tokens=700,
        uptime=200,
        tasks=100,
        quality_min=500,
        quality_max=1500,
        reliability_min=800,
        reliability_max=1200,
    ),
}
"""The strategies by their names in a policy, with the parameters that are taken where no policy says others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One participant: what the settlement credited and paid, and what each strategy would have paid."""

    leaf: Leaf
    reliability: int
    settled_nanoton: int
    amounts_nanoton: Mapping[str, int]

    @property
    def participant(self) -> Address:
        return self.leaf.participant


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """All participants with a part in the epoch: who was paid most comes first."""

    epoch: int
    pot_nanoton: int
    epoch_s: int
    rows: tuple[Row, ...]


def simulate(
    settlement: Settlement,
    before: Base,
    strategies: Mapping[str, Score],
    *,
    pot_nanoton: int | None = None,
    epoch_s: int | None = None,
) -> Simulation:
    """Have each of the strategies split the pot of the epoch that `settlement` settled on top of `before`.

    `pot_nanoton` is any pot instead of the epoch's own, `epoch_s` (at least 1) its length if it is known.
    """
    paid = {
        leaf.participant: leaf.earned_nanoton - before.earned_nanoton.get(leaf.participant, 0)
        for leaf in settlement.leaves
    }
    pot = sum(paid.values()) if pot_nanoton is None else pot_nanoton
    length_s = _watched_s(settlement, before) if epoch_s is None else epoch_s
    leaves = [leaf for leaf in settlement.leaves if paid[leaf.participant] or leaf.score or leaf.uptime_s]
    figures = [_figures(leaf, length_s) for leaf in leaves]
    columns = {name: split(pot, scores(figures, strategy)) for name, strategy in strategies.items()}
    rows = [
        Row(
            leaf=leaf,
            reliability=figure.reliability,
            settled_nanoton=paid[leaf.participant],
            amounts_nanoton={name: amounts[i] for name, amounts in columns.items()},
        )
        for i, (leaf, figure) in enumerate(zip(leaves, figures, strict=True))
    ]
    return Simulation(
        epoch=settlement.payload.epoch,
        pot_nanoton=pot,
        epoch_s=length_s,
        rows=tuple(sorted(rows, key=lambda row: (-row.settled_nanoton, row.participant))),
    )


def _figures(leaf: Leaf, epoch_s: int) -> Figures:
    return Figures(
        tokens=leaf.tokens,
        uptime_s=leaf.uptime_s,
        tasks=leaf.tasks,
        quality=leaf.quality,
        reliability=reliability(worked_s=leaf.uptime_s, witnessed_s=leaf.uptime_s, epoch_s=epoch_s),
        reputation=leaf.reputation,
    )


def _watched_s(settlement: Settlement, before: Base) -> int:
    """The longest time that anybody was witnessed since `before`; 1 at least."""
    seen = [reading.witnessed_s - before.reading(key).witnessed_s for key, reading in settlement.readings.items()]
    return max(1, *seen, *(leaf.uptime_s for leaf in settlement.leaves)) if seen else 1
