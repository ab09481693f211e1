"""The settling shell against a chain in memory: what it pins, what it sends, what it does when the chain is away."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import contract_states
import pytest
import trio
from epochs import policy_work
from pool_fixture import EPOCH_S, POOL, START_S, key, operator_set, participant, policy

from agent.metrics import Metrics
from agent.policies import Policies
from agent.settling import Settling
from contracts import fees
from contracts.chain import Account, Block
from contracts.errors import ChainConflictError, ChainUnavailableError, ContractsError
from contracts.model import (
    NANO,
    OPEN_EPOCHS_MAX,
    SET_FALLBACK_S,
    ZERO_HASH,
    Address,
    CertificateKind,
    OpenEpoch,
    Participant,
    PoolParams,
    PoolState,
    PoolStatus,
    Proposal,
    RewardsState,
    SettlePayload,
    Signature,
)
from contracts.opcodes import Op
from contracts.wallet import OutMessage
from gossip.epoch_events import Submit
from gossip.policy import PoolPolicy
from gossip.settlement import Settlement
from gossip.tally import EpochFrame

POOL_ADDRESS = Address(0, POOL.account)


def rewards_state(**changes: Any) -> RewardsState:
    """A pool under set 1, and under `policy()`, since its first epoch began."""
    made = contract_states.rewards_state(POOL_ADDRESS, start_s=START_S, end_s=START_S + EPOCH_S)
    ours = contract_states.pinned(1, policy().hash)
    return replace(made, **{"running": ours, "next": ours, **changes})


def other_policy(**work: object) -> PoolPolicy:
    return replace(policy(), work=policy_work(policy(), **work), hash=b"\x22" * 32)


@dataclass
class World:
    """A chain, a pool and a wallet at once: the parts that settling talks to."""

    now_s: int = START_S
    error: ContractsError | None = None
    pool_now: PoolState = field(default_factory=lambda: contract_states.pool_state(operator_set=operator_set(4)))
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
        return self.pool_now

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


def settling_of(world: World, *more: PoolPolicy) -> Settling:
    return Settling(
        world,
        world,
        world,
        Policies(policy(), *more),
        Metrics(version="0", process=False),
        poll_interval_s=1,
        roster_interval_s=10,
        now_s=lambda: world.now_s,
    )


def op_of(message: OutMessage) -> int:
    assert message.body is not None
    return message.body.begin_parse().load_uint(32)


def opened(epoch: int, finalized_s: int, **pinned: Any) -> OpenEpoch:
    return contract_states.open_epoch(
        epoch,
        start_s=START_S,
        end_s=START_S + EPOCH_S,
        finalized_s=finalized_s,
        **{"policy_hash": policy().hash, **pinned},
    )


async def frame_of(settling: Settling, world: World, epoch: OpenEpoch) -> EpochFrame | None:
    return await settling._frame_of(world.pool_now, (epoch,), world.now_s)


async def test_the_registry_is_pinned_when_the_epoch_was_finalized(world: World) -> None:
    settling = settling_of(world)
    world.participants[START_S + 150] = (*world.participants[0], participant(4))
    world.now_s = START_S + 200
    frame = await frame_of(settling, world, opened(1, START_S + 120))
    assert frame is not None
    assert [p.node_key for p in frame.participants] == [key(i).public for i in range(4)]
    assert (frame.epoch, frame.pot_nanoton, frame.operators) == (1, NANO, operator_set(4))


async def test_an_epoch_under_a_policy_that_is_not_here_has_no_frame_and_says_so(world: World) -> None:
    settling = settling_of(world)
    assert await frame_of(settling, world, opened(1, START_S + 120, policy_hash=b"\x33" * 32)) is None
    assert settling.view.obstacle is not None
    assert "33333333" in settling.view.obstacle
    assert await frame_of(settling, world, opened(1, START_S + 120)) is not None
    assert settling.view.obstacle is None


async def test_each_epoch_is_counted_by_the_policy_pinned_to_it(world: World) -> None:
    settling = settling_of(world, other_policy(window_max_s=30))
    first = await frame_of(settling, world, opened(1, START_S + 120))
    second = await frame_of(settling, world, opened(2, START_S + 220, policy_hash=b"\x22" * 32))
    assert first is not None
    assert second is not None
    assert (first.policy.work.window_max_s, second.policy.work.window_max_s) == (60, 30)


async def test_the_pinned_set_settles_after_a_rotation_and_the_new_one_if_it_is_lost(world: World) -> None:
    settling, epoch = settling_of(world), opened(1, START_S + 120)
    old, new = operator_set(4), operator_set(3, set_id=2, first=2)
    world.pool_now = contract_states.pool_state(operator_set=new, previous_set=old)
    pinned = await frame_of(settling, world, epoch)
    assert pinned is not None
    assert pinned.operators == old
    world.now_s = epoch.finalized_s + SET_FALLBACK_S
    lost = await frame_of(settling, world, epoch)
    assert lost == replace(pinned, operators=new)


async def test_the_policy_of_the_running_epoch_is_in_force_and_a_missing_one_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    held, missing = other_policy(), b"\x44" * 32
    settling = settling_of(world, held)
    proposed = PoolParams(terms=contract_states.terms(missing))
    proposal = Proposal(kind=CertificateKind.PROPOSE_PARAMS, hash=bytes(32), since_s=START_S, params=proposed)
    world.pool_now = replace(world.pool_now, pending=(proposal,))
    await settling.refresh()
    assert settling._policies.in_force == policy()
    world.state_now = rewards_state(running=contract_states.pinned(1, held.hash))
    await settling.refresh()
    assert settling._policies.in_force == held
    assert [missing.hex() in record.message for record in caplog.records] == [True]


async def test_the_roster_holds_both_sets_and_all_participants(world: World) -> None:
    settling = settling_of(world)
    assert settling.view.roster() == frozenset()
    world.pool_now = contract_states.pool_state(
        operator_set=operator_set(2, set_id=2, first=3), previous_set=operator_set(2, first=5)
    )
    await settling.refresh()
    assert settling.view.roster() == {key(i).public for i in range(7)}


async def test_finalize_is_sent_once_it_is_due_and_not_when_another_did_it(world: World) -> None:
    settling = settling_of(world)
    assert await settling._finalize(1) == "done already"
    world.now_s = START_S + EPOCH_S
    assert await settling._finalize(1) == "sent"
    assert [(m.dest, m.value_nanoton, op_of(m)) for m in world.sent] == [
        (contract_states.REWARDS, fees.FINALIZE_NANOTON, Op.DISTRIBUTION_FINALIZE_EPOCH)
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
        set_id=1,
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


@pytest.mark.parametrize("pause", [{"status": PoolStatus.PAUSED}, {"paused_until_s": START_S + 1}])
async def test_nothing_is_submitted_to_a_paused_pool(world: World, pause: dict[str, Any]) -> None:
    world.pool_now = replace(world.pool_now, **pause)
    assert await settling_of(world)._submit(submission()) == "pool paused"
    assert world.sent == []


async def test_a_certificate_of_a_set_that_the_pool_forgot_is_not_submitted(world: World) -> None:
    assert await settling_of(world)._submit(replace(submission(), set_id=9)) == "set gone"
    assert world.sent == []


async def test_nothing_is_finalized_while_too_many_epochs_wait(world: World) -> None:
    world.now_s = START_S + EPOCH_S
    world.state_now = rewards_state(open_epochs=tuple(opened(i, START_S) for i in range(OPEN_EPOCHS_MAX)))
    assert await settling_of(world)._finalize(1) == "too many open epochs"
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
