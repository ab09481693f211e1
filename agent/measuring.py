"""Measuring: reads the inference engine, turns readings into work windows, and windows into records.

A shell around `agent.meter`. A reading that fails is a gap, never an end. The meter's state and the windows
it closed are made durable together, and a window is struck off together with the record it becomes: after
a crash, each counts once.

Source: METERING, "Counters"; PROTOCOL, "Records".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import msgspec
import trio

from agent.errors import AgentError, InvalidSourceError, SourceUnavailableError
from agent.journal import Journal
from agent.meter.counters import CounterSample
from agent.meter.engine import EngineSample, scrape
from agent.meter.work import MeterState, WindowLimits, WorkWindow, decode_state, encode_state, observe
from agent.metrics import Metrics
from agent.tables import EngineTable
from gossip.errors import InvalidMessageError
from gossip.node import Node
from gossip.records import Unit, WorkBody

SOURCE = "engine"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Measured:
    """What was measured since the start, for the status: totals by unit, last reading, last error."""

    tokens: int = 0
    tasks: int = 0
    windows: int = 0
    sampled_s: int | None = None
    error: str | None = None


class Measuring:
    """The meter's loop and the queue of windows that wait to become records."""

    def __init__(
        self,
        config: EngineTable,
        window_max_s: int,
        journal: Journal,
        metrics: Metrics,
        now_s: Callable[[], int],
    ) -> None:
        self._config = config
        self._limits = WindowLimits(window_s=config.window_s, window_max_s=window_max_s)
        self._journal = journal
        self._metrics = metrics
        self._now_s = now_s
        self.measured = Measured()
        self._closed = trio.Event()
        self.advanced_s = float("inf")
        """When the loop last came round (trio time); infinite before it started."""

    async def run(self) -> None:
        """Sample for ever. Cancelled, the open window is kept and goes on at the next start."""
        raw = self._journal.meter(SOURCE)
        state = decode_state(raw) if raw is not None else None
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                state = await self._sample_once(client, state)
                self._metrics.loop_advanced.set("measure", self._now_s())
                self.advanced_s = trio.current_time()
                await trio.sleep(self._config.sample_interval_s)

    async def append_windows(self, node: Node, evidence: Callable[[int, int], bytes | None]) -> None:
        """Turn closed windows into records of the own log, as they come. Start it once that log is known.

        `evidence(start_s, end_s)` is the hash of the own evidence record that covers a window, if one does.
        """
        while True:
            self._closed = trio.Event()
            while (waiting := await trio.to_thread.run_sync(self._journal.next_window)) is not None:
                number, raw = waiting
                window = msgspec.json.decode(raw, type=WorkWindow)
                try:
                    await node.append(_work_body(window, evidence(window.start_s, window.end_s)), window=number)
                except InvalidMessageError as error:
                    # A database that was restored: the log that peers know covers this time already.
                    log.warning("a window of %d s is dropped: %s", window.end_s - window.start_s, error)
                    await trio.to_thread.run_sync(self._journal.drop_window, number)
            await self._closed.wait()

    async def _sample_once(self, client: httpx.AsyncClient, state: MeterState | None) -> MeterState:
        now_s = self._now_s()
        sample: CounterSample | None = None
        try:
            reading = await scrape(client, self._config.url)
        except (SourceUnavailableError, InvalidSourceError) as error:
            self._failed(error)
        else:
            sample = reading.counters
            self._succeeded(reading, now_s)
        try:
            state, windows = observe(state, sample, now_s, self._limits)
        except InvalidSourceError as error:
            self._failed(error)
            state, windows = observe(state, None, now_s, self._limits)
        closed = [msgspec.json.encode(window) for window in windows]
        lost = await trio.to_thread.run_sync(self._journal.keep_meter, SOURCE, encode_state(state), closed)
        if lost:
            log.error("%d work windows were lost: the own log could not be written for too long", lost)
        for window in windows:
            self._count(window)
        if windows:
            self._closed.set()
        return state

    def _failed(self, error: AgentError) -> None:
        if self.measured.error is None:
            log.warning("the engine cannot be read; its time counts as a gap: %s", error)
        self.measured.error = str(error)
        self._metrics.source_errors.inc(type(error).__name__)

    def _succeeded(self, reading: EngineSample, now_s: int) -> None:
        if self.measured.error is not None:
            log.info("the engine answers again")
        self.measured.error, self.measured.sampled_s = None, now_s
        if reading.running is not None:
            self._metrics.requests_running.set(reading.running)
        if reading.waiting is not None:
            self._metrics.requests_waiting.set(reading.waiting)

    def _count(self, window: WorkWindow) -> None:
        amounts = dict(window.counters)
        self.measured.windows += 1
        self.measured.tokens += sum(amounts.get(u, 0) for u in (Unit.PROMPT_TOKEN, Unit.GENERATION_TOKEN))
        self.measured.tasks += amounts.get(Unit.TASK, 0)
        for unit, amount in window.counters:
            self._metrics.measured.inc(Unit(unit).name.lower(), amount)
        self._metrics.gap_seconds.inc(window.gap_s)


def _work_body(window: WorkWindow, evidence: bytes | None) -> WorkBody:
    return WorkBody(
        start_s=window.start_s,
        end_s=window.end_s,
        source=window.source,
        provenance=window.provenance,
        counters=window.counters,
        gpu_seconds=window.gpu_seconds,
        energy_mj=window.energy_mj,
        failed=window.failed,
        latency_ms=window.latency_ms,
        gap_s=window.gap_s,
        evidence=evidence,
    )
