"""What one seed means: who takes part, who is hostile, what breaks, when it ends.

A plan is drawn before anything runs, so that a failing seed can be read. Until `heal_s` anything may be lost, cut
off, killed or late; from then on the network, the chain, the clocks and the disks of the honest work, and what
PROTOCOL promises must come about. Hostile agents never stop.

Source: PROTOCOL, "Failures that must be tested".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from pool_fixture import operator_set

from contracts.model import OperatorSet
from tests.sim.chain import key
from tests.sim.working import CEILINGS

AHEAD_S = 600
"""How far a clock that is wrong may be off, either way."""


class Vice(Enum):
    """What a hostile agent does; each has some of them."""

    SILENT = "silent"
    WITHHOLD = "withhold"
    """Speaks to some peers only, others every time."""
    HOARD = "hoard"
    """Shows its new records to nobody who does not ask for them."""
    FORK = "fork"
    """Signs several records for one number, now and for numbers long past."""
    LIE = "lie"
    """Observes heads and seconds that are not so."""
    EQUIVOCATE = "equivocate"
    """Tells every peer another observation, another proposal."""
    FALSE_ROOT = "false root"
    """Proposes and signs totals that pay itself."""
    CONSENT = "consent"
    """Attests every proposal that it hears of."""
    FORGE = "forge"
    """Sends what is malformed, badly signed or signed for others."""
    HOLD_BACK = "hold back"
    """Submits certificates late, twice, or without their quorum."""
    RECEIPTS = "receipts"
    """Writes down receipts of itself, or that it wrote down before, and shows records with some that do not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """From `from_s` to `until_s` nothing gets from an agent of `senders` to one of `receivers`."""

    from_s: int
    until_s: int
    senders: frozenset[int]
    receivers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """This agent does not reach the chain from `from_s` to `until_s`."""

    agent: int
    from_s: int
    until_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Times are seconds since its start; shares are probabilities."""

    seed: int
    agents: int
    operators: OperatorSet
    ceiling: str = "none"
    """Of the policy: whose word besides the participant's own is asked for."""
    rotation: tuple[int, OperatorSet] | None = None
    join_s: int = 0
    """When the last agent registers, if it is no operator."""
    heal_s: int = 0
    loss: float = 0.0
    gossip_loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 200
    crash: float = 0.0
    """Before each effect of an honest agent."""
    blackouts_s: tuple[int, ...] = ()
    """When all honest agents are killed at once."""
    transaction_loss: float = 0.0
    partitions: tuple[Partition, ...] = ()
    outages: tuple[Outage, ...] = ()
    skew_s: Mapping[int, int] = field(default_factory=dict)
    hostile: Mapping[int, frozenset[Vice]] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[OperatorSet, ...]:
        return (self.operators,) if self.rotation is None else (self.operators, self.rotation[1])

    @property
    def is_within_f(self) -> bool:
        """Whether the hostile ones, and those whose clock runs far ahead, carry less than a third of each set."""
        faulty = {*self.hostile, *(i for i, skew in self.skew_s.items() if skew == AHEAD_S)}
        return all(not carries_third(operators, faulty) for operators in self.sets)


def weight_of(operators: OperatorSet, agents: set[int]) -> int:
    """Weight of these agents in the set."""
    keys = {key(i).public for i in agents}
    return sum(operator.weight for operator in operators.operators if operator.node_key in keys)


def carries_third(operators: OperatorSet, agents: set[int]) -> bool:
    return 3 * weight_of(operators, agents) >= operators.total_weight


def draw_plan(rng: Random, seed: int) -> Plan:
    """Draw the plan of a seed."""
    n = rng.choice((4, 4, 4, 4, 5, 7))
    agents = n + rng.choice((0, 1, 1, 2))
    weights = [rng.randint(1, 3) for _ in range(n)] if rng.random() < 0.2 else [1] * n
    operators = operator_set(n, weights)
    rotation = None
    if agents > n and rng.random() < 0.5:
        rotation = (rng.randint(20, 220), operator_set(n, weights, set_id=2, first=1))
    sets = (operators,) if rotation is None else (operators, rotation[1])
    join_s = rng.randint(1, 250) if agents > n + len(sets) - 1 and rng.random() < 0.5 else 0
    hostile = _draw_hostile(rng, agents, sets)
    ceiling = rng.choice(("none", *CEILINGS))
    if rng.random() < 0.1:
        return Plan(seed=seed, agents=agents, operators=operators, ceiling=ceiling, rotation=rotation, hostile=hostile)
    heal_s = rng.randint(60, 330)
    streams_only = rng.random() < 0.1
    return Plan(
        seed=seed,
        agents=agents,
        operators=operators,
        ceiling=ceiling,
        rotation=rotation,
        join_s=join_s,
        heal_s=heal_s,
        loss=rng.choice((0.0, 0.05, 0.2, 0.5)),
        gossip_loss=1.0 if streams_only else 0.0,
        duplication=rng.choice((0.0, 0.1)),
        delay_ms_max=rng.choice((100, 1000, 8000)),
        crash=rng.choice((0.0, 0.0, 0.005, 0.02)),
        blackouts_s=tuple(rng.randrange(heal_s) for _ in range(rng.choice((0, 0, 0, 0, 1, 3)))),
        transaction_loss=rng.choice((0.0, 0.3, 0.7)),
        partitions=_draw_partitions(rng, agents, heal_s),
        outages=tuple(
            Outage(agent=rng.randrange(agents), from_s=start, until_s=start + rng.randint(10, 200))
            for start in (rng.randrange(heal_s) for _ in range(rng.choice((0, 0, 1, 3))))
        ),
        skew_s=_draw_skew(rng, agents, sets, hostile),
        hostile=hostile,
    )


def _draw_hostile(rng: Random, agents: int, sets: tuple[OperatorSet, ...]) -> dict[int, frozenset[Vice]]:
    """Nobody, some below a third of the weight, or some more than that but no quorum."""
    mode = rng.random()
    hostile: set[int] = set()
    for i in rng.sample(range(agents), agents):
        more = hostile | {i}
        if mode < 0.3 or (mode < 0.8 and any(carries_third(operators, more) for operators in sets)):
            continue
        if any(operators.is_quorum(weight_of(operators, more)) for operators in sets):
            continue
        hostile = more
        if mode >= 0.8 and any(carries_third(operators, hostile) for operators in sets):
            break
    vices = list(Vice)
    drawn = {}
    for i in sorted(hostile):
        loud = rng.sample(vices[1:], rng.randint(2, 6))
        drawn[i] = frozenset({Vice.SILENT} if rng.random() < 0.15 else loud)
    return drawn


def _draw_partitions(rng: Random, agents: int, heal_s: int) -> tuple[Partition, ...]:
    drawn: list[Partition] = []
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        order = rng.sample(range(agents), agents)
        middle = rng.choice((1, agents // 2, agents // 3 or 1))
        here, there = frozenset(order[:middle]), frozenset(order[middle:])
        from_s = rng.randrange(heal_s)
        until_s = from_s + rng.choice((5, 30, 120, 400))
        drawn.append(Partition(from_s=from_s, until_s=until_s, senders=here, receivers=there))
        if rng.random() < 0.6:
            drawn.append(Partition(from_s=from_s, until_s=until_s, senders=there, receivers=here))
    return tuple(drawn)


def _draw_skew(
    rng: Random, agents: int, sets: tuple[OperatorSet, ...], hostile: Mapping[int, frozenset[Vice]]
) -> dict[int, int]:
    skew = {i: rng.randint(-2, 2) for i in range(agents)}
    if rng.random() < 0.2:
        skew[rng.randrange(agents)] = -AHEAD_S
    ahead = rng.randrange(agents)
    if rng.random() < 0.15 and not any(carries_third(operators, {*hostile, ahead}) for operators in sets):
        skew[ahead] = AHEAD_S
    return skew


def draw_plan_of(seed: int) -> Plan:
    """The plan of a seed, as a run of it draws it first."""
    return draw_plan(Random(seed), seed)
