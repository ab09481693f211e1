"""Records: every kind survives the wire, and nothing that differs from what was signed is taken for it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, evidence, key, reading, work

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.log_chain import size_of
from gossip.receipts import make_receipt
from gossip.records import (
    COUNTERS_MAX,
    JOB_ID_BYTES_MAX,
    QUOTE_BYTES_MAX,
    READINGS_MAX,
    RECEIPTS_MAX,
    RECORD_BYTES_MAX,
    TAG,
    Body,
    CloseBody,
    EvidenceBody,
    PoolId,
    Receipt,
    ReceiptBody,
    Record,
    Source,
    SourceWork,
    Unit,
    WorkBody,
    make_record,
    parse_record,
    verify_record,
)

uint32 = st.integers(0, 2**32 - 1)
uint48 = st.integers(0, 2**48 - 1)
hashes = st.binary(min_size=32, max_size=32)
KEY = key(0)


@st.composite
def readings(draw: st.DrawFn, place: tuple[int, int], window_s: int) -> SourceWork:
    units = sorted(draw(st.sets(st.integers(1, 255), max_size=COUNTERS_MAX)))
    return SourceWork(
        source=place[0],
        instance=place[1],
        provenance=draw(st.text(max_size=128)),
        counters=tuple((unit, draw(uint48)) for unit in units),
        latency_ms=draw(st.none() | st.tuples(uint32, uint32, uint32).map(lambda q: tuple(sorted(q)))),
        gap_s=draw(st.integers(0, window_s)),
    )


@st.composite
def works(draw: st.DrawFn) -> WorkBody:
    start_s = draw(st.integers(0, 2**32 - 2))
    end_s = draw(st.integers(start_s + 1, 2**32 - 1))
    places = sorted(draw(st.sets(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=4)))
    return WorkBody(
        start_s=start_s,
        end_s=end_s,
        readings=tuple(draw(readings(place, end_s - start_s)) for place in places),
        evidence=draw(st.none() | hashes),
    )


EVIDENCE = st.builds(
    EvidenceBody,
    quote=st.binary(max_size=2000),
    collateral_digest=hashes,
    gpu_digest=st.none() | hashes,
    handshake_digest=st.none() | hashes,
    anchor_seqno=uint32,
    anchor_root_hash=hashes,
    anchor_time_s=uint32,
)
RECEIPTS = st.lists(
    st.builds(
        make_receipt,
        st.sampled_from((key(8), key(9))),
        st.just(POOL),
        st.just(KEY.public),
        job_id=st.binary(max_size=JOB_ID_BYTES_MAX),
        time_s=uint32,
        tokens=uint48,
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda receipt: receipt.id,
).map(lambda receipts: ReceiptBody(tuple(sorted(receipts, key=lambda receipt: receipt.id))))
BODIES = st.one_of(works(), EVIDENCE, RECEIPTS, st.just(CloseBody()))


@given(BODIES, st.integers(1, 2**63 - 1), hashes)
def test_every_kind_survives_the_wire(body: Body, seq: int, prev_hash: bytes) -> None:
    record = make_record(KEY, POOL, seq, prev_hash, body)
    again = verify_record(parse_record(record.wire, POOL))
    assert again == record
    assert type(again) is Record
    assert (again.body, again.seq, again.prev_hash, again.node_key) == (body, seq, prev_hash, KEY.public)
    assert again.hash == hashlib.sha256(again.signed).digest()


@given(works(), st.data())
def test_any_changed_byte_is_refused(body: WorkBody, data: st.DataObject) -> None:
    wire = bytearray(make_record(KEY, POOL, 1, bytes(32), body).wire)
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidMessageError):
        verify_record(parse_record(bytes(wire), POOL))


def fields(record: Record) -> list[codec.Value]:
    return list(codec.decode(record.signed, bytes_max=RECORD_BYTES_MAX))


def signed_receipt(**changes: object) -> Receipt:
    return make_receipt(key(9), POOL, KEY.public, **{"job_id": b"job", "time_s": 130, "tokens": 70} | changes)


def sealed(items: list[codec.Value]) -> bytes:
    return codec.seal(codec.encode(items), KEY)


WORK = make_record(KEY, POOL, 7, b"\x01" * 32, work(100, 160, 5000, b"\x02" * 32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", 8),
        ("prev_hash", b"\x03" * 32),
        ("start_s", 101),
        ("end_s", 159),
        ("readings", ()),
        ("evidence", None),
    ],
)
def test_a_field_that_changes_changes_the_hash_and_breaks_the_signature(field: str, value: object) -> None:
    if field in ("seq", "prev_hash"):
        other = make_record(KEY, POOL, **({"seq": 7, "prev_hash": b"\x01" * 32} | {field: value}), body=WORK.body)
    else:
        other = make_record(KEY, POOL, 7, b"\x01" * 32, replace(WORK.body, **{field: value}))
    assert other.hash != WORK.hash
    forged = codec.encode((other.signed, WORK.signature))
    with pytest.raises(InvalidMessageError, match="signature"):
        verify_record(parse_record(forged, POOL))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", Source.COCOON),
        ("instance", 1),
        ("provenance", "other"),
        ("counters", ((Unit.PROMPT_TOKEN.value, 1),)),
        ("latency_ms", None),
        ("gap_s", 1),
    ],
)
def test_a_reading_that_changes_changes_the_hash_and_breaks_the_signature(field: str, value: object) -> None:
    changed = replace(WORK.body, readings=(reading(5000, **{field: value}),))
    other = make_record(KEY, POOL, 7, b"\x01" * 32, changed)
    assert other.hash != WORK.hash
    with pytest.raises(InvalidMessageError, match="signature"):
        verify_record(parse_record(codec.encode((other.signed, WORK.signature)), POOL))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param(0, "gpupool/record/2", id="tag of another version"),
        pytest.param(0, TAG.encode(), id="tag as bytes"),
        pytest.param(1, POOL.network + 1, id="other network"),
        pytest.param(2, bytes(32), id="other pool"),
        pytest.param(3, bytes(31), id="short key"),
        pytest.param(4, 0, id="number 0"),
        pytest.param(4, -1, id="number -1"),
        pytest.param(4, 1 << 63, id="number of 64 bits"),
        pytest.param(4, True, id="number true"),
        pytest.param(5, bytes(33), id="long hash"),
        pytest.param(5, None, id="no hash"),
        pytest.param(6, 0, id="kind 0"),
        pytest.param(6, 5, id="kind 5"),
        pytest.param(6, 1, id="a work body called evidence"),
        pytest.param(6, 4, id="a work body called close"),
        pytest.param(7, (), id="empty body"),
    ],
)
def test_a_header_out_of_range_is_refused_although_signed(index: int, value: codec.Value) -> None:
    items = fields(WORK)
    items[index] = value
    with pytest.raises(InvalidMessageError):
        parse_record(sealed(items), POOL)


def refused(body: codec.Value) -> str:
    """Why a record with this body is refused, although it is signed."""
    items = fields(WORK)
    items[7] = body
    with pytest.raises(InvalidMessageError) as caught:
        parse_record(sealed(items), POOL)
    return str(caught.value)


ONE = fields(WORK)[7][2][0]
"""The reading, as it is signed."""


def placed(*places: tuple[int, int]) -> codec.Value:
    """Readings that differ in source and instance."""
    return tuple((*place, *ONE[2:]) for place in places)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param(0, 160, id="empty window"),
        pytest.param(0, 161, id="window backwards"),
        pytest.param(1, 1 << 32, id="end of 33 bits"),
        pytest.param(2, None, id="no readings"),
        pytest.param(2, ONE, id="a reading instead of readings"),
        pytest.param(2, placed((1, 0), (1, 0)), id="a source twice"),
        pytest.param(2, placed((2, 0), (1, 0)), id="sources descend"),
        pytest.param(2, placed((1, 1), (1, 0)), id="instances descend"),
        pytest.param(2, placed(*((1, i) for i in range(READINGS_MAX + 1))), id="18 readings"),
        pytest.param(3, bytes(31), id="short evidence hash"),
        pytest.param(3, "", id="evidence as text"),
    ],
)
def test_a_work_field_out_of_range_is_refused_although_signed(index: int, value: codec.Value) -> None:
    body = list(fields(WORK)[7])
    body[index] = value
    assert refused(tuple(body))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param(0, 256, id="source of 9 bits"),
        pytest.param(0, "engine", id="source as text"),
        pytest.param(1, 256, id="instance of 9 bits"),
        pytest.param(1, -1, id="negative instance"),
        pytest.param(1, None, id="no instance"),
        pytest.param(2, "p" * 129, id="long provenance"),
        pytest.param(2, b"vllm", id="provenance as bytes"),
        pytest.param(3, None, id="no counters"),
        pytest.param(3, ((2, 1), (1, 1)), id="units descend"),
        pytest.param(3, ((1, 1), (1, 1)), id="unit twice"),
        pytest.param(3, ((0, 1),), id="unit 0"),
        pytest.param(3, ((256, 1),), id="unit of 9 bits"),
        pytest.param(3, ((1, 1 << 48),), id="amount of 49 bits"),
        pytest.param(3, ((1, -1),), id="negative amount"),
        pytest.param(3, ((1, None),), id="no amount"),
        pytest.param(3, tuple((i, 1) for i in range(1, 18)), id="17 counters"),
        pytest.param(3, ((1,),), id="counter without amount"),
        pytest.param(4, (3, 2, 4), id="quantiles descend"),
        pytest.param(4, (1, 2), id="two quantiles"),
        pytest.param(4, (1, 2, 1 << 32), id="quantile of 33 bits"),
        pytest.param(5, 61, id="gap longer than the window"),
        pytest.param(5, None, id="no gap"),
    ],
)
def test_a_reading_out_of_range_is_refused_although_signed(index: int, value: codec.Value) -> None:
    item = list(ONE)
    item[index] = value
    start_s, end_s, _, evidence_hash = fields(WORK)[7]
    assert refused((start_s, end_s, (tuple(item),), evidence_hash))


def test_a_reading_of_the_wrong_length_is_refused_although_signed() -> None:
    start_s, end_s, _, evidence_hash = fields(WORK)[7]
    for item in (ONE[:-1], (*ONE, 0)):
        assert refused((start_s, end_s, (item,), evidence_hash))
    assert parse_record(sealed(fields(WORK)), POOL).body == WORK.body


@pytest.mark.parametrize(
    "body",
    [
        replace(evidence(), quote=bytes(QUOTE_BYTES_MAX + 1)),
        replace(evidence(), collateral_digest=bytes(31)),
        replace(evidence(), anchor_seqno=1 << 32),
        work(100, 160, 1, bytes(31)),
        work(100, 160, 1, bytes(32), gap_s=61),
        work(100, 160, 1 << 50, bytes(32)),
        ReceiptBody((signed_receipt(job_id=bytes(JOB_ID_BYTES_MAX + 1)),)),
        ReceiptBody((signed_receipt(tokens=1 << 48),)),
    ],
)
def test_an_own_body_out_of_range_is_not_signed(body: Body) -> None:
    with pytest.raises(InvalidMessageError):
        make_record(KEY, POOL, 1, bytes(32), body)


def test_the_largest_evidence_fits() -> None:
    body = replace(evidence(), quote=bytes(QUOTE_BYTES_MAX), gpu_digest=bytes(32), handshake_digest=bytes(32))
    assert len(make_record(KEY, POOL, 1, bytes(32), body).wire) <= RECORD_BYTES_MAX


def test_the_most_readings_and_the_most_receipts_fit() -> None:
    largest = SourceWork(
        source=255,
        provenance="\U0001f5a5" * 128,
        counters=tuple((unit, (1 << 48) - 1) for unit in range(256 - COUNTERS_MAX, 256)),
        latency_ms=((1 << 32) - 1,) * 3,
        gap_s=(1 << 31),
    )
    full = WorkBody(
        start_s=0,
        end_s=(1 << 32) - 1,
        readings=tuple(replace(largest, instance=256 - READINGS_MAX + i) for i in range(READINGS_MAX)),
        evidence=bytes(32),
    )
    jobs = [b"%03d" % i + bytes(JOB_ID_BYTES_MAX - 3) for i in range(RECEIPTS_MAX)]
    receipts = tuple(signed_receipt(job_id=job, time_s=(1 << 32) - 1, tokens=(1 << 48) - 1) for job in jobs)
    for body in (full, ReceiptBody(receipts)):
        record = make_record(KEY, POOL, (1 << 63) - 1, bytes(32), body)
        assert len(record.wire) <= size_of(record) <= RECORD_BYTES_MAX


def test_what_was_not_measured_is_not_zero() -> None:
    counted = reading(100, counters=((Unit.TASK, 0), (Unit.GENERATION_TOKEN, 5)))
    assert counted.counts(Unit.TASK)
    assert not counted.counts(Unit.PROMPT_TOKEN)
    assert counted.amount(Unit.PROMPT_TOKEN, Unit.GENERATION_TOKEN, Unit.TASK) == 5


def test_of_another_pool_network_or_key() -> None:
    for pool in (PoolId(POOL.network, bytes(32)), PoolId(-3, POOL.account)):
        with pytest.raises(InvalidMessageError, match="pool"):
            parse_record(WORK.wire, pool)
    items = fields(WORK)
    items[3] = key(1).public
    with pytest.raises(InvalidMessageError, match="signature"):
        verify_record(parse_record(sealed(items), POOL))


def test_a_record_longer_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(InvalidMessageError, match="size"):
        parse_record(bytes(RECORD_BYTES_MAX + 1), POOL)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        parse_record(data, POOL)
    with pytest.raises(InvalidMessageError):
        parse_record(codec.seal(data, KEY), POOL)


@given(st.recursive(st.none() | st.integers(-5, 5) | st.binary(max_size=33), st.lists, max_leaves=12))
def test_signed_garbage_of_the_right_shape_is_refused(body: codec.Value) -> None:
    for kind in (1, 2, 3):
        items = [TAG, POOL.network, POOL.account, KEY.public, 1, bytes(32), kind, body]
        with pytest.raises(InvalidMessageError):
            parse_record(sealed(items), POOL)
