"""Registration in PoolOperator, and what its children alone may tell it."""

from __future__ import annotations

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.commands import SetRegistration
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import (
    NANO,
    Address,
)
from contracts.opcodes import Event, Op, Refusal, describe_exit
from contracts.signing import SigningKey
from tests.contracts.pool_scene import (
    ANYONE,
    OWNER,
    PARTICIPANTS,
    POLICY,
    STAKE,
    Scene,
    account,
    node_key,
    operator_keys,
)

KEYS = operator_keys(6)
MASTERCHAIN_OWNER = Address(-1, OWNER.account)


# ---- registration ----


def test_registration_with_a_proven_node_key(scene: Scene) -> None:
    worker = account("worker")
    sent = scene.register(PARTICIPANTS[0], worker=worker, gpu_spec_hash=POLICY, gpu_count=8)
    assert sent.refusal is None
    entry = scene.participant(PARTICIPANTS[0])
    assert (entry.node_key, entry.stake_nanoton) == (node_key(PARTICIPANTS[0]).public, STAKE)
    assert (entry.worker, entry.gpu_spec_hash, entry.gpu_count) == (worker, POLICY, 8)
    pool = scene.pool_state()
    assert (pool.active_count, pool.pooled_stake_nanoton, pool.counters_seqno) == (1, STAKE, 1)
    assert sent.received(PARTICIPANTS[0]) > fees.REGISTRATION_NANOTON - NANO // 10


def proof_of(
    key: SigningKey, owner: Address, *, global_id: int = DEVNET_GLOBAL_ID, pool: Address | None = None
) -> bytes:
    scene_pool = pool or Scene().pool
    return certificate.prove_possession(key, global_id=global_id, pool=scene_pool, owner=owner)


@pytest.mark.parametrize(
    "signature",
    [
        proof_of(node_key(PARTICIPANTS[1]), PARTICIPANTS[0]),
        proof_of(node_key(PARTICIPANTS[0]), PARTICIPANTS[1]),
        proof_of(node_key(PARTICIPANTS[0]), PARTICIPANTS[0], global_id=-239),
        proof_of(node_key(PARTICIPANTS[0]), PARTICIPANTS[0], pool=ANYONE),
        bytes(64),
    ],
    ids=["another key", "for another owner", "in another network", "in another pool", "none"],
)
def test_registration_of_a_key_that_did_not_sign(scene: Scene, signature: bytes) -> None:
    sent = scene.register(PARTICIPANTS[0], signature=signature)
    assert sent.refusal is Refusal.NOT_POSSESSED
    assert sent.received(PARTICIPANTS[0]) > STAKE
    assert scene.registry_state().count == 0


def test_registration_below_the_minimum(scene: Scene) -> None:
    assert scene.register(PARTICIPANTS[0], stake_nanoton=STAKE - 1).refusal is Refusal.STAKE_BELOW_MINIMUM
    assert scene.register(PARTICIPANTS[0], stake_nanoton=STAKE).refusal is None


def test_registration_needs_its_value(scene: Scene) -> None:
    for value in (STAKE, STAKE + NANO // 20, NANO):
        assert scene.register(PARTICIPANTS[0], value=value).refusal is Refusal.INSUFFICIENT_VALUE


def test_registration_from_workchain_0_alone(scene: Scene) -> None:
    body = layout.register_body(
        stake_nanoton=STAKE,
        node_key=KEYS[0].public,
        signature=proof_of(KEYS[0], MASTERCHAIN_OWNER),
    )
    sent = scene.ledger.send_internal(MASTERCHAIN_OWNER, scene.pool, STAKE + NANO, body)
    assert sent[0].exit_code == Refusal.WRONG_WORKCHAIN


def test_registration_while_it_is_shut(scene: Scene) -> None:
    assert scene.owner_command(SetRegistration(gov_seqno=1, open=False)).refusal is None
    assert scene.register(PARTICIPANTS[0]).refusal is Refusal.REGISTRATION_CLOSED
    sent = scene.owner_command(SetRegistration(gov_seqno=2, open=True))
    assert [(event.op, event.values["open"]) for event in sent.events] == [(Event.EVENT_REGISTRATION_SET, True)]
    assert scene.register(PARTICIPANTS[0]).refusal is None


def test_registration_with_more_than_a_profile(scene: Scene) -> None:
    """Nobody makes the registry carry cells of its own choice."""
    key = node_key(PARTICIPANTS[0])
    plain = layout.register_body(
        stake_nanoton=STAKE, node_key=key.public, signature=proof_of(key, PARTICIPANTS[0], pool=scene.pool)
    )
    profile = Builder().store_bits(plain.refs[0].bits).store_ref(Cell.empty()).end_cell()
    body = Builder().store_bits(plain.bits).store_ref(profile).end_cell()
    value = STAKE + fees.REGISTRATION_NANOTON
    for broken in (body, Builder().store_bits(plain.bits).store_ref(Cell.empty()).end_cell()):
        sent = scene.send(PARTICIPANTS[0], scene.pool, value, broken)
        assert describe_exit(sent.at(scene.pool).exit_code) == "cell_underflow"
        assert sent.received(PARTICIPANTS[0]) > STAKE
    assert scene.send(PARTICIPANTS[0], scene.pool, value, plain).refusal is None


# ---- what only children may tell ----


def test_counters_come_from_the_registry_alone(scene: Scene) -> None:
    body = layout.body_cell(Op.POOL_SYNC_COUNTERS, seqno=9, active_count=9, pooled_stake=9, excess_to=ANYONE)
    for stranger in (ANYONE, OWNER, scene.rewards):
        assert scene.send(stranger, scene.pool, NANO, body).refusal is Refusal.NOT_CHILD
    assert scene.pool_state().counters_seqno == 0


def test_older_counters_say_nothing(scene: Scene) -> None:
    for seqno, count, known in [(5, 3, 3), (4, 1, 3), (5, 2, 3), (6, 2, 2)]:
        body = layout.body_cell(
            Op.POOL_SYNC_COUNTERS, seqno=seqno, active_count=count, pooled_stake=7, excess_to=ANYONE
        )
        sent = scene.ledger.send_internal(scene.registry, scene.pool, NANO, body)
        assert sent[0].exit_code == 0
        assert sum(out.value_nanoton for out in sent[0].out_messages if out.dest == ANYONE) > NANO * 98 // 100
        assert scene.pool_state().active_count == known


def settled_body(tasks: int, tokens: int) -> Cell:
    return layout.body_cell(
        Op.POOL_EPOCH_SETTLED, submitter=ANYONE, epoch=1, totals_root=POLICY, tasks=tasks, tokens=tokens
    )


def test_settlements_come_from_the_rewards_alone(scene: Scene) -> None:
    for stranger in (ANYONE, OWNER, scene.registry):
        assert scene.send(stranger, scene.pool, NANO, settled_body(5, 6)).refusal is Refusal.NOT_CHILD
    assert (scene.pool_state().tasks, scene.pool_state().tokens) == (0, 0)


def test_work_of_all_settlements_is_counted_and_never_overflows(scene: Scene) -> None:
    most = 2**64 - 1
    for tasks, tokens, counted in [(5, 6, (5, 6)), (most - 5, 0, (most, 6)), (most, most, (most, most))]:
        sent = scene.send(scene.rewards, scene.pool, NANO, settled_body(tasks, tokens))
        assert sent.refusal is None
        assert (scene.pool_state().tasks, scene.pool_state().tokens) == counted
    assert scene.registry_state().roots == {1: POLICY}
