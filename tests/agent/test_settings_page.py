"""docs/configuration.md is what the settings' tables say, and its ranges are those that are refused beyond."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import parse_config
from agent.errors import ConfigError
from tests.agent.tools.settings_page import PAGE, Key, page, sections

POLICY = Path("policy.toml")
BASE = {
    "[pool]": 'network = -217\naddress = "0:' + "ab" * 32 + '"\npolicy_file = "policy.toml"',
    "[engine]": 'url = "http://127.0.0.1:8000/metrics"',
    "[attestation]": 'provider = "configfs"',
    "[receipts]": "port = 9470",
    "[[chain.liteservers]]": 'host = "a"\nport = 1\npublic_key = "' + "A" * 43 + '="',
}
RANGES = [
    (section.header, key, float(found[1]), float(found[2]))
    for section in sections()
    for key in section.keys
    if "number" in key.kind and "list" not in key.kind
    for found in [re.search(r"(\d[\d.]*) to (\d[\d.]*\d|\d)", key.meaning)]
    if found
]


def settings(header: str, key: Key, value: float) -> str:
    """A whole config in which this key has this value."""
    text = repr(value) if value != int(value) else str(int(value))
    tables = {**BASE} if header in BASE else {**BASE, header: ""}
    lines = [line for line in tables[header].splitlines() if not line.startswith(f"{key.name} =")]
    tables[header] = "\n".join([*lines, f"{key.name} = {text}"])
    return 'data_dir = "data"\n' + "".join(f"{name}\n{body}\n" for name, body in tables.items())


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make settings`"


def test_every_key_and_every_table_is_explained() -> None:
    for section in sections():
        assert section.about or not section.header
        assert [key.name for key in section.keys if not key.meaning] == [], section.header


@pytest.mark.parametrize(("header", "key", "least", "most"), RANGES, ids=[f"{r[0]}{r[1].name}" for r in RANGES])
def test_a_range_is_what_is_taken(header: str, key: Key, least: float, most: float) -> None:
    for value in (least, most):
        parse_config(settings(header, key, value), POLICY)
    step = 1 if "whole" in key.kind else 0.01
    for value in (least - step, most + step):
        with pytest.raises(ConfigError, match=rf"{key.name}: expected"):
            parse_config(settings(header, key, value), POLICY)


def test_there_are_ranges() -> None:
    assert len(RANGES) >= 10
