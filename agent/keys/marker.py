"""What is noted beside a key when it is backed up (`node.key.backup`): when, where to, and which key; no secret.

Decides nothing but whether the key that stands there now was ever backed up: the doctor warns if not. The file is
nobody's proof: that a backup can still be opened, only `gpupool keys restore --dry-run` shows.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.errors import KeyFileError
from agent.files import write_durably

_BYTES_MAX = 4096


class BackupNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`made_s`: seconds since 1970; `public_key`: 64 hex digits; `file`: where the backup was written."""

    made_s: int
    public_key: str
    file: str


def last_backup(key_file: Path, public_key: bytes) -> BackupNote | None:
    """The last backup of the key in this file; None if this very key has none. `public_key` has 32 bytes.

    Raises:
        KeyFileError: the note is there and cannot be read.
    """
    path = _path(key_file)
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX)
        found = msgspec.json.decode(content, type=BackupNote)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: damaged ({error}); delete it, and back the key up again") from error
    return found if found.public_key == public_key.hex() else None


def note_backup(key_file: Path, *, public_key: bytes, backup: Path, made_s: int) -> None:
    """Note that the key in this file was backed up.

    Raises:
        KeyFileError: it cannot be written.
    """
    path = _path(key_file)
    note = BackupNote(made_s=made_s, public_key=public_key.hex(), file=str(backup))
    try:
        write_durably(path, msgspec.json.encode(note) + b"\n", mode=0o644)
    except OSError as error:
        raise KeyFileError(
            f"{path}: cannot be written: {error.strerror}; the backup {backup} is made all the same"
        ) from error


def _path(key_file: Path) -> Path:
    return key_file.with_name(f"{key_file.name}.backup")
