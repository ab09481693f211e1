"""Work windows: they never overlap, they lose nothing, and they say when nobody looked."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, InvalidSourceError
from agent.meter.counters import COUNT_MAX, CounterSample
from agent.meter.engine import LATENCY_BUCKET
from agent.meter.sources import SourceSample
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
from gossip.records import Source, SourceWork, Unit

LIMITS = WindowLimits(window_s=60, window_max_s=600)
ENGINE = (Source.ENGINE.value, 0)


def reading(tokens: int, *, failed: int = 0, start_s: int | None = None) -> CounterSample:
    series = {"generation_token{}": tokens, "failed_task{}": failed}
    return CounterSample(source="vllm", start_s=start_s, series=series)


def said(sample: CounterSample | None) -> SourceSample | None:
    return None if sample is None else SourceSample(counters=sample, provenance=sample.source)


def run(readings: Sequence[tuple[int, CounterSample | None]]) -> tuple[MeterState, list[WorkWindow]]:
    state: MeterState | None = None
    windows: list[WorkWindow] = []
    for now_s, sample in readings:
        observed = observe(state, {ENGINE: said(sample)}, now_s, LIMITS)
        state = observed.state
        windows += observed.windows
    assert state is not None
    return state, windows


def engine(window: WorkWindow) -> SourceWork:
    (counted,) = window.readings
    return counted


def spans(windows: list[WorkWindow]) -> list[tuple[int, int, int]]:
    return [(window.start_s, window.end_s, engine(window).gap_s) for window in windows]


def tokens(windows: list[WorkWindow]) -> int:
    return sum(engine(window).amount(Unit.GENERATION_TOKEN) for window in windows)


def test_busy_windows_follow_one_another() -> None:
    state, windows = run([(1000 + 20 * i, reading(100 * i)) for i in range(8)])
    assert spans(windows) == [(1000, 1060, 0), (1060, 1120, 0)]
    assert [engine(w).counters for w in windows] == [((2, 300), (5, 0)), ((2, 300), (5, 0))]
    counted = engine(windows[0])
    assert (counted.source, counted.instance, counted.provenance) == (Source.ENGINE, 0, "vllm")
    last = replace(counted, counters=((2, 100), (5, 0)))
    assert close(state)[1] == WorkWindow(start_s=1120, end_s=1140, readings=(last,))


def test_unit_that_is_not_told_is_absent() -> None:
    sample = CounterSample(source="tgi", start_s=None, series={"generation_token{}": 0})
    state, windows = run([(1000, sample), (1060, replace(sample, series={"generation_token{}": 7}))])
    assert engine(windows[0]).counters == ((Unit.GENERATION_TOKEN.value, 7),)
    assert engine(windows[0]).latency_ms is None
    assert close(state)[1] is None


def test_idle_time_is_one_long_window_that_ends_when_work_comes() -> None:
    _, windows = run([(1000 + 20 * i, reading(0)) for i in range(10)] + [(1200, reading(5)), (1240, reading(6))])
    assert spans(windows) == [(1000, 1180, 0), (1180, 1240, 0)]
    assert [engine(w).counters for w in windows] == [((2, 0), (5, 0)), ((2, 6), (5, 0))]


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
    assert state.sources[0].gap_s == 0


def test_restart_is_a_gap_and_counts_from_zero() -> None:
    _, windows = run([(1000, reading(50)), (1030, reading(80)), (1060, reading(7))])
    assert spans(windows) == [(1000, 1060, 30)]
    assert tokens(windows) == 37


def test_clock_step_back_adds_no_time_until_it_has_passed() -> None:
    state, windows = run(
        [(1000, reading(0)), (1060, reading(10)), (1000, reading(20)), (1050, reading(30)), (1090, reading(40))]
    )
    assert spans(windows) == [(1000, 1060, 0)]
    assert (state.start_s, state.cursor_s, state.sources[0].gap_s) == (1060, 1090, 30)
    _, window = close(state)
    assert window is not None
    assert engine(window).amount(Unit.GENERATION_TOKEN) == 30


def test_clock_that_was_a_day_ahead_costs_no_more_than_its_windows() -> None:
    day_s = 86_400
    _, before = run([(1000 + 10 * i, reading(100 * i)) for i in range(5)])
    ahead = [(1050 + day_s, reading(500))]
    state, windows = run(
        [(1000 + 10 * i, reading(100 * i)) for i in range(5)]
        + ahead
        + [(1060 + 10 * i, reading(600 + 100 * i)) for i in range(13)]
    )
    assert before == []
    assert spans(windows) == [(1000, 1040, 0), (450 + day_s, 1050 + day_s, 600), (1060, 1120, 0), (1120, 1180, 0)]
    assert [tokens([window]) for window in windows] == [400, 100, 700, 600]
    assert (state.start_s, state.cursor_s) == (1180, 1180)


def test_open_window_of_a_clock_that_was_ahead_keeps_its_amounts_and_none_of_its_time() -> None:
    state, windows = run([(90_000, reading(0)), (90_030, reading(70)), (1000, reading(80)), (1060, reading(85))])
    assert spans(windows) == [(1000, 1060, 0)]
    assert tokens(windows) == 85
    assert state.sources[0].gap_s == 0


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
        series = {**buckets, f"{LATENCY_BUCKET}inf": fast + slow, "failed_task": failed}
        return CounterSample(source="vllm", start_s=None, series={f"{k}{{}}": v for k, v in series.items()})

    _, windows = run([(1000, sample(90, 0, 1)), (1060, sample(90 + 90, 10, 4))])
    assert engine(windows[0]).latency_ms == (300, 2500, 2500)
    assert engine(windows[0]).amount(Unit.FAILED_TASK) == 3


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


def test_more_than_a_record_holds_is_a_failed_reading() -> None:
    state, _ = run([(1000, reading(0)), (1010, reading(COUNT_MAX))])
    observed = observe(state, {ENGINE: said(reading(COUNT_MAX - 1))}, 1020, LIMITS)
    assert "generation_token" in str(observed.refused[ENGINE])
    assert observed.state.sources[0].watched_s is None
    assert observed.state.sources[0].amounts["generation_token"] == COUNT_MAX


def test_sources_share_the_window_and_keep_apart_what_they_count() -> None:
    gpus, second = (Source.NVML.value, 0), (Source.ENGINE.value, 1)

    def energy(mj: int) -> SourceSample:
        counters = CounterSample(source="nvml", start_s=None, series={'energy_mj{uuid="a"}': mj})
        return SourceSample(counters=counters, provenance="nvml 550")

    def at(tokens: int, other: int | None, mj: int) -> dict[tuple[int, int], SourceSample | None]:
        return {ENGINE: said(reading(tokens)), second: other and said(reading(other)), gpus: energy(mj)}

    state = observe(None, at(0, 1, 5), 1000, LIMITS).state
    state = observe(state, at(10, None, 25), 1030, LIMITS).state
    observed = observe(state, at(30, 101, 65), 1060, LIMITS)
    (window,) = observed.windows
    assert [(r.source, r.instance, r.counters, r.gap_s) for r in window.readings] == [
        (Source.ENGINE, 0, ((Unit.GENERATION_TOKEN, 30), (Unit.FAILED_TASK, 0)), 0),
        (Source.ENGINE, 1, ((Unit.GENERATION_TOKEN, 100), (Unit.FAILED_TASK, 0)), 60),
        (Source.NVML, 0, ((Unit.ENERGY_MJ, 60),), 0),
    ]


def test_energy_alone_is_no_work() -> None:
    gpus = (Source.NVML.value, 0)
    state, windows = None, []
    for i in range(21):
        counters = CounterSample(source="nvml", start_s=None, series={"energy_mj{}": 1000 * i})
        sample = SourceSample(counters=counters, provenance="nvml 550")
        observed = observe(state, {gpus: sample}, 1000 + 30 * i, LIMITS)
        state, windows = observed.state, windows + list(observed.windows)
    assert [(w.start_s, w.end_s, w.readings[0].amount(Unit.ENERGY_MJ)) for w in windows] == [(1000, 1600, 20_000)]


def test_source_that_was_taken_out_is_in_its_last_window() -> None:
    second = (Source.ENGINE.value, 1)
    state = observe(None, {ENGINE: said(reading(0)), second: said(reading(0))}, 1000, LIMITS).state
    state = observe(state, {ENGINE: said(reading(5)), second: said(reading(7))}, 1030, LIMITS).state
    observed = observe(state, {ENGINE: said(reading(9))}, 1060, LIMITS)
    assert [r.amount(Unit.GENERATION_TOKEN) for r in observed.windows[0].readings] == [9, 7]
    assert observed.windows[0].readings[1].gap_s == 30
    after = observe(observed.state, {ENGINE: said(reading(9))}, 1090, LIMITS).state
    assert [source.place for source in after.sources] == [ENGINE]


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
        st.one_of(st.integers(1, 30), st.integers(-2000, 5000), st.sampled_from([-90_000, 90_000])),
        st.one_of(st.just("fail"), st.just("restart"), st.just("idle"), st.integers(0, 1000)),
    ),
    max_size=80,
)


@given(moves)
def test_windows_never_overlap_and_hold_every_credited_token(moves: list[tuple[int, str | int]]) -> None:
    now_s, engine_total, credited = 100_000, 0, 0
    state = observe(None, {ENGINE: said(reading(0))}, now_s, LIMITS).state
    all_windows: list[WorkWindow] = []
    free_from_s = 0
    for step_s, event in moves:
        now_s += step_s
        if event == "restart":
            engine_total = 0
        elif isinstance(event, int):
            engine_total += event
            credited += event
        sample = None if event == "fail" else reading(engine_total)
        # A restart of the agent between any two readings changes nothing.
        is_set_back = state.cursor_s - now_s > LIMITS.window_max_s
        observed = observe(decode_state(encode_state(state)), {ENGINE: said(sample)}, now_s, LIMITS)
        state = observed.state
        all_windows += observed.windows
        free_from_s = now_s if is_set_back else free_from_s
        for window in observed.windows:
            assert free_from_s <= window.start_s < window.end_s, "they overlap only where the clock was set back far"
            assert window.end_s - window.start_s <= LIMITS.window_max_s
            assert 0 <= engine(window).gap_s <= window.end_s - window.start_s
            free_from_s = window.end_s
        assert free_from_s <= state.start_s <= state.cursor_s <= now_s + LIMITS.window_max_s
    state, last = close(state)
    all_windows += [last] if last else []
    assert tokens(all_windows) + state.sources[0].amounts.get("generation_token", 0) == credited


def test_engines_whose_urls_change_places_count_nothing_of_one_another() -> None:
    second = (Source.ENGINE.value, 1)

    def at(url: str, tokens: int) -> SourceSample:
        counters = CounterSample(source=f"llamacpp at {url}", start_s=None, series={"generation_token{}": tokens})
        return SourceSample(counters=counters, provenance="llamacpp")

    state = observe(None, {ENGINE: at("a", 1_000_000), second: at("b", 10)}, 1000, LIMITS).state
    state = observe(state, {ENGINE: at("b", 15), second: at("a", 1_000_100)}, 1030, LIMITS).state
    observed = observe(state, {ENGINE: at("b", 20), second: at("a", 1_000_200)}, 1060, LIMITS)
    assert [r.amount(Unit.GENERATION_TOKEN) for r in observed.windows[0].readings] == [5, 100]


def test_a_window_ends_where_evidence_begins_busy_or_idle() -> None:
    parted = replace(LIMITS, parted_s=1021)
    for busy in (0, 1):
        state, windows = None, list[WorkWindow]()
        for i in range(11):
            limits = LIMITS if i < 3 else parted
            observed = observe(state, {ENGINE: said(reading(5 * i * busy))}, 1000 + 10 * i, limits)
            state, windows = observed.state, [*windows, *observed.windows]
        assert [(window.start_s, window.end_s) for window in windows] == [(1000, 1030), (1030, 1090)][: 1 + busy]
        assert tokens(windows) == (45 if busy else 0)
