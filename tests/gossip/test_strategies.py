"""Score strategies: what each promises in its own words, and what all of them promise."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.policy import GuaranteedScore, HybridScore, ProportionalScore, Score, TieredScore, WeightedScore
from gossip.score import SCALE, Figures, scores, split

WEIGHTED = WeightedScore(tokens=500, uptime=200, tasks=200, quality=100)
PROPORTIONAL = ProportionalScore()
TIERED = TieredScore(base=850, top=500, next=300)
GUARANTEED = GuaranteedScore(minimum=500)
HYBRID = HybridScore(
    tokens=700,
    uptime=200,
    tasks=100,
    quality_min=500,
    quality_max=1500,
    reliability_min=800,
    reliability_max=1200,
)
STRATEGIES = [WEIGHTED, PROPORTIONAL, TIERED, GUARANTEED, HYBRID]
NAMES = [type(strategy).__name__ for strategy in STRATEGIES]

FIGURES = st.builds(
    Figures,
    tokens=st.integers(0, 5) | st.integers(0, 2**64 - 1),
    uptime_s=st.integers(0, 2**32 - 1),
    tasks=st.integers(0, 2**32 - 1),
    quality=st.sampled_from([0, 5000, 10_000]) | st.integers(0, 10_000),
    reliability=st.integers(0, 10_000),
    reputation=st.integers(0, 1000),
)
ANY_SCORE = (
    st.builds(
        lambda cuts: WeightedScore(
            tokens=cuts[0], uptime=cuts[1] - cuts[0], tasks=cuts[2] - cuts[1], quality=1000 - cuts[2]
        ),
        st.lists(st.integers(0, 1000), min_size=3, max_size=3).map(sorted),
    )
    | st.just(PROPORTIONAL)
    | st.builds(
        lambda base, cuts: TieredScore(base=base, top=cuts[0], next=cuts[1] - cuts[0]),
        st.integers(0, 1000),
        st.lists(st.integers(0, 999), min_size=2, max_size=2).map(lambda cuts: sorted(cut + 1 for cut in cuts)),
    )
    | st.builds(GuaranteedScore, minimum=st.integers(0, 1000))
    | st.just(HYBRID)
)


def worked(tokens: int, **figures: int) -> Figures:
    return Figures(
        **{"tokens": tokens, "uptime_s": 100, "tasks": 1, "reliability": 10_000, "reputation": 500, **figures}
    )


# All of them.


@given(st.lists(FIGURES, max_size=8), ANY_SCORE, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_equals_are_equal(figures: list[Figures], score: Score, random: Random) -> None:
    doubled = [*figures, *figures[:1]]
    before = scores(doubled, score)
    order = random.sample(range(len(doubled)), len(doubled))
    assert scores([doubled[i] for i in order], score) == [before[i] for i in order]
    if figures:
        assert before[0] == before[-1]


@given(st.lists(FIGURES, max_size=8), ANY_SCORE)
def test_scores_fit_a_leaf_and_are_bounded_together(figures: list[Figures], score: Score) -> None:
    scored = scores(figures, score)
    assert all(type(each) is int and 0 <= each < 1 << 128 for each in scored)
    factors_max = 1500 * 1200 if isinstance(score, HybridScore) else 1000 * 1000
    assert sum(scored) <= SCALE * 3 // 2 * factors_max // 10**6
    assert sum(split(10**18, scored)) <= 10**18


@given(
    st.lists(FIGURES, min_size=1, max_size=6),
    ANY_SCORE,
    st.integers(1, 2**40),
    st.sampled_from(["tokens", "uptime_s", "tasks", "quality", "reliability", "reputation"]),
)
@settings(max_examples=300)
def test_more_of_a_figure_never_lowers_the_own_score(
    figures: list[Figures], score: Score, more: int, field: str
) -> None:
    highest = {"quality": 10_000, "reliability": 10_000, "reputation": 1000}.get(field, 1 << 64)
    better = replace(figures[0], **{field: min(getattr(figures[0], field) + more, highest)})
    assert scores([better, *figures[1:]], score)[0] >= scores(figures, score)[0]


@pytest.mark.parametrize("score", STRATEGIES, ids=NAMES)
def test_who_did_nothing_has_nothing(score: Score) -> None:
    idle = Figures(reliability=10_000, reputation=1000)
    assert scores([idle, worked(5, quality=5)], score)[0] == 0
    assert scores([idle, idle], score) == [0, 0]
    assert scores([], score) == []


@pytest.mark.parametrize("score", STRATEGIES, ids=NAMES)
def test_who_worked_alone_has_the_whole_pot(score: Score) -> None:
    assert split(1000, scores([worked(5, quality=3), Figures(reputation=1000)], score)) == [1000, 0]


@pytest.mark.parametrize("score", STRATEGIES, ids=NAMES)
def test_reputation_is_the_last_factor(score: Score) -> None:
    figures = [worked(3, quality=10_000, reputation=r) for r in (0, 500, 1000)]
    low, middle, high = scores(figures, score)
    assert (low * 2 // 10, high * 2 // 10) == (middle // 10, middle * 3 // 10)


# Each of them.


def test_proportional_is_tokens_alone() -> None:
    figures = [worked(1, tasks=99, quality=10_000), worked(3)]
    assert scores(figures, PROPORTIONAL) == [SCALE // 4, SCALE * 3 // 4]


def test_tiers_are_by_quality_and_bonuses_by_tokens() -> None:
    """Ten of like tokens: five whole bonuses and three halves are 6.5; two have none."""
    figures = [worked(10, quality=quality) for quality in range(1000, 11_000, 1000)]
    base, bonus = SCALE * 85 // 1000, SCALE * 15 // 100 * 2 // 13
    assert scores(figures, TIERED) == [base] * 2 + [base + bonus // 2] * 3 + [base + bonus] * 5
    small = [replace(figures[-1], tokens=1), *figures[:-1]]
    assert scores(small, TIERED)[0] < SCALE * 2 // 91, "one token of the best quality buys no whole bonus"


def test_equals_share_a_tier() -> None:
    figures = [worked(1, quality=9000), worked(1, quality=9000), worked(1, quality=9000), worked(1, quality=1)]
    best, *_, last = scores(figures, TIERED)
    assert scores(figures, TIERED) == [best] * 3 + [last]
    base, half = SCALE * 85 // 400, SCALE * 15 // 700
    assert (abs(best - base - 2 * half) <= 1, abs(last - base - half) <= 1) == (True, True)
    assert len(set(scores([worked(1, quality=7)] * 9, TIERED))) == 1


def test_who_did_not_work_takes_no_place_in_a_tier() -> None:
    figures = [worked(1, quality=10), worked(1, quality=5)]
    idle = [Figures(quality=10_000, uptime_s=9, reputation=500)] * 20
    assert scores([*figures, *idle], TIERED)[:2] == scores(figures, TIERED)


def test_the_minimum_is_half_of_the_average() -> None:
    figures = [worked(1), worked(1), worked(98)]
    low, same, high = scores(figures, GUARANTEED)
    assert low == same == SCALE // 6
    assert high == SCALE - 2 * (SCALE // 6) - 1 or high == SCALE - 2 * (SCALE // 6)


def test_the_minimum_is_paid_by_what_others_have_above_their_own() -> None:
    figures = [worked(0), worked(2), worked(30), worked(68)]
    _, low, middle, high = scores(figures, GUARANTEED)
    minimum = SCALE // 6
    assert low == minimum
    left, above = SCALE - 3 * minimum, (SCALE * 30 // 100 - minimum, SCALE * 68 // 100 - minimum)
    assert (middle, high) == (minimum + left * above[0] // sum(above), minimum + left * above[1] // sum(above))
    assert minimum < middle < SCALE * 30 // 100


@pytest.mark.parametrize(("reliability", "per_mille"), [(10_000, 1000), (5_000, 500), (1, 0), (0, 0)])
def test_a_second_of_uptime_does_not_buy_the_minimum(reliability: int, per_mille: int) -> None:
    figures = [worked(1, reliability=reliability), worked(10**12)]
    assert scores(figures, GUARANTEED)[0] * 1000 // (SCALE // 4) == per_mille


def test_nobody_below_the_minimum_changes_nothing() -> None:
    figures = [worked(4), worked(5), worked(6)]
    least = scores(figures, GUARANTEED)
    assert [abs(a - b) <= 2 for a, b in zip(least, scores(figures, PROPORTIONAL), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("quality", "reliability", "per_mille"),
    [(5_000, 5_000, 1000), (0, 0, 400), (10_000, 10_000, 1800), (10_000, 0, 1200), (0, 10_000, 600)],
)
def test_hybrid_multiplies_by_quality_and_reliability(quality: int, reliability: int, per_mille: int) -> None:
    figures = [worked(1, quality=quality, reliability=reliability)]
    assert scores(figures, HYBRID) == [SCALE * per_mille // 1000]


def test_hybrid_weighs_seventy_twenty_ten() -> None:
    neutral = {"quality": 5000, "reliability": 5000, "reputation": 500}
    figures = [Figures(tokens=1, **neutral), Figures(uptime_s=1, **neutral), Figures(tasks=1, **neutral)]
    assert scores(figures, HYBRID) == [SCALE * 7 // 10, SCALE * 2 // 10, SCALE // 10]


# What splitting oneself gains, in per mille of the pot: the table of docs/scores.md. Ten like participants, of which
# one splits its tokens and tasks over k nodes; the others have a tenth each.

OTHERS = [
    Figures(tokens=1000, uptime_s=1000, tasks=1000, quality=9000, reliability=10_000, reputation=500) for _ in range(9)
]


def share_of(own: list[Figures], score: Score) -> int:
    scored = scores([*own, *OTHERS], score)
    return (1000 * sum(scored[: len(own)]) + sum(scored) // 2) // sum(scored)


@pytest.mark.parametrize(
    ("k", "one_machine", "k_machines"),
    [
        (1, [100, 100, 100, 100, 100], [100, 100, 100, 100, 100]),
        (2, [100, 100, 100, 100, 85], [125, 100, 100, 100, 116]),
        (4, [100, 100, 100, 100, 77], [162, 100, 100, 154, 142]),
        (8, [100, 100, 100, 100, 73], [211, 100, 100, 235, 174]),
    ],
)
def test_splitting_gains_nothing_without_more_machines(k: int, one_machine: list[int], k_machines: list[int]) -> None:
    """One machine's uptime is shared by its nodes: one earns at a time. k machines are up all the time, and paid so."""
    shared = replace(OTHERS[0], tokens=1000 // k, tasks=1000 // k, uptime_s=1000 // k, reliability=10_000 // k)
    up = replace(OTHERS[0], tokens=1000 // k, tasks=1000 // k)
    assert [share_of([shared] * k, score) for score in STRATEGIES] == one_machine
    assert [share_of([up] * k, score) for score in STRATEGIES] == k_machines


def test_what_a_machine_earns_that_is_up_and_answers_once() -> None:
    once = replace(OTHERS[0], tokens=1, tasks=1, quality=10_000)
    assert [share_of([once], score) for score in STRATEGIES] == [31, 0, 0, 50, 21]
