"""Probes of files and ports of this host: settings, keys, policies, data folder, what proves the host.

All of it blocks, and only looks: a port is bound for a moment, and only while no agent runs.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.config import Config, load_config
from agent.doctor.facts import HostFacts, Nothing, SettingsFacts, Trial, Unknown
from agent.errors import AgentError, ConfigError, KeyDeniedError, KeyFileError
from agent.identity import load_key
from agent.keys.marker import last_backup
from agent.keys.rotating import next_file
from agent.policies import Policies, load_policies, require_window
from agent.providers import open_providers, pool_root
from agent.servers import config_servers
from attestation.errors import AttestationError
from contracts.chain_values import LiteServer
from contracts.errors import ContractsError
from contracts.signing import SigningKey
from gossip.addresses import parse_tcp_address
from gossip.policy import PoolPolicy

UNREAD = Unknown("the settings cannot be read")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the settings lead to; None where that cannot be used."""

    config: Config
    node_key: SigningKey | None
    wallet_key: SigningKey | None
    policies: Mapping[bytes, PoolPolicy] | None
    servers: tuple[LiteServer, ...]
    next_node_key: SigningKey | None = None
    """That of a rotation which is not finished."""


def open_settings(path: Path) -> tuple[SettingsFacts, Opened | None]:
    """Read the settings file and all that it names; nothing that is wrong with one keeps from reading the next."""
    try:
        config = load_config(path)
    except ConfigError as error:
        return unread_settings(str(error)), None
    keys = {
        "node_key": config.resolve(config.identity.node_key_file),
        "wallet_key": config.resolve(config.wallet.key_file),
    }
    node_key, node_trial = _try(lambda: load_key(keys["node_key"]))
    wallet_key, wallet_trial = _try(lambda: load_key(keys["wallet_key"]))
    denied = frozenset(name for name, file in keys.items() if _is_denied(file) and not _is_closed(file))
    files = [file for file in (config.pool.policy_file, config.pool.next_policy_file) if file is not None]
    held, policy_trial = _try(lambda: load_policies(config))
    policies = None if held is None else {policy.hash: policy for policy in held}
    servers, servers_trial = _try(lambda: tuple(config_servers(config)))
    _, proof_trial = _try(lambda: (pool_root(config), open_providers(config)))
    facts = SettingsFacts(
        config=None if held is None else _wrong_window(config, held),
        node_key=node_trial,
        wallet_key=wallet_trial,
        closed_keys={name: str(file) for name, file in keys.items() if _is_closed(file)},
        denied_keys=denied,
        policy=policy_trial,
        policy_files=tuple(str(config.resolve(file)) for file in files[: len(policies or ())]),
        servers=servers_trial,
        proof=proof_trial,
        changed_s=_changed_s(path),
        not_backed_up=Unknown("this user may not read the keys")
        if denied
        else tuple(
            str(keys[name])
            for name, key in (("node_key", node_key), ("wallet_key", wallet_key))
            if key is not None and not _is_backed_up(keys[name], key)
        ),
    )
    opened = Opened(
        config=config,
        node_key=node_key,
        wallet_key=wallet_key,
        policies=policies,
        servers=servers or (),
        next_node_key=_try(lambda: load_key(next_file(config)))[0],
    )
    return facts, opened


def unread_settings(reason: str) -> SettingsFacts:
    """What is known of settings that cannot be read."""
    return SettingsFacts(
        config=reason,
        node_key=UNREAD,
        wallet_key=UNREAD,
        closed_keys={},
        policy=UNREAD,
        policy_files=(),
        servers=UNREAD,
        proof=UNREAD,
        changed_s=UNREAD,
        not_backed_up=UNREAD,
    )


def _try(function: Callable[[], _T]) -> tuple[_T | None, Trial]:
    try:
        return function(), None
    except (AgentError, AttestationError, ContractsError) as error:
        return None, str(error)


def _wrong_window(config: Config, policies: Policies) -> str | None:
    """What is wrong with the one setting that the policies bound."""
    try:
        require_window(config, policies)
    except ConfigError as error:
        return str(error)
    return None


def _is_closed(key_file: Path) -> bool:
    """Whether `agent.identity` refuses the file for its mode: others can read it, or its owner cannot."""
    try:
        mode = key_file.stat().st_mode
    except OSError:
        return False  # what keeps it from being used is not its mode
    return stat.S_ISREG(mode) and (bool(mode & (stat.S_IRWXG | stat.S_IRWXO)) or not mode & stat.S_IRUSR)


def _is_denied(key_file: Path) -> bool:
    """Whether this user may not read it, which an agent that gets it from systemd need not."""
    try:
        load_key(key_file)
    except KeyFileError as error:
        return isinstance(error, KeyDeniedError)
    return False


def _is_backed_up(key_file: Path, key: SigningKey) -> bool:
    try:
        return last_backup(key_file, key.public) is not None
    except KeyFileError:
        return False  # a note that cannot be read is none


def _changed_s(path: Path) -> int | Unknown:
    try:
        return int(path.stat().st_mtime)
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")


def look_at_host(config: Config, prover: Trial, *, is_agent_down: bool) -> HostFacts:
    """Disk and ports. Ports are tried only while no agent runs, which holds them."""
    held = Unknown("the agent runs, or it is not known whether it does")
    return HostFacts(
        data_dir=_try_folder(config.data_dir),
        free_bytes=_free_bytes(config.data_dir),
        web_port=_try_port(config.web.host, config.web.port, "web.port") if is_agent_down else held,
        receipts_port=_try_receipts(config) if is_agent_down else held,
        p2p_ports=_try_p2p(config) if is_agent_down else held,
        prover=prover,
    )


def _try_folder(folder: Path) -> Trial:
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return f"{folder}: is no folder"
    except OSError as error:
        return f"{folder}: the data folder cannot be used: {(error.strerror or str(error)).lower()}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder}: the data folder cannot be written by this user"
    return None


def _free_bytes(folder: Path) -> int | Unknown:
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return Unknown(f"{folder}: {error.strerror}")
    return disk.f_bavail * disk.f_frsize


def _try_receipts(config: Config) -> Trial:
    table = config.receipts
    return Nothing("no receipts are taken") if table is None else _try_port(table.host, table.port, "receipts.port")


def _try_p2p(config: Config) -> Trial:
    for i, text in enumerate(config.p2p.listen):
        address = parse_tcp_address(text)
        trial = _try_port(str(address.host), address.port, f"p2p.listen[{i}]")
        if trial is not None:
            return trial
    return None


def _try_port(host: str, port: int, key: str) -> Trial:
    """Bind it for a moment: with SO_REUSEADDR that fails only if somebody listens there, or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            return f"{key}: {host} port {port}: {(error.strerror or str(error)).lower()}"
    return None


def try_kernel(folder: Path) -> Trial:
    """Whether the kernel's report folder is there for us; no quote is asked for.

    Source: Linux, Documentation/ABI/testing/configfs-tsm-report.
    """
    if not folder.is_dir():
        return f"{folder}: no TDX report interface: this host is no TDX guest, or its kernel lacks configfs-tsm"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder}: the TDX report interface cannot be used by this user"
    return None
