"""Canonical msgpack: one value has one encoding, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import struct

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.signing import SigningKey
from gossip import codec
from gossip.errors import InvalidMessageError

BYTES_MAX = 1 << 16
KEY = SigningKey(hashlib.sha256(b"signer").digest())

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=300)
VALUES = st.recursive(SCALARS, lambda items: st.lists(items, max_size=20).map(tuple), max_leaves=40).filter(
    lambda value: depth(value) <= codec.DEPTH_MAX
)


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, tuple) else 0


def same(a: object, b: object) -> bool:
    """Equality that keeps True apart from 1."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(VALUES)
def test_round_trip(value: codec.Value) -> None:
    assert same(codec.decode(codec.encode(value), bytes_max=BYTES_MAX), value)


@given(st.binary(max_size=80))
@example(b"\xd5\x05ab")
@example(msgpack.packb(msgpack.ExtType(5, bytes(32))))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = codec.decode(data, bytes_max=BYTES_MAX)
    except InvalidMessageError:
        return
    assert codec.encode(value) == data
    assert type(value) in (int, bool, bytes, str, tuple, type(None))


@given(VALUES, st.data())
def test_a_mutated_encoding_is_another_value_or_refused(value: codec.Value, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        other = codec.decode(bytes(encoded), bytes_max=BYTES_MAX)
    except InvalidMessageError:
        return
    assert not same(other, value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty", b""),
        ("trailing byte", b"\x01\x00"),
        ("cut short", b"\x92\x01"),
        ("reserved code", b"\xc1"),
        ("5 as uint8", b"\xcc\x05"),
        ("5 as uint16", b"\xcd\x00\x05"),
        ("5 as uint64", b"\xcf" + struct.pack(">Q", 5)),
        ("5 as int8", b"\xd0\x05"),
        ("5 as int64", b"\xd3" + struct.pack(">q", 5)),
        ("-1 as int8", b"\xd0\xff"),
        ("bin16 for 2 bytes", b"\xc5\x00\x02ab"),
        ("bin32 for 2 bytes", b"\xc6\x00\x00\x00\x02ab"),
        ("str8 for 2 bytes", b"\xd9\x02ab"),
        ("array16 for 1 item", b"\xdc\x00\x01\x01"),
        ("array32 for 1 item", b"\xdd\x00\x00\x00\x01\x01"),
        ("empty map", b"\x80"),
        ("map", msgpack.packb({"a": 1})),
        ("map with an array as key", b"\x81\x91\x01\x01"),
        ("map with a map as key", b"\x81\x80\x01"),
        ("map in an array", msgpack.packb([{}])),
        ("float 32", b"\xca" + struct.pack(">f", 1.0)),
        ("float 64", msgpack.packb(1.0)),
        ("not a number", b"\xcb" + struct.pack(">d", float("nan"))),
        ("fixext 1", b"\xd4\x05a"),
        ("fixext 16", b"\xd8\x05" + bytes(16)),
        ("ext 8", msgpack.packb(msgpack.ExtType(5, bytes(32)))),
        ("ext in an array", msgpack.packb([msgpack.ExtType(5, bytes(32))])),
        ("timestamp", msgpack.packb(msgpack.Timestamp(1, 0))),
        ("timestamp out of range", b"\xc7\x0c\xff" + b"\xff" * 12),
        ("text that is no UTF-8", b"\xa1\xff"),
        ("surrogate", b"\xa3\xed\xa0\x80"),
        ("array header of 2**32 - 1", b"\xdd\xff\xff\xff\xff"),
        ("map header of 2**32 - 1", b"\xdf\xff\xff\xff\xff"),
        ("bin header of 2**32 - 1", b"\xc6\xff\xff\xff\xff"),
        ("str header of 2**32 - 1", b"\xdb\xff\xff\xff\xff"),
        ("nested once too deep", b"\x91" * (codec.DEPTH_MAX + 1) + b"\x01"),
        ("nested 60,000 deep", b"\x91" * 60_000 + b"\x01"),
        ("maps nested 60,000 deep", b"\x81\x01" * 30_000 + b"\x01"),
    ],
)
def test_refused(name: str, data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        codec.decode(data, bytes_max=BYTES_MAX)


def test_size_is_checked_before_anything_else() -> None:
    data = codec.encode(bytes(1000))
    assert codec.decode(data, bytes_max=len(data)) == bytes(1000)
    with pytest.raises(InvalidMessageError, match="size"):
        codec.decode(data, bytes_max=len(data) - 1)


def test_the_deepest_allowed_value() -> None:
    data = b"\x91" * codec.DEPTH_MAX + b"\x01"
    assert depth(codec.decode(data, bytes_max=BYTES_MAX)) == codec.DEPTH_MAX


@pytest.mark.parametrize("wrong", [True, -1, 1 << 63, b"1", "1", None, (1,)])
def test_uint_refuses(wrong: codec.Value) -> None:
    with pytest.raises(InvalidMessageError, match=r"^field: "):
        codec.as_uint(wrong, "field")


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (lambda v: codec.as_array(v, "field", 2), (1,)),
        (lambda v: codec.as_array(v, "field", length_max=1), (1, 2)),
        (lambda v: codec.as_array(v, "field"), b"ab"),
        (lambda v: codec.as_array(v, "field"), msgpack.ExtType(1, b"a")),
        (lambda v: codec.as_int(v, "field"), 1 << 31),
        (lambda v: codec.as_int(v, "field"), False),
        (lambda v: codec.as_bool(v, "field"), 1),
        (lambda v: codec.as_bool(v, "field"), None),
        (lambda v: codec.as_bytes(v, "field", 32), bytes(31)),
        (lambda v: codec.as_bytes(v, "field", length_max=3), bytes(4)),
        (lambda v: codec.as_bytes(v, "field"), "text"),
        (lambda v: codec.as_text(v, "field", length_max=3), "four"),
        (lambda v: codec.as_text(v, "field", length_max=3), b"abc"),
        (lambda v: codec.as_optional_uint(v, "field", 8), 256),
        (lambda v: codec.as_optional_bytes(v, "field", 2), b"a"),
    ],
)
def test_readers_refuse_and_name_the_field(read: object, wrong: codec.Value) -> None:
    with pytest.raises(InvalidMessageError, match=r"^field: "):
        read(wrong)


def test_envelope() -> None:
    wire = codec.seal(b"signed bytes", KEY)
    signed, signature = codec.open_envelope(wire, bytes_max=1000)
    assert signed == b"signed bytes"
    codec.require_signature(KEY.public, signed, signature)
    with pytest.raises(InvalidMessageError):
        codec.require_signature(KEY.public, signed + b"!", signature)


@pytest.mark.parametrize(
    "value",
    [b"bytes", (b"signed",), (b"signed", bytes(63)), (b"signed", bytes(64), 1), ("signed", bytes(64)), (1, bytes(64))],
)
def test_what_is_no_envelope(value: codec.Value) -> None:
    with pytest.raises(InvalidMessageError):
        codec.open_envelope(codec.encode(value), bytes_max=1000)


def test_two_wrong_keys_give_the_same_reason() -> None:
    """Reasons are counted by their first words: they must not carry what a peer chose."""
    reasons = set()
    for key in (bytes(32), b"\x07" * 32):
        with pytest.raises(InvalidMessageError) as caught:
            codec.require_signature(key, b"signed", bytes(64))
        reasons.add(str(caught.value).partition(":")[0])
    assert len(reasons) == 1
