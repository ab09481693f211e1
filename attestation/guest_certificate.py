"""The certificate of an attested guest (RA-TLS, as Cocoon makes it): from untrusted DER to key, quote and claims.

It says: whoever holds this TLS key is the TD of this quote. Whether the quote is authentic is decided in
`attestation.verify`, whether a time lies within the certificate's by the caller.

Rules
1. At most 40 KiB of DER; Ed25519 key and signature; issuer and subject are the same; signed by its own key.
2. Extension 1.3.6.1.4.1.12345.1 is the quote, .2 are the claims: each the bare bytes, in no further wrapping.
   An end entity that may sign; no critical extension other than these and the usual three.
3. The claims are the 32 bytes of the certificate's key, and the quote's report data is SHA-512(claims).

Source: cocoon.org/docs/ra-tls; TelegramMessenger/cocoon, tee/cocoon/tdx.cpp (generate_self_signed_cert,
UserClaims).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from attestation.errors import (
    GuestCertificateFormError,
    GuestCertificateSignatureError,
    GuestClaimsError,
    GuestReportDataError,
)
from attestation.quote import parse_quote

GUEST_CERTIFICATE_BYTES_MAX = 40 * 1024
OID_QUOTE = x509.ObjectIdentifier("1.3.6.1.4.1.12345.1")
OID_CLAIMS = x509.ObjectIdentifier("1.3.6.1.4.1.12345.2")

_SIGNED_BY_ED25519 = bytes.fromhex("300506032b6570034100")
"""DER: the algorithm, and the head of the bit string that holds the signature."""
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        OID_QUOTE,
        OID_CLAIMS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestCertificate:
    """A guest's TLS key (Ed25519, 32 bytes) and the quote over it, which is parsed and not verified.

    `not_before_s` and `not_after_s` are Unix seconds, both ends included.
    """

    key: bytes
    quote: bytes
    claims: bytes
    not_before_s: int
    not_after_s: int


def parse_guest_certificate(der: bytes) -> GuestCertificate:
    """Read a guest's certificate (DER, at most 40 KiB) and check that key, claims and quote belong together.

    Raises:
        GuestCertificateError: rule 1, 2 or 3 does not hold.
        InvalidQuoteError: the quote is malformed or of another kind.
    """
    if len(der) > GUEST_CERTIFICATE_BYTES_MAX:
        raise GuestCertificateFormError(
            f"guest certificate: {len(der)} bytes, at most {GUEST_CERTIFICATE_BYTES_MAX} are read"
        )
    certificate, key, found = _read(der)
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature:
        raise GuestCertificateSignatureError("guest certificate: not signed by its own key") from None
    if found.claims != found.key:
        raise GuestClaimsError("guest certificate: the claims are not its public key")
    if parse_quote(found.quote).td.report_data != hashlib.sha512(found.claims).digest():
        raise GuestReportDataError("guest certificate: the quote's report data is not the hash of the claims")
    return found


def _read(der: bytes) -> tuple[x509.Certificate, Ed25519PublicKey, GuestCertificate]:
    """All fields at once, since the library reads them lazily; any of its exceptions means malformed."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        algorithm = certificate.signature_algorithm_oid
        if not isinstance(key, Ed25519PublicKey) or algorithm != SignatureAlgorithmOID.ED25519:
            raise _UnusableError("its key or signature is not Ed25519")
        # The library takes a signature whose last bits are said to be unused: one certificate, several byte strings.
        if not der.endswith(certificate.tbs_certificate_bytes + _SIGNED_BY_ED25519 + certificate.signature):
            raise _UnusableError("its signature is not 64 whole bytes")
        if certificate.issuer.public_bytes() != certificate.subject.public_bytes():
            raise _UnusableError("issued by another name")
        own = _own_extensions(certificate.extensions)
        return (
            certificate,
            key,
            GuestCertificate(
                key=key.public_bytes_raw(),
                quote=own[OID_QUOTE],
                claims=own[OID_CLAIMS],
                not_before_s=int(certificate.not_valid_before_utc.timestamp()),
                not_after_s=int(certificate.not_valid_after_utc.timestamp()),
            ),
        )
    except Exception as error:
        raise GuestCertificateFormError(f"guest certificate: {error}") from error


class _UnusableError(ValueError):
    """A well-formed certificate that is none of a guest."""


def _own_extensions(extensions: x509.Extensions) -> dict[x509.ObjectIdentifier, bytes]:
    own = {}
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise _UnusableError(f"unknown critical extension {extension.oid.dotted_string}")
        if isinstance(extension.value, x509.UnrecognizedExtension):
            own[extension.oid] = extension.value.value
    if OID_QUOTE not in own or OID_CLAIMS not in own:
        raise _UnusableError("no quote or no claims")
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    if constraints.ca or not usage.digital_signature:
        raise _UnusableError("a CA, or may not sign")
    return own
