"""Faults and what follows: the roster is never turned away, strangers pay with their address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.conduct import Conduct, ConductLimits, Fault, address_group

LIMITS = ConductLimits(points=10, points_per_s=1, refused_s=60, refused_max_s=600, entries_max=8)
FRIEND, STRANGER = b"f" * 32, b"s" * 32
ADDRESS = "192.0.2.1"


@pytest.fixture
def refused() -> list[bytes]:
    return []


@pytest.fixture
def conduct(refused) -> Conduct:
    conduct = Conduct(LIMITS, refused.append)
    conduct.set_roster([FRIEND])
    return conduct


def test_points_come_back_with_time(conduct, refused):
    for second in range(100):
        conduct.blame(STRANGER, ADDRESS, Fault.INVALID_MESSAGE, float(second))
    assert refused == []
    for _ in range(10):
        conduct.blame(STRANGER, ADDRESS, Fault.INVALID_MESSAGE, 100.0)
    assert set(refused) == {STRANGER}
    assert conduct.is_refused(ADDRESS, 100.0)


def test_one_violation_is_enough(conduct, refused):
    conduct.blame(STRANGER, ADDRESS, Fault.VIOLATION, 0.0)
    assert refused == [STRANGER]


def test_a_stranger_pays_with_its_address_so_fresh_keys_buy_nothing(conduct, refused):
    for number in range(10):
        conduct.blame(bytes([number]) * 32, ADDRESS, Fault.INVALID_MESSAGE, 0.0)
    assert conduct.is_refused(ADDRESS, 0.0)
    assert not conduct.is_refused("192.0.2.2", 0.0)


def test_a_peer_of_the_roster_is_muted_and_never_turned_away(conduct, refused):
    for _ in range(100):
        for fault in set(Fault) - {Fault.INVALID_MESSAGE}:  # maybe a newer version
            conduct.blame(FRIEND, ADDRESS, fault, 0.0)
    assert not conduct.is_muted(FRIEND, 0.0)
    for _ in range(100):
        conduct.blame(FRIEND, ADDRESS, Fault.INVALID_MESSAGE, 0.0)
    assert refused == []
    assert not conduct.is_refused(ADDRESS, 0.0)
    assert conduct.is_muted(FRIEND, 0.9)
    assert not conduct.is_muted(FRIEND, 1.0)


def test_who_left_the_roster_and_was_dialled_by_us_is_muted(conduct, refused):
    conduct.blame(STRANGER, "", Fault.VIOLATION, 0.0)
    assert conduct.is_muted(STRANGER, 0.0)
    assert not conduct.is_refused("", 0.0)
    assert refused == []


def test_refusals_double_up_to_a_limit_and_are_forgotten_in_time(conduct):
    now, lasted = 0.0, []
    for _ in range(6):
        conduct.blame(STRANGER, ADDRESS, Fault.VIOLATION, now)
        conduct.blame(STRANGER, ADDRESS, Fault.VIOLATION, now)  # of another connection: changes nothing
        began = now
        while conduct.is_refused(ADDRESS, now):
            now += 1
        lasted.append(now - began)
    assert lasted == [60, 120, 240, 480, 600, 600]
    now += LIMITS.refused_max_s + 1
    conduct.blame(STRANGER, ADDRESS, Fault.VIOLATION, now)
    assert not conduct.is_refused(ADDRESS, now + 60)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(Fault)), max_size=200))
def test_what_is_remembered_is_bounded(faults):
    conduct = Conduct(LIMITS)
    for number, fault in faults:
        conduct.blame(STRANGER, f"10.0.0.{number}", fault, 0.0)
        assert len(conduct._points) <= LIMITS.entries_max
        assert len(conduct._refused) <= LIMITS.entries_max


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::ffff:1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::2%eth0")],
)
def test_what_one_party_holds_many_of_is_one_address(one, other):
    assert address_group(one) == address_group(other)


def test_what_is_no_address_stands_for_itself():
    assert address_group("") == ""
    assert address_group("192.0.2.1") != address_group("192.0.2.2")
