"""Strict reading and writing of single cells: the only place that touches pytoniq_core's cells.

Untrusted: every byte and cell that is read. pytoniq's own `Slice` returns fewer bits than were asked
for at the end of a cell and raises whatever comes to hand on garbage, so reading is done here:

1. a BoC is bounded in bytes and has exactly one root;
2. an exotic cell (pruned, library, Merkle) never stands where a value is expected;
3. reading past the end, leftover bits or references, and lengths that are not minimal are refused;
4. every refusal is an `InvalidCellError` that names the value it was reading.

Source: TON whitepaper "TVM" section 3.1 (cells), block.tlb (`MsgAddressInt`, `VarUInteger`).
"""

from __future__ import annotations

from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError
from contracts.model import Address

BOC_BYTES_MAX = 16 * 1024

_ORDINARY = -1
_COINS_LENGTH_BITS = 4


def parse_boc(data: bytes, *, bytes_max: int = BOC_BYTES_MAX) -> Cell:
    """Read a bag of cells with one root.

    Raises:
        InvalidCellError: longer than `bytes_max`, malformed, or not exactly one root.
    """
    if len(data) > bytes_max:
        raise InvalidCellError(f"BoC: {len(data)} bytes, at most {bytes_max} are taken")
    try:
        roots = Cell.from_boc(data)
    except Exception as error:  # pytoniq raises bare Exception, IndexError ... on garbage
        raise InvalidCellError(f"BoC: malformed ({type(error).__name__})") from error
    if len(roots) != 1:
        raise InvalidCellError(f"BoC: expected one root, got {len(roots)}")
    root: Cell = roots[0]
    return root


class Reader:
    """Takes the fields of one ordinary cell in order; `end()` makes sure that nothing is left.

    `name` says what is being read; it opens every error message.
    """

    __slots__ = ("_left", "_refs", "_value", "name")

    def __init__(self, cell: Cell, name: str) -> None:
        self.name = name
        if cell.type_ != _ORDINARY:
            raise InvalidCellError(f"{name}: an exotic cell of type {cell.type_} stands where a value should")
        self._left = len(cell.bits)
        self._value = int.from_bytes(cell.bits.tobytes(), "big") >> (-self._left % 8)
        self._refs = list(cell.refs)

    @property
    def bits_left(self) -> int:
        return self._left

    @property
    def refs_left(self) -> int:
        return len(self._refs)

    def uint(self, bits: int) -> int:
        """Take an unsigned integer of `bits` bits, big-endian."""
        if bits > self._left:
            raise InvalidCellError(f"{self.name}: the cell ends early ({self._left} bits left, {bits} expected)")
        self._left -= bits
        return (self._value >> self._left) & ((1 << bits) - 1)

    def sint(self, bits: int) -> int:
        """Take a signed integer of `bits` bits, two's complement."""
        value = self.uint(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def flag(self) -> bool:
        return self.uint(1) == 1

    def octets(self, length: int) -> bytes:
        return self.uint(8 * length).to_bytes(length, "big")

    def coins(self) -> int:
        """Take an amount in nanoTON; refuse one that is not written in the fewest bytes."""
        length = self.uint(_COINS_LENGTH_BITS)
        value = self.uint(8 * length)
        if value.bit_length() <= 8 * (length - 1):
            raise InvalidCellError(f"{self.name}: an amount is not written in the fewest bytes")
        return value

    def address(self) -> Address:
        """Take a standard address without anycast."""
        tag = self.uint(3)
        if tag != 0b100:
            raise InvalidCellError(f"{self.name}: expected a standard address, got tag {tag:03b}")
        return Address(self.sint(8), self.octets(32))

    def maybe_address(self) -> Address | None:
        """Take a standard address, or `addr_none$00` as None."""
        if self._left >= 2 and (self._value >> (self._left - 2)) & 0b11 == 0:
            self._left -= 2
            return None
        return self.address()

    def ref(self) -> Cell:
        if not self._refs:
            raise InvalidCellError(f"{self.name}: a reference is missing")
        return self._refs.pop(0)

    def maybe_ref(self) -> Cell | None:
        return self.ref() if self.flag() else None

    def tag(self, expected: int, bits: int) -> None:
        """Take a constructor tag and refuse any other one."""
        tag = self.uint(bits)
        if tag != expected:
            raise InvalidCellError(f"{self.name}: expected tag {expected:#x}, got {tag:#x}")

    def end(self) -> None:
        """Raise `InvalidCellError` if bits or references are left."""
        if self._left or self._refs:
            raise InvalidCellError(f"{self.name}: {self._left} bits and {len(self._refs)} references are left over")


def store_address(builder: Builder, address: Address) -> Builder:
    """Write `address` as `addr_std$10` without anycast."""
    return builder.store_uint(0b100, 3).store_int(address.workchain, 8).store_bytes(address.account)


def store_maybe_address(builder: Builder, address: Address | None) -> Builder:
    """Write `address`, or `addr_none$00` for None."""
    return builder.store_uint(0, 2) if address is None else store_address(builder, address)
