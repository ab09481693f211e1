"""What may be used up: never more than the limits say, and all of it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossip.buckets import ByteBudget, ByteLimits, TokenBucket

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


def test_who_spends_ahead_of_time_waits_until_it_is_even():
    bucket = TokenBucket(2.0, 4.0)
    assert bucket.owe(0.0, 4.0) == 0.0
    assert bucket.owe(0.0, 3.0) == 1.5
    assert bucket.owe(1.5, 1.0) == 0.5
    assert not bucket.take(2.0)
    assert bucket.take(2.5)


LIMITS = ByteLimits(total_max=100, strangers_max=40, peer_max=60, stranger_max=30)


def test_bytes_are_bounded_per_peer_per_standing_and_overall():
    budget = ByteBudget(LIMITS)
    assert not budget.take(b"s", 31, is_stranger=True)
    assert budget.take(b"s", 30, is_stranger=True)
    assert not budget.take(b"t", 11, is_stranger=True)
    assert not budget.take(b"p", 61, is_stranger=False)
    assert budget.take(b"p", 60, is_stranger=False)
    assert not budget.take(b"q", 11, is_stranger=False)
    assert budget.allows(b"q", 11, is_stranger=False)  # it is not the peer's own limit that refuses
    assert not budget.allows(b"p", 1, is_stranger=False)
    budget.give(b"p", 1, is_stranger=False)
    assert budget.take(b"q", 11, is_stranger=False)


takings = st.lists(st.tuples(st.sampled_from([b"p", b"q", b"s", b"t"]), st.integers(0, 70), st.booleans()), max_size=80)


@given(takings)
def test_whatever_is_taken_is_within_the_limits_and_comes_back(steps):
    budget, taken = ByteBudget(LIMITS), []
    for peer, count, gives_back in steps:
        is_stranger = peer in (b"s", b"t")
        if gives_back and taken:
            budget.give(*taken[-1][:2], is_stranger=taken.pop()[2])
        elif budget.take(peer, count, is_stranger=is_stranger):
            taken.append((peer, count, is_stranger))
        assert budget.held() == sum(count for _, count, _ in taken) <= LIMITS.total_max
        assert sum(count for _, count, stranger in taken if stranger) <= LIMITS.strangers_max
    for peer, count, is_stranger in taken:
        budget.give(peer, count, is_stranger=is_stranger)
    assert (budget.held(), budget._strangers, budget._held) == (0, 0, {})
