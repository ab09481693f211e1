"""The address book: the newest address record of each registered key.

Decides which address record counts. Records come from peers, and from a file that is a cache. Checked cheapest
first; the signature last.

1. One record per registered key: the newest by `issued_s`; an older or equal one changes nothing.
2. One that is dated later than this node's clock and `FUTURE_S` is refused: it could never be replaced.
3. A key's record is replaced at most every `REPLACED_AFTER_S`: whoever re-issues all the time makes others dial
   no more often than that.
4. A record does not expire: it is the last that is known, until a newer one comes or its key is registered no more.
5. Peers compare what they hold in ranges of keys, and tell one another only ranges that differ.

Pure: the caller brings the time. Elsewhere: asking (`gossip.finding`), the file (`agent.address_file`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass

from gossip.addresses import AddressRecord, parse_address_record, verify_address_record
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.sync import ADDRESS_RANGES, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, RANGE_DIGEST_BYTES, AddressPage

FUTURE_S = 300
REPLACED_AFTER_S = 60

_NOTHING = bytes(RANGE_DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class _Held:
    record: AddressRecord
    replaced_s: int | None
    """When it replaced another one; None if it is the first."""


class AddressBook:
    """What this node knows of where others are; `revision` grows with every change."""

    def __init__(self, pool: PoolId) -> None:
        self._pool = pool
        self._ranges: tuple[dict[bytes, _Held], ...] = tuple({} for _ in range(ADDRESS_RANGES))
        """By the first byte of the key, then by key."""
        self._digests: dict[int, bytes] = {}
        """Of the ranges that did not change since they were computed."""
        self.revision = 0

    def take(self, wire: bytes, *, registered: Container[bytes], now_s: int) -> bool:
        """Take over an address record, if it is news (rule 1 and 3); whether it was.

        Raises:
            InvalidMessageError: malformed, of nobody who is registered, from the future, or the signature is wrong.
        """
        record = parse_address_record(wire, self._pool)
        if record.node_key not in registered:
            raise InvalidMessageError("participant: the key is not in the registry")
        if record.issued_s > now_s + FUTURE_S:
            raise InvalidMessageError("issued_s: in the future")
        held = self._find(record.node_key)
        if held is not None:
            is_too_soon = held.replaced_s is not None and 0 <= now_s - held.replaced_s < REPLACED_AFTER_S
            if is_too_soon or record.issued_s <= held.record.issued_s:
                return False
        self._keep(verify_address_record(record), None if held is None else now_s)
        return True

    def keep_own(self, wire: bytes) -> None:
        """Take over this node's own new record, however soon it follows the last one."""
        self._keep(verify_address_record(parse_address_record(wire, self._pool)), None)

    def keep_only(self, registered: Container[bytes]) -> None:
        """Let go of what is of nobody who is registered."""
        for held in self._ranges:
            for node_key in [key for key in held if key not in registered]:
                del held[node_key]
                self._changed(node_key)

    def record(self, node_key: bytes) -> AddressRecord | None:
        """The record of this key."""
        held = self._find(node_key)
        return None if held is None else held.record

    def addresses(self, node_key: bytes) -> tuple[str, ...]:
        """Where the node of this key says it is; empty if it does not, or nothing is known."""
        held = self._find(node_key)
        return () if held is None else held.record.addresses

    def wires(self) -> tuple[bytes, ...]:
        """All records, by key."""
        return tuple(record.wire for number in range(ADDRESS_RANGES) for record in self._records(number))

    def digests(self) -> bytes:
        """What is held, range by range: for `AddressesRequest`."""
        return b"".join(map(self._digest, range(ADDRESS_RANGES)))

    def page(self, first: int, theirs: bytes) -> AddressPage:
        """Records of the ranges from `first` on that differ from the digests `theirs`, as many ranges as fit.

        A range that does not fit into a page by itself is cut short: gossip brings the rest.
        """
        wires: list[bytes] = []
        size = 0
        for number in range(first, ADDRESS_RANGES):
            start = number * RANGE_DIGEST_BYTES
            if self._digest(number) == theirs[start : start + RANGE_DIGEST_BYTES]:
                continue
            records = self._records(number)
            size += sum(len(record.wire) for record in records)
            if wires and (size > PAGE_BYTES_MAX or len(wires) + len(records) > PAGE_RECORDS_MAX):
                return AddressPage(next=number, wires=tuple(wires))
            wires += _fitting(records)
        return AddressPage(next=ADDRESS_RANGES, wires=tuple(wires))

    def _digest(self, number: int) -> bytes:
        if not self._ranges[number]:
            return _NOTHING
        if number not in self._digests:
            hashes = b"".join(hashlib.sha256(record.signed).digest() for record in self._records(number))
            self._digests[number] = hashlib.sha256(hashes).digest()[:RANGE_DIGEST_BYTES]
        return self._digests[number]

    def _records(self, number: int) -> list[AddressRecord]:
        """The records of one range, by key."""
        return [held.record for _, held in sorted(self._ranges[number].items())]

    def _find(self, node_key: bytes) -> _Held | None:
        return self._ranges[node_key[0]].get(node_key)

    def _keep(self, record: AddressRecord, replaced_s: int | None) -> None:
        self._ranges[record.node_key[0]][record.node_key] = _Held(record, replaced_s)
        self._changed(record.node_key)

    def _changed(self, node_key: bytes) -> None:
        self._digests.pop(node_key[0], None)
        self.revision += 1


def _fitting(records: Iterable[AddressRecord]) -> list[bytes]:
    wires: list[bytes] = []
    size = 0
    for record in records:
        size += len(record.wire)
        if size > PAGE_BYTES_MAX:
            break
        wires.append(record.wire)
    return wires
