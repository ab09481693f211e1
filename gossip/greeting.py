"""Greeting: exchanges hellos with whoever is connected, and stops a node whose key runs elsewhere.

A shell: what follows from a hello is decided in `gossip.acquaintances`; here they are moved.

1. A peer is greeted when a connection with it was made, once more when another instance of it came, or when it told of
   another one of the own key, and again after a hello that was in vain: soon at first, then every `AGAIN_S`. Over one
   connection no two greetings begin within `SOON_S`, whatever the peer says.
2. A connection that is given up for another one with the same key is greeted before it is closed: what stands at its
   other end may be another host with that key, which would learn of it in no other way.
3. Before its log counts as known a node listens for `LISTEN_S` if it was told of an instance that may still run. Two
   hosts with one key push each other's connections aside, and each new one says hello: so a second one is heard.
4. A rival (`acquaintances`, 3) ends a node whose log is not known yet, which did not begin to sign; of two that did,
   the one that started later. The other one goes on, and says so.
5. So many are greeted side by side; operators besides, as they are few: others that are slow delay none of them.

Source: ADR 0038.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import trio

from gossip import serve
from gossip.acquaintances import TRIES, Acquaintances, Rival
from gossip.errors import InvalidMessageError, KeyInUseError, PeerMisbehavedError, PeerUnavailableError
from gossip.hello import HELLO_BYTES_MAX, is_hello
from gossip.node import Node

LOOK_S = 0.5
SOON_S = 2.0
AGAIN_S = 60.0
LISTEN_S = 30.0
HELLO_TIMEOUT_S = 5.0
GREETED_AT_ONCE_MAX = 16
"""Peers that are greeted side by side, operators not counted."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Request -> answer, over one connection."""

log = logging.getLogger(__name__)


class Connections(Protocol):
    """The part of the transport through which peers are greeted."""

    def request(
        self, peer: bytes, payload: bytes, *, response_bytes_max: int, timeout_s: float
    ) -> Awaitable[bytes]: ...

    def connection_numbers(self) -> Mapping[bytes, int]: ...

    def remote_address(self, peer: bytes) -> str | None: ...


@dataclass(slots=True)
class _Course:
    """How the greeting of one peer goes."""

    connection: int
    tries: int = 0
    begun_s: float = float("-inf")
    due_s: float = 0.0
    """When it is greeted next, in trio's time."""
    is_under_way: bool = False


class Greeter:
    """Greets on behalf of one node. `transport` is set before `run`, and once requests may come."""

    def __init__(self, node: Node, acquaintances: Acquaintances) -> None:
        self.transport: Connections | None = None
        self.operators: frozenset[bytes] = frozenset()
        """Node keys of those that wait for no place (rule 5)."""
        self._node = node
        self._acquaintances = acquaintances
        self._courses: dict[bytes, _Course] = {}
        self._places = trio.CapacityLimiter(GREETED_AT_ONCE_MAX)
        self._said: bytes | None = None
        """The id of the rival that the log told of last."""

    async def run(self) -> None:
        """Greet for ever. Cancellation leaves nothing behind.

        Raises:
            KeyInUseError: another agent runs with the own key, and this one gives way (rule 4).
        """
        async with trio.open_nursery() as nursery:
            while True:
                for peer, course in self._due():
                    course.is_under_way = True
                    nursery.start_soon(self._greet_in_turn, peer, course)
                self.require_alone()
                await trio.sleep(LOOK_S)

    async def listen(self) -> bool:
        """Wait until another agent with the own key would have been heard; whether there was cause to (rule 3).

        Cancellation leaves nothing behind.

        Raises:
            KeyInUseError: as `require_alone`.
        """
        if not self._acquaintances.has_suspect:
            return False
        log.info("another agent ran with this node key not long ago: listening for it for %.0f s", LISTEN_S)
        end_s = trio.current_time() + LISTEN_S
        while trio.current_time() < end_s:
            self._greet_again()
            await trio.sleep(SOON_S)
            self.require_alone()
        return True

    def require_alone(self) -> None:
        """Heed another agent with the own key, if one was heard (rule 4).

        Raises:
            KeyInUseError: it was, and this one gives way.
        """
        now_s = self._node.now_s()
        rival = self._acquaintances.rival(now_s)
        if rival is None:
            return
        text = rival_text(rival, now_s)
        if not self._node.is_own_log_known or self._acquaintances.must_yield(rival):
            raise KeyInUseError(
                f"{text}. Stop one of them: two hosts with one key fork the log, and the key is dead. This one started "
                "later, or has not begun to sign, and stops"
            )
        if rival.instance.id != self._said:
            log.error(
                "%s. Stop that one: it is refused, but if it signs a record the log forks, and the key is dead", text
            )
            self._said = rival.instance.id

    async def serve(self, peer: bytes, request: bytes) -> bytes:
        """Answer a hello, or any other request of the peer with this node key.

        Raises:
            InvalidMessageError: the request is malformed; it is counted, and the stream is reset.
        """
        if not is_hello(request):
            return await serve.serve(self._node, peer, request)
        try:
            answer, greets_again = self._acquaintances.answer(peer, request, self._node.now_s(), self._address_of(peer))
        except InvalidMessageError as error:
            self._node.drop("hello", error)
            raise
        if greets_again:
            self._greet_soon(peer)
        return answer

    async def part(self, peer: bytes, ask: Ask, address: str | None) -> None:
        """Greet over a connection with `peer` that is about to be closed (rule 2); nothing follows if that fails."""
        await self._greet(peer, ask, address)

    def _due(self) -> list[tuple[bytes, _Course]]:
        """The peers to greet now; those that are gone are forgotten."""
        assert self.transport is not None
        numbers, now_s = self.transport.connection_numbers(), trio.current_time()
        for gone in self._courses.keys() - numbers.keys():
            del self._courses[gone]
        for peer, number in numbers.items():
            course = self._courses.get(peer)
            if course is None or course.connection != number:
                self._courses[peer] = _Course(number)
        courses = self._courses.items()
        return [(peer, course) for peer, course in courses if course.due_s <= now_s and not course.is_under_way]

    async def _greet_in_turn(self, peer: bytes, course: _Course) -> None:
        assert self.transport is not None
        transport = self.transport

        def ask(request: bytes) -> Awaitable[bytes]:
            return transport.request(peer, request, response_bytes_max=HELLO_BYTES_MAX, timeout_s=HELLO_TIMEOUT_S)

        places = nullcontext() if peer in self.operators else self._places
        async with places:
            course.begun_s, course.due_s = trio.current_time(), float("inf")
            if not await self._greet(peer, ask, self._address_of(peer)):
                course.tries += 1
                self._acquaintances.fail(peer)
                course.due_s = trio.current_time() + (SOON_S if course.tries < TRIES else AGAIN_S)
        course.is_under_way = False

    async def _greet(self, peer: bytes, ask: Ask, address: str | None) -> bool:
        """Exchange hellos; whether that went well."""
        node, acquaintances = self._node, self._acquaintances
        try:
            answer = await ask(acquaintances.say(peer, node.now_s()))
            if acquaintances.take(peer, answer, node.now_s(), address):
                self._greet_soon(peer)
        except (PeerUnavailableError, PeerMisbehavedError) as error:
            node.drops[f"hello: {type(error).__name__}"] += 1
            return False
        except InvalidMessageError as error:
            node.drop("hello", error)
            return False
        return True

    def _greet_soon(self, peer: bytes) -> None:
        if course := self._courses.get(peer):
            course.due_s = min(course.due_s, course.begun_s + SOON_S)

    def _greet_again(self) -> None:
        for course in self._courses.values():
            course.due_s = min(course.due_s, trio.current_time())

    def _address_of(self, peer: bytes) -> str | None:
        return None if self.transport is None else self.transport.remote_address(peer)


def answer_bytes_max(request: bytes) -> int:
    """As `gossip.serve.answer_bytes_max`, of hellos too."""
    return HELLO_BYTES_MAX if is_hello(request) else serve.answer_bytes_max(request)


def rival_text(rival: Rival, now_s: int) -> str:
    """What to say of another agent with the own key."""
    where = f", from {rival.address}" if rival.address is not None else ""
    return (
        f"this node key runs on another host, or ran there until lately: its agent started "
        f"{max(0, now_s - rival.instance.started_s)} s ago, and was last heard by peer "
        f"{rival.teller.hex()[:16]} {max(0, now_s - rival.heard_s)} s ago{where}"
    )
