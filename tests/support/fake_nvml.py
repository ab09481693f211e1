"""A library in place of libnvidia-ml.so.1: pynvml's own structures and error handling stay in use.

It answers the functions that the collector calls, as the C library does: a status is returned, results are
written through pointers. What a test wants otherwise is an attribute.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest


@dataclass
class FakeGpu:
    """One GPU: `chain` is PEM, `report` is what it answers, with the nonce put into it."""

    chain: bytes
    report: bytes
    name: bytes = b"NVIDIA H100 PCIe"
    chain_size: int | None = None
    report_size: int | None = None


@dataclass
class FakeNvml:
    """`fail` maps a function's name to the status that it returns; `missing` are not in this library at all."""

    gpus: Sequence[FakeGpu] = ()
    environment: int = pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD
    cc_feature: int = pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED
    devtools: int = pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    fail: dict[str, int] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    initialised: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        monkeypatch.setattr(pynvml, "nvmlLib", self)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return self

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml") or name in self.missing:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            if name in self.fail:
                return self.fail[name]
            getattr(self, f"_{name}")(*(getattr(argument, "_obj", argument) for argument in arguments))
            return int(pynvml.NVML_SUCCESS)

        return call

    def _nvmlInitWithFlags(self, flags: int) -> None:
        self.initialised += 1

    def _nvmlShutdown(self) -> None:
        self.initialised -= 1

    def _nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> None:
        text.value = b"550.90.07"

    def _nvmlSystemGetConfComputeState(self, state: Any) -> None:
        state.environment, state.ccFeature, state.devToolsMode = self.environment, self.cc_feature, self.devtools

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count.value = len(self.gpus)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> None:
        ctypes.cast(ctypes.pointer(device), ctypes.POINTER(ctypes.c_size_t))[0] = index.value + 1

    def _gpu(self, device: Any) -> FakeGpu:
        return self.gpus[ctypes.cast(ctypes.pointer(device), ctypes.POINTER(ctypes.c_size_t))[0] - 1]

    def _nvmlDeviceGetName(self, device: Any, text: Any, size: Any) -> None:
        text.value = self._gpu(device).name

    def _nvmlDeviceGetUUID(self, device: Any, text: Any, size: Any) -> None:
        text.value = b"GPU-00000000-0000-0000-0000-000000000000"

    def _nvmlDeviceGetConfComputeGpuCertificate(self, device: Any, certificate: Any) -> None:
        gpu = self._gpu(device)
        ctypes.memmove(certificate.attestationCertChain, gpu.chain, len(gpu.chain))
        certificate.attestationCertChainSize = len(gpu.chain) if gpu.chain_size is None else gpu.chain_size

    def _nvmlDeviceGetConfComputeGpuAttestationReport(self, device: Any, report: Any) -> None:
        gpu = self._gpu(device)
        answer = gpu.report[:4] + bytes(report.nonce) + gpu.report[36:]
        ctypes.memmove(report.attestationReport, answer, len(answer))
        report.attestationReportSize = len(answer) if gpu.report_size is None else gpu.report_size
