"""What people read of a value: amounts and times in words, and nothing in a text that deceives them."""

from __future__ import annotations

import pytest

from agent.pool.values import legible, lines, plain, span, told, utc
from contracts.model import PoolMetadata


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A pool", "A pool"),
        ("", ""),
        ("P\u043eol", "P\u043eol ('P\\u043eol')"),  # a Cyrillic o
        ("Köln", "Köln ('K\\xf6ln')"),
        ("pause\n  gov_seqno 7", "'pause\\n  gov_seqno 7'"),
        ("\x1b[2Jgone", "'\\x1b[2Jgone'"),
        ("a\u202eb", "'a\\u202eb'"),  # the rest from right to left
        ("a\u200bb", "'a\\u200bb'"),  # a space without width
    ],
)
def test_a_text_of_others_deceives_nobody(text: str, shown: str) -> None:
    assert legible(text) == shown
    assert told("name", text) == shown


def test_a_name_with_letters_that_look_alike_is_told_apart() -> None:
    real, false = (PoolMetadata(name=name) for name in ("Pool", "P\u043eol"))
    assert lines(plain(real))[0] == "name Pool"
    assert lines(plain(false))[0] == "name P\u043eol ('P\\u043eol')"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("amount_nanoton", 1_500_000_000, "1500000000 (1.5 TON)"),
        ("until_s", 0, "0 (1970-01-01 00:00 UTC)"),
        ("until_s", 2**32 - 1, f"{2**32 - 1} (2106-02-07 06:28 UTC)"),
        ("withdrawal_delay_s", 604_800, "604800 (7 d)"),
        ("open", True, "yes"),
        ("guardian", None, "none"),
        ("weight", 2**32 - 1, "4294967295"),
    ],
)
def test_units_are_told(name: str, value: object, shown: str) -> None:
    assert told(name, value) == shown


def test_a_long_text_is_cut() -> None:
    assert told("body", "x" * 257) == "x" * 64 + "... (257 characters)"
    assert told("body", "x" * 256) == "x" * 256


def test_lengths_and_moments() -> None:
    assert [span(each) for each in (0, 59, 60, 3600, 86_400, 86_401)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "1 d",
        "86401 s",
    ]
    assert utc(1_795_249_198) == "2026-11-21 08:19 UTC"
