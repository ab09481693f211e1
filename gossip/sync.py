"""Anti-entropy: what peers ask of one another over direct streams, so that nothing relies on gossip.

Decides the bytes of requests and responses, and what to ask for after seeing a peer's watermarks. Both
sides' bytes are untrusted; a response is checked against the request that it answers.

| request | response |
|---|---|
| watermarks: digests of what the asker holds, by range of keys | the peer's heads in ranges that differ |
| records: ranges (node key, first, last) | record wires, ascending per log, as many as fit |
| object: kind, id | its bytes, or nil |
| close: epoch, ids of what the asker holds | of the rest: observation digests; proposal wires; attest wires |
| ping: nonce | the nonce |
| addresses: first range, digest of each range, own address record | next range; address records |

Source: PROTOCOL, "Spreading" and invariant 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from gossip import codec
from gossip.addresses import ADDRESS_BYTES_MAX
from gossip.epoch_events import Message, ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head, LogBook, RecordRange
from gossip.messages import ATTEST_BYTES_MAX, PROPOSAL_BYTES_MAX, Attest, Observation, Proposal
from gossip.records import RECORD_BYTES_MAX

TAG = "gpupool/sync/1"
REQUEST_BYTES_MAX = 128 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024
RECORDS_BYTES_MAX = 1024 * 1024
LOGS_MAX = 12_000
"""Logs in watermarks."""
RANGES_MAX = 256
RECORDS_MAX = 2_000
MESSAGES_MAX = 2_000
CLOSE_BYTES_MAX = 1024 * 1024
SHORT_ID_BYTES = 8
"""Names a message among those of one epoch's close; whoever makes two of one name harms nobody else's."""
HAVE_BYTES_MAX = 64 * 1024
HEAD_RANGES_MAX = 256
"""Heads are compared in so many ranges of keys at most; a small pool's in fewer."""
LOGS_PER_RANGE = 4
NONCE_BYTES = 32
ADDRESS_RANGES = 256
"""Address records are compared in ranges, by the first byte of their key."""
RANGE_DIGEST_BYTES = 8
PAGE_BYTES_MAX = 1024 * 1024
"""The address records on a page."""
PAGE_RECORDS_MAX = 12_000
"""Address records on a page."""

OBJECT_KINDS = ("observation", "checkpoint", "attachment")


@dataclass(frozen=True, slots=True)
class WatermarksRequest:
    """What the asker holds, as `digest_heads` gives it; the answer are the responder's heads where it differs."""

    digests: bytes


@dataclass(frozen=True, slots=True)
class RecordsRequest:
    ranges: tuple[RecordRange, ...]


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    object: ObjectId


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """What the asker lacks of an epoch's close. `have` are the short ids of what it holds, one after another."""

    epoch: int
    have: bytes


@dataclass(frozen=True, slots=True)
class PingRequest:
    """A sign of life is asked for; `nonce` are 32 random bytes."""

    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressesRequest:
    """What the asker lacks of the address records in ranges from `first` on.

    `digests` are `ADDRESS_RANGES` times `RANGE_DIGEST_BYTES`: what the asker holds; `own` is its own record.
    """

    first: int
    digests: bytes
    own: bytes | None


Request: TypeAlias = WatermarksRequest | RecordsRequest | ObjectRequest | CloseRequest | PingRequest | AddressesRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPage:
    """Address records of ranges that differ, up to `next`, where the following page begins (`ADDRESS_RANGES`: none)."""

    next: int
    wires: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseState:
    """What a peer holds of an epoch's close. Proposals and attests come whole, observations by digest."""

    observations: tuple[bytes, ...] = ()
    proposals: tuple[bytes, ...] = ()
    attests: tuple[bytes, ...] = ()


def wanted_after(mine: LogBook, theirs: Mapping[bytes, Head], now_s: int) -> tuple[RecordRange, ...]:
    """The ranges above the heads here to fetch from a peer whose heads are `theirs`.

    Logs that are not kept here, or are dead, are ignored. What a log may not hold yet, by `now_s`, is left for later.
    """
    logs = ((mine[node_key], head) for node_key, head in theirs.items() if node_key in mine)
    wanted = (
        RecordRange(log.node_key, log.head.seq + 1, min(head.seq, log.seq_wanted(now_s)))
        for log, head in logs
        if log.head.seq < min(head.seq, log.seq_wanted(now_s)) and not log.is_dead
    )
    return tuple(islice(wanted, RANGES_MAX))


def branches_after(mine: LogBook, theirs: Mapping[bytes, Head]) -> tuple[RecordRange, ...]:
    """The ranges of logs of which the peer names a head that is not above the one here, and not held: a fork.

    It may begin anywhere above the base, and be longer than one answer.
    """
    logs = ((mine[node_key], head) for node_key, head in theirs.items() if node_key in mine)
    branches = (
        RecordRange(log.node_key, log.base.seq + 1, head.seq)
        for log, head in logs
        if log.base.seq < head.seq <= log.head.seq and not log.holds(head) and not log.is_dead
    )
    return tuple(islice(branches, RANGES_MAX))


def encode_request(request: Request) -> bytes:
    match request:
        case WatermarksRequest(digests):
            body: codec.Value = ("watermarks", digests)
        case RecordsRequest(ranges):
            body = ("records", tuple((r.node_key, r.first, r.last) for r in ranges[:RANGES_MAX]))
        case ObjectRequest(wanted):
            body = ("object", (wanted.kind, wanted.id))
        case CloseRequest(epoch, have):
            body = ("close", (epoch, have[:HAVE_BYTES_MAX]))
        case PingRequest(nonce):
            body = ("ping", nonce)
        case AddressesRequest():
            body = ("addresses", (request.first, request.digests, request.own))
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
            return WatermarksRequest(_read_digests(value))
        case "records":
            return RecordsRequest(tuple(_read_range(r) for r in codec.as_array(value, "ranges", length_max=RANGES_MAX)))
        case "object":
            kind, key = codec.as_array(value, "object", 2)
            if kind not in OBJECT_KINDS:
                raise InvalidMessageError("object: of an unknown kind")
            return ObjectRequest(ObjectId(kind=str(kind), id=codec.as_bytes(key, "id", 32)))
        case "close":
            epoch, have = codec.as_array(value, "close", 2)
            have = codec.as_bytes(have, "have", length_max=HAVE_BYTES_MAX)
            return CloseRequest(codec.as_uint(epoch, "epoch", 32), have)
        case "ping":
            return PingRequest(codec.as_bytes(value, "nonce", NONCE_BYTES))
        case "addresses":
            first, digests, own = codec.as_array(value, "addresses", 3)
            return AddressesRequest(
                first=_read_range_number(first),
                digests=codec.as_bytes(digests, "digests", ADDRESS_RANGES * RANGE_DIGEST_BYTES),
                own=codec.as_optional_bytes(own, "own", length_max=ADDRESS_BYTES_MAX),
            )
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


def short_id(message: Message) -> bytes:
    """Name of a message of an epoch's close, `SHORT_ID_BYTES` long."""
    digest = hashlib.sha256(message.wire).digest() if isinstance(message, Attest) else message.digest
    return digest[:SHORT_ID_BYTES]


def ids_of(messages: Iterable[Message]) -> bytes:
    """What to say in a `CloseRequest` that is held."""
    return b"".join(short_id(message) for message in messages)


def close_state(messages: Iterable[Message], have: bytes) -> CloseState:
    """What an asker lacks that holds `have`: of `messages` in the order given, as many as fit an answer."""
    ids = {have[at : at + SHORT_ID_BYTES] for at in range(0, len(have), SHORT_ID_BYTES)}
    observations, proposals, attests = list[bytes](), list[bytes](), list[bytes]()
    size = 0
    for message in (message for message in messages if short_id(message) not in ids):
        match message:
            case Observation():
                kind, item = observations, message.digest
            case Proposal():
                kind, item = proposals, message.wire
            case Attest():
                kind, item = attests, message.wire
        if size + len(item) <= CLOSE_BYTES_MAX and len(kind) < MESSAGES_MAX:
            size += len(item)
            kind.append(item)
    return CloseState(observations=tuple(observations), proposals=tuple(proposals), attests=tuple(attests))


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


def encode_pong(request: PingRequest) -> bytes:
    return codec.encode(request.nonce)


def require_pong(data: bytes, nonce: bytes) -> None:
    """Check the answer to a `PingRequest`.

    Raises:
        InvalidMessageError: malformed, or another nonce than was asked with.
    """
    if codec.decode(data, bytes_max=2 * NONCE_BYTES) != nonce:
        raise InvalidMessageError("ping: not the nonce that was asked with")


def encode_page(page: AddressPage) -> bytes:
    return codec.encode((page.next, page.wires))


def parse_page(data: bytes, request: AddressesRequest) -> AddressPage:
    """Read the answer to `request`; the records in it are checked by `gossip.address_book`.

    Raises:
        InvalidMessageError: malformed, too long, or a page that does not advance.
    """
    after, wires = codec.as_array(codec.decode(data, bytes_max=RESPONSE_BYTES_MAX), "page", 2)
    after = codec.as_uint(after, "next", 16)
    if not request.first < after <= ADDRESS_RANGES:
        raise InvalidMessageError("page: the next one must begin behind it")
    return AddressPage(next=after, wires=_read_wires(wires, PAGE_RECORDS_MAX, ADDRESS_BYTES_MAX))


def _read_range_number(value: codec.Value) -> int:
    number = codec.as_uint(value, "first", 16)
    if number >= ADDRESS_RANGES:
        raise InvalidMessageError(f"first: there are {ADDRESS_RANGES} ranges")
    return number


def digest_heads(heads: Mapping[bytes, Head], ranges: int | None = None) -> bytes:
    """Digests of `heads`, `RANGE_DIGEST_BYTES` for each of `ranges` ranges of keys (a power of two); zeros if empty.

    Without `ranges` there are as many as suit so many logs.
    """
    if ranges is None:
        ranges = min(HEAD_RANGES_MAX, 1 << (len(heads) // LOGS_PER_RANGE).bit_length())
    parts: list[dict[bytes, Head]] = [{} for _ in range(ranges)]
    for node_key, head in heads.items():
        parts[node_key[0] * ranges >> 8][node_key] = head
    return b"".join(map(digest_range, parts))


def digest_range(heads: Mapping[bytes, Head]) -> bytes:
    """Digest of the heads of one range; zeros if it is empty."""
    if not heads:
        return bytes(RANGE_DIGEST_BYTES)
    parts = (node_key + head.seq.to_bytes(8, "big") + head.hash for node_key, head in sorted(heads.items()))
    return hashlib.sha256(b"".join(parts)).digest()[:RANGE_DIGEST_BYTES]


def _read_digests(value: codec.Value) -> bytes:
    digests = codec.as_bytes(value, "watermarks", length_max=HEAD_RANGES_MAX * RANGE_DIGEST_BYTES)
    ranges, rest = divmod(len(digests), RANGE_DIGEST_BYTES)
    if rest or ranges.bit_count() != 1:
        raise InvalidMessageError("watermarks: the number of ranges must be a power of two")
    return digests


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
