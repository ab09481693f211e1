"""docs/transport.md says what is built: its table is that of the tool, each fix is there, each test exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gossip.tools.transport_rows import PAGE, ROOT, ROWS, table

TESTS = Path(__file__).parent


def test_the_page_shows_the_rows():
    assert table() in PAGE.read_text()


@pytest.mark.parametrize("row", ROWS, ids=[row.default[:40] for row in ROWS])
def test_each_fix_is_where_the_row_says_and_its_test_exists(row):
    assert (ROOT / row.file).read_text().count(row.before) == 1
    name, _, function = row.test.partition("::")
    assert f"def {function}(" in (TESTS / name).read_text()
