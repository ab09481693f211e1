"""The measuring shell: readings become durable windows, windows become records, each exactly once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from pool_fixture import POOL, START_S, key
from trio.testing import MockClock

import agent.measuring
from agent.errors import SourceUnavailableError
from agent.journal import Journal, create_journal, open_journal
from agent.measuring import Measuring
from agent.meter.counters import CounterSample
from agent.meter.engine import EngineSample
from agent.metrics import Metrics
from agent.tables import EngineTable
from gossip.errors import InvalidMessageError
from gossip.records import Unit, WorkBody

WINDOW_S = 10


class Engine:
    """Counts 100 prompt tokens a second; `is_down` makes it refuse."""

    def __init__(self) -> None:
        self.is_down = False

    async def scrape(self, _client: Any, _url: str) -> EngineSample:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise SourceUnavailableError("refused")
        series = {"prompt_tokens": 100 * int(trio.current_time())}
        return EngineSample(
            counters=CounterSample(source="vllm", start_s=START_S - 5, series=series), running=1, waiting=0
        )


class Log:
    """The part of a node that takes windows: remembers bodies, strikes windows off as the journal does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.bodies: list[WorkBody] = []
        self.refuses_before_s = 0
        self.crashes = False

    async def append(self, body: WorkBody, *, window: int) -> None:
        if self.crashes:
            raise RuntimeError("power cut")
        if body.start_s < self.refuses_before_s:
            raise InvalidMessageError("work: the window starts before the previous one ended")
        self.bodies.append(body)
        self.journal.drop_window(window)


async def inline(function: Any, *arguments: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(agent.measuring, "scrape", engine.scrape)
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    return engine


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    yield journal
    journal.close()


def measuring_of(journal: Journal) -> Measuring:
    table = EngineTable(url="http://127.0.0.1:1/metrics", sample_interval_s=1.0, window_s=WINDOW_S)
    return Measuring(
        table, 600, journal, Metrics(version="0", process=False), lambda: START_S + int(trio.current_time())
    )


async def run_for(seconds: float, *tasks: Any) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)


async def test_windows_wait_in_the_journal_and_become_records_once(
    engine: Engine, journal: Journal, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal), Log(journal)
    await run_for(45, measuring.run)
    waiting = journal.windows_waiting()
    assert waiting == 4
    await run_for(1, lambda: measuring.append_windows(log, lambda start, end: b"e" * 32))
    assert journal.windows_waiting() == 0
    assert len(log.bodies) == waiting
    assert all(body.evidence == b"e" * 32 for body in log.bodies)
    spans = [(body.start_s, body.end_s) for body in log.bodies]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    counted = sum(dict(body.counters).get(Unit.PROMPT_TOKEN, 0) for body in log.bodies)
    assert counted == 100 * (spans[-1][1] - spans[0][0])


async def test_a_crash_before_the_record_is_durable_loses_no_window(
    engine: Engine, journal: Journal, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal), Log(journal)
    await run_for(25, measuring.run)
    log.crashes = True
    with pytest.raises(RuntimeError):
        await measuring.append_windows(log, lambda start, end: None)
    assert journal.windows_waiting() == 2
    log.crashes = False
    again = measuring_of(journal)  # the process that starts after the crash
    await run_for(25, again.run, lambda: again.append_windows(log, lambda start, end: None))
    spans = [(body.start_s, body.end_s) for body in log.bodies]
    assert len(spans) >= 4
    assert spans == sorted(set(spans))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


async def test_a_window_that_the_log_covers_already_is_dropped(
    engine: Engine, journal: Journal, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal), Log(journal)
    await run_for(35, measuring.run)
    log.refuses_before_s = START_S + 15
    await run_for(1, lambda: measuring.append_windows(log, lambda start, end: None))
    assert journal.windows_waiting() == 0
    assert log.bodies
    assert all(body.start_s >= log.refuses_before_s for body in log.bodies)


async def test_an_engine_that_is_down_is_a_gap_and_says_so(
    engine: Engine, journal: Journal, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal), Log(journal)
    await run_for(12, measuring.run)
    engine.is_down = True
    again = measuring_of(journal)
    await run_for(20, again.run)
    assert again.measured.error == "refused"
    engine.is_down = False
    more = measuring_of(journal)
    await run_for(20, more.run, lambda: more.append_windows(log, lambda start, end: None))
    assert more.measured.error is None
    assert sum(body.gap_s for body in log.bodies) >= 20
