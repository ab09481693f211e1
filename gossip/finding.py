"""Finding peers: tells where this node is, and asks others what they know of everybody else.

A shell: which record counts is decided by `gossip.address_book`. With one peer known a node finds all the others.

1. A peer is asked when it was connected, and a random one every `interval_s` (jittered).
2. Each request carries the own record, so that whoever is asked knows it at once; gossip tells the others.
3. The own record is issued anew when the addresses change, and every `REISSUE_S`. A node without an address
   issues none, unless to take an older one back.

Source: PROTOCOL, "Spreading".
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

import trio

from gossip import sync
from gossip.addresses import make_address_record
from gossip.errors import InvalidMessageError, PeerMisbehavedError, PeerUnavailableError
from gossip.node import Node
from gossip.sync import ADDRESS_RANGES, PAGE_RECORDS_MAX, AddressesRequest

REISSUE_S = 6 * 3600
CHECK_S = 60.0
LOOK_S = 0.25
PAGES_MAX = 8
"""Pages of address records that are asked of a peer at once."""
ASKED_AT_ONCE_MAX = 8
"""Peers that are asked for addresses side by side, after they were connected."""
YIELD_EVERY = 64


class Requester(Protocol):
    """The part of the transport through which peers are asked."""

    def request(self, peer: bytes, payload: bytes) -> Awaitable[bytes]: ...


class Finder:
    """Finds peers for one node. `connected` are the peers to ask, `own` says where this node can be dialled."""

    def __init__(
        self,
        node: Node,
        transport: Requester,
        connected: Callable[[], Collection[bytes]],
        own: Callable[[], Sequence[str]],
        *,
        interval_s: float,
    ) -> None:
        self._node = node
        self._transport = transport
        self._connected = connected
        self._own = own
        self._interval_s = interval_s
        self._random = random.Random()  # noqa: S311  (spreads load; no secret)
        self._places = trio.CapacityLimiter(ASKED_AT_ONCE_MAX)

    async def run(self) -> None:
        """Find peers for ever. Cancellation leaves nothing behind."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._issue_again_and_again)
            nursery.start_soon(self._ask_who_comes, nursery)
            nursery.start_soon(self._ask_at_intervals)

    async def ask(self, peer: bytes) -> None:
        """Take over what `peer` knows of addresses; one that fails or lies is counted and left."""
        node, book = self._node, self._node.addresses
        first = taken = 0
        try:
            for _ in range(PAGES_MAX):
                own = book.record(node.key.public)
                request = AddressesRequest(first=first, digests=book.digests(), own=None if own is None else own.wire)
                page = sync.parse_page(await self._transport.request(peer, sync.encode_request(request)), request)
                for i, wire in enumerate(page.wires):
                    node.take_address(wire)
                    if i % YIELD_EVERY == 0:
                        await trio.lowlevel.checkpoint()
                first, taken = page.next, taken + len(page.wires)
                if first == ADDRESS_RANGES or taken > PAGE_RECORDS_MAX:
                    return
        except (PeerUnavailableError, PeerMisbehavedError) as error:
            node.drops[f"peer: {type(error).__name__}"] += 1
        except InvalidMessageError as error:
            node.drop("answer", error)

    def issue(self) -> None:
        """Issue the own record anew, if it is time or the addresses changed (rule 3)."""
        node, addresses, now_s = self._node, tuple(self._own()), self._node.now_s()
        last = node.addresses.record(node.key.public)
        if last is None and not addresses:
            return
        if last is not None and last.addresses == addresses and 0 <= now_s - last.issued_s < REISSUE_S:
            return
        # Behind the last one, whatever the clock says: it must be the newest.
        issued_s = now_s if last is None else max(now_s, last.issued_s + 1)
        wire = make_address_record(node.key, node.pool, issued_s=issued_s, addresses=addresses)
        node.addresses.keep_own(wire)
        node.publish_address(wire)

    async def _issue_again_and_again(self) -> None:
        while True:
            self.issue()
            await trio.sleep(CHECK_S)

    async def _ask_who_comes(self, nursery: trio.Nursery) -> None:
        known: frozenset[bytes] = frozenset()
        while True:
            now = frozenset(self._connected())
            for peer in sorted(now - known):
                nursery.start_soon(self._ask_in_turn, peer)
            known = now
            await trio.sleep(LOOK_S)

    async def _ask_in_turn(self, peer: bytes) -> None:
        async with self._places:
            await self.ask(peer)

    async def _ask_at_intervals(self) -> None:
        while True:
            await trio.sleep(self._interval_s * self._random.uniform(0.75, 1.25))
            if peers := sorted(self._connected()):
                await self.ask(self._random.choice(peers))
