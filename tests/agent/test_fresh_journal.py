"""`gpupool run --fresh`: a lost journal is made anew only when that is asked for, and does not pass for the old one."""

from __future__ import annotations

from contextlib import closing

import pytest
from journal_scene import OWN, answers, own_config
from pool_fixture import POOL

from agent import commands, daemon
from agent.cli import main
from agent.config import Config
from agent.errors import JournalError
from agent.journal import open_journal
from agent.setup import fresh_journal, init_agent


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = own_config(tmp_path_factory.mktemp("place") / "agent")
    config.journal_file.unlink()
    return config


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the journal counted as knowing the own log, for each agent that was run."""
    runs: list[bool] = []

    def run_agent(config: Config) -> None:
        with closing(open_journal(config.journal_file, **OWN)) as journal:
            runs.append(journal.is_own_log_known)

    monkeypatch.setattr(daemon, "run_agent", run_agent)
    return runs


def run(config: Config, *more: str) -> int:
    return main(["run", "--config", str(config.path), *more])


def test_a_missing_journal_refuses_to_start(
    config: Config, started: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config) == 65, "systemd starts it no second time"
    error = capsys.readouterr().err
    assert error.startswith(f"gpupool: {config.journal_file}: missing. A new agent: run `gpupool init`")
    assert "`gpupool db import`" in error
    assert "`gpupool run --fresh`" in error
    assert error.count("\n") == 1
    assert not config.journal_file.exists()
    assert started == []


def test_it_is_asked_for_twice(config: Config, started: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--fresh") == 2
    assert "nothing was done. A fresh journal knows nothing" in capsys.readouterr().err
    assert not config.journal_file.exists()
    assert run(config, "--fresh", "--yes") == 0
    assert started == [False]
    assert run(config) == 0
    assert started == [False, False], "until operators said what they know"


def test_one_that_is_there_is_never_replaced(
    config: Config, started: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    fresh_journal(config)
    before = config.journal_file.read_bytes()
    assert run(config, "--fresh", "--yes") == 1
    assert "never overwritten" in capsys.readouterr().err
    assert (config.journal_file.read_bytes(), started) == (before, [])
    with pytest.raises(JournalError, match="never overwritten"):
        fresh_journal(config)


def test_a_journal_that_init_makes_knows_the_log_of_a_new_key_only(config: Config) -> None:
    folder = config.path.parent
    config.path.unlink()
    for is_key_new in (False, True):
        if is_key_new:
            config.resolve("node.key").unlink()
        made = init_agent(folder, answers())
        with closing(open_journal(made.config.journal_file, node_key=made.node_key.public, pool=POOL)) as journal:
            assert journal.is_own_log_known == is_key_new
        made.config.path.unlink()
        made.config.journal_file.unlink()


def test_root_makes_it_for_the_agents_user_and_runs_nothing(
    config: Config, started: list[bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As root, the agent would write a ledger that its own user cannot open."""
    monkeypatch.setattr(commands, "_is_anothers", lambda _: True)
    assert run(config, "--fresh", "--yes") == 0
    assert config.journal_file.exists()
    assert started == []
    assert f"next: gpupool run --config {config.path}" in capsys.readouterr().out
