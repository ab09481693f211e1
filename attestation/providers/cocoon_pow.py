"""The proof of work that Cocoon's router asks for before TLS: 24 bytes from it, 12 bytes back.

The challenge is a magic number, the difficulty (int32) and a salt of 16 bytes; the answer another magic number
and a nonce (int64), such that the first 8 bytes of SHA-256(salt || nonce), read as one number, begin with as
many zero bits as asked. All numbers are little-endian, that one too. Its difficulty is 20 unless set otherwise:
a second or two of one core. The challenge is untrusted: what asks for more than `DIFFICULTY_MAX` is refused.

Source: TelegramMessenger/cocoon, tee/cocoon/pow.h and pow.cpp (cocoon.powSimple, cocoon.powSimpleResponse),
RevProxy.cpp (asked of every connection).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from attestation.errors import GuestProofOfWorkError

CHALLENGE_BYTES = 24
DIFFICULTY_MAX = 22
"""Four times Cocoon's own: some five seconds."""

_CHALLENGE = struct.Struct("<Ii16s")
_ANSWER = struct.Struct("<Iq")
_CHALLENGE_MAGIC, _ANSWER_MAGIC = 0x418E1291, 0x01827319
_ROUND = 50_000


def parse_challenge(raw: bytes) -> tuple[bytes, int]:
    """Return (salt, difficulty in bits) of a challenge (24 bytes).

    Raises:
        GuestProofOfWorkError: not a challenge, or one that asks for more than 22 bits.
    """
    magic, difficulty, salt = _CHALLENGE.unpack(raw)
    if magic != _CHALLENGE_MAGIC:
        raise GuestProofOfWorkError("its first bytes ask for no proof of work")
    if not 0 <= difficulty <= DIFFICULTY_MAX:
        raise GuestProofOfWorkError(f"asks for {difficulty} bits of work, at most {DIFFICULTY_MAX} are done")
    return salt, difficulty


def rounds() -> Iterator[range]:
    """The nonces to try, in rounds that take some 50 ms each."""
    return (range(start, start + _ROUND) for start in range(0, 1 << 40, _ROUND))


def solve(salt: bytes, difficulty: int, nonces: range) -> bytes | None:
    """Return the answer (12 bytes) with the first of `nonces` that solves the challenge, None without one."""
    shift, sha256 = 64 - difficulty, hashlib.sha256
    for nonce in nonces:
        digest = sha256(salt + nonce.to_bytes(8, "little")).digest()
        if not int.from_bytes(digest[:8], "little") >> shift:
            return _ANSWER.pack(_ANSWER_MAGIC, nonce)
    return None
