"""The backup at `gpupool init`: offered at a terminal, named in a script, missed aloud."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pyrage
import pytest
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.identity import load_key
from agent.keys import archive, asking, offering
from agent.keys.marker import last_backup
from agent.keys.sealing import Identities, Passphrase, unseal

OWNER = pyrage.x25519.Identity.generate()
PHRASE = "correct horse battery staple"
INIT = (
    *("init", "--dir=agent", "--network=-217", "--policy-file=policy.toml", f"--pool=0:{'ab' * 32}"),
    "--liteserver=127.0.0.1:4924:hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE=",
    *("--engine=http://127.0.0.1:8000/metrics", "--software-dir=platform", "--software-root=root.der"),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policy.toml").write_text(POLICY_TEXT)
    (tmp_path / "root.der").write_bytes(b"root")
    (tmp_path / "platform").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_names_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*INIT, "--backup=agent.age", f"--recipient={OWNER.to_public()}", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["backup"] == str(place / "agent.age")
    files = archive.unpack(unseal((place / "agent.age").read_bytes(), Identities((str(OWNER),))))
    assert files["node.key"] == (place / "agent" / "node.key").read_bytes()
    assert last_backup(place / "agent" / "node.key", bytes.fromhex(made["node_key"])) is not None


def test_without_one_it_is_said_what_is_at_stake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(INIT) == 0
    said = capsys.readouterr()
    assert "the keys are not backed up yet: whoever loses the wallet key" in said.err
    assert "backup    none yet" in said.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--backup=agent.age"], "there is no terminal to ask at: give --passphrase-file"),
        (["--backup=policy.toml", "--recipient=age1"], "exists already; a backup is never overwritten"),
        (["--backup=agent.age", "--recipient=age1"], "no age public key"),
        (["--recipient=age1"], "are for --backup FILE"),
    ],
)
def test_what_is_wrong_with_it_is_said_before_anything_is_made(
    place: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*INIT, *more]) == 2
    assert said in capsys.readouterr().err
    assert not (place / "agent").exists()


def test_at_a_terminal_it_is_offered(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["policy.toml", "agent.age", PHRASE, PHRASE]
    monkeypatch.setattr(asking, "is_asking_possible", lambda: True)
    monkeypatch.setattr(offering, "is_asking_possible", lambda: True)
    monkeypatch.setattr(offering, "ask", lambda _: typed.pop(0))
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: typed.pop(0))
    assert main(INIT) == 0
    assert "policy.toml: exists already" in capsys.readouterr().err, "and it is asked again"
    assert typed == []
    files = archive.unpack(unseal((place / "agent.age").read_bytes(), Passphrase(PHRASE)))
    assert "wallet.key" in files


def test_an_interrupt_at_the_question_leaves_said_what_was_made(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(offering, "is_asking_possible", lambda: True)
    monkeypatch.setattr(offering, "ask", interrupted)
    assert main(INIT) == 130
    said = capsys.readouterr()
    config = place / "agent" / "agent.toml"
    made, _, wallet = said.out.splitlines()
    assert made == f"made {config}, keys and journal"
    assert wallet.startswith("wallet    0Q")
    assert said.err.endswith(f"without a backup: gpupool keys backup FILE --config {config}\n")


def test_the_data_folder_is_its_owners_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*INIT, "--data-dir=data", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (place / "data").stat().st_mode & 0o777 == 0o700
    assert made["wallet_for_funding"].startswith("0Q")


def test_the_policy_that_stands_there_is_not_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "agent").mkdir()
    (place / "agent" / "policy.toml").write_text("another")
    assert main(INIT) == 2
    assert "another policy stands there already" in capsys.readouterr().err
    (place / "agent" / "policy.toml").write_text(POLICY_TEXT)
    assert main(INIT) == 0
    assert load_key(place / "agent" / "node.key")


@pytest.mark.slow
def test_a_real_terminal_shows_no_passphrase(place: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "agent", *INIT])
    shown = b""
    for wanted, line in [(b"Enter: not now", "agent.age"), (b"15 characters", PHRASE), (b"same again", PHRASE)]:
        while wanted not in shown:
            shown += os.read(terminal, 4096)
        # What was typed before the echo is off would be shown.
        os.write(terminal, line.encode() + b"\n")
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:
        pass  # the terminal's other end is closed
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert b"agent.age" in shown
    assert PHRASE.encode() not in shown
    assert archive.unpack(unseal((place / "agent.age").read_bytes(), Passphrase(PHRASE)))
