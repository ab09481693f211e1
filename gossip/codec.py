"""Canonical msgpack: the one encoding of everything that is signed or sent.

Decides whether bytes are the canonical form of a value. All input is untrusted.

1. Values are integers, booleans, byte strings, text, nil and arrays of these: no map (its bytes depend
   on insertion order), no float, no extension type.
2. Bytes are canonical when encoding their decoded value gives the same bytes again; anything else is
   refused, so one value has one hash.
3. Size is checked before decoding, depth while walking the result.

Source: PROTOCOL, "Records"; the msgpack specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgpack

from contracts import signing
from gossip.errors import InvalidMessageError

Value: TypeAlias = "int | bool | bytes | str | Sequence[Value] | None"

DEPTH_MAX = 8
_PLAIN = frozenset({int, bool, bytes, str, type(None)})


def decode(data: bytes, *, bytes_max: int) -> Value:
    """Decode canonical bytes; arrays come back as tuples.

    Raises:
        InvalidMessageError: too long, not msgpack, not canonical, or of a type outside rule 1.
    """
    if len(data) > bytes_max:
        raise InvalidMessageError(f"size: {len(data)} bytes, at most {bytes_max} are allowed")
    try:
        value = msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InvalidMessageError(f"encoding: not msgpack ({type(error).__name__})") from error
    _require_plain((value,), DEPTH_MAX)
    if encode(value) != data:
        raise InvalidMessageError("encoding: not canonical")
    return value  # type: ignore[no-any-return]


def encode(value: Value) -> bytes:
    """Encode a value of rule 1. The caller's own values are trusted to be of these types."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _require_plain(items: Sequence[object], depth: int) -> None:
    """Refuse what stands outside rule 1 anywhere below an array; the hot path of every received message."""
    if depth < 0:
        raise InvalidMessageError(f"encoding: nested deeper than {DEPTH_MAX}")
    for item in items:
        kind = type(item)
        if kind is tuple:
            _require_plain(item, depth - 1)  # type: ignore[arg-type]
        elif kind not in _PLAIN:
            raise InvalidMessageError(f"encoding: holds a {kind.__name__}")


# Readers of one field: each returns the value in its type or raises InvalidMessageError.


def as_array(value: Value, name: str, length: int | None = None, *, length_max: int = 1 << 16) -> tuple[Value, ...]:
    if type(value) is not tuple or (length is not None and len(value) != length) or len(value) > length_max:
        wanted = f"{length} items" if length is not None else f"at most {length_max} items"
        raise InvalidMessageError(f"{name}: expected an array of {wanted}")
    return value


def as_uint(value: Value, name: str, bits: int = 63) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise InvalidMessageError(f"{name}: expected an unsigned integer of {bits} bits")
    return value


def as_optional_uint(value: Value, name: str, bits: int = 63) -> int | None:
    return None if value is None else as_uint(value, name, bits)


def as_int(value: Value, name: str) -> int:
    if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
        raise InvalidMessageError(f"{name}: expected a signed integer of 32 bits")
    return value


def as_bool(value: Value, name: str) -> bool:
    if type(value) is not bool:
        raise InvalidMessageError(f"{name}: expected true or false")
    return value


def as_bytes(value: Value, name: str, length: int | None = None, *, length_max: int = 1 << 20) -> bytes:
    if type(value) is not bytes or (length is not None and len(value) != length) or len(value) > length_max:
        wanted = f"{length}" if length is not None else f"at most {length_max}"
        raise InvalidMessageError(f"{name}: expected {wanted} bytes")
    return value


def as_optional_bytes(value: Value, name: str, length: int | None = None, *, length_max: int = 1 << 20) -> bytes | None:
    return None if value is None else as_bytes(value, name, length, length_max=length_max)


def as_text(value: Value, name: str, *, length_max: int) -> str:
    if type(value) is not str or len(value) > length_max:
        raise InvalidMessageError(f"{name}: expected text of at most {length_max} characters")
    return value


# The signed envelope: [signed bytes, signature]. What is signed travels verbatim, so nobody re-encodes it.


def seal(signed: bytes, key: signing.SigningKey) -> bytes:
    """Wrap `signed` with the key's signature."""
    return encode((signed, key.sign(signed)))


def open_envelope(wire: bytes, *, bytes_max: int) -> tuple[bytes, bytes]:
    """Split an envelope into (signed bytes, signature of 64 bytes); the signature is not checked."""
    signed, signature = as_array(decode(wire, bytes_max=bytes_max), "envelope", 2)
    return as_bytes(signed, "signed", length_max=bytes_max), as_bytes(signature, "signature", 64)


def require_signature(key: bytes, signed: bytes, signature: bytes) -> None:
    """Raise `InvalidMessageError` unless `signature` over `signed` holds under `key`."""
    try:
        signing.verify(key, signed, signature)
    except signing.InvalidSignatureError as error:
        raise InvalidMessageError(f"signature: {error}") from error
