"""Who of the operators is in reach: when that is news, and what readiness makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pool_fixture import key

from agent.reach import HOLD_S, NAMED_MAX, ReachWatch
from gossip.roster import Roster

OWN = key(0).public


def roster(operators: Sequence[int], participants: int = 0) -> Roster:
    keys = frozenset(key(i).public for i in operators)
    others = frozenset(key(i).public for i in range(participants))
    return Roster(weights=dict.fromkeys(keys, 1), operators=keys, participants=others)


class Clocked:
    """A watch that looks once a second, at operators 0 to 3 unless told otherwise."""

    def __init__(self, operators: Sequence[int] = range(4)) -> None:
        self.watch = ReachWatch()
        self.roster = roster(operators)
        self.now_s = 1000.0

    def sees(self, *connected: int, for_s: float = 0) -> list[tuple[bool, str]]:
        """What is said meanwhile."""
        said, until_s = [], self.now_s + for_s
        while True:
            news = self.watch.look(OWN, self.roster, [key(i).public for i in connected], self.now_s)
            said += [(each.is_warning, each.text) for each in news]
            self.now_s += 1
            if self.now_s > until_s:
                return said


def name(i: int) -> str:
    return key(i).public.hex()[:16]


REACHED = (False, "operators with 3 of 4 of the weight are in reach: as seen from here epochs can settle")
SHORT = (
    True,
    "operators with 2 of 4 of the weight are in reach, not more than two thirds: as seen from here no epoch can settle",
)


def test_the_quorum_is_said_when_it_goes_and_when_it_comes_back() -> None:
    pool = Clocked()
    assert pool.sees(1, 2, for_s=HOLD_S - 1) == [REACHED]
    assert pool.watch.obstacle is None
    assert pool.sees(1, for_s=HOLD_S - 1) == [(False, f"operators are out of reach for 10 s: {name(3)}")]
    assert pool.watch.obstacle is None, "not lost for long enough"
    assert pool.sees(1, for_s=100) == [(False, f"operators are out of reach for 10 s: {name(2)}"), SHORT]
    assert pool.watch.obstacle == "operators with 2 of 4 of the weight in reach, not more than two thirds"
    pool.sees(for_s=100)
    assert pool.watch.obstacle == "no other operator connected"
    assert pool.sees(1, 2) == [
        (False, f"operators are in reach again: {', '.join(sorted([name(1), name(2)]))}"),
        REACHED,
    ]
    assert pool.watch.obstacle is None
    assert pool.sees(1, 2, for_s=100) == []


def test_a_connection_that_is_made_anew_is_no_news() -> None:
    pool = Clocked()
    pool.sees(1, 2, 3)
    for _ in range(9):
        assert pool.sees(for_s=HOLD_S - 1) == []
        assert pool.watch.obstacle is None
        assert pool.sees(1, 2, 3) == []


def test_until_the_quorum_was_reached_for_the_first_time_it_is_lost() -> None:
    pool = Clocked(range(1, 5))
    assert pool.sees() == []
    assert pool.watch.obstacle == "no operator connected"
    assert pool.sees(1, 2, 3) == [REACHED]
    assert pool.watch.obstacle is None


def test_who_leaves_the_set_is_forgotten() -> None:
    pool = Clocked()
    pool.sees(1, 2, for_s=HOLD_S + 1)
    pool.roster = roster(range(3), participants=4)
    assert pool.sees(1, 2, for_s=100) == []
    assert pool.sees(1, 2, 3, for_s=100) == []


def test_before_the_chain_was_seen_nothing_is_known() -> None:
    pool = Clocked(())
    assert pool.sees(for_s=100) == []
    assert pool.watch.obstacle is None


@pytest.mark.parametrize("others", [NAMED_MAX, NAMED_MAX + 3])
def test_many_are_named_in_part(others: int) -> None:
    pool = Clocked(range(others + 1))
    said = pool.sees(for_s=HOLD_S + 1)[0][1]
    assert said.count(",") == NAMED_MAX - 1
    assert ("and 3 more" in said) is (others > NAMED_MAX)


def test_who_is_the_only_operator_needs_nobody() -> None:
    pool = Clocked([0])
    assert pool.sees(for_s=100) == [
        (False, "operators with 1 of 1 of the weight are in reach: as seen from here epochs can settle")
    ]
    assert pool.watch.obstacle is None
