"""Parse a TDX quote (v4, v5). Decides the form only; every byte is untrusted and stays so.

Rules: at most 16 KiB; the constants of the header; every length must be used up exactly, so that no
slack hides in the authentication data; certification data type 6 (QE report) that holds type 5 (PCK
chain, PEM). The PEM itself is read in `certs`.

Source: Intel TDX DCAP Quoting Library API rev. 0.9+, A.3 (v4) and A.4 (v5), little-endian throughout.
"""

from __future__ import annotations

from attestation.errors import (
    CertificationDataError,
    QuoteBodyError,
    QuoteKeyTypeError,
    QuoteMalformedError,
    QuoteSlackError,
    QuoteTeeError,
    QuoteTooLongError,
    QuoteTruncatedError,
    QuoteVendorError,
    QuoteVersionError,
)
from attestation.types import QUOTE_BYTES_MAX, EnclaveReport, Quote, TdReport

HEADER_BYTES = 48
QE_VENDOR_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

_KEY_ECDSA_P256 = 2
_TEE_TDX = 0x81
_BODY_BYTES = {2: 584, 3: 648, 4: 885}
"""v5 body type -> length: TD report 1.0, 1.5, 1.5 extended."""
_BODY_V4 = 2
_CERTIFICATION_QE_REPORT = 6
_CERTIFICATION_PCK_CHAIN = 5
_QE_REPORT_BYTES = 384


def parse_quote(raw: bytes) -> Quote:
    """Read `raw` (at most 16 KiB) as a TDX quote.

    Raises:
        QuoteMalformedError: a length does not add up.
        QuoteUnsupportedError: well-formed so far, of a kind that is not verified here.
    """
    if len(raw) > QUOTE_BYTES_MAX:
        raise QuoteTooLongError(f"quote: more than {QUOTE_BYTES_MAX} bytes")
    reader = _Reader(raw)
    version, body_type = _read_header(reader)
    body_bytes = _BODY_BYTES[body_type]
    td = _read_td_report(reader.take(body_bytes, "body"), body_type)
    signed = raw[: reader.at]

    auth = _Reader(reader.take(reader.uint(4, "authentication data length"), "authentication data"))
    reader.finish("quote")
    signature = auth.take(64, "signature")
    attestation_key = auth.take(64, "attestation key")
    qe = _Reader(_take_certification(auth, _CERTIFICATION_QE_REPORT))
    auth.finish("authentication data")
    qe_report = _read_enclave_report(qe.take(_QE_REPORT_BYTES, "QE report"))
    qe_report_signature = qe.take(64, "QE report signature")
    qe_auth_data = qe.take(qe.uint(2, "QE authentication data length"), "QE authentication data")
    pck_chain_pem = _take_certification(qe, _CERTIFICATION_PCK_CHAIN)
    qe.finish("QE certification data")
    return Quote(
        version=version,
        signed=signed,
        td=td,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        pck_chain_pem=pck_chain_pem,
    )


class _Reader:
    """Takes fields off the front of `data`; running out is a malformed quote."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        end = self.at + length
        if end > len(self._data):
            raise QuoteTruncatedError(f"quote: {what}: {length} bytes expected, {len(self._data) - self.at} left")
        field = self._data[self.at : end]
        self.at = end
        return field

    def uint(self, length: int, what: str) -> int:
        return int.from_bytes(self.take(length, what), "little")

    def finish(self, what: str) -> None:
        if self.at != len(self._data):
            raise QuoteSlackError(f"quote: {len(self._data) - self.at} bytes too many after the {what}")


def _read_header(reader: _Reader) -> tuple[int, int]:
    header = _Reader(reader.take(HEADER_BYTES, "header"))
    version = header.uint(2, "version")
    key_type = header.uint(2, "key type")
    tee_type = header.uint(4, "TEE type")
    header.take(4, "reserved")
    vendor = header.take(16, "QE vendor")
    if version not in (4, 5):
        raise QuoteVersionError(f"quote: version {version}, expected 4 or 5")
    if key_type != _KEY_ECDSA_P256:
        raise QuoteKeyTypeError(f"quote: attestation key type {key_type}, expected 2 (ECDSA P-256)")
    if tee_type != _TEE_TDX:
        raise QuoteTeeError(f"quote: TEE type {tee_type:#x}, expected 0x81 (TDX)")
    if vendor != QE_VENDOR_INTEL:
        raise QuoteVendorError(f"quote: QE vendor {vendor.hex()}, expected Intel's")
    if version == 4:
        return version, _BODY_V4
    body_type = reader.uint(2, "body type")
    length = reader.uint(4, "body length")
    if body_type not in _BODY_BYTES:
        raise QuoteBodyError(f"quote: body type {body_type}, expected a TD report (2, 3, 4)")
    if length != _BODY_BYTES[body_type]:
        raise QuoteMalformedError(f"quote: body type {body_type} of {length} bytes")
    return version, body_type


def _read_td_report(body: bytes, body_type: int) -> TdReport:
    later = body_type != _BODY_V4
    return TdReport(
        tee_tcb_svn=body[0:16],
        mr_seam=body[16:64],
        mr_signer_seam=body[64:112],
        seam_attributes=body[112:120],
        td_attributes=int.from_bytes(body[120:128], "little"),
        xfam=int.from_bytes(body[128:136], "little"),
        mr_td=body[136:184],
        mr_config_id=body[184:232],
        mr_owner=body[232:280],
        mr_owner_config=body[280:328],
        rtmrs=(body[328:376], body[376:424], body[424:472], body[472:520]),
        report_data=body[520:584],
        tee_tcb_svn2=body[584:600] if later else None,
        mr_service_td=body[600:648] if later else None,
    )


def _read_enclave_report(raw: bytes) -> EnclaveReport:
    return EnclaveReport(
        raw=raw,
        misc_select=raw[16:20],
        attributes=raw[48:64],
        mr_signer=raw[128:160],
        isv_prod_id=int.from_bytes(raw[256:258], "little"),
        isv_svn=int.from_bytes(raw[258:260], "little"),
        report_data=raw[320:384],
    )


def _take_certification(reader: _Reader, expected: int) -> bytes:
    kind = reader.uint(2, "certification data type")
    if kind != expected:
        raise CertificationDataError(f"quote: certification data type {kind}, expected {expected}")
    return reader.take(reader.uint(4, "certification data length"), "certification data")
