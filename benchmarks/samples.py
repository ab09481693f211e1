"""What a host of eight GPUs reports of one minute, as the benchmarks have it."""

from __future__ import annotations

from gossip.records import Source, SourceWork, Unit

READINGS = (
    SourceWork(
        source=Source.ENGINE,
        provenance="vllm",
        counters=(
            (Unit.PROMPT_TOKEN, 12_345),
            (Unit.GENERATION_TOKEN, 67_890),
            (Unit.TASK, 321),
            (Unit.FAILED_TASK, 2),
        ),
        latency_ms=(800, 2_000, 4_000),
    ),
    SourceWork(
        source=Source.NVML,
        provenance="nvml 550.90.07",
        counters=((Unit.GPU_BUSY_MS, 480_000), (Unit.ENERGY_MJ, 150_000)),
    ),
)
