"""Push: many participants paid at once by one proof, by anyone, each to its own address and each once."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout, proof
from contracts.model import NANO, PAYOUTS_MAX, Address
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.lone_rewards import PINNED, LoneRewards, landed, made_state
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, TERMS, Scene, Sent, account, leaf

ALICE, BOB, CAROL, DAVE = PARTICIPANTS[:4]


@pytest.fixture
def shared(ready: Scene) -> tuple[Scene, proof.TotalsTree, int]:
    """Ten participants with equal shares of the first epoch; the share."""
    share = ready.finish_epoch() // 10
    return ready, ready.settle_shares(dict.fromkeys(PARTICIPANTS, share)), share


def push_raw(scene: Scene, count: int, participants: Cell, tree: proof.TotalsTree) -> Sent:
    """A push whose list is not what `layout` would make of it."""
    fields = {"count": count, "participants": participants, "proof": tree.prove_many(PARTICIPANTS)}
    body = layout.body_cell(Op.DISTRIBUTION_EXECUTE_BATCH, **fields)
    return scene.send(ANYONE, scene.rewards, NANO, body)


def paid_out(sent: Sent) -> dict[Address, int]:
    """nanoTON to each participant."""
    return {p: sent.received(p) for p in PARTICIPANTS if sent.received(p)}


def test_push_pays_each_its_own_to_the_last_nanoton(ready: Scene) -> None:
    pot = ready.finish_epoch()
    earned = {p: (i + 1) * pot // 100 for i, p in enumerate(PARTICIPANTS)}
    tree = ready.settle_shares(earned)
    sent = ready.push(PARTICIPANTS, tree)
    assert sent.refusal is None
    assert paid_out(sent) == earned
    state = ready.state()
    assert state.paid_nanoton == {p.account: amount for p, amount in earned.items()}
    assert state.distributed_nanoton == sum(earned.values())
    left = fees.push_nanoton(10) - 10 * fees.PAYEE_RENT_NANOTON
    assert left - NANO // 20 < sent.received(ANYONE) < left, "the rest goes back to who pushed"
    (event,) = sent.events
    assert event.op == Event.EVENT_BATCH_DISTRIBUTED
    assert event.values == {"count": 10, "amount": sum(earned.values())}


def test_a_push_leaves_the_rent_of_each_payee_that_is_new(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    assert scene.push([ALICE, BOB], tree).refusal is None
    scene.send(ANYONE, scene.rewards, NANO, layout.top_up_body())  # pays the rent until now
    before = scene.balance(scene.rewards)
    for batch, new in (([ALICE, BOB, CAROL, DAVE], 2), (PARTICIPANTS, 6)):
        assert scene.push(batch, tree).refusal is None
        before += new * (fees.PAYEE_RENT_NANOTON - share)
        assert scene.balance(scene.rewards) == before


def test_claim_then_push(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    assert scene.claim(ALICE, tree).refusal is None
    assert paid_out(scene.push([ALICE, BOB], tree)) == {BOB: share}


def test_push_then_claim(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    assert paid_out(scene.push([ALICE, BOB], tree)) == {ALICE: share, BOB: share}
    assert scene.claim(ALICE, tree).refusal is Refusal.NOTHING_TO_PAY
    assert scene.claim(CAROL, tree, source=ANYONE).received(CAROL) == share


def test_overlapping_pushes(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    scene.push([ALICE, BOB, CAROL], tree)
    assert paid_out(scene.push([BOB, CAROL, DAVE], tree)) == {DAVE: share}
    assert scene.push([ALICE, BOB, CAROL, DAVE], tree).refusal is Refusal.NOTHING_TO_PAY
    assert scene.state().distributed_nanoton == 4 * share


def test_who_stands_twice_is_paid_once(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    sent = push_raw(scene, 4, layout.account_chain([ALICE, BOB, ALICE, ALICE]), tree)
    assert paid_out(sent) == {ALICE: share, BOB: share}
    assert sent.events[0].values == {"count": 2, "amount": 2 * share}


def test_push_on_the_root_before(ready: Scene) -> None:
    first = ready.finish_epoch()
    older = ready.settle_shares({ALICE: first, BOB: 0})
    second = ready.finish_epoch()
    newer = ready.settle_shares({ALICE: first + 1, BOB: second - 1})
    assert paid_out(ready.push([ALICE, BOB], older)) == {ALICE: first}
    assert paid_out(ready.push([ALICE, BOB], newer)) == {ALICE: 1, BOB: second - 1}
    assert ready.push([ALICE], older).refusal is Refusal.NOTHING_TO_PAY
    ready.finish_epoch()
    ready.settle_shares({ALICE: first + 2, BOB: second - 1})
    assert ready.push([ALICE], older).refusal is Refusal.WRONG_ROOT


def test_push_of_other_totals(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, share = shared
    forged = proof.totals_tree([leaf(p, share + 1) for p in PARTICIPANTS])
    assert scene.push([ALICE], forged).refusal is Refusal.WRONG_ROOT
    assert tree.root is not None
    body = layout.push_body([ALICE], tree.root)
    assert scene.send(ANYONE, scene.rewards, NANO, body).refusal is Refusal.NOT_A_PROOF


def test_one_who_is_not_in_the_proof_stops_the_batch(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, _ = shared
    for other in (CAROL, account("stranger")):
        body = layout.push_body([ALICE, other], tree.prove_many([ALICE, BOB]))
        sent = scene.send(ANYONE, scene.rewards, NANO, body)
        assert sent.refusal is Refusal.NO_LEAF
        assert paid_out(sent) == {}
    assert scene.state().paid_nanoton == {}


def test_more_listed_than_announced(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    """The value was checked against what is announced."""
    scene, tree, _ = shared
    chain = layout.account_chain([ALICE, BOB, CAROL, DAVE])
    assert push_raw(scene, 3, chain, tree).refusal is Refusal.TOO_MANY_PAYOUTS
    assert push_raw(scene, 0, chain, tree).refusal is Refusal.TOO_MANY_PAYOUTS
    assert scene.state().paid_nanoton == {}
    assert len(paid_out(push_raw(scene, 5, chain, tree))) == 4


@pytest.mark.parametrize("count", [PAYOUTS_MAX + 1, 255])
def test_more_than_fits_one_transaction(shared: tuple[Scene, proof.TotalsTree, int], count: int) -> None:
    scene, tree, _ = shared
    assert push_raw(scene, count, layout.account_chain([ALICE]), tree).refusal is Refusal.TOO_MANY_PAYOUTS


def test_a_list_that_is_none(shared: tuple[Scene, proof.TotalsTree, int]) -> None:
    scene, tree, _ = shared
    truncated = Builder().store_uint(3, 2).store_bytes(ALICE.account + BOB.account).store_bit(0).end_cell()
    nobody = Builder().store_uint(0, 2).store_bit(0).end_cell()
    for broken in (Cell.empty(), truncated):
        sent = push_raw(scene, 3, broken, tree)
        assert sent.refusal is Refusal.NO_LEAF
        assert sent.received(ANYONE) > NANO * 9 // 10
    assert push_raw(scene, 3, nobody, tree).refusal is Refusal.NOTHING_TO_PAY
    assert scene.state().paid_nanoton == {}


@pytest.mark.parametrize("count", [1, 9, PAYOUTS_MAX])
def test_push_needs_the_gas_of_what_it_announces(shared: tuple[Scene, proof.TotalsTree, int], count: int) -> None:
    scene, tree, _ = shared
    fields = {"count": count, "participants": layout.account_chain([ALICE]), "proof": tree.prove(ALICE)}
    body = layout.body_cell(Op.DISTRIBUTION_EXECUTE_BATCH, **fields)
    assert scene.send(ANYONE, scene.rewards, NANO // 50, body).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.send(ANYONE, scene.rewards, fees.push_nanoton(count), body).refusal is None


@pytest.mark.parametrize("source", [ANYONE, ALICE])
def test_anyone_pushes_and_nobody_gains(shared: tuple[Scene, proof.TotalsTree, int], source: Address) -> None:
    """A participant who pushes gets its share as a payout, and the rest of its value as an excess."""
    scene, tree, share = shared
    value = fees.push_nanoton(2)
    sent = scene.send(source, scene.rewards, value, layout.push_body([ALICE, BOB], tree.prove_many([ALICE, BOB])))
    payouts = {out.dest: out.value_nanoton for out in sent.at(scene.rewards).out_messages if out.op == Op.PAYOUT}
    assert payouts == {ALICE: share, BOB: share}
    assert sent.received(source) < value + (share if source == ALICE else 0)


# ---- what the terms let ----


def scene_with(**over: Any) -> Scene:
    scene = Scene()
    scene.deploy(replace(PARAMS, terms=replace(TERMS, **over)))
    scene.hand_over()
    return scene


def test_push_where_the_terms_leave_it_to_claims() -> None:
    scene = scene_with(auto_distribute=False)
    tree = scene.settle_shares({ALICE: scene.finish_epoch()})
    sent = scene.push([ALICE], tree)
    assert sent.refusal is Refusal.NOT_AUTOMATIC
    assert sent.received(ANYONE) > fees.push_nanoton(1) - NANO // 50
    assert scene.claim(ALICE, tree).refusal is None


def test_less_than_is_worth_a_message_waits_for_more_or_for_a_claim() -> None:
    scene = scene_with(min_distribution_nanoton=NANO)
    first = scene.finish_epoch()
    tree = scene.settle_shares({ALICE: NANO, BOB: NANO - 1, CAROL: NANO - 1})
    assert paid_out(scene.push([ALICE, BOB, CAROL], tree)) == {ALICE: NANO}
    assert scene.push([BOB, CAROL], tree).refusal is Refusal.NOTHING_TO_PAY
    assert scene.state().paid_nanoton == {ALICE.account: NANO}
    assert scene.claim(CAROL, tree, source=ANYONE).received(CAROL) == NANO - 1
    scene.finish_epoch()
    tree = scene.settle_shares({ALICE: 2 * NANO - 1, BOB: NANO + 5, CAROL: first // 2})
    assert paid_out(scene.push([ALICE, BOB, CAROL], tree)) == {BOB: NANO + 5, CAROL: first // 2 - NANO + 1}


def test_what_counts_is_what_the_running_epoch_began_with() -> None:
    """Not the terms that wait for the next epoch, nor those of the settled one."""
    leaves = [leaf(ALICE, 5 * NANO)]
    manual = replace(PINNED, terms=replace(TERMS, auto_distribute=False))
    body = layout.push_body([ALICE], proof.totals_tree(leaves).prove(ALICE))
    for running, following, exit_code in ((manual, PINNED, Refusal.NOT_AUTOMATIC), (PINNED, manual, 0)):
        rewards = LoneRewards(made_state(landed(leaves), running=running, next=following))
        assert rewards.send(ANYONE, NANO, body).exit_code == exit_code


# ---- the books ----


def test_leaves_that_exceed_their_total_are_not_pushed(ready: Scene) -> None:
    pot = ready.finish_epoch()
    leaves = [leaf(ALICE, pot), leaf(BOB, 1)]
    assert ready.settle(leaves, total_earned_nanoton=pot).refusal is None
    tree = proof.totals_tree(leaves)
    assert ready.push([ALICE, BOB], tree).refusal is Refusal.CLAIMS_OVER_TOTAL
    assert ready.state().paid_nanoton == {}
    assert ready.push([ALICE], tree).refusal is None


def test_push_never_pays_what_is_owed_to_others() -> None:
    leaves = [leaf(ALICE, 5 * NANO), leaf(BOB, 5 * NANO)]
    rewards = LoneRewards(made_state(landed(leaves)), own_nanoton=-5 * NANO)
    body = layout.push_body([ALICE], proof.totals_tree(leaves).prove(ALICE))
    assert rewards.send(ANYONE, NANO, body).exit_code == Refusal.UNDERFUNDED
    assert rewards.state().paid_nanoton == {}


def test_a_hundred_payouts_in_one_message() -> None:
    everyone = [account(f"many {i}") for i in range(100)]
    leaves = [leaf(p, NANO + i) for i, p in enumerate(everyone)]
    rewards = LoneRewards(made_state(landed(leaves)), own_nanoton=NANO)
    body = layout.push_body(everyone, proof.totals_tree(leaves).prove_many(everyone))
    pushed = rewards.send(ANYONE, fees.push_nanoton(100), body)
    assert (pushed.exit_code, pushed.action_code in (None, 0)) == (0, True)
    assert all(rewards.ledger.account(p).balance_nanoton == NANO + i for i, p in enumerate(everyone))
    assert rewards.state().unpaid_nanoton == 0
    assert rewards.balance >= NANO * 99 // 100


def test_random_pushes_and_claims_pay_everything_once(ready: Scene) -> None:
    rng = random.Random(7)
    earned = dict.fromkeys(PARTICIPANTS, 0)
    tree = None
    for _ in range(6):
        pot = ready.finish_epoch()
        for participant in PARTICIPANTS:
            earned[participant] += rng.randrange(pot // 10)
        tree = ready.settle_shares(earned)
        for _ in range(3):
            batch = rng.sample(PARTICIPANTS, rng.randrange(1, 8))
            assert ready.push(batch, tree).refusal in (None, Refusal.NOTHING_TO_PAY)
            assert ready.claim(rng.choice(PARTICIPANTS), tree).refusal in (None, Refusal.NOTHING_TO_PAY)
    assert tree is not None
    ready.push(PARTICIPANTS, tree)
    assert ready.state().paid_nanoton == {p.account: amount for p, amount in earned.items()}
