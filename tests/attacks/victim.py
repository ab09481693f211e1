"""The process that is attacked: one node with the real transport, its store in memory, and its peers' answers.

    python -m tests.attacks.victim ROSTER...    (node key, as hex, and maybe =multiaddr, of each peer)

Prints one JSON line when it listens, and another for every line that it reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

import trio
from node_pool import NOW_S, MemoryStore
from pool_fixture import POOL, Author, key, policy, verdict

from gossip import sync
from gossip.node import Node, open_node
from gossip.serve import answer_bytes_max, serve
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import GOSSIP_BYTES_MAX, topic

LARGE = b"\x11" * 32
"""Hash under which the store has a checkpoint that fills an answer."""
RECORDS = 900
RECORDS_OWNER = 1


class LargeStore(MemoryStore):
    """Has a checkpoint of the largest size, as a pool of ten thousand would."""

    def checkpoint(self, payload_hash: bytes) -> bytes | None:
        return bytes(sync.RESPONSE_BYTES_MAX - 64) if payload_hash == LARGE else None


def stock(store: MemoryStore) -> None:
    """Give the store a log that is costly to answer with."""
    author = Author(RECORDS_OWNER)
    author.prove()
    for _ in range(RECORDS):
        author.work()
    store.append(author.records)


async def run(roster: dict[bytes, list[str]]) -> None:
    store = LargeStore()
    stock(store)
    node = open_node(
        key(0),
        POOL,
        policy(),
        store,
        verdict,
        participants=[key(0).public, *roster],
        now_s=lambda: NOW_S,
    )
    config = TransportConfig(
        listen=("/ip4/127.0.0.1/tcp/0",),
        topic=topic(POOL),
        gossip_bytes_max=GOSSIP_BYTES_MAX,
        request_bytes_max=sync.REQUEST_BYTES_MAX,
        response_bytes_max=sync.RESPONSE_BYTES_MAX,
    )
    async with (
        open_transport(
            key(0).seed,
            config,
            serve=lambda peer, request: serve(node, peer, request),
            answer_bytes_max=answer_bytes_max,
        ) as transport,
        trio.open_nursery() as nursery,
    ):
        transport.set_roster(roster)
        nursery.start_soon(take_gossip, node, transport)
        say({"address": transport.addresses[0], "node_key": node.key.public.hex()})
        stdin = trio.wrap_file(sys.stdin)
        while await stdin.readline():
            say(figures(node, transport))
        nursery.cancel_scope.cancel()


async def take_gossip(node: Node, transport: Transport) -> None:
    async for message in transport.messages:
        await node.take_gossip(message.data)


def figures(node: Node, transport: Transport) -> dict[str, Any]:
    connections = transport._host.get_network().get_connections()
    return {
        "connections": len(connections),
        "streams": sum(len(connection.muxed_conn.streams) for connection in connections),
        "unread": sum(len(b) for c in connections for b in c.muxed_conn.stream_buffers.values()),
        "open": [row for connection in connections for row in described(connection)],
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "serving": transport._exchange.admission.held(),
        "counters": dict(transport.counters),
        "drops": node.drops.total(),
    }


def described(connection: Any) -> list[str]:
    """The streams of a connection, for whoever has to find out which one stayed."""
    protocols = {held.muxed_stream.stream_id: held.get_protocol() for held in connection.get_streams()}
    peer = str(connection.muxed_conn.peer_id)[-4:]
    return [
        f"{peer}/{number} {protocols.get(number, 'not held')} ours={stream.is_initiator} "
        f"closed={stream.send_closed:d}{stream.recv_closed:d}{stream.closed:d} reset={stream.reset_received}"
        for number, stream in connection.muxed_conn.streams.items()
    ]


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


def main() -> None:
    peers = [argument.partition("=") for argument in sys.argv[1:]]
    trio.run(run, {bytes.fromhex(name): [address] if address else [] for name, _, address in peers})


if __name__ == "__main__":
    main()
