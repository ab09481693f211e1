"""The peer-to-peer transport: one gossip topic, one request/response protocol, a roster kept connected.

A thin shell around libp2p (TCP, Noise, Yamux, GossipSub 1.1), and besides `gossip.libp2p_patches` the
only module that knows it. Peers are Ed25519 node keys (32 bytes) here; libp2p's ids stay inside.
Untrusted: everything that arrives. What this module promises:

1. Noise proves the key of every peer; the origin of a gossip message is proven by its own signature.
2. Gossip may lose anything, and says nothing about meaning; a request is answered or raises.
3. The roster is dialled for ever; one connection per peer survives; limits are in `gossip.admission`.
4. Nothing that a peer sends, and no failing handler, ends this process. What was dropped is counted.

A request and its response are framed alike: 4 bytes of length, big-endian, then the bytes; the
requester half-closes after its frame. Anyone who speaks libp2p can implement that.
Elsewhere: what messages mean (`gossip.messages`), anti-entropy (`gossip.sync`), durability.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from libp2p.abc import INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from gossip import libp2p_patches
from gossip.admission import (
    Backoff,
    ConnectionAdmission,
    ConnectionLimits,
    MessageAdmission,
    MessageLimits,
    TokenBucket,
    dials_first,
    keeps_newer,
)
from gossip.errors import ListenFailedError, PeerMisbehavedError, PeerUnavailableError
from gossip.libp2p_patches.connections import SafeHost, SafeMuxer, SafeSwarm, reset_quietly
from gossip.libp2p_patches.identity import node_key_of, peer_id_of
from gossip.libp2p_patches.pubsub import SafeGossipSub, SafePubsub

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
DIAL_HEAD_START_S = 1.0
STABLE_AFTER_S = 30.0
"""A connection that lasted so long starts the next absence with short waits again."""
ADDRESSES_PER_PEER_MAX = 8
FAREWELL_TIMEOUT_S = 2.0
CONNECTIONS_MAX = 1024

Serve = Callable[[bytes, bytes], Awaitable[bytes]]
"""(peer's node key, request) -> response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Where to listen, what to speak, and every bound. Addresses are multiaddrs (`/ip4/.../tcp/...`)."""

    listen: tuple[str, ...]
    announce: tuple[str, ...] = ()
    topic: str
    request_protocol: str = "/gpupool/sync/1"
    gossip_bytes_max: int = 64 * 1024
    gossip_queue_max: int = 1024
    publish_per_s: float = 20.0
    publish_burst: float = 20.0
    request_bytes_max: int = 64 * 1024
    response_bytes_max: int = 4 * 1024 * 1024
    request_timeout_s: float = 15.0
    requests_per_peer_max: int = 8
    serving_per_peer_max: int = 16
    serving_max: int = 128
    messages: MessageLimits = field(default_factory=MessageLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipMessage:
    """A message whose signature by `origin` (node key) was checked; `forwarder` handed it to us."""

    origin: bytes
    forwarder: bytes
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """What is known about a peer of the roster, or a connected stranger.

    `last_heard_s` is the trio time of its last gossip or request/response bytes, None if never; pings
    do not count, so a link that is up but deaf shows. `rtt_s` is None until the first ping.
    """

    node_key: bytes
    in_roster: bool
    connected: bool
    last_heard_s: float | None
    rtt_s: float | None
    addresses: tuple[str, ...]


@asynccontextmanager
async def open_transport(node_key_seed: bytes, config: TransportConfig, *, serve: Serve) -> AsyncIterator[Transport]:
    """Run a transport for the duration of the block.

    `node_key_seed` is the Ed25519 seed (32 bytes) of this node's key. `serve` answers requests of any
    connected peer, several at once; if it raises, the requester's stream is reset and the error logged.
    Leaving the block closes the connections and the sockets; errors of the block pass through unchanged.

    Raises:
        ListenFailedError: one of the addresses cannot be listened on.
    """
    libp2p_patches.install()
    transport = Transport(node_key_seed, config, serve)
    failure: Exception | None
    async with trio.open_nursery() as nursery:
        failure = await nursery.start(transport._run)
        if failure is None:
            try:
                yield transport
            except Exception as error:  # noqa: BLE001 raised again below, outside of the nursery's group
                failure = error
            finally:
                transport._scope.cancel()
    if failure is not None:
        raise failure


class Transport:
    """See the module. Made by `open_transport`; its methods are for trio tasks inside that block."""

    def __init__(self, node_key_seed: bytes, config: TransportConfig, serve: Serve) -> None:
        if len(node_key_seed) != 32:
            raise ValueError(f"node_key_seed: expected 32 bytes, got {len(node_key_seed)}")
        self._config = config
        self._serve = serve
        self._counters: Counter[str] = Counter()
        self._peers: dict[bytes, _Peer] = {}
        self._roster: frozenset[bytes] = frozenset()
        self._message_admission = MessageAdmission(config.messages)
        self._connection_admission = ConnectionAdmission(config.connections)
        self._serving: Counter[bytes] = Counter()
        self._pace = TokenBucket(config.publish_per_s, config.publish_burst)
        self._publishing = trio.Lock()
        self._scope = trio.CancelScope(shield=True)
        self._nursery: trio.Nursery | None = None
        self._deliver: trio.MemorySendChannel[GossipMessage]
        self.messages: trio.MemoryReceiveChannel[GossipMessage]
        self._deliver, self.messages = trio.open_memory_channel(config.gossip_queue_max)
        self._build(node_key_seed)

    async def request(
        self,
        peer: bytes,
        payload: bytes,
        *,
        response_bytes_max: int | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Send `payload` to a connected peer (node key, 32 bytes) and return its response.

        `payload` is at most `request_bytes_max` bytes (more is the caller's error: ValueError). The time
        limit covers waiting for one of `requests_per_peer_max` places too. When cancelled, the stream is
        reset; the peer may or may not have acted on the request, and the connection stays usable.

        Raises:
            PeerUnavailableError: not connected, does not speak the protocol, gave up, or too slow.
            PeerMisbehavedError: announced a response longer than `response_bytes_max`.
        """
        if len(payload) > self._config.request_bytes_max:
            raise ValueError(f"payload: {len(payload)} bytes, more than {self._config.request_bytes_max}")
        known = self._peers.get(peer)
        if known is None or not self._connections(known.peer_id):
            raise PeerUnavailableError(f"{peer.hex()}: not connected")
        limit = self._config.response_bytes_max if response_bytes_max is None else response_bytes_max
        seconds = self._config.request_timeout_s if timeout_s is None else timeout_s
        with trio.move_on_after(seconds):
            async with known.requests:
                return await self._exchange(known, payload, limit)
        self._counters["request_timed_out"] += 1
        raise PeerUnavailableError(f"{peer.hex()}: no response within {seconds} s")

    async def publish(self, data: bytes) -> None:
        """Gossip `data` (at most `gossip_bytes_max` bytes, else ValueError); waits if it is too soon.

        Paced below what every peer admits from one origin. Without peers the message is remembered for
        those that join within the gossip window, and otherwise lost: that is not an error.
        """
        if len(data) > self._config.gossip_bytes_max:
            raise ValueError(f"data: {len(data)} bytes, more than {self._config.gossip_bytes_max}")
        async with self._publishing:
            while not self._pace.take(trio.current_time()):
                await trio.sleep(self._pace.wait_s(trio.current_time()))
            await self._pubsub.publish(self._config.topic, data)

    def set_roster(self, peers: Mapping[bytes, Sequence[str]]) -> None:
        """Keep these peers (node key -> multiaddrs) connected from now on, and no others.

        They are dialled for ever with growing, jittered waits. This node's own key is skipped; addresses
        that are not usable multiaddrs, or name another peer id, are skipped and counted; a peer without
        any is waited for. Connections of peers that left the roster stay, as strangers.
        """
        self._roster = frozenset(peers) - {self.node_key}
        self._message_admission.set_roster(self._roster)
        self._connection_admission.set_roster(self._roster)
        for key in [k for k in self._peers if k not in self._roster]:
            self._peers[key].stop_dialling()
            self._forget_if_gone(key)
        for key in self._roster:
            peer = self._peers.setdefault(key, _Peer(key, self._config.requests_per_peer_max))
            addresses = self._usable_addresses(peer, peers[key])
            if addresses != peer.addresses:
                peer.addresses = addresses
                peer.backoff.reset()
                peer.signal_change()
            if peer.dialling is None and self._nursery is not None:
                peer.dialling = trio.CancelScope()
                self._nursery.start_soon(self._keep_connected, peer, peer.dialling)

    def peers(self) -> tuple[PeerView, ...]:
        """The roster and every connected stranger, by node key."""
        views = []
        for key, peer in sorted(self._peers.items()):
            connections = self._connections(peer.peer_id)
            rtt_s = connections[-1].muxed_conn.rtt() if connections else 0.0
            views.append(
                PeerView(
                    node_key=key,
                    in_roster=key in self._roster,
                    connected=bool(connections),
                    last_heard_s=peer.last_heard_s,
                    rtt_s=rtt_s or None,
                    addresses=tuple(str(a) for a in peer.addresses),
                )
            )
        return tuple(views)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this node: the announced addresses, else those listened on, with `/p2p/<id>`."""
        return tuple(str(a) for a in self._host.get_addrs())

    @property
    def counters(self) -> Mapping[str, int]:
        """How often what was dropped, refused, lost or failed, by name: a snapshot; a missing name is 0."""
        return dict(self._counters)

    def _build(self, node_key_seed: bytes) -> None:
        config, counters = self._config, self._counters
        key_pair = create_new_key_pair(node_key_seed)
        peer_id = ID.from_pubkey(key_pair.public_key)
        self.node_key = node_key_of(peer_id.to_bytes())
        peer_store = PeerStore()
        peer_store.add_key_pair(peer_id, key_pair)
        # Nothing but Noise: the library's default offers plaintext, where a peer id is only claimed.
        noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
        upgrader = TransportUpgrader({TProtocol(NOISE_ID): noise}, {})
        upgrader.muxer_multistream = SafeMuxer(counters)
        self._swarm = SafeSwarm(
            peer_id,
            peer_store,
            upgrader,
            [TCP()],
            retry_config=RetryConfig(max_retries=0),
            connection_config=ConnectionConfig(
                min_connections=0,
                low_watermark=0,
                high_watermark=CONNECTIONS_MAX,
                max_connections=CONNECTIONS_MAX,
            ),
            admission=self._connection_admission,
            counters=counters,
        )
        self._swarm.register_notifee(_ConnectionWatch(self))
        announce = [Multiaddr(a) for a in config.announce] or None
        self._host = SafeHost(self._swarm, counters, announce_addrs=announce, disable_identify_address_discovery=True)
        self._host.remove_stream_handler(ID_PUSH)
        self._host.set_stream_handler(TProtocol(config.request_protocol), self._serve_stream)
        self._router = SafeGossipSub(
            counters,
            protocols=[PROTOCOL_ID_V11],
            degree=8,
            degree_low=6,
            degree_high=12,
            heartbeat_interval=1,
            gossip_window=6,
            gossip_history=12,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self._pubsub = SafePubsub(
            self._host,
            self._router,
            topic=config.topic,
            message_bytes_max=config.gossip_bytes_max,
            admission=self._message_admission,
            counters=counters,
            deliver=self._on_message,
            heard=self._on_heard,
        )

    async def _run(self, task_status: trio.TaskStatus[Exception | None]) -> None:
        # Shielded: cancelled by `open_transport` alone, so that what libp2p raises while it unwinds
        # (an ExceptionGroup under traffic) meets our handler and not the caller's.
        closing = False
        try:
            with self._scope:
                addresses = [Multiaddr(a) for a in self._config.listen]
                async with self._host.run(addresses):
                    if len(self._swarm.listeners) < len(addresses):
                        taken = ", ".join(self._config.listen)
                        task_status.started(ListenFailedError(f"cannot listen on {taken}"))
                        closing = True
                        return
                    async with (
                        background_trio_service(self._pubsub),
                        background_trio_service(self._router),
                        trio.open_nursery() as self._nursery,
                    ):
                        await self._pubsub.wait_until_ready()
                        await self._pubsub.subscribe(self._config.topic)
                        task_status.started(None)
                        try:
                            await trio.sleep_forever()
                        finally:
                            closing = True
                            await self._say_farewell()
        except Exception:
            if not closing:
                raise
            log.debug("libp2p raised while it was shut down", exc_info=True)

    async def _say_farewell(self) -> None:
        # The library's own clean-up stops at its first await once it is cancelled, and leaves sockets.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for listener in list(self._swarm.listeners.values()):
                    nursery.start_soon(listener.close)
                for connection in self._swarm.get_connections():
                    nursery.start_soon(_close_connection, connection)

    async def _exchange(self, peer: _Peer, payload: bytes, response_bytes_max: int) -> bytes:
        stream = None
        complete = False
        try:
            stream = await self._host.new_stream(peer.peer_id, [TProtocol(self._config.request_protocol)])
            await _write_frame(stream, payload)
            await stream.close_write()
            response = await _read_frame(stream, response_bytes_max)
            complete = True
        except PeerMisbehavedError:
            self._counters["response_too_long"] += 1
            raise
        except Exception as error:
            self._counters["request_lost"] += 1
            raise PeerUnavailableError(f"{peer.node_key.hex()}: {type(error).__name__} {error}") from error
        finally:
            if stream is not None:
                await (stream.close() if complete else reset_quietly(stream))
        self._on_heard(peer.node_key)
        return response

    async def _serve_stream(self, stream: Any) -> None:
        # Runs inside `SafeHost`'s guard: whatever the stream raises is counted and resets it.
        peer = node_key_of(stream.muxed_conn.peer_id.to_bytes())
        config = self._config
        if self._serving[peer] >= config.serving_per_peer_max or self._serving.total() >= config.serving_max:
            self._counters["serve_refused"] += 1
            await reset_quietly(stream)
            return
        self._serving[peer] += 1
        try:
            with trio.move_on_after(config.request_timeout_s) as scope:
                request = await _read_frame(stream, config.request_bytes_max)
                self._on_heard(peer)
                response = await self._answer(peer, request)
                if response is not None:
                    await _write_frame(stream, response)
                    await stream.close()
                    return
            if scope.cancelled_caught:
                self._counters["serve_timed_out"] += 1
            await reset_quietly(stream)
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def _answer(self, peer: bytes, request: bytes) -> bytes | None:
        try:
            response = await self._serve(peer, request)
            if len(response) > self._config.response_bytes_max:
                raise ValueError(f"a response of {len(response)} bytes")
        except Exception:
            # Logged here because nobody is left to raise to: the requester sees a reset stream.
            self._counters["serve_failed"] += 1
            log.exception("serving a request of %s failed", peer.hex())
            return None
        return response

    def _on_message(self, origin: bytes, forwarder: bytes, data: bytes) -> None:
        try:
            self._deliver.send_nowait(GossipMessage(origin=origin, forwarder=forwarder, data=data))
        except trio.WouldBlock:
            self._counters["gossip_dropped_full"] += 1
        except trio.BrokenResourceError:
            self._counters["gossip_dropped_unread"] += 1

    def _on_heard(self, node_key: bytes) -> None:
        if peer := self._peers.get(node_key):
            peer.last_heard_s = trio.current_time()

    async def _keep_connected(self, peer: _Peer, scope: trio.CancelScope) -> None:
        with scope:
            if not dials_first(self.node_key, peer.node_key):
                with trio.move_on_after(DIAL_HEAD_START_S):
                    await peer.changed.wait()
            while True:
                if not self._connections(peer.peer_id):
                    await self._dial(peer)
                since_s = trio.current_time()
                while self._connections(peer.peer_id):
                    await peer.changed.wait()
                if trio.current_time() - since_s >= STABLE_AFTER_S:
                    peer.backoff.reset()
                with trio.move_on_after(peer.backoff.next_s(random.random())):
                    await peer.changed.wait()

    async def _dial(self, peer: _Peer) -> None:
        for address in peer.addresses:
            with trio.move_on_after(DIAL_TIMEOUT_S):
                try:
                    await self._swarm.dial_addr(address, peer.peer_id)
                except Exception as error:  # noqa: BLE001 it raises whatever socket, Noise and Yamux raise
                    log.debug("dialling %s at %s failed: %r", peer.peer_id, address, error)
                else:
                    return
            self._counters["dial_failed"] += 1

    def _usable_addresses(self, peer: _Peer, texts: Sequence[str]) -> tuple[Multiaddr, ...]:
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

    def _connections(self, peer_id: ID) -> list[Any]:
        """The live connections with a peer, oldest first."""
        return [
            c
            for c in self._swarm.connections.get(peer_id, ())
            if not c.is_closed and not c.muxed_conn.event_shutting_down.is_set()
        ]

    def _on_connected(self, connection: Any) -> None:
        key = node_key_of(connection.muxed_conn.peer_id.to_bytes())
        peer = self._peers.setdefault(key, _Peer(key, self._config.requests_per_peer_max))
        peer.signal_change()
        if len(self._connections(peer.peer_id)) > 1 and self._nursery is not None:
            self._nursery.start_soon(self._settle_duplicates, peer)

    def _on_disconnected(self, connection: Any) -> None:
        peer_id = connection.muxed_conn.peer_id
        self._pubsub.rehome(peer_id, connection.muxed_conn)
        key = node_key_of(peer_id.to_bytes())
        if peer := self._peers.get(key):
            peer.signal_change()
        self._forget_if_gone(key)

    def _forget_if_gone(self, key: bytes) -> None:
        if key not in self._roster and not self._connections(peer_id_of(key)):
            self._peers.pop(key, None)
            self._message_admission.forget_forwarder(key)

    async def _settle_duplicates(self, peer: _Peer) -> None:
        """Close all but one connection with a peer; see `keeps_newer` for which."""
        async with peer.settling:
            while len(connections := self._connections(peer.peer_id)) > 1:
                older, newer = connections[:2]
                keep_newer = keeps_newer(
                    self.node_key,
                    peer.node_key,
                    older_outbound=older.direction.value == "outbound",
                    newer_outbound=newer.direction.value == "outbound",
                )
                # The older may be half-open: its peer restarted and knows only the newer.
                if not keep_newer and not await older.muxed_conn.probe():
                    keep_newer = True
                loser = older if keep_newer else newer
                self._counters["connection_duplicate"] += 1
                await _close_connection(loser)
                self._pubsub.rehome(peer.peer_id, loser.muxed_conn)


class _Peer:
    """What the transport keeps of one peer while it is in the roster or connected."""

    def __init__(self, node_key: bytes, requests_max: int) -> None:
        self.node_key = node_key
        self.peer_id = peer_id_of(node_key)
        self.addresses: tuple[Multiaddr, ...] = ()
        self.last_heard_s: float | None = None
        self.requests = trio.CapacityLimiter(requests_max)
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


class _ConnectionWatch(INotifee):  # type: ignore[misc]
    """Tells the transport of connections; the other events of the interface are not needed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def connected(self, network: Any, conn: Any) -> None:
        self._transport._on_connected(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._transport._on_disconnected(conn)

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, multiaddr: Any) -> None: ...

    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...


async def _close_connection(connection: Any) -> None:
    try:
        await connection.close()
    except Exception as error:  # noqa: BLE001 it is being given up, nothing follows from it
        log.debug("closing a connection failed: %r", error)


async def _write_frame(stream: Any, data: bytes) -> None:
    await stream.write(len(data).to_bytes(4, "big") + data)


async def _read_frame(stream: Any, bytes_max: int) -> bytes:
    size = int.from_bytes(await _read_exactly(stream, 4), "big")
    if size > bytes_max:
        raise PeerMisbehavedError(f"a frame of {size} bytes, more than {bytes_max}")
    return await _read_exactly(stream, size)


async def _read_exactly(stream: Any, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = await stream.read(min(65536, count - len(data)))
        if not chunk:
            raise StreamEOF
        data += chunk
    return bytes(data)
