"""Links: which peers this node is connected with, and the efforts to have exactly one connection with each.

Decides whom to dial, when, and which of two connections with one peer goes. Untrusted: addresses, and
when peers come and go. Rules:
1. A peer of the roster is dialled for ever, with growing, jittered waits; a stranger never. Those that come first
   have places to dial of their own.
2. The smaller key dials at once and the other end a moment later, so that rarely both dial.
3. Of two connections with one peer one survives, the same at both ends (`gossip.admission.keeps_newer`),
   unless the one to keep does not answer: its peer restarted and knows only the other. `on_part` has a moment with the
   one that goes: at its other end may be another host with the same key.
4. A peer outside the roster is forgotten when its last connection ends.

Elsewhere: who may connect (`gossip.admission`), what runs over a connection (`gossip.transport.exchange`).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import trio
from libp2p.abc import INotifee
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from gossip.admission import Backoff, dials_first, keeps_newer
from gossip.conduct import Fault
from gossip.errors import PeerNotConnectedError
from gossip.libp2p_patches.connections import SafeSwarm
from gossip.libp2p_patches.identity import node_key_of, peer_id_of
from gossip.libp2p_patches.standing import Standing
from gossip.transport.dial_failures import TIMED_OUT, dial_failure
from gossip.transport.values import PeerView

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
DIALS_MAX = 32
"""Dials at once, of those that come first and of all others each: a thousand side by side would all be too slow."""
DIAL_HEAD_START_S = 1.0
PART_TIMEOUT_S = 2.0
"""For what is asked over a connection before it is closed for another one."""
STABLE_AFTER_S = 30.0
"""A connection that lasted so long starts the next absence with short waits again."""
ADDRESSES_PER_PEER_MAX = 8


class Links:
    """The peers of one node: its roster, and whoever else is connected.

    `on_heard(node key, now)` is told of every peer that sent something of use;
    `on_connection_lost(peer id, muxed connection)` of every connection that ended;
    `on_peer_gone(node key)` of every peer that was forgotten;
    `on_part(node key, connection)` of every connection that is about to be closed for another one.
    """

    def __init__(
        self,
        own_key: bytes,
        swarm: SafeSwarm,
        counters: Counter[str],
        *,
        requests_per_peer_max: int,
        standing: Standing,
        on_heard: Callable[[bytes, float], None],
        on_connection_lost: Callable[[ID, Any], None],
        on_peer_gone: Callable[[bytes], None],
        on_part: Callable[[bytes, Any], Awaitable[None]],
    ) -> None:
        self._own_key = own_key
        self._swarm = swarm
        self._counters = counters
        self._requests_per_peer_max = requests_per_peer_max
        self._dials = {is_first: trio.CapacityLimiter(DIALS_MAX) for is_first in (True, False)}
        self._on_heard = on_heard
        self.blame: Callable[[bytes, Fault], None] = standing.blame
        self._on_connection_lost = on_connection_lost
        self._on_peer_gone = on_peer_gone
        self._on_part = on_part
        self._peers: dict[bytes, Peer] = {}
        self._roster: frozenset[bytes] = frozenset()
        self._first: frozenset[bytes] = frozenset()
        self._nursery: trio.Nursery
        swarm.register_notifee(_Watch(self))

    def start(self, nursery: trio.Nursery) -> None:
        """Run in this nursery from now on; before the swarm listens, and before any other method."""
        self._nursery = nursery

    def set_roster(self, peers: Mapping[bytes, Sequence[str]], *, first: Collection[bytes] = ()) -> frozenset[bytes]:
        """Keep these peers (node key -> multiaddrs) connected, and no others; returns their keys but our own.

        Those in `first` do not wait for others to be dialled.
        """
        self._roster = frozenset(peers) - {self._own_key}
        self._first = frozenset(first)
        for key in [k for k in self._peers if k not in self._roster]:
            self._peers[key].stop_dialling()
            self._forget_if_gone(key)
        for key in self._roster:
            peer = self._known(key)
            addresses = self._usable_addresses(peer, peers[key])
            if addresses != peer.addresses:
                # Dialled at once, but no more often than the waits allow: the peer chooses its addresses.
                peer.addresses = addresses
                peer.dial_errors.clear()
                peer.signal_change()
            if peer.dialling is None:
                peer.dialling = trio.CancelScope()
                self._nursery.start_soon(self._keep_connected, peer, peer.dialling)
        return self._roster

    def connected(self, node_key: bytes) -> Peer:
        """The peer with this key.

        Raises:
            PeerNotConnectedError: there is no live connection with it.
        """
        peer = self._peers.get(node_key)
        if peer is None or not self._live(peer.peer_id):
            raise PeerNotConnectedError(f"{node_key.hex()}: not connected")
        return peer

    def heard(self, node_key: bytes) -> None:
        """Note that this peer sent something of use just now."""
        if peer := self._peers.get(node_key):
            peer.last_heard_s = trio.current_time()
            self._on_heard(node_key, peer.last_heard_s)

    def close(self, node_key: bytes) -> None:
        """Close the connections with this peer, soon."""
        for connection in self._live(peer_id_of(node_key)):
            self._nursery.start_soon(close_quietly, connection)

    def connected_roster(self) -> list[bytes]:
        """Node keys of the roster's peers with a live connection."""
        return [key for key, peer in self._peers.items() if key in self._roster and self._live(peer.peer_id)]

    def connection_numbers(self) -> dict[bytes, int]:
        """For each connected peer of the roster: how many connections were made with it until now."""
        return {key: self._peers[key].connections for key in self.connected_roster()}

    def remote_address(self, node_key: bytes) -> str | None:
        """Whence the newest live connection with this peer comes, as `ip:port`; None if there is none any more."""
        connections = self._live(peer_id_of(node_key))
        return address_of(connections[-1]) if connections else None

    def views(self) -> tuple[PeerView, ...]:
        """The roster and every connected stranger, by node key."""
        return tuple(self._view(peer) for _, peer in sorted(self._peers.items()))

    def _view(self, peer: Peer) -> PeerView:
        connections = self._live(peer.peer_id)
        rtt_s = connections[-1].muxed_conn.rtt() if connections else 0.0
        return PeerView(
            node_key=peer.node_key,
            in_roster=peer.node_key in self._roster,
            connected=bool(connections),
            last_heard_s=peer.last_heard_s,
            rtt_s=rtt_s or None,
            addresses=tuple(str(a) for a in peer.addresses),
            dial_errors=() if connections else tuple(f"{a}: {why}" for a, why in peer.dial_errors.items()),
        )

    async def _keep_connected(self, peer: Peer, scope: trio.CancelScope) -> None:
        with scope:
            if not dials_first(self._own_key, peer.node_key):
                with trio.move_on_after(DIAL_HEAD_START_S):
                    await peer.changed.wait()
            while True:
                if not self._live(peer.peer_id):
                    await self._dial(peer)
                since_s = trio.current_time()
                while self._live(peer.peer_id):
                    await peer.changed.wait()
                if trio.current_time() - since_s >= STABLE_AFTER_S:
                    peer.backoff.reset()
                with trio.move_on_after(peer.backoff.next_s(random.random())):  # noqa: S311  (jitter)
                    await peer.changed.wait()

    async def _dial(self, peer: Peer) -> None:
        for address in peer.addresses:
            reason = TIMED_OUT
            async with self._dials[peer.node_key in self._first]:
                with trio.move_on_after(DIAL_TIMEOUT_S):
                    try:
                        await self._swarm.dial_addr(address, peer.peer_id)
                    except Exception as error:  # noqa: BLE001 it raises whatever socket, Noise and Yamux raise
                        reason = dial_failure(error)
                        log.debug("dialling %s at %s failed: %r", peer.peer_id, address, error)
                    else:
                        return
            self._counters["dial_failed"] += 1
            peer.dial_errors[address] = reason

    def _usable_addresses(self, peer: Peer, texts: Sequence[str]) -> tuple[Multiaddr, ...]:
        usable = []
        for text in texts[:ADDRESSES_PER_PEER_MAX]:
            try:
                address = Multiaddr(text)
                protocols = [p.name for p in address.protocols()]
                named = address.value_for_protocol("p2p") if "p2p" in protocols else str(peer.peer_id)
            except Exception as error:  # noqa: BLE001 the parser raises many kinds; the text is a stranger's
                log.debug("not a multiaddr: %.200r (%r)", text, error)
                protocols, named = [], ""
            if "tcp" in protocols and "p2p-circuit" not in protocols and named == str(peer.peer_id):
                usable.append(address)
            else:
                self._counters["roster_address_unusable"] += 1
        return tuple(usable)

    def _live(self, peer_id: ID) -> list[Any]:
        """The live connections with a peer, oldest first."""
        return [
            c
            for c in self._swarm.connections.get(peer_id, ())
            if not c.is_closed and not c.muxed_conn.event_shutting_down.is_set()
        ]

    def _known(self, node_key: bytes) -> Peer:
        return self._peers.setdefault(node_key, Peer(node_key, self._requests_per_peer_max))

    def _connected(self, connection: Any) -> None:
        peer = self._known(node_key_of(connection.muxed_conn.peer_id.to_bytes()))
        peer.dial_errors.clear()
        peer.connections += 1
        peer.signal_change()
        if len(self._live(peer.peer_id)) > 1:
            self._nursery.start_soon(self._settle_duplicates, peer)

    def _disconnected(self, connection: Any) -> None:
        peer_id = connection.muxed_conn.peer_id
        self._on_connection_lost(peer_id, connection.muxed_conn)
        key = node_key_of(peer_id.to_bytes())
        if peer := self._peers.get(key):
            peer.signal_change()
        self._forget_if_gone(key)

    def _forget_if_gone(self, key: bytes) -> None:
        if key not in self._roster and not self._live(peer_id_of(key)):
            self._peers.pop(key, None)
            self._on_peer_gone(key)

    async def _settle_duplicates(self, peer: Peer) -> None:
        async with peer.settling:
            while len(connections := self._live(peer.peer_id)) > 1:
                older, newer = connections[:2]
                keep_newer = keeps_newer(
                    self._own_key,
                    peer.node_key,
                    older_outbound=older.direction.value == "outbound",
                    newer_outbound=newer.direction.value == "outbound",
                )
                # The older may be half-open: its peer restarted and knows only the newer.
                if not keep_newer and not await older.muxed_conn.probe():
                    keep_newer = True
                loser = older if keep_newer else newer
                self._counters["connection_duplicate"] += 1
                with trio.move_on_after(PART_TIMEOUT_S):
                    await self._on_part(peer.node_key, loser)
                await close_quietly(loser)
                self._on_connection_lost(peer.peer_id, loser.muxed_conn)


class Peer:
    """What is kept of one peer while it is in the roster or connected."""

    def __init__(self, node_key: bytes, requests_max: int) -> None:
        self.node_key = node_key
        self.peer_id = peer_id_of(node_key)
        self.addresses: tuple[Multiaddr, ...] = ()
        self.dial_errors: dict[Multiaddr, str] = {}
        """Why the last dial of each of these addresses failed, since the peer was connected."""
        self.last_heard_s: float | None = None
        self.connections = 0
        """How many were made with it."""
        self.requests = trio.CapacityLimiter(requests_max)
        """Places for our own requests to it that are under way."""
        self.settling = trio.Lock()
        self.backoff = Backoff()
        self.dialling: trio.CancelScope | None = None
        self.changed = trio.Event()
        """Set, and replaced, whenever its connections or addresses change."""

    def signal_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def stop_dialling(self) -> None:
        if self.dialling is not None:
            self.dialling.cancel()
            self.dialling = None


def address_of(connection: Any) -> str | None:
    """Whence a swarm connection comes, as `ip:port`; None if its socket is gone."""
    address = connection.muxed_conn.get_remote_address()
    if address is None:
        return None
    ip, port = address[:2]
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


async def close_quietly(connection: Any) -> None:
    """Close a swarm connection that is being given up, whatever state it is in."""
    try:
        await connection.close()
    except Exception as error:  # noqa: BLE001 nothing follows from it
        log.debug("closing a connection failed: %r", error)


class _Watch(INotifee):  # type: ignore[misc]
    """Tells the links of connections; the other events of the interface are not needed."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def connected(self, network: Any, conn: Any) -> None:
        self._links._connected(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._links._disconnected(conn)

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, multiaddr: Any) -> None: ...

    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...
