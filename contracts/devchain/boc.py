"""Bags of cells for the embedded chain: several roots, large accounts, and no trap for hostile ones.

pytoniq-core writes one root only, walks a cell once per path to it (a small bag of shared cells would
keep it busy for ever), and its reader copies the rest of the bag for every cell. Here each distinct
cell is visited once; and a cell that is alive already is not made again: a new version of a large
account shares what did not change in it.

Untrusted input: any BoC. Rules, cheapest first; anything else raises `InvalidMessageError`:
1. A bounded number of bytes, the current magic, exactly one root, no absent cells.
2. A cell refers to later cells only, says its own level right, and stores no hashes.
The bag's checksum is not computed: what carries it (ADNL, SQLite) has one, and cells are hashed.

Source: TON `crypto/tl/boc.tlb` (`serialized_boc`), `crypto/vm/boc.cpp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from bitarray import bitarray
from pytoniq_core import Cell
from pytoniq_core.boc.tvm_bitarray import TvmBitarray

from contracts.devchain.errors import InvalidMessageError

BOC_BYTES_MAX = 4 << 20
REFS_MAX = 4

_MAGIC = b"\xb5\xee\x9c\x72"
_HAS_INDEX, _HAS_CHECKSUM = 0x80, 0x40
_EXOTIC, _WITH_HASHES = 8, 16

_alive: WeakValueDictionary[tuple[bytes, tuple[int, ...]], Cell] = WeakValueDictionary()
"""Cells that someone holds, by descriptors with data and the identities of the cells below.

A living cell keeps the cells below it alive, so no identity in a key can belong to another cell."""


def from_boc(data: bytes, *, bytes_max: int = BOC_BYTES_MAX) -> Cell:
    """Decode a bag of at most `bytes_max` bytes with exactly one root.

    Raises:
        InvalidMessageError: too large, malformed, or not exactly one root.
    """
    if len(data) > bytes_max:
        raise InvalidMessageError(f"bag of cells: {len(data)} bytes are more than {bytes_max}")
    if len(data) < 6 or data[:4] != _MAGIC:
        raise InvalidMessageError("bag of cells: does not begin like one")
    size, offset_size = data[4] & 7, data[5]
    if not 1 <= size <= 4 or not 1 <= offset_size <= 8:
        raise InvalidMessageError("bag of cells: impossible sizes")
    count, roots, absent = (int.from_bytes(data[at : at + size], "big") for at in range(6, 6 + 3 * size, size))
    start = 6 + 4 * size + offset_size
    root = int.from_bytes(data[start - size : start], "big")
    start += count * offset_size if data[4] & _HAS_INDEX else 0
    end = len(data) - (4 if data[4] & _HAS_CHECKSUM else 0)
    if roots != 1 or absent != 0 or root >= count or 2 * count > end - start:
        raise InvalidMessageError(f"bag of cells: {roots} roots and {count} cells do not fit {len(data)} bytes")
    parts = _split(data[:end], start, count, size)
    try:
        return _build(parts)[root]
    except InvalidMessageError:
        raise
    except Exception as error:
        raise InvalidMessageError(f"bag of cells: {error!r:.120}") from error


def _split(data: bytes, at: int, count: int, size: int) -> list[tuple[bytes, list[int]]]:
    """Descriptors with data, and indexes of references, of each cell; checks that all of it is there."""
    parts = []
    for index in range(count):
        if at + 2 > len(data):
            raise InvalidMessageError("bag of cells: ends too early")
        refs = data[at] & 7
        if refs > REFS_MAX or data[at] & _WITH_HASHES:
            raise InvalidMessageError(f"bag of cells: cell {index} has impossible descriptors")
        middle = at + 2 + (data[at + 1] + 1) // 2
        after = middle + refs * size
        indexes = [int.from_bytes(data[i : i + size], "big") for i in range(middle, after, size)]
        if any(not index < ref < count for ref in indexes):
            raise InvalidMessageError(f"bag of cells: cell {index} refers to none that follows it")
        parts.append((data[at:middle], indexes))
        at = after
    if at != len(data):
        raise InvalidMessageError("bag of cells: wrong length")
    return parts


def _build(parts: list[tuple[bytes, list[int]]]) -> list[Cell]:
    """The cells of all parts; the last ones first, because each refers to later ones only."""
    cells: list[Cell] = [None] * len(parts)
    for index in range(len(parts) - 1, -1, -1):
        raw, indexes = parts[index]
        refs = [cells[i] for i in indexes]
        key = raw, tuple(map(id, refs))
        cell = _alive.get(key)
        if cell is None:
            cell = _alive[key] = _cell(raw, refs)
        cells[index] = cell
    return cells


def _cell(raw: bytes, refs: list[Cell]) -> Cell:
    content: bitarray = bitarray(endian="big")
    content.frombytes(raw[2:])
    if raw[1] & 1:
        # An odd length byte: the last 1 and the zeros after it only fill up the last byte.
        fill = content.find(1, right=True)
        if fill < len(content) - 8 or fill < 0:
            raise InvalidMessageError("bag of cells: a cell without end of data")
        content = content[:fill]
    kind = -1
    if raw[0] & _EXOTIC:
        if len(content) < 8:
            raise InvalidMessageError("bag of cells: an exotic cell without type")
        kind = raw[2]
    cell = Cell(TvmBitarray(1023, content), refs, kind)
    if cell.level_mask.mask != raw[0] >> 5:
        raise InvalidMessageError("bag of cells: a cell of another level than it says")
    return cell


def to_boc(*roots: Cell) -> bytes:
    """Encode one or more roots; cells that are shared are written once. Roots keep their order."""
    order = _topological(roots)
    index = {cell.hash: i for i, cell in enumerate(order)}
    size = max(1, (len(order).bit_length() + 7) // 8)
    body = bytearray()
    for cell in order:
        body += cell.get_descriptors(cell.level_mask) + cell.data
        for ref in cell.refs:
            body += index[ref.hash].to_bytes(size, "big")
    offset = max(1, (len(body).bit_length() + 7) // 8)
    head = _MAGIC + bytes([size, offset])
    counts = b"".join(n.to_bytes(size, "big") for n in (len(order), len(roots), 0))
    root_list = b"".join(index[root.hash].to_bytes(size, "big") for root in roots)
    return head + counts + len(body).to_bytes(offset, "big") + root_list + bytes(body)


def _topological(roots: Sequence[Cell]) -> list[Cell]:
    """Every distinct cell once, each before the cells that it refers to (reversed post-order)."""
    done: list[Cell] = []
    seen: set[bytes] = set()
    stack: list[tuple[Cell, bool]] = [(root, False) for root in roots]
    while stack:
        cell, expanded = stack.pop()
        if expanded:
            done.append(cell)
        elif cell.hash not in seen:
            seen.add(cell.hash)
            stack.append((cell, True))
            stack.extend((ref, False) for ref in cell.refs if ref.hash not in seen)
    done.reverse()
    return done
