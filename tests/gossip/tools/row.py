"""A default of libp2p, what is done about it, and how to take that out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One default, its fix, and how to take the fix out: `before` stands once in `file` and becomes `after`."""

    default: str
    fix: str
    file: str
    test: str
    before: str
    after: str
