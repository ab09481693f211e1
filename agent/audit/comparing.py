"""Two settlements of one epoch, field by field: what landed, and what follows from the records.

Pure. A difference names the participant, the figure, both values, and the records that were counted for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.model import Address, Leaf, Participant
from gossip.settlement import Base, Reading, Settlement

_IN_READING = "readings."


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure that is not what it should be. `participant` is None for a figure of the whole payload."""

    participant: Address | None
    node_key: bytes | None
    figure: str
    settled: str
    recomputed: str
    records: tuple[int, int] | None = None
    """Numbers of the participant's records that count in the epoch, as recomputed: first and last."""

    @property
    def text(self) -> str:
        who = "payload"
        if self.participant is not None or self.node_key is not None:
            who = str(self.participant or f"node {self.node_key.hex() if self.node_key else ''}")
        where = "" if self.records is None else f" (records {self.records[0]} to {self.records[1]})"
        return f"{who}: {self.figure}: settled {self.settled}, follows {self.recomputed}{where}"


def compare(
    settled: Settlement, recomputed: Settlement, base: Base, participants: Sequence[Participant]
) -> tuple[Difference, ...]:
    """All differences: those of leaves and readings participant by participant, then those of the payload."""
    address_of = {p.node_key: p.address for p in participants}
    key_of = {p.address: p.node_key for p in participants}

    def difference(
        figure: str, pair: tuple[Any, Any], node_key: bytes | None = None, address: Address | None = None
    ) -> Difference:
        records = None if node_key is None else _counted(base, recomputed, node_key)
        settled_value, recomputed_value = (_legible(each) for each in pair)
        return Difference(
            participant=address,
            node_key=node_key,
            figure=figure,
            settled=settled_value,
            recomputed=recomputed_value,
            records=records,
        )

    found = [
        difference(figure, pair, key_of.get(address), address)
        for address, figure, pair in _pairs(_leaves(settled.leaves), _leaves(recomputed.leaves))
    ]
    found += [
        difference(_IN_READING + figure, pair, node_key, address_of.get(node_key))
        for node_key, figure, pair in _pairs(settled.readings, recomputed.readings)
    ]
    found += [difference(figure, pair) for figure, pair in _fields(settled.payload, recomputed.payload)]
    return tuple(found)


def _leaves(leaves: Iterable[Leaf]) -> dict[Address, Leaf]:
    return {leaf.participant: leaf for leaf in leaves}


def _pairs(settled: Mapping[Any, Any], recomputed: Mapping[Any, Any]) -> Iterator[tuple[Any, str, tuple[Any, Any]]]:
    for key in sorted(settled.keys() | recomputed.keys()):
        one, other = settled.get(key), recomputed.get(key)
        if one is None or other is None:
            kind = type(one or other).__name__.lower()
            yield key, kind, ("none" if one is None else "there", "none" if other is None else "there")
            continue
        yield from ((key, figure, pair) for figure, pair in _fields(one, other))


def _fields(one: Any, other: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for field in dataclasses.fields(one):
        values = getattr(one, field.name), getattr(other, field.name)
        if values[0] != values[1]:
            yield field.name, values


def _counted(base: Base, recomputed: Settlement, node_key: bytes) -> tuple[int, int] | None:
    first, last = base.reading(node_key).head.seq + 1, recomputed.readings.get(node_key, Reading()).head.seq
    return (first, last) if first <= last else None


def _legible(value: Any) -> str:
    """A figure in one line; hashes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return " ".join(f"{name}={_legible(getattr(value, name))}" for name in names)
    if isinstance(value, tuple):
        return "[" + ", ".join(_legible(each) for each in value) + "]"
    return str(value)
