"""The settling shell against a chain in memory: what it pins, what it sends, what it does when the chain is away."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import contract_states
import pytest
import trio
import trio.testing
from chain_in_memory import World, opened, rewards_state
from epochs import policy_receipts, policy_work
from pool_fixture import POOL, START_S, key, operator_set, participant, policy

import agent.workers
from agent.metrics.registry import Metrics
from agent.policies import Policies
from agent.settling import Settling
from agent.workers import BUDGET_S, Workers
from contracts.errors import ChainConflictError, ChainUnavailableError, ContractAbsentError, ContractsError
from contracts.model import (
    NANO,
    SET_FALLBACK_S,
    Address,
    CertificateKind,
    OpenEpoch,
    PoolParams,
    Proposal,
)
from gossip.policy import PoolPolicy
from gossip.tally import EpochFrame

POOL_ADDRESS = Address(0, POOL.account)


def other_policy(**work: object) -> PoolPolicy:
    return replace(policy(), work=policy_work(policy(), **work), hash=b"\x22" * 32)


@pytest.fixture
def world() -> World:
    return World(participants={0: tuple(participant(i) for i in range(4))})


def settling_of(world: World, *more: PoolPolicy) -> Settling:
    return Settling(
        world,
        world,
        world.address,
        world,
        Workers(world, key(0).public),
        Policies(policy(), *more),
        Metrics(version="0", process=False),
        poll_interval_s=1,
        roster_interval_s=10,
        now_s=lambda: world.now_s,
    )


async def frame_of(settling: Settling, world: World, epoch: OpenEpoch) -> EpochFrame | None:
    return await settling._frame_of(world.pool_now, (epoch,), world.now_s)


def sample(settling: Settling, name: str, **labels: str) -> float | None:
    """What the metrics have of it."""
    return settling._metrics.registry.get_sample_value(f"gpupool_{name}", labels)


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


async def test_an_epoch_whose_registry_the_chain_forgot_waits_and_says_so(world: World) -> None:
    settling = settling_of(world)
    world.forgot = ChainUnavailableError("state is gone")
    assert await frame_of(settling, world, opened(1, START_S + 120)) is None
    assert settling.view.obstacle is not None
    assert "state is gone" in settling.view.obstacle
    world.forgot = None
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
    missed = {when: sample(settling, "policies_missing", needed=when) for when in ("now", "soon")}
    assert missed == {"now": 0, "soon": 1}


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(61, "ahead of the chain's: set it (see timedatectl); or the liteserver"), (-61, "behind the chain's: set it")],
)
async def test_a_clock_that_is_wrong_is_told_once_and_until_it_is_right(
    world: World, caplog: pytest.LogCaptureFixture, ahead_s: int, said: str
) -> None:
    caplog.set_level(logging.INFO)
    settling, off_s = settling_of(world), ahead_s
    settling._now_s = lambda: world.now_s + off_s
    for _ in range(3):
        await settling.refresh()
        assert settling.view.clock is not None
        assert said in settling.view.clock
        assert sample(settling, "clock_offset_seconds") == ahead_s
        world.now_s += 5
    off_s = 0
    await settling.refresh()
    assert settling.view.clock is None
    assert [record.levelname for record in caplog.records if "clock" in record.message] == ["WARNING", "INFO"]


async def test_a_chain_that_stands_still_says_nothing_of_the_clock(world: World) -> None:
    settling, waited_s = settling_of(world), 0
    settling._now_s = lambda: START_S + waited_s
    await settling.refresh()
    waited_s = 1000
    await settling.refresh()
    assert settling.view.clock is None


async def test_the_roster_holds_both_sets_and_all_participants(world: World) -> None:
    settling = settling_of(world)
    assert settling.view.roster().members == frozenset()
    world.pool_now = contract_states.pool_state(
        operator_set=operator_set(2, set_id=2, first=3), previous_set=operator_set(2, first=5)
    )
    await settling.refresh()
    roster = settling.view.roster()
    assert roster.members == {key(i).public for i in range(7)}
    assert roster.weights.keys() < roster.operators


class Listener:
    """The part of a node that `follow` talks to."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.witness = self
        self.machine = self
        self.seconds: dict[bytes, int] = {}

    def register(self, _keys: Any) -> None: ...

    def progress(self) -> None: ...

    async def handle(self, event: Any) -> None:
        self.heard.append(event)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_an_epoch_waits_for_worker_contracts_and_the_chain_is_followed_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, is_answered: bool, autojump_clock: trio.testing.MockClock
) -> None:
    read_s = 20

    async def read(*_: object) -> None:
        await trio.sleep(read_s if is_answered else math.inf)
        raise ContractAbsentError("nothing stands there")

    monkeypatch.setattr(agent.workers, "read_worker", read)
    receipts = policy_receipts(policy(), ceiling="worker-contract")
    paid = replace(policy(), receipts=receipts, hash=b"\x22" * 32)
    world.participants[0] = (replace(participant(0), worker=Address(0, b"w" * 32)),)
    world.state_now = rewards_state(open_epochs=(opened(1, START_S, policy_hash=paid.hash),))
    settling, node = settling_of(world, paid), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settling.workers.run)
        nursery.start_soon(settling.follow, node, lambda: None)
        await trio.sleep(read_s - 1)
        assert len(node.heard) >= read_s - 1
        assert {event.frame for event in node.heard} == {None}
        await trio.sleep(BUDGET_S - read_s + 3)
        assert node.heard[-1].frame == settling.frame
        assert node.heard[-1].frame is not None
        assert node.heard[-1].worker_tokens == ({key(0).public: 0} if is_answered else {})
        opened_at = [event.frame is not None for event in node.heard].index(True)
        assert abs(opened_at - (read_s if is_answered else BUDGET_S)) <= 2
        nursery.cancel_scope.cancel()


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
        assert sample(settling, "chain_up") == 0
        assert len(node.heard) <= before + 1
        world.error = None
        await trio.sleep(5)
        assert settling.view.error is None
        assert sample(settling, "chain_up") == 1
        assert len(node.heard) > before + 1
        nursery.cancel_scope.cancel()
