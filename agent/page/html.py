"""HTML as a tree of elements, which the standard library writes out and escapes.

Texts may come from peers, the chain or a source: whatever stands in one, it stays a text (rule 1), and does not move
what is around it (rule 2).

1. Nothing is ever put together from strings: an element's children are elements or texts, and texts are escaped by
   `xml.etree`, in attributes as well.
2. Characters that do not print, line ends and marks of direction among them, are shown by their numbers.

Source: HTML Living Standard, "Serialising HTML fragments".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

from agent.texts import one_line

Child: TypeAlias = Element | str | Iterable[Element | str] | None
"""A part of an element; None is no part."""
Attribute: TypeAlias = str | int | None

_YEAR_9999_S = 253_402_300_799


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Element:
    """An element. `_` ends names that Python keeps (`class_`) and is a hyphen elsewhere; None is left out."""
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), one_line(str(value)))
    for child in children:
        for part in [child] if isinstance(child, str | Element) else child or ():
            _append(element, part)
    return element


def _append(element: Element, part: Element | str) -> None:
    if isinstance(part, Element):
        element.append(part)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + one_line(part)
    else:
        element.text = (element.text or "") + one_line(part)


def document(root: Element) -> str:
    """The whole page."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


# Words that many places show.


def table(caption: str, headings: Iterable[str], rows: Iterable[Iterable[Child]]) -> Element:
    """A table in a box of its own to scroll in; the first cell of a row is its heading."""
    head = tag("thead", tag("tr", (tag("th", heading, scope="col") for heading in headings)))
    body = tag("tbody", (tag("tr", _cells(row)) for row in rows))
    whole = tag("table", tag("caption", caption, class_="hidden"), head, body)
    return tag("div", whole, class_="scroller", role="region", tabindex=0, aria_label=caption)


def _cells(row: Iterable[Child]) -> Iterable[Element]:
    for i, cell in enumerate(row):
        yield tag("td", cell) if i else tag("th", cell, scope="row")


def facts(*pairs: tuple[str, Child] | None) -> Element:
    """A list of what and how it stands; None is left out."""
    shown = (pair for pair in pairs if pair is not None)
    return tag("dl", (tag("div", tag("dt", name), tag("dd", value)) for name, value in shown), class_="facts")


def hint(text: str, level: str = "note") -> Element:
    """A line on what is wrong or to be known: `level` is problem, warning or note."""
    return tag("p", tag("span", f"{level}: ", class_="hidden"), text, class_=f"hint {level}")


def moment(time_s: int, now_s: int) -> Element:
    """A time (Unix seconds) as people think of it, and exactly in its title."""
    at = datetime.fromtimestamp(min(max(0, time_s), _YEAR_9999_S), UTC)
    away_s = time_s - now_s
    text = f"in {span(away_s)}" if away_s > 0 else f"{span(-away_s)} ago"
    return tag("time", text, datetime=at.strftime("%Y-%m-%dT%H:%M:%SZ"), title=at.strftime("%Y-%m-%d %H:%M:%S UTC"))


def span(seconds: float) -> str:
    """A length of time, as exactly as people care to know."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def code(text: str) -> Element:
    """What a user types, or a name of the program."""
    return tag("code", text)


def short(node_key: str) -> Element:
    """A node key (hex) by its beginning; whole in its title."""
    return tag("code", node_key[:8], title=node_key)
