"""GPUs as a source: busy time and energy by GPU, and how the GPUs are, as the NVIDIA driver tells it.

Decides what of a report is counted, shown and said. The report is the driver's word (`nvml_report`), fetched by a
process that may be killed (`nvml_process`).

1. Counters are series by UUID: `gpu_busy_ms`, which our own child sums up from the utilisation (`nvml_busy`), and
   `energy_mj`, the driver's own. That one starts from 0 when the driver is loaded, which `agent.meter.counters` sees.
2. Over a new child, busy time goes on from what was last read of the old one; what nobody read is not in it.
3. What a GPU does not tell has no series and no gauge. Busy time is not told in MIG mode.
4. No GPU that answers is no reading: its time is a gap. With some of several lost, the others count.

Source: METERING, "nvml" and "Counters".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from agent.errors import SourceUnavailableError
from agent.meter.counters import CounterSample
from agent.meter.nvml_notes import lost_note, report_notes, xid_note
from agent.meter.nvml_process import NvmlProcess, Start, start_child
from agent.meter.nvml_report import GpuReading, Opened, Report
from agent.meter.sources import SourceSample
from gossip.records import Source

GPU_BUSY_MS = "gpu_busy_ms"
ENERGY_MJ = "energy_mj"
XID_SHOWN_S = 3600.0
_XIDS_SHOWN_MAX = 32
_GAUGES = (
    "busy_percent",
    "memory_busy_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "temperature_c",
    "power_mw",
    "clock_limits",
    "ecc_volatile",
    "ecc_aggregate",
    "remapped_rows",
    "retired_pages",
    "processes",
    "process_memory_bytes",
)
"""Figures of a reading that are shown, as `gpu_...`."""


class NvmlSource:
    """The GPUs of this host. One task samples it; `aclose` ends its child."""

    source = Source.NVML
    instance = 0

    def __init__(self, start: Start = start_child) -> None:
        self._process = NvmlProcess(start)
        self._busy = BusySums()
        self._xids = RecentXids()

    async def sample(self) -> SourceSample:
        """Read all GPUs once, within ten seconds; cancelled, the child is gone.

        Raises:
            SourceUnavailableError: no driver, no GPU, no answer in time; the message says which, and when the next
                try is.
            InvalidSourceError: the driver gave what cannot be.
        """
        opened, report = await self._process.report()
        self._xids.add(report, trio.current_time())
        if not report.gpus:
            reasons = [lost_note(lost) for lost in report.lost]
            raise SourceUnavailableError(f"NVML: {'; '.join(reasons) or _NO_GPU}")
        xids = self._xids.notes(trio.current_time())
        return sample_of(opened, report, self._busy.add(opened, report), xids)

    async def aclose(self) -> None:
        """End the child, if there is one."""
        await self._process.aclose()


_NO_GPU = "the driver runs and has no GPU; one that is passed through to a guest is not seen here"


def sample_of(opened: Opened, report: Report, busy_ms: Mapping[str, int], xids: tuple[str, ...]) -> SourceSample:
    """Turn a report into a sample; `busy_ms` is by UUID, `xids` are further notes."""
    series = {f'{GPU_BUSY_MS}{{uuid="{uuid}"}}': amount for uuid, amount in busy_ms.items()}
    gauges: dict[str, float] = {"gpus": len(report.gpus), "gpus_lost": len(report.lost)}
    for gpu in report.gpus:
        if gpu.energy_mj is not None:
            series[f'{ENERGY_MJ}{{uuid="{gpu.uuid}"}}'] = gpu.energy_mj
        gauges.update(_gauges(gpu))
    return SourceSample(
        counters=CounterSample(source="nvml", start_s=None, series=series),
        provenance=f"nvml {opened.driver}",
        gauges=gauges,
        notes=(*report_notes(report), *xids),
    )


@dataclass(slots=True)
class BusySums:
    """Busy time by UUID since this process began, over all children (rule 2)."""

    _opened: Opened | None = None
    _before: dict[str, int] = field(default_factory=dict)
    _sums: dict[str, int] = field(default_factory=dict)

    def add(self, opened: Opened, report: Report) -> Mapping[str, int]:
        """Take the report of the child that said `opened`; the sums of the GPUs in it that tell theirs."""
        if opened is not self._opened:
            self._opened, self._before = opened, dict(self._sums)
        told = {gpu.uuid: gpu.busy_ms for gpu in report.gpus if gpu.busy_ms is not None and not gpu.is_mig}
        sums = {uuid: self._before.get(uuid, 0) + busy_ms for uuid, busy_ms in told.items()}
        self._sums.update(sums)
        return sums


@dataclass(slots=True)
class RecentXids:
    """Xids stand in one report only, but their consequences last: each is shown for `XID_SHOWN_S`."""

    _seen_s: dict[tuple[str, int], float] = field(default_factory=dict)

    def add(self, report: Report, now_s: float) -> None:
        """Take the Xids of a report; only the last of equal ones, and `_XIDS_SHOWN_MAX` in all, are remembered."""
        heard = [(gpu.uuid, gpu.xids) for gpu in report.gpus]
        heard += [(lost.uuid, lost.xids) for lost in report.lost if lost.uuid is not None]
        for key in [(uuid, code) for uuid, codes in heard for code in codes]:
            self._seen_s.pop(key, None)
            self._seen_s[key] = now_s
        for key in list(self._seen_s)[:-_XIDS_SHOWN_MAX]:
            del self._seen_s[key]

    def notes(self, now_s: float) -> tuple[str, ...]:
        """A line for each, oldest first."""
        return tuple(xid_note(*key) for key, seen_s in self._seen_s.items() if now_s - seen_s <= XID_SHOWN_S)


def _gauges(gpu: GpuReading) -> dict[str, float]:
    figures = {name: getattr(gpu, name) for name in _GAUGES}
    return {f'gpu_{name}{{uuid="{gpu.uuid}"}}': value for name, value in figures.items() if value is not None}
