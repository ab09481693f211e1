"""No secret in what is said: every verb and every failure is run, and all that it says is searched for the keys."""

from __future__ import annotations

import base64
import io
import traceback
from pathlib import Path
from typing import get_args

import pyrage
import pytest
import structlog
from journal_scene import own_config
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.config import Config
from agent.identity import load_key
from agent.keys.backing_up import gather_agent
from agent.log import Form, setup_logging
from contracts.signing import SigningKey

OWNER = pyrage.x25519.Identity.generate()
PHRASE = "correct horse battery staple"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = own_config(tmp_path / "agent")
    (tmp_path / "agent" / "policy.toml").write_text(POLICY_TEXT)
    for name, text in (("identity", str(OWNER)), ("phrase", PHRASE)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    return config


def spellings(seed: bytes) -> list[str]:
    """A secret as it could stand in a text: hex, base64, base32, escaped, a list of numbers, half of it."""
    return [
        seed.hex(),
        seed.hex().upper(),
        seed[:16].hex(),
        base64.b64encode(seed).decode().rstrip("="),
        base64.urlsafe_b64encode(seed).decode().rstrip("="),
        base64.b32encode(seed).decode().rstrip("="),
        repr(seed)[2:-1],
        seed.decode("latin-1"),
        ", ".join(map(str, seed)),
    ]


def secrets_of(config: Config) -> list[str]:
    found = [PHRASE, str(OWNER), str(OWNER)[15:60]]
    for name in ("node.key", "wallet.key"):
        path = config.path.with_name(name)
        path.chmod(0o600)
        found += spellings(load_key(path).seed)
        found += [line for line in path.read_text().splitlines() if not line.startswith("-")]
    return found


def require_clean(said: str, secrets: list[str]) -> None:
    assert [secret for secret in secrets if secret in said] == []


def failing(config: Config) -> list[list[str]]:
    """Commands that fail, each at another step, and some that do not."""
    folder, text = config.path.parent, str(config.path)
    place = folder.parent
    to_owner, by_owner = f"--recipient={OWNER.to_public()}", f"--identity={place / 'identity'}"
    return [
        ["keys", "show", "--config", text],
        ["keys", "show", "--config", text, "--json"],
        ["keys", "show", str(place / "identity")],
        ["keys", "create", str(folder / "node.key")],
        ["keys", "backup", str(place / "one.age"), "--config", text, to_owner, "--json"],
        ["keys", "backup", str(place / "one.age"), "--config", text, to_owner],
        ["keys", "backup", str(place / "two.age"), "--config", text, f"--recipient={OWNER}x"],
        ["keys", "backup", str(folder / "node.key" / "x"), "--config", text, to_owner],
        ["keys", "restore", str(place / "one.age"), by_owner, "--dry-run", "--json"],
        ["keys", "restore", str(place / "one.age"), by_owner, "--dir", str(place / "new"), "--yes", "--json"],
        ["keys", "restore", str(place / "one.age"), by_owner, "--dir", str(place / "phrase"), "--yes"],
        ["keys", "restore", str(place / "one.age"), f"--passphrase-file={place / 'phrase'}"],
        ["keys", "restore", str(place / "one.age"), f"--identity={place / 'phrase'}"],
        ["keys", "restore", str(folder / "node.key"), by_owner],
        ["init", "--dir", str(folder)],
        ["status", "--config", text],
        ["run", "--config", str(folder / "node.key")],
        ["pool", "register", "--config", str(folder / "node.key")],
    ]


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_no_command_says_a_secret(config: Config, capfd: pytest.CaptureFixture[str], debug: list[str]) -> None:
    secrets = secrets_of(config)
    said = ""
    for command in failing(config):
        try:
            main([*debug, *command])
        except SystemExit as ended:
            said += str(ended)
        out, err = capfd.readouterr()
        said += out + err
    assert "Traceback" in said or not debug
    require_clean(said, secrets)


@pytest.mark.parametrize("line", [1, 0, 2])
def test_a_damaged_key_is_not_quoted(config: Config, capfd: pytest.CaptureFixture[str], line: int) -> None:
    secrets = secrets_of(config)
    path = config.path.with_name("node.key")
    lines = path.read_text().splitlines()
    lines[line] = lines[line][:-3] + "!!!"
    path.write_text("\n".join(lines))
    assert main(["--debug", "keys", "show", "--config", str(config.path)]) == 2
    require_clean("".join(capfd.readouterr()), secrets)


def test_a_key_of_another_kind_is_not_quoted(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    secrets = secrets_of(config)
    path = config.path.with_name("node.key")
    seed = load_key(path).seed
    path.write_text(seed.hex())
    assert main(["--debug", "keys", "show", "--config", str(config.path)]) == 2
    path.write_bytes(seed)
    assert main(["--debug", "run", "--config", str(config.path)]) == 2
    require_clean("".join(capfd.readouterr()), secrets)


@pytest.mark.parametrize("form", get_args(Form))
def test_no_log_shows_a_secret_of_a_stack_that_holds_one(config: Config, form: Form) -> None:
    secrets = secrets_of(config)
    stream = io.StringIO()
    setup_logging("debug", stream=stream, form=form)
    key = load_key(config.path.with_name("node.key"))

    def failing_with(key: SigningKey, seed: bytes) -> None:
        gathered = gather_agent(config.path)
        raise RuntimeError(f"broken with {key!r} {gathered!r}")

    try:
        failing_with(key, key.seed)
    except RuntimeError as error:
        structlog.get_logger("agent").exception("broken", key=key, seed=key.seed, error=error)
        stream.write("".join(traceback.format_exception(error)))
    assert "broken" in stream.getvalue()
    require_clean(stream.getvalue(), secrets)


def test_a_key_is_no_text(config: Config) -> None:
    secrets = secrets_of(config)
    key = load_key(config.path.with_name("node.key"))
    said = f"{key} {key!r} {[key]} {gather_agent(config.path)!r}"
    assert key.public.hex() in said
    require_clean(said, secrets)
