"""What requests may hold: places, turns and bytes; strangers never those of the roster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossip.buckets import ByteLimits
from gossip.serving import SLOW_AFTER_S, Place, ServeAdmission, ServeLimits, ServeRefusal

FRIENDS = [b"f%d" % number for number in range(8)]


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
    assert admission.open(FRIENDS[0], 0.0) is ServeRefusal.PLACES
    assert admission.open(FRIENDS[1], 0.0) is ServeRefusal.PLACES  # all are taken
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
    admission = serving(answers=ByteLimits(total_max=100, strangers_max=50, peer_max=60, stranger_max=50))
    first, second, stranger = (opened(admission, peer) for peer in (FRIENDS[0], FRIENDS[0], b"s"))
    assert admission.take_answer(first, 50, 0.0)
    assert not admission.take_answer(second, 50, 0.0)  # its peer has enough under way
    assert admission.take_answer(stranger, 50, 0.0)
    admission.begin_answer(first, 5, 0.0)
    assert admission.held() == (3, 55)
    assert not admission.take_answer(second, 50, 0.0)
    admission.close(stranger)
    assert admission.take_answer(second, 50, 0.0)
    for place in (first, second):
        admission.close(place)
    assert admission.held() == (0, 0)


def test_when_memory_is_short_the_slowest_reader_gives_way_and_nobody_else():
    admission = serving(answers=ByteLimits(total_max=100, strangers_max=100, peer_max=100, stranger_max=100))
    slow, quick, waiting = (opened(admission, peer) for peer in FRIENDS[:3])
    gone: list[str] = []
    slow.give_up, quick.give_up = (lambda: gone.append("slow")), (lambda: gone.append("quick"))
    for now, place in ((0.0, slow), (2.0, quick)):
        assert admission.take_answer(place, 50, now)
        admission.begin_answer(place, 50, now)
    assert not admission.take_answer(waiting, 50, SLOW_AFTER_S - 0.1)
    assert gone == []
    for _ in range(3):
        assert not admission.take_answer(waiting, 50, SLOW_AFTER_S)
    assert gone == ["slow"]
    admission.close(slow)
    assert admission.take_answer(waiting, 50, SLOW_AFTER_S)


def test_who_holds_its_own_share_costs_nobody_else_an_answer():
    admission = serving(answers=ByteLimits(total_max=100, strangers_max=100, peer_max=50, stranger_max=50))
    slow, again = opened(admission, FRIENDS[0]), opened(admission, FRIENDS[0])
    assert admission.take_answer(slow, 50, 0.0)
    admission.begin_answer(slow, 50, 0.0)
    slow.give_up = lambda: (_ for _ in ()).throw(AssertionError)
    assert not admission.take_answer(again, 50, 100.0)


def test_a_stranger_s_request_is_short():
    admission = serving(stranger_request_bytes_max=10)
    assert not admission.take_request(opened(admission, b"s"), 11)
    assert admission.take_request(opened(admission, b"t"), 10)
    assert admission.take_request(opened(admission, FRIENDS[0]), 11)


@given(
    st.lists(st.tuples(st.sampled_from([*FRIENDS[:3], b"s", b"t"]), st.integers(0, 70), st.integers(0, 3)), max_size=60)
)
def test_whatever_happens_all_comes_back(steps):
    sizes = ByteLimits(total_max=100, strangers_max=40, peer_max=60, stranger_max=30)
    admission = serving(places_max=5, per_peer_max=2, strangers_max=2, requests=sizes, answers=sizes)
    held: list[Place] = []
    for peer, count, step in steps:
        if step == 0 or not held:
            place = admission.open(peer, 0.0)
            if isinstance(place, Place):
                held.append(place)
        elif step == 1 and not held[-1].request_bytes:
            admission.take_request(held[-1], count)
        elif step == 2 and not held[-1].answer_bytes and admission.take_answer(held[-1], count, 0.0):
            admission.begin_answer(held[-1], count // 2, 0.0)
        else:
            admission.close(held.pop(0))
        places, size = admission.held()
        assert places == len(held) <= 5
        assert size == sum(place.request_bytes + place.answer_bytes for place in held) <= 200
    for place in held:
        admission.close(place)
    assert (admission.held(), admission._per_peer) == ((0, 0), {})
