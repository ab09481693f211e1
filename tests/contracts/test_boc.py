"""Bags of cells: what pytoniq writes is read, and the other way round; hostile bags are refused."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts.devchain import boc
from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.errors import InvalidMessageError
from contracts.devchain.network import devnet_config
from contracts.devchain.trie import merkle_proof, merkle_update


@st.composite
def graphs(draw: st.DrawFn) -> Cell:
    """A root over up to 20 cells that refer to earlier ones at will."""
    cells = [Cell.empty()]
    for _ in range(draw(st.integers(1, 20))):
        builder = Builder().store_bits(draw(st.text("01", max_size=40)))
        for ref in draw(st.lists(st.sampled_from(cells[-4:]), max_size=4)):
            builder.store_ref(ref)
        cells.append(builder.end_cell())
    return cells[-1]


@given(root=graphs(), has_index=st.booleans(), has_checksum=st.booleans())
def test_what_pytoniq_writes_is_read(root: Cell, has_index: bool, has_checksum: bool) -> None:
    assert from_boc(root.to_boc(has_idx=has_index, hash_crc32=has_checksum)) == root


@given(root=graphs())
def test_what_is_written_pytoniq_reads(root: Cell) -> None:
    assert Cell.one_from_boc(to_boc(root)) == root


@given(root=graphs(), at=st.integers(0, 400), flip=st.integers(1, 255), cut=st.integers(0, 400))
def test_a_damaged_bag_is_refused_or_another_cell(root: Cell, at: int, flip: int, cut: int) -> None:
    whole = to_boc(root)
    damaged = bytearray(whole[: len(whole) - cut % len(whole)])
    damaged[at % len(damaged)] ^= flip
    try:
        cell = from_boc(bytes(damaged))
    except InvalidMessageError:
        return
    assert from_boc(to_boc(cell)) == cell


def test_exotic_cells_survive() -> None:
    config = devnet_config()
    for cell in (merkle_proof(config, []), merkle_update(bytes(32), 3, config)):
        assert from_boc(to_boc(cell)) == cell


def test_two_bags_share_their_cells_while_someone_holds_them() -> None:
    shared = Builder().store_bytes(b"told twice").end_cell()
    bags = [to_boc(Builder().store_uint(i, 8).store_ref(shared).end_cell()) for i in range(2)]
    first, second = map(from_boc, bags)
    assert first is not second
    assert first.refs[0] is second.refs[0]
    del first, second
    gc.collect()
    assert not [cell for cell in boc._alive.values() if cell == shared]


def bag(cells: bytes, *, count: int = 1, roots: int = 1, absent: int = 0, root: int = 0) -> bytes:
    """One-byte sizes; `cells` as they stand in the bag."""
    return b"\xb5\xee\x9c\x72\x01\x01" + bytes([count, roots, absent, len(cells), root]) + cells


LEAF = b"\x00\x02\xaa"


def test_the_smallest_bags() -> None:
    assert from_boc(bag(b"\0\0")) == Cell.empty()
    assert from_boc(bag(LEAF)) == Builder().store_uint(0xAA, 8).end_cell()
    assert from_boc(bag(b"\x00\x01\xa8")) == Builder().store_bits("1010").end_cell()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xb5\xee\x9c\x72",
        b"\xb5\xee\x9c\x73" + bag(LEAF)[4:],
        bag(LEAF)[:-1],
        bag(LEAF) + b"\0",
        bag(LEAF, roots=0),
        bag(LEAF, roots=2),
        bag(LEAF, absent=1),
        bag(LEAF, root=1),
        bag(LEAF, count=0),
        bag(LEAF, count=255),
        bag(b"\x01\x00\x00"),
        bag(b"\x01\x00\x02" + LEAF, count=2),
        bag(b"\x01\x00\x01\x01\x00\x00", count=2),
        bag(b"\x05\x00\x01\x01\x01\x01\x01" + LEAF, count=2),
        bag(b"\x10\x00" + bytes(34)),
        bag(b"\x20\x02\xaa"),
        bag(b"\x00\x01\x00"),
        bag(b"\x08\x00"),
        bag(b"\x08\x02\x07"),
        bag(b"\x28\x02\x01"),
    ],
)
def test_malformed_bags_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError, match="bag of cells"):
        from_boc(data)


def test_a_bag_deeper_than_a_cell_may_be_is_refused() -> None:
    count = 1100
    chain = b"".join(b"\x01\x00" + (i + 1).to_bytes(2, "big") for i in range(count - 1)) + b"\0\0"
    head = b"\xb5\xee\x9c\x72\x02\x02" + b"".join(n.to_bytes(2, "big") for n in (count, 1, 0, len(chain), 0))
    with pytest.raises(InvalidMessageError, match="depth"):
        from_boc(head + chain)
