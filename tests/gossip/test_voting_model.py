"""The voting rules searched to the end: what holds in every state, and which rule each property hangs on."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product

import pytest
from pool_fixture import POOL, Agent, Author, Pool, fill, key, log_book, operator_set, policy, write_work

from gossip.cut import compute_cut
from gossip.epoch_events import Action, Event, Message, Persist, Publish, Settled, maker_of
from gossip.log_chain import GENESIS, Head
from gossip.messages import Attest, Observation, ObservedLog, make_observation
from gossip.settlement import Base, Settlement
from tests.gossip import voting_model as model
from tests.gossip.voting_model import BYZANTINE, FORGED, HEADS, HIGH, LOW, Property, Rules, explore

JUST_BELOW = Fraction(1, 1000)
UNEVEN = (2, 1, 2, 1)


@pytest.mark.parametrize(
    ("rules", "states_min"),
    [
        pytest.param(Rules(), 40_000, id="the Byzantine operator leads first"),
        pytest.param(Rules(leaders=(0, 1, 2)), 20_000, id="honest leaders, three views"),
        pytest.param(Rules(weights=UNEVEN), 12_000, id="uneven weights"),
    ],
)
def test_every_property_holds_in_every_state(rules: Rules, states_min: int) -> None:
    explored = explore(rules)
    assert explored.violation is None, explored
    assert explored.states > states_min
    assert explored.landed == {1, 2, 3}  # so the certificates differ with the list that a leader makes


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("leaders", "states_min"), [((1, BYZANTINE), 40_000), ((BYZANTINE, 0, 1), 700_000)])
def test_every_property_holds_whoever_leads(leaders: tuple[int, ...], states_min: int) -> None:
    explored = explore(Rules(leaders=leaders))
    assert explored.violation is None, explored
    assert explored.states > states_min


def test_two_valid_certificates_of_one_epoch_do_come_about_and_are_harmless() -> None:
    explored = explore(Rules(leaders=(1, 2)))
    assert explored.certificates_most == 2
    assert explored.violation is None


@pytest.mark.parametrize(
    ("broken", "violated"),
    [
        pytest.param(Rules(recompute=False), model.attested_what_follows, id="a follower does not recompute"),
        pytest.param(Rules(settled_once=False), model.one_settlement, id="the chain settles an epoch again"),
        pytest.param(Rules(certificate=Fraction(1, 3)), model.honest_weight, id="a third makes a certificate"),
        pytest.param(
            Rules(weights=UNEVEN, certificate=Fraction(2, 3) - JUST_BELOW),
            model.contract_takes_certificates,
            id="exactly two thirds make a certificate",
        ),
        pytest.param(Rules(listed=Fraction(1, 3)), model.nothing_lost_or_invented, id="a third of observations do"),
        pytest.param(Rules(witness=Fraction(0)), model.nothing_lost_or_invented, id="the cut is the highest head"),
        pytest.param(Rules(witness=Fraction(2, 3)), model.nothing_lost_or_invented, id="two thirds must witness"),
        pytest.param(Rules(durable_before_sent=False), model.one_word_each, id="sent before it is durable"),
        pytest.param(Rules(first_of_view_only=False), model.one_word_each, id="every proposal of a view is judged"),
        pytest.param(Rules(attests_once=True), model.no_dead_end, id="who attested is locked"),
        pytest.param(Rules(base_landed=False), model.no_dead_end, id="the base is what one attested oneself"),
        pytest.param(Rules(listed=Fraction(3, 4)), model.no_dead_end, id="everybody must be listed"),
        pytest.param(Rules(weights=(1, 1, 2, 2)), model.no_dead_end, id="a third of the weight is faulty"),
    ],
)
def test_without_a_rule_a_property_breaks(broken: Rules, violated: Property) -> None:
    explored = explore(broken)
    assert explored.violation is not None
    assert explored.violation[0] is violated, explored


def test_a_schedule_says_how_a_property_breaks() -> None:
    explored = explore(Rules(recompute=False))
    assert explored.schedule[-2:] == ("3 proposes cut 8 in view 0", "0 judges cut 8 of view 0")


# The model's thresholds and cuts are the code's.


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), UNEVEN, (1, 1, 2, 2)])
def test_thresholds_are_those_of_the_operator_set(weights: tuple[int, ...]) -> None:
    rules, operators = Rules(weights=weights), operator_set(4, weights)
    for chosen in product((False, True), repeat=4):
        some = [operator for operator in range(4) if chosen[operator]]
        weight = sum(weights[operator] for operator in some)
        assert rules.exceeds(some, rules.certificate) == operators.is_quorum(weight)
        assert rules.exceeds(some, rules.witness) == operators.is_witnessed(weight)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), UNEVEN])
def test_cuts_are_those_of_the_code(weights: tuple[int, ...]) -> None:
    author, logs = Author(0), log_book(1)
    author.prove()
    for _ in range(HIGH - 1):
        author.work()
    fill(logs, author.records)
    rules, operators = Rules(weights=weights), operator_set(4, weights)

    def observation(said: model.Observation) -> Observation:
        head = Head(said.head, author.records[said.head - 1].hash) if said.head else GENESIS
        return make_observation(
            key(said.operator),
            POOL,
            epoch=1,
            set_id=1,
            policy_hash=policy().hash,
            base=Base().payload_hash,
            logs={key(0).public: ObservedLog(head=head, witnessed_s=0, worker_tokens=0)},
            forks=(),
        )

    choices = [[None, *heads] for heads in (*HEADS.values(), (LOW, HIGH))]
    for heads in product(*choices):
        listed = [model.Observation(operator, head) for operator, head in enumerate(heads) if head is not None]
        if listed:
            cut = compute_cut(operators, Base(), [observation(said) for said in listed], logs)
            assert cut[key(0).public].head.seq == rules.cut(listed)
    assert FORGED not in {rules.cut([model.Observation(0, head)]) for head in (*HEADS[0], LOW, HIGH)}


# What the model takes for granted of a crash, done to the machine.


@pytest.mark.parametrize("operator", range(4))
def test_a_restarted_operator_says_nothing_twice(operator: int) -> None:
    pool, durable, said = Pool(4), dict[bytes, Message](), list[Message]()
    write_work(pool)
    pool.chain.submit = lambda submit: False  # type: ignore[method-assign]
    real = pool.agents[operator].machine.handle

    def handle(event: Event) -> list[Action]:
        actions = real(event)
        durable.update((m.wire, m) for action in actions if isinstance(action, Persist) for m in action.messages)
        said.extend(action.message for action in actions if isinstance(action, Publish))
        return actions

    pool.agents[operator].machine.handle = handle  # type: ignore[method-assign]
    while not any(isinstance(message, Attest) for message in said):
        pool.step()
    again = Agent(operator, 4)
    fill(again.logs, [record for author in pool.authors for record in author.records])
    own = key(operator).public
    again.machine.restore(sorted(durable.values(), key=lambda message: maker_of(message) == own))  # its own come last
    actions = again.advance(pool.chain, witnessed_s=10**6 + 5)
    assert {a.message.wire for a in actions if isinstance(a, Publish)} <= {message.wire for message in said}


def test_what_landed_is_adopted_though_everybody_was_restarted_in_between() -> None:
    """Nobody has the checkpoint then, nor the round: what was attested is durable with the attest."""
    pool = Pool(4)
    outcomes: list[dict[bytes, Settlement]] = [{} for _ in pool.agents]
    write_work(pool)
    for agent in pool.agents:

        def handle(
            event: Event, real: Callable[[Event], list[Action]] = agent.machine.handle, i: int = agent.i
        ) -> list[Action]:
            actions = real(event)
            kept = [action.outcome for action in actions if isinstance(action, Persist) and action.outcome is not None]
            outcomes[i].update((outcome.payload_hash, outcome) for outcome in kept)
            return actions

        agent.machine.handle = handle  # type: ignore[method-assign]
    while pool.chain.landed.epoch == 0:
        pool.step()
    again = Agent(0, 4)
    fill(again.logs, [record for author in pool.authors for record in author.records])
    again.machine.restore([], outcomes[0].values())
    actions = again.advance(pool.chain)
    assert again.machine.base.payload_hash == pool.chain.landed.payload_hash
    assert any(isinstance(action, Settled) for action in actions)
    assert again.machine.wanted == frozenset()
