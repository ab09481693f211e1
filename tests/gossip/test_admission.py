"""Admission, the pure part: nobody spends what is another's, and every place is given back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.admission import (
    Backoff,
    ConnectionAdmission,
    ConnectionLimits,
    ConnectionSlot,
    MessageAdmission,
    MessageLimits,
    Refusal,
    SeenMessages,
    TokenBucket,
    dials_first,
    keeps_newer,
)

keys = st.binary(min_size=32, max_size=32)
durations_s = st.floats(min_value=-5, max_value=50, allow_nan=False)


@given(st.lists(durations_s, max_size=200))
def test_a_bucket_gives_no_more_than_its_burst_and_what_refills(steps_s):
    bucket, now, taken, advanced_s = TokenBucket(2.0, 5.0), 100.0, 0, 0.0
    for step_s in steps_s:
        now += step_s  # also backwards
        advanced_s += max(0.0, step_s)
        taken += bucket.take(now)
    assert taken <= 5 + 2.0 * advanced_s + 1e-6


@given(st.lists(durations_s, max_size=20))
def test_a_bucket_says_how_long_to_wait(steps_s):
    bucket, now = TokenBucket(2.0, 3.0), 0.0
    for step_s in steps_s:
        now += step_s
        bucket.take(now)
    wait_s = bucket.wait_s(now)
    assert 0 <= wait_s <= 0.5
    assert bucket.take(now + wait_s + 1e-6)


def test_a_clock_that_steps_back_takes_nothing_away():
    bucket = TokenBucket(1.0, 2.0)
    assert bucket.take(1000.0)
    assert bucket.take(0.0)
    assert not bucket.take(0.5)
    assert bucket.take(1.5)


LIMITS = MessageLimits(origin_per_s=1, origin_burst=3, forwarder_per_s=10, forwarder_burst=5)


def test_an_origin_of_the_roster_is_not_charged_for_others():
    admission = MessageAdmission(LIMITS)
    admission.set_roster([b"a", b"b"])
    assert [admission.admit_origin(b"a", 0.0) for _ in range(4)] == [None, None, None, Refusal.ORIGIN_RATE]
    for number in range(100):
        admission.admit_origin(b"stranger %d" % number, 0.0)
    assert admission.admit_origin(b"b", 0.0) is None


def test_fresh_keys_share_one_allowance():
    admission = MessageAdmission(LIMITS)
    verdicts = [admission.admit_origin(b"stranger %d" % number, 0.0) for number in range(10)]
    assert verdicts.count(None) == 3


def test_leaving_and_joining_the_roster_buys_at_most_a_burst():
    admission = MessageAdmission(LIMITS)
    admission.set_roster([b"a", b"b"])
    assert [admission.admit_origin(b"a", 0.0) for _ in range(3)] == [None] * 3
    admission.set_roster([b"a"])
    assert admission.admit_origin(b"a", 0.0) is Refusal.ORIGIN_RATE


def test_a_forwarder_is_charged_for_what_it_brings_and_forgotten_when_it_goes():
    admission = MessageAdmission(LIMITS)
    assert [admission.admit_forwarder(b"f", 0.0) for _ in range(6)] == [None] * 5 + [Refusal.FORWARDER_RATE]
    assert admission.admit_forwarder(b"g", 0.0) is None
    assert admission.admit_forwarder(b"f", 0.1) is None
    admission.forget_forwarder(b"f")
    admission.forget_forwarder(b"f")
    assert len(admission._forwarders) == 1


def test_strangers_do_not_displace_the_roster():
    admission = ConnectionAdmission(ConnectionLimits(handshakes_max=5, per_address_max=4, strangers_max=1))
    admission.set_roster([b"friend 1", b"friend 2"])

    def connect(key: bytes, address: str) -> Refusal | None:
        slot = admission.open(address)
        return slot if isinstance(slot, Refusal) else admission.prove(slot, key)

    assert connect(b"stranger 1", "10.0.0.1") is None
    assert connect(b"stranger 2", "10.0.0.2") is Refusal.STRANGERS
    assert connect(b"friend 1", "10.0.0.1") is None
    assert connect(b"friend 2", "10.0.0.1") is None


def test_the_roster_may_share_one_address():
    admission = ConnectionAdmission(ConnectionLimits(per_address_max=2))
    admission.set_roster([b"%d" % number for number in range(50)])
    for number in range(50):
        slot = admission.open("10.0.0.1")
        assert isinstance(slot, ConnectionSlot)
        assert admission.prove(slot, b"%d" % number) is None


def test_unproven_connections_are_limited_per_address_and_overall():
    admission = ConnectionAdmission(ConnectionLimits(handshakes_max=3, per_address_max=2))
    slots = [admission.open("10.0.0.1"), admission.open("10.0.0.1")]
    assert admission.open("10.0.0.1") is Refusal.PER_ADDRESS
    assert isinstance(admission.open("10.0.0.2"), ConnectionSlot)
    assert admission.open("10.0.0.3") is Refusal.HANDSHAKES
    admission.close(slots[0])
    assert isinstance(admission.open("10.0.0.3"), ConnectionSlot)


@given(
    st.lists(
        st.tuples(st.sampled_from("opc"), st.integers(0, 30), st.sampled_from(["x", "y", "z"]), st.integers(0, 5)),
        max_size=120,
    )
)
def test_whatever_happens_every_place_is_given_back(steps):
    limits = ConnectionLimits(handshakes_max=6, per_address_max=3, strangers_max=2)
    admission = ConnectionAdmission(limits)
    admission.set_roster([b"0", b"1"])
    slots: list[ConnectionSlot] = []
    for step, number, address, key in steps:
        if step == "o":
            slot = admission.open(address)
            if isinstance(slot, ConnectionSlot):
                slots.append(slot)
        elif slots and step == "p":
            slot = slots[number % len(slots)]
            if slot.stranger is None and admission.prove(slot, b"%d" % key) is not None:
                slots.remove(slot)
                admission.close(slot)
        elif slots:
            admission.close(slots.pop(number % len(slots)))
        if number == 7:
            admission.set_roster([b"%d" % key])
        assert admission._handshakes == sum(slot.stranger is None for slot in slots) <= limits.handshakes_max
        assert len(admission._strangers) == sum(slot.stranger is True for slot in slots) <= limits.strangers_max
        assert admission._per_address == Counter(slot.address for slot in slots if slot.stranger is not False)
        assert all(count <= limits.per_address_max for count in admission._per_address.values())
    for slot in slots:
        admission.close(slot)
    assert (admission._handshakes, admission._strangers, admission._per_address) == (0, [], {})


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


def test_a_connected_stranger_that_joins_the_roster_gives_its_place_back() -> None:
    admission = ConnectionAdmission(ConnectionLimits(strangers_max=1, per_address_max=1))
    early = admission.open("192.0.2.1")
    assert isinstance(early, ConnectionSlot)
    assert admission.prove(early, b"a" * 32) is None
    admission.set_roster([b"a" * 32])
    other = admission.open("192.0.2.1")
    assert isinstance(other, ConnectionSlot)
    assert admission.prove(other, b"b" * 32) is None
    third = admission.open("192.0.2.2")
    assert isinstance(third, ConnectionSlot)
    assert admission.prove(third, b"c" * 32) is Refusal.STRANGERS
    for slot in (early, other, third):
        admission.close(slot)
    again = admission.open("192.0.2.1")
    assert isinstance(again, ConnectionSlot)
    assert admission.prove(again, b"d" * 32) is None
