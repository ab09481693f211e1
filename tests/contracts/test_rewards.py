"""RewardDistribution: epochs, settlements and claims; every refusal by name. `Scene` checks the books."""

from __future__ import annotations

from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout
from contracts.commands import Command, Pause, Remove, Target
from contracts.model import NANO, ZERO_HASH
from contracts.opcodes import Op, Refusal
from tests.contracts.pool_scene import ANYONE, DURATION_S, OWNER, PARTICIPANTS, POLICY, START_S, TERMS, Scene, leaf
from tests.contracts.registry_cases import address_slice

ALICE, BOB = PARTICIPANTS[:2]


# ---- payments ----


@pytest.mark.parametrize(
    "body",
    [
        layout.receive_payment_body(),
        Builder().end_cell(),
        Builder().store_uint(0, 32).store_bytes(b"for the pool").end_cell(),
        Builder().store_uint(Op.PAYOUT, 32).store_uint(9, 64).end_cell(),
        Builder().store_uint(Op.COCOON_EXCESSES, 32).store_uint(9, 64).end_cell(),
    ],
    ids=["receive_payment", "empty", "comment", "cocoon payout", "cocoon excesses"],
)
def test_payment_is_credited_to_the_running_epoch(scene: Scene, body: Cell) -> None:
    own = scene.balance(scene.rewards)
    assert scene.send(ANYONE, scene.rewards, 10 * NANO, body).refusal is None
    assert scene.state().received_nanoton == 10 * NANO - fees.PAYMENT_NANOTON
    assert scene.balance(scene.rewards) >= own + scene.state().received_nanoton


def test_payment_below_its_gas_is_refused(scene: Scene) -> None:
    sent = scene.pay(fees.PAYMENT_NANOTON)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.state().received_nanoton == 0


def test_top_up_is_credited_to_nobody(scene: Scene) -> None:
    assert scene.send(ANYONE, scene.rewards, NANO, layout.top_up_body()).refusal is None
    assert scene.state().liabilities_nanoton == 0


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0", b"\1\2\3\4" + bytes(8)])
def test_unknown_messages_give_the_value_back(scene: Scene, body: bytes) -> None:
    sent = scene.send(ANYONE, scene.rewards, NANO, Builder().store_bytes(body).end_cell())
    assert sent.refusal is Refusal.UNKNOWN_OP
    assert sent.received(ANYONE) > NANO - NANO // 100


# ---- epochs ----


def test_finalize_fixes_pot_and_fee(scene: Scene) -> None:
    scene.pay(100 * NANO)
    scene.ledger.advance(START_S + DURATION_S)
    received = scene.state().received_nanoton
    sent = scene.finalize()
    assert sent.refusal is None
    assert sent.received(ANYONE) > fees.FINALIZE_NANOTON - NANO // 100
    state = scene.state()
    (epoch,) = state.open_epochs
    assert epoch.fee_nanoton == received * 5 // 100 == state.pending_fees_nanoton
    assert epoch.pot_nanoton == received - epoch.fee_nanoton
    assert (epoch.epoch, epoch.start_s, epoch.end_s) == (1, START_S, START_S + DURATION_S)
    assert epoch.finalized_s == scene.ledger.now
    assert (state.current_epoch, state.received_nanoton) == (2, 0)
    scene.pay(7 * NANO)
    assert scene.state().open_epochs == (epoch,), "what comes late belongs to the next epoch"
    assert scene.state().received_nanoton == 7 * NANO - fees.PAYMENT_NANOTON


def test_finalize_not_before_the_end(scene: Scene) -> None:
    scene.ledger.advance(START_S + DURATION_S - 1)
    assert scene.finalize().refusal is Refusal.EPOCH_RUNNING
    scene.ledger.advance(START_S + DURATION_S)
    assert scene.finalize().refusal is None
    assert scene.finalize().refusal is Refusal.EPOCH_RUNNING


def test_finalize_needs_its_gas(scene: Scene) -> None:
    scene.ledger.advance(START_S + DURATION_S)
    sent = scene.send(ANYONE, scene.rewards, NANO // 50, layout.finalize_body())
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE


@pytest.mark.parametrize("late_s", [0, 1, DURATION_S - 1, DURATION_S, DURATION_S + 1, 10 * DURATION_S + 5])
def test_epochs_follow_each_other_on_one_grid(scene: Scene, late_s: int) -> None:
    end = START_S + DURATION_S
    scene.ledger.advance(end + late_s)
    assert scene.finalize().refusal is None
    state = scene.state()
    assert state.current_start_s == end, "no gap"
    assert (state.current_end_s - end) % DURATION_S == 0
    assert scene.ledger.now < state.current_end_s <= scene.ledger.now + DURATION_S


def test_at_most_64_epochs_stay_open(ready: Scene) -> None:
    for _ in range(64):
        ready.finish_epoch(NANO)
    ready.ledger.advance(ready.state().current_end_s)
    assert ready.finalize().refusal is Refusal.TOO_MANY_OPEN_EPOCHS
    assert len(ready.state().open_epochs) == 64
    assert ready.settle([]).refusal is None
    assert ready.finalize().refusal is None
    assert [e.epoch for e in ready.state().open_epochs] == list(range(2, 66))


def test_rent_is_taken_from_the_pot_before_it_is_shared(scene: Scene) -> None:
    scene.pay(100 * NANO)
    before = scene.balance(scene.rewards)
    scene.ledger.advance(START_S + 75 * 365 * 86400)
    assert scene.finalize().refusal is None
    state = scene.state()
    own = scene.balance(scene.rewards) - state.liabilities_nanoton
    assert before - scene.balance(scene.rewards) > NANO // 2, "75 years of rent"
    assert NANO // 2 <= own < NANO
    assert state.liabilities_nanoton < 100 * NANO - fees.PAYMENT_NANOTON


# ---- settlements ----


def test_dust_flows_into_the_next_pot_without_a_second_fee(ready: Scene) -> None:
    pot = ready.finish_epoch()
    ready.settle_shares({ALICE: pot // 3, BOB: pot // 3})
    rest = pot - 2 * (pot // 3)
    state = ready.state()
    assert state.carried_nanoton == rest
    assert state.open_epochs == ()
    received = 50 * NANO - fees.PAYMENT_NANOTON
    assert ready.finish_epoch(50 * NANO) == received - received * 5 // 100 + rest


def test_an_epoch_of_nobody_is_carried_over(ready: Scene) -> None:
    pot = ready.finish_epoch()
    assert ready.settle([]).refusal is None
    state = ready.state()
    assert state.carried_nanoton == pot
    assert state.landed.totals_root == ZERO_HASH
    settle_shares_after = ready.finish_epoch(NANO)
    assert settle_shares_after > pot
    tree = ready.settle_shares({ALICE: settle_shares_after})
    assert ready.claim(ALICE, tree).refusal is None


def test_settlements_chain_by_prev(ready: Scene) -> None:
    first, second = ready.finish_epoch(), ready.finish_epoch()
    ready.settle_shares({ALICE: first})
    landed = ready.state().landed
    assert landed.settled_s == ready.ledger.now
    earned = [leaf(ALICE, first + second)]
    assert ready.settle(earned, prev=ZERO_HASH).refusal is Refusal.WRONG_PREV
    assert ready.settle(earned, prev=landed.totals_root).refusal is Refusal.WRONG_PREV
    assert ready.state().landed == landed
    assert ready.settle(earned).refusal is None
    assert ready.state().landed.previous_root == landed.totals_root


def test_settlements_in_order(ready: Scene) -> None:
    pot = ready.finish_epoch()
    ready.finish_epoch()
    leaves = [leaf(ALICE, pot)]
    assert ready.settle(leaves, epoch=2).refusal is Refusal.EPOCH_OUT_OF_ORDER
    assert ready.settle(leaves, epoch=0).refusal is Refusal.ALREADY_SETTLED
    certificate = ready.certificate(ready.payload(leaves))
    assert ready.submit(certificate).refusal is None
    assert ready.submit(certificate).refusal is Refusal.ALREADY_SETTLED


def test_only_a_finalized_epoch_settles(ready: Scene) -> None:
    ready.pay(NANO)
    assert ready.settle([]).refusal is Refusal.EPOCH_NOT_FINALIZED
    pot = ready.finish_epoch()
    ready.settle_shares({ALICE: pot})
    assert ready.settle([leaf(ALICE, pot)]).refusal is Refusal.EPOCH_NOT_FINALIZED


def test_the_quorum_cannot_exceed_the_pot(ready: Scene) -> None:
    pot = ready.finish_epoch()
    ready.pay(1000 * NANO)
    assert ready.settle([leaf(ALICE, pot + 1)]).refusal is Refusal.TOTAL_OVER_POT
    ready.settle_shares({ALICE: pot})
    second = ready.finish_epoch(NANO)
    over = [leaf(ALICE, pot), leaf(BOB, second + 1)]
    assert ready.settle(over).refusal is Refusal.TOTAL_OVER_POT


def test_totals_never_shrink(ready: Scene) -> None:
    pot = ready.finish_epoch()
    ready.settle_shares({ALICE: pot})
    ready.finish_epoch()
    assert ready.settle([leaf(ALICE, pot - 1)]).refusal is Refusal.TOTAL_SHRINKS


@pytest.mark.parametrize(
    "over",
    [
        {"count": 0},
        {"totals_root": ZERO_HASH},
        {"count": 0, "totals_root": ZERO_HASH},
        {"total_score": 0},
    ],
    ids=["count 0 with a root", "no root with a count", "earned by nobody", "earned without score"],
)
def test_figures_must_fit_each_other(ready: Scene, over: dict[str, Any]) -> None:
    pot = ready.finish_epoch()
    assert ready.settle([leaf(ALICE, pot)], **over).refusal is Refusal.INCONSISTENT_TOTALS


def test_a_relay_counts_from_the_pool_alone(ready: Scene) -> None:
    pot = ready.finish_epoch()
    payload = ready.payload([leaf(ALICE, pot)])
    ready.books.know([leaf(ALICE, pot)], payload)
    body = relay_body(payload)
    for source in (ANYONE, OWNER, ready.registry, ready.rewards):
        assert ready.send(source, ready.rewards, NANO, body).refusal is Refusal.NOT_POOL
    assert ready.send(ready.pool, ready.rewards, NANO, body).refusal is None


@pytest.mark.parametrize("command", [Remove(target=Target(participant=ALICE, joined_s=1, seqno=1)), Pause(gov_seqno=1)])
def test_other_commands_are_not_for_the_rewards_contract(ready: Scene, command: Command) -> None:
    sent = ready.send(ready.pool, ready.rewards, NANO, relay_body(command))
    assert sent.refusal is Refusal.UNKNOWN_KIND


def relay_body(command: Command) -> Cell:
    """What the pool relays of a certificate by set 1."""
    fields: dict[str, Any] = {"submitter": ANYONE, "attached": NANO, "set_id": 1, "kind": command.kind}
    return layout.body_cell(Op.POOL_RELAY_CERTIFICATE, payload=layout.command_cell(command), **fields)


# ---- get-methods ----


def test_get_methods_of_epochs(ready: Scene) -> None:
    pot = ready.finish_epoch()
    ready.pay(3 * NANO)
    state = ready.state()
    received = 3 * NANO - fees.PAYMENT_NANOTON
    assert ready.get(ready.rewards, "get_current_epoch_info") == [
        2, state.current_start_s, state.current_end_s, received, 0,
    ]  # fmt: skip
    (epoch,) = state.open_epochs
    assert ready.get(ready.rewards, "get_epoch_data", 1) == [
        1, epoch.start_s, epoch.end_s, epoch.finalized_s, pot, epoch.fee_nanoton,
    ]  # fmt: skip
    assert ready.get(ready.rewards, "get_epoch_data", 2) == [0, state.current_start_s, state.current_end_s, 0, 0, 0]
    for unknown in (0, 3):
        exit_code, _ = ready.ledger.get_method(ready.rewards, "get_epoch_data", [unknown])
        assert exit_code == Refusal.EPOCH_NOT_FINALIZED


def test_get_methods_of_terms(ready: Scene) -> None:
    """Epoch 1 began under the owner, epoch 2 begins under set 1."""
    ready.finish_epoch()
    policy = int.from_bytes(POLICY, "big")
    terms = [TERMS.fee_bps, policy, TERMS.max_refund_nanoton, -1, TERMS.min_distribution_nanoton]
    for epoch, set_id in ((1, 0), (2, 1), (3, 1)):
        assert ready.get(ready.rewards, "get_epoch_terms", epoch) == [set_id, *terms]
    ready.settle([])
    exit_code, _ = ready.ledger.get_method(ready.rewards, "get_epoch_terms", [1])
    assert exit_code == Refusal.EPOCH_NOT_FINALIZED


def test_get_methods_of_money(ready: Scene) -> None:
    pot = ready.finish_epoch()
    before = ready.state()
    tree = ready.settle_shares({ALICE: pot - 5, BOB: 5})
    assert ready.claim(ALICE, tree).refusal is None
    ready.pay(2 * NANO)
    state = ready.state()
    assert state.fees_collected_nanoton == before.pending_fees_nanoton - state.pending_fees_nanoton > 0
    assert ready.get(ready.rewards, "get_distribution_stats") == [
        before.received_before_nanoton + 2 * NANO - fees.PAYMENT_NANOTON,
        pot - 5,
        state.fees_collected_nanoton,
        state.pending_fees_nanoton,
    ]
    assert ready.get(ready.rewards, "get_paid", address_slice(ALICE)) == [pot - 5]
    assert ready.get(ready.rewards, "get_paid", address_slice(BOB)) == [0]
    landed = state.landed
    assert ready.get(ready.rewards, "get_epoch_certificate") == [
        1,
        ready.ledger.now,
        int.from_bytes(landed.payload_hash, "big"),
        int.from_bytes(tree.root_hash, "big"),
        0,
        pot,
    ]
    assert ready.get(ready.rewards, "get_liabilities") == [
        2 * NANO - fees.PAYMENT_NANOTON, 0, state.pending_fees_nanoton, 5,
    ]  # fmt: skip
    assert sum(ready.get(ready.rewards, "get_liabilities")) == state.liabilities_nanoton
