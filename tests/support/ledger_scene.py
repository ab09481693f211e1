"""A host whose sources are read round by round, and the ledger that keeps what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pool_fixture import POOL, START_S, Author, key

from agent.ledger import Ledger, open_ledger
from agent.ledger_rows import RawReading
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.meter.work import MeterState, Place, WindowLimits, WorkWindow, observe
from gossip.records import Record, Source, WorkBody

KEY = key(0)
OWN = {"node_key": KEY.public, "pool": POOL}
LIMITS = WindowLimits(window_s=20, window_max_s=60)
ENGINE: Place = (Source.ENGINE.value, 0)
NVML: Place = (Source.NVML.value, 0)
LABELS = '{engine="0",model_name="llama"}'


def engine_sample(tokens: int, *, start_s: int | None = None, labels: str = LABELS, **changes: object) -> SourceSample:
    """An engine that generated `tokens`, as many prompt tokens, and answered a request for each hundred."""
    series = {
        f"prompt_token{labels}": tokens,
        f"generation_token{labels}": tokens,
        f"task{labels}": tokens // 100,
        f"latency_le_us:100000{labels}": tokens // 200,
        f"latency_le_us:inf{labels}": tokens // 100,
    }
    values = {"provenance": "vllm", "gauges": {"running": 2.0, "waiting": 0.5}, "notes": ()}
    return SourceSample(counters=CounterSample(source="vllm", start_s=start_s, series=series), **(values | changes))


def nvml_sample(energy_mj: int) -> SourceSample:
    """A GPU that took so much energy since its driver was loaded."""
    counters = CounterSample(source="nvml", start_s=None, series={'energy_mj{gpu="GPU-0"}': energy_mj})
    return SourceSample(counters=counters, provenance="nvml 550.90.07", gauges={"temperature_c": 61.0})


@dataclass
class Host:
    """Reads sources, observes, keeps: as `agent.measuring` does."""

    path: Path
    ledger: Ledger
    state: MeterState | None = None
    windows: list[WorkWindow] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    author: Author = field(default_factory=lambda: Author(0))

    def round(self, time_s: int, said: Mapping[Place, SourceSample | str]) -> tuple[WorkWindow, ...]:
        """One round at `time_s` after the start: a sample or what failed, by source; the windows that it closed."""
        now_s = START_S + time_s
        samples = {place: None if isinstance(each, str) else each for place, each in said.items()}
        readings = [
            RawReading(source=place[0], instance=place[1], sample=samples[place], error=each)
            if isinstance(each, str)
            else RawReading(source=place[0], instance=place[1], sample=each)
            for place, each in said.items()
        ]
        observed = observe(self.state, samples, now_s, LIMITS)
        self.numbers.append(
            self.ledger.keep_round(now_s, readings, before=self.state, windows=observed.windows, limits=LIMITS)
        )
        self.state = observed.state
        self.windows += observed.windows
        return observed.windows

    def record(self, window: WorkWindow) -> Record:
        """The own record that a window becomes, noted in the ledger."""
        body = WorkBody(
            start_s=window.start_s,
            end_s=window.end_s,
            readings=window.readings,
            evidence=self.author.evidence_hash,
        )
        record = self.author.append(body)
        self.ledger.note_record(record)
        return record

    def restart(self, **changes: object) -> None:
        """Another process: the journal kept the meter's state, the ledger is opened anew."""
        self.ledger.close()
        self.ledger = open_ledger(self.path, **OWN, **changes)


def new_host(path: Path, **changes: object) -> Host:
    return Host(path=path, ledger=open_ledger(path, **OWN, **changes))
