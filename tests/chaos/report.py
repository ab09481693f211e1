"""What a run of scenarios came to, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from agent.devnet.report import Books


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One scenario: how long it took, what was measured, and what did not hold, if anything."""

    name: str
    does: str
    took_s: int
    settled: int
    """Epochs that settled in it."""
    measured: dict[str, Any]
    violation: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run. `faults` are those of the pool's books at its end, or what ended it."""

    seed: int
    outcomes: list[Outcome]
    epochs: int
    books: Books | None
    faults: list[str]
    packets: dict[str, int] = field(default_factory=dict)
    took_s: int = 0

    @property
    def is_ok(self) -> bool:
        return not self.faults and self.books is not None and all(each.violation is None for each in self.outcomes)

    def value(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"ok": self.is_ok, **asdict(self)}


def table(report: Report) -> str:
    """The report for people."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scenario", "s", "epochs", "measured", "result"):
        rows.add_column(name, justify="right" if name in ("s", "epochs") else "left")
    for each in report.outcomes:
        measured = ", ".join(f"{name} {value}" for name, value in each.measured.items())
        rows.add_row(each.name, str(each.took_s), str(each.settled), measured, each.violation or "held")
    console = Console(width=140)
    with console.capture() as capture:
        console.print(rows)
        for fault in report.faults:
            console.print(f"WRONG: {fault}")
        books = "the books balance" if report.books is not None and not report.faults else "no balanced books"
        console.print(
            f"{'ok' if report.is_ok else 'FAILED'}: {len(report.outcomes)} scenarios, {report.epochs} epochs settled, "
            f"{books}, {report.packets.get('forwarded', 0):,} packets, {report.took_s} s, seed {report.seed}"
        )
    return capture.get().rstrip()
