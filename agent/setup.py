"""`gpupool init`: makes what a new agent needs, and never overwrites what is there.

1. The answers are checked before anything is made.
2. Then come the keys, the journal, and last the config: while there is none, init may be run again, and goes
   on with the keys and the journal that are there.
3. A journal of another key or pool is refused, like everywhere.
4. The policy is copied beside the config: all that an agent is made of stands in one folder.
5. A new journal for a key that was there before does not know what the key signed: its agent asks the operators.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.config import Config, parse_config
from agent.errors import ConfigError, JournalError
from agent.files import give_to_folders_owner, write_new
from agent.identity import create_key, load_key
from agent.journal import create_journal, open_journal
from contracts.signing import SigningKey
from gossip.records import PoolId

CONFIG_NAME = "agent.toml"
NODE_KEY_NAME = "node.key"
WALLET_KEY_NAME = "wallet.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another agent: its node key (64 hex digits) and multiaddrs."""

    node_key: str
    addresses: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What `init` has to be told. Paths are as they shall stand in the config, relative ones to its folder."""

    network: str | int
    pool: str
    policy_file: str
    liteservers: Sequence[tuple[str, int, str]]
    work: Mapping[str, Mapping[str, object]]
    """The tables of what is measured, as ("engine", {"url": "http://127.0.0.1:8000/metrics"})."""
    attestation: Mapping[str, str | bool | None]
    """The keys of [attestation]; those that are None are left out."""
    data_dir: str = "data"
    listen: Sequence[str] = ("/ip4/0.0.0.0/tcp/4001",)
    announce: Sequence[str] = ()
    peers: Sequence[Peer] = ()
    web_port: int = 9464
    more: Mapping[str, Mapping[str, str | int | float | Sequence[str]]] = field(default_factory=dict)
    """Further keys by table, as ("chain", {"poll_interval_s": 1.0})."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAgent:
    """What was made."""

    config: Config
    node_key: SigningKey
    wallet_key: SigningKey


def init_agent(directory: Path, answers: Answers, *, has_policy_copied: bool = False) -> NewAgent:
    """Make keys, journal and config in `directory`; also a copy of the policy, if that is asked for.

    Raises:
        ConfigError: a config or another policy is there already, an answer is not allowed in a config, or a file cannot
            be read or written.
        KeyFileError, JournalError: a key or the journal cannot be made, or belongs to something else.
    """
    path = directory / CONFIG_NAME
    if os.access(path, os.F_OK, effective_ids=True):  # one that this user may not see is no reason to refuse
        raise ConfigError(f"{path}: exists already; edit it, or name another --dir")
    _require_writable(directory)
    source = Path(answers.policy_file)
    if has_policy_copied:
        answers = replace(answers, policy_file=source.name)
    text = config_text(answers)
    config = parse_config(text, path)
    if has_policy_copied:
        _copy_policy(source, directory / source.name)
    is_key_new = not (directory / NODE_KEY_NAME).exists()
    node, wallet = make_keys(directory)
    _make_journal(config, node, is_key_new=is_key_new)
    draft = path.with_suffix(".new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.rename(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return NewAgent(config=config, node_key=node, wallet_key=wallet)


def _require_writable(directory: Path) -> None:
    """Raise `ConfigError` if this user may not write in the folder, or not make it: no file of it is to blame."""
    nearest = directory.absolute()
    while not os.access(nearest, os.F_OK, effective_ids=True):
        nearest = nearest.parent
    if os.geteuid() != 0 and nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(
            f"{directory}: this user may not write there; run the command with sudo, or name another --dir"
        )


def _copy_policy(source: Path, target: Path) -> None:
    """Keep the policy beside the config, where the service can read it and a backup finds its place."""
    try:
        content = source.read_bytes()
        if target.exists() and target.read_bytes() == content:
            return
        write_new(target, content, mode=0o644)
    except FileExistsError:
        raise ConfigError(f"{target}: another policy stands there already; move it away") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be copied from {source}: {error.strerror}") from error


def make_keys(directory: Path) -> tuple[SigningKey, SigningKey]:
    """Node key and wallet key in `directory`: those that are there, new ones where there are none.

    Raises:
        KeyFileError: a key file cannot be read or written, or is readable by others.
    """
    paths = (directory / NODE_KEY_NAME, directory / WALLET_KEY_NAME)
    node, wallet = (load_key(path) if path.exists() else create_key(path) for path in paths)
    return node, wallet


def fresh_journal(config: Config) -> None:
    """Make an empty journal for a node key that signed before: its agent learns the own log from the operators.

    Raises:
        JournalError: there is one, or it cannot be made.
        KeyFileError: the node key cannot be read.
    """
    node = load_key(config.resolve(config.identity.node_key_file))
    new_journal(config, node.public, is_key_new=False)


def new_journal(config: Config, node_key: bytes, *, is_key_new: bool) -> None:
    """Make an empty journal for this node key (32 bytes), its folder's owner's. Raises `JournalError`."""
    path = config.journal_file
    create_journal(path, node_key=node_key, pool=_pool(config), is_key_new=is_key_new)
    try:
        give_to_folders_owner(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be given to its folder's owner: {error.strerror}") from error


def _make_journal(config: Config, node: SigningKey, *, is_key_new: bool) -> None:
    """A new journal, unless the one of this very key and pool is there: from an init that was cut short."""
    if config.journal_file.exists():
        open_journal(config.journal_file, node_key=node.public, pool=_pool(config)).close()
    else:
        new_journal(config, node.public, is_key_new=is_key_new)


def _pool(config: Config) -> PoolId:
    return PoolId(config.pool.global_id, config.pool.contract.account)


def config_text(answers: Answers) -> str:
    """The TOML of a config with these answers."""
    tables: dict[str, dict[str, object]] = {
        "pool": {"network": answers.network, "address": answers.pool, "policy_file": answers.policy_file},
        "chain": {},
        **{name: dict(keys) for name, keys in answers.work.items()},
        "attestation": dict(answers.attestation),
        "identity": {"node_key_file": NODE_KEY_NAME},
        "wallet": {"key_file": WALLET_KEY_NAME},
        "p2p": {"listen": list(answers.listen), "announce": list(answers.announce)},
        "web": {"port": answers.web_port},
    }
    for name, keys in answers.more.items():
        tables.setdefault(name, {}).update(keys)
    text = f"data_dir = {toml_value(answers.data_dir)}\n\n"
    for name, table in tables.items():
        text += toml_table(f"[{name}]", table)
    for host, port, key in answers.liteservers:
        text += toml_table("[[chain.liteservers]]", {"host": host, "port": port, "public_key": key})
    for peer in answers.peers:
        text += toml_table("[[p2p.peers]]", {"node_key": peer.node_key, "addresses": list(peer.addresses)})
    return text


def toml_table(header: str, table: Mapping[str, object]) -> str:
    """A table of a TOML file; keys whose value is None are left out."""
    lines = [f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join([header, *lines, "", ""])


def toml_value(value: object) -> str:
    """A value as TOML: text, numbers and booleans look as in JSON; tables stand inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
