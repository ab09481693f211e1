"""The doctor's findings for people: a line each with what helps below it, then the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from agent.doctor.findings import Finding, Severity
from agent.texts import legible

COLOURS = {
    Severity.OK: "green",
    Severity.UNKNOWN: "dim",
    Severity.NOT_APPLICABLE: "dim",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.PROBLEM: "bold red",
}
_INDENT = " " * 9


def findings_text(findings: Sequence[Finding], verdict: str, *, shows_all: bool) -> Text:
    """All that was found, or only what somebody needs to hear of."""
    shown = [each for each in findings if shows_all or not each.is_fine]
    lines = [line for each in shown for line in finding_lines(each)]
    lines.append(Text(legible(verdict), "bold"))
    if len(shown) < len(findings):
        counts = Counter(each.severity for each in findings)
        fine, unknown, nothing = (counts[each] for each in (Severity.OK, Severity.UNKNOWN, Severity.NOT_APPLICABLE))
        hidden = f"{fine} checks are fine, {unknown} could not be made, {nothing} do not apply"
        lines.append(Text(f"({hidden}; --all shows them)", "dim"))
    return Text("\n").join(lines)


def finding_lines(finding: Finding) -> list[Text]:
    """One finding."""
    word = "n/a" if finding.severity is Severity.NOT_APPLICABLE else str(finding.severity)
    head = Text.assemble(
        (f"{word:<9}", COLOURS[finding.severity]), (finding.code, "bold"), f": {legible(finding.cause)}"
    )
    return [head, Text(f"{_INDENT}fix: {legible(finding.fix)}")] if finding.fix else [head]
