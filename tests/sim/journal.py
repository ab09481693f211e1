"""The model of a journal: what an agent has after a crash is what it wrote here before, and nothing else.

Each method is one durable step (`gossip.store`). Kept as values, not as bytes: that bytes come back whole is
the business of the journal's own tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gossip.epoch_events import Message
from gossip.messages import Attest, Observation, Proposal
from gossip.records import Record
from gossip.settlement import Settlement

_ORDER = (Observation, Proposal, Attest)


class ModelJournal:
    """Durable state of one agent."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[int, dict[bytes, Record]]] = {}
        self._messages: dict[int, dict[bytes, Message]] = {}
        self._landed: dict[bytes, Settlement] = {}
        self._outcomes: dict[bytes, Settlement] = {}
        self.witness: Mapping[bytes, int] = {}

    def append_own(self, record: Record) -> None:
        numbers = self._records.get(record.node_key, {})
        assert not numbers or record.seq > max(numbers), "the journal refuses a number that is taken"
        self.append([record])

    def append(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records.setdefault(record.node_key, {}).setdefault(record.seq, {})[record.hash] = record

    def records(self, node_key: bytes, first: int, last: int) -> Iterator[Record]:
        """The records `first`..`last` of one log, ascending, all branches."""
        numbers = self._records.get(node_key, {})
        for seq in sorted(seq for seq in numbers if first <= seq <= last):
            yield from (numbers[seq][key] for key in sorted(numbers[seq]))

    def all_records(self) -> Iterator[Record]:
        for node_key in sorted(self._records):
            yield from self.records(node_key, 1, max(self._records[node_key]))

    def has_record(self, record: Record) -> bool:
        return record.hash in self._records.get(record.node_key, {}).get(record.seq, {})

    def keep_messages(self, epoch: int, messages: Sequence[Message], outcome: Settlement | None = None) -> None:
        if outcome is not None:
            self._outcomes[outcome.payload_hash] = outcome
        self._messages.setdefault(epoch, {}).update({message.wire: message for message in messages})

    def messages(self, epoch: int) -> list[Message]:
        """What was kept of this epoch: observations, then proposals, then attests."""
        kept = self._messages.get(epoch, {})
        return [kept[wire] for kind in _ORDER for wire in sorted(kept) if isinstance(kept[wire], kind)]

    def has_message(self, message: Message) -> bool:
        return message.wire in self._messages.get(message.epoch, {})

    def observation(self, digest: bytes) -> Observation | None:
        kept = (message for messages in self._messages.values() for message in messages.values())
        return next((m for m in kept if isinstance(m, Observation) and m.digest == digest), None)

    def keep_landed(self, settlement: Settlement) -> None:
        self._landed[settlement.payload_hash] = settlement
        self._outcomes = {
            h: kept for h, kept in self._outcomes.items() if kept.payload.epoch > settlement.payload.epoch
        }

    def last_landed(self) -> Settlement | None:
        return max(self._landed.values(), key=lambda settlement: settlement.payload.epoch, default=None)

    def checkpoint(self, payload_hash: bytes) -> Settlement | None:
        return self._landed.get(payload_hash) or self._outcomes.get(payload_hash)

    def outcomes(self) -> list[Settlement]:
        """What this agent attested and has not seen land."""
        return [*self._outcomes.values()]
