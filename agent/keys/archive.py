"""What a backup holds: a tar archive of a few files with fixed names, for the owner only.

Decides whether bytes are such an archive. All of them are untrusted: they may have been encrypted by somebody else.

1. At most `MEMBERS_MAX` regular files, each once, in no folder; nothing is read beyond `BYTES_MAX`.
2. A file is one of `TEXTS`, or its name ends in ".key" and it is a key (`agent.identity`).
3. The archive is read as a stream: no header can send the reader back.

Source: POSIX.1-1988 (ustar); `tar x` opens it.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping

from agent.errors import InvalidBackupError, KeyFileError
from agent.identity import parse_key
from contracts.signing import SigningKey

CONFIG, NODE_KEY, WALLET_KEY, SIGNED = "agent.toml", "node.key", "wallet.key", "node.key.signed"
POLICY, NEXT_POLICY = "policy.toml", "next_policy.toml"
TEXTS = (CONFIG, POLICY, NEXT_POLICY, SIGNED)

BYTES_MAX = 4 << 20
FILE_BYTES_MAX = 1 << 20
MEMBERS_MAX = 16
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}\.key")


def is_key_name(name: str) -> bool:
    """Whether a key can stand in a backup under this name."""
    return _KEY_NAME.fullmatch(name) is not None


def pack(files: Mapping[str, bytes], *, made_s: int) -> bytes:
    """The archive of these files; `made_s` is the time that they bear (seconds since 1970)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o600, made_s
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an archive, by name.

    Raises:
        InvalidBackupError: it is none, or holds what a backup does not.
    """
    if len(data) > BYTES_MAX:
        raise InvalidBackupError(f"longer than {BYTES_MAX} bytes: no backup of keys")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
            for entry in archive:
                _require_allowed(entry, files)
                content = archive.extractfile(entry)
                files[entry.name] = b"" if content is None else content.read(FILE_BYTES_MAX)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        # The last four come of sizes and names that make no sense, and of extended headers upon extended headers.
        raise InvalidBackupError(f"no tar archive, or damaged: {type(error).__name__}") from None
    keys_of(files)
    return files


def keys_of(files: Mapping[str, bytes]) -> dict[str, SigningKey]:
    """The keys among these files, by name.

    Raises:
        InvalidBackupError: one is no key, or there is none.
    """
    try:
        keys = {name: parse_key(content, name) for name, content in files.items() if is_key_name(name)}
    except KeyFileError as error:
        raise InvalidBackupError(str(error)) from None
    if not keys:
        raise InvalidBackupError("holds no key")
    return keys


def _require_allowed(entry: tarfile.TarInfo, files: Mapping[str, bytes]) -> None:
    """Rules 1 and 2 for the next file."""
    if not entry.isreg() or (entry.name not in TEXTS and not is_key_name(entry.name)):
        raise InvalidBackupError(f"holds {entry.name[:80]!r}, which is no part of a backup of keys")
    if entry.name in files or len(files) == MEMBERS_MAX:
        raise InvalidBackupError(f"holds {entry.name} twice, or more than {MEMBERS_MAX} files")
    if entry.size > FILE_BYTES_MAX:
        raise InvalidBackupError(f"{entry.name}: longer than {FILE_BYTES_MAX} bytes")
