"""Makes an agent's folder of a backup, so that the agent can start, and only safely.

The backup was opened and is still untrusted (`agent.keys.archive`).

1. Nothing is overwritten. A file that stands there with the same content is as good as written: a restoration that
   was cut short can be run again. All names are looked at before the first file is written; the config comes last.
2. The agent gets a journal that does not know what the key signed: it asks the operators before it signs anything. An
   export of the old journal is better, as far as it reaches.
3. That the old host is off is for its owner to know: two agents with one key destroy it.
4. A policy gets the name that the config has for it, if that is a plain one: in the archive its name is fixed.
5. A config that this version does not take, or that names other files, is restored as it is; remarks say what to do.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config, load_config
from agent.db.archive import import_journal
from agent.errors import DENIED, ConfigError, InvalidBackupError, KeyFileError
from agent.files import write_new
from agent.keys import archive
from agent.keys.asking import identities, passphrase
from agent.keys.marker import note_backup
from agent.keys.sealing import unseal
from agent.progress import Tell, silent
from agent.setup import new_journal
from gossip.records import PoolId

_LIMIT = archive.BYTES_MAX + (1 << 16)
"""Encryption adds a header and 16 bytes to every 64 KiB."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.toml")
_TAKEN = frozenset(archive.TEXTS)
"""Names that have a meaning of their own beside a config."""

_PUBLIC = (archive.CONFIG, archive.POLICY, archive.NEXT_POLICY)
"""What a service may read that gets its keys from systemd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was written, and what was there already; `journal` is the one that was made, None if none was, and
    `journal_present` the one that stays as it was; `remarks`: what is still to be done.
    """

    written: tuple[Path, ...]
    present: tuple[Path, ...]
    journal: Path | None
    journal_present: Path | None
    remarks: tuple[str, ...]


def open_backup(backup: Path, *, passphrase_file: Path | None, identity_file: Path | None) -> dict[str, bytes]:
    """The files of a backup by name; asks for the passphrase if no file is named.

    Raises:
        InvalidBackupError: it cannot be read or opened, or is no backup of keys.
        ConfigError, KeyFileError: the passphrase, or the file with the secret, cannot be used.
    """
    try:
        with backup.open("rb") as file:
            sealed = file.read(_LIMIT + 1)
    except OSError as error:
        raise InvalidBackupError(f"{backup}: cannot be read: {error.strerror}") from error
    if len(sealed) > _LIMIT:
        raise InvalidBackupError(f"{backup}: longer than {_LIMIT} bytes: no backup of keys")
    secret = passphrase(passphrase_file) if identity_file is None else identities(identity_file)
    try:
        return archive.unpack(unseal(sealed, secret))
    except InvalidBackupError as error:
        raise InvalidBackupError(f"{backup}: {error}") from None


def restore(
    files: Mapping[str, bytes], folder: Path, *, backup: Path, export: Path | None, tell: Tell = silent
) -> Restored:
    """Write the files of a backup into a folder, and make the agent's journal, of an export if there is one.

    `tell` hears of the progress.

    Raises:
        KeyFileError: one of the files stands there with another content (nothing was written), or cannot be written.
        InvalidExportError, JournalError: the journal cannot be made; the files are written.
    """
    names = _names(files)
    places = {name: folder / names[name] for name in sorted(files, key=lambda name: name == archive.CONFIG)}
    is_there = {name: _is_written(path, files[name]) for name, path in places.items()}
    for name, path in places.items():
        if not is_there[name]:
            _write(path, files[name], mode=0o644 if name in _PUBLIC else 0o600)
    for name, key in archive.keys_of(files).items():
        note_backup(places[name], public_key=key.public, backup=backup, made_s=int(time.time()))
    config, remarks = _look_at_config(files, folder)
    journal = present = None
    if config is not None and config.journal_file.exists():
        present = config.journal_file
    elif config is not None:
        journal = _make_journal(config, files, export, tell)
    return Restored(
        written=tuple(path for name, path in places.items() if not is_there[name]),
        present=tuple(path for name, path in places.items() if is_there[name]),
        journal=journal,
        journal_present=present,
        remarks=remarks,
    )


def _names(files: Mapping[str, bytes]) -> dict[str, str]:
    """Under which name each file is written (rule 4), by its name in the archive.

    The config is read as plain TOML, as it may be one that this version does not take; and it is untrusted: no name
    leads out of the folder, and no two files get the same.
    """
    names = {name: name for name in files}
    try:
        pool = tomllib.loads(files.get(archive.CONFIG, b"").decode()).get("pool")
    except (ValueError, RecursionError):
        return names
    for name, key in ((archive.POLICY, "policy_file"), (archive.NEXT_POLICY, "next_policy_file")):
        named = pool.get(key) if name in files and isinstance(pool, dict) else None
        if isinstance(named, str) and _PLAIN_NAME.fullmatch(named) and named not in _TAKEN | {*names.values()}:
            names[name] = named
    return names


def _is_written(path: Path, content: bytes) -> bool:
    """Whether this very file stands there already."""
    try:
        with path.open("rb") as file:
            found = file.read(len(content) + 1)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise KeyFileError(f"{path}: {DENIED}. Nothing was written") from error
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}; nothing was written") from error
    if found != content:
        raise KeyFileError(f"{path}: exists already and is another; name an empty --dir. Nothing was written")
    return True


def _write(path: Path, content: bytes, *, mode: int) -> None:
    try:
        write_new(path, content, mode=mode)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error


def _look_at_config(files: Mapping[str, bytes], folder: Path) -> tuple[Config | None, tuple[str, ...]]:
    """The config if an agent can start with it, and what its owner has to mend."""
    path = folder / archive.CONFIG
    if archive.CONFIG not in files:
        return None, ()
    try:
        config = load_config(path)
    except ConfigError as error:
        return None, (f"{error}; mend it, then run `gpupool run --fresh`",)
    named = {
        archive.NODE_KEY: ("identity.node_key_file", config.identity.node_key_file),
        archive.WALLET_KEY: ("wallet.key_file", config.wallet.key_file),
        archive.POLICY: ("pool.policy_file", config.pool.policy_file),
        archive.NEXT_POLICY: ("pool.next_policy_file", config.pool.next_policy_file),
    }
    remarks = tuple(
        f'{path}: {key} names {config.resolve(value)}, which is not what was restored: set it to "{name}"'
        for name, (key, value) in named.items()
        if name in files and value is not None and not _is_same(config.resolve(value), files[name])
    )
    return (config, remarks) if archive.NODE_KEY in files else (None, remarks)


def _is_same(path: Path, content: bytes) -> bool:
    """Whether this very file stands there; the config names it, so it may be a device or a pipe."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False  # whatever keeps it from being read keeps the agent from it, too


def _make_journal(config: Config, files: Mapping[str, bytes], export: Path | None, tell: Tell) -> Path:
    """The journal of rule 2, where none stands."""
    path = config.journal_file
    node_key = archive.keys_of(files)[archive.NODE_KEY].public
    if export is None:
        new_journal(config, node_key, is_key_new=False)
        return path
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    import_journal(export, path, node_key=node_key, pool=pool, tell=tell)
    return path
