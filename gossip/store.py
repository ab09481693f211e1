"""What the node needs of a store: a port, implemented by `agent.journal` (and in memory by tests).

Every method that writes returns only when the write is durable, or raises an error that stops the node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from gossip.epoch_events import Message
from gossip.records import Record
from gossip.settlement import Settlement


class Store(Protocol):
    """Durable state of one node. Thread-safe; calls may block for as long as the disk takes."""

    def append_own(self, record: Record, window: int | None = None) -> None:
        """Append to the own log, and strike off the work window of this number; refuses a number that is taken."""

    def append(self, records: Sequence[Record]) -> None:
        """Keep peers' records; known ones are skipped."""

    def records(self, node_key: bytes, first: int, last: int) -> Iterator[bytes]:
        """Wires of the records `first`..`last` of one log, ascending, all branches."""

    def all_records(self) -> Iterator[bytes]:
        """Wires of every record kept, ascending by log and number: read once, at start."""

    def keep_messages(self, epoch: int, messages: Sequence[Message], outcome: Settlement | None = None) -> None:
        """Keep messages of an epoch's close, and the settlement that an attest among them stands for, in one
        transaction; known ones are skipped."""

    def messages(self, epoch: int) -> Sequence[tuple[str, bytes]]:
        """(kind, wire) of the messages kept of this epoch; kinds are those of `gossip.wire`."""

    def observation(self, digest: bytes) -> bytes | None:
        """Wire of a kept observation."""

    def outcomes(self) -> Sequence[Settlement]:
        """The settlements kept that this node attested and that have not landed, as far as it knows."""

    def keep_landed(self, settlement: Settlement) -> None:
        """Keep a settlement that landed; it is the base from now on."""

    def last_landed(self) -> Settlement | None:
        """The last settlement kept."""

    def checkpoint(self, payload_hash: bytes) -> bytes | None:
        """Bytes of the checkpoint whose payload has this hash."""

    def keep_attachment(self, digest: bytes, body: bytes) -> None:
        """Keep what evidence names (collateral, GPU evidence, a handshake) by its SHA-256."""

    def attachment(self, digest: bytes) -> bytes | None:
        """What was kept under this SHA-256."""

    def keep_witness(self, seconds: Mapping[bytes, int], gone: Collection[bytes] = ()) -> None:
        """Keep the cumulative witnessed seconds of these keys, forget those of keys `gone`; those of others stay."""

    def witness(self) -> Mapping[bytes, int]:
        """The witnessed seconds last kept."""
