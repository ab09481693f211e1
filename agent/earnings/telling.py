"""The earnings for people, for machines and for spreadsheets: text, JSON, CSV, a plot.

What is not known is a dash, an empty cell or null: never a zero.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.earnings.report import EpochEarnings, Totals, totals
from agent.plotting import save_bars, save_lines
from agent.pool.values import utc
from agent.screens import aligned
from contracts.model import NANO

BARS_MAX = 60
"""More epochs than these are drawn as lines."""
CSV_COLUMNS = (
    "epoch",
    "ended_utc",
    "metered_tokens",
    "credited_tokens",
    "why_less",
    "uptime_s",
    "tasks",
    "share_percent",
    "earned_ton",
    "cumulative_ton",
    "claimed_ton",
    "unclaimed_ton",
)
_HEADINGS = ("epoch", "ended", "metered", "credited", "share", "earned TON", "in all", "claimed", "unclaimed")
_INDENT = " " * 8


def earnings_text(lines: Sequence[EpochEarnings]) -> str:
    """A line an epoch, its reasons below it, and the totals at the end."""
    if not lines:
        return "no epoch of these is settled, as far as this agent's ledger knows"
    found = totals(lines)
    heading, *texts, total = aligned([_HEADINGS, *(_cells(line) for line in lines), _totals_cells(found)])
    told = [heading]
    for line, text in zip(lines, texts, strict=True):
        told += [text, *(f"{_INDENT}{reason}" for reason in line.reasons)]
    return "\n".join([*told, total, *(f"{_INDENT}{lack}" for lack in _lacks(found))])


def earnings_value(lines: Sequence[EpochEarnings]) -> dict[str, Any]:
    """The same as JSON; `share` is of the pot, 0 to 1."""
    return {
        "epochs": [asdict(line) | {"share": line.share} for line in lines],
        "totals": asdict(totals(lines)) if lines else None,
    }


def earnings_csv(lines: Sequence[EpochEarnings]) -> str:
    """The same as CSV (RFC 4180) with a line of headings; amounts are exact, in TON with nine decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in lines:
        writer.writerow(
            (
                line.epoch,
                "" if line.end_s is None else datetime.fromtimestamp(line.end_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                _cell(line.metered_tokens),
                line.credited_tokens,
                "; ".join(line.reasons),
                line.uptime_s,
                line.tasks,
                f"{100 * line.share:.6f}",
                _ton_cell(line.earned_nanoton),
                _ton_cell(line.cumulative_nanoton),
                _ton_cell(line.claimed_nanoton),
                _ton_cell(line.unclaimed_nanoton),
            )
        )
    return text.getvalue()


def plot_earnings(path: Path, lines: Sequence[EpochEarnings]) -> None:
    """Draw what each epoch brought to `path`, a PNG.

    Raises:
        ConfigError, OperationError: as `agent.plotting` does.
    """
    earned = [math.nan if line.earned_nanoton is None else line.earned_nanoton / NANO for line in lines]
    title, series = "Earned by epoch", {"earned": earned}
    if len(lines) > BARS_MAX:
        save_lines(path, title=title, unit="TON", xs=[line.epoch for line in lines], series=series)
    else:
        save_bars(path, title=title, unit="TON", labels=[str(line.epoch) for line in lines], series=series)


def _cells(line: EpochEarnings) -> tuple[str, ...]:
    return (
        str(line.epoch),
        "-" if line.end_s is None else utc(line.end_s).removesuffix(" UTC"),
        _count(line.metered_tokens),
        f"{line.credited_tokens:,}",
        f"{100 * line.share:.2f} %",
        _ton(line.earned_nanoton),
        _ton(line.cumulative_nanoton),
        _ton(line.claimed_nanoton),
        _ton(line.unclaimed_nanoton),
    )


def _lacks(found: Totals) -> list[str]:
    """What the sums leave out."""
    lacks = (("metered", found.metered_unknown), ("earned", found.earned_unknown))
    return [
        f"{name} does not count {count} epoch{'s' if count > 1 else ''}, of which it is not known"
        for name, count in lacks
        if count
    ]


def _totals_cells(found: Totals) -> tuple[str, ...]:
    return (
        "total",
        f"{found.epochs} epoch{'s' if found.epochs > 1 else ''}",
        _count(found.metered_tokens),
        f"{found.credited_tokens:,}",
        "",
        _ton(found.earned_nanoton),
        _ton(found.cumulative_nanoton),
        _ton(found.claimed_nanoton),
        _ton(found.unclaimed_nanoton),
    )


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _ton(nanoton: int | None) -> str:
    return "-" if nanoton is None else f"{nanoton / NANO:,.3f}"


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def _ton_cell(nanoton: int | None) -> str:
    return "" if nanoton is None else f"{nanoton // NANO}.{nanoton % NANO:09d}"
