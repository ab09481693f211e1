"""GPU evidence: from untrusted bytes to GPUs that are genuine, and whose firmware reported for this very agent.

A pure function of (evidence bytes, nonce, root, time), as its verdict is part of consensus. What a GPU may
run is decided later, in `gpu_policy`.

The container is msgpack: [1, [[[certificate, ...], report], ...]], certificates in DER, leaf first, without
the root. One encoding only: bytes that do not come out of `encode_gpu_evidence` again are refused.

The procedure (numbers are those of the comments below)
1. at most 64 KiB, 1 to 16 GPUs (a Hopper GPU takes 6,970 bytes, a Blackwell GPU some 7,050: 9 of these fit)
2. each report is well-formed and answers the nonce, which binds it to a node key and a block
3. each chain leads to the root; its device is not in this evidence already
4. the report's firmware is the one that the attestation key was made for, if it names any (old ones do not)
5. the attestation key signed the report

What this does not prove: that work is done on these GPUs, and that no other agent shows them too (the
`identity` is there to find that out); nor does a report say, as far as NVIDIA documents, that development
tools are off: pinned measurements of a production report have to.

Source: NVIDIA/nvtrust, local_gpu_verifier; see `gpu_report` and `gpu_chain` for the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from attestation.errors import EvidenceMalformedError
from attestation.errors.gpu import (
    GpuDuplicateError,
    GpuEvidenceMalformedError,
    GpuFwidMismatchError,
    GpuNonceMismatchError,
    GpuReportSignatureError,
)
from attestation.gpu_chain import CHAIN_MAX, GpuDevice, verify_gpu_chain
from attestation.gpu_report import GpuReport, parse_gpu_report

GPU_EVIDENCE_BYTES_MAX = 64 * 1024
GPUS_MAX = 16
NONCE_TAG = b"gpupool/gpu/1"

_VERSION = 1
_SHA384 = ec.ECDSA(hashes.SHA384())
_Entry = tuple[list[bytes], bytes]
_DECODER = msgspec.msgpack.Decoder(tuple[int, list[_Entry]])


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvidence:
    """What one GPU shows: `chain` (DER, leaf first, without the root) and `report`; both are untrusted."""

    chain: tuple[bytes, ...]
    report: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedGpu:
    """A genuine GPU and what it said of itself.

    `identity` is SHA-256 of the device's public key, the same for ever; `model` names its chip and ROM;
    `fwid` 48 bytes, the firmware that the ROM measured; `measurements` index -> 48 bytes, what that firmware
    measured (zeros: nothing); `protected_pcie` whether links to other GPUs are not encrypted.
    """

    identity: bytes
    model: str
    fwid: bytes
    driver: str
    vbios: str
    measurements: Mapping[int, bytes]
    protected_pcie: bool


def verify_gpu_evidence(raw: bytes, *, nonce: bytes, root: bytes, now: int) -> tuple[VerifiedGpu, ...]:
    """Verify all GPUs of `raw` (at most 64 KiB) against `nonce` (32 bytes) and `root` (DER) at `now` (Unix seconds).

    The order is that of the evidence.

    Raises:
        InvalidGpuEvidenceError: malformed, unsupported, not authentic, or made for something else.
        RootRefusedError: `root` itself is no P-384 CA.
    """
    entries = decode_gpu_evidence(raw)  # 1
    reports = [parse_gpu_report(entry.report) for entry in entries]  # 2
    for report in reports:
        if report.nonce != nonce:
            raise GpuNonceMismatchError(f"GPU report: made for nonce {report.nonce.hex()[:16]}..., not for this agent")
    gpus: dict[bytes, VerifiedGpu] = {}
    for entry, report in zip(entries, reports, strict=True):
        device = verify_gpu_chain(entry.chain, root=root, now=now)  # 3
        if device.identity in gpus:
            raise GpuDuplicateError(f"GPU {device.identity.hex()[:16]}...: reports twice")
        _require_report_of(device, report)  # 4, 5
        gpus[device.identity] = VerifiedGpu(
            identity=device.identity,
            model=device.model,
            fwid=device.fwid,
            driver=report.driver,
            vbios=report.vbios,
            measurements=report.measurements,
            protected_pcie=report.protected_pcie,
        )
    return tuple(gpus.values())


def gpu_nonce(node_key: bytes, anchor_hash: bytes) -> bytes:
    """Return SHA-256(tag || node key || anchor hash), what GPUs are asked to sign; both are 32 bytes.

    Raises:
        EvidenceMalformedError: a length does not hold.
    """
    if len(node_key) != 32 or len(anchor_hash) != 32:
        raise EvidenceMalformedError("GPU nonce: node key or anchor hash is not 32 bytes")
    return hashlib.sha256(NONCE_TAG + node_key + anchor_hash).digest()


def encode_gpu_evidence(gpus: Sequence[GpuEvidence]) -> bytes:
    """Return the container of `gpus`.

    Raises:
        GpuEvidenceMalformedError: no GPU, more than 16, or more than 64 KiB.
    """
    raw = msgspec.msgpack.encode((_VERSION, [(gpu.chain, gpu.report) for gpu in gpus]))
    _require_bounds(len(raw), len(gpus))
    return raw


def decode_gpu_evidence(raw: bytes) -> tuple[GpuEvidence, ...]:
    """Read a container; nothing in it is parsed.

    Raises:
        GpuEvidenceMalformedError: not the canonical encoding of this version, or out of bounds.
    """
    _require_bounds(len(raw), 1)
    try:
        version, entries = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GpuEvidenceMalformedError(f"GPU evidence: {error}") from error
    if version != _VERSION:
        raise GpuEvidenceMalformedError(f"GPU evidence: version {version}, expected {_VERSION}")
    _require_bounds(len(raw), len(entries))
    if max(len(chain) for chain, _ in entries) > CHAIN_MAX:
        raise GpuEvidenceMalformedError(f"GPU evidence: a chain of more than {CHAIN_MAX} certificates")
    gpus = tuple(GpuEvidence(chain=tuple(chain), report=report) for chain, report in entries)
    if encode_gpu_evidence(gpus) != raw:
        raise GpuEvidenceMalformedError("GPU evidence: not in canonical form")
    return gpus


def _require_bounds(length: int, count: int) -> None:
    if length > GPU_EVIDENCE_BYTES_MAX or not 1 <= count <= GPUS_MAX:
        raise GpuEvidenceMalformedError(
            f"GPU evidence: {length} bytes, {count} GPUs; at most {GPU_EVIDENCE_BYTES_MAX} bytes, 1 to {GPUS_MAX} GPUs"
        )


def _require_report_of(device: GpuDevice, report: GpuReport) -> None:
    if report.fwid is not None and report.fwid != device.fwid:
        raise GpuFwidMismatchError(
            f"GPU report: of firmware {report.fwid.hex()[:16]}..., its key was made for {device.fwid.hex()[:16]}..."
        )
    half = len(report.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (report.signature[:half], report.signature[half:]))
    try:
        device.key.verify(utils.encode_dss_signature(r, s), report.signed, _SHA384)
    except InvalidSignature:
        raise GpuReportSignatureError("GPU report: the signature does not hold") from None
