"""Any changed byte of quote or collateral is refused with an error of ours, or changes nothing at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.collateral import COLLATERAL_BYTES_MAX, Collateral
from attestation.errors import AttestationError, CollateralMalformedError, InvalidQuoteError, TcbInfoError
from attestation.tcb_json import parse_qe_identity, parse_tcb_info
from attestation.verify import Verifier


def mutate(data: bytes, at: int, change: int, cut: int) -> bytes:
    at %= max(1, len(data))
    return data[:at] + bytes(byte ^ change for byte in data[at : at + 1]) + data[at + 1 + cut :]


edits = {"at": st.integers(0, 1 << 16), "change": st.integers(1, 255), "cut": st.sampled_from([0, 0, 0, 1, 7])}


@given(**edits)
@settings(max_examples=300)
def test_quotes(forge: Any, at: int, change: int, cut: int) -> None:
    raw, collateral, verifier = _world(forge)
    mutant = mutate(raw, at, change, cut)
    try:
        verified = verifier.verify_quote(mutant, collateral, now=forge.now)
    except InvalidQuoteError:
        return
    assert verified == verifier.verify_quote(raw, collateral, now=forge.now)


@given(field=st.integers(0, 8), **edits)
@settings(max_examples=300)
def test_collateral_parts(forge: Any, field: int, at: int, change: int, cut: int) -> None:
    raw, collateral, verifier = _world(forge)
    tree = json.loads(collateral.to_json())
    name = sorted(tree)[field]
    value = getattr(collateral, name)
    try:
        parts = {key: getattr(collateral, key) for key in tree} | {name: mutate(value, at, change, cut)}
        verified = verifier.verify_quote(raw, Collateral(**parts), now=forge.now)
    except AttestationError:
        return
    # PEM, and the count of unused bits in a DER signature, have more than one spelling; they say the same.
    expected = verifier.verify_quote(raw, collateral, now=forge.now)
    assert (verified.status, verified.td, verified.platform) == (expected.status, expected.td, expected.platform)


@given(**edits)
@settings(max_examples=200)
def test_collateral_json(forge: Any, at: int, change: int, cut: int) -> None:
    collateral = _world(forge)[1]
    try:
        read = Collateral.from_json(mutate(collateral.to_json(), at, change, cut))
    except CollateralMalformedError:
        return
    assert Collateral.from_json(read.to_json()).digest == read.digest


@given(**edits)
@settings(max_examples=200)
def test_documents_whose_signature_would_hold(forge: Any, at: int, change: int, cut: int) -> None:
    """The JSON readers stand on their own: even a signer's slip is an error of ours."""
    collateral = _world(forge)[1]
    for read, text in [(parse_tcb_info, collateral.tcb_info), (parse_qe_identity, collateral.qe_identity)]:
        try:
            parsed: Any = read(mutate(text, at, change, cut))
        except TcbInfoError:
            continue
        assert parsed.levels


@given(st.binary(max_size=300))
def test_any_bytes_as_collateral(data: bytes) -> None:
    with pytest.raises(CollateralMalformedError):  # 300 bytes cannot be collateral
        Collateral.from_json(data)


@pytest.mark.parametrize(
    "data", [b" " * (COLLATERAL_BYTES_MAX + 1), b"[" * COLLATERAL_BYTES_MAX, b'{"a":' * 1000, b"\xff", b"null"]
)
def test_collateral_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(CollateralMalformedError):
        Collateral.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"tcb_info_signature": bytes(63)},
        {"qe_identity_signature": bytes(65)},
        {"tcb_info": b"\xff"},
        {"pck_crl": bytes(COLLATERAL_BYTES_MAX // 2)},
    ],
)
def test_collateral_parts_out_of_bounds_are_refused(forge: Any, change: dict[str, bytes]) -> None:
    with pytest.raises(CollateralMalformedError):
        forge.collateral(**change)


def test_spaces_around_collateral_are_bounded_too(forge: Any) -> None:
    data = _world(forge)[1].to_json()
    assert Collateral.from_json(data + b" " * 1000).to_json() == data
    with pytest.raises(CollateralMalformedError):
        Collateral.from_json(data + b" " * COLLATERAL_BYTES_MAX)


_made: list[tuple[bytes, Collateral, Verifier]] = []


def _world(forge: Any) -> tuple[bytes, Collateral, Verifier]:
    if not _made:
        _made.append((forge.quote(), forge.collateral(), Verifier(forge.root.der)))
    return _made[0]
