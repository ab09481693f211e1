"""Sources: whoever on this host, or beside it, counts its work; each is a plug-in with this one shape.

A source is read from time to time. What it says is the word of another process or device: bounded and parsed by
the plug-in, free to jump, vanish and start over (`agent.meter.counters` copes with that).

1. A source counts in units of its own (`gossip.records.Unit`); units of two sources are never added.
2. What a source did not tell is absent, never zero.
3. Counters are credited; gauges and notes are shown to the operator and end there.

Source: METERING.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from agent.meter.counters import CounterSample
from gossip.records import Source

PROVENANCE_CHARS_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSample:
    """One reading of one source."""

    counters: CounterSample
    provenance: str
    """Who counted, for the record: "vllm", "nvml 550.90.07"; at most `PROVENANCE_CHARS_MAX` characters."""
    gauges: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """How things stand now, by name: shown, never counted."""
    notes: tuple[str, ...] = ()
    """What the operator should know of now, one line each."""


class MeterSource(Protocol):
    """What is read every few seconds."""

    @property
    def source(self) -> Source:
        """Of which kind it is."""

    @property
    def instance(self) -> int:
        """Which of several of its kind on this host, 0..255."""

    async def sample(self) -> SourceSample:
        """Read it once, within a bounded time; cancellation leaves nothing behind.

        Raises:
            SourceUnavailableError: no answer; try again.
            InvalidSourceError: an answer that is none.
        """
