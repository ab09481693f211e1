"""`gpupool score simulate`: what each strategy would have paid, from the journal alone, beside an agent that runs."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from journal_scene import KEY, OWN, own_config
from pool_fixture import POLICY_TEXT, START_S, key, participant, policy
from settled_history import keep, leaf, settlement_of, with_policy

from agent import journal_file
from agent.cli import main
from agent.config import Config
from agent.journal import open_journal
from agent.output import EXIT_JOURNAL
from agent.score import parser, verbs
from agent.score.simulating import STRATEGIES, simulate
from contracts.model import NANO
from gossip.score import RELIABILITY_MAX, Figures, scores, split
from gossip.settlement import Base, Reading, Settlement

EPOCH_S = 1000
WORK = [
    {"tokens": 60_000, "tasks": 60, "uptime_s": 1000, "quality": 9_000},
    {"tokens": 35_000, "tasks": 90, "uptime_s": 1000, "quality": 10_000},
    {"tokens": 5_000, "tasks": 10, "uptime_s": 500, "quality": 4_000},
]


def history() -> list[Settlement]:
    """Two epochs of four participants; the last of them never did anything."""
    made: list[Settlement] = []
    for epoch in (1, 2):
        figures = [Figures(**work, reputation=500) for work in WORK]
        scored = scores(figures, policy().score)
        amounts = split(10 * NANO, scored)
        leaves = [
            leaf(i, **work, score=score, earned_nanoton=epoch * amount)
            for i, (work, score, amount) in enumerate(zip(WORK, scored, amounts, strict=True))
        ]
        readings = {key(i).public: Reading(work_end_s=START_S, witnessed_s=epoch * EPOCH_S) for i in range(4)}
        made.append(settlement_of([*leaves, leaf(3)], readings, previous=made[-1] if made else None))
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An agent's settings, its policy, and its journal, in which two epochs have settled."""
    config = own_config(tmp_path / "agent")
    (tmp_path / "agent" / "policy.toml").write_text(POLICY_TEXT)
    keep(config.journal_file, history(), **OWN)
    return config


def run(config: Config, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["score", "simulate", "--config", str(config.path), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def shown(config: Config, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, errors = run(config, capsys, *arguments, "--json")
    assert (code, errors) == (0, "")
    value: dict[str, Any] = json.loads(out)
    return value


# The simulation.


def test_the_strategy_in_force_pays_what_was_settled() -> None:
    first, second = history()
    found = simulate(second, first.base(), STRATEGIES)
    assert (found.epoch, found.epoch_s, len(found.rows)) == (2, EPOCH_S, 3)
    assert 10 * NANO - found.pot_nanoton in range(3)
    for row in found.rows:
        assert abs(row.settled_nanoton - row.amounts_nanoton["weighted"]) <= 1
    for name in STRATEGIES:
        paid = sum(row.amounts_nanoton[name] for row in found.rows)
        assert 0 <= found.pot_nanoton - paid < 3


def test_the_first_epoch_builds_on_nothing() -> None:
    found = simulate(history()[0], Base(), {"proportional": STRATEGIES["proportional"]}, pot_nanoton=100)
    assert {row.leaf.tokens: row.amounts_nanoton["proportional"] for row in found.rows} == {
        60_000: 60,
        35_000: 35,
        5_000: 5,
    }


def test_reliability_is_uptime_over_the_epochs_length() -> None:
    first, second = history()
    by_uptime = {row.leaf.uptime_s: row.reliability for row in simulate(second, first.base(), STRATEGIES).rows}
    assert by_uptime == {1000: RELIABILITY_MAX, 500: RELIABILITY_MAX // 2}
    longer = simulate(second, first.base(), STRATEGIES, epoch_s=2 * EPOCH_S)
    assert {row.leaf.uptime_s: row.reliability for row in longer.rows} == {1000: 5000, 500: 2500}


def test_an_epoch_in_which_nobody_worked() -> None:
    idle = settlement_of([leaf(0), leaf(1)], {})
    found = simulate(idle, Base(), STRATEGIES)
    assert (found.rows, found.pot_nanoton, found.epoch_s) == ((), 0, 1)


# The command.


def test_it_shows_a_table(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = run(config, capsys, "--epoch", "2")
    assert (code, errors) == (0, "")
    first, names, *rows = out.splitlines()
    assert first.startswith("epoch 2: ")
    assert "among 3 participants" in first
    assert names.split() == ["participant", "settled", *STRATEGIES]
    assert rows[0].split()[0] == str(participant(0).address)[:10]
    assert len({len(row) for row in [names, *rows[:3]]}) == 1
    assert rows[3].split()[0] == "all"
    assert rows[3].split()[1] == f"{sum(float(row.split()[1]) for row in rows[:3]):,.3f}"
    assert rows[-2] == "in force: weighted"
    assert "reliability: not in a settlement; taken as uptime of 1,000 s" in rows[-1]


def test_the_own_row_bears_a_star(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.score.verbs.wallet_address", lambda *_, **__: participant(1).address)
    _, out, _ = run(config, capsys, "--epoch", "2")
    assert [line.split()[0] for line in out.splitlines() if "*" in line] == [f"{participant(1).address}"[:10] + "*"]
    assert [each["is_own"] for each in shown(config, capsys)["participants"]].count(True) == 1
    config.resolve(config.wallet.key_file).unlink()
    assert "*" not in run(config, capsys, "--epoch", "2")[1]


def test_it_takes_the_last_epoch_and_all_strategies_by_itself(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    value = shown(config, capsys)
    assert (value["epoch"], value["in_force"], list(value["strategies"])) == (2, "weighted", list(STRATEGIES))
    assert value["strategies"]["tiered"] == {"base": 850, "top": 500, "next": 300}
    assert value["strategies"]["weighted"] == {"tokens": 500, "uptime": 200, "tasks": 200, "quality": 100}
    assert {each["participant"] for each in value["participants"]} == {str(participant(i).address) for i in range(3)}


def test_strategies_and_pot_are_chosen(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    value = shown(config, capsys, "--epoch", "1", "--strategy", "hybrid", "--strategy", "proportional", "--pot", "100")
    assert list(value["strategies"]) == ["proportional", "hybrid"]
    paid = {each["tokens"]: each["amounts_nanoton"]["proportional"] for each in value["participants"]}
    assert paid == {60_000: 60 * NANO, 35_000: 35 * NANO, 5_000: 5 * NANO}


def test_a_policy_that_is_not_here_any_more_is_said(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    last = history()[-1]
    third = with_policy(settlement_of(last.leaves, last.readings, previous=last), bytes(32))
    keep(config.journal_file, [third], **OWN)
    value = shown(config, capsys)
    assert (value["epoch"], value["in_force"], value["pot_nanoton"]) == (3, None, 0)
    assert "in force: not known" in run(config, capsys)[1]


def test_a_plot_is_written(config: Config, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "epoch.png"
    code, _, errors = run(config, capsys, "--plot", str(plot))
    assert (code, errors) == (0, f"gpupool: wrote {plot}\n")
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--epoch", "9"), 1, "the settlement of epoch 9 is not here; it has those of epochs 1 to 2"),
        (("--pot", "much"), 2, "--pot"),
        (("--epoch-seconds", "0"), 2, "expected at least 1"),
        (("--plot", "plot.jpg"), 2, "ends in .png"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    config: Config, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, out, errors = run(config, capsys, *arguments)
    assert (found, out, errors.count("\n")) == (code, "", 1)
    assert said in errors


def test_the_command_line_names_every_strategy(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(STRATEGIES) == parser.STRATEGIES
    for argument in ("--help", "--strategy=best"):
        with pytest.raises(SystemExit):
            run(config, capsys, argument)
        said = capsys.readouterr()
        assert all(name in said.out + said.err for name in STRATEGIES)


def test_an_agent_may_run_and_a_young_one_has_nothing(
    config: Config, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with closing(open_journal(config.journal_file, **OWN)):
        assert shown(config, capsys)["epoch"] == 2
    young = own_config(tmp_path / "young")
    assert run(young, capsys)[::2] == (1, f"gpupool: {young.journal_file}: no epoch has settled yet\n")


def test_an_epoch_whose_base_is_gone_is_said(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(journal_file.connect(config.journal_file)) as database:
        database.execute("DELETE FROM landed WHERE epoch = 1")
    code, _, errors = run(config, capsys, "--epoch", "2")
    assert (code, "the settlement of epoch 1 is not here" in errors) == (1, True)


def test_a_damaged_settlement_is_said(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(journal_file.connect(config.journal_file)) as database:
        database.execute("UPDATE landed SET checkpoint = zeroblob(99) WHERE epoch = 2")
    code, _, errors = run(config, capsys)
    assert (code, "damaged (checkpoint: " in errors) == (EXIT_JOURNAL, True)


def test_many_participants_are_cut_in_the_table_alone(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "ROWS_SHOWN", 1)
    assert "and 2 more, who were paid less (--json has all)" in run(config, capsys)[1]
    assert len(shown(config, capsys)["participants"]) == 3


def test_the_journal_is_this_agents(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert key(0).public == KEY.public
    with closing(journal_file.connect(config.journal_file)) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'node_key'", (key(1).public,))
    code, _, errors = run(config, capsys)
    assert (code, "belongs to another node key" in errors) == (EXIT_JOURNAL, True)
