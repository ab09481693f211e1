"""What a decision waits for is remembered, never wrong, and looked at in no more steps than records arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, Author, evidence, fill, key, log_book, policy

from gossip import needs
from gossip.cut import proven_forks, require_usable
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import ForkProof, Head, Log, LogBook, RecordRange
from gossip.messages import Observation, ObservedLog, make_observation
from gossip.needs import Needs, Readiness
from gossip.records import Record, make_record
from gossip.settlement import Base, Reading

N = 4


def observe(operator: int, heads: dict[int, Head], forks: tuple[ForkProof, ...] = ()) -> Observation:
    logs = {key(i).public: ObservedLog(head=head, witnessed_s=0, worker_tokens=0) for i, head in heads.items()}
    return make_observation(
        key(operator), POOL, epoch=1, set_id=1, policy_hash=policy().hash, base=bytes(32), logs=logs, forks=forks
    )


def authors(count: int) -> list[Author]:
    made = [Author(i) for i in range(N)]
    for author in made:
        author.prove()
        for _ in range(count - 1):
            author.work()
    return made


def is_usable_now(observation: Observation, logs: LogBook, others: list[Observation]) -> bool:
    """What a look through everything says."""
    try:
        require_usable(Base(), [observation], logs, proven_forks(others))
    except DataUnavailableError:
        return False
    return True


@given(
    st.lists(st.tuples(st.integers(0, N - 1), st.booleans()), max_size=30),
    st.lists(st.integers(1, 4), min_size=N, max_size=N),
)
def test_it_says_what_a_look_through_everything_says(course: list[tuple[int, bool]], heads: list[int]) -> None:
    made, logs = authors(4), log_book(N)
    observations = [
        observe(i, {j: Head(heads[(i + j) % N], made[j].records[heads[(i + j) % N] - 1].hash) for j in range(N)})
        for i in range(N)
    ]
    readiness, held, arrived = Readiness(Base(), logs), list[Observation](), [0] * N
    for i, is_record in course:
        if is_record and arrived[i] < 4:
            fill(logs, [made[i].records[arrived[i]]])
            arrived[i] += 1
        elif observations[i] not in held:
            readiness.add(observations[i], in_place_of=None)
            held.append(observations[i])
        readiness.begin()
        usable = readiness.usable(held, [key(j).public for j in range(N)].index)
        assert {o.digest for o in usable.values()} == {o.digest for o in held if is_usable_now(o, logs, held)}
        assert readiness.is_waiting == (len(usable) < len(held))
        assert all(isinstance(item, RecordRange) for item in readiness.wanted)


def test_a_fork_that_is_proven_later_excuses_the_heads_above_it() -> None:
    author, logs = Author(0), log_book(N)
    author.prove()
    fill(logs, author.records)
    branches: list[Record] = [
        make_record(key(0), POOL, 2, author.head.hash, evidence(START_S + variant)) for variant in (1, 2)
    ]
    above = observe(0, {0: Head(9, b"\x09" * 32)})
    readiness = Readiness(Base(), logs)
    readiness.add(above, in_place_of=None)
    assert not readiness.is_usable(above)
    assert readiness.wanted == {RecordRange(key(0).public, 1, 9)}
    proving = observe(1, {0: author.head}, (ForkProof(*branches),))
    readiness.add(proving, in_place_of=None)
    readiness.begin()
    assert readiness.is_usable(above)
    assert readiness.wanted == frozenset()
    readiness.add(observe(1, {0: author.head}), in_place_of=proving)
    assert readiness.is_usable(above), "what was proven stays proven"


def test_a_head_beside_the_base_is_never_usable() -> None:
    readiness = Readiness(Base(), log_book(N))
    with pytest.raises(InvalidMessageError):
        readiness.is_usable(observe(0, {0: Head(0, b"\x01" * 32)}))


def test_what_never_can_be_met_is_looked_through_once() -> None:
    looks = 0

    def scan() -> Iterator[tuple[Log, Head]]:
        nonlocal looks
        looks += 1
        raise InvalidMessageError("head: beside the base")
        yield

    waiting = Needs(scan)
    for _ in range(5):
        with pytest.raises(InvalidMessageError, match="head: beside the base"):
            waiting.are_met()
    assert looks == 1


def test_a_settlement_that_lacks_more_than_records_waits_for_that() -> None:
    readiness, listed = Readiness(Base(), log_book(N)), [observe(0, {0: Head(0, bytes(32))})]
    readiness.require(listed)
    readiness.block(listed, frozenset({"anchor"}))
    with pytest.raises(DataUnavailableError) as refused:
        readiness.require(listed)
    assert refused.value.missing == {"anchor"}
    readiness.unblock()
    readiness.require(listed)


def test_a_look_costs_what_has_arrived_and_little_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "NEEDS_MAX", 10)
    looks = 0

    class Counting(Log):
        def holds(self, head: Head) -> bool:
            nonlocal looks
            looks += 1
            return super().holds(head)

    author = Author(0)
    author.prove()
    logs = [Counting(key(0).public) for _ in range(100)]

    def scan() -> Iterator[tuple[Log, Head]]:
        return ((log, author.head) for log in logs)

    waiting = Needs(scan)
    assert not waiting.are_met()
    assert len(waiting.missing()) == 1, "they are all of one key here"
    looks = 0
    for _ in range(1000):
        assert not waiting.are_met()
    assert looks == 1000
    for log in logs:
        assert not waiting.are_met()
        log.insert(author.records[0], now_s=START_S, window_max_s=60)
    assert waiting.are_met()
    assert looks < 1000 + 100 * (100 // 10 + 5)


def test_the_same_observations_in_another_order_are_the_same() -> None:
    listed = [observe(i, {0: Head(0, bytes(32))}) for i in range(3)]
    assert needs.digests(listed) == needs.digests(listed[::-1])
    assert needs.digests(listed) != needs.digests([*listed[1:], replace(listed[0], digest=bytes(32))])


def test_what_only_an_unusable_observation_excuses_may_not_be_listed_and_is_fetched() -> None:
    """Whoever follows the list knows no other forks than those that it proves."""
    author, logs = Author(0), log_book(N)
    author.prove()
    fill(logs, author.records)
    branches = [make_record(key(0), POOL, 2, author.head.hash, evidence(START_S + variant)) for variant in (1, 2)]
    above = observe(0, {0: Head(9, b"\x09" * 32)})
    hiding = observe(1, {0: author.head, 1: Head(9, b"\x09" * 32)}, (ForkProof(*branches),))
    proving = observe(2, {0: author.head}, (ForkProof(*branches),))
    readiness, held = Readiness(Base(), logs), [above, hiding]
    for observation in held:
        readiness.add(observation, in_place_of=None)
    index_of = [key(i).public for i in range(N)].index
    readiness.begin()
    assert readiness.usable(held, index_of) == {}
    assert RecordRange(key(0).public, 1, 9) in readiness.wanted
    readiness.add(proving, in_place_of=None)
    readiness.begin()
    assert readiness.usable([*held, proving], index_of) == {0: above, 2: proving}
    assert RecordRange(key(0).public, 1, 9) not in readiness.wanted


def test_a_head_beside_the_base_that_only_an_unusable_observation_excuses_may_not_be_listed() -> None:
    author, logs = Author(0), log_book(N)
    author.prove()
    logs.rebase(key(0).public, author.head, 0)
    base = Base(readings={key(0).public: Reading(head=author.head)})
    twins = [make_record(key(0), POOL, 1, bytes(32), evidence(START_S + variant)) for variant in (1, 2)]
    beside = observe(0, {0: Head(1, b"\x01" * 32)})
    hiding = observe(1, {0: author.head, 1: Head(9, b"\x09" * 32)}, (ForkProof(*twins),))
    readiness = Readiness(base, logs)
    for observation in (beside, hiding):
        readiness.add(observation, in_place_of=None)
    assert readiness.is_usable(beside)
    assert readiness.usable([beside, hiding], [key(i).public for i in range(N)].index) == {}
