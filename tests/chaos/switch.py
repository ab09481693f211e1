"""The network between rooms as one small process: `python -m tests.chaos.switch --control FD --seed N FD ...`.

Each argument is a TUN device, in the order of the rooms' numbers; room k has the address `ADDRESS` % (k + 1). What a
room sends is read here, delayed, doubled or dropped as `tests.chaos.links` says, and written to the device that its
destination address names. So no netem, bridge or firewall of the kernel is needed, only TUN.

Control is a socket of datagrams, each JSON: {"links": [[source, dest, {Link's fields}], ...]}, or {} to ask. The
answer says how many packets were forwarded and dropped so far. It ends when the other end of control closes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.chaos.links import Fabric, Link

ADDRESS = "10.77.0.{}"
PACKET_BYTES_MAX = 65_536
CONTROL_BYTES_MAX = 1 << 18
BURST = 64
"""Packets read from one device before the others have their turn."""
WAITING_MAX = 200_000
_IPV4 = 4
_SOURCE_END, _DEST_END = 15, 19
_HEADER_BYTES = 20


class Switch:
    """Forwards between these devices until `control` is closed."""

    def __init__(self, devices: Sequence[int], control: socket.socket, seed: int) -> None:
        self._devices = list(devices)
        self._numbers = {device: number for number, device in enumerate(devices)}
        self._control = control
        self._fabric = Fabric(len(devices), seed)
        self._waiting: list[tuple[float, int, int, int, bytes]] = []
        self._counted = 0
        self.forwarded = 0
        self.dropped = 0

    def run(self) -> None:
        with select.epoll() as poll:
            for handle in (*self._devices, self._control.fileno()):
                poll.register(handle, select.EPOLLIN)
            while True:
                for handle, _ in poll.poll(self._wait_s()):
                    if handle != self._control.fileno():
                        self._read(handle)
                    elif not self._obey():
                        return
                self._deliver(time.monotonic())

    def _wait_s(self) -> float:
        """How long nothing is due; -1: for ever."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else -1.0

    def _read(self, device: int) -> None:
        source, now_s = self._numbers[device], time.monotonic()
        for _ in range(BURST):
            try:
                packet = os.read(device, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            if len(packet) < _HEADER_BYTES or packet[0] >> 4 != _IPV4:
                continue  # the kernel's own: IPv6 neighbours, groups
            dest = packet[_DEST_END] - 1
            if not 0 <= dest < len(self._devices) or packet[_SOURCE_END] - 1 != source:
                continue
            arrivals = self._fabric.arrivals(source, dest, len(packet), now_s)
            if not arrivals or len(self._waiting) >= WAITING_MAX:
                self.dropped += 1
                continue
            for at_s in arrivals:
                if at_s <= now_s:
                    self._write(dest, packet)
                else:
                    self._counted += 1  # packets of one moment keep their order
                    heapq.heappush(self._waiting, (at_s, self._counted, source, dest, packet))

    def _deliver(self, now_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, source, dest, packet = heapq.heappop(self._waiting)
            if self._fabric.is_cut(source, dest):
                self.dropped += 1
            else:
                self._write(dest, packet)

    def _write(self, dest: int, packet: bytes) -> None:
        with suppress(BlockingIOError):  # its queue is full: lost, as on any wire
            os.write(self._devices[dest], packet)
            self.forwarded += 1
            return
        self.dropped += 1

    def _obey(self) -> bool:
        """Take one order; False when there will be none any more."""
        raw = self._control.recv(CONTROL_BYTES_MAX)
        if not raw:
            return False
        for source, dest, fields in json.loads(raw).get("links", ()):
            self._fabric.set(source, dest, Link(**fields))
        self._control.send(json.dumps({"forwarded": self.forwarded, "dropped": self.dropped}).encode())
        return True


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="switch")
    parser.add_argument("--control", type=int, required=True, help="descriptor of a SOCK_SEQPACKET socket")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("devices", type=int, nargs="+", help="descriptors of TUN devices")
    options = parser.parse_args(arguments)
    Switch(options.devices, socket.socket(fileno=options.control), options.seed).run()


if __name__ == "__main__":
    main(sys.argv[1:])
