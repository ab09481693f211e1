"""Cost of one sample of a host's GPUs through the killable child, beside the same NVML calls in this process.

The difference is what a hung driver costs nobody: a question and a line of JSON over pipes, its decoding, and the
switch between two processes. NVIDIA's library is the tests' stand-in, whose calls cost next to nothing, so the ratio
is the worst there is; `python -m benchmarks nvml-gpu` measures the same on the GPUs of this host.
"""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from agent.meter.nvml import NvmlSource
from agent.meter.nvml_child import Driver
from agent.meter.nvml_process import ChildProcess, start_child
from tests.support.nvml_stub import COMPILER, Stub, build

SAMPLES = 300
IDLE_S = 10.0
GPU_COUNTS = (1, 8)


def run() -> Iterator[dict[str, Any]]:
    """Measure on the stand-in, with one GPU and with eight."""
    if COMPILER is None:
        yield {"skipped": "no C compiler here: the stand-in for NVIDIA's library cannot be built"}
        return
    with _stub() as stub:
        for gpus in GPU_COUNTS:
            stub.set(gpus=gpus)
            yield {"driver": "stub", **_measure()}


def run_on_gpu() -> Iterator[dict[str, Any]]:
    """Measure on this host's GPUs; raises SourceUnavailableError if it has none."""
    yield _measure()


def _measure() -> dict[str, Any]:
    ours = trio.run(_through_child)
    driver = Driver()
    reference_ms = _times_ms(driver.report)
    return {
        **ours,
        "reference": "the same NVML calls in this process, where a hung driver would stop the agent",
        "reference_ms": reference_ms,
        "ratio": round(ours["sample_ms"]["p50"] / reference_ms["p50"], 2),
    }


async def _through_child() -> dict[str, Any]:
    children: list[ChildProcess] = []

    async def start() -> ChildProcess:
        children.append(await start_child())
        return children[-1]

    source = NvmlSource(start)
    try:
        began_s = time.perf_counter()
        sample = await source.sample()
        start_ms = 1000 * (time.perf_counter() - began_s)
        (child,) = children
        taken_ms, own_s, child_s = [], _own_cpu_s(), _cpu_s(child.pid)
        for _ in range(SAMPLES):
            before_s = time.perf_counter()
            await source.sample()
            taken_ms.append(1000 * (time.perf_counter() - before_s))
        own_s, child_s = _own_cpu_s() - own_s, _cpu_s(child.pid) - child_s
        before_idle_s = _cpu_s(child.pid)
        await trio.sleep(IDLE_S)
        idle_s = _cpu_s(child.pid) - before_idle_s
        return {
            "provenance": sample.provenance,
            "gpus": int(sample.gauges["gpus"]),
            "samples": SAMPLES,
            "sample_ms": _quantiles(taken_ms),
            "agent_cpu_ms": round(1000 * own_s / SAMPLES, 3),
            "child_cpu_ms": round(1000 * child_s / SAMPLES, 3),
            "child_idle_cpu_percent": round(100 * idle_s / IDLE_S, 3),
            "child_rss_mib": round(_rss_bytes(child.pid) / 2**20, 1),
            "start_ms": round(start_ms, 1),
        }
    finally:
        await source.aclose()


def _times_ms(call: Callable[[], object]) -> dict[str, float]:
    taken_ms = []
    for _ in range(SAMPLES):
        before_s = time.perf_counter()
        call()
        taken_ms.append(1000 * (time.perf_counter() - before_s))
    return _quantiles(taken_ms)


def _quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}


@contextmanager
def _stub() -> Iterator[Stub]:
    """The stand-in, for the children by their environment, and for this process, which began without it, by hand."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = build(folder)
        stub = Stub(library, folder)
        before = {name: os.environ.get(name) for name in stub.environment}
        os.environ.update(stub.environment)
        ctypes.CDLL(str(library))
        try:
            yield stub
        finally:
            for variable, value in before.items():
                os.environ.pop(variable) if value is None else os.environ.update({variable: value})


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_s(pid: int) -> float:
    """Time on a CPU, to the nanosecond: proc(5), schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
