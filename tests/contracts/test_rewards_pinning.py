"""What an epoch keeps from its beginning: operator set, policy, fee, refund cap; and who settles if the set is lost."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from contracts import layout
from contracts.commands import ProposeParams
from contracts.model import DAY_S, NANO, EpochTerms, OpenEpoch
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import PARAMS, PARTICIPANTS, TERMS, Scene, leaf

ALICE, BOB = PARTICIPANTS[:2]
OTHER_POLICY = hashlib.sha256(b"another policy").digest()
LOST_S = 3 * DAY_S


def change_terms(scene: Scene, **over: Any) -> EpochTerms:
    """Put other terms in force: propose, wait, apply."""
    terms = replace(TERMS, **over)
    proposal = ProposeParams(gov_seqno=scene.gov_seqno, params=replace(PARAMS, terms=terms))
    assert scene.act(proposal).refusal is None
    scene.advance(PARAMS.parameter_delay_s)
    assert scene.apply_params().refusal is None
    return terms


def finish(scene: Scene) -> OpenEpoch:
    scene.finish_epoch()
    return scene.state().open_epochs[-1]


def settle_by(scene: Scene, set_id: int) -> Refusal | None:
    """A settlement of the oldest open epoch by this set."""
    pot = scene.state().open_epochs[0].pot_nanoton
    earned = scene.state().landed.total_earned_nanoton + pot
    return scene.settle([leaf(ALICE, earned)], set_id=set_id).refusal


# ---- terms ----


def test_new_terms_begin_with_the_epoch_after_the_running_one(ready: Scene) -> None:
    finish(ready)
    terms = change_terms(ready, fee_bps=2500, policy_hash=OTHER_POLICY, max_refund_nanoton=0)
    state = ready.state()
    assert (state.running.terms, state.next.terms) == (TERMS, terms)
    running, after = finish(ready), finish(ready)
    assert (running.pinned.terms, after.pinned.terms) == (TERMS, terms)
    assert ready.state().running.terms == terms


def test_the_fee_is_the_one_that_the_epoch_began_with(ready: Scene) -> None:
    change_terms(ready, fee_bps=2500)
    old, new = finish(ready), finish(ready)
    for epoch, bps in ((old, 500), (new, 2500)):
        assert epoch.fee_nanoton == (epoch.pot_nanoton + epoch.fee_nanoton) * bps // 10_000


def test_the_policy_is_the_one_that_the_epoch_began_with(ready: Scene) -> None:
    change_terms(ready, policy_hash=OTHER_POLICY)
    old, new = finish(ready), finish(ready)
    first = [leaf(ALICE, old.pot_nanoton)]
    assert ready.settle(first, policy_hash=OTHER_POLICY).refusal is Refusal.WRONG_POLICY
    assert ready.settle(first, policy_hash=TERMS.policy_hash).refusal is None
    second = [leaf(ALICE, old.pot_nanoton + new.pot_nanoton)]
    assert ready.settle(second, policy_hash=TERMS.policy_hash).refusal is Refusal.WRONG_POLICY
    assert ready.settle(second, policy_hash=OTHER_POLICY).refusal is None


def test_the_refund_cap_is_the_one_that_the_epoch_began_with(ready: Scene) -> None:
    change_terms(ready, max_refund_nanoton=1000)
    finish(ready), finish(ready)
    refunds = []
    for _ in range(2):
        fees_before = ready.state().pending_fees_nanoton
        assert settle_by(ready, 1) is None
        refunds.append(fees_before - ready.state().pending_fees_nanoton)
    assert refunds[0] > 1000 == refunds[1]


def test_terms_told_twice_before_an_epoch_ends_count_as_told_last(ready: Scene) -> None:
    change_terms(ready, fee_bps=2500)
    change_terms(ready, fee_bps=100)
    assert finish(ready).pinned.terms.fee_bps == 500
    assert finish(ready).pinned.terms.fee_bps == 100


def test_terms_are_told_with_an_event(ready: Scene) -> None:
    change_terms(ready, fee_bps=2500)
    told = [event for event in ready.books.events if event.op == Event.EVENT_TERMS_UPDATED]
    assert told[-1].values["set_id"] == 1


# ---- operator sets ----


def test_an_epoch_that_began_under_the_owner_settles_by_whoever_commands(scene: Scene) -> None:
    pot = scene.finish_epoch()
    payload = scene.payload([leaf(ALICE, pot)])
    scene.books.know([leaf(ALICE, pot)], payload)
    assert scene.owner_command(payload).refusal is None
    before, running = finish(scene), scene.state()
    assert (before.set_id, running.running.set_id) == (0, 0)
    scene.hand_over()
    assert finish(scene).set_id == 0, "it began before the hand-over"
    assert finish(scene).set_id == 1
    scene.rotate()
    assert settle_by(scene, 1) is None, "the previous set"
    assert settle_by(scene, 2) is None, "the current one"


def test_the_set_of_the_beginning_settles_though_another_is_in_charge(ready: Scene) -> None:
    ready.finish_epoch()
    ready.settle([])
    epoch = finish(ready)
    ready.rotate()
    ready.finish_epoch()
    later = finish(ready)
    assert (epoch.set_id, later.set_id) == (1, 2)
    ready.settle([])
    assert settle_by(ready, 1) is None
    assert settle_by(ready, 1) is Refusal.NOT_PINNED_SET, "nor does the older set settle a newer one's epoch"
    assert settle_by(ready, 2) is None


def test_a_newer_set_settles_for_a_lost_one_after_three_days(ready: Scene) -> None:
    ready.finish_epoch()
    ready.settle([])
    ready.rotate()
    epoch = finish(ready)
    assert epoch.set_id == 1
    assert settle_by(ready, 2) is Refusal.NOT_PINNED_SET
    ready.ledger.advance(epoch.finalized_s + LOST_S - 1)
    assert settle_by(ready, 2) is Refusal.NOT_PINNED_SET
    ready.ledger.advance(epoch.finalized_s + LOST_S)
    assert settle_by(ready, 2) is None


def test_a_lost_set_may_still_settle_after_three_days(ready: Scene) -> None:
    ready.finish_epoch()
    ready.settle([])
    ready.rotate()
    epoch = finish(ready)
    ready.ledger.advance(epoch.finalized_s + 2 * LOST_S)
    assert settle_by(ready, 1) is None


def test_an_older_set_never_settles_for_a_newer_one(ready: Scene) -> None:
    ready.finish_epoch()
    ready.rotate()
    ready.finish_epoch()
    epoch = finish(ready)
    assert epoch.set_id == 2
    ready.settle([])
    ready.settle([])
    ready.ledger.advance(epoch.finalized_s + 10 * LOST_S)
    assert settle_by(ready, 1) is Refusal.NOT_PINNED_SET
    assert settle_by(ready, 2) is None


def test_two_rotations_later_the_sets_in_between_settle(ready: Scene) -> None:
    """The pinned set cannot sign any more; without the way out nothing would ever settle again."""
    ready.finish_epoch()
    ready.settle([])
    ready.rotate()
    epoch = finish(ready)
    ready.rotate()
    assert epoch.set_id == 1
    assert settle_by(ready, 1) is Refusal.WRONG_SET
    assert ready.ledger.now >= epoch.finalized_s + LOST_S
    assert settle_by(ready, 2) is None


@pytest.mark.parametrize("name", ["stranger", "registry", "rewards"])
def test_terms_come_from_the_pool_alone(ready: Scene, name: str) -> None:
    source = BOB if name == "stranger" else getattr(ready, name)
    body = layout.body_cell(Op.DISTRIBUTION_UPDATE_TERMS, next=ready.state().next, excess_to=BOB)
    assert ready.send(source, ready.rewards, NANO, body).refusal is Refusal.NOT_POOL
