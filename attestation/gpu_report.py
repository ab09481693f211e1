"""Parse the report of an NVIDIA GPU: an SPDM GET_MEASUREMENTS request, and the MEASUREMENTS response to it.

Decides the form only; every byte is untrusted and stays so until `attestation.gpu` has verified it.

Rules
1. At most 8 KiB. Every length is used up exactly: record, blocks, opaque data and signature leave no slack.
2. SPDM 1.1, all measurements, signed: another version would be signed over other bytes.
3. Every block is a DMTF measurement of 48 bytes (SHA-384); no index and no opaque field stands twice.
4. Driver and VBIOS version must be there. Opaque fields that are not known here are kept, as the vendor
   adds some with every generation of GPUs and the signature covers them.

The responder's own nonce, between the blocks and the opaque data, is random and proves nothing: ours is the
one of the request, which the signature covers too.

Source: DMTF DSP0274 (SPDM) 1.1, GET_MEASUREMENTS and MEASUREMENTS; NVIDIA/nvtrust, local_gpu_verifier, and
NVIDIA's attestation SDK for the opaque fields. Little-endian throughout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attestation.errors.gpu import GpuReportMalformedError, GpuReportUnsupportedError

GPU_REPORT_BYTES_MAX = 8 * 1024
"""As much as NVML can return."""
NONCE_BYTES = 32
DIGEST_BYTES = 48
SIGNATURE_BYTES = 96

_SPDM_1_1 = 0x11
_GET_MEASUREMENTS, _MEASUREMENTS = 0xE0, 0x60
_SIGNED, _ALL_BLOCKS = 0x01, 0xFF
_DMTF = 1
_DRIVER_VERSION, _VBIOS_VERSION, _FWID, _PROTECTED_PCIE, _FEATURE_FLAG = 3, 6, 20, 21, 36
_PCIE_OFF = b"\x55"
_FEATURE_PROTECTED_PCIE = 2
_DRIVER_TEXT = re.compile(rb"([0-9]{1,5}(?:\.[0-9]{1,5}){1,3})\0*")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """A parsed report; nothing is verified.

    `nonce` 32 bytes, that of the request; `measurements` index (1 to 254) -> 48 bytes (zeros: not measured);
    `fields` opaque field type -> value; `fwid` 48 bytes, the firmware that the report names, or None;
    `protected_pcie` whether the GPU runs as one of several whose links are not encrypted; `signed` is what
    `signature` (r || s, 96 bytes big-endian) covers.
    """

    nonce: bytes
    measurements: Mapping[int, bytes]
    fields: Mapping[int, bytes]
    driver: str
    vbios: str
    fwid: bytes | None
    protected_pcie: bool
    signed: bytes
    signature: bytes


def parse_gpu_report(raw: bytes) -> GpuReport:
    """Read `raw` (at most 8 KiB) as request and response.

    Raises:
        GpuReportMalformedError: a length does not add up, something stands twice, or a version is missing.
        GpuReportUnsupportedError: well-formed so far, of a kind that is not verified here.
    """
    if len(raw) > GPU_REPORT_BYTES_MAX:
        raise GpuReportMalformedError(f"GPU report: {len(raw)} bytes, at most {GPU_REPORT_BYTES_MAX} are read")
    reader = _Reader(raw)
    nonce = _read_request(reader)
    count, record = _read_response_header(reader)
    measurements = _read_blocks(record, count)
    reader.take(NONCE_BYTES, "responder's nonce")
    fields = _read_fields(reader.take(reader.uint(2, "opaque length"), "opaque data"))
    signed = raw[: reader.at]
    signature = reader.take(SIGNATURE_BYTES, "signature")
    reader.finish("signature")
    return GpuReport(
        nonce=nonce,
        measurements=measurements,
        fields=fields,
        driver=_driver_version(fields),
        vbios=_vbios_version(fields),
        fwid=_fwid(fields),
        protected_pcie=_protected_pcie(fields),
        signed=signed,
        signature=signature,
    )


class _Reader:
    """Takes fields off the front of `data`; running out is a malformed report."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        end = self.at + length
        if end > len(self._data):
            left = len(self._data) - self.at
            raise GpuReportMalformedError(f"GPU report: {what}: {length} bytes expected, {left} left")
        field = self._data[self.at : end]
        self.at = end
        return field

    def uint(self, length: int, what: str) -> int:
        return int.from_bytes(self.take(length, what), "little")

    def more(self) -> int:
        return len(self._data) - self.at

    def finish(self, what: str) -> None:
        if self.more():
            raise GpuReportMalformedError(f"GPU report: {self.more()} bytes too many after the {what}")


def _read_request(reader: _Reader) -> bytes:
    version, code, attributes, operation = reader.take(4, "request header")
    nonce = reader.take(NONCE_BYTES, "nonce")
    reader.take(1, "slot")
    if (version, code) != (_SPDM_1_1, _GET_MEASUREMENTS):
        raise GpuReportUnsupportedError(f"GPU report: request {code:#x} of SPDM {version:#x}, expected 0xe0 of 0x11")
    if (attributes, operation) != (_SIGNED, _ALL_BLOCKS):
        raise GpuReportUnsupportedError("GPU report: the request is not for all measurements, signed")
    return nonce


def _read_response_header(reader: _Reader) -> tuple[int, bytes]:
    """Return the number of blocks and the measurement record."""
    version, code, _, _ = reader.take(4, "response header")
    if (version, code) != (_SPDM_1_1, _MEASUREMENTS):
        raise GpuReportUnsupportedError(f"GPU report: response {code:#x} of SPDM {version:#x}, expected 0x60 of 0x11")
    count = reader.uint(1, "number of blocks")
    return count, reader.take(reader.uint(3, "record length"), "measurement record")


def _read_blocks(record: bytes, count: int) -> dict[int, bytes]:
    reader = _Reader(record)
    blocks: dict[int, bytes] = {}
    for _ in range(count):
        index = reader.uint(1, "block index")
        specification = reader.uint(1, "block specification")
        size = reader.uint(2, "block size")
        reader.take(1, "value type")
        digest = reader.take(reader.uint(2, "value size"), "value")
        if specification != _DMTF or len(digest) != DIGEST_BYTES or size != 3 + DIGEST_BYTES:
            raise GpuReportUnsupportedError(f"GPU report: block {index} is no DMTF measurement of 48 bytes")
        if index in blocks or not 1 <= index <= 254:
            raise GpuReportMalformedError(f"GPU report: block {index} stands twice, or is reserved")
        blocks[index] = digest
    reader.finish("last block")
    if not blocks:
        raise GpuReportMalformedError("GPU report: no measurements")
    return blocks


def _read_fields(opaque: bytes) -> dict[int, bytes]:
    reader = _Reader(opaque)
    fields: dict[int, bytes] = {}
    while reader.more():
        kind = reader.uint(2, "opaque field type")
        value = reader.take(reader.uint(2, "opaque field size"), f"opaque field {kind}")
        if kind in fields:
            raise GpuReportMalformedError(f"GPU report: opaque field {kind} stands twice")
        fields[kind] = value
    return fields


def _driver_version(fields: Mapping[int, bytes]) -> str:
    text = _DRIVER_TEXT.fullmatch(fields.get(_DRIVER_VERSION, b""))
    if text is None:
        raise GpuReportMalformedError("GPU report: no driver version")
    return text[1].decode("ascii")


def _vbios_version(fields: Mapping[int, bytes]) -> str:
    """Return the version as `nvidia-smi` writes it: a number of 4 bytes, then one byte more."""
    value = fields.get(_VBIOS_VERSION, b"")
    if len(value) != 8:
        raise GpuReportMalformedError("GPU report: no VBIOS version")
    return ".".join(f"{byte:02X}" for byte in (*value[3::-1], value[4]))


def _fwid(fields: Mapping[int, bytes]) -> bytes | None:
    fwid = fields.get(_FWID)
    if fwid is not None and len(fwid) != DIGEST_BYTES:
        raise GpuReportMalformedError(f"GPU report: firmware id of {len(fwid)} bytes, expected {DIGEST_BYTES}")
    return fwid


def _protected_pcie(fields: Mapping[int, bytes]) -> bool:
    """Read the status that Hopper reports, and the feature flag of newer ones; what is unclear counts as on."""
    status = fields.get(_PROTECTED_PCIE, _PCIE_OFF)
    flag = int.from_bytes(fields.get(_FEATURE_FLAG, b""), "little")
    return status != _PCIE_OFF or flag >= _FEATURE_PROTECTED_PCIE
