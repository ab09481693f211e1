"""Counters: what two readings credit, and that nothing is ever credited twice."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InvalidSourceError
from agent.meter.counters import (
    COUNT_MAX,
    SERIES_KEPT_MAX,
    SERIES_MAX,
    CounterSample,
    CounterState,
    Deltas,
    Gap,
    advance,
    exact_count,
)


def sample(series: dict[str, int], *, start_s: int | None = None, source: str = "vllm") -> CounterSample:
    return CounterSample(source=source, start_s=start_s, series=series)


def state(series: dict[str, int], *, start_s: int | None = None, read_s: int = 1000) -> CounterState:
    return CounterState(source="vllm", start_s=start_s, segment=0, read_s=read_s, last=series)


@pytest.mark.parametrize("value", [0, 1, 1.0, 1e6, COUNT_MAX, float(COUNT_MAX)])
def test_whole_numbers_are_counts(value: float) -> None:
    assert exact_count("x", value) == value
    assert type(exact_count("x", value)) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5, 0.5, 1e300, COUNT_MAX + 1])
def test_other_values_are_not(value: float) -> None:
    with pytest.raises(InvalidSourceError, match="is not a count"):
        exact_count("x", value)


def test_first_reading_is_a_baseline() -> None:
    after, outcome = advance(None, sample({"a{}": 1_000_000}), 1000)
    assert outcome == Gap("first reading")
    assert after == state({"a{}": 1_000_000})


def test_failed_reading_changes_nothing() -> None:
    before = state({"a{}": 5})
    assert advance(before, None, 1060) == (before, Gap("unreadable"))


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        ({"a{}": 5}, {"a{}": 7}, Deltas({"a": 2}, False)),
        ({"a{}": 5}, {"a{}": 5}, Deltas({"a": 0}, False)),
        ({"a{}": 5}, {"a{}": 3}, Deltas({"a": 3}, True)),
        ({"a{}": 5}, {"a{}": 0}, Deltas({"a": 0}, True)),
        ({"a{}": 5}, {"a{}": 7, "b{}": 4}, Deltas({"a": 2, "b": 4}, False)),
        # Absent is not zero: the counter is not in the deltas at all.
        ({"a{}": 5, "b{}": 4}, {"a{}": 7}, Deltas({"a": 2}, False)),
        # One engine of two restarts: the other's past is not credited again.
        ({"a{e=0}": 1000, "a{e=1}": 1000}, {"a{e=0}": 1000, "a{e=1}": 10}, Deltas({"a": 10}, True)),
    ],
)
def test_deltas_within_one_run(last: dict[str, int], now: dict[str, int], expected: Deltas) -> None:
    assert advance(state(last), sample(now), 1060)[1] == expected


def test_series_that_was_silent_for_a_reading_is_not_credited_again() -> None:
    first, _ = advance(state({"a{}": 5, "b{}": 100}), sample({"a{}": 6}), 1060)
    _, outcome = advance(first, sample({"a{}": 7, "b{}": 101}), 1120)
    assert outcome == Deltas({"a": 1, "b": 1}, False)


def test_new_run_counts_from_zero_even_if_it_has_grown_past_the_last_reading() -> None:
    after, outcome = advance(state({"a{}": 5}, start_s=100), sample({"a{}": 50}, start_s=1010), 1060)
    assert outcome == Deltas({"a": 50}, True)
    assert after is not None
    assert after.segment == 1


def test_process_that_already_ran_at_the_last_reading_is_a_baseline() -> None:
    _, outcome = advance(state({"a{}": 5}, start_s=100), sample({"a{}": 10**9}, start_s=400), 1060)
    assert outcome == Gap("another process answers")


@pytest.mark.parametrize("start_s", [None, 999])
def test_engine_of_another_kind_is_a_baseline(start_s: int | None) -> None:
    _, outcome = advance(state({"a{}": 5}), sample({"a{}": 10**9}, start_s=start_s, source="tgi"), 1060)
    assert outcome == Gap("another process answers")


def test_wandering_start_time_is_no_restart() -> None:
    _, outcome = advance(state({"a{}": 5}, start_s=998), sample({"a{}": 9}, start_s=1000), 1060)
    assert outcome == Deltas({"a": 4}, False)


def test_upgrade_that_renames_labels_counts_the_new_ones_once() -> None:
    # No start time is told: the old series fall silent, and the new ones were not there before.
    before = state({"a{m=1}": 500})
    upgraded, outcome = advance(before, sample({"a{m=1,e=0}": 40}), 1060)
    assert outcome == Deltas({"a": 40}, False)
    assert advance(upgraded, sample({"a{m=1,e=0}": 45}), 1120)[1] == Deltas({"a": 5}, False)


def test_restart_unseen_by_value_and_time_is_credited_too_little_never_too_much() -> None:
    # The new run has done 800 by its first reading, the old one had shown 500.
    assert advance(state({"a{}": 500}), sample({"a{}": 800}), 1060)[1] == Deltas({"a": 300}, False)


@pytest.mark.parametrize(
    ("start_s", "expected"), [(1000, Deltas({"a": 9}, True)), (999, Gap("another process answers"))]
)
def test_run_that_began_before_the_last_reading_by_a_clock_set_back_is_a_baseline(
    start_s: int, expected: Deltas | Gap
) -> None:
    assert advance(state({"a{}": 5}, start_s=100), sample({"a{}": 9}, start_s=start_s), 1060)[1] == expected


def test_series_of_a_reading_are_bounded() -> None:
    with pytest.raises(InvalidSourceError, match="series"):
        advance(state({}), sample({f"a{{i={i}}}": 1 for i in range(SERIES_MAX + 1)}), 1060)


def test_silent_series_are_remembered_until_there_are_too_many() -> None:
    kept = state({f"a{{i={i}}}": 5 for i in range(SERIES_KEPT_MAX - 1)})
    kept, outcome = advance(kept, sample({"a{i=new}": 1}), 1060)
    assert outcome == Deltas({"a": 1}, False)
    assert advance(kept, sample({"a{i=0}": 7}), 1120)[1] == Deltas({"a": 2}, False)
    forgotten, outcome = advance(kept, sample({"a{i=newer}": 3}), 1120)
    assert outcome == Deltas({"a": 3}, False)
    assert forgotten is not None
    assert forgotten.last == {"a{i=newer}": 3}


@dataclass
class SimulatedEngine:
    """An engine of several series; it knows how much of its work a careful reader can know of."""

    tells_start: bool
    now_s: int = 1000
    start_s: int = 500
    run: dict[str, int] = field(default_factory=dict)
    unread: int = 0
    read_before: bool = False
    lost: int = 0
    total: int = 0

    def work(self, series: str, amount: int) -> None:
        self.run[series] = self.run.get(series, 0) + amount
        self.unread += amount
        self.total += amount

    def restart(self) -> None:
        self.lost += self.unread
        self.unread = 0
        self.run = {}
        self.start_s = self.now_s

    def read(self) -> CounterSample:
        if not self.read_before:
            self.read_before = True
            self.lost += self.unread
        self.unread = 0
        return sample(dict(self.run), start_s=self.start_s if self.tells_start else None)


events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["t{e=0}", "t{e=1}", "t{e=0,r=stop}"]), st.integers(0, 10**6)),
        st.sampled_from(["restart", "read", "fail"]),
    ),
    max_size=60,
)


def credit(engine: SimulatedEngine, happenings: list[tuple[str, int] | str]) -> int:
    reader: CounterState | None = None
    credited = 0
    for happening in [*happenings, "read"]:
        engine.now_s += 5
        match happening:
            case "restart":
                engine.restart()
            case "fail":
                reader, _ = advance(reader, None, engine.now_s)
            case "read":
                reader, outcome = advance(reader, engine.read(), engine.now_s)
                credited += sum(outcome.amounts.values()) if isinstance(outcome, Deltas) else 0
            case (series, amount):
                engine.work(series, amount)
    return credited


@given(events)
def test_credited_is_all_but_what_fell_in_unread_ends_of_runs(happenings: list[tuple[str, int] | str]) -> None:
    engine = SimulatedEngine(tells_start=True)
    assert credit(engine, happenings) == engine.total - engine.lost


@given(events)
def test_without_start_times_never_more_than_that(happenings: list[tuple[str, int] | str]) -> None:
    engine = SimulatedEngine(tells_start=False)
    assert credit(engine, happenings) <= engine.total - engine.lost
