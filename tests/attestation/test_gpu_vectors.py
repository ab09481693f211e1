"""A real GPU's report and certificates, as NVIDIA publishes them: they verify, and nothing near them does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors.gpu import (
    GpuCertificateNotYetValidError,
    GpuChainError,
    GpuChainFormError,
    GpuNonceMismatchError,
    InvalidGpuEvidenceError,
)
from attestation.gpu import GpuEvidence, VerifiedGpu, encode_gpu_evidence, verify_gpu_evidence
from attestation.gpu_chain import NVIDIA_ROOT
from attestation.gpu_policy import GpuGoldenTable, appraise_gpus, golden_of, read_goldens
from attestation.gpu_report import parse_gpu_report
from tests.support.gpu_forge import NOW

FWID = "f5c384aebb579217a2c66b17ed0f28e6a9b8d639041acd7b4721cec004f7275494ba94bb5cdfdb3055ee051762b1f75d"
IDENTITY = "0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07"
START = 1_646_092_800
"""2022-03-01, when the provisioner's certificate begins."""


@pytest.fixture(scope="module")
def folder() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "nvidia"
    if not folder.is_dir():
        pytest.skip("the GPU vectors (../shared/vectors/nvidia) are not here")
    return folder


@pytest.fixture(scope="module")
def chain(folder: Path) -> tuple[bytes, ...]:
    """All five certificates, the root last."""
    certificates = x509.load_pem_x509_certificates((folder / "hopperCertChain.txt").read_bytes())
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


@pytest.fixture(scope="module")
def raw(folder: Path) -> bytes:
    return bytes.fromhex((folder / "hopperAttestationReport.txt").read_text())


def verify(chain: tuple[bytes, ...], raw: bytes, now: int = NOW, root: bytes = NVIDIA_ROOT) -> VerifiedGpu:
    evidence = encode_gpu_evidence([GpuEvidence(chain=chain, report=raw)])
    (gpu,) = verify_gpu_evidence(evidence, nonce=raw[4:36], root=root, now=now)
    return gpu


def test_the_sample_verifies(chain: tuple[bytes, ...], raw: bytes) -> None:
    gpu = verify(chain[:-1], raw)
    assert chain[-1] == NVIDIA_ROOT
    assert (gpu.identity.hex(), gpu.model, gpu.fwid.hex()) == (IDENTITY, "GH100 A01 GSP BROM", FWID)
    assert (gpu.driver, gpu.vbios, gpu.protected_pcie) == ("550.90.07", "96.00.9F.00.01", False)
    assert sorted(gpu.measurements) == list(range(1, 65))
    assert len([value for value in gpu.measurements.values() if any(value)]) == 26


def test_it_can_be_pinned(chain: tuple[bytes, ...], raw: bytes) -> None:
    gpu = verify(chain[:-1], raw)
    table = golden_of([gpu], name="H100 driver 550.90.07")
    assert len(table["blocks"]) == 25
    assert appraise_gpus([gpu], read_goldens([msgspec.convert(table, GpuGoldenTable)]), gpus_min=1)


def test_every_changed_byte_of_the_report_is_refused(chain: tuple[bytes, ...], raw: bytes) -> None:
    for at in (*range(48), *range(48, len(raw), 31)):
        changed = raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :]
        with pytest.raises(InvalidGpuEvidenceError):
            verify(chain[:-1], changed)


@pytest.mark.parametrize("position", range(4))
def test_every_changed_byte_of_a_certificate_is_refused(chain: tuple[bytes, ...], raw: bytes, position: int) -> None:
    der = chain[position]
    for at in range(0, len(der), 5):
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        with pytest.raises(GpuChainError):
            verify((*chain[:position], changed, *chain[position + 1 : -1]), raw)


def test_every_shortening_of_the_report_is_refused(raw: bytes) -> None:
    for length in range(0, len(raw), 7):
        with pytest.raises(InvalidGpuEvidenceError):
            parse_gpu_report(raw[:length])


def test_other_chains(chain: tuple[bytes, ...], raw: bytes) -> None:
    below = chain[:-1]
    for wrong in (below[:-1], below[1:], below[::-1], chain, (below[1], below[0], *below[2:])):
        with pytest.raises(GpuChainError):
            verify(wrong, raw)
    with pytest.raises(GpuChainFormError, match="root is among"):
        verify(chain, raw)


def test_another_root_nonce_or_time(chain: tuple[bytes, ...], raw: bytes) -> None:
    with pytest.raises(GpuChainError):
        verify(chain[:-1], raw, root=chain[-2])
    evidence = encode_gpu_evidence([GpuEvidence(chain=chain[:-1], report=raw)])
    with pytest.raises(GpuNonceMismatchError):
        verify_gpu_evidence(evidence, nonce=bytes(32), root=NVIDIA_ROOT, now=NOW)
    assert verify(chain[:-1], raw, now=START)
    with pytest.raises(GpuCertificateNotYetValidError):
        verify(chain[:-1], raw, now=START - 1)
