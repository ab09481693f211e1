"""Which forks an operator proves: those first that stand in the way, and not what others prove already."""

from __future__ import annotations

from collections.abc import Iterable

from pool_fixture import POOL, START_S, evidence, fill, frame, key, log_book, policy

from gossip.log_chain import GENESIS, ForkProof, Head, LogBook
from gossip.messages import FORKS_MAX, Observation, ObservedLog, make_observation
from gossip.observing import forks_to_add, observe, observe_again
from gossip.records import make_record
from gossip.settlement import Base, Reading

N = FORKS_MAX + 4
JUNK = Head(1, b"\x01" * 32)


def forked_logs() -> LogBook:
    """The logs of `N` participants, each forked at its first record."""
    logs = log_book(N)
    for i in range(N):
        fill(logs, [make_record(key(i), POOL, 1, bytes(32), evidence(START_S + variant)) for variant in (1, 2)])
    return logs


def said_by(operator: int, heads: dict[int, Head], forks: Iterable[ForkProof] = ()) -> Observation:
    logs = {key(i).public: ObservedLog(head=heads.get(i, GENESIS), witnessed_s=0, worker_tokens=0) for i in range(N)}
    return make_observation(
        key(operator),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=policy().hash,
        base=bytes(32),
        logs=logs,
        forks=tuple(forks),
    )


def added(said: Observation, others: Iterable[Observation], base: Base | None = None) -> list[bytes]:
    forks = forks_to_add(said, base or Base(), forked_logs(), [said, *others])
    return [fork.node_key for fork in forks]


def test_a_fork_is_added_when_a_record_above_it_is_named_that_is_not_here() -> None:
    assert added(said_by(0, {}), [said_by(1, {})]) == []
    assert added(said_by(0, {}), [said_by(1, {5: JUNK})]) == [key(5).public]
    assert added(said_by(0, {}), [said_by(1, {5: forked_logs()[key(5).public].head})]) == []


def test_a_log_that_was_cut_at_a_fork_already_needs_no_proof() -> None:
    base = Base(readings={key(5).public: Reading(dead=True)})
    assert added(said_by(0, {}), [said_by(1, {5: JUNK})], base) == []


def test_what_is_proven_already_is_kept_and_not_said_again_alone() -> None:
    forks = {fork.node_key: fork for fork in forked_logs().forks()}
    proving = said_by(0, {}, [forks[key(5).public], forks[key(6).public]])
    assert added(proving, [said_by(1, {5: JUNK})]) == []
    assert added(proving, [said_by(1, {7: JUNK})]) == [key(7).public, key(5).public, key(6).public]


def test_forks_that_block_come_first_and_those_that_others_prove_last() -> None:
    """A hostile participant could otherwise fill the places with forks that matter to nobody."""
    said = observe(
        key(0), POOL, frame(N), Base(), forked_logs(), witnessed_s={}, worker_tokens={}, now_s=START_S + 10**6
    )
    assert len(said.forks) == FORKS_MAX
    forks = {fork.node_key: fork for fork in said.forks}
    left_out = next(i for i in range(N) if key(i).public not in forks)
    found = added(said, [said_by(1, {left_out: JUNK})])
    assert len(found) == FORKS_MAX
    assert found[0] == key(left_out).public
    all_block = dict.fromkeys(range(N), JUNK)
    by_others = {fork.node_key for fork in said.forks[:4]}
    found = added(said_by(0, {}), [said_by(1, all_block, said.forks[:4])])
    assert len(found) == FORKS_MAX
    assert not by_others & set(found)


def test_the_second_observation_differs_from_the_first_in_forks_alone() -> None:
    logs = forked_logs()
    read = {key(1).public: 0, key(2).public: 9}
    witnessed = {key(1).public: 7}
    first = observe(
        key(0), POOL, frame(N), Base(), log_book(N), witnessed_s=witnessed, worker_tokens=read, now_s=START_S
    )
    assert [first.logs[key(i).public].worker_tokens for i in range(4)] == [None, 0, 9, None]
    second = observe_again(key(0), POOL, first, logs.forks()[:1])
    assert (second.logs, second.base, second.epoch, second.set_id) == (
        first.logs,
        first.base,
        first.epoch,
        first.set_id,
    )
    assert second.forks == logs.forks()[:1]
    assert second.logs[key(1).public].witnessed_s == 7
