"""Gossiping: joins the node to its transport, and keeps the two fed.

A shell: what messages mean is decided in `gossip`; here they are moved.

Source: PROTOCOL, "Spreading"; TRANSPORT.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from agent.metrics import Metrics
from agent.tables import P2pTable
from gossip import serve, sync
from gossip.node import Node
from gossip.pull import Puller
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import GOSSIP_BYTES_MAX, topic

WITNESS_SAVE_S = 30.0


class Gossiping:
    """One node on its transport."""

    def __init__(self, node: Node, transport: Transport, config: P2pTable, metrics: Metrics) -> None:
        self.node = node
        self.transport = transport
        self._metrics = metrics
        self._addresses = {bytes.fromhex(peer.node_key): peer.addresses for peer in config.peers}
        self.puller = Puller(
            node,
            transport,
            self.connected,
            sync_interval_s=config.sync_interval_s,
            close_interval_s=config.close_interval_s,
        )

    def connected(self) -> list[bytes]:
        """Node keys of the roster's peers that are connected now."""
        return [peer.node_key for peer in self.transport.peers() if peer.connected and peer.in_roster]

    def set_roster(self, node_keys: frozenset[bytes]) -> None:
        """Keep these peers connected, as far as the config knows their addresses."""
        self.transport.set_roster({key: self._addresses.get(key, ()) for key in node_keys})

    async def run(self) -> None:
        """Move messages for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._publish)
            nursery.start_soon(self._save_witness)
            nursery.start_soon(self.puller.run)

    async def _receive(self) -> None:
        async for message in self.transport.messages:
            await self.node.take_gossip(message.data)
            self._metrics.loop_advanced.set("gossip", self.node.now_s())

    async def _publish(self) -> None:
        async for data in self.node.outbox:
            await self.transport.publish(data)

    async def _save_witness(self) -> None:
        try:
            while True:
                await trio.sleep(WITNESS_SAVE_S)
                await self._save()
        finally:
            with trio.CancelScope(shield=True):
                await self._save()

    async def _save(self) -> None:
        await trio.to_thread.run_sync(self.node.store.keep_witness, dict(self.node.witness.seconds))


@asynccontextmanager
async def join_pool(node: Node, config: P2pTable, metrics: Metrics) -> AsyncIterator[Gossiping]:
    """Open the node's transport for the duration of the block.

    Raises:
        ListenFailedError: an address of `p2p.listen` cannot be listened on.
    """
    settings = TransportConfig(
        listen=config.listen,
        announce=config.announce,
        topic=topic(node.pool),
        gossip_bytes_max=GOSSIP_BYTES_MAX,
        request_bytes_max=sync.REQUEST_BYTES_MAX,
        response_bytes_max=sync.RESPONSE_BYTES_MAX,
    )

    async def answer(peer: bytes, request: bytes) -> bytes:
        return await serve.serve(node, peer, request)

    async with open_transport(node.key.seed, settings, serve=answer) as transport:
        yield Gossiping(node, transport, config, metrics)
