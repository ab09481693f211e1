"""Steps back of the wall clock are seen, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock_watch import STEP_S_MIN, ClockWatch, StepBack


def test_a_step_back_is_told_once_and_remembered() -> None:
    watch = ClockWatch()
    assert watch.look(1000, 10) is None
    assert watch.look(951, 11) == StepBack(by_s=50, at_s=951)
    assert watch.look(952, 12) is None
    assert watch.last == StepBack(by_s=50, at_s=951)


@pytest.mark.parametrize("wall_s", [1005, 1000 + STEP_S_MIN, 1010, 5000])
def test_slewing_and_leaps_ahead_are_no_steps_back(wall_s: float) -> None:
    watch = ClockWatch()
    watch.look(1000, 0)
    assert watch.look(wall_s, 10) is None


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20), st.floats(-1e9, 1e9))
def test_a_clock_that_only_goes_on_never_steps_back(pauses: list[float], offset_s: float) -> None:
    watch, steady_s = ClockWatch(), 0.0
    for pause_s in pauses:
        steady_s += pause_s
        watch.look(offset_s + steady_s, steady_s)
    assert watch.last is None
