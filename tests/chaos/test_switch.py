"""The switch, on socket pairs in the place of TUN devices."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from tests.chaos.links import Link
from tests.chaos.switch import Switch


class Rooms:
    """Three rooms and the switch between them, in a thread of its own."""

    def __init__(self) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
        self.ends = [inner for inner, _ in pairs]
        self._outer = [outer for _, outer in pairs]
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (*self.ends, self.control):
            end.settimeout(20)
        for outer in self._outer:
            outer.setblocking(False)
        self.switch = Switch([outer.fileno() for outer in self._outer], its, seed=1)
        self.thread = threading.Thread(target=self.switch.run)
        self.thread.start()

    def send(self, source: int, dest: int, body: bytes = b"") -> bytes:
        packet = bytes([0x45, *bytes(11), 10, 77, 0, source + 1, 10, 77, 0, dest + 1]) + body
        self.ends[source].send(packet)
        return packet

    def pass_on(self, source: int, dest: int, body: bytes = b"") -> None:
        packet = self.send(source, dest, body)
        assert self.ends[dest].recv(100) == packet

    def order(self, *links: tuple[int, int, Link]) -> dict[str, int]:
        self.control.send(json.dumps({"links": [[*way, asdict(link)] for *way, link in links]}).encode())
        answer: dict[str, int] = json.loads(self.control.recv(4096))
        return answer

    def close(self) -> None:
        self.control.close()
        self.thread.join(timeout=20)
        for end in (*self.ends, *self._outer):
            end.close()


@pytest.fixture
def rooms() -> Iterator[Rooms]:
    made = Rooms()
    yield made
    made.close()
    assert not made.thread.is_alive()


def test_a_packet_goes_where_its_address_says(rooms: Rooms) -> None:
    rooms.pass_on(0, 2, b"hello")
    rooms.pass_on(2, 1)
    assert rooms.order() == {"forwarded": 2, "dropped": 0}


def test_what_is_no_packet_between_rooms_is_left_out(rooms: Rooms) -> None:
    rooms.ends[0].send(b"\x60" + bytes(40))  # IPv6
    rooms.ends[0].send(b"\x45")
    rooms.send(0, 77)
    os.write(rooms.ends[0].fileno(), bytes([0x45, *bytes(11), 10, 77, 0, 2, 10, 77, 0, 3]))  # somebody else's address
    rooms.pass_on(0, 1)
    assert rooms.order() == {"forwarded": 1, "dropped": 0}


def test_delayed_packets_arrive_in_order(rooms: Rooms) -> None:
    rooms.order((0, 1, Link(delay_s=0.02, jitter_s=0.02)))
    packets = [rooms.send(0, 1, bytes([i])) for i in range(50)]
    assert [rooms.ends[1].recv(100) for _ in packets] == packets


def test_a_cut_drops_what_comes_and_what_is_under_way(rooms: Rooms) -> None:
    rooms.order((0, 1, Link(delay_s=0.2)))
    rooms.send(0, 1, b"under way")
    rooms.pass_on(0, 2)  # read after the first: so the switch has taken that in
    rooms.order((0, 1, Link(is_cut=True)))
    rooms.send(0, 1, b"after the cut")
    rooms.order((0, 2, Link(delay_s=0.4)))
    rooms.pass_on(0, 2)  # past the time of the first one
    assert rooms.order((0, 1, Link()))["dropped"] == 2
    rooms.pass_on(0, 1, b"healed")
