"""ParticipantRegistry: what certificates do to an entry, and where slashed stake goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts import fees
from contracts.commands import CancelSlash, EntryCommand, Remove, SetReputation, Slash, SlashReason, Suspend, Target
from contracts.model import NANO, ParticipantStatus, StakeRules
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, STAKE, Scene, Sent
from tests.contracts.registry_cases import (
    APPEAL_S,
    EVIDENCE,
    WITHDRAWAL_S,
    cancel_slash,
    enter,
    found,
    remove,
    set_reputation,
    slash,
    suspend,
)
from tests.contracts.unchecked import unchecked

ALICE, BOB = PARTICIPANTS[:2]
ACTIVE, INACTIVE, WITHDRAWING = (
    ParticipantStatus.ACTIVE,
    ParticipantStatus.INACTIVE,
    ParticipantStatus.WITHDRAWING,
)


def events(sent: Sent) -> dict[Event, dict[str, Any]]:
    return {Event(event.op): event.values for event in sent.events}


# ---- slash ----


@pytest.mark.parametrize(
    ("amount", "taken", "status"),
    [
        (0, 2 * STAKE // 10, ACTIVE),
        (1, 1, ACTIVE),
        (STAKE, STAKE, ACTIVE),
        (STAKE + 1, STAKE + 1, INACTIVE),
        (2 * STAKE, 2 * STAKE, INACTIVE),
        (2**120 - 1, 2 * STAKE, INACTIVE),
    ],
)
def test_how_much_a_slash_takes(scene: Scene, amount: int, taken: int, status: ParticipantStatus) -> None:
    enter(scene, ALICE, 2 * STAKE)
    enter(scene, BOB, STAKE)
    before, bob = scene.balance(scene.registry), scene.participant(BOB)
    sent = slash(scene, ALICE, amount)
    assert sent.refusal is None
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.held_nanoton, entry.status) == (2 * STAKE - taken, taken, status)
    assert (entry.held_until_s, entry.reputation, entry.seqno) == (scene.ledger.now + APPEAL_S, 400, 1)
    assert scene.registry_state().slashed_nanoton == taken
    assert scene.balance(scene.registry) == before
    assert scene.participant(BOB) == bob
    assert events(sent)[Event.EVENT_PARTICIPANT_SLASHED] == {
        "owner": ALICE,
        "amount": taken,
        "stake": 2 * STAKE - taken,
        "reason": SlashReason.FORK,
        "evidence_hash": EVIDENCE,
    }


@pytest.mark.parametrize(("slash_bps", "stake", "taken"), [(1, STAKE, STAKE // 10_000), (10_000, STAKE, STAKE)])
def test_the_share_is_that_of_the_rules(slash_bps: int, stake: int, taken: int) -> None:
    scene = Scene()
    rules = StakeRules(min_stake_nanoton=STAKE, slash_bps=slash_bps)
    assert scene.deploy(replace(PARAMS, rules=rules)).refusal is None
    enter(scene, ALICE, stake)
    assert slash(scene, ALICE).refusal is None
    assert scene.participant(ALICE).held_nanoton == taken


def test_rules_without_a_share_ask_for_an_amount() -> None:
    scene = Scene()
    assert scene.deploy(replace(PARAMS, rules=StakeRules(slash_bps=0))).refusal is None
    enter(scene, ALICE, STAKE)
    assert slash(scene, ALICE).refusal is Refusal.NOTHING_STAKED
    assert scene.participant(ALICE).seqno == 0
    assert slash(scene, ALICE, NANO).refusal is None


def test_the_reputation_ends_at_zero(scene: Scene) -> None:
    enter(scene, ALICE, 10 * STAKE)
    assert set_reputation(scene, ALICE, 150).refusal is None
    for expected in (50, 0, 0):
        assert slash(scene, ALICE, NANO).refusal is None
        assert scene.participant(ALICE).reputation == expected


def test_trap_8_a_slash_while_withdrawing_leaves_no_more_to_withdraw_than_there_is(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    assert slash(scene, ALICE, STAKE // 2).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.pending_nanoton) == (3 * STAKE // 2, 3 * STAKE // 2)
    assert entry.status is WITHDRAWING
    scene.advance(WITHDRAWAL_S - 1)
    assert slash(scene, ALICE, STAKE).refusal is None
    scene.advance(1)
    sent = scene.complete_withdrawal(ALICE)
    assert sent.received(ALICE) == STAKE // 2
    assert scene.complete_withdrawal(ALICE).refusal is Refusal.NO_WITHDRAWAL
    assert scene.participant(ALICE).held_nanoton == 3 * STAKE // 2


def test_a_slash_of_all_that_is_asked_back_ends_the_withdrawal(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert slash(scene, ALICE, STAKE).refusal is None
    assert scene.participant(ALICE).status is INACTIVE
    assert cancel_slash(scene, ALICE).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.status, entry.stake_nanoton, entry.pending_nanoton) == (ACTIVE, STAKE, 0)


def test_a_partial_withdrawal_is_slashed_last(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert slash(scene, ALICE, STAKE).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.pending_nanoton, entry.status) == (STAKE, STAKE, INACTIVE)


# ---- appeal ----


def test_two_slashes_share_one_time_of_appeal(scene: Scene) -> None:
    enter(scene, ALICE, 4 * STAKE)
    assert slash(scene, ALICE, STAKE).refusal is None
    scene.advance(APPEAL_S - 1)
    assert slash(scene, ALICE, NANO).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.held_nanoton, entry.held_until_s) == (STAKE + NANO, scene.ledger.now + APPEAL_S)
    scene.advance(1)
    assert scene.sweep_slashed(ALICE).refusal is Refusal.STILL_HELD
    scene.advance(APPEAL_S - 2)
    sent = cancel_slash(scene, ALICE)
    assert events(sent)[Event.EVENT_SLASH_CANCELLED] == {"owner": ALICE, "amount": STAKE + NANO}
    assert scene.participant(ALICE).stake_nanoton == 4 * STAKE


@pytest.mark.parametrize(("after_s", "refusal"), [(0, None), (APPEAL_S - 1, None), (APPEAL_S, Refusal.HOLD_OVER)])
def test_a_slash_is_taken_back_in_time_only(scene: Scene, after_s: int, refusal: Refusal | None) -> None:
    enter(scene, ALICE, STAKE, slash)
    scene.advance(after_s)
    assert cancel_slash(scene, ALICE).refusal is refusal
    entry = scene.participant(ALICE)
    assert entry.stake_nanoton == (STAKE if refusal is None else STAKE * 9 // 10)
    assert entry.reputation == 400
    again = Refusal.NOTHING_HELD if refusal is None else Refusal.HOLD_OVER
    assert cancel_slash(scene, ALICE).refusal is again


def test_what_a_cancelled_slash_gives_back_is_not_asked_back(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    assert slash(scene, ALICE).refusal is None
    assert cancel_slash(scene, ALICE).refusal is None
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.pending_nanoton, entry.status) == (STAKE, STAKE * 9 // 10, WITHDRAWING)
    scene.advance(WITHDRAWAL_S)
    assert scene.complete_withdrawal(ALICE).received(ALICE) == STAKE * 9 // 10
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.status) == (STAKE // 10, INACTIVE)


# ---- where it goes ----


def test_trap_9_slashed_stake_waits_for_an_appeal_and_goes_to_the_rewards(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE, slash)
    taken = STAKE // 5
    scene.advance(APPEAL_S - 1)
    assert scene.sweep_slashed(ALICE).refusal is Refusal.STILL_HELD
    scene.advance(1)
    before = scene.state()
    sent = scene.sweep_slashed(ALICE, source=ANYONE)
    assert sent.refusal is None
    after = scene.state()
    assert after.carried_nanoton == before.carried_nanoton + taken
    assert after.received_nanoton == before.received_nanoton
    assert events(sent)[Event.EVENT_SLASHED_SWEPT] == {"owner": ALICE, "amount": taken}
    assert events(sent)[Event.EVENT_SLASHED_RECEIVED] == {"amount": taken}
    assert fees.ENTRY_NANOTON - NANO // 50 < sent.received(ANYONE) < fees.ENTRY_NANOTON
    assert sent.received(ALICE) == 0
    entry = scene.participant(ALICE)
    assert (entry.stake_nanoton, entry.held_nanoton, entry.held_until_s) == (2 * STAKE - taken, 0, 0)
    assert scene.sweep_slashed(ALICE).refusal is Refusal.NOTHING_HELD


def test_an_entry_of_which_nothing_is_left_ends_with_the_sweep(scene: Scene) -> None:
    enter(scene, ALICE, STAKE, lambda s, owner: slash(s, owner, STAKE))
    assert scene.request_withdrawal(ALICE, 1).refusal is Refusal.OVER_STAKE
    scene.advance(APPEAL_S)
    assert scene.sweep_slashed(ALICE).refusal is None
    assert found(scene, ALICE) is None
    assert scene.registry_state().count == 0
    assert scene.sweep_slashed(ALICE).refusal is Refusal.NOT_REGISTERED


# ---- who may, and how often ----


def commands(target: Target) -> list[EntryCommand]:
    return [
        Slash(target=target, amount_nanoton=0, reason=SlashReason.OFFLINE, evidence_hash=EVIDENCE),
        CancelSlash(target=target),
        SetReputation(target=target, reputation=1000),
        Remove(target=target),
        Suspend(target=target, suspended=True),
        Suspend(target=target, suspended=False),
    ]


@pytest.mark.parametrize("index", range(6))
def test_a_command_is_about_one_entry_and_works_once(ready: Scene, index: int) -> None:
    enter(ready, ALICE, 2 * STAKE, slash)
    target = ready.target(ALICE)
    before = ready.participant(ALICE)
    for wrong in (
        replace(target, seqno=target.seqno - 1),
        replace(target, seqno=target.seqno + 1),
        replace(target, seqno=2**32 - 1),
        replace(target, joined_s=target.joined_s - 1),
        replace(target, joined_s=target.joined_s + 1),
    ):
        assert ready.command(commands(wrong)[index]).refusal is Refusal.WRONG_SEQNO
    assert ready.command(commands(replace(target, participant=BOB))[index]).refusal is Refusal.NOT_REGISTERED
    assert ready.participant(ALICE) == before
    assert ready.command(commands(target)[index]).refusal is None
    changed = ready.participant(ALICE)
    assert changed.seqno == target.seqno
    assert ready.command(commands(target)[index]).refusal is Refusal.WRONG_SEQNO
    assert ready.participant(ALICE) == changed


def test_the_owner_of_the_pool_commands_the_same_before_the_hand_over(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    for act in (slash, cancel_slash, suspend, remove):
        assert act(scene, ALICE).refusal is None
    scene.hand_over()
    assert scene.owner_command(Remove(target=scene.target(ALICE))).refusal is Refusal.QUORUM_ALREADY_ENABLED
    assert suspend(scene, ALICE, lift=True).refusal is None


@pytest.mark.parametrize("reputation", [0, 1, 1000])
def test_a_reputation_is_set(scene: Scene, reputation: int) -> None:
    enter(scene, ALICE, STAKE)
    sent = set_reputation(scene, ALICE, reputation)
    assert scene.participant(ALICE).reputation == reputation
    assert events(sent) == {Event.EVENT_REPUTATION_UPDATED: {"owner": ALICE, "reputation": reputation}}


@pytest.mark.parametrize("reputation", [1001, 65_535])
def test_a_reputation_over_1000_is_refused(scene: Scene, reputation: int) -> None:
    enter(scene, ALICE, STAKE)
    command = unchecked(SetReputation(target=scene.target(ALICE), reputation=0), reputation=reputation)
    assert scene.act(command).refusal is Refusal.INVALID_REPUTATION
    assert scene.participant(ALICE).reputation == 500


def test_who_submits_pays_for_it_and_gets_the_rest(ready: Scene) -> None:
    enter(ready, ALICE, 2 * STAKE)
    sent = slash(ready, ALICE)
    spent = sent.transactions[0].in_value_nanoton - sent.received(ANYONE)
    assert 0 < spent < NANO // 25
    refused = ready.command(CancelSlash(target=replace(ready.target(ALICE), seqno=9)))
    assert refused.refusal is Refusal.WRONG_SEQNO
    assert refused.transactions[0].in_value_nanoton - refused.received(ANYONE) < NANO // 25


def test_every_change_of_status_is_logged_once(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    for act, status in (
        (suspend, ParticipantStatus.SUSPENDED),
        (lambda s, owner: suspend(s, owner, lift=True), ACTIVE),
        (lambda s, owner: slash(s, owner, 2 * STAKE), INACTIVE),
        (cancel_slash, ACTIVE),
        (lambda s, owner: s.request_withdrawal(owner, 2 * STAKE), WITHDRAWING),
        (lambda s, owner: s.cancel_withdrawal(owner), ACTIVE),
    ):
        assert changes(act(scene, ALICE)) == [{"owner": ALICE, "status": status}]
    assert changes(set_reputation(scene, ALICE, 1)) == []
    assert changes(scene.increase_stake(ALICE, NANO)) == []


def changes(sent: Sent) -> list[dict[str, Any]]:
    return [event.values for event in sent.events if event.op == Event.EVENT_STATUS_CHANGED]


def test_trap_11_nothing_but_the_counters_can_come_back(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE, slash)
    assert scene.request_withdrawal(ALICE, scene.participant(ALICE).stake_nanoton - STAKE).refusal is None
    scene.advance(APPEAL_S)
    for sent in (scene.complete_withdrawal(ALICE), scene.sweep_slashed(ALICE), scene.heartbeat(ALICE)):
        outs = [out for t in sent.transactions for out in t.out_messages if t.address == scene.registry]
        assert {out.op for out in outs if out.bounce} <= {Op.POOL_SYNC_COUNTERS}
