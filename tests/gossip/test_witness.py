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
