"""ParticipantRegistry: messages that are malformed, poor, or from whoever may not send them.

Each is refused by name (by TVM's "the cell ends early" where it ends early), changes nothing and comes back.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.layout.storage import REGISTRY
from contracts.model import NANO, Address, CertificateKind, Participant, RegistryState, StakeRules
from contracts.opcodes import Op, Refusal
from tests.contracts.pool_scene import (
    ANYONE,
    OWNER,
    PARTICIPANTS,
    STAKE,
    START_S,
    Scene,
    Sent,
    account,
    node_key,
)
from tests.contracts.registry_cases import SITUATIONS, enter

ALICE, BOB = PARTICIPANTS[:2]
CELL_UNDERFLOW = 9
CODE = Builder().store_uint(1, 8).end_cell()
SLASH_BITS = Builder().store_uint(CertificateKind.SLASH, 8)

FROM_OWNER: dict[Op, dict[str, Any]] = {
    Op.REGISTRY_INCREASE_STAKE: {"amount": NANO},
    Op.REGISTRY_REQUEST_WITHDRAWAL: {"amount": NANO},
    Op.REGISTRY_CANCEL_WITHDRAWAL: {},
    Op.REGISTRY_HEARTBEAT: {},
    Op.REGISTRY_UPDATE_WORKER_ADDRESS: {"worker": None},
    Op.REGISTRY_ROTATE_NODE_KEY: {"node_key": bytes(range(32)), "signature": bytes(64)},
}
FROM_ANYONE: dict[Op, dict[str, Any]] = {
    Op.REGISTRY_COMPLETE_WITHDRAWAL: {"owner": ALICE},
    Op.REGISTRY_SWEEP_SLASHED: {"owner": ALICE},
    Op.REGISTRY_UPDATE_CONTRIBUTION: {"owner": ALICE, "epoch": 1, "proof": Cell.empty()},
}
FROM_POOL: dict[Op, dict[str, Any]] = {
    Op.REGISTRY_CONFIGURE: {
        "rewards": account("other rewards"),
        "paused_until": 1,
        "rules": StakeRules(),
        "excess_to": ANYONE,
    },
    Op.REGISTRY_ADD_PARTICIPANT: {
        "owner": BOB,
        "stake": STAKE,
        "max_participants": 1000,
        "node_key": node_key(BOB).public,
        "worker": None,
        "gpu_spec_hash": bytes(32),
        "gpu_count": 0,
    },
    Op.REGISTRY_SET_EPOCH_ROOT: {"submitter": ANYONE, "epoch": 1, "totals_root": bytes(31) + b"\1"},
    Op.POOL_RELAY_CERTIFICATE: {
        "submitter": ANYONE,
        "attached": NANO,
        "set_id": 1,
        "kind": CertificateKind.SLASH,
        "payload": SLASH_BITS.end_cell(),
    },
    Op.POOL_UPGRADE_CHILD: {"code": CODE, "excess_to": ANYONE},
}
EVERY = FROM_OWNER | FROM_ANYONE | FROM_POOL


def refused(scene: Scene, source: Address, body: Cell, *, value: int = 2 * STAKE) -> int | None:
    """Send what must be refused: nothing changes, the value comes back; the exit code."""
    data = scene.ledger.account(scene.registry).data
    before, balance = None if data is None else data.hash, scene.balance(scene.registry)
    sent = scene.send(source, scene.registry, value, body)
    first = sent.transactions[0]
    assert first.aborted
    assert first.bounce
    after = scene.ledger.account(scene.registry).data
    assert before == (None if after is None else after.hash)
    assert scene.balance(scene.registry) <= balance
    assert sent.received(source) > value - NANO // 50
    return first.exit_code


def elsewhere(scene: Scene, source: Address, body: Cell) -> int | None:
    """The exit code of a message from the masterchain's account of the same number, which the ledger has not."""
    (transaction,) = scene.ledger.send_internal(Address(-1, source.account), scene.registry, 2 * STAKE, body)
    assert transaction.bounce
    return transaction.exit_code


def sender_of(scene: Scene, op: Op) -> Address:
    return scene.pool if op in FROM_POOL else ALICE


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name.lower())
def test_a_message_that_ends_early(scene: Scene, op: Op) -> None:
    enter(scene, ALICE, 2 * STAKE)
    whole = layout.body_cell(op, **EVERY[op])
    for bits in sorted({32, 33, 95, len(whole.bits) - 1} - {len(whole.bits)}):
        if bits < len(whole.bits):
            cut = Builder().store_bits(whole.bits[:bits])
            for cell in whole.refs:
                cut.store_ref(cell)
            assert refused(scene, sender_of(scene, op), cut.end_cell()) == CELL_UNDERFLOW
    if whole.refs:
        bare = Builder().store_bits(whole.bits).end_cell()
        assert refused(scene, sender_of(scene, op), bare) == CELL_UNDERFLOW


@pytest.mark.parametrize("bits", [1, 8, 31])
def test_less_than_an_op_is_no_message(scene: Scene, bits: int) -> None:
    assert refused(scene, ANYONE, Builder().store_uint(0, bits).end_cell()) == Refusal.UNKNOWN_OP


def test_plain_ton_comes_back(scene: Scene) -> None:
    assert refused(scene, ANYONE, Cell.empty()) == Refusal.UNKNOWN_OP
    comment = Builder().store_uint(0, 32).store_bytes(b"stake").end_cell()
    assert refused(scene, ANYONE, comment) == Refusal.UNKNOWN_OP


@pytest.mark.parametrize("op", [op for op in Op if op not in EVERY and op is not Op.TOP_UP], ids=lambda op: op.name)
def test_messages_for_others_are_unknown(scene: Scene, op: Op) -> None:
    body = Builder().store_uint(op, 32).store_uint(0, 64).end_cell()
    for source in (ANYONE, scene.pool, scene.rewards):
        assert refused(scene, source, body) == Refusal.UNKNOWN_OP


@pytest.mark.parametrize("op", FROM_POOL, ids=lambda op: op.name.lower())
def test_what_the_pool_sends_is_believed_of_the_pool_alone(scene: Scene, op: Op) -> None:
    enter(scene, ALICE, STAKE)
    body = layout.body_cell(op, **FROM_POOL[op])
    for source in (ANYONE, ALICE, OWNER, scene.rewards):
        assert refused(scene, source, body) == Refusal.NOT_POOL
    assert elsewhere(scene, scene.pool, body) == Refusal.NOT_POOL


@pytest.mark.parametrize("op", FROM_OWNER, ids=lambda op: op.name.lower())
def test_only_an_entry_has_an_owner(scene: Scene, op: Op) -> None:
    enter(scene, ALICE, STAKE)
    body = layout.body_cell(op, **FROM_OWNER[op])
    for source in (ANYONE, BOB, OWNER, scene.pool, scene.rewards):
        assert refused(scene, source, body) == Refusal.NOT_REGISTERED
    assert elsewhere(scene, ALICE, body) == Refusal.WRONG_WORKCHAIN


@pytest.mark.parametrize("op", FROM_ANYONE, ids=lambda op: op.name.lower())
def test_nothing_is_done_for_who_is_not_there(scene: Scene, op: Op) -> None:
    assert refused(scene, ANYONE, layout.body_cell(op, **FROM_ANYONE[op])) == Refusal.NOT_REGISTERED


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name.lower())
def test_a_message_that_cannot_pay_its_way(scene: Scene, op: Op) -> None:
    enter(scene, ALICE, 2 * STAKE)
    amount = STAKE if op is Op.REGISTRY_ADD_PARTICIPANT else 0
    body = layout.body_cell(op, **EVERY[op])
    assert refused(scene, sender_of(scene, op), body, value=amount + NANO // 250) == Refusal.INSUFFICIENT_VALUE


@pytest.mark.parametrize("kind", sorted(set(range(1, 8)) | {int(k) for k in CertificateKind} | {0, 255}))
def test_a_relay_of_what_does_not_concern_the_registry(scene: Scene, kind: int) -> None:
    enter(scene, ALICE, STAKE)
    values = FROM_POOL[Op.POOL_RELAY_CERTIFICATE] | {"kind": kind}
    body = layout.body_cell(Op.POOL_RELAY_CERTIFICATE, **values)
    code = refused(scene, scene.pool, body)
    if kind == CertificateKind.SLASH:
        assert code == CELL_UNDERFLOW
    elif kind in range(CertificateKind.CANCEL_SLASH, CertificateKind.SUSPEND + 1):
        assert code == 63  # TVM's: the payload is of another kind
    else:
        assert code == Refusal.UNKNOWN_KIND


def test_a_relay_whose_payload_is_longer_than_a_command(scene: Scene) -> None:
    enter(scene, ALICE, STAKE)
    target = Builder().store_bytes(ALICE.account).store_uint(START_S, 32).store_uint(1, 32).end_cell()
    payload = Builder().store_uint(CertificateKind.REMOVE, 8).store_cell(target)
    values = FROM_POOL[Op.POOL_RELAY_CERTIFICATE] | {"kind": CertificateKind.REMOVE}
    longer = Builder().store_cell(payload.end_cell()).store_uint(0, 1).end_cell()
    body = layout.body_cell(Op.POOL_RELAY_CERTIFICATE, **values | {"payload": longer})
    assert refused(scene, scene.pool, body) == CELL_UNDERFLOW
    body = layout.body_cell(Op.POOL_RELAY_CERTIFICATE, **values | {"payload": payload.end_cell()})
    assert scene.send(scene.pool, scene.registry, NANO, body).refusal is None


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_stranger_changes_nobodys_entry(scene: Scene, situation: str) -> None:
    SITUATIONS[situation].arrange(scene, ALICE)
    enter(scene, BOB, STAKE)
    before = scene.participant(ALICE)
    for op in FROM_OWNER:
        scene.send(BOB, scene.registry, 2 * STAKE, layout.body_cell(op, **FROM_OWNER[op]))
    for op in FROM_POOL:
        scene.send(BOB, scene.registry, 2 * STAKE, layout.body_cell(op, **FROM_POOL[op]))
    if scene.ledger.now < before.withdraw_at_s or not before.pending_nanoton:  # else anyone may, and the owner is paid
        assert scene.complete_withdrawal(ALICE, source=BOB).refusal is not None
    assert scene.sweep_slashed(ALICE, source=BOB).refusal is not None
    assert scene.participant(ALICE) == before


# ---- what comes back ----


def alone(rules: StakeRules | None) -> tuple[Scene, Address]:
    """A registry of one participant whose pool takes no message; its scene only delivers."""
    entry = Participant(address=ALICE, node_key=node_key(ALICE).public, stake_nanoton=2 * STAKE, joined_s=START_S)
    scene = Scene()
    state = RegistryState(
        pool=scene.pool,
        rewards=None if rules is None else account("rewards"),
        rules=rules,
        paused_until_s=0,
        count=1,
        active_count=1,
        total_stake_nanoton=2 * STAKE,
        total_pending_nanoton=0,
        slashed_nanoton=0,
        counters_seqno=0,
        roots={},
        participants=(entry,),
    )
    init = layout.state_init(layout.code("participant_registry"), REGISTRY.cell(state))
    registry = layout.address_of(init)
    scene.send(ANYONE, registry, 2 * STAKE + NANO, layout.top_up_body(), state_init=init)
    return scene, registry


def test_counters_that_the_pool_does_not_take_do_not_keep_the_rest_of_the_value() -> None:
    scene, registry = alone(StakeRules())
    before = scene.balance(registry)
    sent = Sent(scene.ledger.send_internal(ALICE, registry, 5 * NANO, layout.request_withdrawal_body(STAKE)))
    told, back = sent.transactions[1], sent.transactions[2]
    assert (told.address, told.aborted) == (scene.pool, True)
    assert (back.address, back.exit_code) == (registry, 0)
    assert sent.received(ALICE) > 5 * NANO - NANO // 50
    assert before - NANO // 1000 < scene.balance(registry) <= before


@pytest.mark.parametrize(
    ("op", "source"),
    [
        (Op.REGISTRY_INCREASE_STAKE, ALICE),
        (Op.REGISTRY_REQUEST_WITHDRAWAL, ALICE),
        (Op.REGISTRY_CANCEL_WITHDRAWAL, ALICE),
        (Op.REGISTRY_COMPLETE_WITHDRAWAL, ANYONE),
        (Op.REGISTRY_SWEEP_SLASHED, ANYONE),
        (Op.REGISTRY_UPDATE_CONTRIBUTION, ANYONE),
    ],
)
def test_without_rules_nothing_that_needs_them(op: Op, source: Address) -> None:
    scene, registry = alone(None)
    (first, *_) = scene.ledger.send_internal(source, registry, 2 * STAKE, layout.body_cell(op, **EVERY[op]))
    assert first.exit_code == Refusal.NOT_INITIALISED
    assert first.bounce
