"""Key files: the node key (signs records and votes) and the wallet key (signs transactions).

Decides whether a file may be used as a key. Format: PKCS#8 PEM of an Ed25519 key (RFC 8410), unencrypted,
mode 0600. A file that others can read is refused: its key may be known already.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import KeyFileError
from agent.files import sync_folder
from contracts.signing import SigningKey

_FILE_BYTES_MAX = 4096


def create_key(path: Path) -> SigningKey:
    """Draw a new key and write it, durable, readable by its owner only.

    Raises:
        KeyFileError: the file exists (a key is never overwritten) or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)  # whole or not at all, and never over another key
        finally:
            aside.unlink()
        sync_folder(path.parent)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already; a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error
    return SigningKey(key.private_bytes_raw())


def load_key(path: Path) -> SigningKey:
    """Read a key file.

    Raises:
        KeyFileError: missing, readable by others, or not an Ed25519 key in PKCS#8 PEM.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}; `gpupool init` makes the keys") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{path}: readable by others (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own message may quote the file.
        raise KeyFileError(f"{path}: not an unencrypted PKCS#8 PEM key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key")
    return SigningKey(key.private_bytes_raw())
