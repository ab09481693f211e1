"""The ledger: what was read comes back, it stays within its bounds, and nothing that happens to it stops the agent."""

from __future__ import annotations

import logging
import random
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from forked import NUMBER, forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_scene import ENGINE, KEY, NVML, OWN, Host, engine_sample, new_host, nvml_sample
from pool_fixture import POOL, START_S, Author, fill, frame, key, log_book, participant, verdict

from agent.errors import InvalidSourceError, OperationError
from agent.ledger import WINDOWS_KEEP_S, open_ledger
from agent.ledger_reader import read_ledger
from agent.ledger_rows import (
    GAUGES_MAX,
    WORDS_CHARS_MAX,
    EpochRow,
    PaidRow,
    RawReading,
    epoch_row,
    joined_sample,
    split_sample,
)
from agent.meter.counters import COUNT_MAX, CounterSample
from agent.meter.sources import SourceSample
from gossip.cut import CutPoint
from gossip.records import PoolId
from gossip.settlement import Base
from gossip.tally import tally

ACCOUNT = participant(0).address.account


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.sqlite"


def epoch(number: int, **changes: object) -> EpochRow:
    return EpochRow(epoch=number, account=ACCOUNT, **changes)


def kept_rounds(path: Path) -> list[int]:
    with read_ledger(path, POOL) as ledger:
        return [each.number for each in ledger.rounds(0, 1 << 40)]


# What comes back.

names = st.text(min_size=1, max_size=20)
samples = st.builds(
    SourceSample,
    counters=st.builds(
        CounterSample,
        source=names,
        start_s=st.none() | st.integers(0, COUNT_MAX),
        series=st.dictionaries(names, st.integers(0, COUNT_MAX), max_size=8),
    ),
    provenance=names,
    gauges=st.dictionaries(names, st.floats(allow_nan=False), max_size=8),
    notes=st.lists(names, max_size=3).map(tuple),
)


@given(samples)
def test_a_sample_comes_back_as_it_was(sample: SourceSample) -> None:
    form, figures = split_sample(sample)
    assert joined_sample(form, figures, sample.counters.start_s, sample.notes) == sample


@pytest.mark.parametrize("cut", ["form", "figures", "other"])
def test_parts_that_do_not_belong_together_are_refused(cut: str) -> None:
    form, figures = split_sample(engine_sample(100))
    other, _ = split_sample(nvml_sample(1))
    parts = {"form": (form[:-1], figures), "figures": (form, figures[:-1]), "other": (other, figures)}[cut]
    with pytest.raises(InvalidSourceError, match="kept sample: "):
        joined_sample(*parts, None, ())


def test_rounds_come_back_with_what_failed_in_words(path: Path) -> None:
    host = new_host(path)
    host.round(0, {ENGINE: engine_sample(100, notes=("slow", "old")), NVML: "no driver"})
    host.round(10, {ENGINE: engine_sample(200), NVML: nvml_sample(7)})
    with read_ledger(path, POOL) as ledger:
        first, second = ledger.rounds(1, 2)
    assert [first.time_s, second.time_s] == [START_S, START_S + 10]
    assert first.readings == (
        RawReading(source=1, sample=engine_sample(100, notes=("slow", "old"))),
        RawReading(source=3, error="no driver"),
    )
    assert second.readings[1].sample == nvml_sample(7)


def test_words_and_gauges_are_bounded(path: Path) -> None:
    host = new_host(path)
    gauges = {f"gauge {i:04}": float(i) for i in range(GAUGES_MAX + 9)}
    host.round(0, {ENGINE: engine_sample(1, notes=("x" * 1500, "y" * 1500, "z"), gauges=gauges), NVML: "\udcff" * 9000})
    with read_ledger(path, POOL) as ledger:
        (kept,) = ledger.rounds(1, 1)
    sample = kept.readings[0].sample
    assert sample is not None
    assert sum(map(len, sample.notes)) == WORDS_CHARS_MAX == len(kept.readings[1].error or "")
    assert len(sample.gauges) == GAUGES_MAX


def test_names_are_kept_once(path: Path) -> None:
    host = new_host(path)
    for i in range(200):
        host.round(10 * i, {ENGINE: engine_sample(i)})
    host.restart()
    host.round(2000, {ENGINE: engine_sample(7)})
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM form").fetchone() == (1,)
        # Its use is written down now and then, so that it outlives the samples that name it.
        assert database.execute("SELECT used FROM form").fetchone()[0] > 201 - 64


def test_epochs_and_payments(path: Path) -> None:
    ledger = open_ledger(path, **OWN)
    ledger.keep_epoch(epoch(2, cumulative_nanoton=1 << 90, total_score=1 << 120))
    ledger.keep_epoch(epoch(1))
    ledger.keep_epoch(epoch(2, cumulative_nanoton=5))  # known already
    for time_s, paid in ((1, 0), (2, 0), (3, 7), (4, 7), (5, 9)):
        ledger.keep_paid(PaidRow(time_s=time_s, epoch=1, account=ACCOUNT, paid_nanoton=paid))
    ledger.close()
    again = open_ledger(path, **OWN)  # knows what it wrote
    again.keep_paid(PaidRow(time_s=6, epoch=2, account=ACCOUNT, paid_nanoton=9))
    with read_ledger(path, POOL) as reader:
        assert reader.epochs() == [epoch(1), epoch(2, cumulative_nanoton=1 << 90, total_score=1 << 120)]
        assert reader.epochs(last=1) == reader.epochs()[1:]
        assert reader.epochs(last=9) == reader.epochs()
        assert [(row.time_s, row.paid_nanoton) for row in reader.paid()] == [(1, 0), (3, 7), (5, 9)]
        assert reader.node_key == KEY.public


def test_only_a_row_that_was_computed_takes_the_place_of_one_that_was_not(path: Path) -> None:
    ledger = open_ledger(path, **OWN)
    recalled, computed = epoch(1, is_computed=False, is_recalled=True), epoch(1, is_computed=True)
    assert ledger.keep_epoch(recalled) == recalled
    assert ledger.keep_epoch(epoch(1, is_computed=False)) == recalled
    assert ledger.keep_epoch(computed) == computed
    assert ledger.keep_epoch(recalled) == computed
    assert ledger.keep_epoch(epoch(1, is_computed=True, tokens=7)) == computed
    with read_ledger(path, POOL) as reader:
        assert reader.epochs() == [computed]


def test_the_row_of_a_settlement() -> None:
    authors = [Author(0), Author(1)]
    logs = log_book(2)
    for author in authors:
        author.prove()
        author.work(seconds=20, tokens=3000)
        fill(logs, author.records)
    cut = {key(i).public: CutPoint(head=authors[i].head, dead=False, witnessed_s=15, worker_tokens=0) for i in range(2)}
    settlement = tally(frame(2), Base(), cut, logs, verdict)
    own = participant(0).address
    row = epoch_row(settlement, node_key=key(0).public, own=own, frame=frame(2), settled_s=START_S + 200)
    leaf = next(leaf for leaf in settlement.leaves if leaf.participant == own)
    assert row.cumulative_nanoton == leaf.earned_nanoton > 0
    assert (row.pot_nanoton, row.end_s) == (frame(2).pot_nanoton, frame(2).end_s)
    assert (row.head_seq, row.is_computed, len(row.evidence)) == (2, True, 1)
    assert row.credit == settlement.credits[key(0).public]
    assert row.credit is not None
    assert (row.credit.worked_s, row.credit.uptime_s) == (20, 15)
    stranger = epoch_row(settlement, node_key=key(9).public, own=None, frame=frame(2, epoch=2), settled_s=None)
    assert stranger == EpochRow(epoch=1, total_score=settlement.payload.total_score, is_computed=True)


# Its bounds.


def fill_ledger(host: Host, rounds: int, *, step_s: int = 10, fresh_names: bool = False) -> None:
    start = len(host.numbers)
    for i in range(start, start + rounds):
        labels = f'{{pod="{i}{"p" * 300}"}}' if fresh_names else f'{{pod="{i % 3}"}}'
        host.round(step_s * i, {ENGINE: engine_sample(100 * i, labels=labels)})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_stays_within_its_size_and_keeps_the_newest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    bytes_max = data.draw(st.integers(20, 64)) * 4096
    host = new_host(path, bytes_max=bytes_max)
    for _ in range(data.draw(st.integers(1, 4))):
        fill_ledger(host, data.draw(st.integers(1, 150)), fresh_names=data.draw(st.booleans()))
        if data.draw(st.booleans()):
            host.restart(bytes_max=bytes_max)
        rounds = kept_rounds(path)
        assert rounds == list(range(rounds[0], len(host.numbers) + 1)), "the newest, without a hole"
        assert rounds[-1] == host.numbers[-1]
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM anchor WHERE round < ?", (rounds[0],)).fetchone() == (0,)
    host.ledger.close()
    assert path.stat().st_size <= bytes_max + 8 * 4096  # a round is written before the oldest go


def test_names_that_went_with_their_samples_are_written_anew(path: Path) -> None:
    host = new_host(path, keep_s=100)
    for time_s, tokens in ((0, 100), (500, 200), (510, 300)):
        said = engine_sample(tokens) if time_s != 500 else nvml_sample(tokens)
        host.round(time_s, {ENGINE: said})
    with read_ledger(path, POOL) as ledger:
        assert [each.readings[0].sample for each in ledger.rounds(1, 9)] == [nvml_sample(200), engine_sample(300)]


def test_rounds_that_are_too_old_go_a_few_at_a_time(path: Path) -> None:
    host = new_host(path, keep_s=1000)
    fill_ledger(host, 50)
    host.round(10_000, {ENGINE: engine_sample(9000)})
    assert kept_rounds(path) == [51]
    with read_ledger(path, POOL) as ledger:
        assert not ledger.has_anchor(1)
        assert ledger.windows(0, 1 << 40) == [], "none became a record"
        assert len(ledger.waiting()) == len(host.windows), "windows stay longer"


def test_windows_that_are_too_old_go(path: Path) -> None:
    host = new_host(path)
    fill_ledger(host, 20)
    host.round(WINDOWS_KEEP_S + 100, {ENGINE: engine_sample(9000)})
    with read_ledger(path, POOL) as ledger:
        assert all(row.window.start_s >= START_S + 100 for row in ledger.waiting())
        assert 0 < len(ledger.waiting()) < len(host.windows)


def test_a_clock_that_steps_back_loses_nothing(path: Path) -> None:
    host = new_host(path, keep_s=1000)
    for time_s in (5000, 5010, 100, 110, 5020):
        host.round(time_s, {ENGINE: engine_sample(time_s)})
    assert kept_rounds(path)[-1] == 5


# What happens to the file.


def test_kill_9_at_any_moment_loses_no_round_that_was_kept(path: Path) -> None:
    def write_for_ever(report: BinaryIO) -> None:
        host = new_host(path)
        number = 0
        while True:
            number += 1
            host.round(10 * number, {ENGINE: engine_sample(100 * number)})
            report.write(NUMBER.pack(host.numbers[-1] or 0))

    draw, said = random.Random(20261121), 0
    for _ in range(6):
        with forked(write_for_ever) as child:
            for _ in range(draw.randrange(1, 60)):
                (said,) = NUMBER.unpack(child.read(NUMBER.size))
            child.kill()
        rounds = kept_rounds(path)
        assert rounds == list(range(1, len(rounds) + 1))
        assert len(rounds) >= said
    assert not path.with_name("ledger.sqlite.aside").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_set_aside_and_begun_anew(path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    host = new_host(path)
    fill_ledger(host, 100)
    host.ledger.close()
    content, draw = bytearray(path.read_bytes()), random.Random(seed)
    if seed % 3 == 0:
        content = content[: draw.randrange(1, len(content))]
    else:
        for _ in range(200):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = open_ledger(path, **OWN)
        again.keep_epoch(epoch(7))
        again.keep_epoch(epoch(8))  # the damage may have been found by the write before
    aside = path.with_name("ledger.sqlite.aside")
    assert aside.read_bytes()[: len(content)] == content
    assert "is begun anew" in caplog.text
    with read_ledger(path, POOL) as reader:
        assert reader.epochs()[-1] == epoch(8)


def test_damage_that_shows_while_it_runs_is_set_aside_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = new_host(path)
    fill_ledger(host, 5)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE sample")
    host.round(50, {ENGINE: engine_sample(500)})
    host.round(60, {ENGINE: engine_sample(600)})
    assert host.numbers == [1, 2, 3, 4, 5, None, 1]
    assert "no such table: sample; it is begun anew" in caplog.text


@pytest.mark.parametrize(
    ("whose", "said"),
    [
        ({"node_key": key(1).public, "pool": POOL}, "of another node key"),
        ({"node_key": KEY.public, "pool": PoolId(-3, POOL.account)}, "of another network"),
        ({"node_key": KEY.public, "pool": PoolId(POOL.network, bytes(32))}, "of another pool"),
    ],
)
def test_the_ledger_of_another_is_set_aside(
    path: Path, whose: dict[str, object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_ledger(path, **OWN)
    first.keep_epoch(epoch(3))
    first.close()
    open_ledger(path, **whose)
    assert said in caplog.text
    with read_ledger(path.with_name("ledger.sqlite.aside"), POOL) as reader:
        assert reader.epochs() == [epoch(3)]


def test_a_full_disk_is_said_once_and_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fill_disk(report: BinaryIO) -> None:
        host = new_host(path)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        fill_ledger(host, 400)
        report.write(NUMBER.pack(host.numbers.count(None)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        fill_ledger(host, 70)
        report.write(NUMBER.pack(host.numbers[-70:].count(None)))
        for words in ("cannot be written", "written again"):
            report.write(NUMBER.pack(sum(words in record.message for record in caplog.records)))

    with caplog.at_level(logging.INFO), forked(fill_disk) as child:
        (lost,) = NUMBER.unpack(child.read(NUMBER.size))
        (lost_afterwards,) = NUMBER.unpack(child.read(NUMBER.size))
        said = [NUMBER.unpack(child.read(NUMBER.size))[0] for _ in range(2)]
        assert child.wait() == 0
    assert (lost > 0, lost_afterwards) == (True, 0)
    assert said == [1, 1]
    assert len(kept_rounds(path)) == 470 - lost


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    ledger = open_ledger(tmp_path / "file" / "ledger.sqlite", **OWN)
    ledger.keep_epoch(epoch(1))
    ledger.keep_paid(PaidRow(time_s=1, epoch=1, account=ACCOUNT, paid_nanoton=1))
    assert caplog.text.count("cannot be written") == 1


def test_who_reads_a_ledger_is_told_what_is_wrong(path: Path) -> None:
    with pytest.raises(OperationError, match="missing; the agent begins it when it runs"), read_ledger(path, POOL):
        pass
    open_ledger(path, **OWN).close()
    with pytest.raises(OperationError, match="belongs to another pool"), read_ledger(path, PoolId(-3, POOL.account)):
        pass
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO epoch VALUES (1, x'00')")
    with pytest.raises(OperationError, match="cannot be read: "), read_ledger(path, POOL) as reader:
        reader.epochs()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = x'39' WHERE key = 'schema'")
    with pytest.raises(OperationError, match="of another version"), read_ledger(path, POOL):
        pass
    path.write_bytes(b"no database" * 100)
    with pytest.raises(OperationError, match="cannot be read: file is not a database"), read_ledger(path, POOL):
        pass
