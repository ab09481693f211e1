"""The voting rules of an epoch's close as a model small enough to be searched to its end.

Four operators, one of them Byzantine, one epoch, a few views. `explore` visits every state that any order of
deliveries, losses, crashes and lies can lead to, and holds each against `PROPERTIES`. A rule that is missing is
another `Rules`: the search then gives the shortest schedule that breaks a property. What is modelled:

1. Each honest operator observes once how far it holds *the* log (a leader that says the same again, with more forks
   proven, names the same head: it is no step here); the Byzantine one has two observations, which it shows to
   whom it likes: `LOW` says that it holds nothing, `HIGH` names records that only it can serve.
2. The cut of listed observations is the highest record that more than a third of the weight holds. A certificate
   is known by its cut alone: two lists that give one cut give one certificate, in whatever view.
3. Views open one after another and never close. An honest leader proposes once, listing any quorum of what it may
   have heard; the Byzantine leader proposes two things at most, true or forged.
4. A follower judges the first proposal of a view that it sees, and attests what follows from the listed observations
   once it has them. The Byzantine operator attests everything.
5. What an operator says is durable before. A crash takes from it what it has only heard.
6. More than two thirds of the weight on one cut are a certificate. The chain takes the first that anyone sends.

Loss and reordering need no step of their own. A message that was sent may reach anyone at any time later, or never:
so whoever decides does it on any part of what was sent. What an operator does, does not depend on whether the epoch
is settled already, for it may not have heard of it: so nothing but the chain moves once something has landed.

Elsewhere: the code that these rules are of (`gossip.round`, `gossip.epoch_close`, `gossip.cut`), whose thresholds and
cuts `test_voting_model` compares with those of this model. Records, forks, rotation and several epochs are not in it.

Source: PROTOCOL, "Epoch close" and "Invariants".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import NamedTuple

BYZANTINE = 3
HONEST = (0, 1, 2)
CRASHER = 0
HEADS: Mapping[int, tuple[int, ...]] = {0: (1, 2), 1: (2,), 2: (3,)}
"""How far each honest operator holds the log when it observes; who crashes may hold more when it is back."""
LOW, HIGH, FORGED = 0, 9, 8
"""Heads of the Byzantine observations; a cut that follows from no list at all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rules:
    """The rules as built. Each field is one that a test takes away. Thresholds mean "more than this share"."""

    weights: tuple[int, ...] = (1, 1, 1, 1)
    leaders: tuple[int, ...] = (BYZANTINE, 1)
    """Who leads which view; so many views are searched."""
    listed: Fraction = Fraction(2, 3)
    witness: Fraction = Fraction(1, 3)
    certificate: Fraction = Fraction(2, 3)
    contract: Fraction = Fraction(2, 3)
    recompute: bool = True
    first_of_view_only: bool = True
    durable_before_sent: bool = True
    settled_once: bool = True
    attests_once: bool = False
    """Locking: an operator that attested one cut attests no other."""
    base_landed: bool = True
    """The next epoch is built on what landed, not on what this operator attested."""

    def exceeds(self, operators: Iterable[int], share: Fraction) -> bool:
        """Whether these operators carry more than `share` of the total weight."""
        weight = sum(self.weights[operator] for operator in operators)
        return weight * share.denominator > share.numerator * sum(self.weights)

    def cut(self, listed: Iterable[Observation]) -> int:
        """The highest head that operators of more than the witness share hold (rule 2); 0 if none."""
        listed = set(listed)
        return max((h for _, h in listed if self.exceeds({o for o, g in listed if g >= h}, self.witness)), default=0)


class Observation(NamedTuple):
    operator: int
    head: int


class Proposal(NamedTuple):
    """What a follower can tell of a proposal. The list itself is of no further interest once its cut is known."""

    view: int
    cut: int
    follows: bool
    """Whether the cut is what the listed observations give."""
    hidden: bool
    """Whether `HIGH` is listed, which can be checked only once its records are served."""


class Attest(NamedTuple):
    operator: int
    view: int
    cut: int


class State(NamedTuple):
    """What was said by anyone, and what honest operators remember of it."""

    view: int = -1
    """The latest open one; -1 before the first."""
    observed: frozenset[Observation] = frozenset()
    """By honest operators; the two Byzantine ones are there from the start."""
    served: bool = False
    """Whether the records behind `HIGH` can be fetched."""
    proposals: frozenset[Proposal] = frozenset()
    attests: frozenset[Attest] = frozenset()
    """By honest operators; the Byzantine one attests everything from the start."""
    has_observed: frozenset[int] = frozenset()
    """Operators that remember to have observed."""
    has_led: frozenset[int] = frozenset()
    """Views whose honest leader remembers its proposal."""
    judged: frozenset[tuple[int, Proposal]] = frozenset()
    """(operator, the proposal of its view that it judges, or waits to judge)."""
    landed: tuple[int, ...] = ()


# ---- steps ----

Step = tuple[str, State]


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Every state that can come next, and what happened."""
    if not state.landed:
        yield from _observe(state)
        if len(state.has_observed) == len(HONEST) or state.view >= 0:
            yield from _time_and_records(state, rules)
            yield from _propose(state, rules)
            yield from _judge(state, rules)
        yield from _crash(state, rules)
    yield from _land(state, rules)


def _observe(state: State) -> Iterator[Step]:
    """In a fixed order, before the views open: whoever lists may leave out what would have come late."""
    operator = next((o for o in HONEST if o not in state.has_observed), None)
    if operator is None:
        return
    for head in HEADS[operator]:
        said = state.observed | {Observation(operator, head)}
        yield (
            f"{operator} observes {head}",
            state._replace(observed=said, has_observed=state.has_observed | {operator}),
        )


def _time_and_records(state: State, rules: Rules) -> Iterator[Step]:
    if state.view + 1 < len(rules.leaders):
        yield f"view {state.view + 1} opens", state._replace(view=state.view + 1)
    if not state.served:
        yield "the records behind HIGH are served", state._replace(served=True)


def _propose(state: State, rules: Rules) -> Iterator[Step]:
    for view in range(state.view + 1):
        leader, before = rules.leaders[view], {p for p in state.proposals if p.view == view}
        possible: Set[Proposal]
        if leader == BYZANTINE:
            true = proposals(view, state.observed, True, rules)
            possible = true | {Proposal(view, FORGED, False, False)} if len(before) < 2 else frozenset()
        elif view in state.has_led:
            continue
        else:
            possible = proposals(view, state.observed, state.served, rules)
        for made in sorted(possible - before):
            after = state._replace(proposals=state.proposals | {made})
            if leader != BYZANTINE:
                after = after._replace(has_led=state.has_led | {view}, judged=state.judged | {(leader, made)})
                after = after._replace(attests=_attested(after, leader, made, rules))
            yield f"{leader} proposes cut {made.cut} in view {view}", after


@cache
def proposals(view: int, observed: frozenset[Observation], sees_high: bool, rules: Rules) -> Set[Proposal]:
    """What may truly be proposed: one observation of each operator that is listed, and a quorum of them."""
    byzantine = [Observation(BYZANTINE, LOW), *([Observation(BYZANTINE, HIGH)] if sees_high else [])]
    known = [*observed, *byzantine]
    lists = (listed for count in range(1, 5) for listed in combinations(known, count))
    return frozenset(
        Proposal(view, rules.cut(listed), True, Observation(BYZANTINE, HIGH) in listed)
        for listed in lists
        if len({o.operator for o in listed}) == len(listed)
        and rules.exceeds((o.operator for o in listed), rules.listed)
    )


def _judge(state: State, rules: Rules) -> Iterator[Step]:
    for operator in HONEST:
        mine = {proposal for judge, proposal in state.judged if judge == operator}
        for proposal in sorted(state.proposals):
            is_second = any(p.view == proposal.view and p != proposal for p in mine)
            if is_second and rules.first_of_view_only:
                continue
            after = state._replace(judged=state.judged | {(operator, proposal)})
            after = after._replace(attests=_attested(after, operator, proposal, rules))
            if after != state:
                yield f"{operator} judges cut {proposal.cut} of view {proposal.view}", after


def _attested(state: State, operator: int, proposal: Proposal, rules: Rules) -> frozenset[Attest]:
    """The attests after this operator looked at the proposal."""
    is_locked = rules.attests_once and any(a.operator == operator and a.cut != proposal.cut for a in state.attests)
    waits = rules.recompute and proposal.hidden and not state.served
    if is_locked or waits or (rules.recompute and not proposal.follows):
        return state.attests
    return state.attests | {Attest(operator, proposal.view, proposal.cut)}


def _crash(state: State, rules: Rules) -> Iterator[Step]:
    """One honest operator ends and starts again with what is durable: its own words, and what it attested."""

    def survives(judge: int, proposal: Proposal) -> bool:
        said = Attest(CRASHER, proposal.view, proposal.cut) in state.attests or rules.leaders[proposal.view] == CRASHER
        return judge != CRASHER or (said and rules.durable_before_sent)

    after = state._replace(judged=frozenset(held for held in state.judged if survives(*held)))
    if not rules.durable_before_sent:
        led = frozenset(view for view in state.has_led if rules.leaders[view] != CRASHER)
        after = after._replace(has_observed=state.has_observed - {CRASHER}, has_led=led)
    if after != state:
        yield f"{CRASHER} crashes and starts again", after


def _land(state: State, rules: Rules) -> Iterator[Step]:
    """Anyone may send a certificate, at any time; one may have been withheld for long."""
    for cut in sorted(certificates(state.attests, rules)):
        is_taken = rules.exceeds(signers(state.attests, cut), rules.contract)
        if is_taken and cut not in state.landed and not (state.landed and rules.settled_once):
            yield f"cut {cut} lands", state._replace(landed=(*state.landed, cut))


def signers(attests: Iterable[Attest], cut: int) -> set[int]:
    """Who signed for this cut; the Byzantine operator always."""
    return {BYZANTINE} | {attest.operator for attest in attests if attest.cut == cut}


@cache
def certificates(attests: frozenset[Attest], rules: Rules) -> Set[int]:
    """Cuts for which an operator would send a certificate."""
    cuts = {attest.cut for attest in attests} | {FORGED}
    return frozenset(cut for cut in cuts if rules.exceeds(signers(attests, cut), rules.certificate))


# ---- properties: each says what is wrong, or None ----


def one_settlement(state: State, rules: Rules) -> str | None:
    return f"cuts {state.landed} landed for one epoch" if len(state.landed) > 1 else None


def honest_weight(state: State, rules: Rules) -> str | None:
    """More than a third of the weight that signed, and so keeps what stands behind it, is honest."""
    for cut in certificates(state.attests, rules):
        if not rules.exceeds(signers(state.attests, cut) - {BYZANTINE}, Fraction(1, 3)):
            return f"the certificate of cut {cut} has too little honest weight"
    return None


def contract_takes_certificates(state: State, rules: Rules) -> str | None:
    for cut in certificates(state.attests, rules):
        if not rules.exceeds(signers(state.attests, cut), rules.contract):
            return f"the contract refuses the certificate of cut {cut}"
    return None


def one_word_each(state: State, rules: Rules) -> str | None:
    """An honest operator observes once, proposes once in a view, attests one certificate of a view."""
    said: list[tuple[str, object]] = [("observation", o.operator) for o in state.observed]
    said += [("proposal", p.view) for p in state.proposals if rules.leaders[p.view] != BYZANTINE]
    said += [("attest", (a.operator, a.view)) for a in state.attests]
    twice = sorted(str(word) for word in set(said) if said.count(word) > 1)
    return f"said twice: {', '.join(twice)}" if twice else None


def attested_what_follows(state: State, rules: Rules) -> str | None:
    """Every honest attest, and so all that lands, is of a proposal whose cut follows from what it lists."""
    follows = {(p.view, p.cut) for p in state.proposals if p.follows}
    false = [a for a in state.attests if (a.view, a.cut) not in follows]
    return f"{false[0].operator} attested cut {false[0].cut}, which follows from nothing" if false else None


def nothing_lost_or_invented(state: State, rules: Rules) -> str | None:
    """A certificate counts what every honest operator held, and nothing that none of them held."""
    heads = [observation.head for observation in state.observed]
    for cut in certificates(state.attests, rules):
        if not min(heads) <= cut <= max(heads):
            return f"a certificate of cut {cut}, but the honest operators held {sorted(heads)}"
    return None


def no_dead_end(state: State, rules: Rules) -> str | None:
    """With the honest operators alone, all of them up and everything delivered, it goes on from here.

    Unsettled: the next honest leader lists what the honest ones observed, and their attests are a certificate.
    Settled: those that build on what landed carry enough weight to list one another in the next epoch.
    """
    if state.landed:
        bases = dict.fromkeys(HONEST, state.landed[0])
        if not rules.base_landed:
            bases |= {a.operator: a.cut for a in sorted(state.attests)}
        together = [operator for operator in HONEST if bases[operator] == state.landed[0]]
        return None if rules.exceeds(together, rules.listed) else "too few build on what landed"
    observed: dict[int, Observation] = {o.operator: o for o in sorted(state.observed, reverse=True)}
    listed = [observed.get(operator, Observation(operator, HEADS[operator][0])) for operator in HONEST]
    if not rules.exceeds(HONEST, rules.listed):
        return "the honest operators cannot even propose"
    proposal = Proposal(len(rules.leaders), rules.cut(listed), True, False)
    for operator in HONEST:
        state = state._replace(attests=_attested(state, operator, proposal, rules))
    willing = {a.operator for a in state.attests if a.cut == proposal.cut}
    return None if rules.exceeds(willing, rules.contract) else "the honest operators alone make no certificate"


Property = Callable[[State, Rules], "str | None"]

PROPERTIES: tuple[Property, ...] = (
    one_settlement,
    honest_weight,
    contract_takes_certificates,
    one_word_each,
    attested_what_follows,
    nothing_lost_or_invented,
    no_dead_end,
)


# ---- the search ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What a search found. `schedule` leads to the violation, which is the nearest one; empty without any."""

    states: int
    certificates_most: int
    """The most valid certificates of different cuts in one state."""
    landed: frozenset[int]
    violation: tuple[Property, str] | None = None
    schedule: tuple[str, ...] = ()


def explore(rules: Rules, properties: tuple[Property, ...] = PROPERTIES) -> Explored:
    """Visit every reachable state, the nearest first; stop at the first one that violates a property."""
    start = State()
    came: dict[State, tuple[str, State] | None] = {start: None}
    queue, most, landed = [start], 0, set[int]()
    for state in queue:
        most = max(most, len(certificates(state.attests, rules)))
        landed.update(state.landed)
        for held in properties:
            wrong = held(state, rules)
            if wrong is not None:
                return Explored(
                    states=len(came),
                    certificates_most=most,
                    landed=frozenset(landed),
                    violation=(held, wrong),
                    schedule=_schedule(state, came),
                )
        for label, after in steps(state, rules):
            if after not in came:
                came[after] = (label, state)
                queue.append(after)
    return Explored(states=len(came), certificates_most=most, landed=frozenset(landed))


def _schedule(state: State, came: Mapping[State, tuple[str, State] | None]) -> tuple[str, ...]:
    labels = []
    before = came[state]
    while before is not None:
        labels.append(before[0])
        before = came[before[1]]
    return tuple(reversed(labels))
