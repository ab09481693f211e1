"""Anti-entropy's bytes: what is asked and answered reads back; anything else is refused; what to fetch is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import START_S, Author, evidence, fill, key, log_book

from gossip import codec, sync
from gossip.epoch_events import ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head, RecordRange
from gossip.sync import CloseRequest, CloseState, ObjectRequest, RecordsRequest, Request, WatermarksRequest

hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
HEADS = st.dictionaries(hashes, st.builds(Head, numbers, hashes), max_size=6)
REQUESTS = st.one_of(
    st.builds(WatermarksRequest, HEADS),
    st.builds(RecordsRequest, st.lists(st.builds(RecordRange, hashes, numbers, numbers), max_size=6).map(tuple)),
    st.builds(ObjectRequest, st.builds(ObjectId, kind=st.sampled_from(sync.OBJECT_KINDS), id=hashes)),
    st.builds(CloseRequest, st.integers(0, 2**32 - 1)),
)
CLOSES = st.builds(
    CloseState,
    observations=st.lists(hashes, max_size=5).map(tuple),
    proposals=st.lists(st.binary(max_size=99), max_size=5).map(tuple),
    attests=st.lists(st.binary(max_size=99), max_size=5).map(tuple),
)
PARSERS = [sync.parse_request, sync.parse_heads, sync.parse_records, sync.parse_object, sync.parse_close]
ENCODERS = [sync.encode_request, sync.encode_heads, sync.encode_records, sync.encode_object, sync.encode_close]


@given(REQUESTS)
def test_requests_read_back(request: Request) -> None:
    assert sync.parse_request(sync.encode_request(request)) == request


@given(HEADS, st.lists(st.binary(max_size=99), max_size=9), st.none() | st.binary(max_size=99), CLOSES)
def test_answers_read_back(heads: dict[bytes, Head], wires: list[bytes], data: bytes | None, state: CloseState) -> None:
    assert sync.parse_heads(sync.encode_heads(heads)) == heads
    assert sync.parse_records(sync.encode_records(wires)) == tuple(wires)
    assert sync.parse_object(sync.encode_object(data)) == data
    assert sync.parse_close(sync.encode_close(state)) == state


NAMES = [sync.TAG, "records", "watermarks", "object", "close"]
VALUES = st.recursive(
    st.none() | st.integers(-2, 5) | st.binary(max_size=33) | st.sampled_from(NAMES),
    lambda items: st.lists(items, max_size=4).map(tuple),
    max_leaves=12,
)


@given(st.binary(max_size=100) | VALUES.map(codec.encode) | VALUES.map(lambda v: codec.encode((sync.TAG, v))))
def test_anything_else_is_refused_and_never_crashes(data: bytes) -> None:
    for parse, encode in zip(PARSERS, ENCODERS, strict=True):
        try:
            parsed = parse(data)
        except InvalidMessageError:
            continue
        assert parse(encode(parsed)) == parsed


@pytest.mark.parametrize(
    "value",
    [
        ("gpupool/sync/2", ("close", 1)),
        (sync.TAG, ("close", -1)),
        (sync.TAG, ("close", 1 << 32)),
        (sync.TAG, ("close",)),
        (sync.TAG, ("everything", 1)),
        (sync.TAG, (b"close", 1)),
        (sync.TAG, ("object", ("secrets", bytes(32)))),
        (sync.TAG, ("object", ("observation", bytes(31)))),
        (sync.TAG, ("object", (("observation",), bytes(32)))),
        (sync.TAG, ("records", ((bytes(32), 1),))),
        (sync.TAG, ("records", ((bytes(32), 1, 1 << 63),))),
        (sync.TAG, ("records", ((bytes(32), 1, 2),) * (sync.RANGES_MAX + 1))),
        (sync.TAG, ("watermarks", ((bytes(32), 1, bytes(32)),) * (sync.LOGS_MAX + 1))),
        (sync.TAG, ("watermarks", ((bytes(32), 1, b""),))),
    ],
)
def test_a_request_out_of_range_is_refused(value: codec.Value) -> None:
    with pytest.raises(InvalidMessageError):
        sync.parse_request(codec.encode(value))


@pytest.mark.parametrize("parse", PARSERS)
def test_too_long_is_refused_unread(parse: object) -> None:
    with pytest.raises(InvalidMessageError, match="size"):
        parse(bytes(sync.RESPONSE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (sync.parse_records, (b"",) * (sync.RECORDS_MAX + 1)),
        (sync.parse_records, (bytes(32 * 1024 + 1),)),
        (sync.parse_close, ((bytes(32),) * (sync.MESSAGES_MAX + 1), (), ())),
        (sync.parse_close, ((), (b"",) * (sync.MESSAGES_MAX + 1), ())),
        (sync.parse_close, ((), (bytes(64 * 1024 + 1),), ())),
        (sync.parse_close, ((), (), (bytes(1025),))),
        (sync.parse_close, ((), ())),
        (sync.parse_object, (b"",)),
    ],
)
def test_an_answer_out_of_range_is_refused(parse: object, value: codec.Value) -> None:
    with pytest.raises(InvalidMessageError):
        parse(codec.encode(value))


@pytest.mark.parametrize("size", [10, 1000, 32 * 1024])
def test_an_answer_with_records_is_bounded_and_never_empty(size: int) -> None:
    drawn = 0

    def endless() -> object:
        nonlocal drawn
        while True:
            drawn += 1
            yield bytes(size)

    data = sync.encode_records(endless())
    assert len(data) <= sync.RESPONSE_BYTES_MAX
    packed = sync.parse_records(data)
    assert 1 <= len(packed) <= sync.RECORDS_MAX
    assert sum(map(len, packed)) <= sync.RECORDS_BYTES_MAX
    assert drawn == len(packed) + 1


def test_watermarks_of_the_largest_pool_fit_into_a_request() -> None:
    heads = {i.to_bytes(32, "big"): Head(2**63 - 1, bytes(32)) for i in range(sync.LOGS_MAX)}
    assert len(sync.encode_request(WatermarksRequest(heads))) <= sync.REQUEST_BYTES_MAX


# What to ask for.


def test_nothing_is_wanted_from_a_peer_that_knows_no_more() -> None:
    logs, author = log_book(2), Author(0)
    author.prove()
    author.work()
    fill(logs, author.records)
    first = Head(1, author.records[0].hash)
    for theirs in ({}, {key(0).public: author.head}, {key(0).public: first}, {key(0).public: Head(0, bytes(32))}):
        assert sync.wanted_after(logs, theirs) == ()
    assert sync.wanted_after(logs, {key(9).public: Head(5, bytes(32))}) == ()  # no log of this pool


def test_what_the_peer_has_more_of_is_wanted() -> None:
    logs, author = log_book(2), Author(0)
    fill(logs, [author.prove()])
    wanted = sync.wanted_after(logs, {key(0).public: Head(7, b"\x01" * 32), key(1).public: Head(2, b"\x02" * 32)})
    assert set(wanted) == {RecordRange(key(0).public, 2, 7), RecordRange(key(1).public, 1, 2)}


@pytest.mark.parametrize("seq", [1, 2])
def test_another_record_of_the_same_or_a_lower_number_is_a_fork_to_fetch(seq: int) -> None:
    logs, author = log_book(1), Author(0)
    author.prove()
    author.work()
    fill(logs, author.records)
    assert sync.wanted_after(logs, {key(0).public: Head(seq, b"\x01" * 32)}) == (RecordRange(key(0).public, 1, seq),)


def test_what_is_settled_is_not_wanted_again() -> None:
    logs, author = log_book(1), Author(0)
    records = [author.append(evidence(START_S + i)) for i in range(5)]
    fill(logs, records)
    logs.rebase(key(0).public, Head(3, records[2].hash), 0)
    assert sync.wanted_after(logs, {key(0).public: Head(3, b"\x01" * 32)}) == ()
    assert sync.wanted_after(logs, {key(0).public: Head(4, b"\x01" * 32)}) == (RecordRange(key(0).public, 4, 4),)


def test_ranges_are_bounded() -> None:
    logs = log_book(sync.RANGES_MAX + 5)
    theirs = {node_key: Head(1, b"\x01" * 32) for node_key in logs}
    assert len(sync.wanted_after(logs, theirs)) == sync.RANGES_MAX
