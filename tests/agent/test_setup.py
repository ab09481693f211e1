"""`gpupool init`: what it makes, what it leaves alone, and that one that was cut short can be run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import setup
from agent.config import load_config
from agent.errors import ConfigError, JournalError, KeyFileError
from agent.setup import Answers, Peer, init_agent, toml_value

KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="


def answers(pool: str = "0:" + "ab" * 32, engine_url: str = "http://127.0.0.1:8000/metrics") -> Answers:
    return Answers(
        network=-217,
        pool=pool,
        policy_file="policy.toml",
        liteservers=[("127.0.0.1", 4924, KEY_BASE64)],
        work={"engine": {"url": engine_url}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root.der"},
        announce=["/ip4/203.0.113.9/tcp/4001"],
        peers=[Peer(node_key="cd" * 32, addresses=["/ip4/203.0.113.7/tcp/4001"])],
        more={"meter": {"window_s": 7}},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_init_then_load(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "agent"
    made = init_agent(folder, answers())
    assert names(folder) == ["agent.toml", "data", "node.key", "wallet.key"]
    assert load_config(folder / "agent.toml") == made.config
    assert made.config.meter.window_s == 7
    assert made.config.p2p.peers[0].addresses == ("/ip4/203.0.113.7/tcp/4001",)
    assert made.config.p2p.announce == ("/ip4/203.0.113.9/tcp/4001",)


def test_a_config_is_never_overwritten(tmp_path: Path) -> None:
    init_agent(tmp_path, answers())
    before = {name: (tmp_path / name).read_bytes() for name in ("agent.toml", "node.key", "wallet.key")}
    with pytest.raises(ConfigError, match=r"agent\.toml: exists already"):
        init_agent(tmp_path, answers())
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_wrong_answer_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml: engine\.url: expected"):
        init_agent(tmp_path / "agent", answers(engine_url="ftp://x"))
    assert not (tmp_path / "agent").exists()


def test_keys_that_are_there_are_used(tmp_path: Path) -> None:
    node, wallet = setup.make_keys(tmp_path)
    made = init_agent(tmp_path, answers())
    assert (made.node_key.public, made.wallet_key.public) == (node.public, wallet.public)


@pytest.mark.parametrize("step", ["make_keys", "create_journal", "rename"])
def test_an_init_that_was_cut_short_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, step) if step == "rename" else (setup, step)), _power_cut)
        with pytest.raises(SystemExit):
            init_agent(tmp_path, answers())
    assert not (tmp_path / "agent.toml").exists()
    first = (tmp_path / "node.key").read_bytes() if step != "make_keys" else None
    made = init_agent(tmp_path, answers())
    assert names(tmp_path) == ["agent.toml", "data", "node.key", "wallet.key"]
    assert first in (None, (tmp_path / "node.key").read_bytes())
    assert made.config.journal_file.exists()


def test_a_journal_of_another_pool_or_key_is_refused(tmp_path: Path) -> None:
    init_agent(tmp_path, answers())
    (tmp_path / "agent.toml").unlink()
    with pytest.raises(JournalError, match="belongs to another pool"):
        init_agent(tmp_path, answers(pool="0:" + "cd" * 32))
    (tmp_path / "node.key").unlink()
    with pytest.raises(JournalError, match="belongs to another node key"):
        init_agent(tmp_path, answers())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be written"):
        init_agent(tmp_path / "file" / "agent", answers())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('a "b" \\ ü', '"a \\"b\\" \\\\ ü"'),
        (True, "true"),
        (1.5, "1.5"),
        (["a", 1], '["a", 1]'),
        ({"a": 1, "b": None}, "{a = 1}"),
    ],
)
def test_values_as_toml(value: object, text: str) -> None:
    assert toml_value(value) == text


def _power_cut(*_: object, **__: object) -> None:
    raise SystemExit("the power went")
