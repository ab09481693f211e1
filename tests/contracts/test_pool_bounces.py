"""What comes back to PoolOperator goes on to whose it is; what it cannot send on it refuses beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Builder, Cell

from contracts import certificate, fees, layout
from contracts.commands import (
    AcceptSet,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeParams,
    ProposeUpgrade,
    Resume,
    SetReputation,
    Target,
)
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import DAY_S, NANO, ZERO_HASH, Operator, OperatorSet, UpgradeTarget
from contracts.opcodes import Event, Op, Refusal
from contracts.wallet import OutMessage
from tests.contracts.chain_scene import FUNDS, external, own_address
from tests.contracts.pool_scene import ANYONE, OWNER, PARAMS, PARTICIPANTS, STAKE, Scene, Sent, leaf, node_key

# fun onInternalMessage(in: InMessage) { throw 0xffff; }
REFUSING = layout.parse_boc(
    bytes.fromhex(
        "b5ee9c72010102010019000114ff00f4a413f4bcf2c80b010014d330f891f240840ff2f0",
    )
)
ALICE, BOB, CAROL = PARTICIPANTS[:3]


def propose_code(scene: Scene, target: UpgradeTarget, code: Cell) -> None:
    """Propose it, and wait until it can be applied."""
    command = ProposeUpgrade(gov_seqno=scene.gov_seqno, target=target, code_hash=code.hash)
    assert scene.act(command).refusal is None
    scene.advance(PARAMS.upgrade_delay_s)


def silence(scene: Scene, target: UpgradeTarget) -> None:
    """Let the child refuse everything from now on."""
    propose_code(scene, target, REFUSING)
    assert scene.apply_upgrade(REFUSING).refusal is None


def comes_back(scene: Scene, act: Callable[[], Sent], value: int) -> None:
    """The child refuses; the submitter has its value again, and the pool neither kept nor paid."""
    for address in (scene.pool, scene.registry, scene.rewards):
        scene.send(ANYONE, address, NANO, layout.top_up_body())  # the rent until now, even where it is refused
    before = scene.balance(scene.pool)
    sent = act()
    assert sent.refusal is Refusal.UNKNOWN_OP
    assert value - NANO // 20 < sent.received(ANYONE) < value
    assert scene.balance(scene.pool) == before


# ---- registration ----


def test_trap_11_a_failed_registration_returns_the_whole_value(scene: Scene) -> None:
    assert scene.register(ALICE).refusal is None
    value = 2 * STAKE + fees.REGISTRATION_NANOTON
    for owner, over, refusal in [
        (ALICE, {}, Refusal.ALREADY_REGISTERED),
        (BOB, {"key": node_key(ALICE)}, Refusal.NODE_KEY_TAKEN),
    ]:
        before = scene.balance(scene.pool), scene.registry_state()
        sent = scene.register(owner, value=value, stake_nanoton=2 * STAKE, **over)
        assert sent.refusal is refusal
        assert sent.received(owner) > value - NANO // 50
        assert (scene.balance(scene.pool), scene.registry_state()) == before


def test_trap_11_a_full_pool_returns_the_stake() -> None:
    scene = Scene()
    assert scene.deploy(replace(PARAMS, max_participants=1)).refusal is None
    assert scene.register(ALICE).refusal is None
    sent = scene.register(BOB)
    assert sent.refusal is Refusal.POOL_FULL
    assert sent.received(BOB) > STAKE + fees.REGISTRATION_NANOTON - NANO // 50


# ---- commands ----


def test_what_a_child_refuses_comes_back_to_the_submitter(ready: Scene) -> None:
    assert ready.register(ALICE).refusal is None
    ready.finish_epoch()
    missing = Target(participant=BOB, joined_s=0, seqno=1)
    for command, refusal in [
        (ready.payload([], prev=b"\1" * 32), Refusal.WRONG_PREV),
        (SetReputation(target=missing, reputation=1), Refusal.NOT_REGISTERED),
        (FeesTo(gov_seqno=1, recipient=ANYONE, amount_nanoton=0), Refusal.NOTHING_PENDING),
        (OwnerMessage(gov_seqno=2, dest=ready.pool, value_nanoton=1, body=Cell.empty()), Refusal.WRONG_DESTINATION),
    ]:
        ready.send(ANYONE, ready.pool, NANO, layout.top_up_body())  # the rent until now
        balance = ready.balance(ready.pool)
        sent = ready.command(command, value=NANO)
        assert sent.refusal is refusal
        assert sent.received(ANYONE) > NANO - NANO // 30
        assert ready.balance(ready.pool) == balance, "the pool neither keeps nor pays"


def test_a_childs_refusal_does_not_give_the_number_back(ready: Scene) -> None:
    too_much = FeesTo(gov_seqno=1, recipient=ANYONE, amount_nanoton=NANO)
    assert ready.command(too_much).refusal is Refusal.NOTHING_PENDING
    assert ready.pool_state().gov_seqno == 1
    assert ready.command(too_much).refusal is Refusal.WRONG_GOV_SEQNO


def test_what_the_owner_commanded_comes_back_to_the_owner(scene: Scene) -> None:
    sent = scene.owner_command(FeesTo(gov_seqno=1, recipient=ANYONE, amount_nanoton=NANO), value=NANO)
    assert sent.refusal is Refusal.NOTHING_PENDING
    assert sent.received(OWNER) > NANO - NANO // 50


# ---- what children are told ----


def test_a_registry_that_does_not_hear_of_a_pause(ready: Scene) -> None:
    silence(ready, UpgradeTarget.REGISTRY)
    comes_back(ready, lambda: ready.command(Pause(gov_seqno=2), value=NANO), NANO)
    assert ready.command(ready.payload([])).refusal is Refusal.POOL_PAUSED, "the pool itself is paused"


def test_a_registry_that_does_not_hear_of_a_settlement(ready: Scene) -> None:
    ready.finish_epoch()
    silence(ready, UpgradeTarget.REGISTRY)
    payload = ready.payload([leaf(ALICE, 0)], total_score=0)
    comes_back(ready, lambda: ready.command(payload, value=NANO), NANO)
    assert ready.state().landed.epoch == 1
    assert ready.pool_state().tasks == 60


def test_a_rewards_contract_that_does_not_hear_of_a_new_set(ready: Scene) -> None:
    silence(ready, UpgradeTarget.REWARDS)
    following = ready.new_set(2)
    assert ready.propose_set(following).refusal is None
    ready.advance(PARAMS.parameter_delay_s)
    accept = AcceptSet(operator_set=following)
    comes_back(ready, lambda: ready.command(accept, set_id=2, value=NANO), NANO)
    assert ready.domain.set_id == 2


@pytest.mark.parametrize("target", [UpgradeTarget.REWARDS, UpgradeTarget.REGISTRY])
def test_a_child_that_does_not_hear_of_new_parameters(ready: Scene, target: UpgradeTarget) -> None:
    silence(ready, target)
    assert ready.command(ProposeParams(gov_seqno=2, params=PARAMS)).refusal is None
    ready.advance(PARAMS.parameter_delay_s)
    comes_back(ready, lambda: ready.apply_params(value=NANO), NANO)
    assert ready.pool_state().pending == ()


@pytest.mark.parametrize("target", [UpgradeTarget.REWARDS, UpgradeTarget.REGISTRY])
def test_a_child_that_does_not_take_new_code(ready: Scene, target: UpgradeTarget) -> None:
    silence(ready, target)
    propose_code(ready, target, Cell.empty())
    comes_back(ready, lambda: ready.apply_upgrade(Cell.empty(), value=NANO), NANO)
    assert ready.pool_state().pending == ()


# ---- trap 14 ----


def test_trap_14_least_values_are_enough_to_the_end(scene: Scene) -> None:
    """Each at exactly what the pool asks for: it is refused one nanoTON below, and then nothing fails later."""
    least = 70_000 * 400 + NANO // 50
    proposal = ProposeUpgrade(gov_seqno=1, target=UpgradeTarget.POOL, code_hash=ZERO_HASH)
    assert scene.owner_command(proposal, value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.owner_command(proposal, value=least).refusal is None
    assert scene.owner_command(ProposeParams(gov_seqno=2, params=PARAMS), value=least).refusal is None

    least = STAKE + NANO // 20 + 60_000 * 400 + NANO // 50
    assert scene.register(ALICE, value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.register(ALICE, value=least).refusal is None

    members = OperatorSet(set_id=1, operators=(Operator(node_key=node_key(ALICE).public, weight=1),))
    least = (70_000 + 1_900) * 400 + NANO // 50
    body = layout.enable_quorum_body(members)
    assert scene.send(OWNER, scene.pool, least - 1, body).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.send(OWNER, scene.pool, least, body).refusal is None


def test_trap_14_the_way_on_is_paid_for_beforehand() -> None:
    """Code of 200 cells costs 0.1 TON to send on. Who brings less is refused, before the action phase could fail."""
    scene = Scene()
    assert scene.deploy().refusal is None
    scene.ledger.fund(own_address(), FUNDS)
    code = Cell.empty()
    for i in range(200):
        code = Builder().store_uint(i, 1000).store_ref(code).end_cell()
    command = ProposeUpgrade(gov_seqno=1, target=UpgradeTarget.REWARDS, code_hash=code.hash)
    assert scene.owner_command(command).refusal is None
    scene.advance(PARAMS.upgrade_delay_s)
    body = layout.apply_upgrade_body(code)
    for seqno, value, exit_code in [(0, NANO // 10, Refusal.INSUFFICIENT_VALUE), (1, NANO // 5, 0)]:
        message = OutMessage(dest=scene.pool, value_nanoton=value, body=body, bounce=True)
        applied = scene.ledger.send_external(external(seqno, [message]))
        at_pool = next(t for t in applied if t.address == scene.pool)
        assert (at_pool.exit_code, at_pool.action_code or 0) == (exit_code, 0)
        assert all(t.action_code in (None, 0) for t in applied)
    assert scene.ledger.account(scene.rewards).code_hash == code.hash


def test_trap_14_a_pool_whose_rent_ran_out_takes_nobodys_value(ready: Scene) -> None:
    """Eight and a half years without a payment for its storage: the pool owes, and still works and gives back."""
    assert ready.register(ALICE).refusal is None
    ready.advance(3100 * DAY_S)
    for operation, to, value in [
        (lambda: ready.command(Pause(gov_seqno=1), value=NANO), ANYONE, NANO),
        (lambda: ready.command(Resume(gov_seqno=2), value=NANO), ANYONE, NANO),
        (lambda: ready.register(ALICE), ALICE, STAKE + fees.REGISTRATION_NANOTON),
    ]:
        ready.advance(60 * DAY_S)
        sent = operation()
        assert sent.transactions[0].exit_code == 0
        assert ready.balance(ready.pool) == 0
        assert sent.received(to) > value - NANO // 10
    assert sent.refusal is Refusal.ALREADY_REGISTERED


# ---- of another pool, of another network ----


def test_another_pools_certificate_is_worth_nothing(ready: Scene) -> None:
    other = Scene()
    other.init = layout.pool_state_init(OWNER, 8, 3600)
    other.pool = layout.address_of(other.init)
    assert other.deploy().refusal is None
    other.hand_over()
    assert (other.keys_of[1][0].public, other.domain.global_id) == (ready.keys_of[1][0].public, DEVNET_GLOBAL_ID)
    cell = certificate.command_certificate(other.domain, Pause(gov_seqno=1))
    assert ready.submit(cell).refusal is Refusal.WRONG_POOL
    assert other.submit(cell).refusal is None


def test_children_of_another_pool_are_strangers(ready: Scene) -> None:
    other = Scene()
    other.init = layout.pool_state_init(OWNER, 8, 3600)
    other.pool = layout.address_of(other.init)
    assert other.deploy().refusal is None
    counters = layout.body_cell(Op.POOL_SYNC_COUNTERS, seqno=1, active_count=1, pooled_stake=1, excess_to=ANYONE)
    assert ready.send(other.registry, ready.pool, NANO, counters).refusal is Refusal.NOT_CHILD
    body = layout.body_cell(Op.POOL_UPGRADE_CHILD, code=REFUSING, excess_to=ANYONE)
    assert ready.send(other.pool, ready.registry, NANO, body).refusal is Refusal.NOT_POOL


def test_events_of_a_refused_message_are_none(ready: Scene) -> None:
    sent = ready.command(Pause(gov_seqno=9))
    assert sent.events == []
    assert [e.op for e in ready.books.events].count(Event.EVENT_POOL_PAUSED) == 0
