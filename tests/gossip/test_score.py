"""Scores: the weighted strategy, the figures of quality and reliability, and the split of the pot; integers only."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import policy

from contracts.model import Address
from gossip.policy import Quality, WeightedScore
from gossip.score import (
    QUALITY_MAX,
    RELIABILITY_MAX,
    SCALE,
    Figures,
    quality,
    reliability,
    require_split,
    scores,
    split,
)

WEIGHTS = policy().score
TARGETS = Quality(latency_p95_target_ms=2000, failure_max_per_mille=100)
ADDRESSES = [Address(0, hashlib.sha256(b"%d" % i).digest()) for i in range(3)]


def test_who_did_everything_has_the_whole_scale() -> None:
    all_of_it = Figures(tokens=7, uptime_s=7, tasks=7, quality=7, reputation=500)
    assert scores([all_of_it, Figures(reputation=500)], WEIGHTS) == [SCALE, 0]


@pytest.mark.parametrize(("field", "weight"), [("tokens", 500), ("uptime_s", 200), ("tasks", 200)])
def test_each_figure_counts_by_its_weight(field: str, weight: int) -> None:
    everything = {"tokens": 10, "uptime_s": 10, "tasks": 10}
    mine = Figures(**{name: value if name == field else 0 for name, value in everything.items()}, reputation=500)
    others = Figures(**{name: 0 if name == field else value for name, value in everything.items()}, reputation=500)
    assert scores([mine, others], WEIGHTS) == [SCALE * weight // 1000, SCALE * (900 - weight) // 1000]


def test_quality_counts_by_the_second_of_uptime() -> None:
    good, fair = (Figures(uptime_s=10, quality=quality, reputation=500) for quality in (9_000, 3_000))
    assert scores([good, fair], WEIGHTS) == [SCALE * 175 // 1000, SCALE * 125 // 1000]
    halves = [Figures(uptime_s=5, quality=9_000, reputation=500)] * 2
    assert sum(scores([*halves, fair], WEIGHTS)[:2]) == scores([good, fair], WEIGHTS)[0], "two heads are not better"


@pytest.mark.parametrize(("reputation", "per_mille"), [(0, 500), (500, 1000), (1000, 1500)])
def test_reputation_multiplies(reputation: int, per_mille: int) -> None:
    figures = Figures(tokens=1, uptime_s=1, tasks=1, quality=1, reputation=reputation)
    assert scores([figures], WEIGHTS) == [SCALE * per_mille // 1000]


def test_a_figure_that_nobody_has_counts_for_nobody() -> None:
    assert scores([Figures(reputation=500), Figures(tokens=5, reputation=500)], WEIGHTS) == [0, SCALE // 2]


def test_weights_are_the_policys() -> None:
    only_uptime = WeightedScore(tokens=0, uptime=1000, tasks=0, quality=0)
    figures = [Figures(tokens=99, uptime_s=1, reputation=500), Figures(uptime_s=3, reputation=500)]
    assert scores(figures, only_uptime) == [SCALE // 4, SCALE * 3 // 4]


# Quality: (tasks, failed, p95, steady, timed) -> 0..10000


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((0, 0, None, 0, 0), 0),
        ((0, 5, 100, 3, 3), 0),
        ((100, 0, None, 0, 0), QUALITY_MAX),
        ((100, None, None, 0, 0), 0),
        ((100, None, 2000, 0, 0), QUALITY_MAX),
        ((100, 0, 2000, 9, 9), QUALITY_MAX),
        ((100, 0, 0, 9, 9), QUALITY_MAX),
        ((100, 0, 4000, 0, 0), (10_000 + 5_000) // 2),
        ((100, 0, 4000, 1, 4), (10_000 + 5_000 + 2_500) // 3),
        ((100, None, None, 1, 3), 3_333),
        ((95, 5, None, 0, 0), 5_000),
        ((9999, 1, None, 0, 0), 9_990),
        ((90, 10, None, 0, 0), 0),
        ((1, 99, 2000, 0, 1), 10_000 // 3),
        ((1, 0, 2**32 - 1, 0, 0), 5_000),
    ],
)
def test_quality(measured: tuple[int, int | None, int | None, int, int], expected: int) -> None:
    tasks, failed, latency, steady, timed = measured
    assert expected == quality(
        tasks=tasks,
        failed=failed,
        latency_p95_ms=latency,
        steady_windows=steady,
        timed_windows=timed,
        targets=TARGETS,
    )


@given(
    tasks=st.integers(0, 2**40),
    failed=st.none() | st.integers(0, 2**40),
    latency_p95_ms=st.none() | st.integers(0, 2**32),
    windows=st.lists(st.integers(0, 2**20), min_size=2, max_size=2).map(sorted),
    targets=st.builds(Quality, latency_p95_target_ms=st.integers(1, 10**6), failure_max_per_mille=st.integers(1, 1000)),
)
def test_quality_stays_in_its_range_and_no_failure_raises_it(
    tasks: int, failed: int | None, latency_p95_ms: int | None, windows: list[int], targets: Quality
) -> None:
    steady, timed = windows
    rest = {"latency_p95_ms": latency_p95_ms, "steady_windows": steady, "timed_windows": timed, "targets": targets}
    found = quality(tasks=tasks, failed=failed, **rest)
    assert 0 <= found <= QUALITY_MAX
    if failed is not None:
        assert quality(tasks=tasks, failed=failed + 1, **rest) <= found


@pytest.mark.parametrize(
    ("worked_s", "witnessed_s", "expected"),
    [
        (0, 0, 0),
        (100, 0, RELIABILITY_MAX // 2),
        (0, 100, RELIABILITY_MAX // 2),
        (50, 100, RELIABILITY_MAX * 3 // 4),
        (100, 100, RELIABILITY_MAX),
        (5000, 9000, RELIABILITY_MAX),
        (-3, 100, RELIABILITY_MAX // 2),
    ],
)
def test_reliability_is_half_participation_half_presence(worked_s: int, witnessed_s: int, expected: int) -> None:
    assert reliability(worked_s=worked_s, witnessed_s=witnessed_s, epoch_s=100) == expected


# The split.


@pytest.mark.parametrize(
    ("pot", "scored", "amounts"),
    [
        (100, [1, 1, 1], [33, 33, 33]),
        (100, [0, 0], [0, 0]),
        (0, [5, 7], [0, 0]),
        (7, [], []),
        (10, [0, 9, 1], [0, 9, 1]),
    ],
)
def test_the_pot_is_split_by_score(pot: int, scored: list[int], amounts: list[int]) -> None:
    assert split(pot, scored) == amounts


@given(st.integers(0, 2**119), st.lists(st.integers(0, 2**60), max_size=12))
def test_shares_and_dust_are_the_pot(pot: int, scored: list[int]) -> None:
    amounts = split(pot, scored)
    dust = pot - sum(amounts)
    assert dust == pot if not sum(scored) else 0 <= dust < len(scored)
    require_split(pot, [Address(0, hashlib.sha256(b"%d" % i).digest()) for i in range(len(scored))], amounts)


@pytest.mark.parametrize(("pot", "scored"), [(-1, [1]), (5, [2, -1])])
def test_nothing_negative_is_split(pot: int, scored: list[int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        split(pot, scored)


@pytest.mark.parametrize(
    ("participants", "amounts"),
    [
        (ADDRESSES, [40, 61, 0]),
        (ADDRESSES, [-1, 50, 50]),
        (ADDRESSES, [50, 50]),
        ([*ADDRESSES[:2], ADDRESSES[0]], [30, 30, 40]),
        (ADDRESSES, [40, 57, 0]),
    ],
    ids=["out of nothing", "negative", "one missing", "one twice", "more than dust is left"],
)
def test_a_wrong_split_is_refused(participants: list[Address], amounts: list[int]) -> None:
    with pytest.raises(ValueError, match="split"):
        require_split(100, participants, amounts)
