"""An epoch settles whatever forks a hostile operator proves or hides, and no machine ends over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from node_pool import Member, Network, advanced, follow, inline, tick, until
from pool_fixture import (
    POOL,
    START_S,
    Author,
    Chain,
    Pool,
    evidence,
    key,
    operator_set,
    run_epoch,
    write_work,
)

from gossip.epoch_events import Persist, Publish
from gossip.errors import InvalidMessageError
from gossip.log_chain import BRANCHES_MAX, ForkProof, Head
from gossip.messages import Observation, Proposal, make_observation
from gossip.records import Record, make_record

N = 4
HOSTILE = 3
JUNK = Head(50, b"x" * 32)
"""A head that nobody can serve."""


def lie(truth: Observation, heads: dict[int, Head], forks: Sequence[ForkProof] = ()) -> Observation:
    """The hostile operator's observation: `truth` with other heads, by the number of the participant."""
    logs = truth.logs | {key(i).public: replace(truth.logs[key(i).public], head=head) for i, head in heads.items()}
    return make_observation(
        key(HOSTILE),
        POOL,
        epoch=truth.epoch,
        set_id=truth.set_id,
        policy_hash=truth.policy_hash,
        base=truth.base,
        logs=logs,
        forks=tuple(forks),
    )


def fork_at(author: Author, seq: int) -> ForkProof:
    record = author.records[seq - 1]
    return ForkProof(record, make_record(key(author.i), POOL, seq, record.prev_hash, replace(record.body, readings=())))


def settle_against(pool: Pool, lies: Callable[[Observation], Sequence[Observation]]) -> None:
    """Settle one epoch; the hostile operator is silent but for its observations, which everybody gets at once."""
    pool.down = {HOSTILE}
    honest = pool.agents[:HOSTILE]
    target = pool.chain.landed.epoch + 1
    told = False
    for _ in range(60):
        pool.step()
        said = [m for agent in honest for m in agent.machine.messages(target) if isinstance(m, Observation)]
        if said and not told:
            told = True
            for observation in lies(said[0]):
                for agent in honest:
                    agent.hear(observation)
        if pool.chain.landed.epoch >= target:
            assert told
            return
    raise AssertionError([agent.machine.progress() for agent in honest])


def test_a_head_that_only_an_unusable_observation_excuses_is_not_listed() -> None:
    """It stood above the fork: the list would wait for records that do not exist."""
    pool = Pool(N)
    write_work(pool)
    fork = fork_at(pool.authors[HOSTILE], 2)
    settle_against(pool, lambda truth: [lie(truth, {0: JUNK}, [fork]), lie(truth, {HOSTILE: Head(9, b"y" * 32)})])
    assert pool.chain.landed.epoch == 1
    assert not pool.agents[0].machine.base.reading(key(HOSTILE).public).dead, "the fork stood in no listed observation"


def test_a_head_beside_the_base_that_only_an_unusable_observation_excuses_ends_no_machine() -> None:
    pool = Pool(N)
    write_work(pool)
    run_epoch(pool)
    write_work(pool)
    base = pool.agents[0].machine.base.reading(key(HOSTILE).public).head
    fork = fork_at(pool.authors[HOSTILE], base.seq)
    beside = Head(base.seq, b"y" * 32)
    settle_against(pool, lambda truth: [lie(truth, {0: JUNK}, [fork]), lie(truth, {HOSTILE: beside})])
    assert pool.chain.landed.epoch == 2
    assert not pool.agents[0].machine.base.reading(key(HOSTILE).public).dead


def test_a_leader_whose_list_gives_no_settlement_goes_on() -> None:
    pool = Pool(1)
    write_work(pool)
    machine, asked = pool.agents[0].machine, 0

    def refuse(*_arguments: object) -> object:
        nonlocal asked
        asked += 1
        raise InvalidMessageError("evidence: nobody can judge it")

    machine._verdict = refuse
    said = []
    real = machine.handle
    machine.handle = lambda event: said.extend(real(event)) or []  # type: ignore[method-assign,func-returns-value]
    for _ in range(30):
        pool.step()
        for action in said:
            if not isinstance(action, Persist | Publish):
                pool.chain.finalize(pool.chain.epoch)
    assert asked
    assert any(isinstance(a, Publish) and isinstance(a.message, Observation) for a in said)
    assert not any(isinstance(a, Publish) and isinstance(a.message, Proposal) for a in said)


# A participant forks its log so that every operator has another branch when it observes.


def branch(owner: int, variant: int) -> Record:
    return make_record(key(owner), POOL, 1, bytes(32), evidence(START_S + variant))


async def settle_over_the_network(members: Sequence[Member], chain: Chain, limit_s: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, chain)
        for member in members:
            nursery.start_soon(member.puller.run)
            nursery.start_soon(follow, member, chain)
        with suppress(trio.TooSlowError):
            await until(lambda: all(m.node.machine.base.epoch >= 1 for m in members), limit_s)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("down", [set(), {HOSTILE}], ids=["all are up", "one operator is down"])
async def test_a_log_whose_branches_nobody_can_take_any_more_holds_up_nothing(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, down: set[int]
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    network, chain = Network(N), Chain(operator_set(N))
    network.down = down
    members = [member for member in network.members if member.i not in down]
    for member in members:
        await member.node.take_records([branch(HOSTILE, member.i).wire])
    for member in members:
        await member.node.handle(advanced(chain, N))
    assert all(member.node.machine.progress().has_observed for member in members)
    for member in members:
        await member.node.take_records([branch(HOSTILE, 100 + i).wire for i in range(BRANCHES_MAX)])
    await settle_over_the_network(members, chain, 300)
    assert chain.landed.epoch >= 1, [member.node.machine.progress() for member in members]
    bases = {member.node.machine.base.payload_hash for member in members}
    assert len(bases) == 1
    assert members[0].node.machine.base.reading(key(HOSTILE).public).dead


def test_a_leader_observes_again_once_in_its_view_and_says_the_same_of_all_logs() -> None:
    pool = Pool(N)
    write_work(pool)
    said: list[tuple[int, Observation]] = []

    def listen(sender: int, message: object) -> object:
        if isinstance(message, Observation):
            said.append((sender, message))
        return message

    pool.tamper = listen
    pool.chain.submit = lambda submit: False  # type: ignore[method-assign]
    owner = pool.authors[HOSTILE]
    for agent in pool.agents:
        agent.logs.insert(_branch_above(owner, agent.i), now_s=START_S + 10**6)
    pool.down = {HOSTILE}
    while len(said) < HOSTILE:
        pool.step(seconds=1)
    for agent in pool.agents:
        for i in range(10, 10 + BRANCHES_MAX - 1):
            agent.logs.insert(_branch_above(owner, i), now_s=START_S + 10**6)
    for _ in range(100):
        pool.step(seconds=1)
    first = dict(reversed(said))
    again = [(sender, o) for sender, o in said if o is not first[sender]]
    assert again
    for sender, observation in again:
        assert observation.logs == first[sender].logs
        assert {fork.node_key for fork in observation.forks} == {key(HOSTILE).public}
    assert any(agent.machine.progress().certified for agent in pool.agents[:HOSTILE])
    assert len(again) == 1, "once the fork is proven, nothing blocks"


def _branch_above(author: Author, variant: int) -> Record:
    return make_record(key(author.i), POOL, author.head.seq + 1, author.head.hash, evidence(START_S + variant))


def test_before_the_chain_was_seen_nothing_heard_is_kept() -> None:
    """Who the operators are is not known then: anybody might fill the memory."""
    pool = Pool(1)
    write_work(pool)
    agent = pool.agents[0]
    stranger = make_observation(
        key(9), POOL, epoch=1, set_id=1, policy_hash=bytes(32), base=bytes(32), logs={}, forks=()
    )
    agent.hear(stranger)
    assert agent.machine._early.take(1) == []
    agent.machine.restore([stranger])
    assert agent.machine._early.take(1) == [stranger]
