"""Audit flags: who stands out, who is drawn, and that small or uniform pools accuse nobody."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.model import Address
from gossip.audit import COMPARED_MIN, Flag, far_off, flags
from gossip.policy import Audit
from gossip.score import Figures

SEED = bytes(32)
NOBODY_DRAWN = Audit(outlier_mads=6, picks=0)
HONEST = [
    Figures(tokens=100_000 + 700 * i, uptime_s=1000, tasks=200 + i, quality=9_900 - i, reputation=500) for i in range(9)
]
FIGURES = st.builds(
    Figures,
    tokens=st.integers(0, 2**64 - 1),
    uptime_s=st.integers(0, 2**32 - 1),
    tasks=st.integers(0, 2**32 - 1),
    quality=st.integers(0, 10_000),
    reputation=st.just(500),
)


def address(i: int) -> Address:
    return Address(0, hashlib.sha256(b"audited %d" % i).digest())


def flags_of(figures: list[Figures], audit: Audit = NOBODY_DRAWN, seed: bytes = SEED) -> list[int]:
    return flags(figures, [address(i) for i in range(len(figures))], audit, seed)


def test_an_honest_pool_has_no_outlier() -> None:
    assert flags_of(HONEST) == [0] * 9


@pytest.mark.parametrize(
    "cheat",
    [
        {"tokens": 1_000_000},
        {"tokens": 1_000},
        {"tasks": 20_000},
        {"tasks": 0},
        {"quality": 100},
        {"uptime_s": 10},
    ],
    ids=str,
)
def test_who_stands_out_is_flagged(cheat: dict[str, int]) -> None:
    figures = [*HONEST, replace(HONEST[4], **cheat)]
    assert flags_of(figures) == [0] * 9 + [Flag.OUTLIER]


def test_a_minority_of_liars_hides_nobody() -> None:
    liars = [replace(HONEST[0], tokens=10**9 * (i + 1)) for i in range(4)]
    assert flags_of([*HONEST, *liars]) == [0] * 9 + [1] * 4


def test_too_few_to_compare() -> None:
    few = [*HONEST[: COMPARED_MIN - 2], replace(HONEST[0], tokens=10**12)]
    assert flags_of(few) == [0] * (COMPARED_MIN - 1)
    idle = [Figures(uptime_s=5, reputation=500)] * 20
    assert flags_of([*few, *idle]) == [0] * (COMPARED_MIN + 19), "who did not work is not compared"


def test_a_uniform_pool_accuses_nobody_of_rounding() -> None:
    same = [HONEST[0]] * 8
    assert flags_of([*same, replace(HONEST[0], tokens=HONEST[0].tokens * 105 // 100)]) == [0] * 9
    assert flags_of([*same, replace(HONEST[0], tokens=HONEST[0].tokens * 120 // 100)]) == [0] * 8 + [1]


def test_a_figure_that_most_have_not_is_not_compared() -> None:
    without_tasks = [replace(each, tasks=0) for each in HONEST]
    assert flags_of([*without_tasks, HONEST[3]]) == [0] * 10


@pytest.mark.parametrize(
    ("values", "mads", "far"),
    [
        ([10, 12, 14, 16, 100], 3, {4}),
        ([10, 12, 14, 16, 20], 3, set()),
        ([10, 12, 14, 16, 21], 3, {4}),
        ([10, 12, 16, 18], 1, {0, 3}),
        ([0, 0, 0, 7], 1, set()),
        ([5], 1, set()),
    ],
)
def test_far_off_is_strictly_beyond_the_deviations(values: list[int], mads: int, far: set[int]) -> None:
    assert far_off(values, mads) == far


@given(st.lists(FIGURES, max_size=12), st.integers(0, 4), st.binary(min_size=32, max_size=32), st.randoms())
def test_flags_do_not_depend_on_the_order(figures: list[Figures], picks: int, seed: bytes, random: Random) -> None:
    audit = Audit(outlier_mads=6, picks=picks)
    addresses = [address(i) for i in range(len(figures))]
    found = flags(figures, addresses, audit, seed)
    order = random.sample(range(len(figures)), len(figures))
    assert flags([figures[i] for i in order], [addresses[i] for i in order], audit, seed) == [found[i] for i in order]
    assert all(type(flag) is int and 0 <= flag <= 3 for flag in found)
    assert sum(flag & Flag.PICKED > 0 for flag in found) == min(picks, sum(f.tokens > 0 for f in figures))


def test_the_draw_follows_the_cut_and_reaches_everybody_that_worked() -> None:
    audit = Audit(outlier_mads=1000, picks=1)
    figures = [*HONEST, Figures(uptime_s=5, reputation=500)]
    drawn = Counter(flags_of(figures, audit, hashlib.sha256(b"%d" % i).digest()).index(Flag.PICKED) for i in range(400))
    assert set(drawn) == set(range(9))
    assert max(drawn.values()) < 3 * min(drawn.values())


# What the list is worth: the table of docs/scores.md. Demand differs between honest participants (lognormal, `spread`).


def mixed_pool(random: Random, n: int, spread: float) -> list[Figures]:
    pool = []
    for _ in range(n):
        tokens = int(300 * 86_400 * random.lognormvariate(0, spread))
        tasks = int(tokens / (500 * random.lognormvariate(0, 0.2)))
        uptime_s, quality = int(86_400 * random.uniform(0.95, 1)), min(10_000, int(random.gauss(9_500, 300)))
        pool.append(Figures(tokens=tokens, uptime_s=uptime_s, tasks=tasks, quality=quality, reputation=500))
    return pool


@pytest.mark.parametrize(
    ("spread", "mads", "per_mille_max"), [(0.1, 6, 10), (0.3, 6, 20), (0.5, 6, 40), (0.5, 10, 10), (0.8, 20, 10)]
)
def test_few_of_an_honest_pool_are_flagged(spread: float, mads: int, per_mille_max: int) -> None:
    random, audit = Random(7), Audit(outlier_mads=mads, picks=0)
    flagged = sum(sum(flags_of(mixed_pool(random, 100, spread), audit)) for _ in range(50))
    assert flagged * 1000 // 5_000 <= per_mille_max


@pytest.mark.parametrize(
    ("spread", "times", "percent_min"), [(0.1, 2, 95), (0.3, 2, 20), (0.3, 5, 95), (0.5, 5, 80), (0.5, 10, 95)]
)
def test_most_who_inflate_their_tokens_are_flagged(spread: float, times: int, percent_min: int) -> None:
    random, found = Random(11), 0
    for _ in range(100):
        pool = mixed_pool(random, 50, spread)
        found += flags_of([replace(pool[0], tokens=times * pool[0].tokens), *pool[1:]])[0]
    assert found >= percent_min
