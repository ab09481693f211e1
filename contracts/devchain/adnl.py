"""ADNL over TCP, the server's side, without I/O: one handshake, then framed encrypted packets.

Untrusted input: every byte. Rules, cheapest first:
1. A handshake is 256 bytes, names this server's key, and its hash matches once decrypted.
2. A frame is 64 to `FRAME_BYTES_MAX` bytes; its last 32 are the sha256 of the rest.
Anything else raises `InvalidQueryError`, after which the connection is of no use.

Source: TON `adnl/adnl-ext-connection.cpp`, docs "ADNL TCP - liteserver".
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from nacl.bindings import (
    crypto_scalarmult,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
)
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from contracts.devchain.errors import InvalidQueryError

HANDSHAKE_BYTES = 256
FRAME_BYTES_MAX = 256 * 1024
_NONCE_BYTES, _HASH_BYTES = 32, 32
_KEY_PREFIX = b"\xc6\xb4\x13\x48"


class ServerKey:
    """The liteserver's Ed25519 key, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        key = SigningKey(seed)
        self.public = bytes(key.verify_key)
        self.id = hashlib.sha256(_KEY_PREFIX + self.public).digest()
        self._secret = crypto_sign_ed25519_sk_to_curve25519(bytes(key) + self.public)

    def accept(self, handshake: bytes) -> Channel:
        """Open the channel that the 256 bytes of `handshake` ask for.

        Raises:
            InvalidQueryError: it is for another key, or does not decrypt.
        """
        if len(handshake) != HANDSHAKE_BYTES or handshake[:32] != self.id:
            raise InvalidQueryError("handshake: for another key")
        client, checksum, sealed = handshake[32:64], handshake[64:96], handshake[96:]
        try:
            shared = crypto_scalarmult(self._secret, crypto_sign_ed25519_pk_to_curve25519(client))
        except CryptoError as error:
            raise InvalidQueryError("handshake: not a public key") from error
        cipher = _aes_ctr(shared[:16] + checksum[16:32], checksum[:4] + shared[20:32])
        session = cipher.update(sealed)
        if hashlib.sha256(session).digest() != checksum:
            raise InvalidQueryError("handshake: does not decrypt")
        return Channel(session)


class Channel:
    """An open channel: encrypts what is sent and decrypts what comes, each in order."""

    def __init__(self, session: bytes) -> None:
        self._out = _aes_ctr(session[:32], session[64:80])
        self._in = _aes_ctr(session[32:64], session[80:96])

    def frame_bytes(self, head: bytes) -> int:
        """How many bytes the frame has whose 4 bytes of length are `head` (encrypted)."""
        size = int.from_bytes(self._in.update(head), "little")
        if not _NONCE_BYTES + _HASH_BYTES <= size <= FRAME_BYTES_MAX:
            raise InvalidQueryError(f"frame of {size} bytes")
        return size

    def open(self, frame: bytes) -> bytes:
        """The payload of a frame (without its length)."""
        plain = self._in.update(frame)
        if hashlib.sha256(plain[:-_HASH_BYTES]).digest() != plain[-_HASH_BYTES:]:
            raise InvalidQueryError("frame: wrong checksum")
        return plain[_NONCE_BYTES:-_HASH_BYTES]

    def seal(self, payload: bytes) -> bytes:
        """The frame to send for `payload`, with its length."""
        body = secrets.token_bytes(_NONCE_BYTES) + payload
        size = (len(body) + _HASH_BYTES).to_bytes(4, "little")
        return self._out.update(size + body + hashlib.sha256(body).digest())


def _aes_ctr(key: bytes, nonce: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
