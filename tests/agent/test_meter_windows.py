"""Work windows: they never overlap, they lose nothing, and they say when nobody looked."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, InvalidSourceError
from agent.meter.counters import COUNT_MAX, CounterSample
from agent.meter.engine import LATENCY_BUCKET
from agent.meter.work import (
    MeterState,
    WindowLimits,
    WorkWindow,
    close,
    decode_state,
    encode_state,
    latency_quantiles_ms,
    observe,
)
from gossip.records import Unit

LIMITS = WindowLimits(window_s=60, window_max_s=600)


def reading(tokens: int, *, failed: int = 0, start_s: int | None = None) -> CounterSample:
    series = {"generation_tokens{}": tokens, "requests_failed{}": failed}
    return CounterSample(source="vllm", start_s=start_s, series=series)


def run(readings: Sequence[tuple[int, CounterSample | None]]) -> tuple[MeterState, list[WorkWindow]]:
    state: MeterState | None = None
    windows: list[WorkWindow] = []
    for now_s, sample in readings:
        state, closed = observe(state, sample, now_s, LIMITS)
        windows += closed
    assert state is not None
    return state, windows


def spans(windows: list[WorkWindow]) -> list[tuple[int, int, int]]:
    return [(window.start_s, window.end_s, window.gap_s) for window in windows]


def tokens(windows: list[WorkWindow]) -> int:
    return sum(amount for window in windows for unit, amount in window.counters if unit == Unit.GENERATION_TOKEN)


def test_busy_windows_follow_one_another() -> None:
    state, windows = run([(1000 + 20 * i, reading(100 * i)) for i in range(8)])
    assert spans(windows) == [(1000, 1060, 0), (1060, 1120, 0)]
    assert [w.counters for w in windows] == [((2, 300),), ((2, 300),)]
    assert (windows[0].source, windows[0].provenance, windows[0].failed) == ("engine", "vllm", 0)
    assert close(state)[1] == replace(windows[0], start_s=1120, end_s=1140, counters=((2, 100),))


def test_unit_that_is_not_told_is_absent() -> None:
    sample = CounterSample(source="tgi", start_s=None, series={"generation_tokens{}": 0})
    state, windows = run([(1000, sample), (1060, replace(sample, series={"generation_tokens{}": 7}))])
    assert windows[0].counters == ((Unit.GENERATION_TOKEN.value, 7),)
    assert windows[0].failed is None
    assert windows[0].latency_ms is None
    assert windows[0].gpu_seconds is windows[0].energy_mj is None
    assert close(state)[1] is None


def test_idle_time_is_one_long_window_that_ends_when_work_comes() -> None:
    _, windows = run([(1000 + 20 * i, reading(0)) for i in range(10)] + [(1200, reading(5)), (1240, reading(6))])
    assert spans(windows) == [(1000, 1180, 0), (1180, 1240, 0)]
    assert [w.counters for w in windows] == [((2, 0),), ((2, 6),)]


def test_short_idle_time_joins_the_work_after_it() -> None:
    _, windows = run([(1000, reading(0)), (1020, reading(0)), (1060, reading(9))])
    assert spans(windows) == [(1000, 1060, 0)]


def test_idle_window_closes_at_its_longest() -> None:
    _, windows = run([(1000 + 50 * i, reading(0)) for i in range(25)])
    assert spans(windows) == [(1000, 1600, 0), (1600, 2200, 0)]


def test_failed_readings_are_a_gap_up_to_the_next_good_pair() -> None:
    state, windows = run(
        [(1000, reading(0)), (1020, reading(10)), (1040, None), (1060, reading(30)), (1080, reading(35))]
    )
    assert spans(windows) == [(1000, 1060, 40)]
    assert tokens(windows) == 30
    assert state.gap_s == 0


def test_restart_is_a_gap_and_counts_from_zero() -> None:
    _, windows = run([(1000, reading(50)), (1030, reading(80)), (1060, reading(7))])
    assert spans(windows) == [(1000, 1060, 30)]
    assert tokens(windows) == 37


def test_clock_step_back_adds_no_time_until_it_has_passed() -> None:
    state, windows = run(
        [(1000, reading(0)), (1060, reading(10)), (1000, reading(20)), (1050, reading(30)), (1090, reading(40))]
    )
    assert spans(windows) == [(1000, 1060, 0)]
    assert (state.start_s, state.cursor_s, state.gap_s) == (1060, 1090, 30)
    _, window = close(state)
    assert window is not None
    assert window.counters == ((2, 30),)


def test_long_hole_is_in_no_window_but_its_work_is() -> None:
    state, windows = run([(1000, reading(0)), (1010, reading(1)), (90_000, reading(500))])
    assert spans(windows) == [(1000, 1010, 0), (89_400, 90_000, 600)]
    assert tokens(windows) == 500
    assert state.start_s == state.cursor_s == 90_000


def test_source_that_never_answered_has_no_windows() -> None:
    state, windows = run([(1000 + 60 * i, None) for i in range(40)])
    assert windows == []
    assert close(state)[1] is None


def test_failures_and_latency_stand_in_the_window() -> None:
    def sample(fast: int, slow: int, failed: int) -> CounterSample:
        buckets = {f"{LATENCY_BUCKET}300000": fast, f"{LATENCY_BUCKET}2500000": fast + slow}
        series = {**buckets, f"{LATENCY_BUCKET}inf": fast + slow, "requests_failed": failed}
        return CounterSample(source="vllm", start_s=None, series={f"{k}{{}}": v for k, v in series.items()})

    _, windows = run([(1000, sample(90, 0, 1)), (1060, sample(90 + 90, 10, 4))])
    assert windows[0].latency_ms == (300, 2500, 2500)
    assert windows[0].failed == 3


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({}, None),
        ({"inf": 0, "1000": 0}, None),
        ({"inf": 5}, None),
        ({"1": 1, "inf": 1}, (1, 1, 1)),
        ({"1000000": 50, "2000000": 95, "4000000": 98, "inf": 100}, (1000, 2000, 4000)),
    ],
)
def test_quantiles_are_bounds_of_buckets(buckets: dict[str, int], expected: tuple[int, int, int] | None) -> None:
    assert latency_quantiles_ms({LATENCY_BUCKET + bound: n for bound, n in buckets.items()}) == expected


def test_more_than_a_record_holds_is_refused() -> None:
    state, _ = observe(None, reading(0), 1000, LIMITS)
    with pytest.raises(InvalidSourceError, match="requests_failed"):
        observe(state, reading(0, failed=2**32), 1010, LIMITS)
    state, _ = observe(state, reading(COUNT_MAX), 1010, LIMITS)
    with pytest.raises(InvalidSourceError, match="generation_tokens"):
        observe(state, reading(COUNT_MAX - 1), 1020, LIMITS)


@pytest.mark.parametrize(("window_s", "window_max_s"), [(0, 600), (301, 600), (60, 60)])
def test_limits_are_checked(window_s: int, window_max_s: int) -> None:
    with pytest.raises(ConfigError, match="window_s"):
        WindowLimits(window_s=window_s, window_max_s=window_max_s)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"start_s":1,"cursor_s":"x"}', b"\xff"])
def test_damaged_state_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidSourceError, match="meter state"):
        decode_state(raw)


moves = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 30), st.integers(-2000, 5000)),
        st.one_of(st.just("fail"), st.just("restart"), st.just("idle"), st.integers(0, 1000)),
    ),
    max_size=80,
)


@given(moves)
def test_windows_never_overlap_and_hold_every_credited_token(moves: list[tuple[int, str | int]]) -> None:
    now_s, engine_total, credited = 100_000, 0, 0
    state, windows = observe(None, reading(0), now_s, LIMITS)
    all_windows = list(windows)
    for step_s, event in moves:
        now_s += step_s
        if event == "restart":
            engine_total = 0
        elif isinstance(event, int):
            engine_total += event
            credited += event
        sample = None if event == "fail" else reading(engine_total)
        # A restart of the agent between any two readings changes nothing.
        state, windows = observe(decode_state(encode_state(state)), sample, now_s, LIMITS)
        all_windows += windows
    state, last = close(state)
    all_windows += [last] if last else []
    end_s = 0
    for window in all_windows:
        assert end_s <= window.start_s < window.end_s
        assert window.end_s - window.start_s <= LIMITS.window_max_s
        assert 0 <= window.gap_s <= window.end_s - window.start_s
        end_s = window.end_s
    assert tokens(all_windows) + state.amounts.get("generation_tokens", 0) == credited
