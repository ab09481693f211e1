"""ParticipantRegistry: who gets in, who does not and gets everything back, and what can be asked."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout
from contracts.model import NANO, Address, Participant, ParticipantStatus
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import ANYONE, PARAMS, PARTICIPANTS, STAKE, Scene, account

ALICE, BOB, CAROL = PARTICIPANTS[:3]
WORKER = account("worker")
KEY = hashlib.sha256(b"node key").digest()


def entries(scene: Scene) -> tuple[Participant, ...]:
    data = scene.ledger.account(scene.registry).data
    assert data is not None
    return layout.read_registry(data)


def test_registration_stores_the_entry_and_returns_the_rest(scene: Scene) -> None:
    value = STAKE + 3 * NANO
    sent = scene.register(ALICE, value=value, node_key=KEY, worker=WORKER, gpu_spec_hash=KEY, gpu_count=8)
    assert sent.refusal is None
    assert entries(scene) == (
        Participant(
            address=ALICE,
            node_key=KEY,
            stake_nanoton=STAKE,
            status=ParticipantStatus.ACTIVE,
            reputation=500,
            joined_s=scene.ledger.now,
            worker=WORKER,
        ),
    )
    assert 3 * NANO - NANO // 10 < sent.received(ALICE) < 3 * NANO - NANO // 20
    assert sent.at(scene.registry).out_messages[0].op == Event.EVENT_PARTICIPANT_REGISTERED


def test_each_participant_pays_for_its_storage(scene: Scene) -> None:
    before = scene.balance(scene.registry)
    for participant in PARTICIPANTS:
        assert scene.register(participant).refusal is None
    kept = scene.balance(scene.registry) - before - len(PARTICIPANTS) * STAKE
    assert kept >= len(PARTICIPANTS) * NANO // 20 - 1000


@pytest.mark.parametrize(
    ("owner", "over", "refusal"),
    [
        (ALICE, {"node_key": hashlib.sha256(b"other").digest()}, Refusal.ALREADY_REGISTERED),
        (BOB, {"node_key": hashlib.sha256(ALICE.account).digest()}, Refusal.NODE_KEY_TAKEN),
        (BOB, {"stake_nanoton": STAKE - 1}, Refusal.STAKE_BELOW_MINIMUM),
        (BOB, {"value": STAKE + NANO // 20}, Refusal.INSUFFICIENT_VALUE),
    ],
)
def test_a_failed_registration_returns_the_whole_value(
    scene: Scene, owner: Address, over: dict[str, object], refusal: Refusal
) -> None:
    assert scene.register(ALICE).refusal is None
    before = entries(scene)
    sent = scene.register(owner, **over)
    assert sent.refusal is refusal
    assert entries(scene) == before
    assert sent.received(owner) > STAKE + NANO // 40
    assert scene.get(scene.registry, "get_registry_stats") == [1, STAKE]


def test_participants_live_in_workchain_0(scene: Scene) -> None:
    body = layout.register_body(stake_nanoton=STAKE, node_key=KEY)
    value = STAKE + fees.REGISTRATION_NANOTON
    refused = scene.ledger.send_internal(Address(-1, ALICE.account), scene.pool, value, body)[0]
    assert refused.exit_code == Refusal.WRONG_WORKCHAIN
    assert refused.bounce


def test_the_pool_is_full() -> None:
    full = Scene()
    assert full.deploy(replace(PARAMS, max_participants=2)).refusal is None
    assert [full.register(p).refusal for p in (ALICE, BOB, CAROL)] == [None, None, Refusal.POOL_FULL]


def test_registration_closed() -> None:
    closed = Scene()
    assert closed.deploy(replace(PARAMS, registration_open=False)).refusal is None
    sent = closed.register(ALICE)
    assert sent.refusal is Refusal.REGISTRATION_CLOSED
    assert sent.received(ALICE) > STAKE


@pytest.mark.parametrize("source", [ANYONE, ALICE])
def test_entries_come_from_the_pool_alone(scene: Scene, source: Address) -> None:
    profile = Builder().store_bytes(KEY).store_uint(0, 2).store_bytes(KEY).store_uint(0, 8).end_cell()
    body = Builder().store_uint(Op.REGISTRY_ADD_PARTICIPANT, 32).store_uint(0, 64).store_bytes(ALICE.account)
    body.store_coins(STAKE).store_uint(1000, 32).store_ref(profile)
    sent = scene.send(source, scene.registry, 2 * STAKE, body.end_cell())
    assert sent.refusal is Refusal.NOT_POOL
    assert entries(scene) == ()


@pytest.mark.parametrize(
    "profile",
    [
        Builder().end_cell(),
        Builder().store_bytes(KEY).store_uint(0, 2).store_bytes(KEY).store_uint(0, 9).end_cell(),
        Builder().store_bytes(KEY).store_uint(0b110, 3).store_bytes(KEY).store_uint(0, 8).end_cell(),
        Builder()
        .store_bytes(KEY)
        .store_uint(0, 2)
        .store_bytes(KEY)
        .store_uint(0, 8)
        .store_ref(Cell.empty())
        .end_cell(),
        Cell(Builder().store_uint(2, 8).store_bytes(KEY).end_cell().bits, [], 2),
    ],
    ids=["short", "long", "variable address", "reference", "library"],
)
def test_a_malformed_profile_comes_back(scene: Scene, profile: Cell) -> None:
    body = Builder().store_uint(Op.POOL_REGISTER_PARTICIPANT, 32).store_uint(0, 64).store_coins(STAKE)
    cell = body.store_ref(profile).end_cell()
    sent = scene.send(ALICE, scene.pool, STAKE + fees.REGISTRATION_NANOTON, cell)
    assert sent.at(scene.registry).exit_code == 9
    assert sent.received(ALICE) > STAKE
    assert entries(scene) == ()


def address_slice(address: Address) -> object:
    return Builder().store_uint(0b100, 3).store_int(0, 8).store_bytes(address.account).end_cell().begin_parse()


def test_get_methods(scene: Scene) -> None:
    for participant in (ALICE, BOB, CAROL):
        assert scene.register(participant).refusal is None
    key = int.from_bytes(hashlib.sha256(BOB.account).digest(), "big")
    bob = int.from_bytes(BOB.account, "big")
    info = scene.get(scene.registry, "get_participant_info", address_slice(BOB))
    assert info[:6] == [STAKE, 0, 500, scene.ledger.now, scene.ledger.now, key]
    assert scene.get(scene.registry, "is_participant_active", address_slice(BOB)) == [-1]
    assert scene.get(scene.registry, "is_participant_active", address_slice(ANYONE)) == [0]
    assert scene.get(scene.registry, "get_participant_by_node_key", key) == [bob]
    assert scene.get(scene.registry, "get_registry_stats") == [3, 3 * STAKE]
    with pytest.raises(AssertionError, match="NOT_REGISTERED"):
        scene.get(scene.registry, "get_participant_info", address_slice(ANYONE))


def test_get_participants_page_by_page(scene: Scene) -> None:
    for participant in PARTICIPANTS:
        assert scene.register(participant).refusal is None
    expected = sorted(int.from_bytes(p.account, "big") for p in PARTICIPANTS)
    (page,) = scene.get(scene.registry, "get_participants_page", 0)
    assert [row[0] for row in page] == expected
    (rest,) = scene.get(scene.registry, "get_participants_page", expected[6] + 1)
    assert [row[0] for row in rest] == expected[7:]
