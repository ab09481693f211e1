"""A backup's encryption: age, with a passphrase or to public keys; the one module that speaks to its library.

Decides whether bytes are an age file that a secret opens. All of them are untrusted, and so is what comes out: whoever
knows a public key can encrypt to it.

1. A file has one kind of lock: a passphrase (scrypt), or X25519 public keys (`age1...`). Armour is not read.
2. A passphrase's work factor is bounded before any work is done: the library would accept 16 GiB of it.
3. Why the library does not open a file is not told apart: a wrong passphrase and a changed byte look the same to it.

Source: C2SP, "age-encryption.org/v1" (its limit on the work factor is that of the `age` command).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pyrage

from agent.errors import ConfigError, InvalidBackupError

WORK_FACTOR_MAX = 22
"""2^22 blocks of 1 KiB: 4 GiB of memory, some ten seconds."""

_MAGIC = b"age-encryption.org/v1\n"
_SCRYPT = re.compile(rb"age-encryption\.org/v1\n-> scrypt [A-Za-z0-9+/]{22} ([1-9][0-9]?)\n")


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Opens what was sealed with the same. Never printed."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipients:
    """Public keys (`age1...`), of which each one's owner can open what is sealed."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identities:
    """Secret keys (`AGE-SECRET-KEY-1...`), of which one opens what was sealed to its public key. Never printed."""

    keys: tuple[str, ...] = field(repr=False)


def seal(plain: bytes, lock: Passphrase | Recipients) -> bytes:
    """Encrypt; with a passphrase that takes about two seconds.

    Raises:
        ConfigError: a recipient is no age public key.
    """
    if isinstance(lock, Passphrase):
        sealed: bytes = pyrage.passphrase.encrypt(plain, lock.text)
    else:
        sealed = pyrage.encrypt(plain, [_recipient(key) for key in lock.keys])
    return sealed


def unseal(sealed: bytes, secret: Passphrase | Identities) -> bytes:
    """Decrypt.

    Raises:
        InvalidBackupError: no age file, damaged, sealed in the other way, or `secret` is the wrong one.
        ConfigError: an identity is no age secret key.
    """
    factor = _work_factor(sealed)
    if isinstance(secret, Passphrase):
        if factor is None:
            raise InvalidBackupError("encrypted to a public key: give --identity FILE, with its secret key")
        if factor > WORK_FACTOR_MAX:
            raise InvalidBackupError(f"asks for too much work (2^{factor}, at most 2^{WORK_FACTOR_MAX})")
        return _opened(lambda: pyrage.passphrase.decrypt(sealed, secret.text), "wrong passphrase")
    if factor is not None:
        raise InvalidBackupError("encrypted with a passphrase: leave --identity away")
    identities = [_identity(key) for key in secret.keys]
    return _opened(lambda: pyrage.decrypt(sealed, identities), "encrypted to another key")


def require_recipient(text: str) -> None:
    """Raise `ConfigError` unless this is an age public key."""
    _recipient(text)


def _opened(decrypt: Callable[[], bytes], reason: str) -> bytes:
    try:
        return decrypt()
    except pyrage.DecryptError:
        raise InvalidBackupError(f"{reason}, or the file is damaged") from None


def _work_factor(sealed: bytes) -> int | None:
    """The binary logarithm of a passphrase's work; None where public keys open it."""
    if not sealed.startswith(_MAGIC):
        raise InvalidBackupError("no age file: a backup begins with the line age-encryption.org/v1")
    # Such a stanza stands alone, so it is the first.
    found = _SCRYPT.match(sealed)
    return None if found is None else int(found[1])


def _recipient(text: str) -> object:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        # Not quoted: who confuses the two keys of a pair has typed the secret one.
        raise ConfigError(f"--recipient: no age public key, which begins with age1: {error}") from None


def _identity(text: str) -> object:
    try:
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        raise ConfigError("--identity: the file holds a line that is no age secret key (AGE-SECRET-KEY-1...)") from None
