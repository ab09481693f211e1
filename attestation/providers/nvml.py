"""Collect GPU evidence from the NVIDIA driver: the only module here that talks to NVML.

What the driver returns is untrusted: sizes are bounded, text is decoded, and whatever it answers becomes
evidence for peers to verify or one of our errors. NVML is always shut down again.

Rules
1. Evidence is collected of all GPUs of this host or of none: a missing one would be a silent loss.
2. Confidential mode must be on, in the production environment, without development tools. Peers cannot see
   the last two in a report, so this keeps an honest operator from a mistake; it does not bind another one.

Run `python -m attestation.providers.nvml` for the state of this host as JSON, with `--collect` for a trial
collection; it exits with 1 and prints the error if there is no GPU, or none in confidential mode.

Source: NVML API reference, "Confidential Computing"; nvidia-ml-py 13.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import pynvml
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import AttestationError
from attestation.errors.gpu import (
    GpuDeviceDataError,
    GpuDevtoolsError,
    GpuMissingError,
    GpuNotConfidentialError,
    GpuSimulatedError,
    GpuUnavailableError,
)
from attestation.gpu import GPUS_MAX, GpuEvidence, decode_gpu_evidence, encode_gpu_evidence

TIMEOUT_S = 60
"""A report takes a GPU about a second; a lost one blocks the driver for long."""

_Answer = TypeVar("_Answer")
Mode = Literal["on", "off", "devtools", "simulated", "unsupported"]

_MISSING = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
_UNSUPPORTED = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})

# One thread at a time: a driver that hangs holds this one, and not a thread more at every try.
_ONE_THREAD = trio.CapacityLimiter(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """A GPU as its driver names it: nothing of this is proven."""

    name: str
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """The GPUs of this host and their mode, which they share; "unsupported" by GPU or driver."""

    driver: str
    mode: Mode
    gpus: tuple[GpuInfo, ...]


async def collect_gpu_evidence(nonce: bytes) -> bytes:
    """Have every GPU of this host report over `nonce` (32 bytes, of `gpu_nonce`); return the container.

    Cancellation, and the deadline of a minute, leave the thread that waits for the driver behind: it ends
    when the driver answers, shuts NVML down, and what it collected is dropped. Until then a new call waits.

    Raises:
        GpuNotConfidentialError: confidential mode is off, not supported, simulated, or with development tools.
        GpuMissingError: no GPU, or no driver.
        GpuUnavailableError: a GPU or the driver does not answer, or with data out of bounds.
        GpuEvidenceMalformedError: more GPUs than fit into one piece of evidence.
    """
    return await _in_thread(partial(_collect, nonce))


async def gpu_state() -> GpuState:
    """Return the GPUs of this host and whether they are in confidential mode. Cancellation: as above.

    Raises:
        GpuMissingError: no GPU, or no driver.
        GpuUnavailableError: the driver does not answer.
    """
    return await _in_thread(_state)


async def _in_thread(function: Callable[[], _Answer]) -> _Answer:
    try:
        with trio.fail_after(TIMEOUT_S):
            return await trio.to_thread.run_sync(  # type: ignore[call-arg]  # the stubs are older than trio
                function, abandon_on_cancel=True, limiter=_ONE_THREAD
            )
    except trio.TooSlowError as error:
        raise GpuUnavailableError(f"NVML: no answer within {TIMEOUT_S} s") from error


def _collect(nonce: bytes) -> bytes:
    with _nvml():
        _require_confidential(_mode())
        return encode_gpu_evidence([_evidence(device, nonce) for device in _devices()])


def _state() -> GpuState:
    with _nvml():
        return GpuState(
            driver=pynvml.nvmlSystemGetDriverVersion(),
            mode=_mode(),
            gpus=tuple(
                GpuInfo(name=pynvml.nvmlDeviceGetName(device), uuid=pynvml.nvmlDeviceGetUUID(device))
                for device in _devices()
            ),
        )


@contextmanager
def _nvml() -> Iterator[None]:
    """NVML while the block runs; its errors become ours."""
    try:
        pynvml.nvmlInit()
        try:
            yield
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        fault = GpuMissingError if error.value in _MISSING else GpuUnavailableError
        raise fault(f"NVML: {error} ({error.value})") from error
    except UnicodeDecodeError as error:
        raise GpuDeviceDataError("NVML: a name or version is not text") from error


def _devices() -> list[Any]:
    count = pynvml.nvmlDeviceGetCount()
    if count == 0:
        raise GpuMissingError("NVML: the driver runs, and has no GPU")
    if count > GPUS_MAX:
        raise GpuDeviceDataError(f"NVML: {count} GPUs, at most {GPUS_MAX} are shown")
    return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]


def _mode() -> Mode:
    try:
        state = pynvml.nvmlSystemGetConfComputeState()
    except pynvml.NVMLError as error:
        if error.value in _UNSUPPORTED:
            return "unsupported"
        raise
    if state.ccFeature != pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED:
        return "off"
    if state.devToolsMode != pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF:
        return "devtools"
    return "on" if state.environment == pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD else "simulated"


def _require_confidential(mode: Mode) -> None:
    match mode:
        case "on":
            return
        case "devtools":
            raise GpuDevtoolsError("GPU: confidential mode is on with development tools")
        case "simulated":
            raise GpuSimulatedError("GPU: the confidential environment is not the production one")
        case "off":
            raise GpuNotConfidentialError("GPU: not in confidential mode")
        case "unsupported":
            raise GpuNotConfidentialError("GPU: not in confidential mode, which this GPU or driver does not support")


def _evidence(device: Any, nonce: bytes) -> GpuEvidence:
    certificates = pynvml.nvmlDeviceGetConfComputeGpuCertificate(device)
    report = pynvml.nvmlDeviceGetConfComputeGpuAttestationReport(device, nonce)
    pem = _sized(certificates.attestationCertChain, certificates.attestationCertChainSize, "certificate chain")
    return GpuEvidence(
        chain=_below_root(pem),
        report=_sized(report.attestationReport, report.attestationReportSize, "report"),
    )


def _sized(array: Any, size: int, what: str) -> bytes:
    """Return the `size` bytes of a ctypes array that the driver says it has filled."""
    if not 1 <= size <= len(array):
        raise GpuDeviceDataError(f"NVML: {what} of {size} bytes, expected 1 to {len(array)}")
    return bytes(array[:size])


def _below_root(pem: bytes) -> tuple[bytes, ...]:
    """Return the DER of the certificates of `pem`, leaf first as they come, without the root at the end."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.rstrip(b"\0"))
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates[:-1])
    except ValueError as error:
        raise GpuDeviceDataError(f"NVML: certificate chain: {error}") from error


def main(arguments: list[str]) -> int:
    """Print the state of this host, or with `--collect` what a trial collection gives, as JSON."""
    answer: dict[str, Any]
    try:
        if arguments == ["--collect"]:
            raw = trio.run(collect_gpu_evidence, secrets.token_bytes(32))
            answer = {"gpus": len(decode_gpu_evidence(raw)), "bytes": len(raw), "evidence": raw.hex()}
        else:
            answer = asdict(trio.run(gpu_state))
    except AttestationError as error:
        answer = {"error": error.code, "message": str(error), "remedy": error.remedy}
    sys.stdout.write(json.dumps(answer) + "\n")
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
