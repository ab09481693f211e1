"""Figures in the tally: which source, which units and which windows count, and what quality is made of."""

from __future__ import annotations

import dataclasses

import pytest
from epochs import Epochs, leaf_of, policy_work
from pool_fixture import Author, key, reading

from gossip.records import Source, SourceWork, Unit, WorkBody


def test_units_are_never_mixed() -> None:
    adjusted = ((Unit.PROMPT_TOKEN.value, 100), (Unit.ADJUSTED_TOKEN.value, 70), (Unit.TASK.value, 3))
    for units, expected in (((1,), (100, 3)), ((3,), (70, 3)), ((2,), (0, 0)), ((1, 2), (100, 3))):
        pool = Epochs(1)
        pool.policy = dataclasses.replace(pool.policy, work=policy_work(pool.policy, token_units=units))
        pool.authors[0].prove()
        pool.authors[0].work(counters=adjusted)
        leaf = leaf_of(pool.settle(), 0)
        assert (leaf.tokens, leaf.tasks) == expected


def test_sources_are_never_mixed() -> None:
    """What others than the policy's source say is there to be compared, and counts for nothing."""
    cocoon = reading(7000, source=Source.COCOON, latency_ms=(1, 99_000, 99_000))
    nvml = reading(50_000, source=Source.NVML, counters=((Unit.GPU_BUSY_MS, 9000), (Unit.ENERGY_MJ, 10**6)))
    alone, beside = Epochs(1), Epochs(1)
    for pool, others in ((alone, ()), (beside, (cocoon, nvml))):
        pool.authors[0].prove()
        pool.authors[0].append(window(pool.authors[0], reading(1000, gap_s=2), *others))
    assert beside.settle().leaves == alone.settle().leaves


def test_engines_beside_one_another_count_together_and_the_time_of_one_is_enough() -> None:
    pool = Epochs(1)
    pool.authors[0].prove()
    engines = [reading(1000 * (i + 1), instance=i, gap_s=gap_s) for i, gap_s in enumerate((7, 3, 10))]
    pool.authors[0].append(window(pool.authors[0], *engines))
    leaf = leaf_of(pool.settle(), 0)
    assert (leaf.tokens, leaf.tasks, leaf.uptime_s) == (6000, 60, 7)


def test_a_window_without_the_policys_source_is_not_even_uptime() -> None:
    pool = Epochs(1)
    pool.authors[0].prove()
    pool.authors[0].append(window(pool.authors[0], reading(1000, source=Source.COCOON)))
    leaf = leaf_of(pool.settle(), 0)
    assert (leaf.tokens, leaf.uptime_s, leaf.score) == (0, 0, 0)


def window(author: Author, *readings: SourceWork) -> WorkBody:
    """The author's next ten seconds."""
    author.end_s += 10
    return WorkBody(start_s=author.end_s - 10, end_s=author.end_s, readings=readings, evidence=author.evidence_hash)


def test_a_task_takes_tokens() -> None:
    pool = Epochs(2)
    pool.policy = dataclasses.replace(pool.policy, work=policy_work(pool.policy, tokens_per_task_min=50))
    for author, tokens in zip(pool.authors, (1000, 49), strict=True):
        author.prove()
        author.work(counters=((Unit.GENERATION_TOKEN, tokens), (Unit.TASK, 10**6), (Unit.FAILED_TASK, 0)))
    settlement = pool.settle()
    assert [leaf_of(settlement, i).tasks for i in (0, 1)] == [20, 0]
    assert [leaf_of(settlement, i).quality for i in (0, 1)] == [10_000, 0], "no task that counts, no quality"


def counted(tokens: int, tasks: int, failed: int | None) -> tuple[tuple[int, int], ...]:
    """Counters of a reading; None: it does not count failures."""
    told = () if failed is None else ((Unit.FAILED_TASK.value, failed),)
    return ((Unit.GENERATION_TOKEN.value, tokens), (Unit.TASK.value, tasks), *told)


def test_latency_is_weighted_by_tasks_and_failures_and_steadiness_count() -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    author.prove()
    author.work(counters=counted(500, 30, 0), latency_ms=(1, 2000, 9000))
    author.work(counters=counted(500, 10, 1), latency_ms=(1, 6000, 9000))
    author.work(counters=counted(0, 0, 0), latency_ms=(1, 60_000, 90_000))  # measured nothing: weighs nothing
    author.work(counters=counted(0, 0, None), latency_ms=None)
    # p95 3000 ms against 2000: 6666; 1 of 41 failed, of 100 per mille: 7561; one of two windows was steady: 5000.
    assert leaf_of(pool.settle(), 0).quality == (6666 + 7561 + 5000) // 3


@pytest.mark.parametrize(
    ("failed", "latency_ms", "expected"),
    [
        pytest.param(None, None, 0, id="nothing: nothing was shown"),
        pytest.param(0, None, 10_000, id="failures, and there are none"),
        pytest.param(1, None, (9010 + 10_000) // 2, id="failures, and there is one of 101"),
        pytest.param(None, (1, 4000, 9000), 2500, id="latency"),
        pytest.param(0, (1, 4000, 9000), 5000, id="both"),
    ],
)
def test_quality_is_of_what_the_source_measures(
    failed: int | None, latency_ms: tuple[int, int, int] | None, expected: int
) -> None:
    pool = Epochs(1)
    pool.authors[0].prove()
    pool.authors[0].work(counters=counted(5000, 100, failed), latency_ms=latency_ms)
    settlement = pool.settle()
    assert leaf_of(settlement, 0).quality == expected
    assert settlement.credits[key(0).public].failed == failed
