"""`gpupool config check`: a settings file can be used, or key and line are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from agent_on_disk import agent_on_disk

from agent.cli import main
from agent.config import Config
from agent.doctor.probing_files import open_settings
from agent.policies import load_policies


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return agent_on_disk(tmp_path)


def test_what_can_be_used(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    (policy,) = load_policies(config)
    assert main(["config", "check", str(config.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{config.path}: can be used",
        f"pool      {config.pool.contract} on -217",
        f"policy    {policy.hash.hex()}",
        f"data_dir  {config.data_dir}",
    ]
    assert main(["config", "check", str(config.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["policies"]) == (str(config.path), [policy.hash.hex()])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[web]", "[wep]", "wep: unknown key; did you mean web? (line "),
        (
            'provider = "software"',
            'provider = "tdx"',
            'expected "cocoon", "configfs" or "software", not \'tdx\' (line ',
        ),
        ('policy_file = "policy.toml"', 'policy_file = "none.toml"', "none.toml"),
        ("[web]", "[web]\nport = 70000", "not TOML: "),
    ],
)
def test_what_cannot(config: Config, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str) -> None:
    text = config.path.read_text()
    assert old in text
    config.path.write_text(text.replace(old, new))
    assert main(["config", "check", str(config.path)]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_a_window_that_the_policy_does_not_allow(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    config.path.write_text(config.path.read_text().replace("window_s = 30", "window_s = 31"))
    assert main(["config", "check", str(config.path)]) == 2
    said = f"{config.path}: meter.window_s: expected 1 to 30 (half of the policy's work.window_max_s), not 31"
    assert capsys.readouterr().err == f"gpupool: {said}\n"
    facts, opened = open_settings(config.path)
    assert facts.config == said, "the doctor says it, too"
    assert opened is not None
