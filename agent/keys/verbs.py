"""What each verb of `gpupool keys` does: which files, what is asked, how the outcome is said. A secret never is."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import arguments
from agent.config import load_pool_config
from agent.errors import ConfigError, KeyFileError
from agent.identity import create_key, load_key
from agent.invoking import spelled
from agent.keys import archive
from agent.keys.asking import ask, is_asking_possible
from agent.keys.backing_up import agent_keys, gather_agent, gather_key, require_vacant, write_backup
from agent.keys.locking import lock
from agent.keys.marker import last_backup
from agent.keys.restoring import Restored, open_backup
from agent.keys.restoring import restore as restore_files
from agent.output import EXIT_USAGE, answer, note
from agent.pool.values import utc
from agent.progress import progress
from agent.tables import NETWORKS
from contracts.model import Address
from contracts.wallet import wallet_address
from gossip.addresses import peer_id_text

WALLET_VERSION = "v5r1"
_TWO_HOSTS = (
    "nothing was written. Two agents with one node key sign two records with one number sooner or later: then the key "
    "is dead, and its uncounted work is lost. If the host that had these keys is off for good, add --yes"
)


def create(options: argparse.Namespace) -> int:
    """Make a key file."""
    network = arguments.parse_network(options.network) if options.network is not None else None
    key = create_key(options.file.absolute())
    value: dict[str, Any] = {"file": str(options.file), "public_key": key.public.hex()}
    text = f"made {options.file}; back it up: gpupool keys backup FILE --key {options.file}\n"
    text += f"public    {key.public.hex()}"
    if network is not None:
        global_id = arguments.global_id(network)
        wallet = wallet_address(key.public, WALLET_VERSION, global_id=global_id)
        value["wallet"] = str(wallet)
        text += f"\nwallet    {for_funding(wallet, global_id)}"
    return answer(options, value, text)


def for_funding(wallet: Address, global_id: int) -> str:
    """The form in which a wallet that does not stand yet is given to whoever sends it TON."""
    return wallet.friendly(bounceable=False, testnet=global_id != NETWORKS["mainnet"])


def show(options: argparse.Namespace) -> int:
    """Show the public side of keys."""
    if options.file is not None:
        network = arguments.parse_network(options.network) if options.network is not None else None
        global_id = None if network is None else arguments.global_id(network)
        value = {"key": _shown(options.file) | _wallet(options.file, WALLET_VERSION, global_id)}
        return answer(options, value, _key_text("key", value["key"]))
    if options.network is not None:
        raise ConfigError("--network: stands in the config; it is for a key FILE alone")
    config = load_pool_config(options.config)
    value = {}
    for name, path in agent_keys(config).items():
        if name == archive.NODE_KEY:
            value["node_key"] = _shown(path) | {"peer_id": peer_id_text(load_key(path).public)}
        else:
            value["wallet_key"] = _shown(path) | _wallet(path, config.wallet.version, config.pool.global_id)
    text = "\n".join(_key_text(name.replace("_", " "), shown) for name, shown in value.items())
    return answer(options, {"config": str(config.path), **value}, text)


def _shown(path: Path) -> dict[str, Any]:
    """What is said of any key."""
    key = load_key(path)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    found = last_backup(path, key.public)
    made = None if found is None else {"made_s": found.made_s, "file": found.file}
    return {"public_key": key.public.hex(), "file": str(path), "mode": f"{mode:04o}", "backup": made}


def _wallet(path: Path, version: str, global_id: int | None) -> dict[str, Any]:
    """The wallet that a key commands, as its address and as it is given to whoever sends it TON."""
    if global_id is None:
        return {}
    wallet = wallet_address(load_key(path).public, version, global_id=global_id)
    return {"wallet": str(wallet), "wallet_version": version, "wallet_for_funding": for_funding(wallet, global_id)}


def _key_text(title: str, shown: Mapping[str, Any]) -> str:
    made = shown["backup"]
    lines = {
        "public": shown["public_key"],
        "peer id": shown.get("peer_id"),
        "wallet": shown.get("wallet"),
        "to fund it": shown.get("wallet_for_funding"),
        "file": f"{shown['file']} (mode {shown['mode']})",
        "backup": "none: gpupool keys backup FILE" if made is None else f"{utc(made['made_s'])}, {made['file']}",
    }
    return "\n".join([title, *(f"  {name:<10}  {value}" for name, value in lines.items() if value is not None)])


def backup(options: argparse.Namespace) -> int:
    """Write an encrypted backup."""
    target = options.file.absolute()
    require_vacant(target)
    gathered = gather_agent(options.config) if options.key is None else gather_key(options.key.absolute())
    sealing = lock(options)
    with progress(options) as tell:
        tell("encrypting")
        write_backup(target, gathered, sealing)
    value = {
        "file": str(options.file),
        "files": list(gathered.files),
        "keys": {name: key.public.hex() for name, key in archive.keys_of(gathered.files).items()},
    }
    return answer(
        options,
        value,
        f"wrote {options.file}: {', '.join(value['files'])}\n"
        "next: keep it on another host, and look into it there once: gpupool keys restore FILE --dry-run",
    )


def restore(options: argparse.Namespace) -> int:
    """Make an agent's folder of a backup."""
    path, folder = options.file.absolute(), options.dir.absolute()
    if options.identity is not None and options.passphrase_file is not None:
        raise ConfigError("--identity: takes no passphrase besides")
    files = open_backup(path, passphrase_file=options.passphrase_file, identity_file=options.identity)
    if options.journal is not None and not {archive.NODE_KEY, archive.CONFIG} <= files.keys():
        raise ConfigError(f"--journal: {options.file} holds no agent, and a journal is an agent's; leave it out")
    value: dict[str, Any] = {
        "files": list(files),
        "keys": {name: key.public.hex() for name, key in archive.keys_of(files).items()},
    }
    if options.dry_run:
        keys = "\n".join(f"  {name:<12}{public}" for name, public in value["keys"].items())
        return answer(options, value, f"{options.file} can be opened: {', '.join(files)}\n{keys}")
    if archive.NODE_KEY in files and not _is_old_host_off(options):
        note(_TWO_HOSTS)
        return EXIT_USAGE
    export = None if options.journal is None else options.journal.absolute()
    with progress(options) as tell:
        restored = restore_files(files, folder, backup=path, export=export, tell=tell)
    value |= {
        "dir": str(folder),
        "already_there": [path.name for path in restored.present],
        "journal": None if restored.journal is None else str(restored.journal),
        "remarks": list(restored.remarks),
    }
    return answer(options, value, _restored_text(folder, files, restored))


def _is_old_host_off(options: argparse.Namespace) -> bool:
    if options.yes or not is_asking_possible():
        return bool(options.yes)
    return ask("is the host that had these keys off for good? (yes/no) ").lower() in ("y", "yes")


def _restored_text(folder: Path, files: Mapping[str, bytes], restored: Restored) -> str:
    done = {f"wrote into {folder}": restored.written, f"was there already, in {folder}": restored.present}
    lines = [f"{what}: {', '.join(path.name for path in paths)}" for what, paths in done.items() if paths]
    if restored.journal_present is not None:
        lines.append(f"{restored.journal_present} was there already, and stays as it is")
    if restored.journal is not None:
        lines.append(
            f"made {restored.journal}; the agent signs nothing until operators of more than two thirds of the "
            "weight have said what its key signed before"
        )
    lines += [f"mend: {remark}" for remark in restored.remarks]
    if archive.NODE_KEY in files:
        steps = spelled("gpupool doctor; systemctl enable --now gpupool-agent", folder / archive.CONFIG)
        lines.append(f"next: {steps}")
    return "\n".join(lines)
