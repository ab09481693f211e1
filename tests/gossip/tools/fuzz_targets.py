"""What is fuzzed of the wire: each target takes any bytes and may raise nothing but `GossipError`.

Seeds are bytes that the code itself writes. Where it is cheap, a target says more: what was read is written again and
must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from pool_fixture import POOL, START_S, Author, evidence, key, policy

from gossip import sync
from gossip.addresses import make_address_record, parse_address_record, verify_address_record
from gossip.epoch_events import ObjectId
from gossip.hello import Hello, Sighting, encode_hello, make_instance, parse_hello
from gossip.log_chain import GENESIS, Head, RecordRange
from gossip.messages import ListedObservation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.receipts import make_receipt
from gossip.records import ReceiptBody, parse_record, verify_record
from gossip.settlement import Settlement, encode_checkpoint, verify_checkpoint
from gossip.sync import AddressesRequest, AddressPage, CloseRequest, CloseState, ObjectRequest, PingRequest
from gossip.wire import RECORD, encode_gossip, parse_gossip, parse_message, parse_notice
from tests.attestation.tools.fuzz_targets import Target
from tests.gossip.tools import close_drawn

PAGE_REQUEST = AddressesRequest(first=0, digests=bytes(sync.ADDRESS_RANGES * sync.RANGE_DIGEST_BYTES), own=None)


def _request(data: bytes) -> None:
    assert sync.encode_request(sync.parse_request(data)) == data


def _close(data: bytes) -> None:
    assert sync.encode_close(sync.parse_close(data)) == data


def _page(data: bytes) -> None:
    assert sync.encode_page(sync.parse_page(data, PAGE_REQUEST)) == data


def _hello(data: bytes) -> None:
    read = parse_hello(data, POOL, peer=key(0).public, own=key(1).public)
    assert encode_hello(read) == data or len(data) > len(encode_hello(read))  # a newer peer says more


def _record(data: bytes) -> None:
    assert verify_record(parse_record(data, POOL)).wire == data


def _gossip(data: bytes) -> None:
    assert encode_gossip(*parse_gossip(data)) == data


@cache
def _outcome() -> Settlement:
    return close_drawn.said_of_one_epoch().outcome


def _checkpoint(data: bytes) -> None:
    assert encode_checkpoint(verify_checkpoint(data, _outcome().payload_hash)) == data


def _requests() -> Sequence[bytes]:
    heads = {key(i).public: Head(1, bytes(32)) for i in range(3)}
    own = make_address_record(key(0), POOL, issued_s=0, addresses=["/ip4/203.0.113.7/tcp/4001"])
    return [
        sync.encode_request(sync.WatermarksRequest(sync.digest_heads(heads))),
        sync.encode_request(sync.RecordsRequest((RecordRange(key(0).public, 1, 2),))),
        sync.encode_request(ObjectRequest(ObjectId(kind="checkpoint", id=bytes(32)))),
        sync.encode_request(CloseRequest(7, bytes(16))),
        sync.encode_request(PingRequest(bytes(32))),
        sync.encode_request(AddressesRequest(first=3, digests=PAGE_REQUEST.digests, own=own)),
    ]


def _hellos() -> Sequence[bytes]:
    instances = [make_instance(key(i), POOL, instance=bytes(16), started_s=START_S, said_s=START_S) for i in range(2)]
    seen = (Sighting(instance=instances[1], ago_s=1, address="203.0.113.7:4001"),)
    return [
        encode_hello(
            Hello(
                protocols=(1,), tallies=(1, 2), agent="a", policies=(bytes(32),), instance=instances[0], sightings=each
            )
        )
        for each in ((), seen)
    ]


def _records() -> Sequence[bytes]:
    author = Author(0)
    claim = make_receipt(key(1), POOL, key(0).public, job_id=b"job", time_s=START_S, tokens=1)
    return [author.append(evidence()).wire, author.work().wire, author.append(ReceiptBody((claim,))).wire]


def _observation() -> bytes:
    log = ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0)
    made = make_observation(
        key(0), POOL, epoch=1, set_id=1, policy_hash=policy().hash, base=bytes(32), logs={key(0).public: log}, forks=()
    )
    return made.wire


def _proposal() -> bytes:
    listed = (ListedObservation(index=0, digest=bytes(32)),)
    return make_proposal(key(0), POOL, epoch=1, view=0, set_id=1, listed=listed, cert_hash=bytes(32)).wire


def _message(kind: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        assert parse_message(kind, data, POOL).wire == data

    return run


TARGETS = {
    "wire_request": Target(run=_request, seeds=_requests, words=[b"watermarks", b"addresses", b"close", b"object"]),
    "wire_hello": Target(run=_hello, seeds=_hellos, words=[b"gpupool/hello/1", b"gpupool/instance/1"]),
    "wire_record": Target(run=_record, seeds=_records, words=[b"gpupool/record/1"]),
    "wire_observation": Target(run=_message("observation"), seeds=lambda: [_observation()]),
    "wire_proposal": Target(run=_message("proposal"), seeds=lambda: [_proposal()]),
    "wire_attest": Target(
        run=_message("attest"), seeds=lambda: [make_attest(key(0), POOL, epoch=1, cert_hash=bytes(32)).wire]
    ),
    "wire_address": Target(
        run=lambda data: verify_address_record(parse_address_record(data, POOL)),
        seeds=lambda: [make_address_record(key(0), POOL, issued_s=0, addresses=["/dns4/a.example/tcp/4001"])],
    ),
    "wire_gossip": Target(run=_gossip, seeds=lambda: [encode_gossip(RECORD, b"\x92\x01\x02")]),
    "wire_notice": Target(run=parse_notice, seeds=lambda: [b"\x92\x07\xc4\x20" + bytes(32)]),
    "wire_heads": Target(run=sync.parse_heads, seeds=lambda: [sync.encode_heads({key(0).public: Head(1, bytes(32))})]),
    "wire_records": Target(run=sync.parse_records, seeds=lambda: [sync.encode_records([b"one", b"two"])]),
    "wire_object": Target(run=sync.parse_object, seeds=lambda: [sync.encode_object(b"one"), sync.encode_object(None)]),
    "wire_close": Target(
        run=_close,
        seeds=lambda: [sync.encode_close(CloseState(observations=(bytes(32),), proposals=(b"p",), attests=(b"a",)))],
    ),
    "wire_pong": Target(
        run=lambda data: sync.require_pong(data, bytes(32)), seeds=lambda: [sync.encode_pong(PingRequest(bytes(32)))]
    ),
    "wire_page": Target(run=_page, seeds=lambda: [sync.encode_page(AddressPage(next=9, wires=(b"one",)))]),
    "wire_checkpoint": Target(run=_checkpoint, seeds=lambda: [encode_checkpoint(_outcome())]),
}
"""By name; those of attestation share the table of `make fuzz`."""
