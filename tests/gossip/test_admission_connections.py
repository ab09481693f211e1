"""Places for inbound connections: strangers never hold what the roster needs, and every place is given back."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gossip import admission as module
from gossip.admission import IDLE_AFTER_S, ConnectionAdmission, ConnectionLimits, ConnectionSlot, Refusal
from gossip.conduct import Conduct, ConductLimits, Fault

QUICK = {"per_s": 1e6, "burst": 1e6, "per_address_per_s": 1e6, "per_address_burst": 1e6}
"""Limits that no rate gets in the way of."""


def places(conduct: Conduct | None = None, **limits: float) -> ConnectionAdmission:
    return ConnectionAdmission(ConnectionLimits(**{**QUICK, **limits}), conduct or Conduct(ConductLimits()))


def connect(admission: ConnectionAdmission, key: bytes, address: str, now: float = 0.0) -> ConnectionSlot | Refusal:
    slot = admission.open(address, now)
    if isinstance(slot, Refusal):
        return slot
    refusal = admission.prove(slot, key, now)
    if refusal is not None:
        admission.close(slot)
        return refusal
    return slot


def test_strangers_do_not_displace_the_roster():
    admission = places(per_address_max=4, strangers_max=1)
    admission.set_roster([b"friend 1", b"friend 2"])
    assert isinstance(connect(admission, b"stranger 1", "10.0.0.1"), ConnectionSlot)
    assert connect(admission, b"stranger 2", "10.0.0.2") is Refusal.STRANGERS
    assert isinstance(connect(admission, b"friend 1", "10.0.0.1"), ConnectionSlot)
    assert isinstance(connect(admission, b"friend 2", "10.0.0.1"), ConnectionSlot)


def test_the_roster_may_share_one_address_and_has_a_place_for_each():
    admission = places(per_address_max=2)
    keys = [b"%d" % number for number in range(1100)]
    admission.set_roster(keys)
    assert all(isinstance(connect(admission, key, "10.0.0.1"), ConnectionSlot) for key in keys)


def test_a_key_has_few_connections_and_the_roster_is_bounded():
    admission = places(per_key_max=2, roster_max=3)
    admission.set_roster([b"a", b"b"])
    held = [connect(admission, b"a", "10.0.0.1") for _ in range(3)]
    assert held[2] is Refusal.PER_KEY
    assert isinstance(connect(admission, b"b", "10.0.0.2"), ConnectionSlot)
    assert connect(admission, b"b", "10.0.0.2") is Refusal.ROSTER


def test_of_too_many_handshakes_one_of_the_busiest_address_goes_but_never_where_the_roster_came_from():
    admission = places(handshakes_max=4, per_address_max=3)
    admission.set_roster([b"friend"])
    friend = connect(admission, b"friend", "10.0.0.9")
    assert isinstance(friend, ConnectionSlot)
    gone: list[str] = []

    def begin(address: str, name: str) -> ConnectionSlot | Refusal:
        return admission.open(address, 0.0, lambda: gone.append(name))

    known = begin("10.0.0.9", "known")
    assert all(isinstance(begin("10.0.0.1", name), ConnectionSlot) for name in ("first", "second", "third"))
    assert begin("10.0.0.1", "fourth") is Refusal.PER_ADDRESS
    newcomer = begin("10.0.0.2", "newcomer")
    assert isinstance(newcomer, ConnectionSlot)
    assert gone == ["first"]
    for number in range(3, 9):
        begin(f"10.0.0.{number}", str(number))
    assert len(admission._handshakes) == 4
    assert known in admission._handshakes
    assert "known" not in gone


def test_one_address_alone_does_not_push_itself_out():
    admission = places(handshakes_max=2, per_address_max=5)
    assert [type(admission.open("10.0.0.1", 0.0)) for _ in range(3)] == [ConnectionSlot, ConnectionSlot, Refusal]


def test_connecting_is_paced_per_address_and_overall_but_for_where_the_roster_came_from():
    admission = places(per_address_burst=2, per_address_per_s=1, burst=3, per_s=1)
    admission.set_roster([b"friend"])
    for _ in range(2):
        slot = connect(admission, b"friend", "10.0.0.9")
        assert isinstance(slot, ConnectionSlot)
        admission.close(slot)
    assert connect(admission, b"friend", "10.0.0.9") is Refusal.ADDRESS_RATE
    assert isinstance(connect(admission, b"x", "10.0.0.1"), ConnectionSlot)
    assert isinstance(connect(admission, b"y", "10.0.0.2"), ConnectionSlot)
    assert connect(admission, b"z", "10.0.0.3") is Refusal.RATE  # the first of the friend took one, too
    assert isinstance(connect(admission, b"friend", "10.0.0.9", now=1.0), ConnectionSlot)


def test_the_stranger_that_was_idle_for_longest_gives_way():
    admission = places(strangers_max=2)
    gone: list[bytes] = []
    for key in (b"a", b"b"):
        slot = admission.open("10.0.0.1", 0.0, lambda key=key: gone.append(key))
        assert isinstance(slot, ConnectionSlot)
        assert admission.prove(slot, key, 0.0) is None
    assert connect(admission, b"c", "10.0.0.2", now=IDLE_AFTER_S - 1) is Refusal.STRANGERS
    admission.heard(b"a", IDLE_AFTER_S)
    assert isinstance(connect(admission, b"c", "10.0.0.2", now=IDLE_AFTER_S), ConnectionSlot)
    assert gone == [b"b"]
    assert connect(admission, b"d", "10.0.0.2", now=IDLE_AFTER_S) is Refusal.STRANGERS


def test_a_refused_address_is_closed_to_strangers_and_still_open_to_the_roster():
    conduct = Conduct(ConductLimits())
    admission = places(conduct)
    for part in (conduct, admission):
        part.set_roster([b"friend"])
    conduct.blame(b"stranger", "10.0.0.1", Fault.VIOLATION, 0.0)
    assert connect(admission, b"another", "10.0.0.1") is Refusal.CONDUCT
    assert isinstance(connect(admission, b"friend", "10.0.0.1"), ConnectionSlot)
    assert isinstance(connect(admission, b"another", "10.0.0.2"), ConnectionSlot)
    assert isinstance(admission.open("10.0.0.1", 0.0), ConnectionSlot)
    assert admission.open("10.0.0.1", 0.0) is Refusal.PER_ADDRESS  # one handshake at a time


def test_a_network_of_ipv6_is_one_address():
    admission = places(per_address_max=1)
    assert isinstance(connect(admission, b"a", "2001:db8::1"), ConnectionSlot)
    assert connect(admission, b"b", "2001:db8::2") is Refusal.PER_ADDRESS
    assert isinstance(connect(admission, b"c", "2001:db8:0:1::1"), ConnectionSlot)
    assert isinstance(connect(admission, b"d", "::ffff:10.0.0.1"), ConnectionSlot)
    assert connect(admission, b"e", "10.0.0.1") is Refusal.PER_ADDRESS


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "ADDRESSES_MAX", 10)
    admission = places()
    admission.set_roster([b"friend"])
    for number in range(50):
        slot = connect(admission, b"friend", f"10.0.0.{number}")
        assert isinstance(slot, ConnectionSlot)
        admission.close(slot)
    assert len(admission._known) == len(admission._address_rates) == 10


def test_a_connected_stranger_that_joins_the_roster_gives_its_place_back() -> None:
    admission = places(strangers_max=1, per_address_max=1)
    early = connect(admission, b"a", "192.0.2.1")
    assert isinstance(early, ConnectionSlot)
    admission.set_roster([b"a"])
    other = connect(admission, b"b", "192.0.2.1")
    assert isinstance(other, ConnectionSlot)
    assert connect(admission, b"c", "192.0.2.2") is Refusal.STRANGERS
    for slot in (early, other):
        admission.close(slot)
    assert isinstance(connect(admission, b"d", "192.0.2.1"), ConnectionSlot)


steps = st.lists(
    st.tuples(
        st.sampled_from("opcr"), st.integers(0, 30), st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.integers(0, 5)
    ),
    max_size=120,
)


@given(steps)
def test_whatever_happens_every_place_is_given_back(steps):
    limits = {"handshakes_max": 4, "per_address_max": 3, "strangers_max": 2, "per_key_max": 2, "roster_max": 3}
    admission = places(**limits)
    admission.set_roster([b"0", b"1"])
    slots: list[ConnectionSlot] = []
    evicted: list[ConnectionSlot] = []
    now = 0.0

    def close(slot: ConnectionSlot) -> None:
        slots.remove(slot)
        admission.close(slot)

    for step, number, address, key in steps:
        now += number
        if step == "o":
            slot = admission.open(address, now)
            if isinstance(slot, ConnectionSlot):
                slot.evict = lambda slot=slot: evicted.append(slot)
                slots.append(slot)
        elif step == "r":
            admission.set_roster([b"%d" % key])
        elif slots:
            slot = slots[number % len(slots)]
            if step == "c" or (slot.stranger is None and admission.prove(slot, b"%d" % key, now) is not None):
                close(slot)
        for slot in evicted:
            close(slot)
        evicted.clear()
        assert len(admission._handshakes) == sum(slot.stranger is None for slot in slots) <= 4
        assert len(admission._strangers) == sum(slot.stranger is True for slot in slots) <= 2
        assert admission._of_roster == sum(slot.stranger is False for slot in slots)
        assert admission._per_address == Counter(slot.address for slot in slots if slot.stranger is not False)
        assert all(count <= 3 for count in admission._per_address.values())
    while slots:
        close(slots[0])
    left = (admission._handshakes, admission._strangers, admission._of_roster)
    assert (*left, admission._per_address, admission._per_key) == ([], [], 0, {}, {})
