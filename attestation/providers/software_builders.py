"""Build what Intel's PKI and a TDX machine produce: certificates, revocation lists, TCB documents, quotes.

The counterpart of the parsers, for the software platform and for tests; each function makes one artefact
and every field that a test may want to get wrong is an argument. Nothing here proves anything.

Source: as in `attestation.certs`, `attestation.pck`, `attestation.tcb_json` and `attestation.quote`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from attestation.certs import OID_SGX_EXTENSIONS
from attestation.quote import QE_VENDOR_INTEL
from attestation.types import PckPlatform, PlatformFlag, TdReport

ORGANIZATION = "gpupool software platform"

_P256_SHA256 = ec.ECDSA(hashes.SHA256())
_SGX_PREFIX = bytes.fromhex("2a864886f84d010d01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def build_certificate(
    common_name: str,
    issuer: Issuer | None,
    *,
    not_before_s: int,
    not_after_s: int,
    is_ca: bool,
    usage: x509.KeyUsage | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    sgx_extension: bytes | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issuer:
    """Build a certificate for a fresh key (or `key`), self-signed without `issuer`; times are Unix seconds.

    By default a CA may sign certificates and lists, any other only data.
    """
    key = key or new_key()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(b"\x01" + secrets.token_bytes(18), "big"))
        .not_valid_before(_moment(not_before_s))
        .not_valid_after(_moment(not_after_s))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage or build_usage(data=not is_ca, certificates=is_ca, lists=is_ca), critical=True)
    )
    if sgx_extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(OID_SGX_EXTENSIONS, sgx_extension), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Issuer(certificate=builder.sign(issuer.key if issuer else key, hashes.SHA256()), key=key)


def build_usage(*, data: bool = False, certificates: bool = False, lists: bool = False) -> x509.KeyUsage:
    """What a key may sign."""
    return x509.KeyUsage(
        digital_signature=data,
        content_commitment=data,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )


def build_revocation_list(issuer: Issuer, *, this_s: int, next_s: int, serials: Iterable[int] = ()) -> bytes:
    """Build a DER revocation list of `serials`, issued at `this_s`, to be renewed by `next_s`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_moment(this_s))
        .next_update(_moment(next_s))
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(this_s)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def build_chain(*certificates: Issuer) -> bytes:
    """Concatenate certificates as PEM, in the order given."""
    return b"".join(issuer.certificate.public_bytes(serialization.Encoding.PEM) for issuer in certificates)


def build_sgx_extension(platform: PckPlatform, *, sgx_type: int = 1) -> bytes:
    """Build the value of the PCK's SGX extension (DER)."""
    svns = [_entry(bytes([2, 1 + i]), _integer(svn)) for i, svn in enumerate(platform.sgx_svns)]
    svns += [
        _entry(b"\x02\x11", _integer(platform.pce_svn)),
        _entry(b"\x02\x12", _tlv(0x04, bytes(platform.sgx_svns))),
    ]
    flags = [
        _entry(bytes([7, 1 + i]), _tlv(0x01, b"\xff" if flag in platform.flags else b"\x00"))
        for i, flag in enumerate(PlatformFlag)
    ]
    entries = [
        _entry(b"\x01", _tlv(0x04, platform.ppid)),
        _entry(b"\x02", _tlv(0x30, b"".join(svns))),
        _entry(b"\x03", _tlv(0x04, platform.pce_id)),
        _entry(b"\x04", _tlv(0x04, platform.fmspc)),
        _entry(b"\x05", _tlv(0x0A, bytes([sgx_type]))),
        _entry(b"\x07", _tlv(0x30, b"".join(flags))),
    ]
    return _tlv(0x30, b"".join(entries))


def build_tcb_info(
    platform: PckPlatform, td: TdReport, *, issued_s: int, next_s: int, evaluation: int = 1
) -> dict[str, Any]:
    """Build TCB info under which `platform` and the module of `td` (version > 0) are up to date."""
    module = {
        "mrsigner": td.mr_signer_seam.hex(),
        "attributes": td.seam_attributes.hex(),
        "attributesMask": "FF" * 8,
    }
    date = _iso(issued_s)
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": date,
        "nextUpdate": _iso(next_s),
        "fmspc": platform.fmspc.hex(),
        "pceId": platform.pce_id.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": evaluation,
        "tdxModule": module,
        "tdxModuleIdentities": [
            {"id": f"TDX_{td.tee_tcb_svn[1]:02X}", **module, "tcbLevels": [_isv_level(td.tee_tcb_svn[0], date)]}
        ],
        "tcbLevels": [
            {
                "tcb": {
                    "sgxtcbcomponents": [{"svn": svn} for svn in platform.sgx_svns],
                    "pcesvn": platform.pce_svn,
                    "tdxtcbcomponents": [{"svn": svn} for svn in td.tee_tcb_svn],
                },
                "tcbDate": date,
                "tcbStatus": "UpToDate",
            }
        ],
    }


def build_qe_identity(report: bytes, *, issued_s: int, next_s: int, evaluation: int = 1) -> dict[str, Any]:
    """Build the identity that the enclave of `report` (384 bytes) satisfies, up to date."""
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": _iso(issued_s),
        "nextUpdate": _iso(next_s),
        "tcbEvaluationDataNumber": evaluation,
        "miscselect": report[16:20].hex(),
        "miscselectMask": "FF" * 4,
        "attributes": report[48:64].hex(),
        "attributesMask": "FB" + "FF" * 7 + "00" * 8,
        "mrsigner": report[128:160].hex(),
        "isvprodid": int.from_bytes(report[256:258], "little"),
        "tcbLevels": [_isv_level(int.from_bytes(report[258:260], "little"), _iso(issued_s))],
    }


def build_enclave_report(
    *, mr_signer: bytes, report_data: bytes, attributes: bytes, misc_select: bytes, isv_prod_id: int, isv_svn: int
) -> bytes:
    """Build an SGX report body of 384 bytes."""
    report = bytearray(384)
    report[16:20] = misc_select
    report[48:64] = attributes
    report[128:160] = mr_signer
    report[256:260] = isv_prod_id.to_bytes(2, "little") + isv_svn.to_bytes(2, "little")
    report[320:384] = report_data
    return bytes(report)


def build_header(
    *, version: int = 4, key_type: int = 2, tee_type: int = 0x81, vendor: bytes = QE_VENDOR_INTEL
) -> bytes:
    """Build a quote header of 48 bytes."""
    start = version.to_bytes(2, "little") + key_type.to_bytes(2, "little") + tee_type.to_bytes(4, "little")
    return start + bytes(4) + vendor + bytes(20)


def build_td_report(td: TdReport) -> bytes:
    """Build a TD report body: 584 bytes, or 648 if `td` has the fields of body 1.5."""
    body = (
        td.tee_tcb_svn
        + td.mr_seam
        + td.mr_signer_seam
        + td.seam_attributes
        + td.td_attributes.to_bytes(8, "little")
        + td.xfam.to_bytes(8, "little")
        + td.mr_td
        + td.mr_config_id
        + td.mr_owner
        + td.mr_owner_config
        + b"".join(td.rtmrs)
        + td.report_data
    )
    return body + (td.tee_tcb_svn2 or b"") + (td.mr_service_td or b"")


def build_quote(
    signed: bytes,
    *,
    attestation_key: ec.EllipticCurvePrivateKey,
    qe_report: bytes,
    pck_key: ec.EllipticCurvePrivateKey,
    pck_chain: bytes,
    qe_auth_data: bytes,
) -> bytes:
    """Sign header and body (`signed`) and append the authentication data."""
    chain = (5).to_bytes(2, "little") + len(pck_chain).to_bytes(4, "little") + pck_chain
    auth = len(qe_auth_data).to_bytes(2, "little") + qe_auth_data
    qe = qe_report + sign(pck_key, qe_report) + auth + chain
    data = (
        sign(attestation_key, signed)
        + point_of(attestation_key)
        + (6).to_bytes(2, "little")
        + len(qe).to_bytes(4, "little")
        + qe
    )
    return signed + len(data).to_bytes(4, "little") + data


def vouch(attestation_key: ec.EllipticCurvePrivateKey, qe_auth_data: bytes) -> bytes:
    """The QE's report data (64 bytes) that vouches for `attestation_key`."""
    return hashlib.sha256(point_of(attestation_key) + qe_auth_data).digest() + bytes(32)


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign with ECDSA P-256 SHA-256; r || s, 64 bytes big-endian."""
    r, s = utils.decode_dss_signature(key.sign(message, _P256_SHA256))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key's coordinates, x || y, 64 bytes."""
    encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(encoding, form)[1:]


def _isv_level(isv_svn: int, date: str) -> dict[str, Any]:
    return {"tcb": {"isvsvn": isv_svn}, "tcbDate": date, "tcbStatus": "UpToDate"}


def _entry(oid: bytes, value: bytes) -> bytes:
    return _tlv(0x30, _tlv(0x06, _SGX_PREFIX + oid) + value)


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        length = bytes([size])
    else:
        octets = (size.bit_length() + 7) // 8
        length = bytes([0x80 | octets]) + size.to_bytes(octets, "big")
    return bytes([tag]) + length + value


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _iso(seconds: int) -> str:
    return _moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
