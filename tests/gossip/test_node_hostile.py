"""What one participant or one operator can do, within its rights to sign: it must not stop the pool.

Each test lets the whole of a small pool run; the hostile one is a single key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from node_pool import MemoryStore, Network, advanced, follow, inline, tick, until
from pool_fixture import (
    POOL,
    START_S,
    Agent,
    Author,
    Chain,
    Pool,
    evidence,
    fill,
    frame,
    key,
    log_book,
    operator_set,
    verdict,
)
from trio.testing import MockClock

from contracts import certificate
from contracts.model import Address, CertificateDomain
from gossip import sync
from gossip.coverage import Approval
from gossip.epoch_events import Action, Advanced, Heard, Message, ObjectId, Persist, Publish, Submit
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import BRANCHES_MAX, GENESIS
from gossip.messages import (
    ListedObservation,
    Observation,
    ObservedLog,
    Proposal,
    make_observation,
    make_proposal,
)
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, Record, make_record
from gossip.settlement import Base
from gossip.tally import settle


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


VIEWS_S = 12 * 20
"""Twelve views: far more than f + 2."""


async def settles(network: Network) -> bool:
    """Run all members until an epoch has settled and all know; False if none settles in twelve views."""
    chain = Chain(operator_set(network.n))
    advanced(chain, network.n)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, chain)
        for member in network.members:
            nursery.start_soon(member.puller.run)
            nursery.start_soon(follow, member, chain)
        with suppress(trio.TooSlowError):
            await until(lambda: all(m.node.machine.base.epoch >= 1 for m in network.members), VIEWS_S)
        nursery.cancel_scope.cancel()
    return chain.landed.epoch >= 1


async def give(network: Network, i: int, records: Sequence[Record]) -> None:
    await network.members[i].node.take_records([record.wire for record in records])


def branch(i: int, variant: int, *, quote: bytes = b"quote") -> Record:
    return make_record(key(i), POOL, 1, bytes(32), replace(evidence(START_S + variant), quote=quote))


# A participant.


async def test_a_fork_shown_to_some_does_not_stop_the_pool(autojump_clock: MockClock) -> None:
    network = Network(4)
    for i in range(4):
        await give(network, i, [branch(3, i)])
    assert await settles(network)
    assert network.members[0].node.machine.base.reading(key(3).public).dead


async def test_more_branches_than_a_node_keeps_do_not_stop_the_pool(autojump_clock: MockClock) -> None:
    network = Network(4)
    for i in range(4):
        await give(network, i, [branch(3, BRANCHES_MAX * i + k) for k in range(BRANCHES_MAX)])
    assert await settles(network)


async def test_a_branch_behind_more_than_one_answer_of_records_does_not_stop_the_pool(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "RECORDS_BYTES_MAX", 256 * 1024)
    network = Network(4)
    author = Author(3)
    for i in range(40):
        author.append(replace(evidence(START_S + i), quote=bytes(15_000)))
    for i in range(4):
        ends = make_record(key(3), POOL, 41, author.head.hash, evidence(START_S + 100 + i))
        await give(network, i, [*author.records, ends])
    assert await settles(network)
    reading = network.members[0].node.machine.base.reading(key(3).public)
    assert (reading.head, reading.dead) == (author.head, True)


async def test_evidence_whose_collateral_nobody_has_does_not_stop_the_pool(autojump_clock: MockClock) -> None:
    network = Network(4)

    def judge(store: MemoryStore, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        if store.attachment(body.collateral_digest) is None:
            wanted = ObjectId(kind="attachment", id=body.collateral_digest)
            raise DataUnavailableError("collateral is not here yet", frozenset({wanted}))
        return verdict(policy, node_key, body)

    network.verdict = judge
    body = replace(evidence(START_S), collateral_digest=b"\x99" * 32)
    for i in range(4):
        await give(network, i, [make_record(key(3), POOL, 1, bytes(32), body)])
    assert await settles(network)
    assert network.members[0].node.machine.base.reading(key(3).public).head == GENESIS


async def test_a_dead_log_does_not_grow(autojump_clock: MockClock) -> None:
    """After the settlement that found the fork, nothing above it can ever count."""
    network = Network(4)
    for i in range(4):
        await give(network, i, [branch(3, i)])
    assert await settles(network)
    node = network.members[0].node
    assert node.machine.base.reading(key(3).public).dead
    held = len(node.logs[key(3).public])
    author = Author(3)
    author.append(branch(3, 0).body)
    for i in range(50):
        author.append(evidence(START_S + 50 + i))
    await give(network, 0, author.records)
    assert len(node.logs[key(3).public]) <= held
    assert node.drops["record: of a log that ended"] >= 50


def test_a_fork_that_was_counted_is_not_shown_again() -> None:
    """The few places for forks in an observation belong to those that no settlement knows yet."""
    pool = Pool(4)
    branches = [branch(3, variant) for variant in range(2)]
    for agent in pool.agents:
        fill(agent.logs, branches)
    shown: list[Observation] = []

    def listen(_sender: int, message: Message) -> Message:
        shown.extend([message] if isinstance(message, Observation) else [])
        return message

    pool.tamper = listen
    for _ in range(80):
        pool.step()
    assert pool.chain.landed.epoch >= 2
    assert {len(o.forks) for o in shown if o.epoch == 1} == {1}
    assert {len(o.forks) for o in shown if o.epoch > 1} == {0}


def test_a_head_of_a_dead_log_need_not_be_fetched() -> None:
    """Else its owner, whom nothing can cost any more, would stop the pool with one record shown to each operator."""
    pool = Pool(4)
    for agent in pool.agents:
        fill(agent.logs, [branch(3, variant) for variant in range(2)])
    while pool.chain.landed.epoch < 1:
        pool.step()
    for agent in pool.agents:
        fill(agent.logs, [make_record(key(3), POOL, 2, branch(3, 0).hash, evidence(START_S + agent.i))])
    for _ in range(60):
        pool.step()
    assert pool.chain.landed.epoch >= 2


# An operator.


class Leader:
    """The hostile leader of view 0: it makes valid proposals that differ, as many as it likes.

    Each lists an observation of its own with another witnessed figure between those of two honest ones, so
    that each has another outcome and none can be told from an honest leader's.
    """

    def __init__(self, chain: Chain, honest: Sequence[Observation], index: int) -> None:
        self.index = index
        self.chain = chain
        self.honest = sorted(honest, key=lambda o: o.logs[key(0).public].witnessed_s)[1:]
        self.made = 0

    def proposal(self) -> tuple[Observation, Proposal]:
        self.made += 1
        low = self.honest[0].logs[key(0).public]
        logs = {
            node_key: ObservedLog(head=log.head, witnessed_s=log.witnessed_s, worker_tokens=0)
            for node_key, log in self.honest[0].logs.items()
        }
        logs[key(0).public] = replace(low, witnessed_s=low.witnessed_s + self.made)
        first = self.honest[0]
        own = make_observation(
            key(self.index),
            POOL,
            epoch=1,
            set_id=1,
            policy_hash=first.policy_hash,
            base=first.base,
            logs=logs,
            forks=(),
        )
        listed = [*self.honest, own]
        outcome = settle(frame(4), Base(), listed, log_book(4), verdict)
        domain = CertificateDomain(global_id=POOL.network, pool=Address(0, POOL.account), set_id=1)
        by_index = {self.chain.operators.index_of(o.operator): o for o in listed}
        return own, make_proposal(
            key(self.index),
            POOL,
            epoch=1,
            view=0,
            set_id=1,
            listed=tuple(ListedObservation(index=i, digest=by_index[i].digest) for i in sorted(by_index)),
            cert_hash=certificate.settle_certificate(domain, outcome.payload).hash,
        )


class HostileView:
    """Four machines, one of which (the leader of view 0) is the test's; honest ones witnessed different uptimes."""

    def __init__(self) -> None:
        self.chain = Chain(operator_set(4))
        self.agents = [Agent(i, 4) for i in range(4)]
        self.chain.now_s = self.chain.end_s
        self.chain.finalize(1)
        self.chain.now_s += 10
        self.served: dict[bytes, Observation] = {}
        said = [
            action.message for agent in self.agents for action in self.advance(agent) if isinstance(action, Publish)
        ]
        first = self.agents[0].machine._round.leader_of(0)
        self.honest = [agent for agent in self.agents if agent.i != first]
        said = [message for message in said if message.operator != key(first).public]
        self.deliver([*said])
        self.leader = Leader(self.chain, said, first)

    def advance(self, agent: Agent) -> list[Action]:
        """Show the chain to a machine; what it makes durable, it serves."""
        actions = agent.machine.handle(
            Advanced(
                view=self.chain.view(),
                operators=self.chain.operators,
                frame=frame(4) if self.chain.open else None,
                witnessed_s={key(i).public: 1000 * (agent.i + 1) for i in range(4)},
            )
        )
        kept = [message for action in actions if isinstance(action, Persist) for message in action.messages]
        self.served |= {message.digest: message for message in kept if isinstance(message, Observation)}
        return actions

    def deliver(self, messages: list[Message]) -> None:
        """Hand messages to the honest machines with what they list, and on what these say because of it."""
        while messages:
            message = messages.pop(0)
            for agent in self.honest:
                actions = agent.machine.handle(Heard(message))
                for wanted in agent.machine.wanted:
                    if wanted.id in self.served:
                        actions += agent.machine.handle(Heard(self.served[wanted.id]))
                messages += self.perform(actions)

    def perform(self, actions: Sequence[Action]) -> list[Message]:
        """Submit what is to be submitted; the messages to publish."""
        for action in actions:
            if isinstance(action, Submit):
                self.chain.submit(action)
        return [action.message for action in actions if isinstance(action, Publish)]

    def step(self, seconds: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time pass; `meanwhile` comes before what the honest ones say reaches the others."""
        self.chain.now_s += seconds
        said = [message for agent in self.honest for message in self.perform(self.advance(agent))]
        meanwhile()
        self.deliver(said)


def offer(agent: Agent, message: Message) -> None:
    """Hand over a message that the machine may refuse."""
    with suppress(InvalidMessageError):
        agent.machine.handle(Heard(message))


def test_honest_leaders_settle_when_the_first_one_is_silent() -> None:
    pool = HostileView()
    for _ in range(20):
        pool.step(5)
    assert pool.chain.landed.epoch == 1


def test_a_leader_of_many_valid_proposals_does_not_use_up_the_attests_of_the_others() -> None:
    pool = HostileView()
    pool.chain.now_s += 10  # view 0 opens
    for agent in pool.honest:
        pool.advance(agent)

    def flood() -> None:
        for agent in pool.honest:  # to each one its own, so that none gathers a quorum
            for _ in range(3):
                for message in pool.leader.proposal():
                    offer(agent, message)

    for _ in range(60):
        pool.step(5, flood)
    assert pool.chain.landed.epoch == 1


def test_what_a_leader_makes_a_follower_remember_is_bounded() -> None:
    pool = HostileView()
    pool.step(10)
    follower = pool.honest[0]
    for _ in range(150):
        for message in pool.leader.proposal():
            offer(follower, message)
    assert len(follower.machine._round.outcomes) < 100
    assert len(follower.machine._round.computed) < 100


# Anyone.


def test_messages_of_far_epochs_do_not_displace_those_of_the_next() -> None:
    chain, agent = Chain(operator_set(4)), Agent(0, 4)
    agent.advance(chain)
    for i in range(300):
        stranger = make_proposal(key(50), POOL, epoch=1000 + i, view=0, set_id=1, listed=(), cert_hash=bytes(32))
        agent.machine.handle(Heard(stranger))
    mine = make_observation(
        key(1),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=frame(4).policy.hash,
        base=bytes(32),
        logs={
            key(i).public: ObservedLog(head=log_book(1)[key(0).public].head, witnessed_s=0, worker_tokens=0)
            for i in range(4)
        },
        forks=(),
    )
    agent.machine.handle(Heard(mine))
    chain.now_s = chain.end_s
    chain.finalize(1)
    agent.advance(chain)
    assert mine in agent.machine.messages(1)
