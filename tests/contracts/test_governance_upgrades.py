"""New code for each of the three contracts: what it waits for, and that state and layout outlive it."""

from __future__ import annotations

import pytest
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.commands import Pause, ProposeUpgrade, Resume
from contracts.model import NANO, ZERO_HASH, UpgradeTarget
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import ANYONE, OWNER, PARAMS, PARTICIPANTS, STAKE, Scene

# fun onInternalMessage(in: InMessage) {}
# get fun get_version(): (int, int) { return (1, 2); }
NEW_CODE = layout.parse_boc(
    bytes.fromhex(
        "b5ee9c72010104010021000114ff00f4a413f4bcf2c80b010201620203000cd030f891f2400009a08320e2e5",
    )
)
WAIT = PARAMS.upgrade_delay_s
EACH = pytest.mark.parametrize("target", UpgradeTarget, ids=lambda target: target.name.lower())


def at(scene: Scene, target: UpgradeTarget) -> object:
    return {
        UpgradeTarget.POOL: scene.pool,
        UpgradeTarget.REWARDS: scene.rewards,
        UpgradeTarget.REGISTRY: scene.registry,
    }[target]


def propose(scene: Scene, target: UpgradeTarget, code: Cell = NEW_CODE) -> None:
    command = ProposeUpgrade(gov_seqno=scene.gov_seqno, target=target, code_hash=code.hash)
    assert scene.act(command).refusal is None


@pytest.fixture
def busy(ready: Scene) -> Scene:
    """A pool with a stake, an epoch that waits for its settlement, and fees."""
    assert ready.register(PARTICIPANTS[0]).refusal is None
    ready.finish_epoch()
    return ready


@EACH
def test_trap_12_code_is_exchanged_and_state_preserved(busy: Scene, target: UpgradeTarget) -> None:
    propose(busy, target)
    busy.advance(WAIT)
    address = at(busy, target)
    before = [busy.ledger.account(child) for child in (busy.registry, busy.rewards)]
    assert busy.send(ANYONE, address, NANO, layout.top_up_body()).refusal is None  # pays the rent until now
    balance, pool = busy.balance(address), busy.pool_state()
    sent = busy.apply_upgrade(NEW_CODE)
    assert sent.refusal is None
    expected = {"target": target, "code_hash": NEW_CODE.hash}
    assert [(e.op, e.values) for e in sent.events] == [(Event.EVENT_UPGRADE_APPLIED, expected)]

    assert busy.ledger.account(address).code_hash == NEW_CODE.hash
    assert busy.get(address, "get_version") == [1, 2]
    after = [busy.ledger.account(child) for child in (busy.registry, busy.rewards)]
    assert [a.data.hash for a in after] == [b.data.hash for b in before]
    changed = busy.pool_state()
    assert changed.pending == ()
    assert (changed.params, changed.operator_set, changed.gov_seqno) == (pool.params, pool.operator_set, 1)
    assert changed.pooled_stake_nanoton == STAKE
    assert busy.balance(address) == balance, "the upgraded contract paid nothing for it"
    assert sent.received(ANYONE) > NANO // 5 - NANO // 30


@EACH
def test_the_other_two_keep_their_code(busy: Scene, target: UpgradeTarget) -> None:
    propose(busy, target)
    busy.advance(WAIT)
    assert busy.apply_upgrade(NEW_CODE).refusal is None
    for other in UpgradeTarget:
        assert (busy.ledger.account(at(busy, other)).code_hash == NEW_CODE.hash) == (other == target)


def test_other_code_than_the_proposed(ready: Scene) -> None:
    propose(ready, UpgradeTarget.POOL)
    ready.advance(WAIT)
    sent = ready.apply_upgrade(Cell.empty())
    assert sent.refusal is Refusal.WRONG_PROPOSAL
    assert sent.received(ANYONE) > NANO // 5 - NANO // 50
    assert ready.ledger.account(ready.pool).code_hash == layout.code("pool_operator").hash


@pytest.mark.parametrize("number", [3, 255])
def test_there_are_three_contracts(ready: Scene, number: int) -> None:
    command = ProposeUpgrade(gov_seqno=1, target=UpgradeTarget.POOL, code_hash=ZERO_HASH)
    payload = layout.command_cell(command)
    other = Builder().store_bits(payload.bits[:40]).store_uint(number, 8).store_bits(payload.bits[48:]).end_cell()
    scene = Scene()
    assert scene.deploy().refusal is None
    sent = scene.send(OWNER, scene.pool, NANO, layout.body_cell(Op.POOL_OWNER_COMMAND, payload=other))
    assert sent.refusal is Refusal.UNKNOWN_TARGET
    assert scene.pool_state().pending == ()


def test_no_code_is_exchanged_while_the_pool_is_paused(ready: Scene) -> None:
    propose(ready, UpgradeTarget.REGISTRY)
    assert ready.command(Pause(gov_seqno=2)).refusal is None
    ready.advance(WAIT)
    assert ready.apply_upgrade(NEW_CODE).refusal is Refusal.POOL_PAUSED
    assert ready.command(Resume(gov_seqno=3)).refusal is None
    assert ready.apply_upgrade(NEW_CODE).refusal is None


def test_children_take_code_from_the_pool_alone(ready: Scene) -> None:
    body = layout.body_cell(Op.POOL_UPGRADE_CHILD, code=NEW_CODE, excess_to=ANYONE)
    for child, code in ((ready.registry, "participant_registry"), (ready.rewards, "reward_distribution")):
        for stranger in (ANYONE, OWNER, ready.registry, ready.rewards):
            assert ready.send(stranger, child, NANO, body).refusal is Refusal.NOT_POOL
        assert ready.ledger.account(child).code_hash == layout.code(code).hash


def test_who_stakes_can_leave_before_code_is_exchanged(ready: Scene) -> None:
    """The waiting time of code is longer than that of a withdrawal, whatever the parameters."""
    assert ready.register(PARTICIPANTS[0]).refusal is None
    propose(ready, UpgradeTarget.REGISTRY)
    assert ready.request_withdrawal(PARTICIPANTS[0], STAKE).refusal is None
    ready.advance(PARAMS.rules.withdrawal_delay_s)
    assert ready.apply_upgrade(NEW_CODE).refusal is Refusal.TOO_EARLY
    sent = ready.complete_withdrawal(PARTICIPANTS[0])
    assert sent.refusal is None
    assert sent.received(PARTICIPANTS[0]) > STAKE - NANO // 100


def test_large_code_is_paid_for_before_it_is_sent_on() -> None:
    """The forward fee of the way in is asked for once more: nothing fails when the message is sent on."""
    scene = Scene()
    assert scene.deploy().refusal is None
    large = Builder()
    for i in range(4):
        part = Builder()
        for j in range(4):
            part.store_ref(Builder().store_uint(i * 4 + j, 1023).end_cell())
        large.store_ref(part.end_cell())
    code = large.end_cell()
    propose(scene, UpgradeTarget.REWARDS, code)
    scene.advance(WAIT)
    least = 70_000 * 400 + NANO // 50
    body = layout.apply_upgrade_body(code)
    assert scene.send(ANYONE, scene.pool, least, body).refusal is None
    assert scene.ledger.account(scene.rewards).code_hash == code.hash
