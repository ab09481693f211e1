"""Answers to peers' requests on the direct stream. Every request is untrusted; every answer is bounded.

Source: `gossip.sync` for the requests; PROTOCOL, "Spreading".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import trio

from gossip import sync
from gossip.errors import InvalidMessageError
from gossip.log_chain import RecordRange
from gossip.messages import Attest, Observation, Proposal
from gossip.node import Node
from gossip.sync import CloseRequest, CloseState, ObjectRequest, RecordsRequest, WatermarksRequest


async def serve(node: Node, peer: bytes, request: bytes) -> bytes:
    """Answer one request of the peer with this node key.

    Raises:
        InvalidMessageError: the request is malformed; it is counted, and the stream is reset.
    """
    try:
        parsed = sync.parse_request(request)
    except InvalidMessageError as error:
        node.drop("request", error)
        raise
    node.witness.hear(peer, node.now_s())
    match parsed:
        case WatermarksRequest():
            return sync.encode_heads({node_key: node.logs[node_key].head for node_key in node.logs})
        case RecordsRequest(ranges):
            return await trio.to_thread.run_sync(lambda: sync.encode_records(_wires(node, ranges)))
        case ObjectRequest(wanted):
            held = _observation(node, wanted.id) if wanted.kind == "observation" else None
            if held is not None:
                return sync.encode_object(held)
            find = {
                "observation": node.store.observation,
                "checkpoint": node.store.checkpoint,
                "attachment": node.store.attachment,
            }[wanted.kind]
            return sync.encode_object(await trio.to_thread.run_sync(find, wanted.id))
        case CloseRequest(epoch):
            return sync.encode_close(_close_state(node, epoch))


def _observation(node: Node, digest: bytes) -> bytes | None:
    """One of the close that is held in memory: not durable here, but its maker signed it, and others wait for it."""
    progress = node.machine.progress()
    held = node.machine.messages(progress.epoch) if progress is not None else ()
    return next((m.wire for m in held if isinstance(m, Observation) and m.digest == digest), None)


def _wires(node: Node, ranges: tuple[RecordRange, ...]) -> Iterator[bytes]:
    for wanted in ranges:
        yield from islice(node.store.records(wanted.node_key, wanted.first, wanted.last), sync.RECORDS_MAX)


def _close_state(node: Node, epoch: int) -> CloseState:
    messages = node.machine.messages(epoch)
    return CloseState(
        observations=tuple(m.digest for m in messages if isinstance(m, Observation)),
        proposals=tuple(m.wire for m in messages if isinstance(m, Proposal)),
        attests=tuple(m.wire for m in messages if isinstance(m, Attest)),
    )
