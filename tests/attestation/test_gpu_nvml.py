"""Collection through NVML: what it gives verifies, and whatever the driver answers becomes one of our errors."""

from __future__ import annotations

import json
import threading
from typing import Any

import pynvml
import pytest
import trio

from attestation.errors import AttestationError
from attestation.errors.gpu import (
    GpuDeviceDataError,
    GpuDevtoolsError,
    GpuEvidenceMalformedError,
    GpuMissingError,
    GpuNotConfidentialError,
    GpuSimulatedError,
    GpuUnavailableError,
)
from attestation.gpu import verify_gpu_evidence
from attestation.providers import nvml
from attestation.providers.nvml import GpuInfo, collect_gpu_evidence, gpu_state
from tests.support.fake_nvml import FakeGpu, FakeNvml
from tests.support.gpu_forge import NONCE, NOW, GpuForge, certificate, report

CERTIFICATE, REPORT = "nvmlDeviceGetConfComputeGpuCertificate", "nvmlDeviceGetConfComputeGpuAttestationReport"


@pytest.fixture(scope="module")
def forge() -> GpuForge:
    return GpuForge.new()


@pytest.fixture
def gpu(forge: GpuForge) -> FakeGpu:
    device = forge.device()
    chain = (forge.leaf(device), device, forge.provisioner, forge.family, forge.root)
    return FakeGpu(chain=b"".join(issuer.pem() for issuer in chain), report=report())


async def test_what_is_collected_verifies(forge: GpuForge, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(gpus=[gpu]).install(monkeypatch)
    raw = await collect_gpu_evidence(NONCE)
    (verified,) = verify_gpu_evidence(raw, nonce=NONCE, root=forge.root.der, now=NOW)
    assert verified.model == "device"
    assert fake.initialised == 0


async def test_trailing_nuls_of_the_chain_are_no_certificates(
    forge: GpuForge, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.chain += b"\0\0"
    FakeNvml(gpus=[gpu]).install(monkeypatch)
    raw = await collect_gpu_evidence(NONCE)
    assert len(verify_gpu_evidence(raw, nonce=NONCE, root=forge.root.der, now=NOW)) == 1


@pytest.mark.parametrize(
    ("changes", "error", "mode"),
    [
        ({"cc_feature": 0}, GpuNotConfidentialError, "off"),
        ({"cc_feature": 0, "devtools": 1}, GpuNotConfidentialError, "off"),
        ({"devtools": 1}, GpuDevtoolsError, "devtools"),
        ({"environment": 1}, GpuSimulatedError, "simulated"),
        ({"environment": 0}, GpuSimulatedError, "simulated"),
        ({"fail": {"nvmlSystemGetConfComputeState": 3}}, GpuNotConfidentialError, "unsupported"),
        ({"missing": frozenset({"nvmlSystemGetConfComputeState"})}, GpuNotConfidentialError, "unsupported"),
    ],
)
async def test_a_gpu_that_is_not_confidential(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[AttestationError], mode: str
) -> None:
    fake = FakeNvml(gpus=[gpu], **changes).install(monkeypatch)
    state = await gpu_state()
    assert (state.mode, state.driver) == (mode, "550.90.07")
    assert state.gpus == (GpuInfo(name="NVIDIA H100 PCIe", uuid="GPU-00000000-0000-0000-0000-000000000000"),)
    with pytest.raises(error) as raised:
        await collect_gpu_evidence(NONCE)
    assert type(raised.value) is error
    assert fake.initialised == 0


@pytest.mark.parametrize(
    ("function", "status", "error"),
    [
        ("nvmlInitWithFlags", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, GpuMissingError),
        ("nvmlInitWithFlags", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, GpuUnavailableError),
        ("nvmlSystemGetConfComputeState", pynvml.NVML_ERROR_UNKNOWN, GpuUnavailableError),
        ("nvmlDeviceGetCount_v2", pynvml.NVML_ERROR_UNKNOWN, GpuUnavailableError),
        ("nvmlDeviceGetHandleByIndex_v2", pynvml.NVML_ERROR_GPU_IS_LOST, GpuUnavailableError),
        (CERTIFICATE, pynvml.NVML_ERROR_GPU_IS_LOST, GpuUnavailableError),
        (REPORT, pynvml.NVML_ERROR_GPU_IS_LOST, GpuUnavailableError),
        (REPORT, pynvml.NVML_ERROR_NOT_SUPPORTED, GpuUnavailableError),
        ("nvmlShutdown", pynvml.NVML_ERROR_UNKNOWN, GpuUnavailableError),
    ],
)
async def test_a_driver_that_fails(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, function: str, status: int, error: type[AttestationError]
) -> None:
    fake = FakeNvml(gpus=[gpu], fail={function: status}).install(monkeypatch)
    with pytest.raises(error) as raised:
        await collect_gpu_evidence(NONCE)
    assert type(raised.value) is error
    assert fake.initialised == (1 if function == "nvmlShutdown" else 0)


async def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", load)
    for call in (gpu_state, lambda: collect_gpu_evidence(NONCE)):
        with pytest.raises(GpuMissingError):
            await call()


async def test_no_gpu_or_too_many(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch)
    with pytest.raises(GpuMissingError):
        await gpu_state()
    FakeNvml(gpus=[gpu] * 17).install(monkeypatch)
    with pytest.raises(GpuDeviceDataError):
        await gpu_state()


async def test_more_than_fits_into_one_piece_of_evidence(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.report_size = 8192
    FakeNvml(gpus=[gpu] * 8).install(monkeypatch)
    with pytest.raises(GpuEvidenceMalformedError):
        await collect_gpu_evidence(NONCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"report_size": 0},
        {"report_size": 8193},
        {"report_size": 0xFFFFFFFF},
        {"chain_size": 0},
        {"chain_size": 0x1401},
        {"chain_size": 100},
        {"chain": b"no certificate"},
        {"chain": b"\xff" * 40},
    ],
)
async def test_data_out_of_bounds(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(gpu, name, value)
    fake = FakeNvml(gpus=[gpu]).install(monkeypatch)
    with pytest.raises(GpuDeviceDataError):
        await collect_gpu_evidence(NONCE)
    assert fake.initialised == 0


async def test_a_name_that_is_no_text(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.name = b"\xff\xfe"
    fake = FakeNvml(gpus=[gpu]).install(monkeypatch)
    with pytest.raises(GpuDeviceDataError):
        await gpu_state()
    assert fake.initialised == 0


async def test_a_driver_that_hangs_is_left_behind_and_holds_one_thread(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    answers, shut = threading.Event(), threading.Event()
    fake = FakeNvml(gpus=[gpu]).install(monkeypatch)
    monkeypatch.setattr(fake, "_nvmlSystemGetConfComputeState", lambda state: answers.wait(), raising=False)
    monkeypatch.setattr(fake, "_nvmlShutdown", shut.set, raising=False)
    try:
        with pytest.raises(GpuUnavailableError, match="no answer"):
            await collect_gpu_evidence(NONCE)
        assert nvml._ONE_THREAD.borrowed_tokens == 1
        with pytest.raises(GpuUnavailableError, match="no answer"):
            await gpu_state()
        assert nvml._ONE_THREAD.borrowed_tokens == 1
    finally:
        answers.set()
    assert await trio.to_thread.run_sync(shut.wait)
    async with nvml._ONE_THREAD:
        pass


def test_the_command_prints_the_state(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeNvml(gpus=[gpu]).install(monkeypatch)
    assert nvml.main([]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "on"
    assert nvml.main(["--collect"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 1
    FakeNvml(gpus=[gpu], cc_feature=0).install(monkeypatch)
    assert nvml.main(["--collect"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["error"], answer["message"]) == ("gpu_not_confidential", "GPU: not in confidential mode")


def test_a_chain_with_the_root_only_shows_nothing(gpu: FakeGpu) -> None:
    assert nvml._below_root(certificate("alone", None).pem()) == ()
