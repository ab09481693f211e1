"""The Python side: whole nodes on real transports, with stores in memory and a chain that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio
from node_pool import NOW_S, MemoryStore
from pool_fixture import POOL, Chain, frame, key, operator_set, policy, verdict

from gossip import sync
from gossip.epoch_events import Advanced, Finalize, Submit
from gossip.node import Node, open_node
from gossip.pull import Puller
from gossip.serve import answer_bytes_max, serve
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import GOSSIP_BYTES_MAX, topic

VIEW_OPENS_S = 25
WITNESSED_S = 10**5
NEVER_S = 10.0**6


@dataclass
class Member:
    """One node of ours on its transport."""

    i: int
    node: Node
    store: MemoryStore
    transport: Transport
    puller: Puller = field(init=False)

    def __post_init__(self) -> None:
        # It fetches what evidence and notices name; all else is asked for where a check wants it.
        self.puller = Puller(
            self.node, self.transport, self.connected, sync_interval_s=NEVER_S, close_interval_s=NEVER_S
        )

    def connected(self) -> list[bytes]:
        return [peer.node_key for peer in self.transport.peers() if peer.connected and peer.in_roster]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._publish)
            nursery.start_soon(self.puller.run)

    async def _receive(self) -> None:
        async for message in self.transport.messages:
            await self.node.take_gossip(message.data, message.origin)

    async def _publish(self) -> None:
        async for data in self.node.outbox:
            await self.transport.publish(data)


@asynccontextmanager
async def open_members(count: int, n: int) -> AsyncIterator[list[Member]]:
    """Nodes 0 to `count - 1` of a pool of `n` participants, all of which are operators; `introduce` connects them."""
    began = trio.current_time()
    participants = [key(i).public for i in range(n)]
    async with AsyncExitStack() as stack:
        members = []
        for i in range(count):
            store = MemoryStore()
            node = open_node(
                key(i),
                POOL,
                policy(),
                store,
                verdict,
                participants=participants,
                now_s=lambda: NOW_S + int(trio.current_time() - began),
            )
            members.append(Member(i, node, store, await stack.enter_async_context(_transport(node))))
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member.run)
            yield members
            nursery.cancel_scope.cancel()


def _transport(node: Node):  # type: ignore[no-untyped-def]
    async def answer(peer: bytes, request: bytes) -> bytes:
        return await serve(node, peer, request)

    config = TransportConfig(
        listen=("/ip4/127.0.0.1/tcp/0",),
        topic=topic(POOL),
        gossip_bytes_max=GOSSIP_BYTES_MAX,
        request_bytes_max=sync.REQUEST_BYTES_MAX,
        response_bytes_max=sync.RESPONSE_BYTES_MAX,
    )
    return open_transport(node.key.seed, config, serve=answer, answer_bytes_max=answer_bytes_max)


def introduce(members: Sequence[Member], others: dict[bytes, Sequence[str]], n: int) -> None:
    """Have our nodes keep all of the pool connected; `others` are the addresses of peers that are not ours."""
    known = {member.node.key.public: member.transport.addresses for member in members} | others
    roster = {key(i).public: known.get(key(i).public, ()) for i in range(n)}
    for member in members:
        member.transport.set_roster(roster)


class EpochEnd:
    """The chain at the end of epoch 1, as all of our nodes see it."""

    def __init__(self, members: Sequence[Member], n: int) -> None:
        self.n = n
        self.chain = Chain(operator_set(n))
        self._members = members

    async def begin(self) -> None:
        """The epoch is over and is finalized; its close opens, view 0 does not yet."""
        self.chain.now_s = self.chain.end_s
        self.chain.finalize(1)
        await self.move(VIEW_OPENS_S - 12)

    async def move(self, seconds: int) -> None:
        """Let so much time of the chain pass, and perform what the nodes ask of it."""
        self.chain.now_s += seconds
        for member in self._members:
            await member.node.handle(self._seen())
            while member.node.chain_actions.statistics().current_buffer_used:
                match member.node.chain_actions.receive_nowait():
                    case Submit() as submit:
                        self.chain.submit(submit)
                    case Finalize(epoch):
                        self.chain.finalize(epoch)

    def _seen(self) -> Advanced:
        open_frame = frame(self.n, self.chain.open[0].epoch) if self.chain.open else None
        return Advanced(
            view=self.chain.view(),
            operators=self.chain.operators,
            frame=open_frame,
            witnessed_s={key(i).public: WITNESSED_S for i in range(self.n)},
        )
