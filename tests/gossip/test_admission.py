"""Admission, the pure part: nobody spends what is another's, and every place is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.admission import (
    Backoff,
    MessageAdmission,
    MessageLimits,
    Refusal,
    SeenMessages,
    dials_first,
    keeps_newer,
)

keys = st.binary(min_size=32, max_size=32)


LIMITS = MessageLimits(
    origin_per_s=1,
    origin_burst=3,
    strangers_per_s=1,
    strangers_burst=3,
    forwarder_per_s=10,
    forwarder_burst=5,
    stranger_forwarder_per_s=10,
    stranger_forwarder_burst=2,
)


def test_an_origin_of_the_roster_is_not_charged_for_others():
    admission = MessageAdmission(LIMITS)
    admission.set_roster([b"a", b"b"])
    assert [admission.admit_origin(b"a", 1, 0.0) for _ in range(4)] == [None, None, None, Refusal.ORIGIN_RATE]
    for number in range(100):
        admission.admit_origin(b"stranger %d" % number, 1, 0.0)
    assert admission.admit_origin(b"b", 1, 0.0) is None


def test_fresh_keys_share_one_allowance():
    admission = MessageAdmission(LIMITS)
    verdicts = [admission.admit_origin(b"stranger %d" % number, 1, 0.0) for number in range(10)]
    assert verdicts.count(None) == 3


def test_leaving_and_joining_the_roster_buys_at_most_a_burst():
    admission = MessageAdmission(LIMITS)
    admission.set_roster([b"a", b"b"])
    assert [admission.admit_origin(b"a", 1, 0.0) for _ in range(3)] == [None] * 3
    admission.set_roster([b"a"])
    assert admission.admit_origin(b"a", 1, 0.0) is Refusal.ORIGIN_RATE


def test_an_origin_is_charged_for_bytes_too():
    admission = MessageAdmission(MessageLimits(origin_bytes_per_s=10, origin_bytes_burst=100))
    admission.set_roster([b"a", b"b"])
    assert admission.admit_origin(b"a", 90, 0.0) is None
    assert admission.admit_origin(b"a", 20, 0.0) is Refusal.ORIGIN_BYTES
    assert admission.admit_origin(b"b", 20, 0.0) is None
    assert admission.admit_origin(b"a", 20, 1.0) is None


def test_a_stranger_may_hand_over_less_than_a_peer_of_the_roster_and_joining_changes_that_at_once():
    admission = MessageAdmission(LIMITS)
    assert [admission.admit_forwarder(b"s", 0.0) for _ in range(3)] == [None, None, Refusal.FORWARDER_RATE]
    admission.set_roster([b"s"])
    assert admission.admit_forwarder(b"s", 0.0) is None


def test_a_forwarder_is_charged_for_what_it_brings_and_forgotten_when_it_goes():
    admission = MessageAdmission(LIMITS)
    admission.set_roster([b"f", b"g"])
    assert [admission.admit_forwarder(b"f", 0.0) for _ in range(6)] == [None] * 5 + [Refusal.FORWARDER_RATE]
    assert admission.admit_forwarder(b"g", 0.0) is None
    assert admission.admit_forwarder(b"f", 0.1) is None
    admission.forget_forwarder(b"f")
    admission.forget_forwarder(b"f")
    assert len(admission._forwarders) == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 10)), max_size=100))
def test_seen_messages_are_bounded_by_number_and_time(steps):
    seen, now = SeenMessages(ttl_s=5.0, entries_max=8), 0.0
    last_s: dict[bytes, float] = {}
    for number, step_s in steps:
        now += step_s
        seen.add(bytes([number]), now)
        last_s[bytes([number])] = now
        assert bytes([number]) in seen
        assert len(seen) <= 8
        assert all(key not in seen for key, added_s in last_s.items() if now - added_s > 5.0)


def test_waits_grow_to_a_cap_for_ever_and_start_over():
    backoff = Backoff(base_s=0.5, cap_s=30.0)
    waits_s = [backoff.next_s(1.0) for _ in range(3000)]
    assert waits_s[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert waits_s[-1] == 30.0
    assert backoff.next_s(0.0) == 15.0
    backoff.reset()
    assert backoff.next_s(0.0) == 0.25


@given(keys, keys)
def test_one_end_dials_first(a, b):
    if a != b:
        assert dials_first(a, b) is not dials_first(b, a)


@given(keys, keys, st.booleans())
def test_both_ends_keep_the_same_of_two_crossed_connections(a, b, a_dialled_the_older):
    if a == b:
        return
    # What is outbound here is inbound there. Both may also have met the two in another order.
    at_a = keeps_newer(a, b, older_outbound=a_dialled_the_older, newer_outbound=not a_dialled_the_older)
    at_b = keeps_newer(b, a, older_outbound=not a_dialled_the_older, newer_outbound=a_dialled_the_older)
    at_b_in_other_order = keeps_newer(b, a, older_outbound=a_dialled_the_older, newer_outbound=not a_dialled_the_older)
    assert at_a is at_b
    assert at_a is not at_b_in_other_order  # another position, so the same connection


@pytest.mark.parametrize("outbound", [True, False])
def test_of_two_connections_of_one_direction_the_newer_is_kept(outbound):
    assert keeps_newer(b"a", b"b", older_outbound=outbound, newer_outbound=outbound)
    assert keeps_newer(b"b", b"a", older_outbound=outbound, newer_outbound=outbound)
