"""The project's one way to sign and to verify Ed25519: node keys, records, certificates.

Rules: a signature is refused when S is not canonical, when the key or R is of small order, or when the
key is not the canonical encoding of its point; so nothing is accepted here that the chain's own check
refuses. libsodium applies exactly these rules (RFC 8032 section 5.1.7, cofactorless); it stands in the
lowest package because certificates need it, and every other package may import from here.
"""

from __future__ import annotations

from nacl import bindings
from nacl.exceptions import BadSignatureError

from contracts.errors import ContractsError, InvalidValueError

SEED_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64


class InvalidSignatureError(ContractsError):
    """A signature does not hold under the key that it names: whoever sent it is at fault."""


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Return if `signature` (64 bytes) over `message` holds under `public_key` (32 bytes).

    Raises:
        InvalidSignatureError: it does not hold, or a length is wrong.
    """
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise InvalidSignatureError("a key has 32 bytes and a signature 64")
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        raise InvalidSignatureError(f"signature: does not hold under key {public_key.hex()}") from None


class SigningKey:
    """An Ed25519 private key. Never printed: `repr` shows the public half only."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Derive the key pair of a 32-byte seed (RFC 8032 section 5.1.5)."""
        if len(seed) != SEED_BYTES:
            raise InvalidValueError(f"a private key's seed has {SEED_BYTES} bytes, this one {len(seed)}")
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes: for the transport's handshake and the wallet, never for a log."""
        return self._secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """Sign `message`; 64 bytes."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]
