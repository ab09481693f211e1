"""Ed25519 as this project accepts it: nothing that the chain's own check refuses, nothing ambiguous."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidValueError
from contracts.signing import InvalidSignatureError, SigningKey, verify

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ed25519_edge_cases.json").read_text())
HOLDS_WITHOUT_COFACTOR = "mixed A and R: holds with and without cofactor"
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
KEY = SigningKey(hashlib.sha256(b"signer").digest())

SMALL_ORDER = [
    # All 14 encodings of points of order 1, 2, 4 and 8, canonical or not ("Taming the many EdDSAs", table 6b).
    *("01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f", "ec" + "ff" * 31),
    *("00" * 32, "00" * 31 + "80", "ed" + "ff" * 30 + "7f", "ed" + "ff" * 31),
    *("ee" + "ff" * 30 + "7f", "ee" + "ff" * 31),
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def test_a_signature_of_rfc_8032_holds() -> None:
    # RFC 8032, section 7.1, test 3.
    key = SigningKey(bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
    assert key.public.hex() == "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    signature = key.sign(bytes.fromhex("af82"))
    assert signature.hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    verify(key.public, bytes.fromhex("af82"), signature)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["why"])
def test_published_edge_case(case: dict[str, str]) -> None:
    key, message, signature = (bytes.fromhex(case[name]) for name in ("key", "message", "signature"))
    if case["why"] == HOLDS_WITHOUT_COFACTOR:
        verify(key, message, signature)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)  # as OpenSSL, the chain's library, does
    else:
        with pytest.raises(InvalidSignatureError):
            verify(key, message, signature)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["why"])
def test_whatever_holds_here_holds_in_openssl(case: dict[str, str]) -> None:
    key, message, signature = (bytes.fromhex(case[name]) for name in ("key", "message", "signature"))
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        with pytest.raises(InvalidSignatureError):
            verify(key, message, signature)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_is_refused_as_key_and_as_r(point: str) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(bytes.fromhex(point), b"any message", bytes.fromhex(point) + bytes(32))
    signature = KEY.sign(b"message")
    with pytest.raises(InvalidSignatureError):
        verify(KEY.public, b"message", bytes.fromhex(point) + signature[32:])


@given(st.binary(max_size=100), st.integers(1, 15))
def test_s_plus_a_multiple_of_the_group_order_is_refused(message: bytes, times: int) -> None:
    signature = KEY.sign(message)
    s = int.from_bytes(signature[32:], "little") + times * GROUP_ORDER
    if s < 1 << 256:
        with pytest.raises(InvalidSignatureError):
            verify(KEY.public, message, signature[:32] + s.to_bytes(32, "little"))


@given(st.binary(max_size=100), st.integers(0, 511))
def test_any_flipped_bit_is_refused(message: bytes, bit: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidSignatureError):
        verify(KEY.public, message, bytes(signature))


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=40))
def test_garbage_is_refused_with_the_typed_error(key: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(key, message, signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidValueError):
        SigningKey(bytes(length))


def test_repr_shows_the_public_half_only() -> None:
    assert KEY.public.hex() in repr(KEY)
    assert KEY.seed.hex() not in repr(KEY)
    assert KEY.seed == hashlib.sha256(b"signer").digest()
