"""Messages to the rewards contract that are broken, from the wrong sender, or bring just enough; what bounces back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout, proof
from contracts.commands import FeesTo, OwnerMessage, ProposeParams
from contracts.devchain.errors import DevchainError
from contracts.model import DAY_S, NANO, ZERO_HASH, Address, SettlePayload, Signature
from contracts.opcodes import Op, Refusal
from tests.contracts import registry_cases
from tests.contracts.cell_values import mutated
from tests.contracts.lone_rewards import PINNED, POOL, REGISTRY, LoneRewards, landed, made_state, open_epochs
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, POLICY, STAKE, START_S, TERMS, Scene, leaf

ALICE, BOB = PARTICIPANTS[:2]
LEAVES = [leaf(p, 5 * NANO) for p in PARTICIPANTS]
TREE = proof.totals_tree(LEAVES)
STATE = made_state(
    landed(LEAVES),
    open_epochs=open_epochs(2),
    pending_fees_nanoton=NANO,
    received_nanoton=NANO,
    current_end_s=START_S,
)
SETTLEMENT = SettlePayload(
    epoch=2,
    prev=STATE.landed.payload_hash,
    totals_root=TREE.root_hash,
    count=10,
    total_score=1,
    total_earned_nanoton=51 * NANO,
    tasks=1,
    tokens=1,
    policy_hash=POLICY,
    cut_root=ZERO_HASH,
)


def relay(command: SettlePayload | FeesTo | OwnerMessage) -> Cell:
    fields: dict[str, Any] = {"submitter": ANYONE, "attached": NANO, "set_id": 1, "kind": command.kind}
    return layout.body_cell(Op.POOL_RELAY_CERTIFICATE, payload=layout.command_cell(command), **fields)


@dataclass(frozen=True)
class Message:
    """One that succeeds from `source`; from anybody else it is refused, if `refusal` is not None."""

    source: Address
    body: Cell
    refusal: Refusal | None = None


MESSAGES = {
    "claim": Message(ALICE, layout.claim_body(ALICE, TREE.prove(ALICE))),
    "push": Message(ANYONE, layout.push_body(PARTICIPANTS[:5], TREE.prove_many(PARTICIPANTS[:5]))),
    "settle": Message(POOL, relay(SETTLEMENT), Refusal.NOT_POOL),
    "fees to": Message(POOL, relay(FeesTo(gov_seqno=1, recipient=BOB, amount_nanoton=5)), Refusal.NOT_POOL),
    "owner message": Message(
        POOL,
        relay(OwnerMessage(gov_seqno=1, dest=BOB, value_nanoton=5, body=Cell.empty())),
        Refusal.NOT_POOL,
    ),
    "update terms": Message(
        POOL, layout.body_cell(Op.DISTRIBUTION_UPDATE_TERMS, next=PINNED, excess_to=BOB), Refusal.NOT_POOL
    ),
    "upgrade": Message(
        POOL,
        layout.body_cell(Op.POOL_UPGRADE_CHILD, code=layout.code("reward_distribution"), excess_to=BOB),
        Refusal.NOT_POOL,
    ),
    "slashed": Message(
        REGISTRY, layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=BOB, amount=5), Refusal.NOT_CHILD
    ),
}
FINALIZE = Message(ANYONE, layout.finalize_body())


@pytest.fixture(scope="module")
def rewards() -> LoneRewards:
    return LoneRewards(STATE)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_succeeds_as_it_is(rewards: LoneRewards, name: str) -> None:
    """So that the refusals below have one reason each."""
    rewards.begin_again()
    sent = rewards.send(MESSAGES[name].source, NANO, MESSAGES[name].body)
    assert (sent.exit_code, sent.action_code in (None, 0)) == (0, True)


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if message.refusal])
def test_from_anybody_else_it_is_refused(rewards: LoneRewards, name: str) -> None:
    rewards.begin_again()
    message = MESSAGES[name]
    for source in {ANYONE, ALICE, POOL, REGISTRY} - {message.source}:
        requires_refused(rewards, source, message.body, {message.refusal})
    assert rewards.state() == STATE


@pytest.mark.parametrize("name", MESSAGES)
def test_cut_short_it_is_refused(rewards: LoneRewards, name: str) -> None:
    """At every place, down to no op at all; TVM's own cell underflow (9) is the reason within the fields."""
    rewards.begin_again()
    message = MESSAGES[name]
    bits = len(message.body.bits)
    for length in {*range(1, 32, 9), *range(32, 97, 16), *range(97, bits, 29), bits - 1}:
        short = Cell(message.body.bits[:length], message.body.refs, -1)
        expected = {Refusal.UNKNOWN_OP} if length < 32 else {9, *Refusal}
        requires_refused(rewards, message.source, short, expected)
    for i in range(len(message.body.refs)):
        refs = message.body.refs[:i] + message.body.refs[i + 1 :]
        requires_refused(rewards, message.source, Cell(message.body.bits, refs, -1), {9, *Refusal})
    assert rewards.state() == STATE


@pytest.mark.parametrize("name", MESSAGES)
def test_its_number_alone_is_refused(rewards: LoneRewards, name: str) -> None:
    rewards.begin_again()
    message = MESSAGES[name]
    only_op = Builder().store_bits(message.body.bits[:32]).end_cell()
    requires_refused(rewards, message.source, only_op, {9, *Refusal})
    assert rewards.state() == STATE


def requires_refused(rewards: LoneRewards, source: Address, body: Cell, exit_codes: set[int | Refusal | None]) -> None:
    """Refused for one of these reasons, the value back less its gas, and nothing has changed."""
    sent = rewards.send(source, NANO, body)
    assert sent.exit_code in exit_codes
    (back,) = sent.out_messages
    assert back.bounced
    assert back.value_nanoton > NANO * 97 // 100
    assert rewards.state() == STATE


@pytest.mark.parametrize("name", ["claim", "push"])
def test_broken_anywhere_it_takes_nothing_that_it_should_not(rewards: LoneRewards, name: str) -> None:
    """Whatever is done to a body that anyone may send: the state stays what it was, or pays what the leaves say."""
    message = MESSAGES[name]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def broken(data: st.DataObject) -> None:
        rewards.begin_again()
        try:
            sent = rewards.send(message.source, NANO, mutated(message.body, data))
        except DevchainError:
            return  # no node takes such a cell
        assert sent.action_code in (None, 0)
        state = rewards.state()
        assert rewards.balance >= state.liabilities_nanoton
        assert set(state.paid_nanoton.values()) <= {5 * NANO}
        assert (state.distributed_nanoton > 0) <= (sent.exit_code == 0)

    broken()


def test_finalize_is_for_anyone(rewards: LoneRewards) -> None:
    for source in (ANYONE, ALICE, POOL, REGISTRY):
        rewards.begin_again()
        assert rewards.send(source, NANO, FINALIZE.body).exit_code == 0


def test_an_upgrade_changes_the_code_and_nothing_else(rewards: LoneRewards) -> None:
    """The pool has checked the hash and waited; here any code does."""
    rewards.begin_again()
    before, had = rewards.balance, rewards.ledger.account(BOB).balance_nanoton
    code = layout.code("participant_registry")
    body = layout.body_cell(Op.POOL_UPGRADE_CHILD, code=code, excess_to=BOB)
    assert rewards.send(POOL, NANO, body).exit_code == 0
    account = rewards.ledger.account(rewards.address)
    assert account.code is not None
    assert account.code.hash == code.hash
    assert (rewards.state(), rewards.balance) == (STATE, before)
    assert rewards.ledger.account(BOB).balance_nanoton - had > NANO * 97 // 100


# ---- what comes back ----


def test_a_pool_that_cannot_take_a_settlement_does_not_undo_it(rewards: LoneRewards) -> None:
    """Its bounce is not credited: the rest of the value is the submitter's, and the settlement stands.

    A pool without code stands for one whose new code refuses.
    """
    rewards.begin_again()
    before = rewards.ledger.account(ANYONE).balance_nanoton
    sent = rewards.ledger.send_internal(POOL, rewards.address, NANO, relay(SETTLEMENT))
    assert [t.exit_code for t in sent if t.address == rewards.address] == [0, 0]
    assert rewards.state().landed.epoch == 2
    assert rewards.ledger.account(ANYONE).balance_nanoton - before > NANO * 97 // 100
    assert rewards.state().received_nanoton == STATE.received_nanoton


# ---- just enough ----


Outcome = Callable[[int], int | Refusal | None]
"""Value -> why it was refused."""


def least(outcome: Outcome, enough: int) -> int:
    """The least value that is not refused; every value is either refused for its size or succeeds."""
    refused = 0
    while enough - refused > 1:
        value = (refused + enough) // 2
        code = outcome(value)
        assert code in (None, Refusal.INSUFFICIENT_VALUE)
        refused, enough = (refused, value) if code is None else (value, enough)
    return enough


def attempts(scene: Scene, source: Address, dest: Address, body: Cell, done: Callable[[], bool]) -> Outcome:
    """Send `body` with some value, each time from how things are now; what does not refuse has `done` it all."""
    before = scene.ledger.take_changes().accounts

    def attempt(value: int) -> int | Refusal | None:
        scene.ledger.restore(before, lt=scene.ledger.lt)
        sent = scene.ledger.send_internal(source, dest, value, body)
        assert all(transaction.action_code in (None, 0) for transaction in sent)
        codes = [transaction.exit_code for transaction in sent if transaction.exit_code]
        assert codes or done()
        return codes[0] if codes else None

    return attempt


@pytest.mark.parametrize("signers", [1, 4])
def test_a_settlement_that_is_taken_reaches_the_registry(scene: Scene, signers: int) -> None:
    """With the least value that the pool takes, the rewards contract and the registry still have their gas."""
    scene.hand_over(signers)
    pot = scene.finish_epoch()
    cell = certificate.settle_certificate(scene.domain, scene.payload([leaf(ALICE, pot)]))
    keys = enumerate(scene.keys_of[1])
    body = certificate.submit_body(cell, [Signature(index=i, signature=key.sign(cell.hash)) for i, key in keys])
    submit = attempts(scene, ANYONE, scene.pool, body, lambda: scene.registry_state().roots.keys() == {1})
    assert least(submit, NANO) < fees.submit_nanoton(signers)


def test_terms_that_apply_reach_the_rewards_contract(ready: Scene) -> None:
    params = replace(PARAMS, terms=replace(TERMS, fee_bps=77))
    ready.act(ProposeParams(gov_seqno=ready.gov_seqno, params=params))
    ready.advance(PARAMS.parameter_delay_s)
    body = layout.apply_params_body()
    apply = attempts(ready, ANYONE, ready.pool, body, lambda: ready.state().next.terms == params.terms)
    assert least(apply, NANO) < fees.APPLY_NANOTON


def test_slashed_stake_that_is_swept_reaches_the_rewards_contract(ready: Scene) -> None:
    ready.register(ALICE, stake_nanoton=3 * STAKE)
    registry_cases.slash(ready, ALICE, NANO)
    ready.advance(7 * DAY_S)
    body = layout.sweep_slashed_body(ALICE)
    sweep = attempts(ready, ANYONE, ready.registry, body, lambda: ready.state().carried_nanoton == NANO)
    assert least(sweep, NANO) < fees.ENTRY_NANOTON
