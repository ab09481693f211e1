"""What must hold of every settlement, whatever happened: judged from the chain and from every agent's journal.

Rules; "record" is one of any journal, "cut" what a settlement counted up to:
1. What landed follows from records and observations (`devnet_audit` recomputes it), and every journal that has the
   epoch has this very settlement for it.
2. The leaves sum up to the payload's totals.
3. No agent signed two records of one number, but for a key that two agents used.
4. Each cut extends the one before: what lies between is counted once, in windows that do not overlap, and nobody is
   credited with more time or tokens than these windows hold.
5. The cut is nowhere below what every operator observed.
6. What is owed is paid: a window that ended before a fault was over is in the cut of every epoch that ends
   `LEVEL_S` later.

Source: PROTOCOL, "Invariants" 1 to 4 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise

from devnet_audit import AuditError, Auditor

from agent.devnet.onlooker import Landing
from agent.devnet.report import EpochBooks
from agent.journal_file import connect_reading
from contracts.model import Leaf
from gossip.log_chain import GENESIS, Head
from gossip.records import Record, Source, WorkBody
from gossip.settlement import Base, Settlement
from tests.chaos.errors import ViolationError

LEVEL_S = 20
"""After a fault so long until every agent has everything again."""
_TOKEN_UNITS = (1, 2)


class Watchdog:
    """Follows the settlements of one pool."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._landed: dict[int, bytes] = {}
        self._owed_s: list[int] = []
        self.shared: set[bytes] = set()
        """Node keys that two agents use: their logs may fork."""
        self.settlements: list[Settlement] = []

    @property
    def forked(self) -> set[bytes]:
        """Node keys whose logs fork, as far as journals were read."""
        return self._auditor.forked

    def owe(self, until_s: int) -> None:
        """A fault is over: what was recorded before it is to be paid (rule 6)."""
        self._owed_s.append(until_s)

    def is_due(self, end_s: int) -> bool:
        """Whether all that is owed must be in the settlement of an epoch that ends then."""
        return all(end_s >= owed_s + LEVEL_S for owed_s in self._owed_s)

    def follow(self, landings: Sequence[Landing]) -> None:
        """Judge what landed since the last call; `landings` are all of them, in order. Takes seconds of work.

        Raises:
            ViolationError: a rule is broken; the message says which epoch and log.
        """
        try:
            self._auditor.read()
            if forked := self._auditor.forked - self.shared:
                raise AuditError(f"two records of one number in the log of {', '.join(k.hex()[:16] for k in forked)}")
            for landing in landings[len(self.settlements) :]:
                self._follow(landing)
            self._require_journals_agree()
        except AuditError as error:
            raise ViolationError(f"epoch {len(self.settlements) + 1}: {error}") from error

    def _follow(self, landing: Landing) -> None:
        base = self._auditor.base
        epoch, payload_hash = landing.settlement.payload.epoch, landing.settlement.payload_hash
        settlement = self._auditor.follow(epoch, payload_hash, asdict(_books(landing, base)))
        payload = settlement.payload
        for name, total in (("tokens", payload.tokens), ("tasks", payload.tasks), ("score", payload.total_score)):
            if sum(getattr(leaf, name) for leaf in settlement.leaves) != total:
                raise AuditError(f"the leaves' {name} do not sum up to the payload's")
        leaves = {leaf.participant: leaf for leaf in settlement.leaves}
        for participant in self._auditor.participants:
            key, leaf = participant.node_key, leaves.get(participant.address)
            if key not in self.shared:
                self._require_counted_once(key, base.reading(key).head, settlement, leaf)
                self._require_observed(key, settlement)
                self._require_paid(key, landing.pot.end_s, settlement)
        self._landed[epoch] = payload_hash
        self.settlements.append(settlement)

    def _require_counted_once(self, key: bytes, before: Head, settlement: Settlement, leaf: Leaf | None) -> None:
        """Rule 4."""
        head, records = settlement.readings[key].head, self._auditor.records.get(key, {})
        counted: list[Record] = [records[seq] for seq in range(before.seq + 1, head.seq + 1)]
        chain = [before.hash, *(record.hash for record in counted)]
        if [record.prev_hash for record in counted] != chain[:-1] or chain[-1] != head.hash:
            raise AuditError(f"the cut of {key.hex()[:16]} does not extend the one before")
        bodies = [record.body for record in counted if isinstance(record.body, WorkBody)]
        if any(later.start_s < body.end_s for body, later in pairwise(bodies)):
            raise AuditError(f"windows of {key.hex()[:16]} overlap")
        length_s = sum(body.end_s - body.start_s for body in bodies)
        tokens = sum(reading.amount(*_TOKEN_UNITS) for body in bodies for reading in body.of(Source.ENGINE))
        if leaf is not None and (leaf.uptime_s > length_s or leaf.tokens > tokens):
            raise AuditError(f"{key.hex()[:16]} is credited with more than its windows hold")

    def _require_observed(self, key: bytes, settlement: Settlement) -> None:
        """Rule 5."""
        observed = [o.logs[key].head.seq for o in self._auditor.observations(settlement.payload.epoch) if key in o.logs]
        if settlement.readings[key].head.seq < min(observed, default=0):
            raise AuditError(f"everybody saw more of the log of {key.hex()[:16]} than was counted")

    def _require_paid(self, key: bytes, end_s: int, settlement: Settlement) -> None:
        """Rule 6."""
        until_s = max((owed_s for owed_s in self._owed_s if end_s >= owed_s + LEVEL_S), default=0)
        owed = max(
            (
                record.seq
                for record in self._auditor.records.get(key, {}).values()
                if isinstance(record.body, WorkBody) and record.body.end_s <= until_s
            ),
            default=GENESIS.seq,
        )
        counted = settlement.readings[key].head.seq
        if counted < owed:
            raise AuditError(f"records {counted + 1} to {owed} of {key.hex()[:16]} are lost, or too late")

    def _require_journals_agree(self) -> None:
        for config in self._auditor.configs:
            with closing(connect_reading(config.journal_file)) as journal:
                for epoch, payload_hash in journal.execute("SELECT epoch, payload_hash FROM landed"):
                    if self._landed.get(epoch, payload_hash) != payload_hash:
                        raise AuditError(f"{config.journal_file} has another settlement of epoch {epoch}")


def _books(landing: Landing, base: Base) -> EpochBooks:
    earned = landing.settlement.payload.total_earned_nanoton - sum(base.earned_nanoton.values())
    pot = landing.pot
    return EpochBooks(
        epoch=pot.epoch,
        fee_nanoton=pot.fee_nanoton,
        pot_nanoton=pot.pot_nanoton,
        earned_nanoton=earned,
        dust_nanoton=pot.pot_nanoton - earned,
    )
