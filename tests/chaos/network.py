"""The harness's hand on the network: rooms, and the switch between them as a process of its own.

Where nothing is said, a link is plain: packets pass at once. All methods that change links return when the switch
has taken the change.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import permutations

import trio

from tests.chaos.cage import Room, make_room
from tests.chaos.links import PLAIN, Link
from tests.chaos.switch import CONTROL_BYTES_MAX

CUT = Link(is_cut=True)


class Network:
    """Rooms by name, and the links between them."""

    def __init__(self, rooms: dict[str, Room], control: trio.socket.SocketType) -> None:
        self.rooms = rooms
        self._control = control
        self._lock = trio.Lock()

    async def set(self, ways: Iterable[tuple[str, str]], link: Link) -> None:
        """Make each of these ways (from, to) such a link. Cancelled, the change may have been made or not."""
        fields = asdict(link)
        await self._order(
            {"links": [[self.rooms[source].number, self.rooms[dest].number, fields] for source, dest in ways]}
        )

    async def divide(self, *sides: Sequence[str]) -> None:
        """Cut every link between these sides, in both directions."""
        pairs = permutations(sides, 2)
        await self.set([(source, dest) for one, other in pairs for source in one for dest in other], CUT)

    async def heal(self) -> None:
        """Make every link plain."""
        await self.set(permutations(self.rooms, 2), PLAIN)

    async def packets(self) -> dict[str, int]:
        """How many packets were forwarded and dropped so far."""
        return await self._order({})

    async def _order(self, order: dict[str, object]) -> dict[str, int]:
        async with self._lock:
            await self._control.send(json.dumps(order).encode())
            answer: dict[str, int] = json.loads(await self._control.recv(CONTROL_BYTES_MAX))
        return answer


@asynccontextmanager
async def open_network(names: Sequence[str], home: str, seed: int) -> AsyncIterator[Network]:
    """Rooms of these names, and `home`, the room of this process, joined by a switch for the duration of the block."""
    rooms = {name: make_room(number, is_home=name == home) for number, name in enumerate((*names, home))}
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    devices = [room.device for room in rooms.values()]
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-m", "tests.chaos.switch", "--control", str(its.fileno()), "--seed", str(seed)),
            *map(str, devices),
        ],
        stdin=subprocess.DEVNULL,
        pass_fds=(its.fileno(), *devices),
        start_new_session=True,
    )
    its.close()
    try:
        yield Network(rooms, trio.socket.from_stdlib_socket(mine))
    finally:
        mine.close()
        with trio.CancelScope(shield=True):
            await process.wait()
        for room in rooms.values():
            os.close(room.device)
            os.close(room.namespace)
