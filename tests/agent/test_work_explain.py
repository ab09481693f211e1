"""`gpupool work explain`: a window is measured again from its readings, whatever happened, and told to people."""

from __future__ import annotations

import json
import logging
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_scene import own_config
from ledger_scene import ENGINE, LABELS, NVML, OWN, Host, engine_sample, new_host, nvml_sample
from pool_fixture import POOL, START_S, participant

from agent.cli import main
from agent.config import Config
from agent.journal import open_journal
from agent.ledger import ledger_file
from agent.ledger_reader import read_ledger
from agent.ledger_rows import EpochRow
from agent.meter.work import WorkWindow
from agent.work.again import Again, Incident, measure_again
from agent.work.explaining import Agreement
from gossip.credit import Credit
from gossip.records import Source, Unit

ACCOUNT = participant(0).address.account


def again(host: Host, window: WorkWindow) -> Again | None:
    """The window measured again, None if its readings are not kept."""
    with read_ledger(host.path, POOL) as ledger:
        row = ledger.window(window.start_s, window.end_s)
        if row is None or not ledger.has_anchor(row.first):
            return None
        return measure_again(ledger.anchor(row.first), ledger.rounds(row.first, row.last), row)


# Measured again: the same, always.

steps = st.tuples(
    st.sampled_from([0, 1, 5, 9, 10, 10, 10, 19, 25, 70, 700, -30]),  # how far the clock went
    st.sampled_from(["work", "work", "idle", "fails", "again", "other", "labels", "none"]),
    st.sampled_from(["reads", "reads", "reads", "fails", "reset"]),
    st.sampled_from(["", "", "", "", "", "restart", "damage"]),
)


UNIT_NAMES = {
    Source.ENGINE: {Unit.PROMPT_TOKEN: "prompt_token", Unit.TASK: "task"},
    Source.NVML: {Unit.ENERGY_MJ: "energy_mj"},
}


class Life:
    """Drives a host through steps of the strategy above."""

    def __init__(self, path: Path) -> None:
        self.host = new_host(path)
        self.now_s, self.tokens, self.energy_mj, self.start_s = 0, 0, 5, START_S - 50
        self.labels = 0
        self.sure_from = 0
        """The windows from this one on must be explained."""

    def step(self, forward_s: int, engine: str, gpu: str, event: str) -> None:
        self.now_s += forward_s
        if event == "restart":
            self.host.restart()
        if event == "damage":  # begun anew: what came before cannot be explained, all after it can
            with closing(sqlite3.connect(self.host.path)) as database:
                database.execute("DROP TABLE IF EXISTS sample")
        if engine == "work":
            self.tokens += 300
        elif engine == "again":  # a run that began since
            self.tokens, self.start_s = 700, START_S + self.now_s
        elif engine == "other":  # another process, that ran all the while
            self.tokens, self.start_s = 900, START_S - 4000 - self.now_s
        elif engine == "labels":
            self.labels += 1
        sample = engine_sample(self.tokens, start_s=self.start_s, labels=f'{{model="{self.labels}"}}')
        said = {ENGINE: "no answer" if engine == "fails" else sample}
        self.energy_mj = 1 if gpu == "reset" else self.energy_mj + 40
        if engine != "none":
            said[NVML] = "driver reload" if gpu == "fails" else nvml_sample(self.energy_mj)
        self.host.round(self.now_s, said)
        if event == "damage":
            self.sure_from = len(self.host.windows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_any_window_that_is_kept_is_measured_the_same_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, taken: list[tuple[int, str, str, str]]
) -> None:
    life = Life(Path(tempfile.mkdtemp(dir=tmp_path)) / "ledger.sqlite")
    with caplog.at_level(logging.CRITICAL):
        for each in taken:
            life.step(*each)
        life.host.ledger.begin()
    host = life.host
    for i, window in enumerate(host.windows):
        found = again(host, window)
        if found is None:
            assert i < life.sure_from
            continue
        assert found.window == window
        if found.is_carried:
            continue
        counted: dict[int, dict[str, int]] = {}
        for source in found.sources:
            for each in source.series:
                sums = counted.setdefault(source.source, {})
                name, _, _ = each.series.partition("{")
                sums[name] = sums.get(name, 0) + each.counted
        for reading in window.readings:
            for unit, name in UNIT_NAMES[reading.source].items():
                assert reading.amount(unit) == counted.get(reading.source, {}).get(name, 0)


def test_what_is_told_of_a_window(tmp_path: Path) -> None:
    host = new_host(tmp_path / "ledger.sqlite")
    said = [
        (0, engine_sample(1000)),
        (10, engine_sample(1400)),
        (20, engine_sample(1500)),  # closes the first window
        (30, engine_sample(1900)),
        (35, "no answer within 5 s"),
        (40, engine_sample(300)),  # began anew; closes the second one
    ]
    for time_s, each in said:
        host.round(time_s, {ENGINE: each})
    first, second = host.windows
    found = again(host, second)
    assert found is not None
    (source,) = found.sources
    assert (source.readings, source.failed) == (3, 1)
    assert (source.first_s, source.last_s) == (START_S + 20, START_S + 40)
    tokens = next(each for each in source.series if each.series == f"generation_token{LABELS}")
    assert (tokens.first, tokens.last, tokens.counted) == (1500, 300, 400 + 300)
    assert source.incidents == (
        Incident(time_s=START_S + 35, what="no answer within 5 s"),
        Incident(time_s=START_S + 40, what="the counters began anew"),
    )
    start = again(host, first)
    assert start is not None
    assert start.sources[0].incidents == (Incident(time_s=START_S, what="first reading"),)
    assert start.sources[0].first_s is None


def test_the_reading_that_wakes_an_idle_host_is_in_the_next_window(tmp_path: Path) -> None:
    host = new_host(tmp_path / "ledger.sqlite")
    for time_s, tokens in ((0, 0), (10, 0), (20, 0), (30, 0), (40, 500), (50, 500), (55, 700)):
        host.round(time_s, {ENGINE: engine_sample(tokens)})
    idle, busy = host.windows
    assert [(w.start_s - START_S, w.end_s - START_S) for w in (idle, busy)] == [(0, 30), (30, 50)]
    for window, readings, counted in ((idle, 4, 0), (busy, 2, 500)):
        found = again(host, window)
        assert found is not None
        assert found.sources[0].readings == readings
        assert {s.counted for s in found.sources[0].series if s.series.startswith("prompt")} == {counted}


def test_a_window_that_a_restart_cut_in_two_says_so(tmp_path: Path) -> None:
    host = new_host(tmp_path / "ledger.sqlite")
    host.round(0, {ENGINE: engine_sample(0)})
    host.round(10, {ENGINE: engine_sample(100)})
    host.restart()
    host.round(20, {ENGINE: engine_sample(300)})
    found = again(host, host.windows[0])
    assert found is not None
    assert (found.window, found.is_carried) == (host.windows[0], True)


# The command.


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """An agent that recorded four windows: two are settled, one is not, one is no record yet."""
    config = own_config(tmp_path / "agent")
    host = new_host(ledger_file(config))
    host.author.prove()
    for i in range(9):
        host.round(10 * i, {ENGINE: "no answer" if i == 3 else engine_sample(100 * i), NVML: nvml_sample(40 * i)})
    for window in host.windows[:3]:
        host.record(window)
    with closing(open_journal(config.journal_file, **OWN)) as journal:
        for record in host.author.records:
            journal.append_own(record)
    credit = Credit(
        windows=2, metered_tokens=700, worked_s=30, witnessed_s=25, uptime_s=25, rate_tokens=9000, tokens=700
    )
    host.ledger.keep_epoch(EpochRow(epoch=1, account=ACCOUNT, is_computed=True, credit=credit, head_seq=3))
    host.ledger.close()
    return host


@pytest.fixture
def config(host: Host) -> Config:
    from agent.config import load_config

    return load_config(host.path.parent.parent / "agent.toml")


def explained(config: Config, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["work", "explain", "--config", str(config.path), *arguments]) == 0
    return capsys.readouterr().out


def test_an_epoch_in_words(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(host.windows) == 4
    assert explained(config, capsys).splitlines() == [
        "epoch 1: 2 work records, 2 counted; recomputed: 2 the same",
        "why not more: witnessed 25 of 30 s",
        "record 2  2027-01-15 08:00:00 to 2027-01-15 08:00:20, 20 s; counted; recomputed: same",
        "  engine (vllm): 200 prompt_token, 200 generation_token, 2 task, latency 100 / 100 / 100 ms (p50, p95, p99)",
        "  nvml (nvml 550.90.07): 80 energy_mj",
        "  engine at 2027-01-15 08:00:00: first reading",
        "  nvml at 2027-01-15 08:00:00: first reading",
        "record 3  2027-01-15 08:00:20 to 2027-01-15 08:00:40, 20 s; counted; recomputed: same",
        "  engine (vllm): 200 prompt_token, 200 generation_token, 2 task, latency 100 / 100 / 100 ms (p50, p95, p99), "
        "gap 20 s",
        "  nvml (nvml 550.90.07): 80 energy_mj",
        "  engine at 2027-01-15 08:00:30: no answer",
    ]


def test_a_record_with_every_series(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(config, capsys, "--record", "3").splitlines()
    assert lines[0] == "epoch 1: 1 work record, 1 counted; recomputed: 1 the same"
    assert "  engine: 2 readings, 1 failed; series as read at 2027-01-15 08:00:20 and 2027-01-15 08:00:40:" in lines
    assert f"    generation_token{LABELS}  200 -> 400  +200" in lines
    assert '    energy_mj{gpu="GPU-0"}  80 -> 160  +80' in lines


def test_the_open_epoch(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(config, capsys, "--epoch", "2").splitlines()
    assert lines[:2] == [
        "epoch 2, not settled yet: 1 work record, 0 counted; recomputed: 1 the same",
        "windows that are no records yet: 1",
    ]
    assert "waits to be settled" in lines[2]


def test_json_has_all_of_it(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(explained(config, capsys, "--json"))
    assert (value["epoch"], value["is_settled"], value["reasons"]) == (1, True, ["witnessed 25 of 30 s"])
    first = value["records"][0]
    assert (first["seq"], first["hash"]) == (2, host.author.records[1].hash.hex())
    assert (first["counted"], first["recomputed"]) == ("yes", "same")
    assert first["recorded"] == first["again"]["readings"]
    assert first["recorded"][0]["counters"]["generation_token"] == 200
    assert first["again"]["sources"][1]["series"][0] == {
        "series": 'energy_mj{gpu="GPU-0"}',
        "first": None,
        "last": 80,
        "counted": 80,
    }


def test_without_the_journal_the_ledger_knows_the_records(
    config: Config, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = explained(config, capsys, "--json")
    config.journal_file.write_bytes(b"damaged" * 1000)
    assert main(["work", "explain", "--config", str(config.path), "--json"]) == 0
    output = capsys.readouterr()
    assert output.out == whole
    assert "journal.sqlite: cannot be read: file is not a database; what the ledger knows" in output.err
    config.journal_file.unlink()
    assert main(["work", "explain", "--config", str(config.path), "--json"]) == 0
    assert "journal.sqlite: missing; what the ledger knows" in capsys.readouterr().err


def test_without_the_journal_the_ledger_knows_where_the_log_ends(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    config.journal_file.write_bytes(b"damaged" * 1000)
    assert main(["work", "explain", "--config", str(config.path), "--record", "5"]) == 1
    assert "record 5 is not there: the last one known here is 4" in capsys.readouterr().err


def test_a_record_of_another_kind_is_there(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(config, capsys, "--record", "1").splitlines()[0].startswith("epoch 1: 0 work records")


@pytest.mark.parametrize(
    ("statement", "agreement", "said"),
    [
        ("DELETE FROM anchor", Agreement.PRUNED, "recomputed: not possible: its readings are pruned already"),
        ("DELETE FROM window", Agreement.UNKNOWN, "recomputed: not possible: the ledger does not know this window"),
        ("DELETE FROM sample WHERE source = 1 AND round = 5", Agreement.DIFFERENT, "its readings give something else:"),
    ],
)
def test_what_cannot_be_measured_again_is_said(
    config: Config, capsys: pytest.CaptureFixture[str], statement: str, agreement: Agreement, said: str
) -> None:
    with closing(sqlite3.connect(ledger_file(config))) as database, database:
        database.execute(statement)
    assert said in explained(config, capsys)
    value = json.loads(explained(config, capsys, "--json"))
    assert agreement.name.lower() in [record["recomputed"] for record in value["records"]]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--epoch", "0"], 2, "--epoch 0: expected 1 or more"),
        (["--record", "-1"], 2, "--record -1: expected 1 or more"),
        (["--record", str(1 << 80)], 1, "is not one of epoch 2: those are 4 and later"),
        (["--epoch", "1", "--record", "4"], 1, "record 4 is not one of epoch 1: those are 1 to 3"),
        (["--epoch", "3"], 1, "epoch 3 is not there yet: as far as this agent's ledger knows, epoch 1 is"),
        (["--record", "5"], 1, "record 5 is not there: the last one known here is 4"),
        (["--epoch", "2", "--record", "99"], 1, "record 99 is not there: the last one known here is 4"),
    ],
)
def test_one_line_says_what_is_wrong(
    config: Config, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["work", "explain", "--config", str(config.path), *arguments]) == code
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert said in output.err
