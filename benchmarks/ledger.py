"""What the ledger costs: bytes and time of a round of raw readings, a week of them, and opening the file after it.

A host with one vLLM (26 series) and eight GPUs (16 series, 48 gauges), read every 10 s; every 50th reading of the
engine fails. References in the same run: the same readings as JSON text, and a durable commit of the journal.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.journal import create_journal, open_journal
from agent.ledger import open_ledger
from agent.ledger_rows import RawReading
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.meter.work import MeterState, Place, WindowLimits, encode_state, observe
from gossip.records import PoolId, Source

OWN = {"node_key": bytes(32), "pool": PoolId(-217, bytes(32))}
START_S, STEP_S = 1_800_000_000, 10
WEEK_ROUNDS = 7 * 86_400 // STEP_S
JOURNAL_COMMITS = 200


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = open_ledger(path, **OWN)
        spent_s: list[float] = []
        state: MeterState | None = None
        for i in range(WEEK_ROUNDS):
            samples = _samples(i)
            observed = observe(state, samples, START_S + STEP_S * i, WindowLimits())
            readings = [RawReading(source=p[0], instance=p[1], sample=s) for p, s in samples.items()]
            started = time.perf_counter()
            ledger.keep_round(
                START_S + STEP_S * i, readings, before=state, windows=observed.windows, limits=WindowLimits()
            )
            spent_s.append(time.perf_counter() - started)
            state = observed.state
        ledger.close()
        size = path.stat().st_size
        started = time.perf_counter()
        open_ledger(path, **OWN).close()
        opened_s = time.perf_counter() - started
        assert state is not None
        yield {
            "bytes_per_round": round(size / WEEK_ROUNDS),
            "week_mib": round(size / 2**20, 1),
            "write_us": round(1e6 * statistics.median(spent_s)),
            "write_p99_us": round(1e6 * statistics.quantiles(spent_s, n=100)[98]),
            "open_after_a_week_s": round(opened_s, 2),
            "reference": "the same as JSON text; a durable commit of the journal",
            "reference_bytes": round(statistics.mean(_json_bytes(_samples(i)) for i in range(50))),
            "reference_write_us": round(1e6 * _journal_commit_s(Path(folder), state)),
        }


def _samples(i: int) -> dict[Place, SourceSample | None]:
    engine = None if i % 50 == 7 else _engine(i)
    return {(Source.ENGINE.value, 0): engine, (Source.NVML.value, 0): _gpus(i)}


def _engine(i: int) -> SourceSample:
    labels = 'engine="0",model_name="meta-llama/Llama-3.1-70B-Instruct"'
    series = {f"prompt_token{{{labels}}}": 700 * i, f"generation_token{{{labels}}}": 300 * i}
    series |= {f'task{{{labels},finished_reason="{r}"}}': i for r in ("abort", "length", "stop", "error")}
    series |= {f"latency_le_us:{100_000 * bound}{{{labels}}}": i * bound for bound in range(20)}
    counters = CounterSample(source="vllm", start_s=START_S - 99, series=series)
    return SourceSample(counters=counters, provenance="vllm", gauges={"running": float(i % 9), "waiting": 0.0})


def _gpus(i: int) -> SourceSample:
    uuids = [f"GPU-8f6c1c1e-5b3b-4f6e-a3b3-00000000000{k}" for k in range(8)]
    series = {f'energy_mj{{gpu="{uuid}"}}': 3_000_000 * i for uuid in uuids}
    series |= {f'gpu_busy_ms{{gpu="{uuid}"}}': 9000 * i for uuid in uuids}
    names = ("temperature_c", "memory_used_bytes", "power_w", "ecc_errors", "sm_clock_mhz", "utilisation")
    gauges = {f"{name} {uuid}": 50.5 + i % 7 for uuid in uuids for name in names}
    counters = CounterSample(source="nvml", start_s=None, series=series)
    return SourceSample(counters=counters, provenance="nvml 550.90.07", gauges=gauges)


def _json_bytes(samples: dict[Place, SourceSample | None]) -> int:
    return sum(len(json.dumps(asdict(sample), default=dict)) for sample in samples.values() if sample is not None)


def _journal_commit_s(folder: Path, state: MeterState) -> float:
    """The median of keeping the meter's state as the journal does, durable when it returns."""
    path, raw, spent_s = folder / "journal.sqlite", encode_state(state), []
    create_journal(path, **OWN)
    with closing(open_journal(path, **OWN)) as journal:
        for _ in range(JOURNAL_COMMITS):
            started = time.perf_counter()
            journal.keep_meter("windows", raw)
            spent_s.append(time.perf_counter() - started)
    return statistics.median(spent_s)
