"""What this user may not read: every command says so in one line, and how to run it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_on_disk import agent_on_disk

from agent.cli import main
from agent.config import Config
from agent.errors import DENIED, ConfigError
from agent.identity import load_key
from agent.ledger import ledger_file, open_ledger
from agent.setup import Answers, init_agent
from gossip.records import PoolId

NOBODY = 65534


@pytest.fixture
def config() -> Iterator[Config]:
    """An agent in a folder into which others may look: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = agent_on_disk(folder)
        pool = PoolId(config.pool.global_id, config.pool.contract.account)
        open_ledger(ledger_file(config), node_key=load_key(folder / "node.key").public, pool=pool).close()
        yield config


@contextmanager
def closed(*paths: Path) -> Iterator[None]:
    """Within the block, these cannot be read or entered: root is another user meanwhile."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path in paths:
        path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["earnings"], "ledger.sqlite"),
        (["work", "explain"], "ledger.sqlite"),
        (["db", "check"], "journal.sqlite"),
        (["db", "export", "journal"], "journal.sqlite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_file_of_the_data_folder(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    name: str,
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*command, "--config", str(config.path)]
    main(arguments)  # once as the owner: what is imported late may stand where another user may not look
    (tmp_path / "journal").unlink(missing_ok=True)
    capsys.readouterr()
    data = config.data_dir
    if what == "file":
        data.chmod(0o755)
    with closed(data if what == "folder" else data / name):
        code = main(arguments)
    said = capsys.readouterr()
    assert (code, said.err) == (1, f"gpupool: {data / name}: {DENIED}\n")


def test_the_owner_reads_them(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["earnings"], ["db", "check"]):
        main([*command, "--config", str(config.path)])
        assert DENIED not in capsys.readouterr().err


def test_a_key_behind_a_closed_folder_is_not_taken_for_none(config: Config) -> None:
    keys = config.path.parent / "keys"
    keys.mkdir()
    config.path.with_name("node.key").rename(keys / "node.key")
    config.path.write_text(config.path.read_text().replace('"node.key"', '"keys/node.key"'))
    arguments = ["keys", "show", "--config", str(config.path)]
    assert main(arguments) == 0
    with closed(keys):
        assert main(arguments) == 2


def test_init_blames_the_folder_and_no_file(config: Config) -> None:
    answers = Answers(
        network=-217,
        pool="0:" + "ab" * 32,
        policy_file=str(config.path.with_name("policy.toml")),
        liteservers=[("127.0.0.1", 1, "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE=")],
        work={"engine": {"url": "http://127.0.0.1:1/metrics"}},
        attestation={"provider": "configfs"},
    )
    folder = config.path.parent / "etc"
    folder.mkdir(mode=0o700)
    for directory in (folder, folder / "gpupool"):
        with closed(folder), pytest.raises(ConfigError) as refused:
            init_agent(directory, answers, has_policy_copied=True)
        where = "this user may not write there; run the command with sudo, or name another --dir"
        assert str(refused.value) == f"{directory}: {where}"
    assert list(folder.iterdir()) == []
