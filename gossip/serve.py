"""Answers to peers' requests on the direct stream. Every request is untrusted; every answer is bounded.

How long an answer may be is known from its request alone (`answer_bytes_max`), so that room is held for no more.

Source: `gossip.sync` for the requests; PROTOCOL, "Spreading".
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import islice

import trio

from gossip import sync
from gossip.epoch_events import ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import RecordRange
from gossip.messages import OBSERVATION_BYTES_MAX
from gossip.node import Node
from gossip.records import ATTACHMENT_BYTES_MAX
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

log = logging.getLogger(__name__)

ITEM_BYTES = 5
"""What msgpack writes before a byte string or an array."""
HEAD_BYTES = 78
"""A watermark: two byte strings of 32, a number, and what is written before them."""
OBJECT_BYTES = {
    "observation": OBSERVATION_BYTES_MAX,
    "checkpoint": sync.RESPONSE_BYTES_MAX - ITEM_BYTES,
    "attachment": ATTACHMENT_BYTES_MAX,
}
"""The most that is sent of each kind."""


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
            return sync.encode_heads(node.head_index.differing(node.heads(), digests))
        case RecordsRequest(ranges):
            return await trio.to_thread.run_sync(lambda: sync.encode_records(_wires(node, ranges)))
        case ObjectRequest(wanted):
            held = node.machine.observation(wanted.id)
            if held is not None and wanted.kind == "observation":
                # Not durable here, perhaps, but its maker signed it, and others wait for it.
                return sync.encode_object(held.wire)
            return sync.encode_object(await trio.to_thread.run_sync(_object, node, wanted))
        case CloseRequest(epoch, have):
            # In another order each time: whoever fills an answer with its own messages hides no others for long.
            messages = list(node.machine.messages(epoch))
            random.shuffle(messages)
            return sync.encode_close(sync.close_state(messages, have))
        case PingRequest():
            return sync.encode_pong(parsed)
        case AddressesRequest():
            return sync.encode_page(_addresses(node, peer, parsed))


def answer_bytes_max(request: bytes) -> int:
    """The most bytes that the answer to `request` may have; 0 if it is malformed, for then there is none."""
    try:
        parsed = sync.parse_request(request)
    except InvalidMessageError:
        return 0
    match parsed:
        case WatermarksRequest():
            return sync.LOGS_MAX * HEAD_BYTES + ITEM_BYTES
        case RecordsRequest():
            return sync.RECORDS_BYTES_MAX + (sync.RECORDS_MAX + 1) * ITEM_BYTES
        case ObjectRequest(wanted):
            return OBJECT_BYTES[wanted.kind] + ITEM_BYTES
        case CloseRequest():
            return sync.CLOSE_BYTES_MAX + (3 * sync.MESSAGES_MAX + 4) * ITEM_BYTES
        case PingRequest():
            return sync.NONCE_BYTES + ITEM_BYTES
        case AddressesRequest():
            return sync.PAGE_BYTES_MAX + (sync.PAGE_RECORDS_MAX + 3) * ITEM_BYTES


def _object(node: Node, wanted: ObjectId) -> bytes | None:
    find = {
        "observation": node.store.observation,
        "checkpoint": node.store.checkpoint,
        "attachment": node.store.attachment,
    }[wanted.kind]
    data = find(wanted.id)
    if data is None or len(data) <= OBJECT_BYTES[wanted.kind]:
        return data
    # Nobody is at fault: the pool outgrew this protocol version, and whoever was away cannot catch up from peers.
    reason = f"{wanted.kind}: larger than an answer"
    if not node.drops[reason]:
        log.error("%s (%d bytes): a node that lacks it cannot get it from here", reason, len(data))
    node.drops[reason] += 1
    return None


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
