"""A GPU's certificates: from untrusted bytes to an attestation key that leads to the pinned root.

Decides form, issuing rights, validity, signatures; which device it is, and for which firmware the GPU's ROM
made the attestation key. Everything but the root is untrusted.

Rules
1. No root is sent. Below it, from the leaf on: the attestation key, perhaps further layers of
   firmware, the device (made in the GPU's ROM), the provisioner and the family of GPUs.
2. P-384 keys, ECDSA with SHA-384, no unknown critical extension; issuers are CAs that may sign certificates,
   within their path length; the leaf is none and may sign data; each is issued by the next, all are valid.
3. The device is the third certificate below the root, counted from there: so whoever breaks a device, and
   can issue certificates with its key, still has a single identity.
4. The leaf says for which firmware (FWID, SHA-384) its key was derived, in the form of Hopper or in the
   TCG's, as Blackwell does.

NVIDIA's certificates are valid until the end of 9999, and begin in 2020 to 2023: validity decides nothing
for these, but it does for other roots.

Elsewhere, and not done: revocation. NVIDIA answers it online (OCSP) only, which no verdict that is to be the
same on every node at any time can ask; a pool denies single GPUs by identity (`attestation.gpu_policy`).

Source: RFC 5280; TCG DICE Attestation Architecture 1.1, 6.1 (FWID, TcbInfo); NVIDIA/nvtrust,
local_gpu_verifier; the device root: same repository, verifier_device_root.pem.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from attestation.errors import AttestationError, RootRefusedError
from attestation.errors.gpu import (
    GpuCertificateError,
    GpuCertificateExpiredError,
    GpuCertificateNotYetValidError,
    GpuChainFormError,
    GpuChainSignatureError,
    GpuChainUsageError,
)
from attestation.roots import PUBLIC_NETWORKS

NVIDIA_ROOT_SHA256 = bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
NVIDIA_ROOT = base64.b64decode(
    "MIICCzCCAZCgAwIBAgIQLTZwscoQBBHB/sDoKgZbVDAKBggqhkjOPQQDAzA1MSIwIAYDVQQDDBlOVklESUEgRGV2aWNlIElkZW50aXR5"
    "IENBMQ8wDQYDVQQKDAZOVklESUEwIBcNMjExMTA1MDAwMDAwWhgPOTk5OTEyMzEyMzU5NTlaMDUxIjAgBgNVBAMMGU5WSURJQSBEZXZp"
    "Y2UgSWRlbnRpdHkgQ0ExDzANBgNVBAoMBk5WSURJQTB2MBAGByqGSM49AgEGBSuBBAAiA2IABA5MFKM7+KViZljbQSlgfky/RRnEQScW"
    "9NDZF8SXgAW96r6u/Ve8ZggtcYpPi2BS4VFu6KfEIrhN6FcHG7WP05W+oM+hxj7nyA1r1jkB2Ry70YfThX3Ba1zOryOP+MJ9vaNjMGEw"
    "DwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYEFFeF/4PyY8xlfWi3Olv0jUrL+0lfMB8GA1UdIwQYMBaAFFeF"
    "/4PyY8xlfWi3Olv0jUrL+0lfMAoGCCqGSM49BAMDA2kAMGYCMQCPeFM3TASsKQVaT+8S0sO9u97PVGCpE9d/I42IT7k3UUOLSR/qvJyn"
    "VOD1vQKVXf0CMQC+EY55WYoDBvs2wPAH1Gw4LbcwUN8QCff8bFmV4ZxjCRr4WXTLFHBKjbfneGSBWwA="
)
"""DER of the NVIDIA Device Identity CA, the root of Hopper and Blackwell. A test compares it with the digest."""

CERTIFICATE_BYTES_MAX = 2048
CHAIN_MIN, CHAIN_MAX = 4, 6
"""Certificates below the root; Hopper and Blackwell have 4."""

_DEVICE = -3
_SHA384 = ec.ECDSA(hashes.SHA384())
_KNOWN_CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
_OID_FWID_HOPPER = x509.ObjectIdentifier("2.23.133.5.4.1")
_OID_FWID_TCG = x509.ObjectIdentifier("2.23.133.5.4.1.1")
_FWID_HEADER = bytes.fromhex("303d06096086480165030402020430")
"""DER of a FWID (SEQUENCE { SHA-384, OCTET STRING of 48 bytes }) up to its digest."""
_FWID_BYTES = len(_FWID_HEADER) + 48
_TAG_FWIDS = 0xA6


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """A GPU whose certificates hold. `identity` is SHA-256 of its device key (SubjectPublicKeyInfo)."""

    identity: bytes
    model: str
    fwid: bytes
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate:
    """A parsed certificate: form holds, nothing is verified. `path_max` is -1 for one that may issue none."""

    subject: bytes
    issuer: bytes
    name: str
    not_before_s: int
    not_after_s: int
    key: ec.EllipticCurvePublicKey
    path_max: int
    signs_data: bool
    fwid: bytes | None
    signed: bytes
    signature: bytes


def verify_gpu_chain(chain: Sequence[bytes], *, root: bytes, now: int) -> GpuDevice:
    """Verify `chain` (DER, leaf first, without the root) at `now` (Unix seconds) up to `root` (DER).

    Raises:
        GpuChainError: the chain breaks a rule; the subclass says which.
        RootRefusedError: `root` itself is no P-384 CA.
    """
    anchor = _read_root(root)
    if not CHAIN_MIN <= len(chain) <= CHAIN_MAX or max(map(len, chain)) > CERTIFICATE_BYTES_MAX:
        raise GpuChainFormError(
            f"GPU chain: {len(chain)} certificates; expected {CHAIN_MIN} to {CHAIN_MAX}, "
            f"of at most {CERTIFICATE_BYTES_MAX} bytes"
        )
    certificates = (*(_parse_certificate(der, GpuCertificateError) for der in chain), anchor)
    # Issued by itself: a root, sent along, which would shift what counts as the device.
    if any(certificate.issuer == certificate.subject for certificate in certificates[:-1]):
        raise GpuChainFormError("GPU chain: a root is among the certificates")
    for certificate in certificates:
        _require_valid(certificate, now)
    leaf, device = certificates[0], certificates[len(chain) + _DEVICE]
    if leaf.path_max >= 0 or not leaf.signs_data:
        raise GpuChainUsageError(f'GPU chain: "{leaf.name}" is a CA, or may not sign data')
    for position, issuer in enumerate(certificates[1:]):
        if issuer.path_max < position:
            raise GpuChainUsageError(f'GPU chain: "{issuer.name}" may not issue {position + 1} layers of certificates')
    if leaf.fwid is None:
        raise GpuCertificateError(f'GPU chain: "{leaf.name}" names no firmware')
    # Signatures last, from the root down: they cost the most, and the root's is the first to fail on a forgery.
    for position in reversed(range(len(chain))):
        _require_issued(certificates[position], certificates[position + 1])
    return GpuDevice(identity=_identity(device.key), model=device.name, fwid=leaf.fwid, key=leaf.key)


def require_gpu_root_allowed(network_global_id: int, root: bytes) -> None:
    """Raise `RootRefusedError` if `root` (DER) is not NVIDIA's and the network is a public one."""
    digest = hashlib.sha256(root).digest()
    if network_global_id in PUBLIC_NETWORKS and digest != NVIDIA_ROOT_SHA256:
        raise RootRefusedError(
            f"GPU root {digest.hex()[:16]}...: network {network_global_id} is public, only NVIDIA's root counts there"
        )


@lru_cache(maxsize=8)
def _read_root(root: bytes) -> _Certificate:
    anchor = _parse_certificate(root, RootRefusedError)
    if anchor.path_max < 0:
        raise RootRefusedError(f'GPU root: "{anchor.name}" is not a CA that may sign certificates')
    return anchor


def _parse_certificate(der: bytes, fault: type[AttestationError]) -> _Certificate:
    """Read one DER certificate, all fields at once (the library reads them lazily), or raise `fault`.

    Whatever goes wrong in here means a malformed certificate, also running off the end of an extension.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise _UnusableError("the key is not on P-384")
        if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
            raise _UnusableError("not signed by ECDSA with SHA-384")
        # The library lets both pass, and both could be changed by anyone or be refused by its next version.
        if not der.endswith(b"\0" + certificate.signature) or certificate.serial_number <= 0:
            raise _UnusableError("unused bits in its signature, or no positive serial number")
        return _Certificate(
            subject=certificate.subject.public_bytes(),
            issuer=certificate.issuer.public_bytes(),
            name=_common_name(certificate),
            not_before_s=int(certificate.not_valid_before_utc.timestamp()),
            not_after_s=int(certificate.not_valid_after_utc.timestamp()),
            key=key,
            path_max=_path_max(certificate.extensions) if usage.key_cert_sign else -1,
            signs_data=usage.digital_signature,
            fwid=_fwid(certificate.extensions),
            signed=certificate.tbs_certificate_bytes,
            signature=certificate.signature,
        )
    except Exception as error:
        raise fault(f"GPU certificate: {error}") from error


class _UnusableError(ValueError):
    """A well-formed certificate of a kind that the PKI does not have."""


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _UnusableError("not exactly one common name")
    return str(names[0].value)


def _path_max(extensions: x509.Extensions) -> int:
    """How many certificates may stand between this one and the leaf; -1 if it is no CA."""
    found = [extension.value for extension in extensions if isinstance(extension.value, x509.BasicConstraints)]
    if not found or not found[0].ca:
        return -1
    return CHAIN_MAX if found[0].path_length is None else found[0].path_length


def _fwid(extensions: x509.Extensions) -> bytes | None:
    """Return the firmware's digest (48 bytes) if the certificate names one; refuse unknown critical extensions."""
    fwids = []
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise _UnusableError(f"unknown critical extension {extension.oid.dotted_string}")
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.oid == _OID_FWID_HOPPER:
                # A composite device id: version, the device's key, the FWID.
                fwids.append(_fwid_digest(extension.value.value[-_FWID_BYTES:]))
            elif extension.oid == _OID_FWID_TCG:
                fwids.extend(
                    _fwid_digest(value) for tag, value in _elements(extension.value.value) if tag == _TAG_FWIDS
                )
    if len(fwids) > 1:
        raise _UnusableError("it names more than one firmware")
    return fwids[0] if fwids else None


def _fwid_digest(der: bytes) -> bytes:
    """Return the digest of the FWID at the front of `der`; Blackwell has a second one, of zeros."""
    if not der.startswith(_FWID_HEADER) or len(der) < _FWID_BYTES:
        raise _UnusableError("the firmware id is not SHA-384")
    return der[len(_FWID_HEADER) : _FWID_BYTES]


def _elements(sequence: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of each element of one DER SEQUENCE below 256 bytes."""
    at, end = _value_of(sequence, 0)
    if sequence[0] != 0x30 or end != len(sequence):
        raise _UnusableError("the firmware extension is not one sequence")
    while at < end:
        tag = sequence[at]
        start, at = _value_of(sequence, at)
        yield tag, sequence[start:at]


def _value_of(der: bytes, at: int) -> tuple[int, int]:
    """Return (start, end) of the value of the element at `at`; no length of more than two bytes."""
    first = der[at + 1]
    if first & 0x80 and first != 0x81:
        raise _UnusableError("a length in the firmware extension is indefinite, or too long")
    start, length = (at + 3, der[at + 2]) if first == 0x81 else (at + 2, first)
    if start + length > len(der):
        raise _UnusableError("the firmware extension is truncated")
    return start, start + length


def _require_valid(certificate: _Certificate, now: int) -> None:
    if now < certificate.not_before_s:
        raise GpuCertificateNotYetValidError(
            f'GPU chain: "{certificate.name}" is valid from {certificate.not_before_s}, now {now}'
        )
    if now > certificate.not_after_s:
        raise GpuCertificateExpiredError(
            f'GPU chain: "{certificate.name}" is valid until {certificate.not_after_s}, now {now}'
        )


def _require_issued(certificate: _Certificate, issuer: _Certificate) -> None:
    if certificate.issuer != issuer.subject:
        raise GpuChainSignatureError(f'GPU chain: "{certificate.name}" is not issued by "{issuer.name}"')
    try:
        issuer.key.verify(certificate.signature, certificate.signed, _SHA384)
    except InvalidSignature:
        raise GpuChainSignatureError(f'GPU chain: the signature on "{certificate.name}" does not hold') from None


def _identity(key: ec.EllipticCurvePublicKey) -> bytes:
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).digest()
