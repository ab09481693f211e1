"""What a metric is, as data: name, kind, labels with their bounds, what it says, and what an operator does with it.

1. Names follow Prometheus: base units (seconds, bytes, and TON for money) at the end, `_total` for counters, `_info`
   for facts that are labels, `_timestamp_seconds` for Unix times.
2. Every label has a bound on the number of its values, for many come from peers.

Source: Prometheus documentation, "Metric and label naming", "Instrumentation".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

NAMESPACE = "gpupool"

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_UNITS = ("seconds", "bytes", "ton", "ratio")


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    STATE = "state"
    """A gauge with a series for each of its states: 1 for the one that holds, 0 for the others."""
    INFO = "info"
    """A gauge that is always 1; its labels say something."""


class Topic(StrEnum):
    """What a metric is about, in the order in which people ask; a row of the dashboard each."""

    EARNINGS = "earnings"
    WORK = "work"
    EVIDENCE = "evidence"
    PEERS = "peers"
    SETTLEMENT = "settlement"
    CHAIN = "chain"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Label:
    """A label of at most `values_max` values. `values` are those that are known beforehand, all of them or some."""

    name: str
    values_max: int
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `name` is without namespace, but for what a library names (`is_library`)."""

    topic: Topic
    kind: Kind
    name: str
    text: str
    """What it says; the HELP line."""
    use: str
    """What an operator does with it."""
    labels: tuple[Label, ...] = ()
    is_library: bool = False

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"{self.name}: no name of a metric")
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and nothing else, end in _total")
        if (self.kind is Kind.INFO) != self.name.endswith("_info"):
            raise ValueError(f"{self.name}: infos, and nothing else, end in _info")
        if self.kind is Kind.STATE and (len(self.labels) != 1 or not self.labels[0].values):
            raise ValueError(f"{self.name}: a state has one label, whose values are known")

    @property
    def full_name(self) -> str:
        """As it is served."""
        return self.name if self.is_library else f"{NAMESPACE}_{self.name}"

    @property
    def unit(self) -> str:
        """The unit that its name ends in; empty for counts, numbers and what is 0 or 1."""
        return next((unit for unit in _UNITS if self.name.removesuffix("_total").endswith(f"_{unit}")), "")

    @property
    def is_timestamp(self) -> bool:
        """Whether it is a Unix time."""
        return self.name.endswith("_timestamp_seconds") or self.name == "process_start_time_seconds"

    def value(self) -> dict[str, object]:
        """As JSON."""
        return {
            "name": self.full_name,
            "topic": str(self.topic),
            "kind": str(self.kind),
            "unit": self.unit,
            "labels": [
                {"name": label.name, "values_max": label.values_max, "values": list(label.values)}
                for label in self.labels
            ],
            "help": self.text,
            "use": self.use,
        }
