"""The process that talks to NVML: `python -I -m agent.meter.nvml_child`, started and killed by `nvml_process`.

The only module of the agent that imports pynvml. A driver can hang for ever, or take its caller down with it: so no
other process calls it, and nothing here is worth keeping.

1. Opened, it says so; then it answers each byte on stdin with a report; it ends when stdin does, with its parent.
2. In between it looks at the utilisation once a second, to sum up busy time (`nvml_busy`).
3. A figure that NVML refuses is absent. A GPU that is lost is given up, and named; the others go on. When NVML
   itself is out of order, or the driver was changed under it, the child says so and ends: a process keeps the
   library that it has loaded, and only the next one gets the new one.
4. Standard output belongs to the answers: whatever the driver's library prints goes to standard error.

Source: NVML API reference, "nvmlReturn_t", "Event Handling Methods", "Device Queries"; nvidia-ml-py 13.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pynvml

from agent.meter.nvml_busy import WATCH_INTERVAL_S, BusyTime
from agent.meter.nvml_report import (
    GPUS_MAX,
    UNKNOWN,
    XIDS_MAX,
    Confidential,
    Failure,
    Frame,
    GpuReading,
    LostGpu,
    Opened,
    Report,
    encode_frame,
)

_T = TypeVar("_T")

_OUT_OF_ORDER = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_LOST = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND})
_RETIREMENT_CAUSES = (
    pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
)


@dataclass(slots=True)
class _Gpu:
    """A GPU that the driver lists; `fault` (code, message) once it is given up."""

    index: int
    handle: Any = None
    uuid: str | None = None
    is_mig: bool | None = None
    busy: BusyTime = field(default_factory=BusyTime)
    xids: list[int] = field(default_factory=list)
    fault: tuple[int, str] | None = None


class Driver:
    """NVML, opened. All its methods block for as long as the driver likes, and raise NVMLError by rule 3."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self.version: str = pynvml.nvmlSystemGetDriverVersion()
        self._gpus = [_open(index) for index in range(min(pynvml.nvmlDeviceGetCount(), GPUS_MAX))]
        self._events = _figure(pynvml.nvmlEventSetCreate)
        for gpu in self._gpus:
            _reach(gpu, self._register)

    def watch(self) -> None:
        """Look at the utilisation (rule 2)."""
        for gpu in self._gpus:
            _reach(gpu, _watch)

    def report(self) -> Report:
        """Everything, of every GPU."""
        self._take_events()
        readings = [reading for gpu in self._gpus if (reading := _reach(gpu, _read)) is not None]
        lost = [
            LostGpu(index=gpu.index, uuid=gpu.uuid, code=gpu.fault[0], message=gpu.fault[1], xids=tuple(gpu.xids))
            for gpu in self._gpus
            if gpu.fault is not None
        ]
        for gpu in self._gpus:
            gpu.xids.clear()
        return Report(
            gpus=tuple(readings),
            lost=tuple(lost),
            confidential=_figure(_confidential),
            is_ready=_flag(_figure(pynvml.nvmlSystemGetConfComputeGpusReadyState)),
        )

    def _register(self, gpu: _Gpu) -> None:
        xid = pynvml.nvmlEventTypeXidCriticalError
        if self._events is not None and (_figure(pynvml.nvmlDeviceGetSupportedEventTypes, gpu.handle) or 0) & xid:
            _figure(pynvml.nvmlDeviceRegisterEvents, gpu.handle, xid, self._events)

    def _take_events(self) -> None:
        """Take the Xids that wait; none is waited for."""
        if self._events is None:
            return
        by_handle = {_address(gpu.handle): gpu for gpu in self._gpus if gpu.handle is not None}
        for _ in range(XIDS_MAX * len(self._gpus)):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                # The end of the queue, or a GPU was lost: which one it is shows when it is asked.
                if error.value in _OUT_OF_ORDER:
                    raise
                return
            gpu = by_handle.get(_address(event.device))
            if gpu is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                gpu.xids[:] = [*gpu.xids, event.eventData][-XIDS_MAX:]


def _open(index: int) -> _Gpu:
    gpu = _Gpu(index)
    try:
        gpu.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        gpu.uuid = pynvml.nvmlDeviceGetUUID(gpu.handle)
    except pynvml.NVMLError as error:
        # Without its name nothing can be said of a GPU, whatever the reason is.
        if error.value in _OUT_OF_ORDER:
            raise
        gpu.fault = (error.value, _words(error))
    return gpu


def _reach(gpu: _Gpu, ask: Callable[[_Gpu], _T]) -> _T | None:
    """Ask something of a GPU, and give it up if it is lost; None if it is."""
    if gpu.fault is not None:
        return None
    try:
        return ask(gpu)
    except pynvml.NVMLError as error:
        if error.value not in _LOST:
            raise
        gpu.fault = (error.value, _words(error))
        return None


def _watch(gpu: _Gpu) -> Any:
    """The utilisation, also added to the busy time. A GPU in MIG mode has none."""
    utilisation = None if gpu.is_mig else _figure(pynvml.nvmlDeviceGetUtilizationRates, gpu.handle)
    gpu.busy.take(None if utilisation is None else utilisation.gpu, time.monotonic_ns())
    return utilisation


def _read(gpu: _Gpu) -> GpuReading:
    handle = gpu.handle
    gpu.is_mig = _is_mig(handle)
    utilisation = _watch(gpu)
    memory = _figure(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rows = _figure(pynvml.nvmlDeviceGetRemappedRows, handle)
    processes = _figure(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    # Drivers before 535 know the second name alone; the first is the one that stays.
    limits = _figure(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if limits is None:
        limits = _figure(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    uncorrected = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    assert gpu.uuid is not None
    return GpuReading(
        uuid=gpu.uuid,
        name=_figure(pynvml.nvmlDeviceGetName, handle),
        is_mig=gpu.is_mig,
        busy_ms=gpu.busy.ms,
        energy_mj=_figure(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        busy_percent=None if utilisation is None else utilisation.gpu,
        memory_busy_percent=None if utilisation is None else utilisation.memory,
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        temperature_c=_figure(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power_mw=_figure(pynvml.nvmlDeviceGetPowerUsage, handle),
        clock_limits=limits,
        ecc_volatile=_figure(pynvml.nvmlDeviceGetTotalEccErrors, handle, uncorrected, pynvml.NVML_VOLATILE_ECC),
        ecc_aggregate=_figure(pynvml.nvmlDeviceGetTotalEccErrors, handle, uncorrected, pynvml.NVML_AGGREGATE_ECC),
        remapped_rows=None if rows is None else rows[0] + rows[1],
        is_remap_pending=None if rows is None else bool(rows[2]),
        is_remap_failed=None if rows is None else bool(rows[3]),
        retired_pages=_retired_pages(handle),
        is_retirement_pending=_flag(_figure(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)),
        processes=None if processes is None else len(processes),
        process_memory_bytes=_process_memory(processes),
        xids=tuple(gpu.xids),
    )


def _figure(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML answers, or None if it has no answer (rule 3)."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _OUT_OF_ORDER or error.value in _LOST:
            raise
        return None


def _is_mig(handle: Any) -> bool | None:
    modes = _figure(pynvml.nvmlDeviceGetMigMode, handle)
    return None if modes is None else bool(modes[0] == pynvml.NVML_DEVICE_MIG_ENABLE)


def _retired_pages(handle: Any) -> int | None:
    pages = [_figure(pynvml.nvmlDeviceGetRetiredPages, handle, cause) for cause in _RETIREMENT_CAUSES]
    return None if None in pages else sum(len(each) for each in pages)


def _process_memory(processes: Any) -> int | None:
    """Of all processes; None if the driver does not tell it of one of them."""
    if processes is None or any(process.usedGpuMemory is None for process in processes):
        return None
    return sum(int(process.usedGpuMemory) for process in processes)


def _confidential() -> Confidential:
    state = pynvml.nvmlSystemGetConfComputeState()
    if state.ccFeature != pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED:
        return "off"
    if state.devToolsMode != pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF:
        return "devtools"
    return "on" if state.environment == pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD else "simulated"


def _address(handle: Any) -> int | None:
    """What tells two of NVML's handles apart."""
    address: int | None = ctypes.cast(handle, ctypes.c_void_p).value
    return address


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _words(error: Any) -> str:
    return "".join(c for c in str(error) if " " <= c <= "~")[:96] or "no reason given"


def _serve(answers: int) -> int:
    """Answer until the parent is gone (rule 1); the exit status."""

    def say(frame: Frame) -> None:
        line = encode_frame(frame)
        while line:
            line = line[os.write(answers, line) :]

    try:
        driver = Driver()
        say(Opened(driver=driver.version))
        due_s = time.monotonic()
        while True:
            asked, _, _ = select.select([0], [], [], max(0.0, due_s - time.monotonic()))
            if not asked:
                driver.watch()
            elif os.read(0, 1):
                say(driver.report())
            else:
                return 0
            due_s = time.monotonic() + WATCH_INTERVAL_S
    except pynvml.NVMLError as error:
        say(Failure(code=error.value, message=_words(error)))
    except UnicodeDecodeError:
        say(Failure(code=UNKNOWN, message="a name or version is not text"))
    return 1


def main() -> int:
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        return _serve(answers)
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
