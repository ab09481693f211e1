"""Makes a backup: gathers what an agent cannot be made again without, encrypts it, writes it, notes that.

1. Every key is read as an agent reads it: one that could not be used is not backed up as if it could.
2. A backup is written whole, for the owner only, and never over a file.
3. The journal is not in it: it grows old at once, and has its own export (`gpupool db export`).
4. No folder is made for it: a stick that is not mounted would become a folder on the disk that it shall outlive.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config import PoolConfig, load_pool_config
from agent.errors import DENIED, ConfigError, KeyFileError
from agent.files import is_there, write_new
from agent.identity import parse_key, read_key_file
from agent.keys import archive
from agent.keys.marker import note_backup
from agent.keys.sealing import Passphrase, Recipients, seal
from agent.output import note
from agent.pool.signed import SignedRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The files of a backup by their names in it, and where its keys stand. The contents are never printed."""

    files: Mapping[str, bytes]
    key_files: Mapping[str, Path]

    def __repr__(self) -> str:
        return f"Gathered({', '.join(self.files)})"


def gather_agent(config_file: Path) -> Gathered:
    """What belongs to the agent of this config: keys, config, policies, the note of signed certificates.

    Raises:
        ConfigError: the config cannot be used, or a file that it names cannot be read.
        KeyFileError: a key cannot be used.
    """
    config = load_pool_config(config_file)
    key_files = agent_keys(config)
    node_key_file = config.resolve(config.identity.node_key_file)
    texts = {
        archive.CONFIG: config.path,
        archive.POLICY: _resolved(config, config.pool.policy_file),
        archive.NEXT_POLICY: _resolved(config, config.pool.next_policy_file),
        archive.SIGNED: _if_there(SignedRecord.of(node_key_file).path),
    }
    files = {name: _read(path) for name, path in texts.items() if path is not None}
    return Gathered(files=files | {name: read_key_file(path) for name, path in key_files.items()}, key_files=key_files)


def agent_keys(config: PoolConfig) -> dict[str, Path]:
    """The key files of a config by their names in a backup; whoever only owns a pool has no node key."""
    node_key_file = config.resolve(config.identity.node_key_file)
    wallet = {archive.WALLET_KEY: config.resolve(config.wallet.key_file)}
    return {archive.NODE_KEY: node_key_file, **wallet} if is_there(node_key_file) else wallet


def gather_key(file: Path) -> Gathered:
    """A key alone, as a pool's owner has it. Raises `KeyFileError` if it cannot be used."""
    if not archive.is_key_name(file.name):
        raise KeyFileError(f"{file}: in a backup, a key's name ends in .key and has at most 64 plain characters")
    return Gathered(files={file.name: read_key_file(file)}, key_files={file.name: file})


def write_backup(target: Path, gathered: Gathered, lock: Passphrase | Recipients) -> None:
    """Encrypt what was gathered into a new file, and note beside each key that it was backed up.

    Says so (on standard error) if the file stands on the file system of a key.

    Raises:
        KeyFileError: the file exists, its folder does not, or it or the note cannot be written; a file that is no key
            is among them.
        ConfigError: a recipient is no age public key.
    """
    publics = {name: parse_key(gathered.files[name], str(path)).public for name, path in gathered.key_files.items()}
    require_vacant(target)
    made_s = int(time.time())
    sealed = seal(archive.pack(gathered.files, made_s=made_s), lock)
    try:
        write_new(target, sealed)
    except FileExistsError:
        raise KeyFileError(f"{target}: exists already; a backup is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{target}: cannot be written: {error.strerror}") from error
    for name, path in gathered.key_files.items():
        note_backup(path, public_key=publics[name], backup=target, made_s=made_s)
    if _is_beside_keys(target, gathered):
        note(f"{target} is on the disk of the keys themselves, and would be lost with it: copy it to another host")


def require_vacant(target: Path) -> None:
    """Raise `KeyFileError` if something stands where a backup shall be written, or its folder is missing (rule 4)."""
    if target.exists() or target.is_symlink():
        raise KeyFileError(f"{target}: exists already; a backup is never overwritten")
    if not target.parent.is_dir():
        raise KeyFileError(
            f"{target.parent}: no such folder, and none is made: is the disk mounted? Nothing was written"
        )


def _is_beside_keys(target: Path, gathered: Gathered) -> bool:
    """Whether a backup stands on the file system of a key that it holds: what takes the one may take the other."""
    try:
        return any(path.stat().st_dev == target.stat().st_dev for path in gathered.key_files.values())
    except OSError:
        return False  # it was written, and its owner took it away


def _resolved(config: PoolConfig, name: str | None) -> Path | None:
    return None if name is None else config.resolve(name)


def _if_there(path: Path) -> Path | None:
    return path if is_there(path) else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(archive.FILE_BYTES_MAX + 1)
    except PermissionError as error:
        raise ConfigError(f"{path}: {DENIED}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; it belongs into the backup") from error
    if len(content) > archive.FILE_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {archive.FILE_BYTES_MAX} bytes; it belongs into the backup")
    return content
