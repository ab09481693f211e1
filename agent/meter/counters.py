"""Monotone counters of a source that may restart: from two readings to what was counted between them.

Decides how much of a reading is credited. The readings are what a process on this host said: already
bounded by their parser, but free to jump, vanish and start over. Pure; the state is what the journal keeps.

1. The first reading of a source is a baseline: what it counted before anyone looked is not credited.
2. Within one run of the source a counter credits its increase. One that decreased starts a new segment
   and credits its new value, counted from 0. One that was not there before credits its value. A sum over labels
   that decreased credits nothing: maybe some of what it stands for began anew, and the others' past is in it still.
3. The source's start time tells runs apart better than values do: a run that began after the last
   reading credits every value from 0, even those that have grown past the last reading already.
4. A run that began before the last reading, yet is not the run read then, is another process, which
   counted for someone else: a new baseline.
5. What was counted between the last reading of a run and its end is lost. Nothing is interpolated.
6. Absent is not zero: a counter that was not read is not in the deltas.
7. A series that fell silent is remembered, as it may speak again; when too many are, the silent ones are forgotten.

Counters are kept per series (one set of labels) and summed afterwards: summing first would take the
restart of one engine of several for a restart of all, and credit the others' past again.

Source: METERING, "Counters".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import InvalidSourceError

COUNT_MAX = 2**48 - 1
"""The most that a work record holds of one unit; a float still holds every integer below it."""
SERIES_MAX = 1024
"""Of one reading."""
SERIES_KEPT_MAX = 2 * SERIES_MAX
"""Silent ones included, which labels leave behind that change with every upgrade."""
SERIES_NAME_MAX = 512
SUMMED = "{*}"
"""In place of the labels: the series is a sum over them."""
_START_TOLERANCE_S = 2
"""Sources that derive their start time from the uptime at every scrape wander by about a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSample:
    """One reading. `series` is `counter{labels}` -> count in [0, COUNT_MAX]; `start_s` is None if not told."""

    source: str
    start_s: int | None
    series: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterState:
    """The last reading, when it was (`read_s`, Unix seconds), and how often the source began anew."""

    source: str
    start_s: int | None
    segment: int
    read_s: int
    last: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Deltas:
    """What each counter counted since the last reading. `reset`: its run began in between (rule 5)."""

    amounts: Mapping[str, int]
    reset: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Nothing can be said about the time since the last reading."""

    reason: str


def advance(
    state: CounterState | None, sample: CounterSample | None, now_s: int
) -> tuple[CounterState | None, Deltas | Gap]:
    """Take one reading made at `now_s` (Unix seconds); `sample` is None if the source could not be read.

    Raises:
        InvalidSourceError: the reading has more series than `SERIES_MAX`.
    """
    if sample is None:
        return state, Gap("unreadable")
    if len(sample.series) > SERIES_MAX:
        raise InvalidSourceError(f"{sample.source}: more than {SERIES_MAX} series")
    if state is None:
        return _state_of(sample, 0, now_s), Gap("first reading")
    match _run(state, sample):
        case "other":
            return _state_of(sample, state.segment + 1, now_s), Gap("another process answers")
        case "new":
            return _state_of(sample, state.segment + 1, now_s), Deltas(_by_counter(sample.series), True)
        case _:
            return _continue(state, sample, now_s)


def exact_count(name: str, value: float) -> int:
    """Turn an exposition's value into the count that it stands for.

    Raises:
        InvalidSourceError: not a whole number in [0, COUNT_MAX]: NaN, infinite, negative, fractional, huge.
    """
    if not 0 <= value <= COUNT_MAX or value != int(value):
        raise InvalidSourceError(f"{name}: {value!r:.40} is not a count")
    return int(value)


def _run(state: CounterState, sample: CounterSample) -> str:
    """Whether the sample is of the `same` run as the state, of a `new` one or of an `other` (rules 2 to 4)."""
    known = sample.source == state.source
    start_s = sample.start_s
    if known and start_s is None:
        return "same"
    if known and start_s is not None and state.start_s is not None:
        wander_s = abs(start_s - state.start_s)
        if wander_s <= _START_TOLERANCE_S:
            return "same"
    if start_s is not None and start_s >= state.read_s:
        return "new"
    return "same" if known and state.start_s is None else "other"


def _continue(state: CounterState, sample: CounterSample, now_s: int) -> tuple[CounterState, Deltas]:
    increases = {}
    reset = False
    for series, value in sample.series.items():
        before = state.last.get(series, 0)
        fell = value < before
        increases[series] = value - before if not fell else 0 if series.endswith(SUMMED) else value
        reset |= fell
    # A series that is silent now may speak again: only its last value tells what it adds then.
    last = {**state.last, **sample.series}
    if len(last) > SERIES_KEPT_MAX:
        last = dict(sample.series)
    segment = state.segment + reset
    start_s = state.start_s if sample.start_s is None else sample.start_s
    after = CounterState(source=state.source, start_s=start_s, segment=segment, read_s=now_s, last=last)
    return after, Deltas(_by_counter(increases), reset)


def _state_of(sample: CounterSample, segment: int, now_s: int) -> CounterState:
    return CounterState(
        source=sample.source,
        start_s=sample.start_s,
        segment=segment,
        read_s=now_s,
        last=dict(sample.series),
    )


def _by_counter(series: Mapping[str, int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, amount in series.items():
        counter, _, _ = name.partition("{")
        sums[counter] = sums.get(counter, 0) + amount
    return sums
