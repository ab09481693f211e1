"""The measuring shell: readings become durable windows, windows become records, each exactly once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from pool_fixture import POOL, START_S, key
from trio.testing import MockClock

from agent.errors import SourceUnavailableError
from agent.journal import Journal, create_journal, open_journal
from agent.ledger import Ledger, open_ledger
from agent.ledger_reader import read_ledger
from agent.measuring import Measured, Measuring, sources_value
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.meter.work import WorkWindow
from agent.metrics.registry import Metrics
from agent.pending import encode_pending
from agent.tables import MeterTable
from agent.work.again import measure_again
from gossip.errors import InvalidMessageError
from gossip.records import Body, Receipt, ReceiptBody, Record, Source, SourceWork, Unit, WorkBody, make_record

WINDOW_S = 10


class Engine:
    """Counts 100 prompt tokens a second; `is_down` makes it refuse, `notes` is what it says besides."""

    source = Source.ENGINE

    def __init__(self, instance: int = 0) -> None:
        self.instance = instance
        self.is_down = False
        self.notes: tuple[str, ...] = ()

    async def sample(self) -> SourceSample:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise SourceUnavailableError("refused")
        series = {"prompt_token": 100 * int(trio.current_time())}
        counters = CounterSample(source="vllm", start_s=START_S - 5, series=series)
        return SourceSample(counters=counters, provenance="vllm", gauges={"requests_running": 1.0}, notes=self.notes)


class Log:
    """The part of a node that takes windows: remembers bodies, strikes windows off as the journal does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.bodies: list[Body] = []
        self.refuses_before_s = 0
        self.crashes = False

    async def append(self, body: Body, *, window: int) -> Record:
        if self.crashes:
            raise RuntimeError("power cut")
        if isinstance(body, WorkBody) and body.start_s < self.refuses_before_s:
            raise InvalidMessageError("work: the window starts before the previous one ended")
        self.bodies.append(body)
        self.journal.drop_window(window)
        return make_record(key(0), POOL, len(self.bodies), bytes(32), body)


async def inline(function: Any, *arguments: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    return Engine()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    yield journal
    journal.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(tmp_path / "ledger.sqlite", node_key=key(0).public, pool=POOL)
    yield ledger
    ledger.close()


def measuring_of(journal: Journal, ledger: Ledger, now_s: Callable[[], int] | None = None) -> Measuring:
    table = MeterTable(sample_interval_s=1.0, window_s=WINDOW_S)
    metrics = Metrics(version="0", process=False)
    return Measuring(table, 600, journal, ledger, metrics, now_s or chain_s)


def chain_s() -> int:
    return START_S + int(trio.current_time())


def no_evidence(_start_s: int, _end_s: int) -> None:
    return None


async def run_for(seconds: float, *tasks: Any) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)


async def test_windows_wait_in_the_journal_and_become_records_once(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    await run_for(45, lambda: measuring.run([engine]))
    waiting = journal.windows_waiting()
    assert waiting == 4
    await run_for(1, lambda: measuring.append_windows(log, lambda start, end: b"e" * 32, chain_s))
    assert journal.windows_waiting() == 0
    assert len(log.bodies) == waiting
    assert all(body.evidence == b"e" * 32 for body in log.bodies)
    spans = [(body.start_s, body.end_s) for body in log.bodies]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    counted = sum(body.readings[0].amount(Unit.PROMPT_TOKEN) for body in log.bodies)
    assert counted == 100 * (spans[-1][1] - spans[0][0])


async def test_a_crash_before_the_record_is_durable_loses_no_window(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    await run_for(25, lambda: measuring.run([engine]))
    log.crashes = True
    with pytest.raises(RuntimeError):
        await measuring.append_windows(log, no_evidence, chain_s)
    assert journal.windows_waiting() == 2
    log.crashes = False
    again = measuring_of(journal, ledger)  # the process that starts after the crash
    await run_for(25, lambda: again.run([engine]), lambda: again.append_windows(log, no_evidence, chain_s))
    spans = [(body.start_s, body.end_s) for body in log.bodies]
    assert len(spans) >= 4
    assert spans == sorted(set(spans))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


async def test_the_first_window_that_counts_begins_with_the_evidence(
    engine: Engine, journal: Journal, ledger: Ledger, tmp_path: Path, autojump_clock: MockClock
) -> None:
    measuring, log, from_s = measuring_of(journal, ledger), Log(journal), START_S + 13

    async def prove() -> None:
        await trio.sleep(13.5)
        measuring.part(from_s)

    await run_for(45, lambda: measuring.run([engine]), prove)
    await run_for(
        1, lambda: measuring.append_windows(log, lambda start, end: b"e" * 32 if start >= from_s else None, chain_s)
    )
    spans = [(body.start_s - START_S, body.end_s - START_S) for body in log.bodies]
    assert spans == [(0, 10), (10, 14), (14, 24), (24, 34), (34, 44)]
    assert [body.evidence is not None for body in log.bodies] == [False, False, True, True, True]
    with read_ledger(tmp_path / "ledger.sqlite", POOL) as reader:
        for body in log.bodies:
            row = reader.window(body.start_s, body.end_s)
            assert row is not None
            again = measure_again(reader.anchor(row.first), reader.rounds(row.first, row.last), row)
            assert again.window == row.window, "it is measured again as it was"


async def test_a_window_that_the_log_covers_already_is_dropped(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    await run_for(35, lambda: measuring.run([engine]))
    log.refuses_before_s = START_S + 15
    await run_for(1, lambda: measuring.append_windows(log, no_evidence, chain_s))
    assert journal.windows_waiting() == 0
    assert log.bodies
    assert all(body.start_s >= log.refuses_before_s for body in log.bodies)


class WrongClock:
    """The wall clock, a day ahead for a while."""

    def __init__(self, from_s: float, until_s: float) -> None:
        self._from_s, self._until_s = from_s, until_s

    def now_s(self) -> int:
        return chain_s() + 86_400 * (self._from_s <= trio.current_time() < self._until_s)


async def test_a_clock_that_is_ahead_dates_no_record_ahead_and_costs_its_own_time_alone(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock, log = WrongClock(25, 75), Log(journal)
    measuring = measuring_of(journal, ledger, clock.now_s)
    await run_for(205, lambda: measuring.run([engine]), lambda: measuring.append_windows(log, no_evidence, chain_s))
    spans = [(body.start_s - START_S, body.end_s - START_S) for body in log.bodies]
    assert [span for span in spans if span[1] > 205] == []
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    before, after = [span for span in spans if span[1] <= 25], [span for span in spans if span[0] >= 75]
    assert before[0][0] == 0
    assert len(before) + len(after) == len(spans)
    assert after[-1][1] - after[0][0] >= 100, "work is recorded again as soon as the clock is right"
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "measured work waits" in text]) == 1
    assert [text for text in said if "the clock was ahead at that time" in text]
    assert journal.windows_waiting() == 0


async def test_a_clock_that_falls_behind_drops_nothing_that_waited(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    await run_for(25, lambda: measuring.run([engine]))
    behind = measuring_of(journal, ledger, lambda: chain_s() - 86_400)
    await run_for(1, lambda: behind.append_windows(log, no_evidence, chain_s))
    assert len(log.bodies) == 2


async def test_a_chain_that_is_away_holds_nothing_up(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    last_block_s = chain_s()
    await run_for(
        305, lambda: measuring.run([engine]), lambda: measuring.append_windows(log, no_evidence, lambda: last_block_s)
    )
    assert journal.windows_waiting() == 0
    assert len(log.bodies) >= 25


async def test_an_engine_that_is_down_is_a_gap_and_says_so(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    await run_for(12, lambda: measuring.run([engine]))
    engine.is_down = True
    again = measuring_of(journal, ledger)
    await run_for(20, lambda: again.run([engine]))
    assert again.measured.error_of(Source.ENGINE) == "refused"
    assert [view["error"] for view in sources_value(again.measured)] == ["refused"]
    engine.is_down = False
    more = measuring_of(journal, ledger)
    await run_for(20, lambda: more.run([engine]), lambda: more.append_windows(log, no_evidence, chain_s))
    assert more.measured.error_of(Source.ENGINE) is None
    assert sum(body.readings[0].gap_s for body in log.bodies) >= 20


async def test_one_source_that_is_down_leaves_the_others_alone(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log, second = measuring_of(journal, ledger), Log(journal), Engine(instance=1)
    second.is_down = True
    await run_for(
        25, lambda: measuring.run([engine, second]), lambda: measuring.append_windows(log, no_evidence, chain_s)
    )
    assert log.bodies
    for body in log.bodies:
        assert isinstance(body, WorkBody)
        assert [reading.instance for reading in body.readings] == [0], "a source that never answered has no reading"
    assert [(view["instance"], view["error"]) for view in sources_value(measuring.measured)] == [
        (0, None),
        (1, "refused"),
    ]


async def test_receipts_become_records_in_their_turn(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock
) -> None:
    measuring, log = measuring_of(journal, ledger), Log(journal)
    receipt = Receipt(signer=bytes(32), job_id=b"job", time_s=START_S, tokens=5, signature=bytes(64))

    async def hand_in() -> None:
        await trio.sleep(15)
        journal.queue(encode_pending(ReceiptBody((receipt,))))
        measuring.pending_came()

    await run_for(
        35, lambda: measuring.run([engine]), hand_in, lambda: measuring.append_windows(log, no_evidence, chain_s)
    )
    assert [type(body) for body in log.bodies] == [WorkBody, ReceiptBody, WorkBody, WorkBody]


def test_amounts_of_other_kinds_of_sources_are_not_added() -> None:
    measured = Measured(amounts={(1, 1): 50, (1, 2): 30, (1, 4): 10, (2, 3): 90, (2, 4): 12})
    assert measured.amount(Source.ENGINE, [Unit.PROMPT_TOKEN, Unit.GENERATION_TOKEN]) == 80
    assert measured.amount(Source.ENGINE, [Unit.TASK]) == 10
    assert measured.amount(Source.COCOON, [Unit.TASK]) == 12


def test_the_rate_is_that_of_the_last_window_and_of_its_kind_of_source() -> None:
    tokens = [Unit.PROMPT_TOKEN, Unit.GENERATION_TOKEN]
    assert Measured().rate(Source.ENGINE, tokens) is None

    def reading(source: Source, instance: int, counters: tuple[tuple[int, int], ...]) -> SourceWork:
        return SourceWork(source=source, instance=instance, provenance="", counters=counters)

    readings = (
        reading(Source.ENGINE, 0, ((Unit.PROMPT_TOKEN, 100), (Unit.TASK, 7))),
        reading(Source.ENGINE, 1, ((Unit.GENERATION_TOKEN, 23),)),
        reading(Source.COCOON, 0, ((Unit.PROMPT_TOKEN, 900),)),
    )
    latest = WorkWindow(start_s=START_S, end_s=START_S + 60, readings=readings)
    assert Measured(latest=latest).rate(Source.ENGINE, tokens) == 2.0  # 123 tokens in 60 s, 2.05, to one decimal


async def test_a_note_is_logged_when_it_is_new(
    engine: Engine, journal: Journal, ledger: Ledger, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    engine.notes = ("GPU 0 is throttled by heat",)
    await run_for(5, lambda: measuring_of(journal, ledger).run([engine]))
    assert [record.getMessage() for record in caplog.records if "heat" in record.getMessage()] == [
        "engine: GPU 0 is throttled by heat"
    ]
