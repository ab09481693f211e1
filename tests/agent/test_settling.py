"""The settling shell against a chain in memory: what it pins, what it sends, what it does when the chain is away."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from pool_fixture import EPOCH_S, POOL, START_S, key, operator_set, participant, policy

from agent.metrics import Metrics
from agent.settling import Settling
from contracts import fees
from contracts.chain import Account, Block
from contracts.errors import ChainConflictError, ChainUnavailableError, ContractsError
from contracts.model import (
    NANO,
    ZERO_HASH,
    Address,
    Landed,
    OpenEpoch,
    Participant,
    PoolState,
    RewardsState,
    SettlePayload,
    Signature,
)
from contracts.opcodes import Op
from contracts.wallet import OutMessage
from gossip.epoch_events import Submit
from gossip.settlement import Settlement

POOL_ADDRESS = Address(0, POOL.account)
REWARDS = Address(0, b"r" * 32)


def rewards_state(**changes: Any) -> RewardsState:
    state = RewardsState(
        pool=POOL_ADDRESS,
        current_epoch=1,
        current_start_s=START_S,
        current_end_s=START_S + EPOCH_S,
        epoch_duration_s=EPOCH_S,
        received_nanoton=NANO,
        carried_nanoton=0,
        distributed_nanoton=0,
        liabilities_nanoton=NANO,
        pending_fees_nanoton=0,
        fee_bps=200,
        open_epochs=(),
        landed=Landed(
            epoch=0,
            payload_hash=ZERO_HASH,
            totals_root=ZERO_HASH,
            previous_root=ZERO_HASH,
            total_earned_nanoton=0,
            settled_s=0,
        ),
        paid_nanoton={},
    )
    return replace(state, **changes)


@dataclass
class World:
    """A chain, a pool and a wallet at once: the parts that settling talks to."""

    now_s: int = START_S
    error: ContractsError | None = None
    policy_hash: bytes = field(default_factory=lambda: policy().hash)
    state_now: RewardsState = field(default_factory=rewards_state)
    participants: dict[int, tuple[Participant, ...]] = field(default_factory=dict)
    """By the time from which on they are the registry's."""
    sent: list[OutMessage] = field(default_factory=list)
    refuses: ContractsError | None = None
    pool: Address = POOL_ADDRESS
    address: Address = field(default_factory=lambda: Address(0, b"w" * 32))
    global_id: int = POOL.network

    async def head(self) -> Block:
        if self.error is not None:
            raise self.error
        return self._block(self.now_s)

    async def block_at(self, time_s: int) -> Block:
        return self._block(time_s)

    @staticmethod
    def _block(time_s: int) -> Block:
        return Block(seqno=time_s - START_S + 1, root_hash=bytes(32), file_hash=bytes(32), time_s=time_s)

    async def account(self, _address: Address, _block: Block | None = None) -> Account:
        return Account(balance_nanoton=5 * NANO, active=True, code_hash=None, data=None, last_lt=0, last_hash=bytes(32))

    async def state(self, _block: Block | None = None) -> PoolState:
        return PoolState(
            owner=Address(0, b"o" * 32),
            pool_id=1,
            phase=1,
            registry=Address(0, b"g" * 32),
            rewards=REWARDS,
            fee_bps=200,
            min_stake_nanoton=NANO,
            max_participants=10,
            registration_open=True,
            policy_hash=self.policy_hash,
            max_refund_nanoton=0,
            operator_set=operator_set(4),
        )

    async def rewards(self, _block: Block | None = None) -> RewardsState:
        return self.state_now

    async def registry(self, block: Block | None = None) -> tuple[Participant, ...]:
        time_s = self.now_s if block is None else block.time_s
        return next(p for since, p in sorted(self.participants.items(), reverse=True) if since <= time_s)

    async def transfer(self, messages: list[OutMessage]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent += messages


@pytest.fixture
def world() -> World:
    return World(participants={0: tuple(participant(i) for i in range(4))})


def settling_of(world: World) -> Settling:
    return Settling(
        world,
        world,
        world,
        policy(),
        Metrics(version="0", process=False),
        poll_interval_s=1,
        roster_interval_s=10,
        now_s=lambda: world.now_s,
    )


def op_of(message: OutMessage) -> int:
    assert message.body is not None
    return message.body.begin_parse().load_uint(32)


def opened(epoch: int, finalized_s: int) -> OpenEpoch:
    return OpenEpoch(
        epoch=epoch,
        start_s=START_S,
        end_s=START_S + EPOCH_S,
        pot_nanoton=NANO,
        fee_nanoton=0,
        finalized_s=finalized_s,
    )


async def test_the_registry_is_pinned_when_the_epoch_was_finalized(world: World) -> None:
    settling = settling_of(world)
    world.participants[START_S + 150] = (*world.participants[0], participant(4))
    world.now_s = START_S + 200
    frame = await settling._frame_of((opened(1, START_S + 120),), operator_set(4))
    assert frame is not None
    assert [p.node_key for p in frame.participants] == [key(i).public for i in range(4)]
    assert (frame.epoch, frame.pot_nanoton, frame.operators) == (1, NANO, operator_set(4))


async def test_an_epoch_under_another_policy_has_no_frame(world: World) -> None:
    world.policy_hash = bytes(32)
    assert await settling_of(world)._frame_of((opened(1, START_S + 120),), operator_set(4)) is None


async def test_finalize_is_sent_once_it_is_due_and_not_when_another_did_it(world: World) -> None:
    settling = settling_of(world)
    assert await settling._finalize(1) == "done already"
    world.now_s = START_S + EPOCH_S
    assert await settling._finalize(1) == "sent"
    assert [(m.dest, m.value_nanoton, op_of(m)) for m in world.sent] == [
        (REWARDS, fees.FINALIZE_NANOTON, Op.DISTRIBUTION_FINALIZE_EPOCH)
    ]
    world.state_now = rewards_state(current_epoch=2, current_end_s=START_S + 2 * EPOCH_S)
    assert await settling._finalize(1) == "done already"
    assert len(world.sent) == 1


def submission() -> Submit:
    payload = SettlePayload(
        epoch=1,
        prev=ZERO_HASH,
        totals_root=ZERO_HASH,
        count=0,
        total_score=0,
        total_earned_nanoton=0,
        tasks=0,
        tokens=0,
        policy_hash=policy().hash,
        cut_root=ZERO_HASH,
    )
    return Submit(
        settlement=Settlement(payload=payload, leaves=(), readings={}),
        signatures=tuple(Signature(index=i, signature=bytes(64)) for i in range(3)),
    )


async def test_a_certificate_goes_to_the_pool_with_enough_value(world: World) -> None:
    assert await settling_of(world)._submit(submission()) == "sent"
    assert [(m.dest, m.value_nanoton, op_of(m)) for m in world.sent] == [
        (POOL_ADDRESS, fees.submit_nanoton(3), Op.POOL_SUBMIT_CERTIFICATE)
    ]


async def test_a_settled_epoch_is_not_submitted_again(world: World) -> None:
    world.state_now = rewards_state(landed=replace(world.state_now.landed, epoch=1))
    assert await settling_of(world)._submit(submission()) == "settled already"
    assert world.sent == []


async def test_a_failed_transfer_is_counted_and_left_to_the_next_turn(world: World) -> None:
    settling = settling_of(world)
    world.refuses = ChainUnavailableError("down")
    world.now_s = START_S + EPOCH_S

    async def send() -> str:
        return await settling._finalize(1)

    await settling._attempt("finalize", 1, send)
    assert settling._metrics.sent.labels("finalize", "failed")._value.get() == 1
    world.refuses = None
    await settling._attempt("finalize", 1, send)
    assert settling._metrics.sent.labels("finalize", "sent")._value.get() == 1


class Listener:
    """The part of a node that `follow` talks to."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.logs = self
        self.witness = self
        self.seconds: dict[bytes, int] = {}

    def open(self, _keys: Any) -> None: ...

    async def handle(self, event: Any) -> None:
        self.heard.append(event)


@pytest.mark.parametrize("error", [ChainUnavailableError("down"), ChainConflictError("lies")])
async def test_a_chain_that_is_away_or_lies_is_waited_for(
    world: World, error: ContractsError, autojump_clock: trio.testing.MockClock
) -> None:
    settling, node = settling_of(world), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settling.follow, node, lambda: None)
        await trio.sleep(3)
        before = len(node.heard)
        world.error = error
        await trio.sleep(10)
        assert settling.view.error == str(error)
        assert len(node.heard) <= before + 1
        world.error = None
        await trio.sleep(5)
        assert settling.view.error is None
        assert len(node.heard) > before + 1
        nursery.cancel_scope.cancel()
