"""Anti-entropy's bytes: what is asked and answered reads back; anything else is refused; what to fetch is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, Author, evidence, fill, key, log_book

from gossip import codec, sync
from gossip.epoch_events import ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import UNSETTLED_BYTES_MAX, UNSETTLED_BYTES_PER_S, Head, RecordRange
from gossip.messages import Attest, make_attest, parse_attest
from gossip.records import RECORD_BYTES_MAX
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

LATER_S = START_S + 10**6

hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
HEADS = st.dictionaries(hashes, st.builds(Head, numbers, hashes), max_size=6)
REQUESTS = st.one_of(
    st.builds(WatermarksRequest, HEADS.map(sync.digest_heads)),
    st.builds(RecordsRequest, st.lists(st.builds(RecordRange, hashes, numbers, numbers), max_size=6).map(tuple)),
    st.builds(ObjectRequest, st.builds(ObjectId, kind=st.sampled_from(sync.OBJECT_KINDS), id=hashes)),
    st.builds(CloseRequest, st.integers(0, 2**32 - 1), st.binary(max_size=99)),
    st.builds(PingRequest, hashes),
    st.builds(
        AddressesRequest,
        first=st.integers(0, ADDRESS_RANGES - 1),
        digests=st.just(bytes(ADDRESS_RANGES * RANGE_DIGEST_BYTES)),
        own=st.none() | st.binary(max_size=99),
    ),
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
    assert len(sync.encode_request(WatermarksRequest(sync.digest_heads(heads)))) <= sync.REQUEST_BYTES_MAX
    assert len(sync.encode_heads(heads)) <= sync.RESPONSE_BYTES_MAX


# Heads are compared by digests.


@pytest.mark.parametrize("digests", [b"", bytes(7), bytes(8 * 3), bytes(8 * 512)], ids=["none", "cut", "three", "many"])
def test_digests_of_another_number_of_ranges_are_refused(digests: bytes) -> None:
    with pytest.raises(InvalidMessageError, match="watermarks"):
        sync.parse_request(codec.encode((sync.TAG, ("watermarks", digests))))


# What a peer lacks of a close.


def said(operators: int) -> list[Attest]:
    return [make_attest(key(i), POOL, epoch=1, cert_hash=bytes(32)) for i in range(operators)]


def test_what_the_asker_holds_is_not_told_again() -> None:
    messages = said(5)
    state = sync.close_state(messages, sync.ids_of(messages[:3]))
    assert state == CloseState(attests=tuple(m.wire for m in messages[3:]))
    assert sync.close_state(messages, sync.ids_of(messages)) == CloseState()


def test_an_answer_about_a_close_never_exceeds_its_limit_and_repeated_asks_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = said(20)
    monkeypatch.setattr(sync, "CLOSE_BYTES_MAX", 5 * len(messages[0].wire))
    have: list[Attest] = []
    for _ in range(4):
        state = sync.close_state(messages, sync.ids_of(have))
        assert len(sync.encode_close(state)) <= sync.CLOSE_BYTES_MAX + 20
        have += [parse_attest(wire, POOL) for wire in state.attests]
    assert {m.operator for m in have} == {m.operator for m in messages}


# What to ask for.


def test_nothing_is_wanted_from_a_peer_that_knows_no_more() -> None:
    logs, author = log_book(2), Author(0)
    author.prove()
    author.work()
    fill(logs, author.records)
    first = Head(1, author.records[0].hash)
    for theirs in ({}, {key(0).public: author.head}, {key(0).public: first}, {key(0).public: Head(0, bytes(32))}):
        assert sync.wanted_after(logs, theirs, LATER_S) == ()
    assert sync.wanted_after(logs, {key(9).public: Head(5, bytes(32))}, LATER_S) == ()  # no log of this pool


def test_what_the_peer_has_more_of_is_wanted() -> None:
    logs, author = log_book(2), Author(0)
    fill(logs, [author.prove()])
    wanted = sync.wanted_after(
        logs, {key(0).public: Head(7, b"\x01" * 32), key(1).public: Head(2, b"\x02" * 32)}, LATER_S
    )
    assert set(wanted) == {RecordRange(key(0).public, 2, 7), RecordRange(key(1).public, 1, 2)}


@pytest.mark.parametrize("seq", [1, 2])
def test_another_record_of_the_same_or_a_lower_number_is_a_fork_to_fetch(seq: int) -> None:
    logs, author = log_book(1), Author(0)
    author.prove()
    author.work()
    fill(logs, author.records)
    theirs = {key(0).public: Head(seq, b"\x01" * 32)}
    assert sync.branches_after(logs, theirs) == (RecordRange(key(0).public, 1, seq),)
    assert sync.wanted_after(logs, theirs, LATER_S) == ()


def test_what_is_settled_is_not_wanted_again() -> None:
    logs, author = log_book(1), Author(0)
    records = [author.append(evidence(START_S + i)) for i in range(5)]
    fill(logs, records)
    logs.rebase(key(0).public, Head(3, records[2].hash), 0)
    assert sync.branches_after(logs, {key(0).public: Head(3, b"\x01" * 32)}) == ()
    assert sync.branches_after(logs, {key(0).public: Head(4, b"\x01" * 32)}) == (RecordRange(key(0).public, 4, 4),)


def test_of_a_log_that_was_settled_as_dead_nothing_is_wanted() -> None:
    logs, author = log_book(1), Author(0)
    fill(logs, [author.prove(), author.work()])
    logs.rebase(key(0).public, Head(1, author.records[0].hash), 0, is_dead=True)
    for seq in (1, 2, 9):
        theirs = {key(0).public: Head(seq, b"\x01" * 32)}
        assert sync.wanted_after(logs, theirs, LATER_S) == sync.branches_after(logs, theirs) == ()


def test_of_a_log_that_grows_too_fast_only_so_much_is_wanted_by_now() -> None:
    logs = log_book(1)
    logs.date(LATER_S)
    theirs = {key(0).public: Head(10**9, b"\x01" * 32)}
    burst, spacing_s = UNSETTLED_BYTES_MAX // RECORD_BYTES_MAX, RECORD_BYTES_MAX // UNSETTLED_BYTES_PER_S
    for later_s, last in [(0, burst), (spacing_s - 1, burst), (10 * spacing_s, burst + 10)]:
        assert sync.wanted_after(logs, theirs, LATER_S + later_s) == (RecordRange(key(0).public, 1, last),)


def test_ranges_are_bounded() -> None:
    logs = log_book(sync.RANGES_MAX + 5)
    theirs = {node_key: Head(1, b"\x01" * 32) for node_key in logs}
    assert len(sync.wanted_after(logs, theirs, LATER_S)) == sync.RANGES_MAX


# Signs of life, and where others are.

EVERYTHING = AddressesRequest(first=0, digests=bytes(ADDRESS_RANGES * RANGE_DIGEST_BYTES), own=None)


@given(hashes, st.integers(1, ADDRESS_RANGES), st.lists(st.binary(max_size=99), max_size=5).map(tuple))
def test_pongs_and_pages_read_back(nonce: bytes, following: int, wires: tuple[bytes, ...]) -> None:
    sync.require_pong(sync.encode_pong(PingRequest(nonce)), nonce)
    page = AddressPage(next=following, wires=wires)
    assert sync.parse_page(sync.encode_page(page), EVERYTHING) == page


@given(st.binary(max_size=100) | VALUES.map(codec.encode))
def test_what_is_no_pong_and_no_page_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        sync.require_pong(data, b"\x07" * 32)
    try:
        assert sync.parse_page(data, EVERYTHING).next > 0
    except InvalidMessageError:
        return


@pytest.mark.parametrize(("first", "following"), [(0, 0), (5, 5), (5, 4), (255, 255), (0, ADDRESS_RANGES + 1)])
def test_a_page_that_does_not_advance_is_refused(first: int, following: int) -> None:
    """Else whoever asks could be kept asking for ever."""
    request = AddressesRequest(first=first, digests=EVERYTHING.digests, own=None)
    with pytest.raises(InvalidMessageError, match="page"):
        sync.parse_page(sync.encode_page(AddressPage(next=following, wires=())), request)


@pytest.mark.parametrize(
    "body",
    [
        ("ping", bytes(31)),
        ("ping", None),
        ("addresses", (0, EVERYTHING.digests)),
        ("addresses", (ADDRESS_RANGES, EVERYTHING.digests, None)),
        ("addresses", (0, EVERYTHING.digests[1:], None)),
        ("addresses", (0, EVERYTHING.digests, bytes(5000))),
    ],
)
def test_malformed_requests_for_them_are_refused(body: codec.Value) -> None:
    with pytest.raises(InvalidMessageError):
        sync.parse_request(codec.encode((sync.TAG, body)))
