"""ParticipantRegistry: what an owner does with its stake. Statuses stand in test_registry_status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts import fees, layout
from contracts.commands import Pause, ProposeParams, SetReputation
from contracts.model import DAY_S, NANO, Address, ParticipantStatus, StakeRules
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import ANYONE, GUARDIAN, OWNER, PARAMS, PARTICIPANTS, STAKE, Scene, Sent, node_key
from tests.contracts.registry_cases import (
    APPEAL_S,
    WITHDRAWAL_S,
    enter,
    found,
    remove,
    slash,
    suspend,
)

ALICE, BOB, CAROL = PARTICIPANTS[:3]
COST_MAX = NANO // 50
"""What any of these may burn, with all that follows."""


def paid_back(sent: Sent, owner: Address) -> int:
    """nanoTON that came to `owner` as stake returned."""
    outs = [out for t in sent.transactions for out in t.out_messages]
    return sum(out.value_nanoton for out in outs if out.op == Op.REGISTRY_STAKE_RETURNED and out.dest == owner)


def logged(sent: Sent) -> list[tuple[Event, dict[str, object]]]:
    return [(Event(event.op), event.values) for event in sent.events]


# ---- increase ----


def test_more_stake_is_added_and_the_rest_returned(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    before = scene.balance(scene.registry)
    sent = scene.increase_stake(ALICE, 7 * NANO, value=10 * NANO)
    assert sent.refusal is None
    assert scene.participant(ALICE).stake_nanoton == STAKE + 7 * NANO
    assert scene.balance(scene.registry) == before + 7 * NANO
    assert 3 * NANO - COST_MAX < sent.received(ALICE) < 3 * NANO
    event = {"owner": ALICE, "amount": 7 * NANO, "stake": STAKE + 7 * NANO}
    assert logged(sent) == [(Event.EVENT_STAKE_INCREASED, event)]


@pytest.mark.parametrize(
    ("amount", "value", "refusal"),
    [
        (0, NANO, Refusal.NOTHING_STAKED),
        (NANO, NANO, Refusal.INSUFFICIENT_VALUE),
        (2**119, NANO, Refusal.INSUFFICIENT_VALUE),
    ],
)
def test_a_refused_increase_returns_the_value(scene: Scene, amount: int, value: int, refusal: Refusal) -> None:
    enter(scene, ALICE, STAKE)
    sent = scene.increase_stake(ALICE, amount, value=value)
    assert sent.refusal is refusal
    assert sent.received(ALICE) > value - COST_MAX
    assert scene.participant(ALICE).stake_nanoton == STAKE


def test_a_paused_pool_takes_no_more_stake_and_lets_stake_go(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.act(Pause(gov_seqno=scene.gov_seqno)).refusal is None
    assert scene.increase_stake(ALICE, NANO).refusal is Refusal.CONTRIBUTIONS_PAUSED
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert scene.cancel_withdrawal(ALICE).refusal is None
    assert scene.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    assert scene.heartbeat(ALICE).refusal is None
    scene.advance(WITHDRAWAL_S)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == 2 * STAKE


def test_the_guardians_pause_ends_by_itself() -> None:
    scene = Scene()
    assert scene.deploy(replace(PARAMS, emergency=True, guardian=GUARDIAN)).refusal is None
    enter(scene, ALICE, STAKE)
    assert scene.guardian_pause().refusal is None
    scene.advance(14 * DAY_S - 1)
    assert scene.increase_stake(ALICE, NANO).refusal is Refusal.CONTRIBUTIONS_PAUSED
    scene.advance(1)
    assert scene.increase_stake(ALICE, NANO).refusal is None


# ---- withdraw ----


@pytest.mark.parametrize(
    ("amount", "refusal"),
    [
        (0, Refusal.NOTHING_STAKED),
        (1, None),
        (STAKE + NANO // 2 - 1, None),
        (STAKE + NANO // 2, None),
        (2 * STAKE + NANO // 2, None),
        (2 * STAKE + NANO // 2 + 1, Refusal.OVER_STAKE),
        (2**120 - 1, Refusal.OVER_STAKE),
    ],
)
def test_how_much_can_be_asked_back(scene: Scene, amount: int, refusal: Refusal | None) -> None:
    enter(scene, ALICE, 2 * STAKE + NANO // 2)
    assert scene.request_withdrawal(ALICE, amount).refusal is refusal
    asked = 0 if refusal else amount
    assert scene.participant(ALICE).pending_nanoton == asked
    assert scene.registry_state().total_pending_nanoton == asked


@pytest.mark.parametrize("left", [1, STAKE - 1])
def test_trap_7_a_withdrawal_leaves_nothing_or_the_minimum(scene: Scene, left: int) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, 2 * STAKE - left).refusal is Refusal.STAKE_BELOW_MINIMUM
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WITHDRAWAL_S)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == STAKE
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.status) == (STAKE, ParticipantStatus.ACTIVE)


def test_a_withdrawal_early_on_time_and_twice(scene: Scene) -> None:
    enter(scene, ALICE, 3 * STAKE)
    asked = scene.request_withdrawal(ALICE, STAKE)
    ready_s = scene.ledger.now + WITHDRAWAL_S
    event = {"owner": ALICE, "amount": STAKE, "withdraw_at": ready_s}
    assert logged(asked) == [(Event.EVENT_WITHDRAWAL_REQUESTED, event)]
    scene.advance(WITHDRAWAL_S - 1)
    early = scene.complete_withdrawal(ALICE)
    assert early.refusal is Refusal.WITHDRAWAL_LOCKED
    assert paid_back(early, ALICE) == 0
    scene.advance(1)
    completed = scene.complete_withdrawal(ALICE)
    assert paid_back(completed, ALICE) == STAKE
    event = {"owner": ALICE, "amount": STAKE, "stake": 2 * STAKE}
    assert logged(completed) == [(Event.EVENT_WITHDRAWAL_COMPLETED, event)]
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.NO_WITHDRAWAL


def test_a_further_request_restarts_the_wait_for_all_of_it(scene: Scene) -> None:
    enter(scene, ALICE, 3 * STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WITHDRAWAL_S - 1)
    assert scene.request_withdrawal(ALICE, NANO).refusal is None
    scene.advance(1)
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.WITHDRAWAL_LOCKED
    scene.advance(WITHDRAWAL_S - 1)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == STAKE + NANO


def test_whoever_completes_gets_the_rest_of_the_value_and_the_owner_the_stake(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WITHDRAWAL_S)
    before = scene.balance(scene.registry)
    sent = scene.complete_withdrawal(ALICE, source=ANYONE)
    assert sent.received(ALICE) == STAKE
    assert fees.ENTRY_NANOTON - COST_MAX < sent.received(ANYONE) < fees.ENTRY_NANOTON
    assert before - STAKE - NANO // 1000 < scene.balance(scene.registry) <= before - STAKE


def test_cancelling_gives_nothing_away(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    cancelled = scene.cancel_withdrawal(ALICE)
    assert logged(cancelled)[-1] == (Event.EVENT_WITHDRAWAL_CANCELLED, {"owner": ALICE, "amount": 2 * STAKE})
    scene.advance(WITHDRAWAL_S)
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.NO_WITHDRAWAL
    assert scene.participant(ALICE).stake_nanoton == 2 * STAKE


def test_nobody_withdraws_or_cancels_for_another(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    for source in (BOB, OWNER, scene.pool):
        assert scene.request_withdrawal(source, STAKE).refusal is Refusal.NOT_REGISTERED
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert scene.cancel_withdrawal(BOB).refusal is Refusal.NOT_REGISTERED
    assert scene.participant(ALICE).pending_nanoton == STAKE


# ---- leaving, coming again ----


def leave(scene: Scene, owner: Address) -> Sent:
    assert scene.request_withdrawal(owner, scene.participant(owner).stake_nanoton).refusal is None
    scene.advance(WITHDRAWAL_S)
    return scene.complete_withdrawal(owner)


def test_an_entry_ends_with_its_stake_and_frees_its_node_key(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    left = leave(scene, ALICE)
    key = node_key(ALICE)
    event = (Event.EVENT_PARTICIPANT_REMOVED, {"owner": ALICE, "node_key": key.public})
    assert logged(left)[-1] == event
    assert found(scene, ALICE) is None
    with pytest.raises(AssertionError, match="NOT_REGISTERED"):
        scene.get(scene.registry, "get_participant_by_node_key", int.from_bytes(key.public, "big"))
    assert scene.register(BOB, key=key).refusal is None
    assert scene.register(ALICE).refusal is Refusal.NODE_KEY_TAKEN


def test_who_comes_again_is_another_participant(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    assert scene.act(SetReputation(target=scene.target(ALICE), reputation=100)).refusal is None
    old = scene.target(ALICE)
    leave(scene, ALICE)
    assert scene.register(ALICE).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.reputation, entry.seqno, entry.joined_s) == (500, 0, scene.ledger.now)
    for target in (old, replace(old, seqno=1)):
        assert scene.act(SetReputation(target=target, reputation=1)).refusal is Refusal.WRONG_SEQNO
    assert scene.participant(ALICE).reputation == 500


def test_an_entry_waits_for_its_held_stake(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE, lambda s, owner: slash(s, owner, STAKE))
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WITHDRAWAL_S)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == STAKE
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.held_nanoton, entry.status) == (0, STAKE, ParticipantStatus.INACTIVE)
    assert scene.register(ALICE).refusal is Refusal.ALREADY_REGISTERED
    assert scene.sweep_slashed(ALICE).refusal is None
    assert found(scene, ALICE) is None
    assert scene.register(ALICE).refusal is None


def test_a_removal_returns_the_whole_stake(scene: Scene) -> None:
    enter(scene, ALICE, 3 * STAKE, remove)
    entry = scene.participant(ALICE)
    assert (entry.pending_nanoton, entry.withdraw_at_s) == (3 * STAKE, scene.ledger.now + WITHDRAWAL_S)
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.WITHDRAWAL_LOCKED
    scene.advance(WITHDRAWAL_S)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == 3 * STAKE
    assert found(scene, ALICE) is None


def test_a_removal_while_all_is_held_leaves_the_sweep_to_end_it(scene: Scene) -> None:
    enter(scene, ALICE, STAKE, lambda s, owner: slash(s, owner, STAKE), remove)
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.NO_WITHDRAWAL
    scene.advance(APPEAL_S)
    assert scene.sweep_slashed(ALICE).refusal is None
    assert found(scene, ALICE) is None


# ---- suspension ----


def test_trap_9_a_withdrawal_neither_lifts_nor_hides_a_suspension(scene: Scene) -> None:
    enter(scene, ALICE, 3 * STAKE, suspend)
    assert scene.request_withdrawal(ALICE, 0).refusal is Refusal.NOTHING_STAKED
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert scene.cancel_withdrawal(ALICE).refusal is Refusal.SUSPENDED
    assert scene.increase_stake(ALICE, STAKE).refusal is None
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WITHDRAWAL_S)
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == 2 * STAKE
    assert scene.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.status, entry.stake_nanoton) == (ParticipantStatus.SUSPENDED, 2 * STAKE)
    assert suspend(scene, ALICE, lift=True).refusal is None
    assert scene.participant(ALICE).status is ParticipantStatus.WITHDRAWING


# ---- rules that change ----


def apply_rules(scene: Scene, rules: StakeRules) -> None:
    params = replace(PARAMS, rules=rules)
    assert scene.act(ProposeParams(gov_seqno=scene.gov_seqno, params=params)).refusal is None
    scene.advance(scene.pool_state().params.parameter_delay_s)
    assert scene.apply_params().refusal is None
    assert scene.registry_state().rules == rules


def test_new_rules_hold_for_what_is_done_under_them(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, NANO).refusal is None
    asked = scene.participant(ALICE)
    apply_rules(scene, StakeRules(min_stake_nanoton=3 * STAKE, withdrawal_delay_s=3600))
    assert scene.participant(ALICE) == asked
    assert scene.request_withdrawal(ALICE, NANO).refusal is Refusal.STAKE_BELOW_MINIMUM
    assert scene.cancel_withdrawal(ALICE).refusal is None
    assert scene.participant(ALICE).status is ParticipantStatus.ACTIVE
    assert scene.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    assert scene.participant(ALICE).withdraw_at_s == scene.ledger.now + 3600
    assert scene.cancel_withdrawal(ALICE).refusal is None
    assert scene.participant(ALICE).status is ParticipantStatus.INACTIVE
    assert scene.increase_stake(ALICE, STAKE).refusal is None
    assert scene.participant(ALICE).status is ParticipantStatus.ACTIVE


def test_a_lower_minimum_helps_who_asks_for_it(scene: Scene) -> None:
    enter(scene, ALICE, STAKE, slash)
    apply_rules(scene, StakeRules(min_stake_nanoton=STAKE // 2))
    assert scene.participant(ALICE).status is ParticipantStatus.INACTIVE
    assert scene.request_withdrawal(ALICE, STAKE // 4).refusal is None
    assert scene.cancel_withdrawal(ALICE).refusal is None
    assert scene.participant(ALICE).status is ParticipantStatus.ACTIVE


# ---- a registry that rent has eaten from ----


def test_what_would_leave_less_than_is_owed_is_refused_until_the_rent_is_paid(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(50 * 365 * DAY_S)
    body, value = layout.complete_withdrawal_body(ALICE), fees.ENTRY_NANOTON
    refused = scene.ledger.send_internal(ANYONE, scene.registry, value, body)
    scene.books.record(value, refused)
    assert refused[0].exit_code == Refusal.UNDERFUNDED
    assert refused[0].bounce
    scene.send(ANYONE, scene.registry, 10 * NANO, layout.top_up_body())
    assert paid_back(scene.complete_withdrawal(ALICE), ALICE) == STAKE
