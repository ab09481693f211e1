"""Explained records for people and as JSON. Names and words of the sources come from others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from agent.measuring import source_name
from agent.pool.values import plain
from agent.texts import legible
from agent.work.again import Again, SourceAgain
from agent.work.explaining import Agreement, Explained
from gossip.records import SourceWork, Unit

INCIDENTS_SHOWN = 8
"""Of a source and window."""


def explained_value(each: Explained) -> dict[str, Any]:
    """One record as JSON; `recorded` is what it says, `again` what its readings give."""
    again = each.again
    return {
        "seq": each.seq,
        "hash": None if each.hash is None else each.hash.hex(),
        "start_s": each.window.start_s,
        "end_s": each.window.end_s,
        "evidence": None if each.evidence is None else each.evidence.hex(),
        "counted": each.counted.name.lower(),
        "why": each.why,
        "recomputed": each.agreement.name.lower(),
        "recorded": [_reading_value(reading) for reading in each.window.readings],
        "again": None if again is None else _again_value(again),
    }


def explained_text(each: Explained, *, is_whole: bool) -> str:
    """One record: when, whether it counted, what it says; with `is_whole` every series that it was made of, too."""
    window = each.window
    counted = str(each.counted) + ("" if each.why is None else f": {each.why}")
    lines = [
        f"record {each.seq}  {_time(window.start_s)} to {_time(window.end_s)}, {window.end_s - window.start_s} s; "
        f"{counted}; recomputed: {each.agreement}",
        *(f"  {reading_text(reading)}" for reading in window.readings),
    ]
    if each.again is None:
        return "\n".join(lines)
    if each.agreement is Agreement.DIFFERENT:
        lines.append("  its readings give something else:")
        found = each.again.window
        lines += ["    no window of this time"] if found is None else [f"    {reading_text(r)}" for r in found.readings]
    if each.again.is_carried:
        lines.append("  it was open already when the agent was started: what follows came after")
    for source in each.again.sources:
        lines += _source_texts(source, is_whole=is_whole)
    return "\n".join(lines)


def reading_text(reading: SourceWork) -> str:
    """What a record says of one source."""
    amounts = [f"{amount:,} {Unit(unit).name.lower()}" for unit, amount in reading.counters]
    if reading.latency_ms is not None:
        amounts.append("latency {:,} / {:,} / {:,} ms (p50, p95, p99)".format(*reading.latency_ms))
    gap = f", gap {reading.gap_s} s" if reading.gap_s else ""
    name = source_name((reading.source, reading.instance))
    return f"{name} ({legible(reading.provenance)}): {', '.join(amounts) or 'nothing measured'}{gap}"


def _source_texts(source: SourceAgain, *, is_whole: bool) -> list[str]:
    """The source's incidents; the whole of it has its series at both ends as well."""
    name = source_name((source.source, source.instance))
    shown = source.incidents[:INCIDENTS_SHOWN]
    lines = [f"  {name} at {_time(each.time_s)}: {legible(each.what)}" for each in shown]
    if len(source.incidents) > len(shown):
        lines.append(f"  {name}: and {len(source.incidents) - len(shown)} more, see --json")
    if not is_whole:
        return lines
    ends = f"{_moment(source.first_s)} and {_moment(source.last_s)}"
    lines.append(f"  {name}: {source.readings} readings, {source.failed} failed; series as read at {ends}:")
    for each in source.series:
        first = "new" if each.first is None else f"{each.first:,}"
        lines.append(f"    {legible(each.series)}  {first} -> {each.last:,}  +{each.counted:,}")
    return lines


def _reading_value(reading: SourceWork) -> dict[str, Any]:
    value: dict[str, Any] = plain(reading)
    counters = {Unit(unit).name.lower(): amount for unit, amount in reading.counters}
    return value | {"source": source_name((reading.source, 0)), "counters": counters}


def _again_value(again: Again) -> dict[str, Any]:
    window = again.window
    return {
        "readings": None if window is None else [_reading_value(reading) for reading in window.readings],
        "is_carried": again.is_carried,
        "sources": [plain(source) | {"source": source_name((source.source, 0))} for source in again.sources],
    }


def span_text(records: Sequence[Explained]) -> str:
    """How many of the records counted, and how many their readings give again."""
    counted = sum(each.counted.name == "YES" for each in records)
    same = sum(each.agreement is Agreement.SAME for each in records)
    different = sum(each.agreement is Agreement.DIFFERENT for each in records)
    records_text = f"{len(records)} work record{'' if len(records) == 1 else 's'}"
    text = f"{records_text}, {counted} counted; recomputed: {same} the same"
    return f"{text}, {different} DIFFERENT" if different else text


def _moment(time_s: int | None) -> str:
    return "no reading" if time_s is None else _time(time_s)


def _time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
