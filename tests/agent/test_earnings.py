"""What each epoch brought, and why it was not more: the reasons, the sums, and the command."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_scene import own_config
from ledger_scene import OWN
from pool_fixture import EPOCH_S, POOL, frame, key, log_book, participant, verdict

from agent.cli import main
from agent.config import Config
from agent.earnings.reasons import percent, why_less
from agent.earnings.report import (
    CHECKPOINT_REASON,
    NOTHING_REASON,
    RESTART_REASON,
    UNREGISTERED_REASON,
    EpochEarnings,
    earnings,
    totals,
)
from agent.earnings.telling import CSV_COLUMNS, earnings_csv, earnings_text, earnings_value
from agent.ledger import ledger_file, open_ledger
from agent.ledger_rows import EpochRow, PaidRow, epoch_row
from contracts.model import NANO
from gossip.credit import Credit
from gossip.settlement import Base
from gossip.tally import tally

ACCOUNT = participant(0).address.account
FULL = Credit(
    windows=10,
    metered_tokens=1000,
    worked_s=6000,
    witnessed_s=6000,
    uptime_s=6000,
    rate_tokens=60_000,
    tokens=1000,
    tasks=10,
)
"""All that was metered was credited."""


# Why less.


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"receipted_tokens": 1000}, []),
        ({"windows_uncovered": 2, "uncovered_tokens": 1200}, ["2 windows without evidence (1,200 tokens)"]),
        ({"windows_uncovered": 1, "uncovered_tokens": 0}, ["1 window without evidence (0 tokens)"]),
        ({"witnessed_s": 5400, "uptime_s": 5400}, ["witnessed 5,400 of 6,000 s"]),
        ({"rate_tokens": 630, "tokens": 630}, ["37 % capped by GPU rate"]),
        ({"rate_tokens": 999, "tokens": 999}, ["less than 1 % capped by GPU rate"]),
        ({"rate_tokens": 1, "tokens": 1}, ["more than 99 % capped by GPU rate"]),
        ({"rate_tokens": 0, "tokens": 0}, ["no GPU that the policy has a rate for"]),
        ({"receipted_tokens": 800, "tokens": 800}, ["receipts cover 80 %"]),
        ({"receipted_tokens": 0, "tokens": 0}, ["no receipts cover it"]),
        # Without uptime the rate allows nothing; that is not what is wrong.
        ({"witnessed_s": 0, "uptime_s": 0, "rate_tokens": 0, "tokens": 0}, ["witnessed 0 of 6,000 s"]),
        (
            {"witnessed_s": 3000, "uptime_s": 3000, "rate_tokens": 500, "receipted_tokens": 250, "tokens": 250},
            ["witnessed 3,000 of 6,000 s", "50 % capped by GPU rate", "receipts cover 50 %"],
        ),
        # With a worker contract as ceiling what is paid late is credited late.
        (
            {"receipted_tokens": 600, "backlog_tokens": 200, "tokens": 600},
            ["receipts cover 50 %, 200 tokens of epochs before among it"],
        ),
        (
            {"receipted_tokens": 1300, "backlog_tokens": 300, "tokens": 1300},
            ["300 tokens of epochs before were paid only now"],
        ),
        ({"metered_tokens": 0, "tokens": 0}, ["the source that the pool counts by metered nothing"]),
        (
            {"windows": 0, "metered_tokens": 0, "worked_s": 0, "uptime_s": 0, "rate_tokens": 0, "tokens": 0},
            ["no work was recorded"],
        ),
    ],
)
def test_every_step_that_takes_away_is_told_in_words(changes: dict[str, int], reasons: list[str]) -> None:
    assert why_less(replace(FULL, **changes)) == reasons


@given(st.builds(Credit, **{name: st.integers(0, 1 << 40) for name in ("windows", "worked_s", "uptime_s", "tokens")}))
def test_any_credit_has_words(credit: Credit) -> None:
    assert all(reason and reason.isprintable() for reason in why_less(credit))


@given(st.integers(1, 10**12), st.data())
def test_a_share_never_reads_like_nothing_or_all_of_it(whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    assert (percent(part, whole) == "0 %") == (part == 0)
    assert (percent(part, whole) == "100 %") == (part == whole)


# What each epoch brought.


def row(epoch: int, cumulative: int, **changes: object) -> EpochRow:
    values: dict[str, object] = {
        "end_s": 1_800_000_000 + 3600 * epoch,
        "pot_nanoton": 10 * NANO,
        "account": ACCOUNT,
        "total_score": 1000,
        "score": 250,
        "tokens": 1000,
        "cumulative_nanoton": cumulative,
        "is_computed": True,
        "credit": FULL,
    }
    return EpochRow(epoch=epoch, **(values | changes))


def paid(epoch: int, nanoton: int, account: bytes = ACCOUNT) -> PaidRow:
    return PaidRow(time_s=epoch, epoch=epoch, account=account, paid_nanoton=nanoton)


UNKNOWN_POT = {"pot_nanoton": None, "credit": None, "is_computed": False}


@pytest.mark.parametrize(
    ("rows", "earned"),
    [
        ([row(1, 5), row(2, 9)], [10 * NANO // 4] * 2),  # the pot times the share
        ([row(1, 5, **UNKNOWN_POT), row(2, 9, **UNKNOWN_POT)], [5, 4]),
        ([row(3, 5, **UNKNOWN_POT), row(4, 9, **UNKNOWN_POT)], [None, 4]),
        ([row(3, 5, **UNKNOWN_POT), row(5, 9, **UNKNOWN_POT)], [None, None]),
        ([row(1, 5, **UNKNOWN_POT), row(2, 9, account=bytes(32), **UNKNOWN_POT)], [5, None]),
        ([row(1, 0, score=0)], [0]),
        ([row(7, 3, score=0, total_score=0, pot_nanoton=None)], [0]),  # nobody worked
    ],
)
def test_earned_is_told_where_it_is_known(rows: list[EpochRow], earned: list[int | None]) -> None:
    assert [line.earned_nanoton for line in earnings(rows, ())] == earned


def test_claims_count_up_to_the_next_settlement() -> None:
    rows = [row(1, 5), row(2, 9), row(3, 12)]
    claims = [paid(0, 0), paid(1, 5), paid(1, 5, account=bytes(32)), paid(3, 11)]
    lines = earnings(rows, claims)
    assert [(line.claimed_nanoton, line.unclaimed_nanoton) for line in lines] == [(5, 0), (5, 4), (11, 1)]
    assert [line.claimed_nanoton for line in earnings(rows, claims[3:])] == [None, None, 11]


def test_an_epochs_length_is_known_where_its_frame_is() -> None:
    settlement = tally(frame(1), Base(), {}, log_book(1), verdict)
    facts = {"node_key": key(0).public, "own": participant(0).address, "settled_s": None}
    assert epoch_row(settlement, frame=frame(1), **facts).epoch_s == EPOCH_S
    assert epoch_row(settlement, frame=None, **facts).epoch_s is None


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"credit": replace(FULL, receipted_tokens=800)}, ("receipts cover 80 %",)),
        ({"epoch_s": 6000}, ()),
        ({"epoch_s": 5999}, ()),  # windows of the epoch before may be in the cut
        ({"epoch_s": 9600}, ("3,600 of 9,600 s without a counted window",)),
        (
            {"epoch_s": 7000, "credit": replace(FULL, receipted_tokens=800)},
            ("receipts cover 80 %", "1,000 of 7,000 s without a counted window"),
        ),
        ({"epoch_s": 6000, "credit": Credit()}, ("no work was recorded",)),
        (
            {"epoch_s": 20, "credit": Credit(windows_uncovered=1)},
            ("1 window without evidence (0 tokens)", "20 of 20 s without a counted window"),
        ),
        ({"epoch_s": 6000, "credit": None}, (NOTHING_REASON,)),
        ({"credit": None}, (NOTHING_REASON,)),
        ({"credit": None, "is_computed": False}, (CHECKPOINT_REASON,)),
        ({"credit": None, "is_computed": False, "is_recalled": True}, (RESTART_REASON,)),
        ({"credit": None, "account": None}, (UNREGISTERED_REASON,)),
    ],
)
def test_an_epoch_has_its_reasons(changes: dict[str, object], reasons: tuple[str, ...]) -> None:
    (line,) = earnings([row(1, 5, **changes)], ())
    assert line.reasons == reasons


def test_totals_sum_what_is_shown() -> None:
    rows = [row(epoch, 10 * epoch) for epoch in range(1, 6)]
    lines = earnings(rows, [paid(2, 7)], 2, 4)
    found = totals(lines)
    assert [line.epoch for line in lines] == [2, 3, 4]
    assert (found.epochs, found.credited_tokens, found.metered_tokens) == (3, 3000, 3000)
    assert (found.earned_nanoton, found.cumulative_nanoton) == (3 * 10 * NANO // 4, 40)
    assert (found.claimed_nanoton, found.unclaimed_nanoton) == (7, 33)
    assert (found.metered_unknown, found.earned_unknown) == (0, 0)


def test_a_sum_of_nothing_known_is_not_known() -> None:
    lines = earnings([row(7, 5, **UNKNOWN_POT), row(9, 9, **UNKNOWN_POT)], ())
    found = totals(lines)
    assert (found.metered_tokens, found.metered_unknown) == (None, 2)
    assert (found.earned_nanoton, found.earned_unknown) == (None, 2)
    *_, total, metered, earned = earnings_text(lines).splitlines()
    assert total.split() == ["total", "2", "epochs", "-", "2,000", "-", "0.000", "-", "-"]
    assert metered == "        metered does not count 2 epochs, of which it is not known"
    assert earned == "        earned does not count 2 epochs, of which it is not known"
    assert earnings_value(lines)["totals"] | {"metered_tokens": None, "earned_unknown": 2} == asdict(found)


def test_a_sum_says_how_many_epochs_it_lacks() -> None:
    lines = earnings([row(5, 5), row(7, 7, **UNKNOWN_POT), row(8, 9, **UNKNOWN_POT)], ())
    found = totals(lines)
    assert (found.metered_tokens, found.metered_unknown) == (1000, 2)
    assert (found.earned_nanoton, found.earned_unknown) == (10 * NANO // 4 + 2, 1)
    assert earnings_text(lines).splitlines()[-1] == "        earned does not count 1 epoch, of which it is not known"


lines_of_any_kind = st.lists(
    st.builds(
        EpochEarnings,
        epoch=st.integers(1, 1 << 32),
        end_s=st.none() | st.integers(0, (1 << 32) - 1),
        settled_s=st.none(),
        metered_tokens=st.none() | st.integers(0, 1 << 63),
        credited_tokens=st.integers(0, 1 << 63),
        uptime_s=st.integers(0, 1 << 32),
        tasks=st.integers(0, 1 << 32),
        reasons=st.lists(st.sampled_from(["a, b", 'said "no"', "50 %"]), max_size=3).map(tuple),
        score=st.integers(0, 1 << 100),
        total_score=st.integers(1 << 100, 1 << 127),
        pot_nanoton=st.none(),
        earned_nanoton=st.none() | st.integers(0, 1 << 119),
        cumulative_nanoton=st.integers(0, 1 << 119),
        claimed_nanoton=st.none() | st.integers(0, 1 << 119),
        unclaimed_nanoton=st.none() | st.integers(0, 1 << 119),
        flags=st.just(0),
    ),
    min_size=1,
    max_size=5,
)


@given(lines_of_any_kind)
def test_csv_comes_back_to_the_last_nanoton(lines: list[EpochEarnings]) -> None:
    read = list(csv.DictReader(io.StringIO(earnings_csv(lines))))
    assert [int(each["epoch"]) for each in read] == [line.epoch for line in lines]
    for each, line in zip(read, lines, strict=True):
        for name in ("earned", "cumulative", "claimed", "unclaimed"):
            cell, amount = each[f"{name}_ton"], getattr(line, f"{name}_nanoton")  # nine decimals
            assert (None if cell == "" else int(cell.replace(".", ""))) == amount
        assert each["metered_tokens"] == ("" if line.metered_tokens is None else str(line.metered_tokens))
        assert each["why_less"] == "; ".join(line.reasons)


@given(lines_of_any_kind)
def test_any_line_has_a_text_and_json(lines: list[EpochEarnings]) -> None:
    text = earnings_text(lines)
    found = totals(lines)
    lacks = (found.metered_unknown > 0) + (found.earned_unknown > 0)
    assert len(text.splitlines()) == 2 + len(lines) + sum(len(line.reasons) for line in lines) + lacks
    assert json.loads(json.dumps(earnings_value(lines)))["totals"]["epochs"] == len(lines)


# The command.


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An agent with a ledger of three epochs; no agent runs."""
    config = own_config(tmp_path / "agent")
    ledger = open_ledger(ledger_file(config), **OWN)
    ledger.keep_epoch(row(1, 2_500_000_000))
    ledger.keep_epoch(row(2, 5_000_000_001, credit=replace(FULL, rate_tokens=630, tokens=630), tokens=630))
    ledger.keep_epoch(row(3, 7_500_000_001, **UNKNOWN_POT, end_s=None))
    ledger.keep_paid(paid(2, 4 * NANO))
    ledger.close()
    return config


def test_the_table_of_an_agent_that_does_not_run(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earnings", "--config", str(config.path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        "epoch             ended  metered  credited    share  earned TON  in all  claimed  unclaimed",
        "    1  2027-01-15 09:00    1,000     1,000  25.00 %       2.500   2.500        -          -",
        "    2  2027-01-15 10:00    1,000       630  25.00 %       2.500   5.000    4.000      1.000",
        "        37 % capped by GPU rate",
        "    3                 -        -     1,000  25.00 %       2.500   7.500    4.000      3.500",
        f"        {CHECKPOINT_REASON}",
        "total          3 epochs    2,000     2,630                7.500   7.500    4.000      3.500",
        "        metered does not count 1 epoch, of which it is not known",
    ]


def test_json_has_all_of_it(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earnings", "--config", str(config.path), "--from", "2", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [(each["epoch"], each["reasons"]) for each in value["epochs"]] == [
        (2, ["37 % capped by GPU rate"]),
        (3, [CHECKPOINT_REASON]),
    ]
    assert value["epochs"][0]["share"] == 0.25
    assert value["totals"]["unclaimed_nanoton"] == 3_500_000_001


def test_files_are_written_besides(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    table, picture = tmp_path / "out.csv", tmp_path / "out.png"
    arguments = ["earnings", "--config", str(config.path), "--to", "2", "--csv", str(table), "--plot", str(picture)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert ("total" in said.out, said.err) == (True, f"gpupool: wrote {picture}\n")
    read = list(csv.DictReader(table.read_text().splitlines()))
    assert tuple(read[0]) == CSV_COLUMNS
    assert [each["cumulative_ton"] for each in read] == ["2.500000000", "5.000000001"]
    assert read[1]["ended_utc"] == "2027-01-15 10:00:00"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_csv_on_standard_output(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earnings", "--config", str(config.path), "--csv", "-"]) == 0
    read = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [each["why_less"] for each in read] == ["", "37 % capped by GPU rate", CHECKPOINT_REASON]


def test_no_epoch_yet(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earnings", "--config", str(config.path), "--from", "9"]) == 0
    assert capsys.readouterr().out == "no epoch of these is settled, as far as this agent's ledger knows\n"
    assert main(["earnings", "--config", str(config.path), "--from", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"epochs": [], "totals": None}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "0"], 2, "--from 0: expected an epoch, 1 or later"),
        (["--from", "3", "--to", "2"], 2, "--from 3: is after --to 2"),
        (["--csv", "-", "--json"], 2, "--csv -: standard output takes one answer"),
        (["--csv", "/nowhere/x.csv"], 1, "--csv /nowhere/x.csv: cannot be written: No such file or directory"),
        (["--plot", "picture.jpg"], 2, "picture.jpg: expected a name that ends in .png"),
    ],
)
def test_one_line_says_what_is_wrong(
    config: Config, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["earnings", "--config", str(config.path), *arguments]) == code
    output = capsys.readouterr()
    assert bool(output.out) == ("--json" in arguments), "the error as an object, and nothing else"
    assert output.err.count("\n") == 1
    assert said in output.err


def test_no_ledger_and_the_ledger_of_another_pool(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    ledger_file(config).unlink()
    assert main(["earnings", "--config", str(config.path)]) == 1
    assert "ledger.sqlite: missing; the agent begins it when it runs" in capsys.readouterr().err
    open_ledger(ledger_file(config), node_key=OWN["node_key"], pool=replace(POOL, network=-3)).close()
    assert main(["earnings", "--config", str(config.path)]) == 1
    assert "belongs to another pool" in capsys.readouterr().err
