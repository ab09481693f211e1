"""What requests may hold: places, turns and bytes; strangers never those of the roster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossip.buckets import ByteLimits
from gossip.serving import SLOW_AFTER_S, SMALL_BYTES_MAX, Place, ServeAdmission, ServeLimits, ServeRefusal

FRIENDS = [b"f%d" % number for number in range(8)]
UNIT = SMALL_BYTES_MAX + 1
"""Bytes: smaller ones are not counted."""


def answers(total: int, strangers: int, peer: int, stranger: int) -> ByteLimits:
    """Limits in units."""
    sizes = (size * UNIT for size in (total, strangers, peer, stranger))
    return ByteLimits(**dict(zip(("total_max", "strangers_max", "peer_max", "stranger_max"), sizes, strict=True)))


def serving(**limits) -> ServeAdmission:
    admission = ServeAdmission(ServeLimits(**limits))
    admission.set_roster(FRIENDS)
    return admission


def opened(admission: ServeAdmission, peer: bytes, now: float = 0.0) -> Place:
    place = admission.open(peer, now)
    assert isinstance(place, Place)
    return place


def test_places_are_bounded_per_peer_and_strangers_leave_those_of_the_roster():
    admission = serving(places_max=6, per_peer_max=3, strangers_max=3, per_stranger_max=2)
    held = [opened(admission, peer) for peer in (b"s", b"s", b"t")]
    assert admission.open(b"s", 0.0) is ServeRefusal.PLACES
    assert admission.open(b"u", 0.0) is ServeRefusal.PLACES
    held += [opened(admission, FRIENDS[0]) for _ in range(3)]
    for place in held:
        assert admission.take_answer(place, 1, 0.0)  # all are at work
    for friend in FRIENDS[:2]:
        spare = opened(admission, friend)
        assert spare.is_spare
        assert admission.open(friend, 0.0) is ServeRefusal.PLACES
        held.append(spare)
    for place in held:
        admission.close(place)
    assert isinstance(admission.open(b"s", 0.0), Place)


def test_a_stranger_over_its_rate_is_refused_and_a_friend_waits():
    admission = serving(stranger_per_s=1, stranger_burst=2, per_s=2, burst=2)
    for _ in range(2):
        admission.close(opened(admission, b"s"))
    assert admission.open(b"s", 0.5) is ServeRefusal.RATE
    assert isinstance(admission.open(b"s", 1.0), Place)
    place = opened(admission, FRIENDS[0])
    assert [admission.wait_s(place, 0.0) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]


def test_joining_the_roster_and_leaving_are_felt_at_once():
    admission = serving(stranger_per_s=1, stranger_burst=1)
    admission.close(opened(admission, b"s"))
    assert admission.open(b"s", 0.0) is ServeRefusal.RATE
    admission.set_roster([b"s"])
    assert not opened(admission, b"s").is_stranger


def test_an_answer_is_reserved_whole_and_what_it_does_not_need_comes_back():
    admission = serving(answers=answers(10, 5, 6, 5))
    first, second, stranger = (opened(admission, peer) for peer in (FRIENDS[0], FRIENDS[0], b"s"))
    assert admission.take_answer(first, 5 * UNIT, 0.0)
    assert not admission.take_answer(second, 5 * UNIT, 0.0)  # its peer has enough under way
    assert admission.take_answer(stranger, 5 * UNIT, 0.0)
    admission.begin_answer(first, 5, 0.0)
    assert admission.held() == (3, 5 * UNIT + 5)
    assert not admission.take_answer(second, 5 * UNIT, 0.0)
    admission.close(stranger)
    assert admission.take_answer(second, 5 * UNIT, 0.0)
    for place in (first, second):
        admission.close(place)
    assert admission.held() == (0, 0)


def test_when_memory_is_short_the_slowest_reader_gives_way_and_nobody_else():
    admission = serving(answers=answers(10, 10, 10, 10))
    slow, quick, waiting = (opened(admission, peer) for peer in FRIENDS[:3])
    gone: list[str] = []
    slow.give_up, quick.give_up = (lambda: gone.append("slow")), (lambda: gone.append("quick"))
    for now, place in ((0.0, slow), (2.0, quick)):
        assert admission.take_answer(place, 5 * UNIT, now)
        admission.begin_answer(place, 5 * UNIT, now)
    assert not admission.take_answer(waiting, 5 * UNIT, SLOW_AFTER_S - 0.1)
    assert gone == []
    for _ in range(3):
        assert not admission.take_answer(waiting, 5 * UNIT, SLOW_AFTER_S)
    assert gone == ["slow"]
    admission.close(slow)
    assert admission.take_answer(waiting, 5 * UNIT, SLOW_AFTER_S)


def test_who_holds_its_own_share_costs_nobody_else_an_answer():
    admission = serving(answers=answers(10, 10, 5, 5))
    slow, again = opened(admission, FRIENDS[0]), opened(admission, FRIENDS[0])
    assert admission.take_answer(slow, 5 * UNIT, 0.0)
    admission.begin_answer(slow, 5 * UNIT, 0.0)
    slow.give_up = lambda: (_ for _ in ()).throw(AssertionError)
    assert not admission.take_answer(again, 5 * UNIT, 100.0)


def test_whoever_takes_all_places_and_asks_nothing_gives_way():
    admission = ServeAdmission(ServeLimits())
    hoarders = FRIENDS[: admission._limits.places_max // admission._limits.per_peer_max]
    admission.set_roster([*FRIENDS, b"new"])
    held = [opened(admission, peer) for peer in hoarders for _ in range(admission._limits.per_peer_max)]
    gone: list[int] = []
    for number, place in enumerate(held):
        place.give_up = lambda number=number: gone.append(number)
    assert admission.take_answer(held[0], 5 * UNIT, 0.0)  # this one is at work
    assert not opened(admission, b"new").is_spare
    assert gone == [1]  # the oldest of those with the most places that does nothing
    admission.close(held[1])
    assert len(admission._places) == admission._limits.places_max


def test_an_answer_that_is_read_slowly_gives_its_place_away():
    admission = serving(places_max=2, per_peer_max=2)
    held = [opened(admission, FRIENDS[0]) for _ in range(2)]
    gone: list[str] = []
    for number, place in enumerate(held):
        place.give_up = lambda number=number: gone.append(number)
        assert admission.take_answer(place, 5 * UNIT, 0.0)
        admission.begin_answer(place, 5 * UNIT, 1.0 - number)
    assert opened(admission, FRIENDS[1], SLOW_AFTER_S - 0.1).is_spare
    assert not opened(admission, FRIENDS[2], SLOW_AFTER_S).is_spare
    assert gone == [1]


def test_nobody_pushes_out_those_that_ask_as_little():
    admission = serving(places_max=2)
    for friend in FRIENDS[:2]:
        opened(admission, friend).give_up = lambda: (_ for _ in ()).throw(AssertionError)
    assert opened(admission, FRIENDS[0]).is_spare
    assert admission.open(b"s", 0.0) is ServeRefusal.PLACES


def test_a_sign_of_life_needs_no_place_and_no_memory_and_nothing_else_gets_in_that_way():
    admission = serving(places_max=1, answers=answers(10, 10, 10, 10))
    busy = opened(admission, FRIENDS[0])
    assert admission.take_answer(busy, 10 * UNIT, 0.0)
    spare = opened(admission, FRIENDS[1])
    assert not admission.take_request(spare, SMALL_BYTES_MAX + 1)
    assert admission.take_request(spare, SMALL_BYTES_MAX)
    assert not admission.is_served(spare, SMALL_BYTES_MAX + 1)
    assert admission.is_served(spare, SMALL_BYTES_MAX)
    assert admission.take_answer(spare, SMALL_BYTES_MAX, 0.0)
    admission.begin_answer(spare, SMALL_BYTES_MAX, 0.0)
    for place in (spare, busy):
        admission.close(place)
    assert admission.held() == (0, 0)


def test_a_stranger_s_request_is_short():
    admission = serving(stranger_request_bytes_max=10)
    assert not admission.take_request(opened(admission, b"s"), 11)
    assert admission.take_request(opened(admission, b"t"), 10)
    assert admission.take_request(opened(admission, FRIENDS[0]), 11)


@given(
    st.lists(st.tuples(st.sampled_from([*FRIENDS[:3], b"s", b"t"]), st.integers(0, 7), st.integers(0, 3)), max_size=60)
)
def test_whatever_happens_all_comes_back(steps):
    sizes = answers(10, 4, 6, 3)
    admission = serving(places_max=5, per_peer_max=3, strangers_max=2, requests=sizes, answers=sizes)
    held: list[Place] = []
    for now, (peer, count, step) in enumerate(steps):
        if step == 0 or not held:
            place = admission.open(peer, now)
            if isinstance(place, Place):
                held.append(place)
        elif step == 1 and not held[-1].request_bytes:
            admission.take_request(held[-1], count * UNIT)
        elif step == 2 and held[-1].is_waiting and admission.take_answer(held[-1], count * UNIT, now):
            admission.begin_answer(held[-1], count * UNIT // 2, now)
        else:
            admission.close(held.pop(0))
        places, size = admission.held()
        kept = [place for place in held if not place.has_given_way]
        assert places == len(kept)
        assert sum(not place.is_spare for place in kept) <= 5
        assert size == sum(place.request_bytes + place.answer_bytes for place in held) <= 20 * UNIT
    for place in held:
        admission.close(place)
    assert (admission.held(), admission._per_peer) == ((0, 0), {})
