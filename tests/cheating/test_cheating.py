"""No way to cheat gains what the page does not say, and the levels keep what they promise."""

from __future__ import annotations

import pytest

from tests.cheating.page import DOCUMENT, gains, gains_by_strategy, page
from tests.cheating.strategies import CHEATS

pytestmark = pytest.mark.slow

BEYOND_THE_PROMISE = "collude (3 of 7 operators)"
MORE_HARDWARE = "sybil split"


def test_the_page_says_what_is_so() -> None:
    text = DOCUMENT.read_text()
    assert page(text) == text


@pytest.mark.parametrize("level", ["receipted", "paid"])
def test_where_others_vouch_no_lie_gains_much(level: str) -> None:
    gained = {name: by_level[level] for name, by_level in gains().items()}
    del gained[BEYOND_THE_PROMISE], gained[MORE_HARDWARE]
    assert max(gained.values()) <= 120
    assert gained["idle"] == 20, "what being up is worth, and no more"


def test_one_device_never_earns_twice() -> None:
    for name in ("clone a machine", "clone a GPU", "replay windows"):
        assert set(gains()[name].values()) == {100}


def test_less_than_a_third_of_the_operators_gains_nothing_for_a_liar() -> None:
    assert gains()["collude (2 of 7 operators)"] == gains()["fake uptime"]


def test_receipts_of_the_own_key_gain_nothing() -> None:
    assert gains()["forge receipts"] == gains()["inflate tokens"]


def test_tokens_alone_leave_nothing_but_receipts_to_gain() -> None:
    gained = {name: by_strategy["proportional"] for name, by_strategy in gains_by_strategy().items()}
    assert gained.keys() == CHEATS.keys()
    assert max(gained.values()) <= 103
