"""Nodes on loopback, and a peer that speaks libp2p but keeps to no rule, for the tests of the transport."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multiaddr import Multiaddr

from gossip import libp2p_patches
from gossip.admission import ConnectionAdmission, ConnectionLimits
from gossip.conduct import Conduct, ConductLimits
from gossip.libp2p_patches.connections import SafeHost
from gossip.libp2p_patches.identity import peer_id_of
from gossip.libp2p_patches.standing import Standing
from gossip.transport import Serve, Transport, TransportConfig, open_transport
from gossip.transport.links import close_quietly
from gossip.transport.stack import build_host

TOPIC = "gpupool/test"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
PATIENCE_S = 20.0
"""How long a condition may take before a test fails; never how long it is expected to take."""


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def key_of(name: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed_of(name)).public_key().public_bytes_raw()


async def echo(_peer: bytes, request: bytes) -> bytes:
    return request


def open_node(name: str, *, serve: Serve = echo, **settings: Any) -> AbstractAsyncContextManager[Transport]:
    config = TransportConfig(**{"listen": (LOOPBACK,), "topic": TOPIC, **settings})
    return open_transport(seed_of(name), config, serve=serve)


@asynccontextmanager
async def open_pair(serve: Serve = echo, **settings: Any) -> AsyncIterator[tuple[Transport, Transport]]:
    """Two nodes that name each other in their rosters, connected. `settings` are those of both."""
    async with open_node("a", serve=serve, **settings) as a, open_node("b", serve=serve, **settings) as b:
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(a, b) and connected(b, a))
        yield a, b


def standing_of(*roster: bytes) -> Standing:
    """Of peers of whom these are the roster, and that did nothing yet."""
    conduct = Conduct(ConductLimits())
    conduct.set_roster(roster)
    return Standing(conduct, ConnectionAdmission(ConnectionLimits(), conduct), Counter())


def connected(node: Transport, to: Transport) -> bool:
    return any(peer.connected for peer in node.peers() if peer.node_key == to.node_key)


async def eventually(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 what it looks at has no event
            await trio.sleep(0.02)


async def gossip_until_heard(sender: Transport, receiver: Transport, data: bytes) -> None:
    """Publish `data` (gossip may lose it, for one while the mesh forms) until the receiver has it."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_publish_again_and_again, sender, data)
            async for message in receiver.messages:
                if message.data == data:
                    assert message.origin == sender.node_key
                    break
            nursery.cancel_scope.cancel()


async def _publish_again_and_again(sender: Transport, data: bytes) -> None:
    while True:
        await sender.publish(data)
        await trio.sleep(0.2)


@asynccontextmanager
async def open_rogue(name: str, victim: Transport) -> AsyncIterator[SafeHost]:
    """A libp2p host connected with the victim, on which a test opens streams and writes what it likes."""
    libp2p_patches.install()
    admission = ConnectionAdmission(ConnectionLimits(), Conduct(ConductLimits()))
    host = build_host(seed_of(name), [], admission, standing_of(victim.node_key), Counter())
    scope = trio.CancelScope()
    with scope:
        async with host.run([]):
            await host.get_network().dial_addr(Multiaddr(victim.addresses[0]), peer_id_of(victim.node_key))
            await eventually(lambda: any(p.connected for p in victim.peers() if p.node_key == key_of(name)))
            yield host
            for connection in host.get_network().get_connections():  # the library leaves its sockets open
                await close_quietly(connection)
            scope.cancel()
