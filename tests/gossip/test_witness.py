"""Witnessed uptime: each bucket of time counts once, and nothing is lost across a restart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossip.witness import Witness

A, B = b"a" * 32, b"b" * 32


def test_one_sign_of_life_credits_its_bucket_once() -> None:
    witness = Witness(5)
    for now_s in (100, 101, 104):
        witness.hear(A, now_s)
    assert witness.seconds == {A: 5}
    witness.hear(A, 105)
    witness.hear(B, 105)
    assert witness.seconds == {A: 10, B: 5}


def test_a_clock_that_steps_back_credits_nothing_twice() -> None:
    witness = Witness(5)
    for now_s in (100, 200, 100, 150, 204, 205):
        witness.hear(A, now_s)
    assert witness.seconds == {A: 15}


def test_silence_credits_nothing() -> None:
    witness = Witness(5)
    witness.hear(A, 0)
    witness.hear(A, 1_000_000)
    assert witness.seconds == {A: 10}


def test_it_goes_on_from_what_was_kept() -> None:
    witness = Witness(5, {A: 50})
    witness.hear(A, 100)
    assert witness.seconds == {A: 55}
    assert witness.seconds.get(B, 0) == 0


@given(st.integers(1, 3600), st.lists(st.integers(0, 10**5), max_size=50))
def test_never_more_than_the_time_that_passed(bucket_s: int, times: list[int]) -> None:
    witness = Witness(bucket_s)
    for now_s in times:
        witness.hear(A, now_s)
    credited = witness.seconds.get(A, 0)
    assert credited <= len({now_s // bucket_s for now_s in times}) * bucket_s
    if sorted(times) == times:
        assert credited == len({now_s // bucket_s for now_s in times}) * bucket_s


# The base, and who is gone.


def test_an_operator_that_is_new_goes_on_from_what_was_settled() -> None:
    witness = Witness(5, {A: 10})
    witness.settle({A: 100, B: 40}, [A, B], 200)
    assert witness.seconds == {A: 100, B: 40}
    witness.hear(A, 204)  # the bucket in which it was raised: somebody else may have counted it
    assert witness.seconds == {A: 100, B: 40}
    witness.hear(A, 205)
    assert witness.seconds == {A: 105, B: 40}


def test_who_is_ahead_of_the_base_keeps_its_reading() -> None:
    witness = Witness(5, {A: 100})
    witness.settle({A: 90}, [A], 200)
    witness.hear(A, 200)
    assert witness.seconds == {A: 105}


def test_keys_that_nothing_names_are_let_go_of() -> None:
    witness = Witness(5, {A: 10, B: 10, b"c" * 32: 10})
    witness.settle({B: 5}, [A], 200)
    assert witness.seconds == {A: 10, B: 10}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60),
    st.integers(0, 3),
)
def test_raising_never_credits_more_than_the_time_that_passed(steps: list[tuple[int, bool]], behind: int) -> None:
    """Two operators, one of which hears the participant in every bucket, and both settle on the higher reading."""
    steady, other, now_s = Witness(5), Witness(5), behind
    began = now_s // 5
    for wait_s, settles in steps:
        now_s += wait_s
        steady.hear(A, now_s)
        if settles:
            other.settle(dict(steady.seconds), [A], now_s)
        other.hear(A, now_s)
        assert other.seconds.get(A, 0) <= (now_s // 5 - began + 1) * 5
        assert other.seconds.get(A, 0) <= steady.seconds.get(A, 0)


def test_the_bucket_of_a_restart_is_not_credited_twice() -> None:
    witness = Witness(300, {A: 600}, started_s=10_000)
    for now_s in (10_000, 10_199):
        witness.hear(A, now_s)
        witness.hear(B, now_s)
    assert witness.seconds == {A: 600, B: 300}, "of B nothing was kept: nothing can have been credited"
    witness.hear(A, 10_200)
    assert witness.seconds == {A: 900, B: 300}
