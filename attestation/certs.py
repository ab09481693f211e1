"""Certificates and revocation lists: from untrusted bytes to a chain that ends in the pinned root.

Decides form, names, issuing rights, signatures and revocation. Time is *not* decided here: every part
yields a `Validity`, checked against `now` by the caller on every use, so that what is decided here may be
cached.

Rules
1. A chain is PEM with exactly the expected certificates, leaf first, nothing between or around them but
   line ends and one final NUL (which Intel's quoting library appends).
2. The last certificate is the pinned root, byte for byte. Names are those of Intel's PKI.
3. P-256 keys, ECDSA with SHA-256, no unknown critical extension; issuers are CAs that may sign
   certificates and lists, leaves are not CAs and may sign data.
4. A revocation list has a next update, no critical extension (so it is never a partial list), and the
   name and signature of the certificate that issued what it revokes.

Every exception of the X.509 library means malformed input: it is translated, never let through.

Source: RFC 5280; Intel SGX PCK Certificate and CRL Profile Specification, sections 1.3 and 1.4.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from attestation.errors import (
    AttestationError,
    CertificateExpiredError,
    CertificateNotYetValidError,
    CollateralCertificateError,
    CollateralChainFormError,
    CollateralChainNameError,
    CollateralChainRootError,
    CollateralChainSignatureError,
    CollateralChainUsageError,
    CrlExpiredError,
    CrlIssuerError,
    CrlMalformedError,
    CrlNotYetValidError,
    CrlSignatureError,
    PckCertificateError,
    PckChainFormError,
    PckChainNameError,
    PckChainRootError,
    PckChainSignatureError,
    PckChainUsageError,
    PckExpiredError,
    PckNotYetValidError,
    RootRefusedError,
)

CN_ROOT = "Intel SGX Root CA"
CN_PCK_ISSUERS = frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"})
CN_PCK = "Intel SGX PCK Certificate"
CN_TCB_SIGNING = "Intel SGX TCB Signing"
OID_SGX_EXTENSIONS = x509.ObjectIdentifier("1.2.840.113741.1.13.1")

_SHA256 = ec.ECDSA(hashes.SHA256())
_PEM_BLOCK = rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n)+)-----END CERTIFICATE-----(?:\r?\n)?"
_KNOWN_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """The seconds (Unix, both ends included) in which `what` may be used, and who is at fault outside."""

    what: str
    not_before_s: int
    not_after_s: int
    early: type[AttestationError]
    late: type[AttestationError]

    def require(self, now: int) -> None:
        """Raise `early` or `late` unless `now` (Unix seconds) lies within."""
        if now < self.not_before_s:
            raise self.early(f"{self.what}: valid from {self.not_before_s}, now {now}")
        if now > self.not_after_s:
            raise self.late(f"{self.what}: valid until {self.not_after_s}, now {now}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate: form holds, nothing is verified. `subject` and `issuer` are DER names."""

    der: bytes
    subject: bytes
    issuer: bytes
    common_name: str
    serial: int
    not_before_s: int
    not_after_s: int
    key: ec.EllipticCurvePublicKey
    is_ca: bool
    signs_certificates: bool
    signs_lists: bool
    signs_data: bool
    sgx_extension: bytes | None
    signed: bytes
    signature: bytes

    def validity(self, *, of_sender: bool = False) -> Validity:
        """Its validity; outside of it the quote's sender is at fault, or the collateral."""
        return Validity(
            what=f'certificate "{self.common_name}"',
            not_before_s=self.not_before_s,
            not_after_s=self.not_after_s,
            early=PckNotYetValidError if of_sender else CertificateNotYetValidError,
            late=PckExpiredError if of_sender else CertificateExpiredError,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A revocation list whose signature holds."""

    issuer: bytes
    validity: Validity
    serials: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFaults:
    """Which error each fault of a chain is: whoever brought the chain is at fault."""

    form: type[AttestationError]
    certificate: type[AttestationError]
    root: type[AttestationError]
    name: type[AttestationError]
    usage: type[AttestationError]
    signature: type[AttestationError]


PCK_CHAIN = ChainFaults(
    form=PckChainFormError,
    certificate=PckCertificateError,
    root=PckChainRootError,
    name=PckChainNameError,
    usage=PckChainUsageError,
    signature=PckChainSignatureError,
)
"""A chain in a quote: its sender is at fault."""

COLLATERAL_CHAIN = ChainFaults(
    form=CollateralChainFormError,
    certificate=CollateralCertificateError,
    root=CollateralChainRootError,
    name=CollateralChainNameError,
    usage=CollateralChainUsageError,
    signature=CollateralChainSignatureError,
)
"""An issuer's chain in collateral."""


def verify_chain(
    pem: bytes, root: bytes, names: Sequence[frozenset[str]], faults: ChainFaults
) -> tuple[Certificate, ...]:
    """Read the certificates below `root` (DER), leaf first, and verify each against the next one.

    `names` holds the allowed common names of each certificate below the root, leaf first. Those of
    `CN_PCK_ISSUERS` must be CAs, all others must not. The result ends with the root. Whether the
    certificates are valid at some time, or revoked, remains to be checked.

    Raises:
        AttestationError: the chain breaks rule 1, 2 or 3; `faults` names the class for each.
        RootRefusedError: `root` itself is not a CA of the expected name.
    """
    anchor = _read_root(root)
    blocks = split_pem(pem, len(names) + 1, faults.form)
    if blocks[-1] != root:
        raise faults.root("chain: does not end in the pinned root")
    chain = (*(parse_certificate(block, faults.certificate) for block in blocks[:-1]), anchor)
    for position, allowed in enumerate(names):
        certificate = chain[position]
        if certificate.common_name not in allowed:
            raise faults.name(f'chain: "{certificate.common_name}" stands where {sorted(allowed)} belongs')
        _require_usage(certificate, faults.usage)
        _require_issued(certificate, chain[position + 1], faults.signature)
    return chain


def split_pem(pem: bytes, count: int, fault: type[AttestationError]) -> list[bytes]:
    """Return the DER of exactly `count` concatenated PEM certificates (rule 1), or raise `fault`."""
    if not re.fullmatch(rb"(?:%b){%d}\0?" % (_PEM_BLOCK, count), pem):
        raise fault(f"chain: not exactly {count} concatenated PEM certificates")
    try:
        return [
            base64.b64decode(body.replace(b"\r", b"").replace(b"\n", b""), validate=True)
            for body in re.findall(_PEM_BLOCK, pem)
        ]
    except binascii.Error as error:
        raise fault(f"chain: PEM is not base64: {error}") from error


def parse_certificate(der: bytes, fault: type[AttestationError]) -> Certificate:
    """Read one DER certificate, all fields at once (the library reads them lazily), or raise `fault`."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
            raise _UnusableError("not signed by ECDSA with SHA-256")
        if not der.endswith(b"\0" + certificate.signature):
            # The library does not look at the count of unused bits before the signature.
            raise _UnusableError("the signature has unused bits")
        return Certificate(
            der=der,
            subject=certificate.subject.public_bytes(),
            issuer=certificate.issuer.public_bytes(),
            common_name=_common_name(certificate),
            serial=certificate.serial_number,
            not_before_s=_seconds(certificate.not_valid_before_utc),
            not_after_s=_seconds(certificate.not_valid_after_utc),
            key=_p256_key(certificate),
            is_ca=constraints.ca,
            signs_certificates=usage.key_cert_sign,
            signs_lists=usage.crl_sign,
            signs_data=usage.digital_signature,
            sgx_extension=_sgx_extension(extensions),
            signed=certificate.tbs_certificate_bytes,
            signature=certificate.signature,
        )
    except Exception as error:
        raise fault(f"certificate: {error}") from error


@lru_cache(maxsize=8)
def _read_root(root: bytes) -> Certificate:
    """Read the pinned root once; it ends every chain, and what is wrong with it is the configuration's fault."""
    anchor = parse_certificate(root, RootRefusedError)
    if anchor.common_name != CN_ROOT:
        raise RootRefusedError(f'root: named "{anchor.common_name}", expected "{CN_ROOT}"')
    _require_usage(anchor, RootRefusedError)
    return anchor


def parse_revocation_list(der: bytes, issuer: Certificate, what: str) -> RevocationList:
    """Read a DER revocation list and verify it against `issuer`.

    Raises:
        CrlMalformedError: not a complete revocation list.
        CrlIssuerError, CrlSignatureError: of another issuer, or the signature does not hold.
    """
    try:
        revocation_list = x509.load_der_x509_crl(der)
        named = revocation_list.issuer.public_bytes()
        complete = not any(extension.critical for extension in revocation_list.extensions)
        next_update = revocation_list.next_update_utc
        validity = Validity(
            what=what,
            not_before_s=_seconds(revocation_list.last_update_utc),
            # Without a next update nobody could tell that it is out of date: it always is.
            not_after_s=-1 if next_update is None else _seconds(next_update),
            early=CrlNotYetValidError,
            late=CrlExpiredError,
        )
        serials = frozenset(entry.serial_number for entry in revocation_list)
        algorithm = revocation_list.signature_algorithm_oid
        signed = revocation_list.tbs_certlist_bytes
        signature = revocation_list.signature
        whole = der.endswith(b"\0" + signature)
    except Exception as error:
        raise CrlMalformedError(f"{what}: {error}") from error
    if not complete or not whole or algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise CrlMalformedError(f"{what}: a critical extension, another signature algorithm, or unused bits")
    if named != issuer.subject:
        raise CrlIssuerError(f'{what}: not issued by "{issuer.common_name}"')
    try:
        issuer.key.verify(signature, signed, _SHA256)
    except InvalidSignature:
        raise CrlSignatureError(f"{what}: the signature does not hold") from None
    return RevocationList(issuer=named, validity=validity, serials=serials)


def verify_raw_signature(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, fault: type[AttestationError], what: str
) -> None:
    """Verify `signature` (r || s, 64 bytes big-endian) with ECDSA P-256 SHA-256, or raise `fault`."""
    der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(der, message, _SHA256)
    except InvalidSignature:
        raise fault(f"{what}: the signature does not hold") from None


def load_point(point: bytes, fault: type[AttestationError]) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key with the coordinates `point` (x || y, 64 bytes), or raise `fault`."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError as error:
        raise fault("attestation key: not a point of P-256") from error


class _UnusableError(ValueError):
    """A well-formed certificate of a kind that the PKI does not have."""


def _p256_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _UnusableError("the key is not on P-256")
    return key


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _UnusableError("not exactly one common name")
    return str(names[0].value)


def _require_usage(certificate: Certificate, fault: type[AttestationError]) -> None:
    if certificate.common_name == CN_ROOT or certificate.common_name in CN_PCK_ISSUERS:
        if not (certificate.is_ca and certificate.signs_certificates and certificate.signs_lists):
            raise fault(f'chain: "{certificate.common_name}" is not a CA that may sign certificates and lists')
    elif certificate.is_ca or not certificate.signs_data:
        raise fault(f'chain: "{certificate.common_name}" is a CA, or may not sign data')


def _require_issued(certificate: Certificate, issuer: Certificate, fault: type[AttestationError]) -> None:
    if certificate.issuer != issuer.subject:
        raise fault(f'chain: "{certificate.common_name}" is not issued by "{issuer.common_name}"')
    try:
        issuer.key.verify(certificate.signature, certificate.signed, _SHA256)
    except InvalidSignature:
        raise fault(f'chain: the signature on "{certificate.common_name}" does not hold') from None


def _sgx_extension(extensions: x509.Extensions) -> bytes | None:
    found = None
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise _UnusableError(f"unknown critical extension {extension.oid.dotted_string}")
        if extension.oid == OID_SGX_EXTENSIONS and isinstance(extension.value, x509.UnrecognizedExtension):
            found = extension.value.value
    return found


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
