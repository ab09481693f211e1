"""TVM dictionaries (`Hashmap n X`): build one, read one strictly, cut a Merkle proof out of one.

Untrusted: the cell that `entries` reads. Rules: labels fit the key and have their shortest form, forks
have exactly two children and no bits of their own, keys come out ascending and each once, and no more
than `entries_max` of them. So one set of entries has one cell, the one that `build` and TVM make.

Recursion is bounded by the key's length, 256 at most.

Source: TON whitepaper "TVM" section 3.3 (hashmaps), 3.1.7 (exotic cells).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from bitarray import bitarray
from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.cells import Reader

_PRUNED, _MERKLE_PROOF = 1, 3

V = TypeVar("V")


def build(items: Mapping[int, V], key_bits: int, write: Callable[[Builder, V], object]) -> Cell | None:
    """Make the dictionary of `items`; None when it is empty (an empty `HashmapE` has no root).

    `write(builder, value)` appends a value to its leaf; keys are unsigned integers of `key_bits` bits.
    """
    if not items:
        return None
    keys = sorted(items)
    if keys[0] < 0 or keys[-1] >> key_bits:
        raise InvalidValueError(f"dictionary: a key does not fit {key_bits} bits")

    def edge(low: int, high: int, left: int) -> Cell:
        # keys[low:high] agree on every bit above the lowest `left` ones
        rest = _fork_bits(keys, low, high, left)
        builder = Builder()
        _store_label(builder, (keys[low] >> rest) & ((1 << (left - rest)) - 1), left - rest, left)
        if low + 1 == high:
            write(builder, items[keys[low]])
        else:
            middle = _split(keys, low, high, rest)
            builder.store_ref(edge(low, middle, rest - 1)).store_ref(edge(middle, high, rest - 1))
        return builder.end_cell()

    return edge(0, len(keys), key_bits)


def entries(root: Cell | None, key_bits: int, *, entries_max: int, name: str) -> Iterator[tuple[int, Reader]]:
    """Walk a dictionary in ascending order of its keys; the caller reads each value to its end.

    Raises:
        InvalidCellError: not a dictionary of `key_bits` bits, or more than `entries_max` entries.
    """
    pending = [] if root is None else [(root, 0, key_bits)]
    count = 0
    while pending:
        cell, prefix, left = pending.pop()
        reader = Reader(cell, name)
        label, length = _read_label(reader, left)
        prefix, left = (prefix << length) | label, left - length
        if left == 0:
            count += 1
            if count > entries_max:
                raise InvalidCellError(f"{name}: more than {entries_max} entries")
            yield prefix, reader
            continue
        zero, one = reader.ref(), reader.ref()
        reader.end()
        pending.append((one, (prefix << 1) | 1, left - 1))
        pending.append((zero, prefix << 1, left - 1))


def prove(root: Cell, keys: Sequence[int], wanted: Iterable[int], key_bits: int) -> Cell:
    """Cut one Merkle proof of some keys: their paths stay, everything beside them is pruned to its hash.

    `root` is the dictionary that `build` made of `keys` (ascending). O(wanted * log n) cells are made.

    Raises:
        InvalidValueError: nothing is wanted, or a key that is not in the dictionary.
    """
    indexes = sorted({_index(keys, key) for key in wanted})
    if not indexes:
        raise InvalidValueError("dictionary: no key to prove")

    def path(cell: Cell, low: int, high: int, left: int) -> Cell:
        first = bisect_left(indexes, low)
        if first == len(indexes) or indexes[first] >= high:
            return _pruned(cell)
        if low + 1 == high:
            return cell
        rest = _fork_bits(keys, low, high, left)
        middle = _split(keys, low, high, rest)
        zero, one = cell.refs
        return Cell(cell.bits, [path(zero, low, middle, rest - 1), path(one, middle, high, rest - 1)], -1)

    proof = path(root, 0, len(keys), key_bits)
    return _exotic(bytes([_MERKLE_PROOF]) + root.hash + root.get_depth(0).to_bytes(2, "big"), [proof])


def _index(keys: Sequence[int], key: int) -> int:
    index = bisect_left(keys, key)
    if index == len(keys) or keys[index] != key:
        raise InvalidValueError(f"dictionary: no key {key:x} to prove")
    return index


def _fork_bits(keys: Sequence[int], low: int, high: int, left: int) -> int:
    """How many of the `left` lowest bits stay open after the common prefix of keys[low:high]."""
    return min(left, (keys[low] ^ keys[high - 1]).bit_length())


def _split(keys: Sequence[int], low: int, high: int, rest: int) -> int:
    """Index of the first key of keys[low:high] whose bit number `rest - 1` is one."""
    boundary = (keys[high - 1] >> (rest - 1)) << (rest - 1)
    return bisect_left(keys, boundary, low, high)


def _label_form(label: int, length: int, left: int) -> str:
    """Which of the schema's three forms a label takes: the shortest, and of equals the first."""
    width = left.bit_length()
    if length > 1 and width < 2 * length - 1 and label in (0, (1 << length) - 1):
        return "same"
    return "long" if width < length else "short"


def _store_label(builder: Builder, label: int, length: int, left: int) -> None:
    width = left.bit_length()
    match _label_form(label, length, left):
        case "same":
            builder.store_uint(0b110 | (label & 1), 3).store_uint(length, width)
            return
        case "long":
            builder.store_uint(0b10, 2).store_uint(length, width)
        case _:
            builder.store_uint(((1 << length) - 1) << 1, length + 2)  # 0, then the length in unary
    if length:
        builder.store_uint(label, length)


def _read_label(reader: Reader, left: int) -> tuple[int, int]:
    """Take a label of at most `left` bits, in the form that `build` gives it; (bits, length)."""
    form = "short" if not reader.flag() else "same" if reader.flag() else "long"
    bit = reader.uint(1) if form == "same" else 0
    length = _read_unary(reader) if form == "short" else reader.uint(left.bit_length())
    if length > left:
        raise InvalidCellError(f"{reader.name}: a label of {length} bits where {left} are left of the key")
    label = bit * ((1 << length) - 1) if form == "same" else reader.uint(length)
    if form != _label_form(label, length, left):
        raise InvalidCellError(f"{reader.name}: a label is not in its shortest form")
    return label, length


def _read_unary(reader: Reader) -> int:
    length = 0
    while reader.flag():
        length += 1
    return length


def _pruned(cell: Cell) -> Cell:
    return _exotic(bytes([_PRUNED, 1]) + cell.get_hash(0) + cell.get_depth(0).to_bytes(2, "big"), [])


def _exotic(data: bytes, refs: list[Cell]) -> Cell:
    bits = bitarray()
    bits.frombytes(data)
    return Cell(bits, refs, data[0])
