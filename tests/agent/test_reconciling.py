"""Three sides of the same work: when they are apart, and what is said then."""

import pytest

from agent.reconciling import EPOCHS_KEPT, TOKENS_MIN, Books, reconcile


def books(*sides: tuple[int, int | None, int | None]) -> list[Books]:
    return [Books(epoch=i, metered=m, receipts=r, paid=p) for i, (m, r, p) in enumerate(sides, 1)]


def test_one_side_alone_compares_nothing() -> None:
    found = reconcile(books((1000, None, None), (1000, None, None), (1000, None, None)), 0.2)
    assert (found.metered, found.receipts, found.paid) == (3000, None, None)
    assert (found.disagreement, found.alarm) == (None, None)


def test_late_sides_agree_over_the_epochs_together() -> None:
    found = reconcile(books((1000, 0, None), (1000, 1500, None), (1000, 1300, None)), 0.2)
    assert found.disagreement == pytest.approx(20 / 300)
    assert found.alarm is None


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        ((1000, 500, None), ["work without receipts"]),
        ((1000, None, 500), ["no proxy paid"]),
        ((500, 1000, 1000), ["the meter missed work"]),
        ((1000, 1000, 200), ["no proxy paid"]),
        ((0, 1000, None), ["the meter missed work"]),
        ((500, 1000, 500), ["the meter missed work", "no proxy paid"]),
        ((900, 1000, 500), ["no proxy paid"]),
        ((1000, 500, 400), ["work without receipts", "no proxy paid"]),
        ((700, 600, 1000), ["the meter missed work", "work without receipts"]),
    ],
)
def test_alarm_says_which_sides_are_short_of_the_most(
    sides: tuple[int, int | None, int | None], says: list[str]
) -> None:
    found = reconcile(books(sides, sides, sides), 0.2)
    assert found.alarm is not None
    known = ("the meter missed work", "work without receipts", "no proxy paid")
    assert [words for words in known if words in found.alarm] == says


def test_no_alarm_from_too_few_epochs() -> None:
    assert reconcile(books((1000, 0, None), (1000, 0, None)), 0.2).alarm is None


def test_a_few_tokens_are_not_compared() -> None:
    for amount in (0, 5, TOKENS_MIN - 1):
        found = reconcile(books((0, 0, 0), (0, 0, 0), (0, 0, amount)), 0.2)
        assert (found.disagreement, found.alarm) == (None, None)
    assert reconcile(books((0, 0, 0), (0, 0, 0), (0, 0, TOKENS_MIN)), 0.2).disagreement == 1


def test_an_epoch_that_a_side_does_not_know_is_left_out() -> None:
    found = reconcile(books((1000, 1000, None), (1000, 1000, 900), (1000, 1000, 1100)), 0.2)
    assert (found.epochs, found.metered, found.paid, found.disagreement) == (2, 2000, 2000, 0)


def test_old_epochs_are_forgotten() -> None:
    old, new = [(1000, 0, None)] * 5, [(100, 100, None)] * EPOCHS_KEPT
    found = reconcile(books(*old, *new), 0.2)
    assert (found.epochs, found.metered, found.alarm) == (EPOCHS_KEPT, 100 * EPOCHS_KEPT, None)
