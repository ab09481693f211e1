"""Codecs: how one kind of value is written to a cell and read back, stated once for both directions.

    TARGET = struct("Target", Target, Field("participant", ACCOUNT), Field("joined", uint(32), "joined_s"))
    TARGET.cell(value) -> Cell;  TARGET.parse(cell) -> Target

Each codec knows its TL-B name, and each field the name that the schema gives it, so that a test can hold
the tables in this package against `contracts/schema.tlb` field by field.

Untrusted: every cell that is read. Whatever does not decode to the last bit, and whatever decodes to a
value that its class refuses, is an `InvalidCellError`; a value that does not fit is an `InvalidValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout import dictionary
from contracts.layout.cells import Reader, store_address, store_maybe_address
from contracts.model import Address, require_bytes, require_uint

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E", bound=IntEnum)
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """`write(builder, value)` appends, `read(reader)` takes; `fields` only of a struct."""

    tlb: str
    write: Callable[[Builder, T], object]
    read: Callable[[Reader], T]
    fields: tuple[Field | Part, ...] = ()

    def cell(self, value: T) -> Cell:
        """Write a value into a cell of its own. Raises `InvalidValueError` if it does not fit."""
        builder = Builder()
        self.write(builder, value)
        return builder.end_cell()

    def parse(self, cell: Cell) -> T:
        """Read a cell that holds exactly this. Raises `InvalidCellError`."""
        reader = Reader(cell, self.tlb)
        value = self.read(reader)
        reader.end()
        return value


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in the schema, and the attribute that holds it, if that is called otherwise.

    A constant (`codec.write` ignores its value) has the attribute `""`.
    """

    name: str
    codec: Codec[Any]
    attribute: str | None = None

    @property
    def key(self) -> str:
        return self.name if self.attribute is None else self.attribute


@dataclass(frozen=True, slots=True)
class Part:
    """A field that is a reference to a cell whose own fields lie flat in the value."""

    name: str
    tlb: str
    fields: tuple[Field | Part, ...]


def record(tlb: str, *fields: Field | Part, tag: tuple[int, int] | None = None) -> Codec[Values]:
    """A struct as a dict by attribute; `tag` is (number, bits)."""

    def write(builder: Builder, values: Values) -> None:
        if tag is not None:
            builder.store_uint(*tag)
        _store(builder, fields, values)

    def read(reader: Reader) -> Values:
        if tag is not None:
            reader.tag(*tag)
        values: Values = {}
        _load(reader, fields, values)
        return values

    return Codec(tlb, write, read, fields)


def struct(tlb: str, make: Callable[..., T], *fields: Field | Part, tag: tuple[int, int] | None = None) -> Codec[T]:
    """A struct as a value of the class `make`, whose arguments are the fields' attributes."""
    attributes = tuple(_attributes(fields))
    return convert(
        record(tlb, *fields, tag=tag),
        lambda values: make(**values),
        lambda value: {name: getattr(value, name) for name in attributes},
    )


def convert(codec: Codec[T], to: Callable[[T], U], back: Callable[[U], T]) -> Codec[U]:
    """The same bits for another value; what `to` refuses with `InvalidValueError` is an invalid cell."""

    def read(reader: Reader) -> U:
        try:
            return to(codec.read(reader))
        except InvalidValueError as error:
            raise InvalidCellError(f"{reader.name}: {error}") from error

    return Codec(codec.tlb, lambda builder, value: codec.write(builder, back(value)), read, codec.fields)


def _store(builder: Builder, fields: tuple[Field | Part, ...], values: Mapping[str, Any]) -> None:
    for field in fields:
        if isinstance(field, Part):
            part = Builder()
            _store(part, field.fields, values)
            builder.store_ref(part.end_cell())
        else:
            field.codec.write(builder, values[field.key] if field.key else None)


def _load(reader: Reader, fields: tuple[Field | Part, ...], values: Values) -> None:
    for field in fields:
        if isinstance(field, Part):
            part = Reader(reader.ref(), field.tlb)
            _load(part, field.fields, values)
            part.end()
        else:
            value = field.codec.read(reader)
            if field.key:
                values[field.key] = value


def _attributes(fields: tuple[Field | Part, ...]) -> list[str]:
    names: list[str] = []
    for field in fields:
        names += _attributes(field.fields) if isinstance(field, Part) else [field.key] * bool(field.key)
    return names


# ---- single values ----


def uint(bits: int) -> Codec[int]:
    """An unsigned integer, big-endian; a member of an `IntEnum` is one too."""

    def write(builder: Builder, value: int) -> None:
        require_uint("value", int(value) if isinstance(value, IntEnum) else value, bits)
        builder.store_uint(value, bits)

    return Codec(f"uint{bits}", write, lambda reader: reader.uint(bits))


def sint(bits: int) -> Codec[int]:
    """A signed integer, two's complement."""

    def write(builder: Builder, value: int) -> None:
        require_uint("value", value + (1 << (bits - 1)), bits)
        builder.store_int(value, bits)

    return Codec(f"int{bits}", write, lambda reader: reader.sint(bits))


def octets(length: int) -> Codec[bytes]:
    """Exactly `length` bytes: a hash, a key, a signature."""

    def write(builder: Builder, value: bytes) -> None:
        require_bytes("value", value, length)
        builder.store_bytes(value)

    return Codec(f"bits{8 * length}", write, lambda reader: reader.octets(length))


def choice(kind: type[E], bits: int) -> Codec[E]:
    """An integer that must be one of an enum's."""

    def read(reader: Reader) -> E:
        value = reader.uint(bits)
        try:
            return kind(value)
        except ValueError:
            raise InvalidCellError(f"{reader.name}: {value} is no {kind.__name__}") from None

    return Codec(f"uint{bits}", lambda builder, value: builder.store_uint(int(value), bits), read)


def constant(value: int, bits: int, what: str) -> Codec[None]:
    """An integer that can only be this one, for a field without attribute."""

    def read(reader: Reader) -> None:
        found = reader.uint(bits)
        if found != value:
            raise InvalidCellError(f"{reader.name}: {what} {found}, expected {value}")

    return Codec(f"uint{bits}", lambda builder, _: builder.store_uint(value, bits), read)


def raw(tlb: str = "Cell") -> Codec[Cell]:
    """A reference to a cell that is taken as it is, exotic or not."""
    return Codec(f"^{tlb}", lambda builder, cell: builder.store_ref(cell), lambda reader: reader.ref())


def ref(codec: Codec[T]) -> Codec[T]:
    """A reference to an ordinary cell that holds exactly this value."""
    return Codec(
        f"^{codec.tlb}",
        lambda builder, value: builder.store_ref(codec.cell(value)),
        lambda reader: codec.parse(reader.ref()),
    )


def maybe_ref(codec: Codec[T]) -> Codec[T | None]:
    """`ref`, or nothing."""

    def read(reader: Reader) -> T | None:
        cell = reader.maybe_ref()
        return None if cell is None else codec.parse(cell)

    def write(builder: Builder, value: T | None) -> None:
        builder.store_maybe_ref(None if value is None else codec.cell(value))

    return Codec(f"(Maybe ^{codec.tlb})", write, read)


def hashmap(key_bits: int, codec: Codec[T], entries_max: int, name: str) -> Codec[dict[int, T]]:
    """A dictionary (`HashmapE`) of at most `entries_max` entries, by ascending key."""

    def read(reader: Reader) -> dict[int, T]:
        items: dict[int, T] = {}
        for key, value in dictionary.entries(reader.maybe_ref(), key_bits, entries_max=entries_max, name=name):
            items[key] = codec.read(value)
            value.end()
        return items

    def write(builder: Builder, items: Mapping[int, T]) -> None:
        builder.store_maybe_ref(dictionary.build(items, key_bits, codec.write))

    return Codec(f"(HashmapE {key_bits} {codec.tlb})", write, read)


def _store_coins(builder: Builder, value: int) -> None:
    require_uint("nanoton", value, 120)
    builder.store_coins(value)


def _store_account(builder: Builder, address: Address) -> None:
    if address.workchain != 0:
        raise InvalidValueError(f"{address}: only workchain 0 takes part")
    builder.store_bytes(address.account)


BOOL: Codec[bool] = Codec("Bool", lambda builder, value: builder.store_bool(value), lambda reader: reader.flag())
COINS: Codec[int] = Codec("Coins", _store_coins, lambda reader: reader.coins())
HASH: Codec[bytes] = octets(32)
ADDRESS: Codec[Address] = Codec("MsgAddressInt", store_address, lambda reader: reader.address())
MAYBE_ADDRESS: Codec[Address | None] = Codec("MsgAddress", store_maybe_address, lambda reader: reader.maybe_address())
ACCOUNT: Codec[Address] = Codec("bits256", _store_account, lambda reader: Address(0, reader.octets(32)))
"""The hash of an address in workchain 0."""
