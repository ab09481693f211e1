"""Claims: who is paid what, once, whoever asks and however late; and the books over random lives."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout, proof
from contracts.devchain.errors import DevchainError
from contracts.errors import InvalidValueError
from contracts.model import NANO, Address
from contracts.opcodes import Event, Op, Refusal
from contracts.proof import totals_tree
from tests.contracts.lone_rewards import LoneRewards, landed, made_state
from tests.contracts.pool_scene import ANYONE, PARTICIPANTS, Scene, Sent, account, leaf

ALICE, BOB, CAROL = PARTICIPANTS[:3]


def test_claim_pays_the_leafs_address_whoever_delivers(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot // 2, BOB: pot // 4})
    own, relayed = ready.claim(ALICE, tree), ready.claim(BOB, tree, source=CAROL)
    assert pot // 2 < own.received(ALICE) <= pot // 2 + fees.CLAIM_NANOTON
    assert relayed.received(BOB) == pot // 4, "to the last nanoTON"
    assert fees.CLAIM_NANOTON * 3 // 5 < relayed.received(CAROL) < fees.CLAIM_NANOTON
    assert ready.state().paid_nanoton == {ALICE.account: pot // 2, BOB.account: pot // 4}
    assert [out.op for out in own.at(ready.rewards).out_messages if out.dest] == [Op.PAYOUT]


def test_a_claim_says_what_it_pays_and_what_was_paid_in_all(ready: Scene) -> None:
    first = ready.finish_epoch() // 2
    sent = ready.claim(ALICE, ready.settle_shares({ALICE: first}), source=CAROL)
    assert claimed(sent) == [{"participant": ALICE, "amount": first, "paid": first}]
    second = ready.finish_epoch() // 4
    tree = ready.settle_shares({ALICE: first + second})
    sent = ready.claim(ALICE, tree)
    assert claimed(sent) == [{"participant": ALICE, "amount": second, "paid": first + second}]
    assert claimed(ready.claim(ALICE, tree)) == [], "a refusal says nothing"


def claimed(sent: Sent) -> list[dict[str, Any]]:
    assert {event.op for event in sent.events} <= {Event.EVENT_REWARDS_CLAIMED}
    return [event.values for event in sent.events]


def test_claim_twice_pays_once(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot})
    assert ready.claim(ALICE, tree).refusal is None
    for source in (ALICE, BOB):
        sent = ready.claim(ALICE, tree, source=source)
        assert sent.refusal is Refusal.NOTHING_TO_PAY
        assert sent.received(source) > fees.CLAIM_NANOTON * 3 // 5
    assert ready.state().distributed_nanoton == pot


def test_a_first_claim_leaves_the_rent_of_its_place_in_the_books(ready: Scene) -> None:
    share = ready.finish_epoch() // 20
    tree = ready.settle_shares(dict.fromkeys(PARTICIPANTS, share))
    ready.send(ANYONE, ready.rewards, NANO, layout.top_up_body())  # pays the rent until now
    before = ready.balance(ready.rewards)
    for i, participant in enumerate(PARTICIPANTS):
        source = participant if i % 2 else ANYONE
        sent = ready.claim(participant, tree, source=source)
        assert sent.received(source) - (share if i % 2 else 0) < fees.CLAIM_NANOTON - fees.PAYEE_RENT_NANOTON
    own = len(PARTICIPANTS) * fees.PAYEE_RENT_NANOTON
    assert ready.balance(ready.rewards) == before - len(PARTICIPANTS) * share + own

    ready.finish_epoch()
    tree = ready.settle_shares(dict.fromkeys(PARTICIPANTS, 2 * share))
    ready.send(ANYONE, ready.rewards, NANO, layout.top_up_body())
    before = ready.balance(ready.rewards)
    for participant in PARTICIPANTS:
        sent = ready.claim(participant, tree, source=ANYONE)
        assert sent.received(ANYONE) > fees.CLAIM_NANOTON - fees.PAYEE_RENT_NANOTON
    assert ready.balance(ready.rewards) == before - len(PARTICIPANTS) * share


def test_one_claim_pays_for_ten_epochs(ready: Scene) -> None:
    earned = 0
    for _ in range(10):
        earned += ready.finish_epoch()
        tree = ready.settle_shares({ALICE: earned - 7, BOB: 7})
    sent = ready.claim(ALICE, tree, source=ANYONE)
    assert sent.received(ALICE) == earned - 7
    assert ready.claim(ALICE, tree).refusal is Refusal.NOTHING_TO_PAY


def test_claim_against_the_root_before(ready: Scene) -> None:
    first = ready.finish_epoch()
    older = ready.settle_shares({ALICE: first})
    second = ready.finish_epoch()
    newer = ready.settle_shares({ALICE: first + second})
    assert ready.claim(ALICE, older, source=ANYONE).received(ALICE) == first
    assert ready.claim(ALICE, newer, source=ANYONE).received(ALICE) == second
    assert ready.claim(ALICE, older).refusal is Refusal.NOTHING_TO_PAY
    ready.finish_epoch()
    ready.settle_shares({ALICE: first + second, BOB: 1})
    assert ready.claim(ALICE, older).refusal is Refusal.WRONG_ROOT, "two settlements back is too old"


def test_claim_against_another_root(ready: Scene) -> None:
    pot = ready.finish_epoch()
    assert ready.claim(ALICE, totals_tree([leaf(ALICE, pot)])).refusal is Refusal.WRONG_ROOT
    ready.settle_shares({ALICE: pot})
    assert ready.claim(ALICE, totals_tree([leaf(ALICE, pot + 1)])).refusal is Refusal.WRONG_ROOT
    assert ready.claim(BOB, totals_tree([leaf(BOB, pot)])).refusal is Refusal.WRONG_ROOT


def test_claim_of_a_leaf_that_is_not_there(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares(dict.fromkeys(PARTICIPANTS[:8], pot // 8))
    stranger = account("stranger")
    for other in (stranger, BOB):
        body = layout.claim_body(other, tree.prove(ALICE))
        sent = ready.send(ANYONE, ready.rewards, fees.CLAIM_NANOTON, body)
        assert sent.refusal is Refusal.NO_LEAF, "outside the proof, pruned or absent"
    assert ready.claim(BOB, tree).refusal is None


def test_claim_without_a_proof(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot})
    assert tree.root is not None
    ordinary = Builder().store_uint(3, 8).store_bytes(tree.root_hash).store_uint(0, 16).store_ref(tree.root)
    for cell in (tree.root, ordinary.end_cell(), Builder().end_cell()):
        sent = ready.send(ALICE, ready.rewards, fees.CLAIM_NANOTON, layout.claim_body(ALICE, cell))
        assert sent.refusal is Refusal.NOT_A_PROOF


def test_a_forged_proof_does_not_even_load(ready: Scene) -> None:
    """It states the landed root above a leaf that was never in it: no node takes such a cell."""
    pot = ready.finish_epoch()
    landed = ready.settle_shares({ALICE: pot, BOB: 0}).prove(ALICE)
    forged = totals_tree([leaf(ALICE, pot), leaf(BOB, pot)]).prove(BOB)
    cell = Cell(landed.bits, forged.refs, 3)
    with pytest.raises(DevchainError):
        ready.send(BOB, ready.rewards, fees.CLAIM_NANOTON, layout.claim_body(BOB, cell))
    assert ready.state().paid_nanoton == {}


def test_claim_needs_its_gas(ready: Scene) -> None:
    tree = ready.settle_shares({ALICE: ready.finish_epoch()})
    body = layout.claim_body(ALICE, tree.prove(ALICE))
    sent = ready.send(ALICE, ready.rewards, NANO // 100, body)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE
    assert ready.state().paid_nanoton == {}


def test_leaves_that_exceed_their_total_are_paid_up_to_it(ready: Scene) -> None:
    """A quorum may lie about the sum; it cannot reach what was not allotted."""
    pot = ready.finish_epoch()
    leaves = [leaf(ALICE, pot), leaf(BOB, pot)]
    assert ready.settle(leaves, total_earned_nanoton=pot).refusal is None
    tree = totals_tree(leaves)
    assert ready.claim(ALICE, tree).refusal is None
    assert ready.claim(BOB, tree).refusal is Refusal.CLAIMS_OVER_TOTAL


def test_claims_survive_open_epochs_and_payments(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot})
    ready.finish_epoch()
    ready.pay(5 * NANO)
    open_before = ready.state().open_epochs
    assert ready.claim(ALICE, tree, source=ANYONE).received(ALICE) == pot
    assert ready.state().open_epochs == open_before


def test_what_is_owed_to_others_is_never_paid_out() -> None:
    """With a balance below its debts (which rent alone can bring about) a claim waits for a top-up."""
    leaves = [leaf(ALICE, 5 * NANO), leaf(BOB, 5 * NANO)]
    rewards = LoneRewards(made_state(landed(leaves)), own_nanoton=-5 * NANO)
    body = layout.claim_body(ALICE, totals_tree(leaves).prove(ALICE))
    assert rewards.send(ALICE, fees.CLAIM_NANOTON, body).exit_code == Refusal.UNDERFUNDED
    rewards.send(ANYONE, 6 * NANO, layout.top_up_body())
    assert rewards.send(ALICE, fees.CLAIM_NANOTON, body).exit_code == 0


def test_a_leaf_of_nothing_is_paid_nothing(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot, BOB: 0})
    assert ready.claim(BOB, tree).refusal is Refusal.NOTHING_TO_PAY
    assert BOB.account not in ready.state().paid_nanoton


def test_a_nanoton_is_paid(ready: Scene) -> None:
    pot = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot - 1, BOB: 1})
    assert ready.claim(BOB, tree, source=ANYONE).received(BOB) == 1


def test_a_leaf_that_shrinks_is_paid_when_it_has_grown_again(ready: Scene) -> None:
    """A quorum that takes earnings back cannot take back what was paid; nothing is paid twice."""
    pot = ready.finish_epoch()
    ready.claim(ALICE, ready.settle_shares({ALICE: pot}))
    second = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot - 10, BOB: second})
    assert ready.claim(ALICE, tree).refusal is Refusal.NOTHING_TO_PAY
    assert ready.state().paid_nanoton == {ALICE.account: pot}
    third = ready.finish_epoch()
    tree = ready.settle_shares({ALICE: pot + 7, BOB: second + third - 17})
    assert ready.claim(ALICE, tree, source=ANYONE).received(ALICE) == 7


def test_books_balance_over_random_lives(ready: Scene) -> None:
    """Random payments, finalizations, settlements and claims; `Scene` checks after each message."""
    rng = random.Random(20260)
    earned: dict[Address, int] = {}
    trees: list[proof.TotalsTree] = []
    for _ in range(120):
        step = rng.choice(["pay", "pay", "finish", "settle", "claim", "claim", "claim"])
        if step == "pay":
            ready.pay(rng.randrange(fees.PAYMENT_NANOTON + 1, 50 * NANO))
        elif step == "finish":
            ready.finish_epoch(rng.randrange(NANO, 50 * NANO))
        elif step == "settle" and (epochs := ready.state().open_epochs):
            pot = epochs[0].pot_nanoton
            for participant in rng.sample(PARTICIPANTS, 5):
                earned[participant] = earned.get(participant, 0) + rng.randrange(pot // 5)
            trees = [*trees, ready.settle_shares(earned)][-2:]
        elif step == "claim" and trees:
            tree = rng.choice(trees)
            participant = rng.choice(sorted(earned))
            if participant in {leaf_of for leaf_of in earned if has_leaf(tree, leaf_of)}:
                refusal = ready.claim(participant, tree, source=rng.choice([participant, ANYONE])).refusal
                assert refusal in (None, Refusal.NOTHING_TO_PAY)
    for participant in earned:
        ready.claim(participant, trees[-1])
    assert ready.state().paid_nanoton == {p.account: amount for p, amount in earned.items() if amount}


def has_leaf(tree: proof.TotalsTree, participant: Address) -> bool:
    try:
        tree.prove(participant)
    except InvalidValueError:
        return False
    return True
