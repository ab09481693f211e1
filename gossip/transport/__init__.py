"""The peer-to-peer transport: one gossip topic, one request/response protocol, a roster kept connected.

A thin shell around libp2p (TCP, Noise, Yamux, GossipSub 1.1); besides `gossip.libp2p_patches` the only
package that knows it. Peers are Ed25519 node keys (32 bytes) here; libp2p's ids stay inside.
Untrusted: everything that arrives. What this package promises:

1. Noise proves the key of every peer; the origin of a gossip message is proven by its own signature.
2. Gossip may lose anything, and says nothing about meaning; a request is answered or raises.
3. The roster is dialled for ever; one connection per peer survives. What a peer may cost is decided in
   `gossip.admission`, `gossip.serving` and `gossip.conduct`; docs/transport.md adds it up.
4. Nothing that a peer sends, and no failing handler, ends this process. What was dropped is counted.

`links` keeps peers connected, `exchange` asks and answers, `stack` configures libp2p, `values` are the words.
Elsewhere: what messages mean (`gossip.messages`), anti-entropy (`gossip.sync`), durability.
"""

from __future__ import annotations

import logging
import resource
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from gossip import libp2p_patches
from gossip.admission import ConnectionAdmission, MessageAdmission
from gossip.buckets import TokenBucket
from gossip.conduct import Conduct
from gossip.errors import ListenFailedError
from gossip.libp2p_patches.identity import node_key_of, peer_id_of
from gossip.libp2p_patches.standing import Standing
from gossip.transport.exchange import Exchange
from gossip.transport.links import Links, address_of, close_quietly
from gossip.transport.stack import build_host, build_pubsub
from gossip.transport.values import AnswerBytesMax, GossipMessage, Part, PeerView, Serve, TransportConfig

__all__ = [
    "AnswerBytesMax",
    "GossipMessage",
    "Part",
    "PeerView",
    "Serve",
    "Transport",
    "TransportConfig",
    "open_transport",
]

log = logging.getLogger(__name__)

FAREWELL_TIMEOUT_S = 2.0
DESCRIPTORS = 8192
"""File descriptors for every connection that the limits allow, and what else the process has open."""


@asynccontextmanager
async def open_transport(
    node_key_seed: bytes,
    config: TransportConfig,
    *,
    serve: Serve,
    answer_bytes_max: AnswerBytesMax | None = None,
    part: Part | None = None,
) -> AsyncIterator[Transport]:
    """Run a transport for the duration of the block.

    `node_key_seed` is the Ed25519 seed (32 bytes) of this node's key. `serve` answers requests of any
    connected peer, several at once; if it raises, the requester's stream is reset and the error logged.
    `answer_bytes_max` says for how many bytes of an answer there must be room before `serve` is asked for it;
    without it, each answer is taken to be as long as `config.response_bytes_max`. `part` is asked in before one of two
    connections with a peer is closed.
    Leaving the block closes the connections and the sockets; errors of the block pass through unchanged.

    Raises:
        ListenFailedError: an address is malformed, taken, or not one of this host; the message names it.
    """
    libp2p_patches.install()
    _allow_descriptors()
    transport = Transport(node_key_seed, config, serve, answer_bytes_max, part)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport._run)
        try:
            await transport._started.wait()
            if transport._listen_failure is None:
                yield transport
        except Exception as error:  # noqa: BLE001 raised again below, outside of the nursery's group
            failure = error
        finally:
            transport._closing.set()
    failure = failure or transport._listen_failure
    if failure is not None:
        raise failure


class Transport:
    """See the package. Made by `open_transport`; its methods are for trio tasks inside that block."""

    def __init__(
        self,
        node_key_seed: bytes,
        config: TransportConfig,
        serve: Serve,
        answer_bytes_max: AnswerBytesMax | None,
        part: Part | None,
    ) -> None:
        if len(node_key_seed) != 32:
            raise ValueError(f"node_key_seed: expected 32 bytes, got {len(node_key_seed)}")
        self._config = config
        self._part = part
        self._listen = _parse_addresses(config.listen)
        self._counters: Counter[str] = Counter()
        self._message_admission = MessageAdmission(config.messages)
        self._conduct = Conduct(config.conduct, self._on_refused)
        self._connection_admission = ConnectionAdmission(config.connections, self._conduct)
        standing = Standing(self._conduct, self._connection_admission, self._counters)
        self._pace = TokenBucket(config.publish_per_s, config.publish_burst)
        self._publishing = trio.Lock()
        self._scope = trio.CancelScope(shield=True)
        """Around all of libp2p; cancelled by ourselves alone, so that a farewell comes before the end."""
        self._started = trio.Event()
        self._closing = trio.Event()
        self._listen_failure: ListenFailedError | None = None
        self._deliver: trio.MemorySendChannel[GossipMessage]
        self.messages: trio.MemoryReceiveChannel[GossipMessage]
        self._deliver, self.messages = trio.open_memory_channel(config.gossip_queue_max)
        self._queued: deque[int] = deque()
        """Sizes of the messages in that channel, oldest first, and maybe of some that were taken since."""
        self._queued_bytes = 0
        announce = _parse_addresses(config.announce)
        self._host = build_host(
            node_key_seed, announce, self._connection_admission, standing, self._counters, is_public=config.is_public
        )
        self.node_key = node_key_of(self._host.get_id().to_bytes())
        self._links = Links(
            self.node_key,
            self._host.get_network(),
            self._counters,
            requests_per_peer_max=config.requests_per_peer_max,
            standing=standing,
            on_heard=self._connection_admission.heard,
            on_connection_lost=self._on_connection_lost,
            on_peer_gone=self._on_peer_gone,
            on_part=self._on_part,
        )
        self._pubsub = build_pubsub(
            self._host,
            config,
            self._message_admission,
            standing,
            self._counters,
            deliver=self._on_message,
            heard=self._links.heard,
        )
        self._exchange = Exchange(self._host, self._links, config, self._counters, serve, answer_bytes_max)

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
        config = self._config
        if len(payload) > config.request_bytes_max:
            raise ValueError(f"payload: {len(payload)} bytes, more than {config.request_bytes_max}")
        return await self._exchange.request(
            peer,
            payload,
            response_bytes_max=config.response_bytes_max if response_bytes_max is None else response_bytes_max,
            timeout_s=config.request_timeout_s if timeout_s is None else timeout_s,
        )

    async def publish(self, data: bytes) -> None:
        """Gossip `data` (at most `gossip_bytes_max` bytes, else ValueError); waits if it is too soon.

        Paced below what every peer admits from one origin. Without peers the message is remembered for
        those that join within the gossip window, and otherwise lost: that is not an error. When cancelled
        while it waits, nothing was sent.
        """
        if len(data) > self._config.gossip_bytes_max:
            raise ValueError(f"data: {len(data)} bytes, more than {self._config.gossip_bytes_max}")
        async with self._publishing:
            while not self._pace.take(trio.current_time()):  # noqa: ASYNC110 it refills with time, no event tells
                await trio.sleep(self._pace.wait_s(trio.current_time()))
            await self._pubsub.publish(self._config.topic, data)

    def set_roster(
        self, peers: Mapping[bytes, Sequence[str]], *, members: Collection[bytes] = (), first: Collection[bytes] = ()
    ) -> None:
        """Keep these peers (node key -> multiaddrs) connected from now on, and no others.

        They are dialled for ever with growing, jittered waits. This node's own key is skipped; addresses
        that are not usable multiaddrs, or name another peer id, are skipped and counted; a peer without
        any is waited for. Connections of peers that left the roster stay, as strangers.

        `members` belong to the pool, too, but this node is not kept connected with them: what they say and
        others forward is admitted by their own allowance. Those in `first` are dialled without waiting for others:
        places to dial are few, and addresses that lead nowhere hold them for long.
        """
        roster = self._links.set_roster(peers, first=first)
        self._message_admission.set_roster(roster | frozenset(members))
        for part in (self._conduct, self._connection_admission, self._exchange.admission):
            part.set_roster(roster)
        self._pubsub.router.follow_roster()

    def connected(self) -> list[bytes]:
        """Node keys of the roster's peers that are connected now: what `peers` says, for who asks often."""
        return self._links.connected_roster()

    def connection_numbers(self) -> Mapping[bytes, int]:
        """For each connected peer of the roster how many connections were made with it: another number, a new one."""
        return self._links.connection_numbers()

    def remote_address(self, peer: bytes) -> str | None:
        """Whence this peer's newest connection comes (`ip:port`); None if it is not connected."""
        return self._links.remote_address(peer)

    def peers(self) -> tuple[PeerView, ...]:
        """The roster and every connected stranger, by node key."""
        return self._links.views()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this node: the announced addresses, else those listened on, with `/p2p/<id>`."""
        return tuple(str(a) for a in self._host.get_addrs())

    @property
    def counters(self) -> Mapping[str, int]:
        """How often what was dropped, refused, lost or failed, by name: a snapshot; a missing name is 0."""
        return dict(self._counters)

    def _on_message(self, origin: bytes, forwarder: bytes, data: bytes) -> None:
        while len(self._queued) > self._deliver.statistics().current_buffer_used:
            self._queued_bytes -= self._queued.popleft()
        try:
            if self._queued_bytes + len(data) > self._config.gossip_queue_bytes_max:
                raise trio.WouldBlock
            self._deliver.send_nowait(GossipMessage(origin=origin, forwarder=forwarder, data=data))
        except trio.WouldBlock:
            self._counters["gossip_dropped_full"] += 1
        except trio.BrokenResourceError:
            self._counters["gossip_dropped_unread"] += 1
        else:
            self._queued.append(len(data))
            self._queued_bytes += len(data)

    def _on_peer_gone(self, node_key: bytes) -> None:
        self._message_admission.forget_forwarder(node_key)
        self._exchange.admission.forget(node_key)
        self._pubsub.router.forget(peer_id_of(node_key))

    def _on_refused(self, node_key: bytes) -> None:
        self._counters["peer_refused"] += 1
        self._links.close(node_key)

    async def _on_part(self, node_key: bytes, connection: Any) -> None:
        if self._part is None:
            return

        async def ask(payload: bytes) -> bytes:
            return await self._exchange.request_over(connection, node_key, payload)

        await self._part(node_key, ask, address_of(connection))

    def _on_connection_lost(self, peer_id: ID, muxed_conn: Any) -> None:
        self._pubsub.rehome(peer_id, muxed_conn)

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._links.start(nursery)
                    async with self._host.run(self._listen):
                        await self._run_listening()
        except Exception:
            # What libp2p raises while it unwinds (an ExceptionGroup under traffic) is not the caller's.
            if not self._scope.cancel_called:
                raise
            log.debug("libp2p raised while it was shut down", exc_info=True)

    async def _run_listening(self) -> None:
        failed = [str(a) for a in self._listen if str(a) not in self._host.get_network().listeners]
        if failed:
            # Kept, not raised: libp2p would wrap it in groups on its way out.
            self._listen_failure = ListenFailedError(f"{', '.join(failed)}: taken, or not an address of this host")
            self._started.set()
            self._scope.cancel()
            return
        async with background_trio_service(self._pubsub), background_trio_service(self._pubsub.router):
            await self._pubsub.wait_until_ready()
            await self._pubsub.subscribe(self._config.topic)
            self._started.set()
            await self._closing.wait()
            await self._say_farewell()
            self._scope.cancel()

    async def _say_farewell(self) -> None:
        # Seen: cancelled without it, the library leaves its sockets open, and peers notice by their health
        # checks only.
        self._links.set_roster({})
        swarm = self._host.get_network()
        with trio.move_on_after(FAREWELL_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for listener in list(swarm.listeners.values()):
                    nursery.start_soon(listener.close)
                for connection in swarm.get_connections():
                    nursery.start_soon(close_quietly, connection)


def _allow_descriptors() -> None:
    # Seen: the usual soft limit of 1,024 is less than the roster of a large pool; the hard one is not ours to raise.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parse_addresses(texts: Sequence[str]) -> list[Multiaddr]:
    addresses = []
    for text in texts:
        try:
            addresses.append(Multiaddr(text))
        except Exception as error:
            # It raises a kind for each way of being malformed.
            raise ListenFailedError(f"{text}: not a multiaddr such as /ip4/0.0.0.0/tcp/4001 ({error})") from error
    return addresses
