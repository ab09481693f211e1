"""What `gpupool keys restore` says of files that are there, and under which names it writes a backup's policies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from key_backups import TO_OWNER, agent_with_policy, back_up, identity_file, restore
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.config import Config, load_config
from agent.identity import create_key
from agent.keys import restoring


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return agent_with_policy(tmp_path / "agent")


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return identity_file(tmp_path / "identity")


@pytest.fixture
def backup(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = back_up(config, tmp_path / "agent.age")
    capsys.readouterr()
    return path


def test_what_was_there_already_is_said(
    backup: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "second"
    assert restore(backup, identity, folder, "--yes") == 0
    assert "was there already" not in capsys.readouterr().out
    (folder / "wallet.key").unlink()
    assert restore(backup, identity, folder, "--yes") == 0
    said = capsys.readouterr().out
    assert f"wrote into {folder}: wallet.key\n" in said
    assert f"was there already, in {folder}: policy.toml, node.key, agent.toml\n" in said
    assert f"{folder}/data/journal.sqlite was there already, and stays as it is\n" in said
    assert restore(backup, identity, folder, "--yes", "--json") == 0
    assert "wallet.key" in json.loads(capsys.readouterr().out)["already_there"]


@pytest.mark.parametrize("more", [["--yes"], ["--dry-run"]])
def test_a_journal_belongs_to_an_agent(
    tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    create_key(tmp_path / "owner.key")
    backup = tmp_path / "owner.age"
    assert main(["keys", "backup", str(backup), "--key", str(tmp_path / "owner.key"), TO_OWNER]) == 0
    capsys.readouterr()
    assert restore(backup, identity, tmp_path / "second", f"--journal={tmp_path / 'journal'}", *more) == 2
    assert f"--journal: {backup} holds no agent" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_policies_get_the_names_that_the_config_has_for_them(
    config: Config, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.path.parent
    folder.joinpath("policy.toml").rename(folder / "policy.example.toml")
    folder.joinpath("next-1.toml").write_text(POLICY_TEXT)
    named = 'policy_file = "policy.example.toml"\nnext_policy_file = "next-1.toml"'
    config.path.write_text(config.path.read_text().replace('policy_file = "policy.toml"', named))
    backup = tmp_path / "agent.age"
    assert main(["keys", "backup", str(backup), "--config", str(config.path), TO_OWNER]) == 0
    capsys.readouterr()
    assert restore(backup, identity, tmp_path / "second", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["remarks"] == []
    found = {path.name for path in (tmp_path / "second").iterdir()}
    assert {"policy.example.toml", "next-1.toml"} < found
    assert not {"policy.toml", "next_policy.toml"} & found
    pool = load_config(tmp_path / "second" / "agent.toml").pool
    assert (pool.policy_file, pool.next_policy_file) == ("policy.example.toml", "next-1.toml")


@pytest.mark.parametrize(
    "named",
    [
        "../policy.toml",
        "/etc/policy.toml",
        "sub/policy.toml",
        "agent.toml",
        "node.key",
        "wallet.key",
        "node.key.signed",
        ".policy.toml",
        "policy.toml\n",
        "",
        "..",
        "p" * 200 + ".toml",
    ],
)
def test_no_name_in_a_config_leads_a_policy_elsewhere(config: Config, named: str) -> None:
    """Whoever knows a public key makes backups for its owner."""
    text = f"[pool]\npolicy_file = {json.dumps(named)}\nnext_policy_file = {json.dumps(named)}\n"
    files = {"agent.toml": text.encode(), "policy.toml": b"1", "next_policy.toml": b"2", "node.key": b"3"}
    assert restoring._names(files) == {name: name for name in files}


@pytest.mark.parametrize("text", [b"\xff", b"pool = 1", b"[pool]\npolicy_file = 1", b"[" * 5000, b"[[pool]]"])
def test_a_config_that_cannot_be_read_names_no_policy(text: bytes) -> None:
    assert restoring._names({"agent.toml": text, "policy.toml": b"1"})["policy.toml"] == "policy.toml"


def test_two_policies_do_not_get_one_name() -> None:
    text = b'[pool]\npolicy_file = "a.toml"\nnext_policy_file = "a.toml"\n'
    files = {"agent.toml": text, "policy.toml": b"1", "next_policy.toml": b"2"}
    assert sorted(restoring._names(files).values()) == ["a.toml", "agent.toml", "next_policy.toml"]
