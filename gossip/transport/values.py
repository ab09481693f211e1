"""What the transport is told and what it tells: settings, messages, peers. Values alone; nothing is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gossip.admission import ConnectionLimits, MessageLimits
from gossip.conduct import ConductLimits
from gossip.serving import ServeLimits

Serve = Callable[[bytes, bytes], Awaitable[bytes]]
"""(peer's node key, request) -> response."""
AnswerBytesMax = Callable[[bytes], int]
"""request -> the most bytes that its answer may have; never raises, whatever the request is."""


Part = Callable[[bytes, Callable[[bytes], Awaitable[bytes]], str | None], Awaitable[None]]
"""(peer's node key, a way to ask it over this connection alone, whence it comes): told of a duplicate that is about to
be closed.

It is cancelled if it takes too long, and must not raise.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Where to listen, what to speak, and every bound. Addresses are multiaddrs (`/ip4/.../tcp/...`)."""

    listen: tuple[str, ...]
    announce: tuple[str, ...] = ()
    is_public: bool = False
    """On a public network: names that resolve to this host, or to nobody in particular, are not dialled."""
    topic: str
    request_protocol: str = "/gpupool/sync/1"
    gossip_bytes_max: int = 64 * 1024
    gossip_queue_max: int = 1024
    gossip_queue_bytes_max: int = 16 * 1024 * 1024
    publish_per_s: float = 20.0
    publish_burst: float = 20.0
    request_bytes_max: int = 64 * 1024
    response_bytes_max: int = 4 * 1024 * 1024
    request_timeout_s: float = 15.0
    requests_per_peer_max: int = 8
    messages: MessageLimits = field(default_factory=MessageLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    serving: ServeLimits = field(default_factory=ServeLimits)
    conduct: ConductLimits = field(default_factory=ConductLimits)


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
    `dial_errors` says why the last dial of each address failed (`address: reason`); empty while connected.
    """

    node_key: bytes
    in_roster: bool
    connected: bool
    last_heard_s: float | None
    rtt_s: float | None
    addresses: tuple[str, ...]
    dial_errors: tuple[str, ...] = ()
