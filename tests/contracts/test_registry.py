"""ParticipantRegistry: who gets in, who does not and gets everything back, how it is reached, what can be asked."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.commands import ProposeParams, SetRegistration
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import NANO, Address, Participant, ParticipantStatus, StakeRules
from contracts.opcodes import Event, Op, Refusal
from contracts.signing import SigningKey
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, STAKE, START_S, Scene, account, node_key
from tests.contracts.registry_cases import WORKER, address_slice, enter, found, slash, suspend

ALICE, BOB, CAROL = PARTICIPANTS[:3]
SPEC = hashlib.sha256(b"gpu spec").digest()
RENT = NANO // 20


# ---- registration ----


def test_registration_stores_the_entry_and_returns_the_rest(scene: Scene) -> None:
    before = scene.balance(scene.registry)
    sent = scene.register(ALICE, value=STAKE + 3 * NANO, worker=WORKER, gpu_spec_hash=SPEC, gpu_count=8)
    assert sent.refusal is None
    assert scene.registry_state().participants == (
        Participant(
            address=ALICE,
            node_key=node_key(ALICE).public,
            stake_nanoton=STAKE,
            status=ParticipantStatus.ACTIVE,
            reputation=500,
            joined_s=START_S,
            heartbeat_s=START_S,
            worker=WORKER,
            gpu_spec_hash=SPEC,
            gpu_count=8,
        ),
    )
    assert scene.balance(scene.registry) == before + STAKE + RENT
    assert 3 * NANO - RENT - NANO // 30 < sent.received(ALICE) < 3 * NANO - RENT
    (event,) = sent.events
    assert event.op == Event.EVENT_PARTICIPANT_REGISTERED
    assert event.values == {"owner": ALICE, "node_key": node_key(ALICE).public, "stake": STAKE}


def test_trap_15_each_participant_pays_for_its_storage(scene: Scene) -> None:
    before = scene.balance(scene.registry)
    for participant in PARTICIPANTS:
        assert scene.register(participant).refusal is None
    kept = scene.balance(scene.registry) - before - len(PARTICIPANTS) * STAKE
    assert kept == len(PARTICIPANTS) * RENT


@pytest.mark.parametrize(
    ("owner", "over", "refusal"),
    [
        (ALICE, {"key": node_key(CAROL)}, Refusal.ALREADY_REGISTERED),
        (BOB, {"key": node_key(ALICE)}, Refusal.NODE_KEY_TAKEN),
        (BOB, {"stake_nanoton": STAKE - 1}, Refusal.STAKE_BELOW_MINIMUM),
        (BOB, {"signature": bytes(64)}, Refusal.NOT_POSSESSED),
        (BOB, {"value": STAKE + RENT}, Refusal.INSUFFICIENT_VALUE),
    ],
)
def test_trap_11_a_failed_registration_returns_the_whole_value(
    scene: Scene, owner: Address, over: dict[str, Any], refusal: Refusal
) -> None:
    assert scene.register(ALICE).refusal is None
    before = scene.registry_state()
    sent = scene.register(owner, **over)
    assert sent.refusal is refusal
    assert scene.registry_state() == before
    assert sent.received(owner) > sent.transactions[0].in_value_nanoton - NANO // 40
    assert scene.get(scene.registry, "get_registry_stats") == [1, STAKE]


def test_the_pool_is_full_until_somebody_leaves() -> None:
    full = Scene()
    assert full.deploy(replace(PARAMS, max_participants=2)).refusal is None
    assert [full.register(p).refusal for p in (ALICE, BOB, CAROL)] == [None, None, Refusal.POOL_FULL]
    assert full.request_withdrawal(BOB, STAKE).refusal is None
    assert full.register(CAROL).refusal is Refusal.POOL_FULL
    full.advance(7 * 86_400)
    assert full.complete_withdrawal(BOB).refusal is None
    assert full.register(CAROL).refusal is None


def test_registration_closed_and_open_again(scene: Scene) -> None:
    for is_open, refusal in ((False, Refusal.REGISTRATION_CLOSED), (True, None)):
        assert scene.act(SetRegistration(gov_seqno=scene.gov_seqno, open=is_open)).refusal is None
        assert scene.register(ALICE).refusal is refusal


def library_of(cell: Cell) -> Cell:
    """A cell that stands for another one by its hash, which whoever published that can take away."""
    return Cell(Builder().store_uint(2, 8).store_bytes(cell.hash).end_cell().bits, [], 2)


PROFILE = Builder().store_bytes(node_key(ALICE).public).store_uint(0, 2).store_bytes(SPEC).store_uint(8, 8)


@pytest.mark.parametrize(
    "profile",
    [
        Builder().end_cell(),
        Builder().store_cell(PROFILE.end_cell()).store_uint(0, 1).end_cell(),
        Builder()
        .store_bytes(node_key(ALICE).public)
        .store_uint(0b110, 3)
        .store_bytes(SPEC)
        .store_uint(0, 8)
        .end_cell(),
        Builder().store_cell(PROFILE.end_cell()).store_ref(Cell.empty()).end_cell(),
        library_of(PROFILE.end_cell()),
    ],
    ids=["short", "long", "variable address", "reference", "library"],
)
def test_a_malformed_profile_comes_back(scene: Scene, profile: Cell) -> None:
    proven = certificate.prove_possession(node_key(ALICE), global_id=DEVNET_GLOBAL_ID, pool=scene.pool, owner=ALICE)
    body = Builder().store_uint(Op.POOL_REGISTER_PARTICIPANT, 32).store_uint(0, 64).store_coins(STAKE)
    sent = scene.send(
        ALICE,
        scene.pool,
        STAKE + fees.REGISTRATION_NANOTON,
        body.store_bytes(proven).store_ref(profile).end_cell(),
    )
    assert sent.transactions[0].aborted
    assert sent.received(ALICE) > STAKE
    assert found(scene, ALICE) is None


# ---- what a participant shows of itself ----


def test_a_heartbeat_is_noted(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    before = scene.participant(ALICE)
    scene.advance(100)
    balance = scene.balance(scene.registry)
    sent = scene.heartbeat(ALICE)
    assert scene.participant(ALICE) == replace(before, heartbeat_s=START_S + 100)
    assert fees.ENTRY_NANOTON - NANO // 50 < sent.received(ALICE) < fees.ENTRY_NANOTON
    assert balance - NANO // 1000 < scene.balance(scene.registry) <= balance


def test_who_is_not_heard_is_not_active() -> None:
    scene = Scene()
    rules = StakeRules(heartbeat_timeout_s=600)
    assert scene.deploy(replace(PARAMS, rules=rules)).refusal is None
    enter(scene, ALICE, STAKE)

    def active() -> bool:
        return scene.get(scene.registry, "is_participant_active", address_slice(ALICE)) == [-1]

    assert active()
    scene.advance(600)
    assert active()
    scene.advance(1)
    assert not active()
    assert scene.participant(ALICE).status is ParticipantStatus.ACTIVE
    assert scene.heartbeat(ALICE).refusal is None
    assert active()
    assert suspend(scene, ALICE).refusal is None
    assert not active()


def test_without_a_timeout_nobody_is_taken_for_gone(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    scene.advance(10 * 365 * 86_400)
    assert scene.get(scene.registry, "is_participant_active", address_slice(ALICE)) == [-1]
    assert scene.get(scene.registry, "is_participant_active", address_slice(BOB)) == [0]


@pytest.mark.parametrize("worker", [account("another worker"), Address(-1, bytes(32)), None])
def test_a_worker_address_is_changed(scene: Scene, worker: Address | None) -> None:
    assert scene.register(ALICE, worker=WORKER, gpu_spec_hash=SPEC, gpu_count=4).refusal is None
    before = scene.participant(ALICE)
    sent = scene.update_worker(ALICE, worker)
    assert scene.participant(ALICE) == replace(before, worker=worker)
    (event,) = sent.events
    assert (event.op, event.values) == (Event.EVENT_WORKER_UPDATED, {"owner": ALICE, "worker": worker})


# ---- rules ----


def test_the_registry_hears_the_rules_with_its_deployment_and_again_when_they_change(scene: Scene) -> None:
    state = scene.registry_state()
    assert (state.rewards, state.rules, state.paused_until_s) == (scene.rewards, PARAMS.rules, 0)
    assert scene.balance(scene.registry) == NANO // 2
    rules = StakeRules(min_stake_nanoton=2 * STAKE, slash_bps=5, heartbeat_timeout_s=7)
    changed = ProposeParams(gov_seqno=scene.gov_seqno, params=replace(PARAMS, rules=rules))
    assert scene.act(changed).refusal is None
    scene.advance(PARAMS.parameter_delay_s)
    before = scene.balance(scene.registry)
    assert scene.apply_params().refusal is None
    assert scene.registry_state().rules == rules
    assert before - NANO // 1000 < scene.balance(scene.registry) <= before


def test_an_upgrade_leaves_what_is_stored(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    code, before = layout.code("reward_distribution"), scene.registry_state()
    balance = scene.balance(scene.registry)
    body = layout.body_cell(Op.POOL_UPGRADE_CHILD, code=code, excess_to=ANYONE)
    sent = scene.send(scene.pool, scene.registry, NANO, body)
    assert scene.ledger.account(scene.registry).code_hash == code.hash
    assert scene.registry_state() == before
    assert sent.received(ANYONE) > NANO - NANO // 100
    assert scene.balance(scene.registry) == balance


# ---- get-methods ----


def test_get_methods(scene: Scene) -> None:
    for participant in (ALICE, CAROL):
        assert scene.register(participant).refusal is None
    assert scene.register(BOB, worker=WORKER, gpu_spec_hash=SPEC, gpu_count=3).refusal is None
    key = int.from_bytes(node_key(BOB).public, "big")
    *info, worker, spec, count = scene.get(scene.registry, "get_participant_info", address_slice(BOB))
    assert info == [STAKE, 0, 500, START_S, START_S, key]
    assert (worker.to_cell(), spec, count) == (address_slice(WORKER).to_cell(), int.from_bytes(SPEC, "big"), 3)
    bob = int.from_bytes(BOB.account, "big")
    assert scene.get(scene.registry, "get_participant_by_node_key", key) == [bob]
    assert scene.get(scene.registry, "get_registry_stats") == [3, 3 * STAKE]
    assert scene.get(scene.registry, "get_contribution_info", address_slice(BOB)) == [0] * 6
    assert scene.get(scene.registry, "get_stake_info", address_slice(BOB)) == [0] * 5
    assert slash(scene, BOB, STAKE // 2).refusal is None
    assert scene.request_withdrawal(BOB, STAKE // 2).refusal is None
    week = START_S + 7 * 86_400
    expected = [STAKE // 2, week, STAKE // 2, week, 1]
    assert scene.get(scene.registry, "get_stake_info", address_slice(BOB)) == expected


@pytest.mark.parametrize("method", ["get_participant_info", "get_stake_info", "get_contribution_info"])
@pytest.mark.parametrize(
    ("owner", "refusal"), [(ANYONE, "NOT_REGISTERED"), (Address(-1, ALICE.account), "WRONG_WORKCHAIN")]
)
def test_nobody_is_asked_about_who_is_not_there(scene: Scene, method: str, owner: Address, refusal: str) -> None:
    assert scene.register(ALICE).refusal is None
    with pytest.raises(AssertionError, match=refusal):
        scene.get(scene.registry, method, address_slice(owner))


def test_get_participants_page_by_page(scene: Scene) -> None:
    for participant in PARTICIPANTS:
        assert scene.register(participant).refusal is None
    expected = sorted(
        (int.from_bytes(p.account, "big"), int.from_bytes(node_key(p).public, "big")) for p in PARTICIPANTS
    )
    (page,) = scene.get(scene.registry, "get_participants_page", 0)
    assert [tuple(row) for row in page] == expected
    (rest,) = scene.get(scene.registry, "get_participants_page", expected[6][0] + 1)
    assert [tuple(row) for row in rest] == expected[7:]
    (empty,) = scene.get(scene.registry, "get_participants_page", 2**256 - 1)
    assert list(empty) == []


def test_a_page_has_100_participants_at_most() -> None:
    scene = Scene()
    assert scene.deploy().refusal is None
    owners = sorted(account(f"many {i}") for i in range(103))
    for owner in owners:
        assert scene.register(owner, key=SigningKey(owner.account)).refusal is None
    accounts = [int.from_bytes(owner.account, "big") for owner in owners]
    (page,) = scene.get(scene.registry, "get_participants_page", 0)
    assert [row[0] for row in page] == accounts[:100]
    (rest,) = scene.get(scene.registry, "get_participants_page", accounts[99] + 1)
    assert [row[0] for row in rest] == accounts[100:]
