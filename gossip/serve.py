"""Answers to peers' requests on the direct stream. Every request is untrusted; every answer is bounded.

Source: `gossip.sync` for the requests; PROTOCOL, "Spreading".
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import trio

from gossip import sync
from gossip.errors import InvalidMessageError
from gossip.log_chain import RecordRange
from gossip.node import Node
from gossip.sync import (
    ADDRESS_RANGES,
    AddressesRequest,
    AddressPage,
    CloseRequest,
    ObjectRequest,
    PingRequest,
    RecordsRequest,
    WatermarksRequest,
)


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
    match parsed:
        case WatermarksRequest(digests):
            return sync.encode_heads(sync.heads_that_differ(node.heads(), digests))
        case RecordsRequest(ranges):
            return await trio.to_thread.run_sync(lambda: sync.encode_records(_wires(node, ranges)))
        case ObjectRequest(wanted):
            held = node.machine.observation(wanted.id)
            if held is not None and wanted.kind == "observation":
                # Not durable here, perhaps, but its maker signed it, and others wait for it.
                return sync.encode_object(held.wire)
            find = {
                "observation": node.store.observation,
                "checkpoint": node.store.checkpoint,
                "attachment": node.store.attachment,
            }[wanted.kind]
            return sync.encode_object(await trio.to_thread.run_sync(find, wanted.id))
        case CloseRequest(epoch, have):
            # In another order each time: whoever fills an answer with its own messages hides no others for long.
            messages = list(node.machine.messages(epoch))
            random.shuffle(messages)
            return sync.encode_close(sync.close_state(messages, have))
        case PingRequest():
            return sync.encode_pong(parsed)
        case AddressesRequest():
            return sync.encode_page(_addresses(node, peer, parsed))


def _addresses(node: Node, peer: bytes, request: AddressesRequest) -> AddressPage:
    """Where others are is told to those who are registered, and to nobody else."""
    if peer not in node.registered:
        return AddressPage(next=ADDRESS_RANGES, wires=())
    if request.own is not None:
        node.take_address(request.own)
    return node.addresses.page(request.first, request.digests)


def _wires(node: Node, ranges: tuple[RecordRange, ...]) -> Iterator[bytes]:
    for wanted in ranges:
        yield from islice(node.store.records(wanted.node_key, wanted.first, wanted.last), sync.RECORDS_MAX)
