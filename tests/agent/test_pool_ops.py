"""Operations on the pool's contracts: each refuses what cannot succeed, says why, and then sends nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pool_fixture import participant

from agent import pool_ops
from agent.errors import OperationError
from agent.pool_ops import CONFIRM_TIMEOUT_S, Claimed
from contracts import fees
from contracts.chain import Account
from contracts.errors import ContractAbsentError
from contracts.model import (
    NANO,
    ZERO_HASH,
    Address,
    Landed,
    Leaf,
    Operator,
    OperatorSet,
    Participant,
    PoolParams,
    PoolState,
    RewardsState,
)
from contracts.proof import totals_tree
from contracts.wallet import OutMessage

ME, OTHER, POOL, REWARDS = (Address(0, bytes([n]) * 32) for n in (1, 2, 3, 4))
NODE_KEY = bytes([9]) * 32
STAKE = 100 * NANO
OPERATORS = OperatorSet(set_id=1, operators=(Operator(node_key=participant(0).node_key, weight=1),))
LEAF = Leaf(participant=ME, earned_nanoton=10 * NANO, score=1, tokens=1, tasks=1, uptime_s=1, quality=1, reputation=500)
LANDED = Landed(
    epoch=3, payload_hash=bytes([7]) * 32, totals_root=totals_tree([LEAF]).root_hash, previous_root=ZERO_HASH,
    total_earned_nanoton=10 * NANO, settled_s=1,
)  # fmt: skip
PARAMS = PoolParams(
    fee_bps=200, min_stake_nanoton=STAKE, max_participants=4, registration_open=True,
    policy_hash=ZERO_HASH, max_refund_nanoton=0,
)  # fmt: skip
STATE = PoolState(
    owner=ME, pool_id=1, phase=0, registry=OTHER, rewards=REWARDS, fee_bps=200, min_stake_nanoton=STAKE,
    max_participants=4, registration_open=True, policy_hash=ZERO_HASH, max_refund_nanoton=0, operator_set=None,
)  # fmt: skip
REWARDS_STATE = RewardsState(
    pool=POOL, current_epoch=4, current_start_s=0, current_end_s=1, epoch_duration_s=1, received_nanoton=0,
    carried_nanoton=0, distributed_nanoton=0, liabilities_nanoton=0, pending_fees_nanoton=0, fee_bps=200,
    open_epochs=(), landed=LANDED, paid_nanoton={ME.account: 4 * NANO},
)  # fmt: skip


class Scene:
    """Chain, wallet and reader in one: what stands on chain, what was sent, and what a sent message changes."""

    def __init__(self) -> None:
        self.address = ME
        self.pool = POOL
        self.balance_nanoton = 1000 * NANO
        self.stands = True
        self.pool_state = STATE
        self.rewards_state = REWARDS_STATE
        self.participants: tuple[Participant, ...] = (participant(0), participant(1))
        self.sent: list[OutMessage] = []
        self.on_sent: Callable[[], None] = lambda: None

    async def account(self, address: Address) -> Account:
        active = self.stands if address != self.address else True
        return Account(
            balance_nanoton=self.balance_nanoton, active=active, code_hash=None, data=None, last_lt=0, last_hash=b""
        )

    async def transfer(self, messages: list[OutMessage]) -> None:
        self.sent += messages
        self.on_sent()

    async def state(self) -> PoolState:
        return self.pool_state

    async def rewards(self) -> RewardsState:
        if not self.stands:
            raise ContractAbsentError("not yet")
        return self.rewards_state

    async def registry(self) -> tuple[Participant, ...]:
        return self.participants


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Scene()
    monkeypatch.setattr(pool_ops, "PoolReader", lambda _chain, _pool: made)
    return made


def settlement() -> Any:
    return SimpleNamespace(payload=SimpleNamespace(epoch=2), leaves=(LEAF,))


async def register(scene: Any, stake_nanoton: int = STAKE, node_key: bytes = NODE_KEY) -> None:
    await pool_ops.register(scene, scene, POOL, node_key=node_key, stake_nanoton=stake_nanoton)


async def deploy(scene: Any) -> None:
    assert (await pool_ops.deploy_pool(scene, scene, pool_id=1, epoch_duration_s=60, params=PARAMS)).workchain == 0


async def hand_over(scene: Any) -> None:
    await pool_ops.hand_over(scene, scene, POOL, OPERATORS)


async def claim(scene: Any, *, by: Address = ME) -> Claimed:
    return await pool_ops.claim(scene, scene, POOL, settlement(), by)


def changed(**changes: Any) -> Callable[[Any], None]:
    """Changes of the scene; a dict changes fields of what is there."""

    def apply(scene: Any) -> None:
        for name, value in changes.items():
            setattr(scene, name, replace(getattr(scene, name), **value) if isinstance(value, dict) else value)

    return apply


@pytest.mark.parametrize(
    ("change", "operation", "said"),
    [
        (changed(participants=(replace(participant(0), address=ME),)), register, "registered already"),
        (changed(participants=(replace(participant(0), node_key=NODE_KEY),)), register, "registered already"),
        (changed(pool_state={"registration_open": False}), register, "closed or the pool is full"),
        (changed(pool_state={"max_participants": 2}), register, "closed or the pool is full"),
        (changed(pool_state={"min_stake_nanoton": STAKE + 1}), register, "the least stake is 100.000000001 TON"),
        (changed(balance_nanoton=STAKE), register, "holds 100 TON; this takes 100.1 TON and gas"),
        (changed(), deploy, "a pool stands at .* already; choose another --pool-id"),
        (changed(stands=False, balance_nanoton=NANO), deploy, "holds 1 TON; this takes 2.1 TON and gas"),
        (changed(pool_state={"owner": OTHER}), hand_over, f"the pool's owner is {OTHER}, not this wallet"),
        (changed(pool_state={"operator_set": OPERATORS}), hand_over, "run by its operators already"),
        (changed(rewards_state={"paid_nanoton": {ME.account: 10 * NANO}}), claim, "nothing is due to .*: 10 TON were"),
        (changed(balance_nanoton=0), claim, "holds 0 TON; this takes 0.05 TON and gas"),
        (changed(rewards_state={"landed": replace(LANDED, totals_root=ZERO_HASH)}), claim, "of epoch 2, the chain"),
    ],
)
async def test_what_cannot_succeed_is_not_sent(
    scene: Any, change: Callable[[Any], None], operation: Callable[[Any], Awaitable[Any]], said: str
) -> None:
    change(scene)
    with pytest.raises(OperationError, match=said):
        await operation(scene)
    assert scene.sent == []


async def test_nothing_is_due_to_a_stranger(scene: Any) -> None:
    with pytest.raises(OperationError, match=r"nothing is due to .*: 0 TON were paid"):
        await claim(scene, by=OTHER)
    assert scene.sent == []


async def test_a_payment_needs_its_amount(scene: Any) -> None:
    scene.balance_nanoton = NANO
    with pytest.raises(OperationError, match="holds 1 TON; this takes 5 TON"):
        await pool_ops.pay_in(scene, scene, POOL, 5 * NANO)
    scene.balance_nanoton = 6 * NANO
    await pool_ops.pay_in(scene, scene, POOL, 5 * NANO)
    assert [(message.dest, message.value_nanoton) for message in scene.sent] == [(REWARDS, 5 * NANO)]


async def test_registering_sends_the_stake_and_waits(scene: Any, autojump_clock: trio.testing.MockClock) -> None:
    def enter() -> None:
        scene.participants += (replace(participant(2), node_key=NODE_KEY),)

    scene.on_sent = enter
    await register(scene)
    (message,) = scene.sent
    assert (message.dest, message.value_nanoton) == (POOL, STAKE + fees.REGISTRATION_NANOTON)


async def test_deploying_waits_until_the_pool_stands(scene: Any, autojump_clock: trio.testing.MockClock) -> None:
    scene.stands = False
    scene.on_sent = lambda: changed(stands=True)(scene)
    await deploy(scene)
    (message,) = scene.sent
    assert message.state_init is not None
    assert message.dest == Address(0, message.state_init.hash)


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (register, "the stake came back; the registration was not confirmed within 60 s"),
        (hand_over, "the hand-over was not confirmed within 60 s"),
        (claim, "the claim was not confirmed within 60 s"),
    ],
)
async def test_what_the_chain_never_shows_is_given_up(
    scene: Any, autojump_clock: trio.testing.MockClock, operation: Callable[[Any], Awaitable[Any]], said: str
) -> None:
    begun = trio.current_time()
    with pytest.raises(OperationError, match=said):
        await operation(scene)
    assert trio.current_time() - begun == CONFIRM_TIMEOUT_S
    assert len(scene.sent) == 1, "nothing is sent twice"


async def test_a_claim_says_what_was_paid_now(scene: Any, autojump_clock: trio.testing.MockClock) -> None:
    scene.on_sent = lambda: changed(rewards_state={"paid_nanoton": {ME.account: 10 * NANO}})(scene)
    claimed = await claim(scene)
    assert claimed == Claimed(paid_now_nanoton=6 * NANO, paid_nanoton=10 * NANO, earned_nanoton=10 * NANO)


async def test_the_first_operators_are_all_who_are_registered(scene: Any) -> None:
    operators = await pool_ops.operators_of(scene, weight=2)
    assert operators.set_id == 1
    assert [(o.node_key, o.weight) for o in operators.operators] == [(participant(i).node_key, 2) for i in range(2)]
    scene.participants = ()
    with pytest.raises(OperationError, match="nobody is registered yet"):
        await pool_ops.operators_of(scene)
