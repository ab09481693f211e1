"""Anti-entropy: what peers ask of one another over direct streams, so that nothing relies on gossip.

Decides the bytes of requests and responses, and what to ask for after seeing a peer's watermarks. Both
sides' bytes are untrusted; a response is checked against the request that it answers.

| request | response |
|---|---|
| watermarks: mine, per log (node key, last number, last hash) | the peer's |
| records: ranges (node key, first, last) | record wires, ascending per log, as many as fit |
| object: kind, id | its bytes, or nil |
| close: epoch | observation digests; proposal wires; attest wires |

Source: PROTOCOL, "Spreading" and invariant 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gossip import codec
from gossip.epoch_events import ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head, LogBook, RecordRange
from gossip.messages import ATTEST_BYTES_MAX, PROPOSAL_BYTES_MAX
from gossip.records import RECORD_BYTES_MAX

TAG = "gpupool/sync/1"
REQUEST_BYTES_MAX = 1024 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024
RECORDS_BYTES_MAX = 1024 * 1024
LOGS_MAX = 12_000
RANGES_MAX = 256
RECORDS_MAX = 2_000
MESSAGES_MAX = 2_000

OBJECT_KINDS = ("observation", "checkpoint", "attachment")


@dataclass(frozen=True, slots=True)
class WatermarksRequest:
    """The asker's head per log; the answer is the responder's."""

    heads: Mapping[bytes, Head]


@dataclass(frozen=True, slots=True)
class RecordsRequest:
    ranges: tuple[RecordRange, ...]


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    object: ObjectId


@dataclass(frozen=True, slots=True)
class CloseRequest:
    epoch: int


Request: TypeAlias = WatermarksRequest | RecordsRequest | ObjectRequest | CloseRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseState:
    """What a peer holds of an epoch's close. Proposals and attests come whole, observations by digest."""

    observations: tuple[bytes, ...] = ()
    proposals: tuple[bytes, ...] = ()
    attests: tuple[bytes, ...] = ()


def wanted_after(mine: LogBook, theirs: Mapping[bytes, Head]) -> tuple[RecordRange, ...]:
    """The ranges to fetch from a peer whose heads are `theirs`; logs that are not kept here are ignored.

    A head of the same number but another hash is a fork: the range above the base is asked for.
    """
    ranges: list[RecordRange] = []
    for node_key, head in theirs.items():
        if node_key not in mine or len(ranges) == RANGES_MAX:
            continue
        log = mine[node_key]
        if head.seq > log.head.seq:
            ranges.append(RecordRange(node_key, log.head.seq + 1, head.seq))
        elif head.seq > log.base.seq and not log.holds(head):
            ranges.append(RecordRange(node_key, log.base.seq + 1, head.seq))
    return tuple(ranges)


def encode_request(request: Request) -> bytes:
    match request:
        case WatermarksRequest(heads):
            body: codec.Value = ("watermarks", _write_heads(heads))
        case RecordsRequest(ranges):
            body = ("records", tuple((r.node_key, r.first, r.last) for r in ranges[:RANGES_MAX]))
        case ObjectRequest(wanted):
            body = ("object", (wanted.kind, wanted.id))
        case CloseRequest(epoch):
            body = ("close", epoch)
    return codec.encode((TAG, body))


def parse_request(data: bytes) -> Request:
    """Read a peer's request.

    Raises:
        InvalidMessageError: malformed, too long, or of another protocol version.
    """
    tag, body = codec.as_array(codec.decode(data, bytes_max=REQUEST_BYTES_MAX), "request", 2)
    if tag != TAG:
        raise InvalidMessageError("request: of another protocol version")
    name, value = codec.as_array(body, "request", 2)
    match name:
        case "watermarks":
            return WatermarksRequest(_read_heads(value))
        case "records":
            return RecordsRequest(tuple(_read_range(r) for r in codec.as_array(value, "ranges", length_max=RANGES_MAX)))
        case "object":
            kind, key = codec.as_array(value, "object", 2)
            if kind not in OBJECT_KINDS:
                raise InvalidMessageError("object: of an unknown kind")
            return ObjectRequest(ObjectId(kind=str(kind), id=codec.as_bytes(key, "id", 32)))
        case "close":
            return CloseRequest(codec.as_uint(value, "epoch", 32))
        case _:
            raise InvalidMessageError("request: of an unknown name")


def encode_heads(heads: Mapping[bytes, Head]) -> bytes:
    return codec.encode(_write_heads(heads))


def parse_heads(data: bytes) -> Mapping[bytes, Head]:
    """Read the answer to a `WatermarksRequest`.

    Raises:
        InvalidMessageError: malformed or too long.
    """
    return _read_heads(codec.decode(data, bytes_max=RESPONSE_BYTES_MAX))


def encode_records(wires: Iterable[bytes]) -> bytes:
    """Pack record wires until the answer's limit is reached; the asker asks again for the rest."""
    packed: list[bytes] = []
    size = 0
    for wire in wires:
        size += len(wire)
        if packed and (size > RECORDS_BYTES_MAX or len(packed) == RECORDS_MAX):
            break
        packed.append(wire)
    return codec.encode(packed)


def parse_records(data: bytes) -> tuple[bytes, ...]:
    """Read the answer to a `RecordsRequest`.

    Raises:
        InvalidMessageError: malformed or too long.
    """
    return _read_wires(codec.decode(data, bytes_max=RESPONSE_BYTES_MAX), RECORDS_MAX, RECORD_BYTES_MAX)


def encode_object(data: bytes | None) -> bytes:
    return codec.encode(data)


def parse_object(data: bytes) -> bytes | None:
    """Read the answer to an `ObjectRequest`; None: the peer does not have it.

    Raises:
        InvalidMessageError: malformed or too long.
    """
    return codec.as_optional_bytes(
        codec.decode(data, bytes_max=RESPONSE_BYTES_MAX), "object", length_max=RESPONSE_BYTES_MAX
    )


def encode_close(state: CloseState) -> bytes:
    return codec.encode((state.observations, state.proposals, state.attests))


def parse_close(data: bytes) -> CloseState:
    """Read the answer to a `CloseRequest`.

    Raises:
        InvalidMessageError: malformed or too long.
    """
    observations, proposals, attests = codec.as_array(codec.decode(data, bytes_max=RESPONSE_BYTES_MAX), "close", 3)
    digests = codec.as_array(observations, "observations", length_max=MESSAGES_MAX)
    return CloseState(
        observations=tuple(codec.as_bytes(digest, "digest", 32) for digest in digests),
        proposals=_read_wires(proposals, MESSAGES_MAX, PROPOSAL_BYTES_MAX),
        attests=_read_wires(attests, MESSAGES_MAX, ATTEST_BYTES_MAX),
    )


def _write_heads(heads: Mapping[bytes, Head]) -> codec.Value:
    return tuple((node_key, head.seq, head.hash) for node_key, head in sorted(heads.items()))


def _read_heads(value: codec.Value) -> dict[bytes, Head]:
    heads = {}
    for item in codec.as_array(value, "watermarks", length_max=LOGS_MAX):
        node_key, seq, key = codec.as_array(item, "watermark", 3)
        heads[codec.as_bytes(node_key, "node_key", 32)] = Head(
            codec.as_uint(seq, "seq"), codec.as_bytes(key, "hash", 32)
        )
    return heads


def _read_range(value: codec.Value) -> RecordRange:
    node_key, first, last = codec.as_array(value, "range", 3)
    return RecordRange(
        codec.as_bytes(node_key, "node_key", 32), codec.as_uint(first, "first"), codec.as_uint(last, "last")
    )


def _read_wires(value: codec.Value, count_max: int, bytes_max: int) -> tuple[bytes, ...]:
    items: Sequence[codec.Value] = codec.as_array(value, "wires", length_max=count_max)
    return tuple(codec.as_bytes(item, "wire", length_max=bytes_max) for item in items)
