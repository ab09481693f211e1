"""Money beside the participants': fees to operators, refunds, slashed stake, messages as the workers' owner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout
from contracts.commands import FeesTo, OwnerMessage
from contracts.model import DAY_S, NANO, Address
from contracts.opcodes import Event, Op, Refusal
from tests.contracts import registry_cases
from tests.contracts.lone_rewards import REGISTRY, LoneRewards, landed, made_state, open_epochs
from tests.contracts.pool_scene import ANYONE, OWNER, PARAMS, PARTICIPANTS, STAKE, TERMS, Scene, Sent, account, leaf

ALICE, BOB = PARTICIPANTS[:2]
TREASURER = account("treasurer")
WORKER_INIT = layout.state_init(Cell.empty(), Cell.empty())
"""A contract without code: it takes every message."""
WORKER, NOBODY = layout.address_of(WORKER_INIT), account("nobody")
HELLO = Builder().store_uint(0x11223344, 32).store_uint(7, 64).end_cell()
GAS_NANOTON = 400


# ---- fees to operators ----


def pay_fees(scene: Scene, amount: int, recipient: Address = TREASURER) -> Sent:
    command = FeesTo(gov_seqno=scene.gov_seqno, recipient=recipient, amount_nanoton=amount)
    return scene.act(command)


def test_fees_are_paid_to_the_last_nanoton(ready: Scene) -> None:
    ready.finish_epoch()
    pending = ready.state().pending_fees_nanoton
    sent = pay_fees(ready, pending // 3)
    assert sent.refusal is None
    assert sent.received(TREASURER) == pending // 3
    assert sent.received(ANYONE) > fees.submit_nanoton(4) - NANO // 20, "the submitter gets the rest back"
    assert pay_fees(ready, pending - pending // 3).received(TREASURER) == pending - pending // 3
    state = ready.state()
    assert (state.pending_fees_nanoton, state.fees_collected_nanoton) == (0, pending)
    assert [e.values for e in sent.events if e.op == Event.EVENT_FEES_WITHDRAWN] == [
        {"recipient": TREASURER, "amount": pending // 3}
    ]


@pytest.mark.parametrize("beyond", [1, 2**110])
def test_never_more_fees_than_are_pending(ready: Scene, beyond: int) -> None:
    ready.finish_epoch()
    ready.pay(1000 * NANO)
    pending = ready.state().pending_fees_nanoton
    assert pay_fees(ready, pending + beyond).received(TREASURER) == pending
    assert (ready.state().pending_fees_nanoton, ready.state().fees_collected_nanoton) == (0, pending)


def test_a_settlement_that_lands_first_leaves_the_rest_of_the_fees(ready: Scene) -> None:
    """All fees are ordered out, and the refund of a settlement that nobody counted with comes off them."""
    ready.finish_epoch()
    pending = ready.state().pending_fees_nanoton
    order = FeesTo(gov_seqno=ready.gov_seqno, recipient=TREASURER, amount_nanoton=pending)
    assert ready.settle([leaf(PARTICIPANTS[0], NANO)]).refusal is None
    left = ready.state().pending_fees_nanoton
    assert 0 < left < pending
    assert ready.command(order).received(TREASURER) == left


def test_no_fees_are_no_payment(ready: Scene) -> None:
    for amount in (0, NANO):
        sent = pay_fees(ready, amount)
        assert sent.refusal is Refusal.NOTHING_PENDING
        assert sent.received(TREASURER) == 0
        assert sent.received(ANYONE) > fees.submit_nanoton(4) - NANO // 20
    assert ready.gov_seqno == 3, "each refused command has used its number"


def test_the_owner_takes_fees_before_the_hand_over(scene: Scene) -> None:
    scene.finish_epoch()
    pending = scene.state().pending_fees_nanoton
    assert pay_fees(scene, pending, OWNER).received(OWNER) > pending


@pytest.mark.parametrize(("workchain", "exit_code"), [(-1, 0), (0, 0), (7, Refusal.WRONG_WORKCHAIN)])
def test_fees_go_to_either_workchain(workchain: int, exit_code: int) -> None:
    rewards = LoneRewards(made_state(landed([]), pending_fees_nanoton=NANO))
    recipient = Address(workchain, TREASURER.account)
    order = layout.command_cell(FeesTo(gov_seqno=1, recipient=recipient, amount_nanoton=NANO))
    sent = rewards.relay(order, FeesTo.kind)
    assert (sent.exit_code, sent.action_code in (None, 0)) == (exit_code, True)
    assert (recipient in {out.dest for out in sent.out_messages}) == (exit_code == 0)


# ---- refunds ----


@pytest.mark.parametrize("participants", [0, 1, 10])
@pytest.mark.parametrize("value", [NANO // 5, 100 * NANO])
def test_a_submission_is_refunded_and_nobody_gains(ready: Scene, participants: int, value: int) -> None:
    """What comes back beyond the value is never positive, and nearly all that is burnt is paid back.

    The last of these epochs has the least to do: no other one waits. Without leaves the registry stores nothing.
    """
    for _ in range(3):
        ready.finish_epoch(1000 * NANO)
    earned = 0
    for epoch in ready.state().open_epochs:
        earned += epoch.pot_nanoton // 11
        leaves = [leaf(p, earned) for p in PARTICIPANTS[:participants]]
        payload = ready.payload(leaves)
        ready.books.know(leaves, payload)
        pending = ready.state().pending_fees_nanoton
        sent = ready.submit(ready.certificate(payload), value=value)
        assert sent.refusal is None
        refund = pending - ready.state().pending_fees_nanoton
        lost = value - sent.received(ANYONE)
        assert 0 <= lost <= (lost + refund) // 8
        assert [e.values["refund"] for e in sent.events if e.op == Event.EVENT_EPOCH_SETTLED] == [refund]


def test_nobody_gains_by_submitting_as_the_owner(scene: Scene) -> None:
    scene.finish_epoch(1000 * NANO)
    sent = scene.owner_command(scene.payload([]), value=NANO)
    assert sent.refusal is None
    assert 0 <= NANO - sent.received(OWNER) < NANO // 100


def test_the_refund_is_at_most_what_the_epoch_allows() -> None:
    scene = Scene()
    terms = replace(TERMS, max_refund_nanoton=1234)
    scene.deploy(replace(PARAMS, terms=terms))
    scene.hand_over()
    scene.finish_epoch()
    pending = scene.state().pending_fees_nanoton
    assert scene.settle([]).refusal is None
    assert pending - scene.state().pending_fees_nanoton == 1234 == scene.state().fees_collected_nanoton


def test_the_refund_is_at_most_the_pending_fees(ready: Scene) -> None:
    ready.finish_epoch(fees.PAYMENT_NANOTON + 20_000)
    assert ready.state().pending_fees_nanoton == 1000
    assert ready.settle([]).refusal is None
    assert (ready.state().pending_fees_nanoton, ready.state().fees_collected_nanoton) == (0, 1000)


def test_without_fees_there_is_no_refund(ready: Scene) -> None:
    ready.ledger.advance(ready.state().current_end_s)
    assert ready.finalize().refusal is None
    assert ready.settle([]).refusal is None
    assert ready.state().fees_collected_nanoton == 0


# ---- slashed stake ----


def sweep_one(scene: Scene) -> Sent:
    """ALICE is slashed by 30 TON, does not appeal, and BOB sweeps it."""
    assert scene.register(ALICE, stake_nanoton=3 * STAKE).refusal is None
    assert registry_cases.slash(scene, ALICE, 30 * NANO).refusal is None
    scene.advance(7 * DAY_S)
    return scene.sweep_slashed(ALICE, source=BOB)


def test_slashed_stake_is_shared_without_a_fee(ready: Scene) -> None:
    sent = sweep_one(ready)
    assert sent.refusal is None
    assert sent.received(BOB) > fees.ENTRY_NANOTON - NANO // 20
    state = ready.state()
    assert (state.carried_nanoton, state.received_nanoton) == (30 * NANO, 0)
    assert ready.finish_epoch(NANO) > 30 * NANO
    (epoch,) = ready.state().open_epochs
    assert epoch.fee_nanoton == (NANO - fees.PAYMENT_NANOTON) * 5 // 100
    assert epoch.pot_nanoton == 30 * NANO + NANO - fees.PAYMENT_NANOTON - epoch.fee_nanoton


def test_slashed_stake_comes_from_the_registry_alone(ready: Scene) -> None:
    body = layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=ANYONE, amount=NANO)
    for source in (ANYONE, OWNER, ready.pool, ready.rewards):
        assert ready.send(source, ready.rewards, 2 * NANO, body).refusal is Refusal.NOT_CHILD
    assert ready.state().carried_nanoton == 0


@pytest.mark.parametrize("value", [0, NANO - 1, NANO, NANO + 1000])
def test_slashed_stake_has_to_be_there_with_its_gas(value: int) -> None:
    rewards = LoneRewards(made_state(landed([])))
    body = layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=ANYONE, amount=NANO)
    refused = rewards.send(REGISTRY, max(value, NANO // 100), body)
    assert refused.exit_code == Refusal.INSUFFICIENT_VALUE
    assert refused.action_code in (None, 0)
    assert rewards.state().carried_nanoton == 0


# ---- messages as the workers' owner ----


@pytest.fixture
def owning(ready: Scene) -> Scene:
    """The pool, with 95 TON in it, beside a worker."""
    ready.send(ANYONE, WORKER, NANO, Cell.empty(), state_init=WORKER_INIT)
    ready.finish_epoch()
    return ready


def tell_worker(scene: Scene, *, dest: Address = WORKER, nanoton: int = NANO, body: Cell = HELLO, **over: Any) -> Sent:
    command = OwnerMessage(gov_seqno=scene.gov_seqno, dest=dest, value_nanoton=nanoton, body=body)
    return scene.command(command, **over)


def test_a_message_of_the_owner_carries_the_submitters_value(owning: Scene) -> None:
    before = owning.state()
    balance = owning.balance(owning.rewards)
    sent = tell_worker(owning, nanoton=3 * NANO)
    assert sent.refusal is None
    (out,) = (out for out in sent.at(owning.rewards).out_messages if out.dest == WORKER)
    assert (out.value_nanoton, out.body.hash, out.bounce) == (3 * NANO, HELLO.hash, True)
    assert sent.received(ANYONE) > fees.submit_nanoton(4) - NANO // 20
    assert owning.balance(owning.rewards) == balance, "not a nanoTON of what the contract holds"
    assert owning.state() == before
    (event,) = (e for e in sent.events if e.op == Event.EVENT_OWNER_MESSAGE_SENT)
    assert event.values == {"dest": WORKER, "value": 3 * NANO, "body_hash": HELLO.hash}


@pytest.mark.parametrize("short", [1, NANO, 5 * NANO])
def test_a_message_of_the_owner_never_takes_of_the_funds(owning: Scene, short: int) -> None:
    balance = owning.balance(owning.rewards)
    enough = fees.submit_nanoton(4)
    sent = tell_worker(owning, nanoton=enough - GAS_NANOTON * 20_000 + short, value=enough)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE
    assert sent.received(WORKER) == 0
    assert sent.received(ANYONE) > enough - NANO // 20
    assert owning.balance(owning.rewards) == balance


def test_a_poor_submitter_does_not_use_up_the_owners_message(owning: Scene) -> None:
    """Anyone sees the certificate before it lands, and could submit it with too little for what follows."""
    refused, enough = 0, 2 * NANO
    while enough - refused > 1:
        value, number = (refused + enough) // 2, owning.gov_seqno
        sent = tell_worker(owning, value=value)
        assert sent.refusal in (None, Refusal.INSUFFICIENT_VALUE)
        assert owning.gov_seqno - number == (sent.refusal is None), "refused before it counts, or carried out"
        assert sent.received(WORKER) == (NANO if sent.refusal is None else 0)
        refused, enough = (value, enough) if sent.refusal else (refused, value)
    assert (
        NANO < enough < fees.submit_nanoton(4, OwnerMessage(gov_seqno=1, dest=WORKER, value_nanoton=NANO, body=HELLO))
    )


def test_a_large_message_of_the_owner_pays_its_own_way(owning: Scene) -> None:
    """Its forward fee is many times the margin; it is refused before it fails, or it goes through.

    The first message here bears no forward fee as a real one would, so it has to pay for the relay at least.
    """
    body = tree_of_cells(4)
    balance = owning.balance(owning.rewards)
    outcomes = set()
    for value in range(25 * NANO // 100, 60 * NANO // 100, NANO // 100):
        sent = tell_worker(owning, body=body, nanoton=1000, value=value)
        outcomes.add(sent.refusal)
        assert owning.balance(owning.rewards) == balance
    assert outcomes == {None, Refusal.INSUFFICIENT_VALUE}


def tree_of_cells(depth: int, number: int = 1) -> Cell:
    """Full cells, four below each: (4 ** (depth + 1) - 1) / 3 of them, all different."""
    builder = Builder().store_uint(number, 64).store_bytes(bytes(119))
    for i in range(4 if depth else 0):
        builder.store_ref(tree_of_cells(depth - 1, 4 * number + i))
    return builder.end_cell()


def test_what_a_worker_sends_back_is_income(owning: Scene) -> None:
    sent = tell_worker(owning, dest=NOBODY, nanoton=2 * NANO)
    assert sent.refusal is None, "an account that does not exist sends it back"
    back = owning.state().received_nanoton
    assert NANO < back < 2 * NANO


def test_what_comes_back_without_enough_for_its_gas_is_kept(owning: Scene) -> None:
    before = owning.state()
    sent = tell_worker(owning, dest=NOBODY, nanoton=fees.PAYMENT_NANOTON + 100)
    assert sent.refusal is None
    assert owning.state() == before


def test_the_pools_own_contracts_are_out_of_reach(owning: Scene) -> None:
    """The pool and the registry believe this contract; it must not be made to speak in its own name to them."""
    for dest in (owning.pool, owning.registry, owning.rewards):
        sent = tell_worker(owning, dest=dest)
        assert sent.refusal is Refusal.WRONG_DESTINATION
        assert len(sent.transactions) == 4, "relayed, bounced, passed back: no other message"


def test_workers_live_in_the_same_workchain(owning: Scene) -> None:
    assert tell_worker(owning, dest=Address(-1, WORKER.account)).refusal is Refusal.WRONG_WORKCHAIN


def test_the_commands_do_not_disturb_open_epochs() -> None:
    """With 64 epochs open and everybody's earnings unpaid the balance rule holds to the nanoTON."""
    leaves = [leaf(p, NANO) for p in PARTICIPANTS]
    state = made_state(landed(leaves), open_epochs=open_epochs(63), pending_fees_nanoton=5 * NANO)
    rewards = LoneRewards(state, own_nanoton=NANO)
    order = layout.command_cell(FeesTo(gov_seqno=1, recipient=TREASURER, amount_nanoton=5 * NANO))
    assert rewards.relay(order, FeesTo.kind).exit_code == 0
    assert rewards.state() == replace(state, pending_fees_nanoton=0, fees_collected_nanoton=5 * NANO)
    assert rewards.balance >= rewards.state().liabilities_nanoton
    assert rewards.ledger.account(TREASURER).balance_nanoton == 5 * NANO
