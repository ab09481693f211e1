"""What `docs/wire.md` shows is what the code does."""

from __future__ import annotations

import re

import pytest

from gossip import codec, hello, messages, records
from gossip.records import parse_record, verify_record
from tests.gossip.tools import wire_page

PAGE = wire_page.DOCUMENT.read_text()


def test_the_page_is_what_the_code_gives() -> None:
    assert wire_page.documented(PAGE) == PAGE, "run: PYTHONPATH=tests/support python -m tests.gossip.tools.wire_page"


def test_the_fields_of_the_example_make_up_what_is_signed() -> None:
    fields = PAGE.partition("signed, field by field:")[2].split("```")[1]
    parts = [line.split("  ")[0] for line in fields.strip().splitlines()]
    assert "".join(parts) == wire_page.record().signed.hex()


def test_the_wire_of_the_example_is_a_record_that_verifies() -> None:
    folded = re.search(r"wire: the envelope, \d+ bytes:\n\n```\n([0-9a-f\n]+)```", PAGE)
    assert folded is not None
    wire = bytes.fromhex(folded[1].replace("\n", ""))
    assert verify_record(parse_record(wire, wire_page.POOL)) == wire_page.record()


TAGS = [
    records.TAG,
    messages.OBSERVATION_TAG,
    messages.PROPOSAL_TAG,
    messages.ATTEST_TAG,
    hello.TAG,
    hello.INSTANCE_TAG,
]


@pytest.mark.parametrize("tag", TAGS)
def test_the_page_names_every_tag(tag: str) -> None:
    assert tag in PAGE


def test_the_page_gives_the_depth_that_is_allowed() -> None:
    assert f"nest at most {codec.DEPTH_MAX} deep" in PAGE


def test_pages_that_the_page_names_exist() -> None:
    for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", PAGE):
        assert (wire_page.DOCUMENT.parent / link).exists(), link
