"""TON's augmented dictionaries as persistent tries, and Merkle proofs of cells.

`Trie` is immutable: `with_value` returns a new trie that shares all but the changed path, so a block
costs as much as what changed in it. Every node carries its cell; each fork carries the sum of its
balances, as `HashmapAug` with a currency (and for accounts a depth) as augmentation demands.

Deliberately elsewhere: which proofs a query gets (`liteserver`).
Source: TON `crypto/block/block.tlb` (`HashmapAug`, `HmLabel`, `DepthBalanceInfo`); TON whitepaper for
pruned branches, Merkle proofs and updates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pytoniq_core import Builder, Cell
from pytoniq_core.boc.tvm_bitarray import TvmBitarray

_PRUNED, _PROOF, _UPDATE = 1, 3, 4


@dataclass(frozen=True, slots=True)
class _Node:
    label: str
    total: int
    cell: Cell
    value: Cell | None
    branches: tuple[_Node, _Node] | None


@dataclass(frozen=True, slots=True)
class Trie:
    """`HashmapAugE` of `key_bits` with values inline and a balance (plus `depth_bits` zeros) per node."""

    key_bits: int
    depth_bits: int = 0
    root: _Node | None = None

    @property
    def total(self) -> int:
        return 0 if self.root is None else self.root.total

    def with_value(self, key: int, value: Cell, balance: int) -> Trie:
        """A trie in which `key` (unsigned, `key_bits`) has `value`, counted with `balance`."""
        bits = f"{key:0{self.key_bits}b}"
        return Trie(self.key_bits, self.depth_bits, self._put(self.root, bits, value, balance))

    def cell(self) -> Cell:
        """The `HashmapAugE` cell: maybe a root, and the total."""
        builder = Builder().store_maybe_ref(None if self.root is None else self.root.cell)
        return self._extra(builder, self.total).end_cell()

    def value(self, key: int) -> Cell | None:
        """The value of `key`, or None."""
        bits, node = f"{key:0{self.key_bits}b}", self.root
        while node is not None and bits.startswith(node.label):
            bits = bits[len(node.label) :]
            if node.branches is None:
                return node.value
            node, bits = node.branches[int(bits[0])], bits[1:]
        return None

    def path(self, key: int) -> list[Cell]:
        """Cells from the root down to `key`'s leaf, or down to where the key proves absent."""
        bits, node, cells = f"{key:0{self.key_bits}b}", self.root, []
        while node is not None:
            cells.append(node.cell)
            if not bits.startswith(node.label) or node.branches is None:
                break
            bits = bits[len(node.label) :]
            node, bits = node.branches[int(bits[0])], bits[1:]
        return cells

    def _put(self, node: _Node | None, bits: str, value: Cell, balance: int) -> _Node:
        if node is None or bits == node.label:
            return self._leaf(bits, len(bits), value, balance)
        common = _common(bits, node.label)
        size = len(bits)
        if common < len(node.label):
            old = self._relabel(node, node.label[common + 1 :], size - common - 1)
            new = self._leaf(bits[common + 1 :], size - common - 1, value, balance)
            branches = (new, old) if bits[common] == "0" else (old, new)
        else:
            assert node.branches is not None
            left, right = node.branches
            rest = bits[common + 1 :]
            if bits[common] == "0":
                branches = (self._put(left, rest, value, balance), right)
            else:
                branches = (left, self._put(right, rest, value, balance))
        return self._fork(bits[:common], size, branches)

    def _leaf(self, label: str, size: int, value: Cell, balance: int) -> _Node:
        cell = self._extra(_label(label, size), balance).store_cell(value).end_cell()
        return _Node(label, balance, cell, value, None)

    def _fork(self, label: str, size: int, branches: tuple[_Node, _Node]) -> _Node:
        total = branches[0].total + branches[1].total
        builder = _label(label, size).store_ref(branches[0].cell).store_ref(branches[1].cell)
        return _Node(label, total, self._extra(builder, total).end_cell(), None, branches)

    def _relabel(self, node: _Node, label: str, size: int) -> _Node:
        if node.branches is not None:
            return self._fork(label, size, node.branches)
        assert node.value is not None
        return self._leaf(label, size, node.value, node.total)

    def _extra(self, builder: Builder, total: int) -> Builder:
        if self.depth_bits:
            builder.store_uint(0, self.depth_bits)
        return builder.store_coins(total).store_bit(0)


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _label(bits: str, size: int) -> Builder:
    """`HmLabel` for `bits` where at most `size` more bits may come: the shortest form, as TON demands."""
    n, width = len(bits), size.bit_length()
    short, long, same = 2 * n + 2, 2 + width + n, 3 + width
    builder = Builder()
    if n > 1 and len(set(bits)) == 1 and same < min(short, long):
        return builder.store_bits("11" + bits[0]).store_uint(n, width)
    if long < short:
        builder.store_bits("10").store_uint(n, width)
        return builder.store_bits(bits) if n else builder
    return builder.store_bits("0" + "1" * n + "0" + bits)


def merkle_proof(root: Cell, keep: Collection[Cell]) -> Cell:
    """A proof cell of `root` that shows the cells in `keep` (and the root) and prunes all others."""
    shown = {root.hash, *(cell.hash for cell in keep)}
    body = _shrink(root, lambda cell: cell.hash in shown)
    payload = b"\x03" + root.get_hash(0) + root.get_depth(0).to_bytes(2, "big")
    return _exotic(_PROOF, payload, [body])


def merkle_update(old: bytes, old_depth: int, new: Cell) -> Cell:
    """An update from the state with hash `old` to `new`, both pruned: it says what, not how."""
    before = _pruned(old, old_depth)
    after = _pruned(new.get_hash(0), new.get_depth(0))
    payload = b"\x04" + before.get_hash(0) + after.get_hash(0)
    payload += before.get_depth(0).to_bytes(2, "big") + after.get_depth(0).to_bytes(2, "big")
    return _exotic(_UPDATE, payload, [before, after])


def _shrink(cell: Cell, shown: Callable[[Cell], bool]) -> Cell:
    if cell.level_mask.mask:
        return cell
    if not shown(cell):
        return _pruned(cell.get_hash(0), cell.get_depth(0))
    return Cell(cell.bits, [_shrink(ref, shown) for ref in cell.refs], cell.type_)


def _pruned(cell_hash: bytes, depth: int) -> Cell:
    return _exotic(_PRUNED, b"\x01\x01" + cell_hash + depth.to_bytes(2, "big"), [])


def _exotic(kind: int, payload: bytes, refs: list[Cell]) -> Cell:
    bits = TvmBitarray(1023)
    bits.frombytes(payload)
    return Cell(bits, refs, kind)
