"""What stands in the ledger: rounds of raw readings, work windows, settled epochs, what the chain paid.

Decides how they are written down. A ledger is this host's own notebook: nothing in it is signed or counted.

1. The names of a reading's series and gauges hardly ever change, its figures do: they are kept apart, so that a
   reading costs what its figures cost (docs/earnings.md says what that is).
2. What was read comes back as it was, but for words and gauges beyond their bounds.
3. Of a window is kept between which rounds it was measured, so that it can be measured again from them.

Elsewhere: the file (`agent.ledger`, `agent.ledger_reader`), what is made of it (`agent.earnings`, `agent.work`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from agent.errors import InvalidSourceError
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.meter.work import WindowLimits, WorkWindow
from contracts.model import Address
from gossip.credit import Credit
from gossip.settlement import EvidenceWindow, Settlement
from gossip.tally import EpochFrame

GAUGES_MAX = 512
"""Of one reading; more are not kept."""
WORDS_CHARS_MAX = 2000
"""Of one reading: its error, or all its notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReading:
    """What came of reading one source once: the sample, or what failed in words."""

    source: int
    instance: int = 0
    sample: SourceSample | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Every source that is set, as read at `time_s` (Unix seconds); numbers ascend in the order of reading."""

    number: int
    time_s: int
    readings: tuple[RawReading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """A work window, and the rounds from which `agent.meter.work` makes it again: `first` to `last`.

    `seq`, `record` (hash) and `evidence` (hash, or None) are those of the own record that it became, if it did yet.
    """

    window: WorkWindow
    limits: WindowLimits
    first: int
    last: int
    seq: int | None = None
    record: bytes | None = None
    evidence: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One settled epoch as this node saw it; amounts in nanoTON. None: not known here, which is not zero.

    `account` is the own one (32 bytes), None while not registered. Figures from `score` to `flags` are the own leaf's,
    and 0 without one. `credit` is None if the own part was not counted here (`is_computed`), or this node has none.
    `epoch_s` is how long the epoch was (rows of before it was kept lack it).
    `head_seq` is the number of the last own record that was counted by then, `evidence` what later windows can name.
    """

    epoch: int
    end_s: int | None = None
    epoch_s: int | None = None
    settled_s: int | None = None
    pot_nanoton: int | None = None
    account: bytes | None = None
    total_score: int = 0
    score: int = 0
    tokens: int = 0
    tasks: int = 0
    uptime_s: int = 0
    quality: int = 0
    reputation: int = 0
    flags: int = 0
    cumulative_nanoton: int = 0
    """Earned ever, this epoch included."""
    is_computed: bool = False
    is_recalled: bool = False
    """Taken from the journal at a start: how it was counted was not kept there, if it was known."""
    credit: Credit | None = None
    head_seq: int = 0
    evidence: tuple[EvidenceWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidRow:
    """What the chain had ever paid to `account` (32 bytes) at `time_s`, when `epoch` was the last one settled."""

    time_s: int
    epoch: int
    account: bytes
    paid_nanoton: int


def epoch_row(
    settlement: Settlement, *, node_key: bytes, own: Address | None, frame: EpochFrame | None, settled_s: int | None
) -> EpochRow:
    """The row of a settlement that landed.

    `own` is this node's address in the registry; `frame` is what the chain fixed for the epoch, if it is at hand (that
    of another epoch is not looked at); `settled_s` is when the chain took it (Unix seconds).
    """
    payload, reading = settlement.payload, settlement.readings.get(node_key)
    known = frame if frame is not None and frame.epoch == payload.epoch else None
    row = EpochRow(
        epoch=payload.epoch,
        end_s=None if known is None else known.end_s,
        epoch_s=None if known is None else known.end_s - known.start_s,
        settled_s=settled_s,
        pot_nanoton=None if known is None else known.pot_nanoton,
        account=None if own is None else own.account,
        total_score=payload.total_score,
        is_computed=bool(settlement.credits),
        credit=settlement.credits.get(node_key),
        head_seq=0 if reading is None else reading.head.seq,
        evidence=() if reading is None else reading.evidence,
    )
    leaf = next((leaf for leaf in settlement.leaves if leaf.participant == own), None)
    if leaf is None:
        return row
    return replace(
        row,
        score=leaf.score,
        tokens=leaf.tokens,
        tasks=leaf.tasks,
        uptime_s=leaf.uptime_s,
        quality=leaf.quality,
        reputation=leaf.reputation,
        flags=leaf.flags,
        cumulative_nanoton=leaf.earned_nanoton,
    )


# Readings in two parts (rule 1).

Form: TypeAlias = tuple[str, str, list[str], list[str]]
"""Name and provenance of the source, names of its series and of its gauges."""
Figures: TypeAlias = tuple[list[int], list[float]]


def split_sample(sample: SourceSample) -> tuple[bytes, bytes]:
    """The form and the figures of a sample, encoded."""
    series, gauges = sorted(sample.counters.series.items()), sorted(sample.gauges.items())[:GAUGES_MAX]
    form = (sample.counters.source, sample.provenance, [name for name, _ in series], [name for name, _ in gauges])
    figures = ([value for _, value in series], [_short(value) for _, value in gauges])
    return msgspec.msgpack.encode(form), msgspec.msgpack.encode(figures)


def _short(value: float) -> float:
    """The same number; a whole one takes fewer bytes as an integer, and most gauges are whole."""
    return int(value) if abs(value) < 1 << 53 and float(value).is_integer() else value


def joined_sample(form: bytes, figures: bytes, start_s: int | None, notes: Sequence[str]) -> SourceSample:
    """The sample of which `split_sample` made these parts.

    Raises:
        InvalidSourceError: they are not such parts, or do not belong together.
    """
    try:
        name, provenance, series, gauges = msgspec.msgpack.decode(form, type=Form)
        counts, values = msgspec.msgpack.decode(figures, type=Figures)
    except msgspec.DecodeError as error:
        raise InvalidSourceError(f"kept sample: {error}") from error
    if len(series) != len(counts) or len(gauges) != len(values):
        raise InvalidSourceError("kept sample: names and figures differ in number")
    return SourceSample(
        counters=CounterSample(source=name, start_s=start_s, series=dict(zip(series, counts, strict=True))),
        provenance=provenance,
        gauges=dict(zip(gauges, values, strict=True)),
        notes=tuple(notes),
    )


def bounded(words: Sequence[str]) -> list[str]:
    """As many of the lines as `WORDS_CHARS_MAX` characters hold, the last one cut; what is no Unicode is replaced."""
    kept: list[str] = []
    left = WORDS_CHARS_MAX
    for line in words:
        if left <= 0:
            break
        kept.append(line[:left].encode(errors="replace").decode())
        left -= len(line)
    return kept
