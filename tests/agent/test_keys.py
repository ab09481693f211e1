"""`gpupool keys create|show|backup|restore`, and the backup at init: nothing lost, nothing overwritten."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from journal_scene import OWN, fill_journal
from key_backups import OWNER, TO_OWNER, agent_with_policy, back_up, identity_file, restore
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.config import Config, load_config
from agent.db.archive import export_journal
from agent.errors import KeyFileError
from agent.identity import create_key, load_key
from agent.journal import open_journal
from agent.keys import archive, asking, offering
from agent.keys import verbs as key_verbs
from agent.keys.marker import last_backup
from agent.keys.sealing import Identities, Recipients, seal, unseal
from contracts.wallet import wallet_address
from gossip.addresses import peer_id_text

PHRASE = "correct horse battery staple"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An agent whose journal is not empty."""
    config = agent_with_policy(tmp_path / "agent")
    (tmp_path / "agent" / "node.key.signed").write_text("[]\n")
    return config


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return identity_file(tmp_path / "identity")


@pytest.fixture
def backup(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = back_up(config, tmp_path / "agent.age")
    capsys.readouterr()
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A terminal, at which this is typed."""
    lines: list[str] = []
    monkeypatch.setattr(asking, "is_asking_possible", lambda: True)
    for module in (offering, key_verbs):
        monkeypatch.setattr(module, "is_asking_possible", lambda: True)
        monkeypatch.setattr(module, "ask", lambda _: lines.pop(0))
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: lines.pop(0))
    yield lines
    assert lines == [], "all of it was asked for"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Show.


def test_what_is_shown_of_an_agent(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    node, wallet = load_key(config.path.with_name("node.key")), load_key(config.path.with_name("wallet.key"))
    assert main(["keys", "show", "--config", str(config.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["node_key"] == {
        "public_key": node.public.hex(),
        "peer_id": peer_id_text(node.public),
        "file": str(config.path.with_name("node.key")),
        "mode": "0600",
        "backup": None,
    }
    address = wallet_address(wallet.public, "v5r1", global_id=config.pool.global_id)
    assert shown["wallet_key"]["wallet"] == str(address)
    assert main(["keys", "show", "--config", str(config.path)]) == 0
    text = capsys.readouterr().out
    assert peer_id_text(node.public) in text
    assert "none: gpupool keys backup FILE" in text


def test_what_is_shown_of_a_key_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = create_key(tmp_path / "owner.key")
    assert main(["keys", "show", str(tmp_path / "owner.key"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["key"]
    assert shown["public_key"] == key.public.hex()
    assert "wallet" not in shown
    assert main(["keys", "show", str(tmp_path / "owner.key"), "--network", "testnet"]) == 0
    assert str(wallet_address(key.public, global_id=-3)) in capsys.readouterr().out
    assert main(["keys", "show", "--network", "testnet"]) == 2


# Backup.


def test_a_backup_holds_what_an_agent_is_made_of(config: Config, backup: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    files = archive.unpack(unseal(backup.read_bytes(), Identities((str(OWNER),))))
    folder = config.path.parent
    assert set(files) == {"agent.toml", "policy.toml", "node.key.signed", "node.key", "wallet.key"}
    assert all((folder / name).read_bytes() == content for name, content in files.items())


def test_a_backup_is_noted_beside_the_keys(config: Config, backup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("node.key", "wallet.key"):
        path = config.path.with_name(name)
        found = last_backup(path, load_key(path).public)
        assert found is not None
        assert found.file == str(backup)
        assert last_backup(path, bytes(32)) is None, "another key was not backed up"
        assert stat.S_IMODE(path.with_name(f"{name}.backup").stat().st_mode) == 0o644
    assert main(["keys", "show", "--config", str(config.path)]) == 0
    assert str(backup) in capsys.readouterr().out


def test_a_note_that_is_none(config: Config) -> None:
    path = config.path.with_name("node.key")
    for content in (b"", b"[]", b"\xff", b'{"made_s":1}'):
        path.with_name("node.key.backup").write_bytes(content)
        with pytest.raises(KeyFileError, match="damaged"):
            last_backup(path, bytes(32))


def test_a_backup_is_never_written_over_a_file(
    config: Config, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = backup.read_bytes()
    assert main(["keys", "backup", str(backup), "--config", str(config.path), TO_OWNER]) == 2
    assert "exists already; a backup is never overwritten" in capsys.readouterr().err
    assert backup.read_bytes() == before


def test_a_key_that_could_not_be_used_is_not_backed_up(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.path.with_name("wallet.key").chmod(0o640)
    assert main(["keys", "backup", str(tmp_path / "new.age"), "--config", str(config.path), TO_OWNER]) == 2
    assert "wallet.key: readable by others" in capsys.readouterr().err
    assert not (tmp_path / "new.age").exists()


def test_an_owners_key_alone(tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = create_key(tmp_path / "owner.key")
    backup = tmp_path / "owner.age"
    assert main(["keys", "backup", str(backup), "--key", str(tmp_path / "owner.key"), TO_OWNER]) == 0
    assert restore(backup, identity, tmp_path / "new") == 0, "no other host can be in its way"
    assert load_key(tmp_path / "new" / "owner.key").public == key.public
    capsys.readouterr()
    (tmp_path / "owner.key").rename(tmp_path / "owner.pem")
    assert main(["keys", "backup", str(backup) + "2", "--key", str(tmp_path / "owner.pem"), TO_OWNER]) == 2
    assert "ends in .key" in capsys.readouterr().err


def test_where_a_passphrase_cannot_come_from(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "phrase"
    file.touch(0o600)
    cases = [
        (None, "there is no terminal to ask at: give --passphrase-file"),
        (b"fourteen chars", "at least 15 characters"),
        (b"\n" + PHRASE.encode(), "its first line shall be the passphrase"),
        (b"\xff" * 20, "not a text in UTF-8"),
    ]
    command = ["keys", "backup", str(tmp_path / "new.age"), "--config", str(config.path)]
    for content, said in cases:
        if content is not None:
            file.write_bytes(content)
        assert main([*command, *([] if content is None else [f"--passphrase-file={file}"])]) == 2
        assert said in capsys.readouterr().err
    file.write_text(PHRASE)
    assert main([*command, f"--passphrase-file={file}", TO_OWNER]) == 2
    assert "takes no passphrase besides" in capsys.readouterr().err
    file.chmod(0o644)
    assert main([*command, f"--passphrase-file={file}"]) == 2
    assert "readable by others" in capsys.readouterr().err
    assert not (tmp_path / "new.age").exists()


def test_a_passphrase_is_typed_twice(
    config: Config, tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    backup = tmp_path / "new.age"
    command = ["keys", "backup", str(backup), "--config", str(config.path)]
    typed += ["short", PHRASE, PHRASE + "x", "short"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "at least 15 characters" in said
    assert "not the same" in said
    typed += [PHRASE, PHRASE]
    assert main(command) == 0
    phrase = tmp_path / "phrase"
    phrase.touch(0o600)
    phrase.write_text(f"{PHRASE}\nwhat follows is not part of it\n")
    assert main(["keys", "restore", str(backup), f"--passphrase-file={phrase}", "--dry-run"]) == 0
    typed += [PHRASE[:-1]]
    capsys.readouterr()
    assert main(["keys", "restore", str(backup), "--dry-run"]) == 1
    assert capsys.readouterr().err == f"gpupool: {backup}: wrong passphrase, or the file is damaged\n"


# Restore.


def test_a_restored_agent_asks_the_operators_first(
    config: Config, backup: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "second"
    assert restore(backup, identity, folder, "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["remarks"] == []
    made = load_config(folder / "agent.toml")
    assert load_key(folder / "node.key").public.hex() == told["keys"]["node.key"] == OWN["node_key"].hex()
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()} == {
        "node.key": 0o600,
        "wallet.key": 0o600,
        "node.key.signed": 0o600,
        "agent.toml": 0o644,
        "policy.toml": 0o644,
        "node.key.backup": 0o644,
        "wallet.key.backup": 0o644,
    }
    with closing(open_journal(made.journal_file, **OWN)) as journal:
        assert not journal.is_own_log_known
    assert told["journal"] == str(made.journal_file)


def test_an_export_of_the_journal_is_taken(config: Config, backup: Path, identity: Path, tmp_path: Path) -> None:
    with closing(open_journal(config.journal_file, **OWN)) as journal:
        fill_journal(journal)
        head = journal.own_head()
    export_journal(config.journal_file, tmp_path / "journal", **OWN)
    assert restore(backup, identity, tmp_path / "second", "--yes", f"--journal={tmp_path / 'journal'}") == 0
    with closing(open_journal(tmp_path / "second" / "data" / "journal.sqlite", **OWN)) as journal:
        assert journal.own_head() == head
        assert not journal.is_own_log_known


def test_the_old_host_must_be_off(
    backup: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(backup, identity, tmp_path / "second") == 2
    assert "nothing was written. Two agents with one node key" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_it_is_asked_at_a_terminal(backup: Path, identity: Path, tmp_path: Path, typed: list[str]) -> None:
    typed += ["no", "yes"]
    assert restore(backup, identity, tmp_path / "second") == 2
    assert restore(backup, identity, tmp_path / "second") == 0


def test_a_rehearsal_writes_nothing(
    backup: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(backup, identity, tmp_path / "second", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "can be opened: agent.toml, policy.toml, node.key.signed, node.key, wallet.key" in said
    assert OWN["node_key"].hex() in said
    assert not (tmp_path / "second").exists()


def test_nothing_is_overwritten(
    backup: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "policy.toml").write_text("another")
    assert restore(backup, identity, folder, "--yes") == 2
    assert "policy.toml: exists already and is another" in capsys.readouterr().err
    assert names(folder) == {"policy.toml"}


def test_a_restoration_that_was_cut_short_can_be_run_again(
    config: Config, backup: Path, identity: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    assert restore(backup, identity, folder, "--yes") == 0
    for name in ("agent.toml", "wallet.key"):
        (folder / name).unlink()
    journal = (folder / "data" / "journal.sqlite").read_bytes()
    assert restore(backup, identity, folder, "--yes") == 0
    assert (folder / "agent.toml").read_bytes() == config.path.read_bytes()
    assert (folder / "data" / "journal.sqlite").read_bytes() == journal, "a journal that is there stays"


def test_a_config_that_names_other_files_is_pointed_out(
    config: Config, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config.path.read_text()
    far = tmp_path / "far.toml"
    far.write_text(POLICY_TEXT)
    config.path.write_text(text.replace('policy_file = "policy.toml"', f'policy_file = "{far}"'))
    backup = tmp_path / "far.age"
    assert main(["keys", "backup", str(backup), "--config", str(config.path), TO_OWNER]) == 0
    far.unlink()
    capsys.readouterr()
    assert restore(backup, identity, tmp_path / "second", "--yes") == 0
    said = capsys.readouterr().out
    assert f"mend: {tmp_path}/second/agent.toml: pool.policy_file names {far}" in said
    assert 'set it to "policy.toml"' in said


def test_a_config_that_names_a_device_is_pointed_out(
    config: Config, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever knows a public key makes backups for its owner: this one would be read for ever."""
    content = {path.name: path.read_bytes() for path in config.path.parent.glob("*.key")}
    text = config.path.read_text().replace('key_file = "wallet.key"', 'key_file = "/dev/zero"')
    backup = tmp_path / "device.age"
    packed = archive.pack({"agent.toml": text.encode(), **content}, made_s=0)
    backup.write_bytes(seal(packed, Recipients((str(OWNER.to_public()),))))
    assert restore(backup, identity, tmp_path / "second", "--yes") == 0
    assert "wallet.key_file names /dev/zero" in capsys.readouterr().out


def test_the_keys_survive_a_config_that_this_version_does_not_take(
    config: Config, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = archive.pack(
        {"agent.toml": b"surprise = 1\n", "node.key": config.path.with_name("node.key").read_bytes()}, made_s=0
    )
    backup = tmp_path / "old.age"
    backup.write_bytes(seal(files, Recipients((str(OWNER.to_public()),))))
    assert restore(backup, identity, tmp_path / "second", "--yes") == 0
    said = capsys.readouterr().out
    assert "mend: " in said
    assert "`gpupool run --fresh`" in said
    assert load_key(tmp_path / "second" / "node.key").public == OWN["node_key"]


def test_what_is_no_backup(tmp_path: Path, identity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.age"
    for content, said in [
        (None, "No such file"),
        (b"", "no age file"),
        (bytes(5 << 20), "longer than"),
        (seal(b"text", Recipients((str(OWNER.to_public()),))), "no tar archive, or damaged"),
    ]:
        if content is not None:
            path.write_bytes(content)
        assert restore(path, identity, tmp_path / "second", "--yes") == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_a_backup_makes_no_folder(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stick that is not mounted would be a folder on the disk that the backup shall outlive."""
    target = tmp_path / "usb" / "agent.age"
    assert main(["keys", "backup", str(target), "--config", str(config.path), TO_OWNER]) == 2
    assert "usb: no such folder, and none is made" in capsys.readouterr().err
    assert not target.parent.exists()


def test_a_backup_beside_its_keys_is_said_to_be_no_good_one(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "backup", str(tmp_path / "agent.age"), "--config", str(config.path), TO_OWNER]) == 0
    assert "agent.age is on the disk of the keys themselves" in capsys.readouterr().err
