"""What a run of faults came to, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NAME_WIDTH, CODE_WIDTH, ALERT_WIDTH = 22, 22, 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One fault: what the doctor said of it, after how long, which alert fired, and what was wrong with all that."""

    name: str
    code: str
    severity: str
    cause: str | None
    alert: str | None
    free: str | None
    named_after_s: float | None
    took_s: int
    wrong: str | None


def head() -> str:
    """The heading of `line`s."""
    return f"{'fault':{NAME_WIDTH}} {'named first':{CODE_WIDTH}} {'alert':{ALERT_WIDTH}} {'named':>7} {'all':>6}"


def line(outcome: Outcome) -> str:
    """One fault, for people."""
    alert = outcome.alert or ("none: costs nothing" if outcome.free else "not asked")
    named = "-" if outcome.named_after_s is None else f"{outcome.named_after_s:.0f} s"
    text = f"{outcome.name:{NAME_WIDTH}} {outcome.code:{CODE_WIDTH}} {alert:{ALERT_WIDTH}} {named:>7}"
    text += f" {outcome.took_s:>4} s"
    return text if outcome.wrong is None else f"{text}\n  WRONG: {outcome.wrong}"


def value(outcomes: Sequence[Outcome], wrong: Sequence[str], took_s: int) -> dict[str, Any]:
    """The run as JSON."""
    is_ok = not wrong and all(outcome.wrong is None for outcome in outcomes)
    return {"ok": is_ok, "took_s": took_s, "wrong": list(wrong), "faults": [asdict(each) for each in outcomes]}
