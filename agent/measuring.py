"""Measuring: reads the sources, turns readings into work windows, and windows into records.

A shell around `agent.meter`. A reading that fails is a gap, never an end. The meter's state and the windows
it closed are made durable together, and a window is struck off together with the record it becomes: after
a crash, each counts once.

A record cannot be taken back, and no other may cover its time: a window enters the log once it is past by the
chain's time. Where the host's clock calls it future, too, that clock was wrong when the window was closed, and
it is dropped; else it waits, as the clock may be wrong now.

Source: METERING, "Counters"; PROTOCOL, "Records".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import trio

from agent.clock_watch import ClockWatch
from agent.errors import AgentError, InvalidSourceError, SourceUnavailableError
from agent.journal import Journal
from agent.ledger import Ledger
from agent.ledger_rows import RawReading
from agent.meter.sources import MeterSource, SourceSample
from agent.meter.work import MeterState, Place, WindowLimits, WorkWindow, decode_state, encode_state, observe
from agent.metrics.registry import Metrics
from agent.pending import Pending, decode_pending, encode_pending
from agent.pulse import Pulse
from agent.tables import MeterTable
from gossip.errors import InvalidMessageError
from gossip.node import Node
from gossip.records import Body, ReceiptBody, Source, Unit, WorkBody

METER = "windows"
"""The journal's name for the meter's state."""
AHEAD_MAX_S = 60
"""A window that ends no farther ahead of a clock is past by it: blocks come late, and peers wait a little, too."""
CLOCK_CHECK_S = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SourceView:
    """How a source stands, for the status; `sample` is its last good reading."""

    sample: SourceSample | None = None
    sampled_s: int | None = None
    error: str | None = None
    restarts: int = 0
    """How often it began to count anew, as far as readings show."""
    restarted_s: int | None = None


@dataclass(slots=True)
class Measured:
    """What was measured since the start, for the status: totals by (source, unit), and how each source stands."""

    windows: int = 0
    latest: WorkWindow | None = None
    """The window that closed last."""
    amounts: dict[tuple[int, int], int] = field(default_factory=dict)
    sources: dict[Place, SourceView] = field(default_factory=dict)

    def error_of(self, source: Source) -> str | None:
        """Why a source of this kind cannot be read, if one cannot."""
        views = (view for place, view in self.sources.items() if place[0] == source)
        return next((view.error for view in views if view.error is not None), None)

    def amount(self, source: Source, units: Iterable[int]) -> int:
        """What sources of this kind counted of these units, together."""
        return sum(self.amounts.get((source, unit), 0) for unit in units)

    def rate(self, source: Source, units: Collection[int]) -> float | None:
        """The same by second, in the window that closed last; None before the first."""
        if self.latest is None:
            return None
        readings = (reading for reading in self.latest.readings if reading.source == source)
        amount = sum(amount for reading in readings for unit, amount in reading.counters if unit in units)
        return round(amount / (self.latest.end_s - self.latest.start_s), 1)


class Measuring:
    """The meter's loop and the queue of windows that wait to become records."""

    def __init__(
        self,
        config: MeterTable,
        window_max_s: int,
        journal: Journal,
        ledger: Ledger,
        metrics: Metrics,
        now_s: Callable[[], int],
    ) -> None:
        self._config = config
        self._limits = WindowLimits(window_s=config.window_s, window_max_s=window_max_s)
        self._journal = journal
        self._ledger = ledger
        self._metrics = metrics
        self._now_s = now_s
        self.clock = ClockWatch()
        self.measured = Measured()
        self._closed = trio.Event()
        self.pulse = Pulse()
        """The daemon's, for whoever watches its loops."""

    async def run(self, sources: Sequence[MeterSource]) -> None:
        """Sample for ever. Cancelled, the open window is kept and goes on at the next start."""
        raw = self._journal.meter(METER)
        state = decode_state(raw) if raw is not None else None
        self.measured.sources = {(source.source.value, source.instance): SourceView() for source in sources}
        self.pulse.beat("measure")
        while True:
            state = await self._sample_once(sources, state)
            await self.pulse.rest("measure", self._config.sample_interval_s)

    def part(self, from_s: int) -> None:
        """Begin a new window at the next reading: evidence holds from `from_s` (Unix seconds) on, as none did before.

        A window that holds something of before is not covered by it, not even in part.
        """
        # Later than all readings so far: a window measured again from them has to end where it did.
        self._limits = replace(self._limits, parted_s=max(from_s, self._now_s() + 1))

    def pending_came(self) -> None:
        """Something else was queued in the journal behind the windows."""
        self._closed.set()

    async def append_windows(
        self, node: Node, evidence: Callable[[int, int], bytes | None], block_time_s: Callable[[], int]
    ) -> None:
        """Turn closed windows, and receipts, into records of the own log. Start it once that log is known.

        `evidence(start_s, end_s)` is the hash of the own evidence record that covers a window, if one does;
        `block_time_s()` is the time of the last block seen (Unix seconds). Cancelled, what waits goes on waiting.
        """
        chain = _ChainTime(block_time_s)
        while True:
            self._closed = trio.Event()
            while (waiting := await trio.to_thread.run_sync(self._journal.next_window)) is not None:
                number, raw = waiting
                item = decode_pending(raw)
                try:
                    if isinstance(item, WorkWindow):
                        await self._require_past(item.end_s, chain)
                    record = await node.append(_body(item, evidence), window=number)
                except (InvalidSourceError, InvalidMessageError) as error:
                    # The log covers this time already (the clock was set back, or a database was restored that lacked
                    # some of it), the window is of a future that is not (above), or no record can hold what waits.
                    log.warning("measured work is dropped: %s", error)
                    self._metrics.windows_lost.inc()
                    await trio.to_thread.run_sync(self._journal.drop_window, number)
                else:
                    await trio.to_thread.run_sync(self._ledger.note_record, record)
            await self._closed.wait()

    async def _require_past(self, end_s: int, chain: _ChainTime) -> None:
        """Return once a window that ends at `end_s` may become a record.

        Raises:
            InvalidSourceError: by this host's clock, too, it is of the future.
        """
        is_said = False
        while end_s - chain.now_s() > AHEAD_MAX_S:
            ahead_s = end_s - self._now_s()
            if ahead_s > AHEAD_MAX_S:
                raise InvalidSourceError(f"its window ends {ahead_s} s from now: the clock was ahead at that time")
            if not is_said:
                log.warning("measured work waits: by the chain's time it is to come; is this host's clock ahead?")
                is_said = True
            await trio.sleep(CLOCK_CHECK_S)

    async def _sample_once(self, sources: Sequence[MeterSource], state: MeterState | None) -> MeterState:
        """Read all sources at once; one that hangs until its own deadline holds up the others no longer than that."""
        now_s = self._now_s()
        self._watch_clock(now_s)
        samples: dict[Place, SourceSample | AgentError] = {}

        async def read(source: MeterSource) -> None:
            try:
                found: SourceSample | AgentError = await source.sample()
            except (SourceUnavailableError, InvalidSourceError) as error:
                found = error
            samples[source.source.value, source.instance] = found

        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(read, source)
        good = {place: found if isinstance(found, SourceSample) else None for place, found in samples.items()}
        observed = observe(state, good, now_s, self._limits)
        for place, found in {**samples, **observed.refused}.items():
            self._note(place, found, now_s)
        self._note_restarts(state, observed.state, now_s)
        closed = [encode_pending(window) for window in observed.windows]
        lost = await trio.to_thread.run_sync(self._journal.keep_meter, METER, encode_state(observed.state), closed)
        if lost:
            self._metrics.windows_lost.inc(lost)
            log.error("%d work windows were lost: the own log could not be written for too long", lost)
        keep = partial(self._ledger.keep_round, before=state, windows=observed.windows, limits=self._limits)
        await trio.to_thread.run_sync(keep, now_s, _raw_readings({**samples, **observed.refused}))
        for window in observed.windows:
            self._count(window)
        if observed.windows:
            self._closed.set()
        return observed.state

    def _note(self, place: Place, found: SourceSample | AgentError, now_s: int) -> None:
        view, name = self.measured.sources.setdefault(place, SourceView()), source_name(place)
        if isinstance(found, AgentError):
            if view.error is None:
                log.warning("%s cannot be read; its time counts as a gap: %s", name, found)
            view.error = str(found)
            self._metrics.source_errors.inc(type(found).__name__)
            return
        if view.error is not None:
            log.info("%s answers again", name)
        for note in found.notes:
            if view.sample is None or note not in view.sample.notes:
                log.warning("%s: %s", name, note)
        if view.sample is not None:
            for gauge in view.sample.gauges.keys() - found.gauges.keys():
                self._metrics.source_reading.forget((name, gauge))
        for gauge, value in found.gauges.items():
            self._metrics.source_reading.set((name, gauge), value)
        view.sample, view.sampled_s, view.error = found, now_s, None

    def _watch_clock(self, now_s: int) -> None:
        step = self.clock.look(now_s, trio.current_time())
        if step is not None:
            self._metrics.clock_steps_back.inc()
            log.error("the clock was set back by %d s: no work counts until it has passed that time again", step.by_s)

    def _note_restarts(self, before: MeterState | None, after: MeterState, now_s: int) -> None:
        segments = {} if before is None else {s.place: s.counters.segment for s in before.sources if s.counters}
        for source in after.sources:
            segment = segments.get(source.place)
            if segment is not None and source.counters is not None and source.counters.segment > segment:
                view, name = self.measured.sources.setdefault(source.place, SourceView()), source_name(source.place)
                view.restarts, view.restarted_s = view.restarts + 1, now_s
                self._metrics.source_restarts.inc(name)
                log.warning("%s began to count anew: what it did after the reading before is lost", name)

    def _count(self, window: WorkWindow) -> None:
        self.measured.windows, self.measured.latest = self.measured.windows + 1, window
        for reading in window.readings:
            self._metrics.gap_seconds.inc(source_name((reading.source, reading.instance)), reading.gap_s)
            for unit, amount in reading.counters:
                of = (reading.source, unit)
                self.measured.amounts[of] = self.measured.amounts.get(of, 0) + amount
                self._metrics.measured.inc(Unit(unit).name.lower(), amount)


class _ChainTime:
    """The time that blocks told, carried on by the monotonic clock: never ahead of the chain, whatever the host's is.

    While the host is suspended it stands still, and falls behind until the next block.
    """

    def __init__(self, block_time_s: Callable[[], int]) -> None:
        self._block_time_s = block_time_s
        self._at_s: float = block_time_s()
        self._since_s = trio.current_time()

    def now_s(self) -> float:
        elapsed_s = trio.current_time() - self._since_s
        self._since_s += elapsed_s
        self._at_s = max(self._at_s + elapsed_s, self._block_time_s())
        return self._at_s


def _body(item: Pending, evidence: Callable[[int, int], bytes | None]) -> Body:
    if isinstance(item, ReceiptBody):
        return item
    return WorkBody(
        start_s=item.start_s,
        end_s=item.end_s,
        readings=item.readings,
        evidence=evidence(item.start_s, item.end_s),
    )


def source_name(place: Place) -> str:
    """What a source is called in logs, metrics and screens: "engine", and "engine-1" for a second one."""
    source, instance = place
    name = Source(source).name.lower()
    return f"{name}-{instance}" if instance else name


def sources_value(measured: Measured) -> list[dict[str, Any]]:
    """How the sources stand, as JSON."""
    return [
        {
            "source": Source(place[0]).name.lower(),
            "instance": place[1],
            "provenance": view.sample.provenance if view.sample is not None else None,
            "sampled_s": view.sampled_s,
            "error": view.error,
            "restarts": view.restarts,
            "restarted_s": view.restarted_s,
            "gauges": dict(view.sample.gauges) if view.sample is not None else {},
            "notes": list(view.sample.notes) if view.sample is not None else [],
        }
        for place, view in sorted(measured.sources.items())
    ]


def _raw_readings(samples: Mapping[Place, SourceSample | AgentError]) -> list[RawReading]:
    """What came of the readings, for the ledger."""
    return [
        RawReading(source=source, instance=instance, error=str(found))
        if isinstance(found, AgentError)
        else RawReading(source=source, instance=instance, sample=found)
        for (source, instance), found in sorted(samples.items())
    ]
