"""Measuring a window again, from the raw readings that the ledger kept. Pure.

Decides nothing anew: `agent.meter.work` and `agent.meter.counters` are given the same state and readings as they were
then, and give the same window; if they do not, the record is not what was measured (or the ledger is not what it was).

1. Rounds are taken from the anchor on, up to the one that closed the window. The first one closed the window before.
2. A reading belongs to the window in which it was taken; the one that wakes an idle host is in the next window.
3. To tell what each series counted, every series is given to the counters as one of its own.

Source: METERING, "Counters".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.errors import InvalidSourceError
from agent.ledger_rows import RawReading, Round, WindowRow
from agent.meter.counters import CounterSample, CounterState, Deltas, Gap, advance
from agent.meter.sources import SourceSample
from agent.meter.work import MeterState, Place, WorkWindow, observe

_MASK = "\x00"
"""In place of the bracket before a series' labels: then nothing is summed over them (rule 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChange:
    """A series over the window: its values at both ends (None: not read yet) and what was counted of it."""

    series: str
    first: int | None
    last: int
    counted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What happened at a reading made at `time_s`: it failed, another process answered, its run began anew."""

    time_s: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAgain:
    """What one source said during the window.

    The values at its ends were read at `first_s`, at or before its start, and `last_s`; None: there is no such reading.
    """

    source: int
    instance: int
    readings: int
    failed: int
    first_s: int | None
    last_s: int | None
    series: tuple[SeriesChange, ...]
    incidents: tuple[Incident, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A window measured again; `window` is None if the readings give none of this time.

    `is_carried`: it was open already when the agent was started, and `sources` tell what came after.
    """

    window: WorkWindow | None
    is_carried: bool
    sources: tuple[SourceAgain, ...]


def measure_again(anchor: MeterState | None, rounds: Iterable[Round], row: WindowRow) -> Again:
    """Measure the window of `row` again; `anchor` is the state before the first of `rounds` (rule 1)."""
    wanted, state = row.window, anchor
    steps: dict[Place, _Steps] = {}
    is_carried = False
    for i, each in enumerate(rounds):
        samples = {(reading.source, reading.instance): reading.sample for reading in each.readings}
        before = {} if state is None else {source.place: source.counters for source in state.sources}
        observed = observe(state, samples, each.time_s, row.limits)
        state = observed.state
        found = next((window for window in observed.windows if window.start_s == wanted.start_s), None)
        if i == 0 and anchor is not None and not _is_empty(anchor):
            # The first round closes the window before, or else the agent was started while this one was open.
            is_carried = not observed.windows or observed.windows[0] is found
        is_in_closed = bool(observed.windows) and _is_empty(state)
        if found is None and observed.windows and is_in_closed:
            continue  # it closed another window, and is in that one
        if found is None or (is_in_closed and found is observed.windows[-1]):
            for reading in each.readings:
                place = (reading.source, reading.instance)
                steps.setdefault(place, _Steps()).take(before.get(place), reading, each.time_s)
        if found is not None:
            return Again(window=found, is_carried=is_carried, sources=_sources(steps))
    return Again(window=None, is_carried=is_carried, sources=_sources(steps))


def _is_empty(state: MeterState) -> bool:
    """Whether the open window has just begun: a reading that closed one is in that one, not in this (rule 2)."""
    return state.start_s == state.cursor_s and not any(source.amounts for source in state.sources)


@dataclass(slots=True)
class _Steps:
    """One source's readings in the window, added up."""

    readings: int = 0
    failed: int = 0
    first_s: int | None = None
    last_s: int | None = None
    first: Mapping[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)

    def take(self, before: CounterState | None, reading: RawReading, time_s: int) -> None:
        """Take the next reading; `before` is the state of the counters that it met."""
        if self.readings == 0 and before is not None:
            self.first_s, self.first = before.read_s, before.last
        self.readings += 1
        try:
            _, outcome = advance(_masked_state(before), _masked(reading.sample), time_s)
        except InvalidSourceError as error:
            outcome = Gap(str(error))
        if isinstance(outcome, Gap):
            self.failed += reading.sample is None
            self.incidents.append(Incident(time_s=time_s, what=reading.error or outcome.reason))
        else:
            self._count(outcome, time_s)
        if reading.sample is not None:
            self.last_s = time_s
            self.last.update(reading.sample.counters.series)

    def _count(self, deltas: Deltas, time_s: int) -> None:
        for masked, amount in deltas.amounts.items():
            series = masked.replace(_MASK, "{", 1)
            self.counted[series] = self.counted.get(series, 0) + amount
        if deltas.reset:
            self.incidents.append(Incident(time_s=time_s, what="the counters began anew"))

    def changes(self) -> tuple[SeriesChange, ...]:
        return tuple(
            SeriesChange(series=name, first=self.first.get(name), last=last, counted=self.counted.get(name, 0))
            for name, last in sorted(self.last.items())
        )


def _masked(sample: SourceSample | None) -> CounterSample | None:
    if sample is None:
        return None
    return replace(sample.counters, series=_masked_names(sample.counters.series))


def _masked_state(state: CounterState | None) -> CounterState | None:
    return None if state is None else replace(state, last=_masked_names(state.last))


def _masked_names(series: Mapping[str, int]) -> dict[str, int]:
    return {name.replace("{", _MASK, 1): value for name, value in series.items()}


def _sources(steps: Mapping[Place, _Steps]) -> tuple[SourceAgain, ...]:
    return tuple(
        SourceAgain(
            source=place[0],
            instance=place[1],
            readings=each.readings,
            failed=each.failed,
            first_s=each.first_s,
            last_s=each.last_s,
            series=each.changes(),
            incidents=tuple(each.incidents),
        )
        for place, each in sorted(steps.items())
    )
