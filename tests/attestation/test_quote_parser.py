"""The quote parser: constants, exact lengths, nothing but its own errors on any input."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidQuoteError, QuoteMalformedError, QuoteUnsupportedError
from attestation.providers import software_builders as build
from attestation.providers.software import SOFTWARE_TD
from attestation.quote import parse_quote
from attestation.types import QUOTE_BYTES_MAX

BODY_END = 48 + 584
CERTIFICATION_TYPE = BODY_END + 4 + 128


def put(raw: bytes, at: int, value: bytes) -> bytes:
    return raw[:at] + value + raw[at + len(value) :]


def lengthened(raw: bytes) -> bytes:
    """One byte of slack inside the authentication data."""
    length = int.from_bytes(raw[BODY_END : BODY_END + 4], "little")
    return put(raw, BODY_END, (length + 1).to_bytes(4, "little")) + b"\0"


def test_fields_stand_where_they_belong(forge: Any) -> None:
    quote = parse_quote(forge.quote())
    assert quote.version == 4
    assert quote.td == SOFTWARE_TD
    assert quote.signed == forge.signed()
    assert quote.attestation_key == build.point_of(forge.attestation_key)
    assert quote.qe_auth_data == forge.auth_data
    assert quote.pck_chain_pem == forge.chain()
    assert (quote.qe_report.isv_prod_id, quote.qe_report.isv_svn) == (2, 4)


def test_the_fields_of_body_1_5(forge: Any) -> None:
    td = parse_quote(forge.quote(forge.signed_v5(mr_service_td=b"\x07" * 48))).td
    assert (td.tee_tcb_svn2, td.mr_service_td) == (SOFTWARE_TD.tee_tcb_svn, b"\x07" * 48)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"version": 3}, "version 3"),
        ({"version": 6}, "version 6"),
        ({"key_type": 3}, "key type 3"),
        ({"tee_type": 0}, "TEE type 0x0"),
        ({"vendor": bytes(16)}, "QE vendor"),
    ],
)
def test_other_headers(forge: Any, header: dict[str, Any], said: str) -> None:
    with pytest.raises(QuoteUnsupportedError, match=said):
        parse_quote(forge.quote(forge.signed(build.build_header(**header))))


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (CERTIFICATION_TYPE, b"\x05", QuoteUnsupportedError),
        (CERTIFICATION_TYPE + 6 + 448 + 2 + 32, b"\x06", QuoteUnsupportedError),
        (CERTIFICATION_TYPE + 2, b"\xff", QuoteMalformedError),
        (CERTIFICATION_TYPE + 6 + 448, b"\xff\xff", QuoteMalformedError),
        (BODY_END, b"\xff\xff\xff\xff", QuoteMalformedError),
        (BODY_END, b"\0\0\0\0", QuoteMalformedError),
    ],
)
def test_other_lengths_and_types(forge: Any, at: int, value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_quote(put(forge.quote(), at, value))


def nested_slack(raw: bytes) -> bytes:
    """One byte of slack inside the QE's certification data."""
    raw = lengthened(raw)
    length = int.from_bytes(raw[CERTIFICATION_TYPE + 2 : CERTIFICATION_TYPE + 6], "little")
    return put(raw, CERTIFICATION_TYPE + 2, (length + 1).to_bytes(4, "little"))


def test_slack_is_refused_wherever_it_hides(forge: Any) -> None:
    for raw in (forge.quote() + b"\0", lengthened(forge.quote()), nested_slack(forge.quote())):
        with pytest.raises(QuoteMalformedError):
            parse_quote(raw)


def test_too_long_is_refused_unread() -> None:
    with pytest.raises(QuoteMalformedError):
        parse_quote(bytes(QUOTE_BYTES_MAX + 1))


@pytest.mark.parametrize(("body_type", "error"), [(1, QuoteUnsupportedError), (2, QuoteMalformedError)])
def test_other_bodies_of_v5(forge: Any, body_type: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"body type {body_type}"):
        parse_quote(forge.quote(forge.signed_v5(body_type)))


@given(st.binary(max_size=800), st.sampled_from([4, 5]))
def test_any_bytes_parse_or_are_refused(tail: bytes, version: int) -> None:
    with contextlib.suppress(InvalidQuoteError):
        quote = parse_quote(build.build_header(version=version) + tail)
        assert quote.version == version
