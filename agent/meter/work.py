"""Work windows: from readings of a source to closed, never overlapping stretches of time and what was done in them.

Decides when a window closes and what stands in it. Pure: the state is a value that the journal keeps in the
transaction that keeps the windows, so that a restart neither loses nor repeats a window. `now_s` is the
wall clock, which may step either way.

1. A window starts where the previous one ended, or later; never earlier. It is at most `window_max_s` long.
2. A window closes at the first reading at which it is `window_s` long. Amounts belong to the window in which
   they were read; they are never split or interpolated, so windows end at readings.
3. While nothing happens, the window grows on to `window_max_s`, to keep an idle host's log short. When work
   comes, the idle stretch is closed at the reading before.
4. A second counts as a gap unless a good reading stands at both ends of its interval, in one run of the
   source, at most `window_s` apart. The counters keep what they counted meanwhile; the gap says nobody looked.
5. When the clock steps back, no time is added until it has passed the last accounted second again, and the
   interval in which it does so is a gap. After a hole longer than a window, the hole is in no window.

Source: METERING, "Counters"; PROTOCOL, "Records" (kind 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from agent.errors import ConfigError, InvalidSourceError
from agent.meter.counters import COUNT_MAX, CounterSample, CounterState, Deltas, advance
from agent.meter.engine import (
    GENERATION_TOKENS,
    LATENCY_BUCKET,
    PROMPT_TOKENS,
    REQUESTS_FAILED,
    REQUESTS_FINISHED,
)
from gossip.records import Unit

QUANTILES_PER_MILLE = (500, 950, 990)
_UNITS = {PROMPT_TOKENS: Unit.PROMPT_TOKEN, GENERATION_TOKENS: Unit.GENERATION_TOKEN, REQUESTS_FINISHED: Unit.TASK}
_ENDLESS = "inf"
FAILED_MAX = 2**32 - 1
"""Most failed requests that a work record holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkWindow:
    """Work of [start_s, end_s), Unix seconds. None, or no counter of a unit: not measured, which is not zero.

    `counters` are (unit, amount), ascending by unit; `latency_ms` is (p50, p95, p99), each the upper bound of
    its histogram bucket; `gap_s` of the seconds were not watched.
    """

    start_s: int
    end_s: int
    source: str
    provenance: str
    counters: tuple[tuple[int, int], ...]
    gpu_seconds: int | None
    energy_mj: int | None
    failed: int | None
    latency_ms: tuple[int, int, int] | None
    gap_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLimits:
    """Lengths of windows in seconds; `window_max_s` is the pool policy's."""

    window_s: int = 60
    window_max_s: int = 600

    def __post_init__(self) -> None:
        if not 1 <= self.window_s <= self.window_max_s // 2:
            raise ConfigError(f"engine.window_s: expected 1 to {self.window_max_s // 2}, got {self.window_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterState:
    """A source's counters and its open window [start_s, cursor_s).

    `watched_s` is when the last reading was made if it was good, else None; amounts are what the open window
    holds by counter.
    """

    counters: CounterState | None = None
    start_s: int
    cursor_s: int
    watched_s: int | None = None
    gap_s: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)


def observe(
    state: MeterState | None, sample: CounterSample | None, now_s: int, limits: WindowLimits
) -> tuple[MeterState, tuple[WorkWindow, ...]]:
    """Take the reading made at `now_s` (Unix seconds), or None for one that failed; return what it closed.

    Raises:
        InvalidSourceError: the source shows too many series, or more than a record holds; treat it as a
            failed reading.
    """
    if state is None:
        state = MeterState(start_s=now_s, cursor_s=now_s)
    counters, outcome = advance(state.counters, sample, now_s)
    work = outcome.amounts if isinstance(outcome, Deltas) else {}
    watched = isinstance(outcome, Deltas) and not outcome.reset and state.watched_s == state.cursor_s
    busy = any(work.values())

    state, closed = _make_room(state, now_s, busy, limits)
    interval_s = max(0, now_s - state.cursor_s)
    gap_s = 0 if watched and interval_s <= limits.window_s else interval_s
    state = replace(
        state,
        counters=counters,
        cursor_s=state.cursor_s + interval_s,
        watched_s=None if sample is None else now_s,
        gap_s=state.gap_s + gap_s,
        amounts=_add(state.amounts, work),
    )
    full_s = limits.window_s if any(state.amounts.values()) else limits.window_max_s
    if state.cursor_s - state.start_s >= full_s:
        state, window = close(state)
        closed += (window,) if window else ()
    return state, closed


def close(state: MeterState) -> tuple[MeterState, WorkWindow | None]:
    """Close the open window at the last reading, as before a stop or an epoch's end; None if it is empty."""
    if state.cursor_s == state.start_s:
        return state, None
    if state.counters is None:
        # Nobody has ever answered: there is no source yet in whose name to record a gap.
        return replace(state, start_s=state.cursor_s, gap_s=0), None
    window = WorkWindow(
        start_s=state.start_s,
        end_s=state.cursor_s,
        source="engine",
        provenance=state.counters.source,
        counters=tuple(sorted((u.value, state.amounts[n]) for n, u in _UNITS.items() if n in state.amounts)),
        gpu_seconds=None,
        energy_mj=None,
        failed=state.amounts.get(REQUESTS_FAILED),
        latency_ms=latency_quantiles_ms(state.amounts),
        gap_s=state.gap_s,
    )
    return replace(state, start_s=state.cursor_s, gap_s=0, amounts={}), window


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


def _make_room(
    state: MeterState, now_s: int, busy: bool, limits: WindowLimits
) -> tuple[MeterState, tuple[WorkWindow, ...]]:
    """Close the open window where the interval up to `now_s` must not or need not join it (rules 1, 3, 5)."""
    closed: tuple[WorkWindow, ...] = ()
    idle = not any(state.amounts.values())
    rested = busy and idle and state.cursor_s - state.start_s >= limits.window_s
    if rested or now_s - state.start_s > limits.window_max_s:
        state, window = close(state)
        closed = (window,) if window else ()
    if now_s - state.cursor_s > limits.window_max_s:
        earliest_s = now_s - limits.window_max_s
        state = replace(state, start_s=earliest_s, cursor_s=earliest_s)
    return state, closed


def _add(amounts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    sums = {name: amounts.get(name, 0) + more.get(name, 0) for name in {**amounts, **more}}
    for name, amount in sums.items():
        if amount > (FAILED_MAX if name == REQUESTS_FAILED else COUNT_MAX):
            raise InvalidSourceError(f"{name}: {amount} in one window does not fit a record")
    return sums
