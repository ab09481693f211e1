"""Agents on the real contracts, with the clock put forward: what the pool decides lands while epochs run and close.

Six participants, whose agents' settling shells and machines are real; their network is perfect. Operators 0 to 3
are set 1, 2 to 5 are set 2. Each settlement below was taken by the contract, which pins sets and policies itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from chain_in_memory import query_id_of
from epochs import policy_work
from pool_fixture import START_S, Author, fill, key, log_book, operator_set, participant, policy, verdict

from agent.metrics.registry import Metrics
from agent.policies import Policies
from agent.registries import Registries
from agent.settling import Settling
from agent.submitting import Submitting
from agent.trace import RefusedError
from agent.workers import Workers
from contracts import fees
from contracts.chain import Account, Block, TransactionSummary
from contracts.commands import Pause, ProposeParams, Resume, Suspend
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import HOUR_S, NANO, SET_FALLBACK_S, Address, PoolParams
from contracts.opcodes import Refusal
from contracts.reader import PoolReader
from contracts.wallet import OutMessage
from gossip.epoch_close import EpochClose
from gossip.epoch_events import Action, Event, Finalize, Heard, Message, Publish, Submit
from gossip.policy import PoolPolicy
from gossip.records import PoolId
from gossip.settlement import Base
from tests.contracts.pool_scene import PARAMS, Scene

N = 6
OLD, NEW = operator_set(4), operator_set(4, set_id=2, first=2)
STEP_S = 5


def second_policy() -> PoolPolicy:
    return replace(policy(), work=policy_work(policy(), tokens_per_s_max=10), hash=b"\x22" * 32)


@dataclass
class Agent:
    """One participant's settling shell and machine, on the scene's ledger."""

    i: int
    scene: Scene
    folder: Path
    is_down: bool = False
    said: list[Action] = field(default_factory=list)
    sent_by: list[tuple[int, int]] = field(default_factory=list)
    """(epoch, number of the signing set) of each certificate that it sent."""
    done: list[tuple[int, int | None]] = field(default_factory=list)
    """Query id and refusal of its messages."""
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = Address(0, hashlib.sha256(b"wallet %d" % self.i).digest())
        self.global_id = DEVNET_GLOBAL_ID
        policies, metrics = Policies(policy(), second_policy()), Metrics(version="0", process=False)
        self.submitting = Submitting(self, PoolReader(self, self.scene.pool), self, metrics)
        self.settling = Settling(
            self,
            PoolReader(self, self.scene.pool),
            self.address,
            Registries(self.folder, self, PoolReader(self, self.scene.pool)),
            Workers(self, key(self.i).public),
            policies,
            metrics,
            poll_interval_s=1,
            roster_interval_s=0,
            now_s=lambda: self.scene.ledger.now,
        )
        self.logs = log_book(N)
        pool = PoolId(DEVNET_GLOBAL_ID, self.scene.pool.account)
        self.machine = EpochClose(key(self.i), pool, policy=policy(), base=Base(), logs=self.logs, verdict=verdict)
        self.witness = self

    # What `Settling` needs of a node.

    @property
    def seconds(self) -> dict[bytes, int]:
        return {key(i).public: self.scene.ledger.now - START_S for i in range(N)}

    def register(self, keys: Iterable[bytes]) -> None:
        self.logs.open(keys)

    async def handle(self, event: Event) -> None:
        self.said += self.machine.handle(event)

    # What it needs of chain and wallet.

    async def head(self) -> Block:
        return await self.block_at(self.scene.ledger.now)

    async def block_at(self, time_s: int) -> Block:
        return Block(seqno=time_s - START_S + 1, root_hash=bytes(32), file_hash=bytes(32), time_s=time_s)

    async def account(self, address: Address, _block: Block | None = None) -> Account:
        state = self.scene.ledger.account(address)
        return Account(
            balance_nanoton=state.balance_nanoton,
            active=state.status == "active",
            code_hash=state.code_hash,
            data=state.data,
            last_lt=state.last_lt,
            last_hash=state.last_hash,
        )

    async def transfer(self, messages: list[OutMessage]) -> None:
        for message in messages:
            assert message.body is not None
            refusal = self.scene.send(self.address, message.dest, message.value_nanoton, message.body).refusal
            self.done.append((query_id_of(message), refusal))
            if refusal is not None:
                self.refused.append(refusal)

    async def transactions(self, _address: Address, _count: int) -> list[TransactionSummary]:
        """What became of its last message, as if pool and rewards had the same transaction."""
        return [
            TransactionSummary(
                hash=bytes(32),
                lt=self.scene.ledger.account(self.scene.pool).last_lt,
                now_s=self.scene.ledger.now,
                exit_code=refusal or 0,
                action_code=None,
                in_op=None,
                source=None,
                aborted=refusal is not None,
                in_query_id=query_id,
            )
            for query_id, refusal in self.done[-1:]
        ]


class World:
    """Pool, participants and agents; the owner has handed over to set 1, in epoch 1."""

    def __init__(self, folder: Path) -> None:
        self.scene = Scene()
        terms = replace(PARAMS.terms, policy_hash=policy().hash)
        self.params: PoolParams = replace(PARAMS, terms=terms, parameter_delay_s=HOUR_S)
        assert self.scene.deploy(self.params).refusal is None
        for i in range(N):
            assert self.scene.register(participant(i).address, key=key(i)).refusal is None
        self.scene.keys_of |= {1: [key(i) for i in range(4)], 2: [key(i) for i in range(2, 6)]}
        assert self.scene.enable_quorum(OLD).refusal is None
        self.agents = [Agent(i, self.scene, folder / str(i)) for i in range(N)]
        self.authors = [Author(i, PoolId(DEVNET_GLOBAL_ID, self.scene.pool.account)) for i in range(N)]
        for author in self.authors:
            self._spread(author.prove(START_S + 1))

    async def end_epoch(self) -> None:
        """Everybody works and a customer pays; then the running epoch ends, and an agent finalizes it."""
        state = self.scene.state()
        assert self.scene.pay(10 * NANO).refusal is None
        for author in self.authors:
            author.end_s = max(author.end_s, state.current_start_s, START_S + 1)
            self._spread(author.work(tokens=1000))
        self.scene.ledger.advance(max(self.scene.ledger.now, state.current_end_s))
        while self.scene.state().current_epoch == state.current_epoch:
            await self.step()

    async def settler_of(self, epoch: int) -> int:
        """Step until this epoch has settled; the number of the set that signed what landed."""
        for _ in range(60):
            if self.scene.state().landed.epoch >= epoch:
                return next(set_id for agent in self.agents for sent, set_id in agent.sent_by if sent == epoch)
            await self.step()
        raise AssertionError(f"epoch {epoch} did not settle: {[a.machine.progress() for a in self.agents]}")

    async def step(self) -> None:
        self.scene.advance(STEP_S)
        live = [agent for agent in self.agents if not agent.is_down]
        for agent in live:
            await agent.settling.refresh()
            await agent.settling._tell(agent)
        while any(agent.said for agent in live):
            for agent in live:
                while agent.said:
                    await self._perform(agent, agent.said.pop(0))

    async def _perform(self, agent: Agent, action: Action) -> None:
        match action:
            case Publish(message):
                await self._publish(agent, message)
            case Finalize(epoch):
                await agent.submitting.finalize(epoch)
            case Submit():
                with suppress(RefusedError):  # said by `Submitting.perform`, which goes on
                    if await agent.submitting.submit(action) == "settled":
                        agent.sent_by.append((action.settlement.payload.epoch, action.set_id))

    async def _publish(self, sender: Agent, message: Message) -> None:
        for agent in self.agents:
            if agent is not sender and not agent.is_down:
                await agent.handle(Heard(message))

    def _spread(self, record: object) -> None:
        for agent in self.agents:
            fill(agent.logs, [record])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_rotation_at_the_boundary(world: World) -> None:
    assert world.scene.propose_set(NEW).refusal is None
    await world.end_epoch()
    assert await world.settler_of(1) == 1, "epoch 1 began under the owner: whoever stands settles it"
    world.scene.ledger.advance(world.scene.state().current_end_s - 1)
    assert world.scene.accept_set(NEW).refusal is None
    await world.end_epoch()
    assert await world.settler_of(2) == 1, "epoch 2 began under set 1"
    await world.end_epoch()
    assert await world.settler_of(3) == 2
    assert world.scene.pool_state().operator_set == NEW


async def test_a_stale_set_settles_what_is_pinned_to_it_and_nothing_else(world: World) -> None:
    await world.end_epoch()
    await world.settler_of(1)
    assert world.scene.propose_set(NEW).refusal is None
    await world.end_epoch()
    # Set 2 takes over while epoch 2 waits for its settlement, and epoch 3 has begun under set 1.
    world.scene.advance(HOUR_S)
    assert world.scene.accept_set(NEW).refusal is None
    assert [epoch.epoch for epoch in world.scene.state().open_epochs] == [2]
    assert await world.settler_of(2) == 1
    assert await world.settler_of(3) == 1
    await world.end_epoch()
    assert await world.settler_of(4) == 2


async def test_nobody_settles_for_a_lost_set_until_a_newer_one_may(world: World) -> None:
    await world.end_epoch()
    await world.settler_of(1)
    assert world.scene.propose_set(NEW).refusal is None
    await world.end_epoch()
    world.agents[0].is_down = world.agents[1].is_down = True
    world.scene.advance(HOUR_S)
    assert world.scene.accept_set(NEW).refusal is None
    for _ in range(30):
        await world.step()
    (waiting, *_) = world.scene.state().open_epochs
    assert waiting.epoch == 2
    world.scene.ledger.advance(waiting.finalized_s + SET_FALLBACK_S)
    assert await world.settler_of(2) == 2


async def test_a_change_of_policy_counts_from_the_next_epoch_on(world: World) -> None:
    await world.end_epoch()
    await world.settler_of(1)
    changed = replace(world.params, terms=replace(world.params.terms, policy_hash=second_policy().hash))
    assert world.scene.act(ProposeParams(gov_seqno=world.scene.gov_seqno, params=changed)).refusal is None
    world.scene.advance(HOUR_S)
    assert world.scene.apply_params().refusal is None
    counted = [world.scene.pool_state().tokens]
    for epoch in (2, 3):
        await world.end_epoch()
        await world.settler_of(epoch)
        counted.append(world.scene.pool_state().tokens)
    assert counted == [N * 1000, 2 * N * 1000, 2 * N * 1000 + N * 100]
    assert world.agents[0].settling._policies.in_force == second_policy()


async def test_a_paused_pool_gets_no_certificate_and_settles_when_it_resumes(world: World) -> None:
    assert world.scene.act(Pause(gov_seqno=world.scene.gov_seqno)).refusal is None
    await world.end_epoch()
    for _ in range(30):
        await world.step()
    assert [agent.sent_by for agent in world.agents] == [[] for _ in range(N)]
    assert world.scene.act(Resume(gov_seqno=world.scene.gov_seqno)).refusal is None
    assert await world.settler_of(1) == 1


async def test_who_is_suspended_earns_nothing_until_it_is_reinstated(world: World) -> None:
    counted = []
    for epoch, suspended in ((1, True), (2, False)):
        command = Suspend(target=world.scene.target(participant(0).address), suspended=suspended)
        assert world.scene.act(command).refusal is None
        await world.end_epoch()
        await world.settler_of(epoch)
        counted.append(world.scene.pool_state().tokens)
    assert counted == [(N - 1) * 1000, (N - 1) * 1000 + N * 1000]


async def test_what_brings_too_little_is_refused_and_a_later_turn_brings_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fees.submit_nanoton(3)
    monkeypatch.setattr(fees, "submit_nanoton", lambda _signatures: asked // 3)
    await world.end_epoch()
    assert await world.settler_of(1) == 1
    refusals = [refusal for agent in world.agents for refusal in agent.refused]
    assert refusals
    assert set(refusals) == {Refusal.INSUFFICIENT_VALUE}
