"""Work windows: from readings of sources to closed, never overlapping stretches of time and what was done in them.

Decides when a window closes and what stands in it. Pure: the state is a value that the journal keeps in the
transaction that keeps the windows, so that a restart neither loses nor repeats a window. `now_s` is the
wall clock, which may step either way.

1. A window starts where the previous one ended, or later; earlier only by rule 6. It is at most `window_max_s` long.
2. A window closes at the first reading at which it is `window_s` long. Amounts belong to the window in which
   they were read; they are never split or interpolated, so windows end at readings.
3. While nothing happens, the window grows on to `window_max_s`, to keep an idle host's log short. When work
   comes, the idle stretch is closed at the reading before. A GPU that burns energy is no work.
4. All sources are read at the same moments and share the window; what each counted stays apart. A second counts as
   a gap of a source unless a good reading of it stands at both ends of its interval, in one run of the source, at
   most `window_s` apart. The counters keep what they counted meanwhile; the gap says nobody looked.
5. When the clock steps back, no time is added until it has passed the last accounted second again, and the
   interval in which it does so is a gap. After a hole longer than a window, the hole is in no window.
6. When the clock is more than `window_max_s` behind that second, it was wrong then or is wrong now. The window begins
   anew at the reading, with the amounts that it holds and none of its time. What was closed meanwhile may cover
   time that is still to come: `agent.measuring` sees to it that no such window enters the log.
7. A source that was taken out of the settings is in its last window with what was read of it, then gone.
8. A window that began before `parted_s` ends at the first reading from then on, however short: so what was done before
   the host's evidence, which counts nothing, takes nothing of what came after with it.

Source: METERING, "Counters"; PROTOCOL, "Records" (kind 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import msgspec

from agent.errors import ConfigError, InvalidSourceError
from agent.meter.counters import COUNT_MAX, CounterState, Deltas, Gap, advance
from agent.meter.engine import LATENCY_BUCKET
from agent.meter.sources import SourceSample
from gossip.records import SourceWork, Unit

QUANTILES_PER_MILLE = (500, 950, 990)
UNITS: Mapping[str, Unit] = {unit.name.lower(): unit for unit in Unit}
"""What a source's counter of this name counts."""
_PASSIVE = frozenset({"gpu_busy_ms", "energy_mj"})
"""What goes on while nobody works."""
_ENDLESS = "inf"

Place: TypeAlias = tuple[int, int]
"""(source, instance)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkWindow:
    """Work of [start_s, end_s), Unix seconds, by source: as in a record, which it becomes."""

    start_s: int
    end_s: int
    readings: tuple[SourceWork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLimits:
    """Lengths of windows in seconds; `window_max_s` is the pool policy's. `parted_s` (Unix seconds): rule 8."""

    window_s: int = 60
    window_max_s: int = 600
    parted_s: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.window_s <= self.window_max_s // 2:
            half = "half of the policy's work.window_max_s"
            raise ConfigError(f"meter.window_s: expected 1 to {self.window_max_s // 2} ({half}), not {self.window_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source's counters, and what the open window has of it.

    `watched_s` is when the last reading was made if it was good, else None; `amounts` are by counter.
    """

    source: int
    instance: int
    provenance: str = ""
    counters: CounterState | None = None
    watched_s: int | None = None
    gap_s: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        return self.source, self.instance

    @property
    def is_busy(self) -> bool:
        return any(amount for name, amount in self.amounts.items() if name not in _PASSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterState:
    """The open window [start_s, cursor_s), and the sources, ascending."""

    start_s: int
    cursor_s: int
    sources: tuple[SourceState, ...] = ()

    @property
    def is_busy(self) -> bool:
        return any(source.is_busy for source in self.sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What became of a round of readings; `refused` are those that were treated as failed, and why."""

    state: MeterState
    windows: tuple[WorkWindow, ...]
    refused: Mapping[Place, InvalidSourceError]


def observe(
    state: MeterState | None, samples: Mapping[Place, SourceSample | None], now_s: int, limits: WindowLimits
) -> Observed:
    """Take the readings made at `now_s` (Unix seconds) of every source that is set; None for one that failed."""
    if state is None:
        state = MeterState(start_s=now_s, cursor_s=now_s)
    if state.cursor_s - now_s > limits.window_max_s:
        timeless = tuple(replace(source, watched_s=None, gap_s=0) for source in state.sources)
        state = replace(state, start_s=now_s, cursor_s=now_s, sources=timeless)
    known = {source.place: source for source in state.sources}
    refused: dict[Place, InvalidSourceError] = {}
    moved = {}
    for place in sorted({*known, *samples}):
        before = known.get(place) or SourceState(source=place[0], instance=place[1])
        try:
            moved[place] = _move(before, samples.get(place), now_s, state.cursor_s)
        except InvalidSourceError as error:
            refused[place] = error
            moved[place] = _move(before, None, now_s, state.cursor_s)
    comes_work = any(step.is_busy for step in moved.values())

    state, closed = _make_room(state, now_s, comes_work, limits)
    interval_s = max(0, now_s - state.cursor_s)
    open_ = {source.place: source for source in state.sources}
    state = replace(
        state,
        cursor_s=state.cursor_s + interval_s,
        sources=tuple(
            _join(open_.get(place), step, interval_s, limits)
            for place, step in moved.items()
            if place in samples or open_[place].amounts
        ),
    )
    full_s = limits.window_s if state.is_busy else limits.window_max_s
    is_parted = limits.parted_s is not None and state.start_s < limits.parted_s <= state.cursor_s
    if is_parted or state.cursor_s - state.start_s >= full_s:
        state, window = close(state)
        closed += (window,) if window else ()
    return Observed(state=state, windows=closed, refused=refused)


def close(state: MeterState) -> tuple[MeterState, WorkWindow | None]:
    """Close the open window at the last reading, as before a stop or an epoch's end; None if it is empty."""
    if state.cursor_s == state.start_s:
        return state, None
    emptied = tuple(replace(source, gap_s=0, amounts={}) for source in state.sources)
    readings = tuple(_reading(source) for source in state.sources if source.counters is not None)
    if not readings:
        # Nobody has ever answered: there is no source yet in whose name to record a gap.
        return replace(state, start_s=state.cursor_s, sources=emptied), None
    window = WorkWindow(start_s=state.start_s, end_s=state.cursor_s, readings=readings)
    return replace(state, start_s=state.cursor_s, sources=emptied), window


def latency_quantiles_ms(amounts: Mapping[str, int]) -> tuple[int, int, int] | None:
    """p50, p95 and p99 in milliseconds, from cumulative bucket counts; None if no request is among them.

    A quantile is the upper bound of the bucket in which it lies, as no bucket tells more; beyond the last
    bound it is that bound, as in Prometheus.
    """
    counts = {name.removeprefix(LATENCY_BUCKET): n for name, n in amounts.items() if name.startswith(LATENCY_BUCKET)}
    total = counts.pop(_ENDLESS, 0)
    bounds = sorted((int(bound), count) for bound, count in counts.items())
    if total == 0 or not bounds:
        return None

    def quantile(per_mille: int) -> int:
        within = (bound for bound, count in bounds if count * 1000 >= total * per_mille)
        return -(-next(within, bounds[-1][0]) // 1000)

    p50, p95, p99 = (quantile(per_mille) for per_mille in QUANTILES_PER_MILLE)
    return p50, p95, p99


def encode_state(state: MeterState) -> bytes:
    """The journal's form of a state."""
    return msgspec.json.encode(state)


def decode_state(raw: bytes) -> MeterState:
    """Read a state that `encode_state` wrote.

    Raises:
        InvalidSourceError: it is not one: the journal is damaged, or of another version.
    """
    try:
        return msgspec.json.decode(raw, type=MeterState)
    except msgspec.DecodeError as error:
        raise InvalidSourceError(f"meter state: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A source after a reading, what it counted since the one before, and whether the time between was watched."""

    after: SourceState
    work: Mapping[str, int]
    is_watched: bool

    @property
    def is_busy(self) -> bool:
        return any(amount for name, amount in self.work.items() if name not in _PASSIVE)


def _move(before: SourceState, sample: SourceSample | None, now_s: int, cursor_s: int) -> _Step:
    """Take one reading; what the open window holds of the source is left as it was.

    Raises:
        InvalidSourceError: too many series, or more than a record holds.
    """
    counters, outcome = advance(before.counters, None if sample is None else sample.counters, now_s)
    work = {} if isinstance(outcome, Gap) else outcome.amounts
    for name, amount in _add(before.amounts, work).items():
        if amount > COUNT_MAX:
            raise InvalidSourceError(f"{name}: {amount} in one window does not fit a record")
    after = replace(
        before,
        counters=counters,
        provenance=before.provenance if sample is None else sample.provenance,
        watched_s=None if sample is None else now_s,
    )
    is_watched = isinstance(outcome, Deltas) and not outcome.reset and before.watched_s == cursor_s
    return _Step(after=after, work=work, is_watched=is_watched)


def _join(open_: SourceState | None, step: _Step, interval_s: int, limits: WindowLimits) -> SourceState:
    """The source with the interval up to its reading in the open window, which holds `open_` of it so far."""
    gap_s = 0 if step.is_watched and interval_s <= limits.window_s else interval_s
    if open_ is None:
        return replace(step.after, gap_s=gap_s, amounts=dict(step.work))
    return replace(step.after, gap_s=open_.gap_s + gap_s, amounts=_add(open_.amounts, step.work))


def _reading(source: SourceState) -> SourceWork:
    counted = ((UNITS[name].value, amount) for name, amount in source.amounts.items() if name in UNITS)
    return SourceWork(
        source=source.source,
        instance=source.instance,
        provenance=source.provenance,
        counters=tuple(sorted(counted)),
        latency_ms=latency_quantiles_ms(source.amounts),
        gap_s=source.gap_s,
    )


def _make_room(
    state: MeterState, now_s: int, comes_work: bool, limits: WindowLimits
) -> tuple[MeterState, tuple[WorkWindow, ...]]:
    """Close the open window where the interval up to `now_s` must not or need not join it (rules 1, 3, 5)."""
    closed: tuple[WorkWindow, ...] = ()
    rested = comes_work and not state.is_busy and state.cursor_s - state.start_s >= limits.window_s
    if rested or now_s - state.start_s > limits.window_max_s:
        state, window = close(state)
        closed = (window,) if window else ()
    if now_s - state.cursor_s > limits.window_max_s:
        earliest_s = now_s - limits.window_max_s
        state = replace(state, start_s=earliest_s, cursor_s=earliest_s)
    return state, closed


def _add(amounts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: amounts.get(name, 0) + more.get(name, 0) for name in {**amounts, **more}}
