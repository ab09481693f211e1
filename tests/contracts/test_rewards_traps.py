"""The traps of the specification that lie in the rewards contract (CONTRACTS, "Traps"), each with its fix shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import Cell

from contracts import fees, layout, proof
from contracts.commands import Command, FeesTo, OwnerMessage
from contracts.model import NANO, ZERO_HASH, Address, Leaf, SettlePayload
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.lone_rewards import PINNED, POOL, REGISTRY, LoneRewards, landed, made_state, open_epochs
from tests.contracts.pool_scene import ANYONE, PARTICIPANTS, POLICY, Scene, leaf

ALICE, BOB, CAROL = PARTICIPANTS[:3]
LEAVES = [leaf(p, 5 * NANO) for p in PARTICIPANTS]
TREE = proof.totals_tree(LEAVES)


def lone(leaves: list[Leaf] = LEAVES, **over: Any) -> LoneRewards:
    return LoneRewards(made_state(landed(leaves), **over))


def test_trap_1_no_key_is_made_of_an_account_and_an_epoch(ready: Scene) -> None:
    """Accounts that differ in their first or last bits alone stay apart, over many epochs."""
    middle = bytes(range(30))
    twins = [Address(0, bytes([a]) + middle + bytes([b])) for a in (0, 1, 128) for b in (0, 1, 255)]
    earned = dict.fromkeys(twins, 0)
    for epoch in range(3):
        share = ready.finish_epoch() // 100
        earned = {p: amount + (i + 1) * share for i, (p, amount) in enumerate(earned.items())}
        tree = ready.settle_shares(earned)
        assert ready.claim(twins[epoch], tree, source=ANYONE).received(twins[epoch]) == earned[twins[epoch]]
    assert ready.push(twins, tree).refusal is None
    assert ready.state().paid_nanoton == {p.account: amount for p, amount in earned.items()}


def test_trap_2_an_excess_never_takes_what_came_to_stay() -> None:
    """Slashed stake comes with the value that is to go on: the one stays to the nanoTON, the other leaves."""
    rewards = lone()
    before = rewards.balance
    body = layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=BOB, amount=7 * NANO)
    sent = rewards.send(REGISTRY, 8 * NANO, body)
    assert sent.exit_code == 0
    assert rewards.balance == before + 7 * NANO
    assert NANO * 9 // 10 < rewards.ledger.account(BOB).balance_nanoton < NANO
    assert rewards.state().carried_nanoton == 7 * NANO


@pytest.mark.parametrize("source", [ALICE, ANYONE])
def test_trap_4_a_claim_takes_its_amount_and_no_more(source: Address) -> None:
    """Not the balance, though the last message carries all that is left; and not twice."""
    rewards = lone(received_nanoton=50 * NANO)
    before = rewards.balance
    body = layout.claim_body(ALICE, TREE.prove(ALICE))
    assert rewards.send(source, fees.CLAIM_NANOTON, body).exit_code == 0
    assert rewards.balance == before - 5 * NANO + fees.PAYEE_RENT_NANOTON
    for _ in range(3):
        assert rewards.send(source, fees.CLAIM_NANOTON, body).exit_code == Refusal.NOTHING_TO_PAY
    assert rewards.balance == before - 5 * NANO + fees.PAYEE_RENT_NANOTON
    got = rewards.ledger.account(ALICE).balance_nanoton + rewards.ledger.account(ANYONE).balance_nanoton
    assert 5 * NANO < got < 5 * NANO + 4 * fees.CLAIM_NANOTON


def test_trap_5_count_and_root_come_with_the_certificate(ready: Scene) -> None:
    pot = ready.finish_epoch()
    for wrong in ({"count": 0}, {"totals_root": ZERO_HASH}):
        assert ready.settle([leaf(ALICE, pot)], **wrong).refusal is Refusal.INCONSISTENT_TOTALS
    assert ready.state().landed.totals_root == ZERO_HASH
    tree = ready.settle_shares({ALICE: pot})
    assert ready.state().landed.totals_root == tree.root_hash
    assert ready.claim(ALICE, tree).refusal is None


def test_trap_6_amounts_follow_from_the_leaves_with_one_event(ready: Scene) -> None:
    """A push names accounts; there is no place in it for an amount."""
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot // 2, BOB: pot // 3})
    sent = ready.push([ALICE, BOB], tree)
    assert (sent.received(ALICE), sent.received(BOB)) == (pot // 2, pot // 3)
    assert [event.op for event in sent.events] == [Event.EVENT_BATCH_DISTRIBUTED]


# ---- trap 14: what cannot be afforded is refused in the compute phase, and the value comes back ----


def claim(rewards: LoneRewards, value: int) -> int:
    return outcome(rewards, ANYONE, value, layout.claim_body(ALICE, TREE.prove(ALICE)))


def claim_own(rewards: LoneRewards, value: int) -> int:
    return outcome(rewards, ALICE, value, layout.claim_body(ALICE, TREE.prove(ALICE)))


def push(rewards: LoneRewards, value: int) -> int:
    return outcome(rewards, ANYONE, value, layout.push_body(PARTICIPANTS, TREE.prove_many(PARTICIPANTS)))


def finalize(rewards: LoneRewards, value: int) -> int:
    rewards.ledger.advance(rewards.state().current_end_s)
    return outcome(rewards, ANYONE, value, layout.finalize_body())


def pay(rewards: LoneRewards, value: int) -> int:
    return outcome(rewards, ANYONE, value, layout.receive_payment_body())


def settle(rewards: LoneRewards, value: int) -> int:
    payload = SettlePayload(
        epoch=2,
        prev=rewards.state().landed.payload_hash,
        totals_root=TREE.root_hash,
        count=10,
        total_score=1,
        total_earned_nanoton=51 * NANO,
        tasks=1,
        tokens=1,
        policy_hash=POLICY,
        cut_root=ZERO_HASH,
    )
    return relayed(rewards, value, payload)


def fees_to(rewards: LoneRewards, value: int) -> int:
    return relayed(rewards, value, FeesTo(gov_seqno=1, recipient=BOB, amount_nanoton=NANO))


def owner_message(rewards: LoneRewards, value: int) -> int:
    body = layout.receive_payment_body()
    return relayed(rewards, value, OwnerMessage(gov_seqno=1, dest=BOB, value_nanoton=NANO // 100, body=body))


def slashed(rewards: LoneRewards, value: int) -> int:
    body = layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=BOB, amount=NANO // 100)
    return outcome(rewards, REGISTRY, value, body)


def relayed(rewards: LoneRewards, value: int, command: Command) -> int:
    fields: dict[str, Any] = {"submitter": ANYONE, "attached": value, "set_id": 1, "kind": command.kind}
    body = layout.body_cell(Op.POOL_RELAY_CERTIFICATE, payload=layout.command_cell(command), **fields)
    return outcome(rewards, POOL, value, body)


def outcome(rewards: LoneRewards, source: Address, value: int, body: Cell) -> int:
    """The exit code; nothing fails in the action phase, and what is refused comes back."""
    sent = rewards.send(source, value, body)
    assert sent.action_code in (None, 0)
    assert sent.exit_code is not None
    if sent.exit_code:
        (back,) = sent.out_messages
        assert back.bounced
        assert value - back.value_nanoton <= NANO // 40, "its gas and its way back"
    return sent.exit_code


OPERATIONS = [claim, claim_own, push, finalize, pay, settle, fees_to, owner_message, slashed]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_trap_14_what_cannot_be_afforded_is_refused_beforehand(operation: Callable[[LoneRewards, int], int]) -> None:
    """One more nanoTON of value decides: below it the refusal, from it on success, never a failed action."""
    refused, enough = NANO // 1000, NANO
    if operation is pay:
        refused = fees.PAYMENT_NANOTON - 100
    rewards = lone(open_epochs=open_epochs(2), pending_fees_nanoton=NANO, received_nanoton=NANO)
    state = rewards.state()
    while enough - refused > 1:
        rewards.begin_again()
        value = (refused + enough) // 2
        exit_code = operation(rewards, value)
        assert exit_code in (0, Refusal.INSUFFICIENT_VALUE)
        assert exit_code == 0 or rewards.state() == state
        assert rewards.balance >= rewards.state().liabilities_nanoton
        refused, enough = (value, enough) if exit_code else (refused, value)
    assert NANO // 1000 < enough < (NANO // 5 if operation is push else NANO // 10), "ten new payees have their rent"


def test_trap_14_a_balance_below_the_debts_is_refused_beforehand() -> None:
    """A reserve of more than there is would fail in the action phase."""
    state = made_state(landed(LEAVES), open_epochs=open_epochs(2), pending_fees_nanoton=NANO)
    rewards = LoneRewards(state, own_nanoton=-2 * NANO)
    for operation in (claim, claim_own, push, finalize, settle, fees_to):
        assert operation(rewards, NANO) == Refusal.UNDERFUNDED
        assert rewards.state() == state


def test_trap_14_what_leaves_the_balance_as_it_is_goes_on_below_the_debts() -> None:
    """New terms, messages of the owner, slashed stake, income: they take nothing of it, and must not be lost."""
    rewards = LoneRewards(made_state(landed(LEAVES)), own_nanoton=-2 * NANO)
    other = replace(PINNED, set_id=2)
    terms = layout.body_cell(Op.DISTRIBUTION_UPDATE_TERMS, next=other, excess_to=BOB)
    assert rewards.send(POOL, NANO // 10, terms).exit_code == 0
    assert owner_message(rewards, NANO) == 0
    assert slashed(rewards, NANO) == 0
    assert pay(rewards, NANO) == 0
    assert rewards.state().next == other
    assert rewards.state().carried_nanoton == NANO // 100
