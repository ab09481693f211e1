"""A guest's certificate: key, claims and quote belong together, and each way in which they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from ra_tls_guest import (
    NOT_AFTER_S,
    NOT_BEFORE_S,
    Guest,
    build_guest_certificate,
    make_guest,
)

from attestation.errors import (
    AttestationError,
    GuestCertificateFormError,
    GuestCertificateSignatureError,
    GuestClaimsError,
    GuestReportDataError,
    InvalidQuoteError,
)
from attestation.guest_certificate import GUEST_CERTIFICATE_BYTES_MAX, parse_guest_certificate

P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def guest(forge: Any) -> Guest:
    return make_guest(lambda data: forge.quote(forge.signed(report_data=data)))


def test_the_certificate_gives_key_and_quote(guest: Guest, forge: Any) -> None:
    found = parse_guest_certificate(guest.certificate)
    assert (found.key, found.claims) == (guest.public, guest.public)
    assert (found.not_before_s, found.not_after_s) == (NOT_BEFORE_S, NOT_AFTER_S)
    assert forge.verify(found.quote).td.report_data == hashlib.sha512(guest.public).digest()


def certificate(forge: Any, **changes: Any) -> bytes:
    """A guest's certificate with one thing wrong."""
    return make_guest(lambda data: forge.quote(forge.signed(report_data=data)), **changes).certificate


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": P256, "signer": ed25519.Ed25519PrivateKey.generate()}, "not Ed25519"),
        ({"signer": P256}, "not Ed25519"),
        ({"issuer": "somebody else"}, "another name"),
        ({"quote": None}, "no quote"),
        ({"claims": None}, "no claims"),
        ({"is_ca": True}, "a CA"),
        ({"signs": False}, "may not sign"),
        ({"extra": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.12345.3"), b"")}, "unknown critical"),
    ],
)
def test_another_form(forge: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GuestCertificateFormError, match=said):
        parse_guest_certificate(certificate(forge, **changes))


def test_no_certificate(guest: Guest) -> None:
    for der in (b"", guest.certificate[:-1], guest.certificate + b"\0"):
        with pytest.raises(GuestCertificateFormError):
            parse_guest_certificate(der)


def test_the_longest_certificate(forge: Any) -> None:
    room = GUEST_CERTIFICATE_BYTES_MAX - len(certificate(forge, padding=30_000)) + 30_000
    whole = make_guest(lambda data: forge.quote(forge.signed(report_data=data)), padding=room - 100)
    missing = GUEST_CERTIFICATE_BYTES_MAX - len(whole.certificate)
    parts: dict[str, Any] = {
        "key": whole.key,
        "claims": whole.public,
        "quote": parse_guest_certificate(whole.certificate).quote,
    }
    longest = build_guest_certificate(**parts, padding=room - 100 + missing)
    assert len(longest) == GUEST_CERTIFICATE_BYTES_MAX
    assert parse_guest_certificate(longest).key == whole.public
    with pytest.raises(GuestCertificateFormError, match="at most"):
        parse_guest_certificate(build_guest_certificate(**parts, padding=room - 99 + missing))


def test_a_signature_with_unused_bits(guest: Guest) -> None:
    """The library would take it, if these bits are zero: the same certificate in other bytes."""
    der = guest.certificate[:-65] + b"\1" + guest.certificate[-64:]
    with pytest.raises(GuestCertificateFormError):
        parse_guest_certificate(der)


def test_signed_by_another_key(forge: Any) -> None:
    with pytest.raises(GuestCertificateSignatureError):
        parse_guest_certificate(certificate(forge, signer=ed25519.Ed25519PrivateKey.generate()))


def test_the_claims_are_of_another_key(guest: Guest, forge: Any) -> None:
    stolen = {"quote": parse_guest_certificate(guest.certificate).quote, "claims": guest.public}
    with pytest.raises(GuestClaimsError):
        parse_guest_certificate(certificate(forge, **stolen))


@pytest.mark.parametrize("wrap", [lambda claims: b"\x04\x20" + claims, lambda claims: claims[:-1], lambda claims: b""])
def test_claims_of_another_form(guest: Guest, forge: Any, wrap: Callable[[bytes], bytes]) -> None:
    quote = forge.quote(forge.signed(report_data=hashlib.sha512(wrap(guest.public)).digest()))
    der = build_guest_certificate(key=guest.key, quote=quote, claims=wrap(guest.public))
    with pytest.raises(GuestClaimsError):
        parse_guest_certificate(der)


def test_the_quote_of_another_guest(guest: Guest, forge: Any) -> None:
    with pytest.raises(GuestReportDataError):
        parse_guest_certificate(certificate(forge, quote=parse_guest_certificate(guest.certificate).quote))


def test_a_quote_that_is_none(forge: Any) -> None:
    with pytest.raises(InvalidQuoteError):
        parse_guest_certificate(certificate(forge, quote=b"quote"))


def test_the_quote_twice(guest: Guest) -> None:
    """Two readers could take two quotes: the second extension's OID is changed into the first's."""
    der = guest.certificate.replace(bytes.fromhex("2b06010401e03902"), bytes.fromhex("2b06010401e03901"))
    assert der != guest.certificate
    with pytest.raises(GuestCertificateFormError):
        parse_guest_certificate(der)


@given(at=st.integers(0, 1 << 20), value=st.integers(1, 255))
def test_no_byte_can_be_changed(guest: Guest, at: int, value: int) -> None:
    changed = bytearray(guest.certificate)
    changed[at % len(changed)] ^= value
    with pytest.raises(AttestationError):
        parse_guest_certificate(bytes(changed))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(der: bytes) -> None:
    with pytest.raises(GuestCertificateFormError):
        parse_guest_certificate(der)
