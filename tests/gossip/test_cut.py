"""The cut: what more than a third of the weight holds, whatever else the observations claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, Author, evidence, fill, frame, key, log_book, operator_set, policy

from gossip.cut import CutPoint, compute_cut, require_usable
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import GENESIS, ForkProof, Head, LogBook, RecordRange
from gossip.messages import Observation, ObservedLog, make_observation
from gossip.records import Record, make_record
from gossip.settlement import Base, Payments, Reading

SUBJECT = key(0).public
"""The participant whose log is cut in these tests."""


def observe(
    operator: int,
    head: Head,
    *,
    forks: Sequence[ForkProof] = (),
    witnessed_s: int = 0,
    worker_tokens: int | None = None,
    subject: bytes = SUBJECT,
) -> Observation:
    return make_observation(
        key(operator),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=policy().hash,
        base=bytes(32),
        logs={subject: ObservedLog(head=head, witnessed_s=witnessed_s, worker_tokens=worker_tokens)},
        forks=tuple(forks),
    )


def written(count: int) -> tuple[Author, LogBook]:
    author, logs = Author(0), log_book(7)
    author.prove()
    for _ in range(count - 1):
        author.work()
    fill(logs, author.records)
    return author, logs


def at(author: Author, seq: int) -> Head:
    return Head(seq, author.records[seq - 1].hash) if seq else GENESIS


def branch(author: Author, seq: int, variant: int, length: int = 1) -> list[Record]:
    head, records = at(author, seq - 1), []
    for _ in range(length):
        records.append(make_record(key(0), POOL, head.seq + 1, head.hash, evidence(START_S + variant)))
        head = Head(records[-1].seq, records[-1].hash)
    return records


def cut(
    observations: Sequence[Observation],
    logs: LogBook,
    *,
    weights: Sequence[int] = (1, 1, 1, 1),
    base: Base | None = None,
) -> CutPoint:
    operators = operator_set(len(weights), weights)
    results: list[Mapping[bytes, CutPoint]] = [
        compute_cut(operators, base or Base(), order, logs) for order in (observations, observations[::-1])
    ]
    assert results[0] == results[1]
    return results[0][SUBJECT]


@pytest.mark.parametrize(
    ("weights", "seqs", "expected"),
    [
        pytest.param((1, 1, 1, 1), (5, 5, 5, 5), 5, id="all agree"),
        pytest.param((1, 1, 1, 1), (5, 4, 3, 2), 4, id="two of four descend from 4"),
        pytest.param((1, 1, 1, 1), (5, 0, 0), 0, id="one of four is not enough"),
        pytest.param((1, 1, 1), (5, 4, 3), 4, id="exactly a third is not enough"),
        pytest.param((1, 1, 1, 3), (5, 5, 3, 3), 3, id="two of six is exactly a third"),
        pytest.param((1, 1, 2, 2), (2, 2, 5, 4), 4, id="weights count, not heads"),
        pytest.param((2, 1, 1, 1), (5, 0, 0), 5, id="two of five is more than a third"),
        pytest.param((1,), (3,), 3, id="a pool of one"),
        pytest.param((1, 1, 1, 1, 1, 1, 1), (5, 5, 1, 1, 1), 1, id="two of seven lie"),
        pytest.param((1, 1, 1, 1, 1, 1, 1), (5, 5, 5, 1, 1), 5, id="three of seven hold it"),
        pytest.param((1, 1, 1, 1), (0, 0, 0), 0, id="nothing was written"),
    ],
)
def test_threshold(weights: Sequence[int], seqs: Sequence[int], expected: int) -> None:
    author, logs = written(5)
    point = cut([observe(i, at(author, seq)) for i, seq in enumerate(seqs)], logs, weights=weights)
    assert point.head == at(author, expected)
    assert not point.dead


@given(
    st.lists(st.integers(1, 10), min_size=1, max_size=7).flatmap(
        lambda weights: st.tuples(
            st.just(weights), st.lists(st.integers(0, 6), min_size=len(weights), max_size=len(weights))
        )
    )
)
def test_the_cut_is_the_highest_record_that_more_than_a_third_holds(case: tuple[list[int], list[int]]) -> None:
    weights, seqs = case
    author, logs = written(6)
    point = cut([observe(i, at(author, seq)) for i, seq in enumerate(seqs)], logs, weights=weights)
    witnessed = [
        seq for seq in range(7) if 3 * sum(w for w, s in zip(weights, seqs, strict=True) if s >= seq) > sum(weights)
    ]
    assert point.head == at(author, max(witnessed))


@given(st.permutations(range(7)), st.lists(st.integers(0, 6), min_size=7, max_size=7), st.booleans(), st.data())
def test_order_does_not_matter_even_with_forks(
    order: list[int], seqs: list[int], is_proven: bool, data: st.DataObject
) -> None:
    author, logs = written(6)
    other = branch(author, data.draw(st.integers(1, 6)), 1, length=2)
    fill(logs, other)
    heads = [at(author, seq) for seq in seqs]
    for i in data.draw(st.sets(st.integers(0, 6))):
        heads[i] = Head(other[-1].seq, other[-1].hash)
    proofs = (ForkProof(author.records[5], branch(author, 6, 9)[0]),) if is_proven else ()
    observations = [observe(i, head, forks=proofs if i == 0 else ()) for i, head in enumerate(heads)]
    operators = operator_set(7)
    expected = compute_cut(operators, Base(), observations, logs)
    assert compute_cut(operators, Base(), [observations[i] for i in order], logs) == expected


@given(st.lists(st.integers(0, 6), min_size=5, max_size=5), st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_what_every_honest_operator_holds_is_counted_whatever_two_of_seven_say(
    honest: list[int], hostile: list[int]
) -> None:
    author, logs = written(6)
    observations = [observe(i, at(author, seq)) for i, seq in enumerate([*honest, *hostile])]
    for listed in (observations, observations[2:], observations[:5]):  # the leader may leave two out
        point = cut(listed, logs, weights=[1] * 7)
        assert min(honest) <= point.head.seq <= max(honest)


def test_a_fork_between_observed_heads_ends_the_log_before_it() -> None:
    author, logs = written(6)
    other = branch(author, 4, 1, length=2)
    fill(logs, other)
    heads = [at(author, 6), at(author, 6), at(author, 6), Head(5, other[1].hash)]
    point = cut([observe(i, head) for i, head in enumerate(heads)], logs)
    assert point == CutPoint(head=at(author, 3), dead=True, witnessed_s=0, worker_tokens=None)


def test_a_fork_that_only_one_observation_proves_ends_the_log_before_it() -> None:
    author, logs = written(6)
    proof = ForkProof(author.records[2], branch(author, 3, 1)[0])
    observations = [observe(i, at(author, 6), forks=(proof,) if i == 3 else ()) for i in range(4)]
    point = cut(observations, logs)
    assert (point.head, point.dead) == (at(author, 2), True)


def test_the_lowest_of_several_forks_counts() -> None:
    author, logs = written(6)
    high = ForkProof(author.records[4], branch(author, 5, 1)[0])
    low = ForkProof(author.records[1], branch(author, 2, 2)[0])
    observations = [observe(i, at(author, 6), forks=(high, low)[: i % 3]) for i in range(4)]
    assert cut(observations, logs).head == at(author, 1)


def test_a_fork_that_this_node_knows_and_no_observation_shows_changes_nothing() -> None:
    author, logs = written(6)
    fill(logs, branch(author, 3, 1))
    assert logs.forks()
    point = cut([observe(i, at(author, 6)) for i in range(4)], logs)
    assert (point.head, point.dead) == (at(author, 6), False)


def test_a_fork_behind_the_base_ends_the_log_at_the_base() -> None:
    author, logs = written(6)
    proof = ForkProof(author.records[1], branch(author, 2, 1)[0])
    logs.rebase(SUBJECT, at(author, 4), author.end_s - 20)
    base = Base(epoch=1, readings={SUBJECT: Reading(head=at(author, 4))})
    observations = [observe(i, at(author, 6), forks=(proof,)) for i in range(3)]
    point = cut(observations, logs, base=base)
    assert (point.head, point.dead) == (at(author, 4), True)


def test_a_dead_log_stays_where_it_is_but_its_readings_go_on() -> None:
    author, logs = written(6)
    logs.rebase(SUBJECT, at(author, 4), author.end_s - 20)
    base = Base(epoch=1, readings={SUBJECT: Reading(head=at(author, 4), dead=True, witnessed_s=10)})
    point = cut([observe(i, at(author, 6), witnessed_s=50) for i in range(3)], logs, base=base)
    assert point == CutPoint(head=at(author, 4), dead=True, witnessed_s=50, worker_tokens=None)


def test_missing_records_are_named_of_all_observations_at_once() -> None:
    author, logs = written(5)
    later, _ = written(5)
    unknown = [later.work() for _ in range(2)]
    stranger = Author(1)
    stranger.prove()
    observations = [
        observe(0, at(author, 5)),
        observe(1, Head(7, unknown[1].hash)),
        observe(2, stranger.head, subject=key(1).public),
    ]
    with pytest.raises(DataUnavailableError) as caught:
        compute_cut(operator_set(4), Base(), observations, logs)
    assert all(isinstance(missing, RecordRange) for missing in caught.value.missing)
    ranges = {missing.node_key: missing for missing in caught.value.missing}
    assert ranges[SUBJECT].last == 7
    assert ranges[SUBJECT].first <= 6
    assert (ranges[key(1).public].first, ranges[key(1).public].last) == (1, 1)


def test_a_head_that_nobody_can_resolve_is_never_ignored() -> None:
    author, logs = written(5)
    observations = [observe(i, at(author, 5)) for i in range(3)] + [observe(3, Head(5, b"\x07" * 32))]
    with pytest.raises(DataUnavailableError):
        compute_cut(operator_set(4), Base(), observations, logs)


@pytest.mark.parametrize("seq", [0, 1, 2, 3])
def test_a_head_behind_or_beside_the_base_is_invalid(seq: int) -> None:
    author, logs = written(5)
    logs.rebase(SUBJECT, at(author, 3), author.end_s)
    base = Base(epoch=1, readings={SUBJECT: Reading(head=at(author, 3))})
    head = Head(3, b"\x07" * 32) if seq == 3 else at(author, seq)
    with pytest.raises(InvalidMessageError):
        require_usable(base, [observe(0, head)], logs, {})


def test_an_unknown_log_is_invalid() -> None:
    _, logs = written(2)
    with pytest.raises(InvalidMessageError, match="participant"):
        require_usable(Base(), [observe(0, GENESIS, subject=key(6 + 1).public)], logs, {})


@pytest.mark.parametrize(
    ("weights", "weight", "is_witnessed", "is_quorum"),
    [
        ((1, 1, 1), 1, False, False),
        ((1, 1, 1), 2, True, False),
        ((1, 1, 1), 3, True, True),
        ((1, 1, 1, 1), 2, True, False),
        ((1, 1, 1, 1), 3, True, True),
        ((1, 1, 1, 1, 1), 3, True, False),
        ((1, 1, 1, 1, 1), 4, True, True),
        ((2**32 - 1,) * 180, 60 * (2**32 - 1), False, False),
        ((2**32 - 1,) * 180, 120 * (2**32 - 1), True, False),
        ((2**32 - 1,) * 180, 120 * (2**32 - 1) + 1, True, True),
    ],
)
def test_the_two_thresholds_are_strict(
    weights: Sequence[int], weight: int, is_witnessed: bool, is_quorum: bool
) -> None:
    operators = operator_set(len(weights), weights)
    assert (operators.is_witnessed(weight), operators.is_quorum(weight)) == (is_witnessed, is_quorum)


@pytest.mark.parametrize(
    ("weights", "reports", "expected"),
    [
        ((1, 1, 1, 1), (100, 90, 80, 70), 90),
        ((1, 1, 1), (100, 90, 80), 90),
        ((1, 1, 1, 1), (2**48 - 1, 10, 10), 10),
        ((3, 1, 1, 1), (7, 90, 80, 70), 70),
        ((1, 1, 1, 1), (0, 0, 0), 0),
        ((1,), (55,), 55),
    ],
)
def test_witnessed_is_the_highest_value_that_more_than_a_third_reports_at_least(
    weights: Sequence[int], reports: Sequence[int], expected: int
) -> None:
    author, logs = written(1)
    observations = [
        observe(i, at(author, 1), witnessed_s=value, worker_tokens=value) for i, value in enumerate(reports)
    ]
    point = cut(observations, logs, weights=weights)
    assert (point.witnessed_s, point.worker_tokens) == (expected, expected)


@pytest.mark.parametrize(
    ("weights", "reports", "expected"),
    [
        ((1, 1, 1, 1), (None, None, None, None), None),
        ((1, 1, 1, 1), (100, None, None, None), None),
        ((1, 1, 1, 1), (100, None, 70, None), 70),
        ((1, 1, 1, 1), (2**63 - 1, None, 10, 10), 10),
        ((1, 1, 1), (100, None, None), None),
        ((3, 1, 1, 1), (5, None, None, None), 5),
        ((3, 1, 1, 1), (None, 9, 8, 7), 7),
        ((1, 1, 1, 1), (0, None, 0, None), 0),
    ],
)
def test_worker_tokens_are_what_more_than_a_third_read_at_least_and_absent_is_not_zero(
    weights: Sequence[int], reports: Sequence[int | None], expected: int | None
) -> None:
    author, logs = written(1)
    observations = [observe(i, at(author, 1), worker_tokens=value) for i, value in enumerate(reports)]
    assert cut(observations, logs, weights=weights).worker_tokens == expected


def test_witnessed_never_falls_behind_the_base() -> None:
    """Operators that lost their database report less than was witnessed already."""
    author, logs = written(1)
    base = Base(readings={SUBJECT: Reading(witnessed_s=500)})
    point = cut([observe(i, at(author, 1), witnessed_s=5) for i in range(4)], logs, base=base)
    assert point.witnessed_s == 500


def test_worker_tokens_are_the_raw_reading_whatever_was_settled() -> None:
    """The tally knows which contract the last one was of; the cut does not."""
    author, logs = written(1)
    base = Base(readings={SUBJECT: Reading(payments=Payments(worker=bytes(32), worker_tokens=900))})
    assert cut([observe(i, at(author, 1), worker_tokens=9) for i in range(4)], logs, base=base).worker_tokens == 9


def test_a_participant_in_no_observation_is_not_cut() -> None:
    author, logs = written(2)
    assert compute_cut(frame(4).operators, Base(), [observe(0, at(author, 2))], logs).keys() == {SUBJECT}


def test_the_record_before_a_fork_is_not_needed_when_a_lower_fork_is_proven() -> None:
    """It may be on a branch of which everybody holds as many as it keeps already."""
    author, logs = written(3)
    aside = branch(author, 2, 7)[0]
    above = [make_record(key(0), POOL, 3, aside.hash, evidence(START_S + i)) for i in (8, 9)]
    upper, lower = ForkProof(*above), ForkProof(author.records[1], branch(author, 2, 6)[0])
    proving = observe(0, Head(3, above[0].hash), forks=[upper])
    with pytest.raises(DataUnavailableError):
        cut([proving, observe(1, at(author, 1)), observe(2, at(author, 1))], logs)
    point = cut([proving, observe(1, at(author, 1), forks=[lower]), observe(2, at(author, 1))], logs)
    assert (point.head, point.dead) == (at(author, 1), True)
