"""PoolOperator: start-up, hand-over, and every reason to refuse a certificate, by name."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.model import NANO, CertificateDomain, Operator, OperatorSet, Signature
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import (
    ANYONE,
    OWNER,
    PARAMS,
    PARTICIPANTS,
    POLICY,
    Scene,
    leaf,
    operator_keys,
)

KEYS = operator_keys(6)


def operators(*weights: int, set_id: int = 1) -> OperatorSet:
    members = zip(KEYS, weights, strict=False)
    return OperatorSet(set_id=set_id, operators=tuple(Operator(node_key=k.public, weight=w) for k, w in members))


def events(scene: Scene, sent: object) -> list[int]:
    return [out.op for transaction in sent.transactions for out in transaction.out_messages if out.dest is None]


# ---- start-up ----


def test_init_deploys_children_from_the_pools_own_state() -> None:
    scene = Scene()
    sent = scene.deploy()
    assert sent.refusal is None
    pool, rewards = scene.pool_state(), scene.state()
    assert pool.owner == OWNER
    assert pool.phase == 0
    assert pool.operator_set is None
    assert pool.policy_hash == POLICY
    assert rewards.pool == scene.pool
    assert (rewards.current_epoch, rewards.current_start_s) == (1, scene.ledger.now)
    assert scene.ledger.account(pool.rewards).code_hash == layout.code("reward_distribution").hash
    assert scene.ledger.account(pool.registry).code_hash == layout.code("participant_registry").hash
    assert events(scene, sent) == [Event.EVENT_POOL_INITIALISED]


def test_init_happens_once(scene: Scene) -> None:
    before = scene.pool_state()
    sent = scene.send(OWNER, scene.pool, fees.INIT_NANOTON, layout.init_body(replace(PARAMS, fee_bps=9999)))
    assert sent.refusal is Refusal.ALREADY_INITIALISED
    assert scene.pool_state() == before


@pytest.mark.parametrize(
    ("source", "value", "refusal"),
    [
        (ANYONE, fees.INIT_NANOTON, Refusal.NOT_OWNER),
        (OWNER, 2 * NANO, Refusal.INSUFFICIENT_VALUE),
    ],
)
def test_init_refused(source: object, value: int, refusal: Refusal) -> None:
    scene = Scene()
    body = layout.init_body(PARAMS)
    sent = scene.send(source, scene.pool, value, body, state_init=scene.init)
    assert sent.refusal is refusal
    assert scene.deploy().refusal is None, "a refused start leaves the pool as it was"


def test_init_refuses_a_fee_above_the_whole() -> None:
    scene = Scene()
    params = Builder().store_uint(10_001, 16).store_coins(1).store_uint(1, 32).store_uint(1, 1)
    params.store_uint(0, 256).store_coins(0)
    body = Builder().store_uint(Op.POOL_INIT, 32).store_uint(0, 64).store_ref(params.end_cell()).end_cell()
    sent = scene.send(OWNER, scene.pool, fees.INIT_NANOTON, body, state_init=scene.init)
    assert sent.refusal is Refusal.INVALID_PARAMS


def test_nothing_works_before_init() -> None:
    scene = Scene()
    body = layout.register_body(stake_nanoton=1, node_key=KEYS[0].public)
    sent = scene.send(ANYONE, scene.pool, NANO, body, state_init=scene.init)
    assert sent.refusal is Refusal.NOT_INITIALISED


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0\0hello", b"\x12\x34\x56\x78" + bytes(8)])
def test_unknown_messages_give_the_value_back(scene: Scene, body: bytes) -> None:
    cell = Builder().store_bytes(body).end_cell()
    for contract in (scene.pool, scene.registry):
        sent = scene.send(ANYONE, contract, NANO, cell)
        assert sent.refusal is Refusal.UNKNOWN_OP
        assert sent.received(ANYONE) > NANO - NANO // 100


def test_top_up_stays(scene: Scene) -> None:
    before = scene.balance(scene.pool)
    assert scene.send(ANYONE, scene.pool, NANO, layout.top_up_body()).refusal is None
    assert scene.balance(scene.pool) > before + NANO - NANO // 100


# ---- hand-over ----


def test_hand_over_is_one_way(scene: Scene) -> None:
    sent = scene.enable_quorum(operators(1, 2, 3))
    assert sent.refusal is None
    assert events(scene, sent) == [Event.EVENT_QUORUM_ENABLED]
    pool = scene.pool_state()
    assert pool.phase == 1
    assert pool.operator_set == operators(1, 2, 3)
    assert scene.enable_quorum(operators(1)).refusal is Refusal.QUORUM_ALREADY_ENABLED
    assert scene.pool_state() == pool


def test_hand_over_by_the_owner_only(scene: Scene) -> None:
    assert scene.enable_quorum(operators(1), source=ANYONE).refusal is Refusal.NOT_OWNER


def test_hand_over_needs_its_gas(scene: Scene) -> None:
    body = layout.enable_quorum_body(operators(1, 1, 1))
    sent = scene.send(OWNER, scene.pool, NANO // 50, body)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE


def set_cell(members: list[tuple[int, int, int]], *, count: int, total: int) -> Cell:
    """An operator set of (index, key, weight) that need not be valid."""

    def store(builder: Builder, member: tuple[int, int]) -> None:
        builder.store_uint(member[0], 256).store_uint(member[1], 32)

    root = layout.dictionary.build({i: (key, weight) for i, key, weight in members}, 16, store)
    cell = Builder().store_uint(1, 32).store_uint(count, 16).store_uint(total, 64)
    return cell.store_maybe_ref(root).end_cell()


@pytest.mark.parametrize(
    "broken",
    [
        set_cell([], count=0, total=0),
        set_cell([(0, 5, 1), (2, 6, 1)], count=2, total=2),
        set_cell([(1, 5, 1)], count=1, total=1),
        set_cell([(0, 5, 1), (1, 6, 0)], count=2, total=1),
        set_cell([(0, 5, 1), (1, 6, 1)], count=3, total=2),
        set_cell([(0, 5, 1), (1, 6, 1)], count=2, total=1),
        set_cell([(i, i, 1) for i in range(181)], count=181, total=181),
    ],
    ids=["empty", "gap", "not from 0", "no weight", "count", "total", "too many"],
)
def test_hand_over_refuses_a_broken_set(scene: Scene, broken: Cell) -> None:
    body = Builder().store_uint(Op.POOL_ENABLE_QUORUM, 32).store_uint(0, 64).store_ref(broken).end_cell()
    sent = scene.send(OWNER, scene.pool, NANO, body)
    assert sent.refusal is Refusal.INVALID_SET
    assert scene.pool_state().operator_set is None


# ---- certificates ----


@pytest.fixture
def ready(scene: Scene) -> Scene:
    """Operators of weights 1..6 in charge (total 21), one epoch finalized."""
    scene.keys = KEYS
    assert scene.enable_quorum(operators(1, 2, 3, 4, 5, 6)).refusal is None
    scene.finish_epoch()
    return scene


def good(scene: Scene) -> Cell:
    pot = scene.state().open_epochs[0].pot_nanoton
    return scene.certificate(scene.payload([leaf(PARTICIPANTS[0], pot)]))


def test_certificate_settles(ready: Scene) -> None:
    cell = good(ready)
    sent = ready.submit(cell, [3, 4, 5])
    assert sent.refusal is None
    landed = ready.state().landed
    assert landed.epoch == 1
    assert landed.payload_hash == cell.refs[0].hash
    assert sent.received(ANYONE) <= fees.submit_nanoton(3), "submitting costs; it never pays"


@pytest.mark.parametrize(
    ("signers", "refusal"),
    [
        ([2, 4, 5], Refusal.NO_QUORUM),  # 14 of 21: exactly two thirds
        ([5], Refusal.NO_QUORUM),
        ([3, 4, 5], None),  # 15 of 21
        ([0, 1, 2, 3, 4], None),
    ],
)
def test_more_than_two_thirds_of_the_weight(ready: Scene, signers: list[int], refusal: Refusal | None) -> None:
    assert ready.submit(good(ready), signers).refusal is refusal


def test_no_quorum_before_the_hand_over(scene: Scene) -> None:
    scene.keys = KEYS
    scene.finish_epoch()
    assert scene.submit(good(scene)).refusal is Refusal.QUORUM_NOT_ENABLED


def envelope(
    scene: Scene, *, global_id: int = -217, pool: object = None, set_id: int = 1, kind: int = 1, valid: int = 2**32 - 1
) -> Cell:
    payload = good(scene).refs[0]
    domain = CertificateDomain(global_id=global_id, pool=pool or scene.pool, set_id=set_id)
    return certificate.certificate_cell(domain, kind, payload, valid_until_s=valid)


@pytest.mark.parametrize(
    ("over", "refusal"),
    [
        ({"global_id": -239}, Refusal.WRONG_NETWORK),
        ({"global_id": 217}, Refusal.WRONG_NETWORK),
        ({"pool": ANYONE}, Refusal.WRONG_POOL),
        ({"set_id": 0}, Refusal.WRONG_SET),
        ({"set_id": 2}, Refusal.WRONG_SET),
        ({"kind": 0}, Refusal.UNKNOWN_KIND),
        ({"kind": 2}, Refusal.UNKNOWN_KIND),
        ({"valid": 1_800_000_000}, Refusal.EXPIRED),
        ({}, None),
    ],
)
def test_certificate_of_another_domain(ready: Scene, over: dict[str, object], refusal: Refusal | None) -> None:
    assert ready.submit(envelope(ready, **over)).refusal is refusal


def test_a_certificate_holds_until_its_last_second(ready: Scene) -> None:
    assert ready.submit(envelope(ready, valid=ready.ledger.now - 1)).refusal is Refusal.EXPIRED
    assert ready.submit(envelope(ready, valid=ready.ledger.now)).refusal is None


def test_another_tag_is_no_certificate(ready: Scene) -> None:
    cell = good(ready)
    other = Builder().store_uint(0x43455255, 32).store_bits(cell.bits[32:]).store_ref(cell.refs[0]).end_cell()
    signatures = [Signature(index=i, signature=key.sign(other.hash)) for i, key in enumerate(KEYS)]
    body = certificate.submit_body(other, signatures)
    sent = ready.ledger.send_internal(ANYONE, ready.pool, NANO, body)
    assert sent[0].exit_code == 63
    assert ready.state().landed.epoch == 0


def test_signatures_hold_for_exactly_these_bits(ready: Scene) -> None:
    cell = good(ready)
    signatures = [Signature(index=i, signature=key.sign(cell.hash)) for i, key in enumerate(KEYS)]
    payload = ready.payload([leaf(PARTICIPANTS[1], 1)])
    other = ready.certificate(payload)
    assert ready.submit(other, signatures=signatures).refusal is Refusal.BAD_SIGNATURE
    flipped = [
        *signatures[:5],
        Signature(index=5, signature=bytes([signatures[5].signature[0] ^ 1]) + signatures[5].signature[1:]),
    ]
    assert ready.submit(cell, signatures=flipped).refusal is Refusal.BAD_SIGNATURE
    swapped = [Signature(index=s.index, signature=signatures[5 - s.index].signature) for s in signatures]
    assert ready.submit(cell, signatures=swapped).refusal is Refusal.BAD_SIGNATURE
    assert ready.submit(cell, signatures=signatures).refusal is None


def chain(scene: Scene, cell: Cell, indexes: list[int], *, declared: int | None = None) -> Cell:
    """A submission whose chain of signatures stands in the order given."""
    link: Cell | None = None
    for index in reversed(indexes):
        signature = KEYS[index % len(KEYS)].sign(cell.hash)
        link = Builder().store_uint(index, 16).store_bytes(signature).store_maybe_ref(link).end_cell()
    body = Builder().store_uint(Op.POOL_SUBMIT_CERTIFICATE, 32).store_uint(0, 64)
    count = len(indexes) if declared is None else declared
    return body.store_uint(count, 8).store_ref(cell).store_ref(link).end_cell()


@pytest.mark.parametrize(
    ("indexes", "declared", "refusal"),
    [
        ([5, 5, 5, 5], None, Refusal.SIGNERS_UNSORTED),
        ([3, 5, 4], None, Refusal.SIGNERS_UNSORTED),
        ([3, 4, 5, 6], None, Refusal.UNKNOWN_SIGNER),
        ([3, 4, 65535], None, Refusal.UNKNOWN_SIGNER),
        ([3, 4, 5], 2, Refusal.TOO_MANY_SIGNERS),
        ([3, 4, 5], 0, Refusal.TOO_MANY_SIGNERS),
        ([3, 4, 5], 9, None),
    ],
)
def test_signature_chain(ready: Scene, indexes: list[int], declared: int | None, refusal: Refusal | None) -> None:
    body = chain(ready, good(ready), indexes, declared=declared)
    assert ready.send(ANYONE, ready.pool, NANO, body).refusal is refusal


def test_submission_needs_its_gas(ready: Scene) -> None:
    sent = ready.submit(good(ready), value=NANO // 100)
    assert sent.refusal is Refusal.INSUFFICIENT_VALUE


def test_another_policy(ready: Scene) -> None:
    payload = ready.payload([], policy_hash=hashlib.sha256(b"another").digest())
    assert ready.submit(ready.certificate(payload)).refusal is Refusal.WRONG_POLICY


def test_what_the_child_refuses_comes_back_to_the_submitter(ready: Scene) -> None:
    cell = good(ready)
    assert ready.submit(cell).refusal is None
    value = fees.submit_nanoton(6)
    balance = ready.balance(ready.pool)
    sent = ready.submit(cell, value=value)
    assert sent.refusal is Refusal.ALREADY_SETTLED
    assert sent.received(ANYONE) > value - NANO // 40
    assert ready.balance(ready.pool) >= balance - 1000, "the pool neither keeps nor pays"


# ---- get-methods ----


def test_get_methods(ready: Scene) -> None:
    info = ready.get(ready.pool, "get_pool_info")
    assert info[1:] == [7, 1, 500, 100 * NANO, 1000, -1, int.from_bytes(POLICY, "big")]
    set_id, count, total, _ = ready.get(ready.pool, "get_operator_set")
    assert (set_id, count, total) == (1, 6, 21)
    global_id, _, set_id = ready.get(ready.pool, "get_certificate_domain")
    assert (global_id, set_id) == (-217, 1)
    registry, rewards = (s.load_address() for s in ready.get(ready.pool, "get_contract_references"))
    assert (registry.hash_part, rewards.hash_part) == (ready.registry.account, ready.rewards.account)
