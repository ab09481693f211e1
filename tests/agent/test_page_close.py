"""The panel of the epoch on the status page: its bar, and how the last close went."""

from __future__ import annotations

from typing import Any

import pytest
from doctor_facts import NOW_S
from page_facts import chain, close, page_facts, status
from page_reader import Reader, shown

from agent.page.document import page
from agent.page.facts import LastClose, PageFacts


def bar_of(facts: PageFacts) -> list[tuple[str, str | None]]:
    """The parts of the bar: class and width."""
    tags = Reader(page(facts)).tags
    at = next((i for i, (name, told) in enumerate(tags) if name == "svg" and told.get("class") == "bar"), None)
    if at is None:
        return []
    assert tags[at][1]["role"] == "img"
    assert tags[at + 1][0] == "title", "what the bar shows is told to who does not see it"
    parts = tags[at + 2 : at + 5]
    return [(str(told["class"]), told.get("width")) for name, told in parts if name in ("rect", "line")]


@pytest.mark.parametrize(
    ("sections", "bar"),
    [
        ({}, [("track", "100"), ("fill", "57.14"), ("mark", None)]),
        ({"close": close(attested_weight=5)}, [("track", "100"), ("fill full", "71.43"), ("mark", None)]),
        ({"close": None}, [("track", "100"), ("fill time", "75.00")]),
        ({"close": None, "chain": chain(epoch_end_s=NOW_S - 61)}, [("track", "100"), ("fill time", "100.00")]),
        ({"close": None, "chain": chain(epoch_start_s=NOW_S + 9)}, [("track", "100"), ("fill time", "0.00")]),
        ({"close": None, "chain": chain(epoch_start_s=None)}, []),
        ({"close": None, "chain": chain(epoch_start_s=NOW_S + 20_000)}, []),
        ({"close": None, "chain": None}, []),
    ],
)
def test_there_is_a_bar_of_the_quorum_or_else_of_the_running_epoch(
    sections: dict[str, Any], bar: list[tuple[str, str | None]]
) -> None:
    assert bar_of(page_facts(status=status(**sections))) == bar


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"last_close": LastClose(epoch=41, attested_weight=5, total_weight=7)}, "5 of 7 attested (71 %), 5 needed S"),
        (
            {"last_close": LastClose(epoch=41, attested_weight=4, total_weight=7)},
            "4 of 7 attested (57 %), 5 needed, as seen here",
        ),
        ({"last_close": None}, "75 % of its time is over. Settled last epoch 41"),
        (
            {"last_close": None, "status": status(close=None, settled={"epoch": 0, "root": "", "settled_s": 0})},
            "75 % of its time is over. GPUs and sources",
        ),
        (
            {"last_close": None, "status": status(close=None, settled=None)},
            "75 % of its time is over. GPUs and sources",
        ),
    ],
)
def test_while_no_epoch_closes_it_is_told_how_the_last_close_went(changes: dict[str, Any], text: str) -> None:
    said = shown(page_facts(**{"status": status(close=None), **changes}))
    assert text in said.replace(" .", ".").replace("75 % of the time of epoch 43 is over ", "")
