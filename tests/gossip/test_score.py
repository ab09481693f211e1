"""Scores: integers, by the policy's weights, and the same for everyone in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import policy

from contracts.model import QUALITY_MAX
from gossip.policy import Quality, Score
from gossip.score import SCALE, Figures, quality, weighted_scores

WEIGHTS = policy().score
TARGETS = Quality(latency_p95_target_ms=2000, failure_max_per_mille=100)

FIGURES = st.builds(
    Figures,
    tokens=st.integers(0, 2**48),
    uptime_s=st.integers(0, 10**6),
    tasks=st.integers(0, 2**32 - 1),
    quality=st.integers(0, 1000),
    reputation=st.integers(0, 1000),
)


def test_who_did_everything_has_the_whole_scale() -> None:
    all_of_it = Figures(tokens=7, uptime_s=7, tasks=7, quality=7, reputation=500)
    assert weighted_scores([all_of_it, Figures(reputation=500)], WEIGHTS) == [SCALE, 0]


@pytest.mark.parametrize(("field", "weight"), [("tokens", 500), ("uptime_s", 200), ("tasks", 200), ("quality", 100)])
def test_each_figure_counts_by_its_weight(field: str, weight: int) -> None:
    everything = {"tokens": 10, "uptime_s": 10, "tasks": 10, "quality": 10}
    mine = Figures(**{name: value if name == field else 0 for name, value in everything.items()}, reputation=500)
    others = Figures(**{name: 0 if name == field else value for name, value in everything.items()}, reputation=500)
    assert weighted_scores([mine, others], WEIGHTS) == [SCALE * weight // 1000, SCALE * (1000 - weight) // 1000]


@pytest.mark.parametrize(("reputation", "per_mille"), [(0, 500), (500, 1000), (1000, 1500)])
def test_reputation_multiplies(reputation: int, per_mille: int) -> None:
    figures = Figures(tokens=1, uptime_s=1, tasks=1, quality=1, reputation=reputation)
    assert weighted_scores([figures], WEIGHTS) == [SCALE * per_mille // 1000]


def test_a_figure_that_nobody_has_counts_for_nobody() -> None:
    assert weighted_scores([Figures(reputation=500), Figures(tokens=5, reputation=500)], WEIGHTS) == [0, SCALE // 2]
    assert weighted_scores([], WEIGHTS) == []


@given(st.lists(FIGURES, max_size=8), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_the_sum_is_bounded(figures: list[Figures], random: object) -> None:
    scores = weighted_scores(figures, WEIGHTS)
    assert all(type(score) is int and score >= 0 for score in scores)
    assert sum(scores) <= SCALE * 3 // 2
    order = random.sample(range(len(figures)), len(figures))
    assert weighted_scores([figures[i] for i in order], WEIGHTS) == [scores[i] for i in order]


@given(
    st.lists(FIGURES, min_size=1, max_size=5), st.integers(1, 2**40), st.sampled_from(["tokens", "uptime_s", "tasks"])
)
def test_more_work_never_lowers_the_own_score(figures: list[Figures], more: int, field: str) -> None:
    before = weighted_scores(figures, WEIGHTS)[0]
    more_of_it = replace(figures[0], **{field: getattr(figures[0], field) + more})
    after = weighted_scores([more_of_it, *figures[1:]], WEIGHTS)[0]
    assert after + 1 >= before  # rounding down once may cost 1 of 10**12


def test_weights_are_the_policys() -> None:
    only_uptime = Score(strategy="weighted", tokens=0, uptime=1000, tasks=0, quality=0)
    figures = [Figures(tokens=99, uptime_s=1, reputation=500), Figures(uptime_s=3, reputation=500)]
    assert weighted_scores(figures, only_uptime) == [SCALE // 4, SCALE * 3 // 4]


@pytest.mark.parametrize(
    ("tasks", "failed", "latency", "expected"),
    [
        (0, 0, None, 0),
        (0, 5, 100, 0),
        (100, 0, None, QUALITY_MAX),
        (100, 0, 2000, QUALITY_MAX),
        (100, 0, 0, QUALITY_MAX),
        (100, 0, 4000, (1000 + 500) // 2),
        (95, 5, None, 500),
        (90, 10, None, 0),
        (1, 99, 2000, 500),
        (1, 0, 2**32 - 1, 500),
    ],
)
def test_quality(tasks: int, failed: int, latency: int | None, expected: int) -> None:
    assert quality(tasks=tasks, failed=failed, latency_p95_ms=latency, targets=TARGETS) == expected


@given(
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.none() | st.integers(0, 2**32),
    st.builds(Quality, latency_p95_target_ms=st.integers(1, 10**6), failure_max_per_mille=st.integers(1, 1000)),
)
def test_quality_stays_in_its_range(tasks: int, failed: int, latency: int | None, targets: Quality) -> None:
    assert 0 <= quality(tasks=tasks, failed=failed, latency_p95_ms=latency, targets=targets) <= QUALITY_MAX
