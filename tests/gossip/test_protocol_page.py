"""What `docs/protocol.md` shows is what the code does: written anew, the page is the same."""

from __future__ import annotations

import re

from tests.gossip.tools import close_drawn, protocol_page
from tests.gossip.tools.close_drawn import ATTESTED, BEHIND, CERTIFIED, IDLE, OBSERVED, WAITING

PAGE = protocol_page.DOCUMENT.read_text()


def test_the_page_is_what_the_code_gives() -> None:
    assert protocol_page.documented(PAGE) == PAGE, (
        "run: PYTHONPATH=tests/support python -m tests.gossip.tools.protocol_page"
    )


def test_the_page_has_no_block_that_nothing_writes() -> None:
    assert set(re.findall(r"<!-- written:(.+?) -->", PAGE)) == set(protocol_page.BLOCKS)


def test_files_that_the_page_names_exist() -> None:
    for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", PAGE):
        assert (protocol_page.DOCUMENT.parent / link).exists(), link
    for path in re.findall(r"`((?:agent|gossip|contracts|tests)/[\w/]+\.py)`", PAGE):
        assert (protocol_page.ROOT / path).exists(), path


def test_whatever_lands_every_state_leads_back_to_no_open_epoch() -> None:
    arrows = {(before, after) for before, _, after in close_drawn.close_edges()}
    assert {(state, BEHIND) for state in (IDLE, WAITING, OBSERVED, ATTESTED, CERTIFIED)} <= arrows
    assert {(BEHIND, IDLE), (ATTESTED, IDLE), (CERTIFIED, IDLE)} <= arrows


def test_in_the_drawn_epoch_all_is_durable_before_it_is_said() -> None:
    journal, topic = re.compile(r"([LF])->>J: (.*)"), re.compile(r"([LF])->>T: (\w+)")
    durable: set[tuple[str, str]] = set()
    said = 0
    for line in close_drawn.sequence().splitlines():
        if kept := journal.search(line):
            durable |= {(kept[1], word.removesuffix("s")) for word in re.findall(r"[a-z]+", kept[2])}
        elif published := topic.search(line):
            said += 1
            assert (published[1], published[2]) in durable
    assert said == 5
