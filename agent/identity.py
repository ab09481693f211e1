"""Key files: the node key (signs records and votes) and the wallet key (signs transactions).

Decides whether a file may be used as a key. Format: PKCS#8 PEM of an Ed25519 key (RFC 8410), unencrypted,
mode 0600.

1. A file that others can read is refused: its key may be known already.
2. So is one in a folder that everybody can write (but for /tmp's kind): who replaces the wallet's key is paid. A group
   that may write there is trusted, as administrators share folders. The file's owner is not asked: with rule 1, nobody
   but that owner and root could open it.
3. A credential that systemd hands to a service (`LoadCredential=`) is read in place of the file of its name
   (`agent.credentials`), and may show a group's right to read.

Source: systemd.exec(5), "Credentials"; acl(5), "Correspondence between ACL entries and file permission bits".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.credentials import key_file
from agent.errors import DENIED, KeyDeniedError, KeyFileError
from agent.files import write_new
from contracts.signing import SigningKey

_FILE_BYTES_MAX = 4096
_LOST = "a lost key comes from its backup alone (`gpupool keys restore`); a new agent's is made by `gpupool init`"


def create_key(path: Path) -> SigningKey:
    """Draw a new key and write it, durable, readable by its owner only.

    Raises:
        KeyFileError: the file exists (a key is never overwritten) or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        write_new(path, pem)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already; a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error
    return SigningKey(key.private_bytes_raw())


def load_key(path: Path) -> SigningKey:
    """Read a key file, or the credential of its name.

    Raises:
        KeyFileError: missing, readable or replaceable by others, or not an Ed25519 key in PKCS#8 PEM.
        KeyDeniedError: this user may not read it.
    """
    return parse_key(read_key_file(key_file(path)), str(path))


def read_key_file(path: Path) -> bytes:
    """What stands in a key file, which nobody else can read or replace. Raises `KeyFileError` as `load_key` does."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            pem = file.read(_FILE_BYTES_MAX)
        folders = {folder: folder.stat().st_mode for folder in (path.parent, path.resolve().parent)}
    except PermissionError as error:
        raise KeyDeniedError(f"{path}: {DENIED}") from error
    except FileNotFoundError as error:
        raise KeyFileError(f"{path}: missing; {_LOST}") from error
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not _is_credential(path, status):
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileError(f"{path}: readable by others (mode {mode:04o}); run: chmod 600 {path}")
    for folder, mode in folders.items():
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise KeyFileError(f"{path}: everybody can replace it (its folder can be written); run: chmod o-w {folder}")
    return pem


def parse_key(pem: bytes, name: str) -> SigningKey:
    """The key in the content of a file, whose `name` an error bears.

    Raises:
        KeyFileError: not an Ed25519 key in PKCS#8 PEM.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        # The parser's own message may quote the file. The last: a key of another curve, of the wrong length.
        raise KeyFileError(f"{name}: not an unencrypted PKCS#8 PEM key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{name}: not an Ed25519 key")
    return SigningKey(key.private_bytes_raw())


def _is_credential(path: Path, status: os.stat_result) -> bool:
    """Whether systemd gave it to this service alone.

    It may do so by an access list on a file of root's: then the mode's group bits are the list's mask.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    is_there = folder is not None and path.parent == Path(folder)
    return is_there and status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO)
