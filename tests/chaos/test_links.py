"""Links between rooms: what is drawn, and what can never happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.links import QUEUE_S_MAX, Fabric, Link

shares = st.floats(min_value=0, max_value=1)
steps_s = st.lists(st.floats(min_value=0, max_value=0.5), max_size=60)


def fabric(link: Link | None = None, seed: int = 1) -> Fabric:
    made = Fabric(3, seed)
    if link is not None:
        made.set(0, 1, link)
    return made


def test_a_link_that_was_never_set_delivers_at_once() -> None:
    assert fabric().arrivals(0, 1, 100, 5.0) == (5.0,)


def test_a_cut_takes_nothing_in_its_one_direction() -> None:
    cut = fabric(Link(is_cut=True))
    assert cut.arrivals(0, 1, 100, 5.0) == ()
    assert cut.is_cut(0, 1)
    assert cut.arrivals(1, 0, 100, 5.0) == (5.0,)
    assert not cut.is_cut(1, 0)


@given(steps_s, st.floats(min_value=0, max_value=1), shares)
def test_jitter_delays_within_its_bounds_and_keeps_the_order(
    steps_s: list[float], delay_s: float, share: float
) -> None:
    jittery, now_s, last_s = fabric(Link(delay_s=delay_s, jitter_s=delay_s * share)), 0.0, 0.0
    for step_s in steps_s:
        now_s += step_s
        (at_s,) = jittery.arrivals(0, 1, 100, now_s)
        assert at_s >= last_s
        assert now_s + delay_s * (1 - share) <= at_s + 1e-9
        assert at_s <= max(now_s + delay_s * (1 + share), last_s) + 1e-9
        last_s = at_s


def test_loss_and_doubling_are_drawn_per_packet() -> None:
    lossy = fabric(Link(loss=0.2, duplicate=0.1))
    copies = [len(lossy.arrivals(0, 1, 100, float(i))) for i in range(10_000)]
    assert 1_800 < copies.count(0) < 2_200
    assert 700 < copies.count(2) < 900


def test_what_is_reordered_overtakes() -> None:
    unruly = fabric(Link(delay_s=1.0, reorder=0.5))
    arrivals = [unruly.arrivals(0, 1, 100, 5.0)[0] for _ in range(100)]
    assert set(arrivals) == {5.0, 6.0}


def test_a_rate_makes_packets_queue_up_and_a_full_queue_drops() -> None:
    slow = fabric(Link(rate=1000))
    arrivals = [slow.arrivals(0, 1, 100, 0.0) for _ in range(20)]
    assert [round(at[0], 6) for at in arrivals[:3]] == [0.1, 0.2, 0.3]
    assert all(at[0] <= QUEUE_S_MAX + 0.1 + 1e-9 for at in arrivals if at)
    assert arrivals[-1] == ()
    assert slow.arrivals(0, 1, 100, 50.0) == (50.1,)


def test_a_seed_replays() -> None:
    link = Link(delay_s=0.1, jitter_s=0.05, loss=0.3, duplicate=0.2, reorder=0.1)

    def draw(seed: int) -> list[tuple[float, ...]]:
        drawn = fabric(link, seed)
        return [drawn.arrivals(0, 1, 100, float(i)) for i in range(100)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize(
    "fields", [{"loss": 1.1}, {"duplicate": -0.1}, {"reorder": 2}, {"jitter_s": 0.1}, {"delay_s": -1}, {"rate": -1}]
)
def test_a_link_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 to"):
        Link(**fields)  # type: ignore[arg-type]


def test_there_is_no_link_to_a_room_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="3 rooms"):
        fabric().set(0, 3, Link())
