"""An owner replaces its node key: all else stays, nobody else can, and not too often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts import certificate, fees
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import DAY_S, NANO, Address
from contracts.opcodes import Event, Refusal
from contracts.signing import SigningKey
from tests.contracts.pool_scene import ANYONE, PARTICIPANTS, STAKE, Scene, node_key
from tests.contracts.registry_cases import WORKER, enter, slash, suspend

ALICE, BOB = PARTICIPANTS[:2]
FIRST, SECOND, THIRD = (SigningKey(bytes([i]) * 32) for i in (1, 2, 3))
WAIT_S = 7 * DAY_S


def owner_of(scene: Scene, key: SigningKey) -> Address | None:
    """Whom the registry names for a node key."""
    exit_code, stack = scene.ledger.get_method(
        scene.registry, "get_participant_by_node_key", [int.from_bytes(key.public, "big")]
    )
    return None if exit_code == Refusal.NOT_REGISTERED else Address(0, stack[0].to_bytes(32, "big"))


def test_a_node_key_is_replaced_and_nothing_else(scene: Scene) -> None:
    assert scene.register(ALICE, worker=WORKER, gpu_count=8).refusal is None
    scene.advance(5)
    before, pool, balance = scene.participant(ALICE), scene.pool_state(), scene.balance(scene.registry)
    sent = scene.rotate_node_key(ALICE, FIRST)
    assert sent.refusal is None
    assert scene.participant(ALICE) == replace(before, node_key=FIRST.public, rotated_s=scene.ledger.now)
    assert (owner_of(scene, FIRST), owner_of(scene, node_key(ALICE))) == (ALICE, None)
    assert scene.pool_state() == pool
    assert balance - NANO // 1000 < scene.balance(scene.registry) <= balance
    assert sent.received(ALICE) > fees.ENTRY_NANOTON - NANO // 40
    (event,) = sent.events
    assert event.op == Event.EVENT_NODE_KEY_ROTATED
    assert event.values == {"owner": ALICE, "node_key": FIRST.public, "previous": node_key(ALICE).public}


def proof_of(key: SigningKey, owner: Address, scene: Scene, *, global_id: int = DEVNET_GLOBAL_ID) -> bytes:
    return certificate.prove_possession(key, global_id=global_id, pool=scene.pool, owner=owner)


def test_the_new_key_has_signed(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    before = scene.registry_state()
    for signature in (
        bytes(64),
        proof_of(SECOND, ALICE, scene),
        proof_of(node_key(ALICE), ALICE, scene),
        proof_of(FIRST, BOB, scene),
        proof_of(FIRST, ALICE, scene, global_id=-239),
        certificate.prove_possession(FIRST, global_id=DEVNET_GLOBAL_ID, pool=scene.registry, owner=ALICE),
    ):
        assert scene.rotate_node_key(ALICE, FIRST, signature=signature).refusal is Refusal.NOT_POSSESSED
    assert scene.registry_state() == before


def test_a_key_that_somebody_has_is_taken(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    enter(scene, BOB, STAKE)
    for key in (node_key(BOB), node_key(ALICE)):
        assert scene.rotate_node_key(ALICE, key).refusal is Refusal.NODE_KEY_TAKEN
    assert owner_of(scene, node_key(BOB)) == BOB


def test_the_old_key_is_free_and_takes_nothing(scene: Scene) -> None:
    """Whoever has it has what anybody has: it may enter with a stake of its own, and not touch this entry."""
    enter(scene, ALICE, STAKE)
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None
    entry = scene.participant(ALICE)
    assert scene.rotate_node_key(BOB, node_key(ALICE)).refusal is Refusal.NOT_REGISTERED
    assert scene.register(BOB, key=node_key(ALICE)).refusal is None
    assert scene.participant(ALICE) == entry
    assert (owner_of(scene, FIRST), owner_of(scene, node_key(ALICE))) == (ALICE, BOB)


def test_a_key_is_replaced_once_in_a_withdrawals_wait(scene: Scene) -> None:
    """Of each key that counted operators keep a reading for ever: nobody makes them cheaply."""
    enter(scene, ALICE, STAKE)
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None
    assert scene.rotate_node_key(ALICE, SECOND).refusal is Refusal.ROTATED_LATELY
    scene.advance(WAIT_S - 1)
    assert scene.rotate_node_key(ALICE, SECOND).refusal is Refusal.ROTATED_LATELY
    scene.advance(1)
    assert scene.rotate_node_key(ALICE, node_key(ALICE)).refusal is None, "a key that was free again"
    assert scene.rotate_node_key(ALICE, THIRD).refusal is Refusal.ROTATED_LATELY
    assert owner_of(scene, FIRST) is None


def test_who_comes_again_may_rotate_at_once(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    scene.advance(WAIT_S)
    assert scene.complete_withdrawal(ALICE).refusal is None
    assert owner_of(scene, FIRST) is None
    assert scene.register(ALICE).refusal is None
    assert scene.participant(ALICE).rotated_s == 0
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None


def test_a_rotation_hides_from_no_certificate(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert suspend(scene, ALICE).refusal is None
    target = scene.target(ALICE)
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None
    assert scene.target(ALICE) == target
    assert slash(scene, ALICE, STAKE).refusal is None
    after = scene.participant(ALICE)
    assert (after.held_nanoton, after.status.name, after.node_key) == (STAKE, "SUSPENDED", FIRST.public)


def test_a_stake_that_is_asked_back_waits_no_longer(scene: Scene) -> None:
    enter(scene, ALICE, 2 * STAKE)
    assert scene.request_withdrawal(ALICE, STAKE).refusal is None
    before = scene.participant(ALICE)
    scene.advance(DAY_S)
    assert scene.rotate_node_key(ALICE, FIRST).refusal is None
    assert scene.participant(ALICE) == replace(before, node_key=FIRST.public, rotated_s=scene.ledger.now)


@pytest.mark.parametrize("value", [NANO // 250, NANO // 100, NANO // 40])
def test_it_pays_its_way(scene: Scene, value: int) -> None:
    enter(scene, ALICE, STAKE)
    sent = scene.rotate_node_key(ALICE, FIRST, value=value)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.participant(ALICE).node_key == node_key(ALICE).public


def test_nobody_rotates_for_another(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    for source in (ANYONE, BOB, scene.pool):
        sent = scene.rotate_node_key(ALICE, FIRST, source=source)
        assert sent.refusal is Refusal.NOT_REGISTERED
