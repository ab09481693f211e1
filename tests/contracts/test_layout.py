"""Cells: values survive the way there and back, one value has one cell, garbage is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell, HashMap

from contracts import layout
from contracts.errors import ContractsError, InvalidCellError, InvalidValueError
from contracts.layout import dictionary, operator_set_cell, read_operator_set
from contracts.layout.cells import Reader
from contracts.model import Operator, OperatorSet, SettlePayload
from tests.contracts.pool_scene import OWNER, PARTICIPANTS, Scene

HASHES = st.binary(min_size=32, max_size=32)
PAYLOADS = st.builds(
    SettlePayload,
    epoch=st.integers(0, 2**32 - 1),
    prev=HASHES,
    totals_root=HASHES,
    count=st.integers(0, 2**32 - 1),
    total_score=st.integers(0, 2**128 - 1),
    total_earned_nanoton=st.integers(0, 2**120 - 1),
    tasks=st.integers(0, 2**64 - 1),
    tokens=st.integers(0, 2**64 - 1),
    policy_hash=HASHES,
    cut_root=HASHES,
)


# ---- artifacts and addresses ----


@pytest.mark.parametrize("name", ["pool_operator", "reward_distribution", "participant_registry"])
def test_code_is_what_its_artifact_states(name: layout.ContractName) -> None:
    assert len(layout.code(name).hash) == 32


def test_a_pools_address_follows_from_what_makes_it() -> None:
    addresses = {
        layout.pool_address(owner, pool_id, duration)
        for owner in PARTICIPANTS[:2]
        for pool_id in (1, 2)
        for duration in (60, 3600)
    }
    assert len(addresses) == 8
    assert layout.pool_address(OWNER, 7, 3600) == Scene().pool


# ---- values ----


@given(PAYLOADS)
def test_payload_survives(payload: SettlePayload) -> None:
    boc = layout.payload_cell(payload).to_boc()
    assert layout.settle_payload(layout.parse_boc(boc)) == payload


@given(PAYLOADS, st.data())
def test_a_payload_has_one_form(payload: SettlePayload, data: st.DataObject) -> None:
    """Whatever decodes is exactly the cell that it encodes to: a hash stands for one value."""
    cell = layout.payload_cell(payload)
    position = data.draw(st.integers(0, len(cell.bits) - 1))
    bits = cell.bits.copy()
    bits[position] ^= 1
    changed = Cell(bits, cell.refs, -1)
    try:
        decoded = layout.settle_payload(changed)
    except InvalidCellError:
        return
    assert layout.payload_cell(decoded).hash == changed.hash


@pytest.mark.parametrize(
    "broken",
    [
        lambda c: Cell(c.bits, [], -1),
        lambda c: Cell(c.bits, [c.refs[0], c.refs[0]], -1),
        lambda c: Cell(c.bits[:-1], c.refs, -1),
        lambda c: Cell(c.bits + c.bits[:1], c.refs, -1),
        lambda c: Cell(c.bits, [Cell.empty()], -1),
        lambda c: c.refs[0],
    ],
    ids=["no tail", "two tails", "short", "long", "empty tail", "tail alone"],
)
def test_a_broken_payload_is_refused(broken: object) -> None:
    payload = SettlePayload(
        epoch=1, prev=bytes(32), totals_root=bytes(32), count=0, total_score=0, total_earned_nanoton=0,
        tasks=0, tokens=0, policy_hash=bytes(32), cut_root=bytes(32),
    )  # fmt: skip
    with pytest.raises(InvalidCellError):
        layout.settle_payload(broken(layout.payload_cell(payload)))


def test_an_amount_in_too_many_bytes_is_refused() -> None:
    cell = Builder().store_uint(2, 4).store_uint(5, 16).end_cell()
    with pytest.raises(InvalidCellError, match="fewest"):
        Reader(cell, "amount").coins()


def test_an_exotic_cell_is_no_value() -> None:
    data = Builder().store_uint(1, 8).store_uint(1, 8).store_uint(0, 272).end_cell()
    with pytest.raises(InvalidCellError, match="exotic"):
        layout.settle_payload(Cell(data.bits, [], 1))


@given(st.binary(max_size=300))
def test_garbage_is_no_boc(data: bytes) -> None:
    with pytest.raises(InvalidCellError):
        layout.parse_boc(data)


@given(st.data())
def test_a_damaged_boc_is_refused_or_reads_as_cells(data: st.DataObject) -> None:
    boc = bytearray(operator_set_cell(SET).to_boc())
    for _ in range(data.draw(st.integers(1, 4))):
        boc[data.draw(st.integers(0, len(boc) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        cell = layout.parse_boc(bytes(boc))
        assert operator_set_cell(read_operator_set(cell)).hash == cell.hash
    except ContractsError:
        pass


def test_a_boc_is_bounded() -> None:
    boc = operator_set_cell(SET).to_boc()
    with pytest.raises(InvalidCellError, match="at most"):
        layout.parse_boc(boc, bytes_max=len(boc) - 1)


SET = OperatorSet(set_id=3, operators=tuple(Operator(node_key=bytes([i]) * 32, weight=i + 1) for i in range(20)))


def test_operator_set_survives() -> None:
    assert read_operator_set(operator_set_cell(SET)) == SET


# ---- dictionaries ----

ITEMS = st.dictionaries(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), min_size=1, max_size=40)


@given(ITEMS)
def test_a_dictionary_equals_pytoniqs_and_reads_back(items: dict[int, int]) -> None:
    ours = dictionary.build(items, 16, lambda builder, value: builder.store_uint(value, 32))
    assert ours is not None
    assert ours.hash == HashMap(16, map_=dict(items)).with_uint_values(32).serialize().hash
    read = [(k, r.uint(32)) for k, r in dictionary.entries(ours, 16, entries_max=40, name="test")]
    assert read == sorted(items.items())


def test_dictionary_bounds() -> None:
    root = dictionary.build({1: 1, 2: 2}, 16, lambda builder, value: builder.store_uint(value, 8))
    with pytest.raises(InvalidCellError, match="more than 1"):
        list(dictionary.entries(root, 16, entries_max=1, name="test"))
    with pytest.raises(InvalidValueError):
        dictionary.build({2**16: 1}, 16, lambda builder, value: builder.store_uint(value, 8))
    assert dictionary.build({}, 16, lambda builder, value: None) is None
    assert list(dictionary.entries(None, 16, entries_max=0, name="test")) == []


@pytest.mark.parametrize(
    "root",
    [
        Builder().end_cell(),
        Builder().store_uint(0b10, 2).store_uint(17, 5).store_uint(0, 17).end_cell(),
        Builder().store_uint(0b110, 3).store_uint(31, 5).end_cell(),
        Builder().store_uint(0b10, 2).store_uint(0, 5).store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell(),
        Builder().store_uint(0, 2).end_cell(),
        Builder().store_uint(0, 3).store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell(),
    ],
    ids=[
        "empty",
        "label too long",
        "repeated label too long",
        "longer form",
        "fork without children",
        "bits in a fork",
    ],
)
def test_a_broken_dictionary_is_refused(root: Cell) -> None:
    with pytest.raises(InvalidCellError):
        list(dictionary.entries(root, 16, entries_max=9, name="test"))
