"""Makes text for people of the trees in `values`. Whatever comes from others is made harmless: nothing in it moves
the cursor.

A table is a line a key, names in one column; a table in it is headed by its name and set in; lists of texts
that are long stand a line each.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from agent.pool.values import legible

_INDENT = "  "
_LINE_MAX = 110


def table(tree: Mapping[str, Any]) -> str:
    """The text of a tree, a line a key."""
    return "\n".join(_lines(tree))


def section(title: str, tree: Mapping[str, Any]) -> str:
    """A table with a headline."""
    return "\n".join([title, *(_INDENT + line for line in _lines(tree))])


def wrapped(text: str) -> str:
    """A sentence or two at the width that people read."""
    return textwrap.fill(text, _LINE_MAX, break_long_words=False, break_on_hyphens=False)


def _lines(tree: Mapping[str, Any]) -> list[str]:
    width = max((len(name) for name, value in tree.items() if not _is_block(value)), default=0)
    lines: list[str] = []
    for name, value in tree.items():
        if not _is_block(value):
            lines.append(f"{name:{width}}  {_told(value)}")
            continue
        lines.append(name)
        if isinstance(value, Mapping):
            lines += [_INDENT + line for line in _lines(value)]
            continue
        for item in value:
            inner = _lines(item) if isinstance(item, Mapping) else [_told(item)]
            lines += [("- " if i == 0 else _INDENT) + line for i, line in enumerate(inner)]
    return lines


def _is_block(value: Any) -> bool:
    """Whether a value takes lines of its own."""
    if isinstance(value, list):
        return any(isinstance(item, Mapping) for item in value) or sum(len(str(item)) + 2 for item in value) > _LINE_MAX
    return isinstance(value, Mapping) and bool(value)


def _told(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_told(item) for item in value)
    return legible(str(value))
