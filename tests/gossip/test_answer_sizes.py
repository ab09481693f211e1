"""Room for an answer is held by what was asked: no answer is longer than its request allows, and a ping needs none."""

from __future__ import annotations

import logging

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from node_pool import Network, inline
from pool_fixture import Author, key

from gossip import serve, sync
from gossip.epoch_events import ObjectId
from gossip.log_chain import Head, RecordRange
from gossip.records import ATTACHMENT_BYTES_MAX, RECORD_BYTES_MAX
from gossip.serve import answer_bytes_max
from gossip.serving import SMALL_BYTES_MAX
from gossip.sync import (
    ADDRESS_RANGES,
    RANGE_DIGEST_BYTES,
    AddressesRequest,
    AddressPage,
    CloseRequest,
    CloseState,
    ObjectRequest,
    PingRequest,
    RecordsRequest,
    Request,
    WatermarksRequest,
)

PING = PingRequest(bytes(32))
WATERMARKS = WatermarksRequest(bytes(RANGE_DIGEST_BYTES))
RECORDS = RecordsRequest((RecordRange(key(0).public, 1, 1000),))
CLOSE = CloseRequest(1, b"")
ADDRESSES = AddressesRequest(first=0, digests=bytes(ADDRESS_RANGES * RANGE_DIGEST_BYTES), own=None)
OBJECTS = [ObjectRequest(ObjectId(kind=kind, id=bytes(32))) for kind in sync.OBJECT_KINDS]
FULL_CLOSE = CloseState(
    observations=(bytes(32),) * sync.MESSAGES_MAX,
    proposals=(bytes((sync.CLOSE_BYTES_MAX - 34_000 * 2) // sync.MESSAGES_MAX),) * sync.MESSAGES_MAX,
    attests=(bytes(1),) * sync.MESSAGES_MAX,
)
LARGEST: dict[Request, bytes] = {
    PING: sync.encode_pong(PING),
    WATERMARKS: sync.encode_heads(
        {n.to_bytes(32, "big"): Head((1 << 63) - 1, bytes(32)) for n in range(sync.LOGS_MAX)}
    ),
    RECORDS: sync.encode_records([bytes(sync.RECORDS_BYTES_MAX // sync.RECORDS_MAX)] * sync.RECORDS_MAX),
    RecordsRequest(()): sync.encode_records([bytes(RECORD_BYTES_MAX)] * sync.RECORDS_MAX),
    CLOSE: sync.encode_close(FULL_CLOSE),
    ADDRESSES: sync.encode_page(
        AddressPage(
            next=ADDRESS_RANGES,
            wires=(bytes(sync.PAGE_BYTES_MAX // sync.PAGE_RECORDS_MAX),) * sync.PAGE_RECORDS_MAX,
        )
    ),
} | {wanted: sync.encode_object(bytes(serve.OBJECT_BYTES[wanted.object.kind])) for wanted in OBJECTS}


@pytest.mark.parametrize("request_", LARGEST, ids=lambda request: type(request).__name__)
def test_the_largest_answer_is_allowed_and_nothing_much_larger(request_: Request) -> None:
    allowed = answer_bytes_max(sync.encode_request(request_))
    assert len(LARGEST[request_]) <= allowed <= sync.RESPONSE_BYTES_MAX
    assert allowed <= 1.2 * len(LARGEST[request_]) + 8


def test_a_sign_of_life_is_small_and_nothing_else_is() -> None:
    request = sync.encode_request(PING)
    assert max(len(request), answer_bytes_max(request)) <= SMALL_BYTES_MAX
    for other in LARGEST.keys() - {PING}:
        assert answer_bytes_max(sync.encode_request(other)) > SMALL_BYTES_MAX


@given(st.binary(max_size=200))
def test_it_takes_whatever_a_peer_sends(data: bytes) -> None:
    assert answer_bytes_max(data) in {0, *map(answer_bytes_max, map(sync.encode_request, LARGEST))}


@pytest.fixture
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.mark.usefixtures("_inline_threads")
async def test_every_answer_of_a_node_keeps_to_it() -> None:
    network = Network(2)
    author = Author(0)
    author.prove()
    for _ in range(20):
        author.work(seconds=1)
    node = network.members[0].node
    await node.take_records([record.wire for record in author.records])
    for asked in LARGEST:
        request = sync.encode_request(asked)
        assert len(await serve.serve(node, key(1).public, request)) <= answer_bytes_max(request)


@pytest.mark.usefixtures("_inline_threads")
async def test_what_fits_no_answer_is_not_sent_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    member = Network(1).members[0]
    member.store.objects[bytes(32)] = bytes(ATTACHMENT_BYTES_MAX + 1)
    wanted = sync.encode_request(ObjectRequest(ObjectId(kind="attachment", id=bytes(32))))
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert sync.parse_object(await serve.serve(member.node, key(0).public, wanted)) is None
    assert member.node.drops == {"attachment: larger than an answer": 2}
    assert caplog.text.count("larger than an answer") == 1
