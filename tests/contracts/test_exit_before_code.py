"""Whoever does not want new code can take its stake before: whatever a quorum commands to hold it, short of a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts import layout
from contracts.commands import ProposeParams, ProposeUpgrade
from contracts.model import DAY_S, HOUR_S, PoolParams, UpgradeTarget
from contracts.opcodes import Event, Refusal
from tests.contracts.pool_scene import PARAMS, PARTICIPANTS, STAKE, Scene
from tests.contracts.registry_cases import cancel_slash, enter, remove, slash, suspend

ALICE = PARTICIPANTS[0]
CODE = layout.code("participant_registry")
WITHDRAWAL_S = PARAMS.rules.withdrawal_delay_s
SLOW = replace(PARAMS, rules=replace(PARAMS.rules, withdrawal_delay_s=30 * DAY_S), upgrade_delay_s=31 * DAY_S)
FAST = replace(
    PARAMS, rules=replace(PARAMS.rules, withdrawal_delay_s=HOUR_S), parameter_delay_s=HOUR_S, upgrade_delay_s=7 * DAY_S
)


def pool_with(params: PoolParams) -> Scene:
    scene = Scene()
    assert scene.deploy(params).refusal is None
    scene.hand_over()
    enter(scene, ALICE, 2 * STAKE)
    return scene


def propose_params(scene: Scene, params: PoolParams) -> None:
    assert scene.command(ProposeParams(gov_seqno=scene.gov_seqno, params=params)).refusal is None


def propose_code(scene: Scene) -> int:
    """The time that is announced."""
    command = ProposeUpgrade(gov_seqno=scene.gov_seqno, target=UpgradeTarget.REGISTRY, code_hash=CODE.hash)
    (event,) = scene.command(command).events
    assert event.op == Event.EVENT_PROPOSED
    return int(event.values["not_before"])


def stake_can_be_had(scene: Scene) -> bool:
    return scene.complete_withdrawal(ALICE).refusal is None


# ---- the stake keeps its time ----


def slash_back_and_forth(scene: Scene) -> None:
    assert slash(scene, ALICE, 1).refusal is None
    assert cancel_slash(scene, ALICE).refusal is None
    assert remove(scene, ALICE).refusal is None


@pytest.mark.parametrize(
    "hold",
    [
        lambda scene: remove(scene, ALICE),
        lambda scene: (suspend(scene, ALICE), remove(scene, ALICE)),
        lambda scene: (remove(scene, ALICE), suspend(scene, ALICE, lift=True), remove(scene, ALICE)),
        slash_back_and_forth,
    ],
    ids=["remove", "suspend, remove", "remove, lift, remove", "slash, cancel, remove"],
)
@pytest.mark.parametrize("asked", [STAKE, 2 * STAKE])
def test_a_removal_does_not_prolong_a_withdrawal(ready: Scene, hold: Callable[[Scene], object], asked: int) -> None:
    enter(ready, ALICE, 2 * STAKE)
    assert ready.request_withdrawal(ALICE, asked).refusal is None
    ready_s = ready.ledger.now + WITHDRAWAL_S
    for _ in range(3):
        ready.advance(2 * DAY_S)
        hold(ready)
        entry = ready.participant(ALICE)
        assert (entry.withdraw_at_s, entry.pending_nanoton) == (ready_s, 2 * STAKE)
    ready.advance(ready_s - ready.ledger.now)
    assert ready.complete_withdrawal(ALICE).received(ALICE) == 2 * STAKE


def test_removing_again_does_not_prolong_a_removal(ready: Scene) -> None:
    enter(ready, ALICE, 2 * STAKE)
    assert remove(ready, ALICE).refusal is None
    ready_s = ready.ledger.now + WITHDRAWAL_S
    ready.advance(WITHDRAWAL_S - 1)
    assert remove(ready, ALICE).refusal is None
    assert ready.participant(ALICE).withdraw_at_s == ready_s
    assert not stake_can_be_had(ready)
    ready.advance(1)
    assert stake_can_be_had(ready)


# ---- the code keeps its time ----


def test_new_code_never_comes_before_its_announced_time() -> None:
    scene = pool_with(replace(SLOW, upgrade_delay_s=60 * DAY_S))
    announced = propose_code(scene)
    assert announced == scene.ledger.now + 60 * DAY_S
    propose_params(scene, FAST)
    scene.advance(SLOW.parameter_delay_s)
    assert scene.apply_params().refusal is None
    (pending,) = scene.pool_state().pending
    assert pending.ready_s(scene.pool_state().params) == announced
    scene.advance(announced - scene.ledger.now - 1)
    assert scene.apply_upgrade(CODE).refusal is Refusal.TOO_EARLY
    scene.advance(1)
    assert scene.apply_upgrade(CODE).refusal is None


@pytest.mark.parametrize("proposed_first", [True, False])
def test_code_waits_for_stakes_that_were_asked_back_under_longer_delays(proposed_first: bool) -> None:
    """The last moment before the delays are shortened: Alice is removed, and cannot ask anew."""
    scene = pool_with(SLOW)
    if proposed_first:
        propose_code(scene)
        scene.advance(20 * DAY_S)
    propose_params(scene, FAST)
    scene.advance(SLOW.parameter_delay_s)
    assert remove(scene, ALICE).refusal is None
    removed_s = scene.ledger.now
    assert scene.apply_params().refusal is None
    assert scene.pool_state().exit_by_s == removed_s + 31 * DAY_S
    if not proposed_first:
        assert propose_code(scene) == removed_s + 31 * DAY_S
    (pending,) = scene.pool_state().pending
    assert pending.ready_s(scene.pool_state().params) == removed_s + 31 * DAY_S
    scene.advance(30 * DAY_S)
    assert scene.apply_upgrade(CODE).refusal is Refusal.TOO_EARLY
    assert stake_can_be_had(scene)
    scene.advance(DAY_S)
    assert scene.apply_upgrade(CODE).refusal is None


def test_delays_that_grow_and_shrink_again_win_nothing(ready: Scene) -> None:
    """Code is proposed with a week's delay; who asks while withdrawals take a month is still paid before it."""
    enter(ready, ALICE, 2 * STAKE)
    propose_params(ready, SLOW)
    ready.advance(PARAMS.parameter_delay_s)
    propose_code(ready)
    assert ready.apply_params().refusal is None
    assert ready.request_withdrawal(ALICE, 2 * STAKE).refusal is None
    propose_params(ready, PARAMS)
    ready.advance(SLOW.parameter_delay_s)
    assert ready.apply_params().refusal is None
    ready.advance(ready.participant(ALICE).withdraw_at_s - ready.ledger.now)
    assert ready.apply_upgrade(CODE).refusal is Refusal.TOO_EARLY
    assert stake_can_be_had(ready)


def test_params_that_leave_withdrawals_alone_do_not_hold_code_up(ready: Scene) -> None:
    announced = propose_code(ready)
    propose_params(ready, replace(PARAMS, max_participants=7))
    ready.advance(PARAMS.parameter_delay_s)
    assert ready.apply_params().refusal is None
    assert ready.pool_state().exit_by_s == 0
    ready.advance(announced - ready.ledger.now)
    assert ready.apply_upgrade(CODE).refusal is None
