"""The doctor's findings for people: a line each with what helps below it, then the verdict.

1. The worst comes first, here as on the status page and the live screen.
2. Who names a width reads lines of at most so many columns; without one a text stays a line, so that `grep` finds all
   of it. A command is never broken before its settings: its beginning alone would act on another agent.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from agent.doctor.findings import Finding, Severity, worst_first
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
_OF_AN_AGENT = re.compile(r"\bgpupool [a-z -]+? --config (?:'[^']*'|\S+)")
_UNBROKEN = "\N{NO-BREAK SPACE}"


def findings_text(findings: Sequence[Finding], verdict: str, *, shows_all: bool, width: int | None = None) -> Text:
    """All that was found, or only what somebody needs to hear of."""
    shown = [each for each in worst_first(findings) if shows_all or not each.is_fine]
    lines = [line for each in shown for line in finding_lines(each, width)]
    lines.append(Text(_wrapped("", legible(verdict), "", width), "bold"))
    if len(shown) < len(findings):
        counts = Counter(each.severity for each in findings)
        fine, unknown, nothing = (counts[each] for each in (Severity.OK, Severity.UNKNOWN, Severity.NOT_APPLICABLE))
        hidden = f"({fine} checks are fine, {unknown} could not be made, {nothing} do not apply; --all shows them)"
        lines.append(Text(_wrapped("", hidden, "", width), "dim"))
    return Text("\n").join(lines)


def finding_lines(finding: Finding, width: int | None = None) -> list[Text]:
    """One finding."""
    word = "n/a" if finding.severity is Severity.NOT_APPLICABLE else str(finding.severity)
    head = Text(_wrapped(f"{word:<9}", f"{finding.code}: {legible(finding.cause)}", _INDENT, width))
    head.stylize(COLOURS[finding.severity], 0, len(_INDENT))
    head.stylize("bold", len(_INDENT), len(_INDENT) + len(finding.code))
    return [head, Text(_wrapped(f"{_INDENT}fix: ", legible(finding.fix), _INDENT, width))] if finding.fix else [head]


def _wrapped(lead: str, text: str, indent: str, width: int | None) -> str:
    """The text behind its lead, in lines of `width` columns; a word that is longer stays whole and can be copied."""
    if width is None:
        return lead + text
    kept = _OF_AN_AGENT.sub(lambda found: found[0].replace(" ", _UNBROKEN), text)
    lines = textwrap.wrap(
        kept, width, initial_indent=lead, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(_UNBROKEN, " ")
