"""Writes the table of errors in `docs/attestation.md`: `python -m tests.attestation.tools.error_table`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attestation import errors
from attestation.errors import AttestationError

PAGE = Path(__file__).parents[3] / "docs" / "attestation.md"
_PLACE = re.compile(r"(<!-- errors: [^\n]*-->\n).*?(<!-- end of errors -->)", re.DOTALL)
_FAULTS = ("sender", "collateral", "platform", "policy", "local", "service")


def error_classes() -> Iterator[type[AttestationError]]:
    """Every class that is raised or caught by its name, in the order of the sources."""
    for name in errors.__all__:
        found = getattr(errors, name)
        if isinstance(found, type) and issubclass(found, AttestationError):
            yield found


def table() -> str:
    """The table, by who is at fault and by code; branches, which only gather others, are left out."""
    rows = ["| code | at fault | when | what to do |", "|---|---|---|---|"]
    leaves = [each for each in error_classes() if not each.__subclasses__()]
    for each in sorted(leaves, key=lambda each: (_FAULTS.index(each.fault), each.code)):
        when = " ".join((each.__doc__ or "").split("\n\n")[0].split())
        rows.append(f"| `{each.code}` | {each.fault} | {when} | {each.remedy} |")
    return "\n".join(rows) + "\n"


def page_with_table(page: str) -> str:
    """The page with the table in its place."""
    return _PLACE.sub(lambda found: f"{found[1]}{table()}{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
