"""The status page as whoever reads it has it: the elements in order, and the text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from agent.page.document import page
from agent.page.facts import PageFacts

VOID = {"meta", "link"}


class Reader(HTMLParser):
    """What a browser sees: the elements that were opened, and the text as people read it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)


def shown(facts: PageFacts) -> str:
    return Reader(page(facts)).text
