"""What the random steps share: the pool in which they are taken, its parameters, and the dice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from contracts import proof
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    Address,
    EpochTerms,
    Leaf,
    OperatorSet,
    PoolParams,
    StakeRules,
)
from tests.contracts.pool_scene import (
    ANYONE,
    GUARDIAN,
    PARTICIPANTS,
    POLICY,
    Scene,
    Sent,
    account,
)

MIN_STAKE = 10 * NANO
PARAMS = PoolParams(
    terms=EpochTerms(fee_bps=500, policy_hash=POLICY, max_refund_nanoton=NANO // 2, auto_distribute=True),
    rules=StakeRules(min_stake_nanoton=MIN_STAKE, withdrawal_delay_s=DAY_S),
    max_participants=8,
    parameter_delay_s=HOUR_S,
    upgrade_delay_s=7 * DAY_S,
    emergency=True,
    guardian=GUARDIAN,
)
STRANGER = account("stranger")


@dataclass
class World:
    """The pool, the dice of this step, and what somebody remembers of the steps before."""

    scene: Scene
    rng: Random = field(default_factory=Random)
    landed: list[tuple[int, tuple[Leaf, ...]]] = field(default_factory=list)
    """Epoch and leaves of every settlement."""
    proposed_set: OperatorSet | None = None
    commanded: bool = False

    def often(self, percent: int = 90) -> bool:
        return self.rng.randrange(100) < percent

    def anyone(self) -> Address:
        return self.rng.choice([*PARTICIPANTS, ANYONE, STRANGER])

    def member(self) -> Address:
        """Mostly an owner with an entry."""
        entries = self.scene.registry_state().participants
        return self.rng.choice(entries).address if entries and self.often() else self.rng.choice(PARTICIPANTS)

    def around(self, *amounts: int) -> int:
        """One of these amounts, or one beside it."""
        return max(0, self.rng.choice(amounts) + self.rng.choice((0, 0, 0, 0, -1, 1)))

    def tree(self) -> tuple[int, proof.TotalsTree, tuple[Leaf, ...]] | None:
        """One of the last few settlements that had leaves."""
        settled = [(epoch, leaves) for epoch, leaves in self.landed if leaves][-3:]
        if not settled:
            return None
        epoch, leaves = self.rng.choice(settled)
        return epoch, proof.totals_tree(leaves), leaves


Action = Callable[[World], Sent | None]
Actions = list[tuple[int, Action]]
"""With weights: how often each is drawn, compared with the others."""


def adding_to(actions: Actions) -> Callable[[int], Callable[[Action], Action]]:
    """A decorator that puts an action on this list with a weight."""

    def action(weight: int) -> Callable[[Action], Action]:
        def add(function: Action) -> Action:
            actions.append((weight, function))
            return function

        return add

    return action
