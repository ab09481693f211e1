"""Turns: every operator derives the same order, everyone comes, nobody twice at a time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contracts.permutation import TurnSchedule, permutation

SEEDS = st.binary(min_size=32, max_size=32)


@given(SEEDS, st.integers(0, 200))
def test_it_is_a_permutation_and_depends_on_nothing_but_its_arguments(seed: bytes, length: int) -> None:
    order = permutation(seed, length)
    assert sorted(order) == list(range(length))
    assert permutation(bytes(seed), length) == order


def test_known_orders() -> None:
    # Pinned: an order that changes silently would split the pool's versions.
    assert permutation(bytes(32), 7) == (3, 1, 0, 6, 5, 4, 2)
    assert permutation(b"\x01" * 32, 4) == (1, 3, 0, 2)


def test_every_position_is_about_equally_likely() -> None:
    first = Counter(permutation(i.to_bytes(32, "big"), 5)[0] for i in range(5000))
    assert all(850 < first[k] < 1150 for k in range(5))  # expected: 1000 each


@given(SEEDS, st.integers(1, 12), st.integers(1, 60), st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_turns_at_any_times_of_looking(seed: bytes, slots: int, stage_s: int, times: list[int]) -> None:
    opened_s = 1000
    schedules = [TurnSchedule.of(seed, i, slots, stage_s=stage_s, opened_s=opened_s) for i in range(slots)]
    assert sorted(s.slot for s in schedules) == list(range(slots))
    taken: Counter[int] = Counter()
    for now_s in sorted(opened_s + t for t in times):
        for schedule in schedules:
            turn = schedule.take(now_s)
            if turn is not None:
                assert schedule.slot <= turn <= (now_s - opened_s) // stage_s
                assert turn % slots == schedule.slot
                assert schedule.take(now_s) is None
                taken[schedule.slot] += 1
    rounds = (max(times) // stage_s) // slots + 1
    assert all(count <= rounds for count in taken.values())


@given(SEEDS, st.integers(1, 12), st.integers(1, 60))
def test_who_looks_once_per_stage_sees_one_submitter_at_a_time_and_everyone_in_turn(
    seed: bytes, slots: int, stage_s: int
) -> None:
    schedules = [TurnSchedule.of(seed, i, slots, stage_s=stage_s, opened_s=0) for i in range(slots)]
    takers = [
        [(s.slot, turn) for s in schedules if (turn := s.take(stage * stage_s)) is not None]
        for stage in range(3 * slots)
    ]
    assert takers == [[(stage % slots, stage)] for stage in range(3 * slots)]


@given(st.integers(0, 10_000))
def test_nobody_takes_a_turn_before_it_opens(early_s: int) -> None:
    schedule = TurnSchedule(slot=0, slots=4, stage_s=5, opened_s=10_001)
    assert schedule.take(early_s) is None
    assert schedule.take(10_001) == 0
    assert schedule.take(early_s) is None  # a clock that steps back gives no second turn
