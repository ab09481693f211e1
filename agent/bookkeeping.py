"""Bookkeeping: what a settlement means for this host, once it has landed: the ledger, receipts, the three-way check.

Nothing here decides what is paid. Settlements queue up and are worked off one after another; what cannot be read is
left open and said. The sides are compared by the policy that the epoch was counted by, not by the one in force.

Source: METERING, "Why am I not earning".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import trio

from agent.earnings.report import reasons_of
from agent.journal import Journal
from agent.ledger import Ledger
from agent.ledger_rows import EpochRow, PaidRow, epoch_row
from agent.metrics.registry import Metrics
from agent.receipts import Receipts
from agent.reconciling import EPOCHS_KEPT, Books, Reconciliation, reconcile
from agent.settling import Settling
from agent.workers import paid_tokens, worker_rules
from contracts.chain import Chain
from contracts.cocoon import UnacceptableWorkerError
from contracts.errors import ContractsError
from contracts.model import Participant
from gossip.policy import PoolPolicy
from gossip.records import PoolId, ReceiptBody, Source, parse_record
from gossip.settlement import Reading, Settlement

QUEUE_MAX = 64
PAID_INTERVAL_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Landed:
    row: EpochRow
    policy_hash: bytes
    reading: Reading | None
    entry: Participant | None


class Bookkeeping:
    """The books of one agent."""

    def __init__(
        self,
        node_key: bytes,
        pool: PoolId,
        journal: Journal,
        ledger: Ledger,
        receipts: Receipts,
        metrics: Metrics,
        tolerance: float,
    ) -> None:
        self._node_key = node_key
        self._pool = pool
        self._journal = journal
        self._ledger = ledger
        self._receipts = receipts
        self._metrics = metrics
        self._tolerance = tolerance
        self._counted_seq = 0
        """Of the own log, how far the last settlement counted it."""
        self._worker: tuple[str, int] | None = None
        """The own worker contract and its tokens, as last read."""
        self._books: list[Books] = []
        self._landed, self._landing = trio.open_memory_channel[_Landed](QUEUE_MAX)
        self.worker_state: str | None = None
        """How the own worker contract stood when it was read last: refused, unpaid or paid."""
        self.own: dict[str, Any] | None = None
        """The own part in the last settled epoch, for the status."""
        self.reconciliation: Reconciliation | None = None

    def begin(self, landed: Settlement | None, entry: Participant | None, settling: Settling) -> None:
        """Start from the last settlement that is known; `entry` is this node's own in the registry."""
        if landed is None:
            return
        reading = landed.readings.get(self._node_key)
        self._counted_seq = reading.head.seq if reading is not None else 0
        row = replace(self._row(landed, entry, settling), is_recalled=True)
        self.own = _own_value(self._ledger.keep_epoch(row))

    def note(self, settlement: Settlement, entry: Participant | None, settling: Settling) -> None:
        """A settlement landed; `entry` is this node's own in the registry. Does not block."""
        row, reading = self._row(settlement, entry, settling), settlement.readings.get(self._node_key)
        self.own = _own_value(row)
        self._metrics.epochs_settled.inc("some" if row.score else "none")
        try:
            self._landed.send_nowait(_Landed(row, settlement.payload.policy_hash, reading, entry))
        except trio.WouldBlock:
            log.warning("epoch %d is not in the books: %d others wait", settlement.payload.epoch, QUEUE_MAX)

    def _row(self, settlement: Settlement, entry: Participant | None, settling: Settling) -> EpochRow:
        return epoch_row(
            settlement,
            node_key=self._node_key,
            own=entry.address if entry is not None else None,
            frame=settling.frame,
            settled_s=settling.settled_s(settlement.payload.epoch),
        )

    async def run(self, chain: Chain, settling: Settling, policy: Callable[[bytes], PoolPolicy | None]) -> None:
        """Keep the books, for ever; `policy` gives the document of a hash, if it is here.

        Cancelled, the ledger will not know how the epochs that wait were credited; receipts are looked at again at the
        next start.
        """
        async for landed in self._landing:
            await trio.to_thread.run_sync(self._ledger.keep_epoch, landed.row)
            receipted = 0
            if landed.reading is not None:
                receipted = await trio.to_thread.run_sync(self._receipted, landed.reading)
                await self._receipts.settled(landed.reading)
            await self._reconcile(landed, receipted, chain, settling, policy(landed.policy_hash))

    async def follow_payments(self, settling: Settling, entry: Callable[[], Participant | None]) -> None:
        """Note what the chain has paid to the own address, for ever."""
        while True:
            rewards, own = settling.view.rewards, entry()
            if rewards is not None and own is not None:
                account = own.address.account
                row = PaidRow(
                    time_s=settling.view.block.time_s if settling.view.block is not None else 0,
                    epoch=rewards.landed.epoch,
                    account=account,
                    paid_nanoton=rewards.paid_nanoton.get(account, 0),
                )
                await trio.to_thread.run_sync(self._ledger.keep_paid, row)
            await trio.sleep(PAID_INTERVAL_S)

    async def _reconcile(
        self, landed: _Landed, receipted: int, chain: Chain, settling: Settling, policy: PoolPolicy | None
    ) -> None:
        row = landed.row
        if row.credit is None or landed.reading is None or policy is None:
            # An epoch that was not counted here is a hole, and sums with one compare nothing.
            self._books, self.reconciliation = [], None
            self._metrics.work_disagreement.set(None)
            return
        paid = await self._paid(chain, settling, landed.entry, policy)
        receipts = receipted if policy.receipts.signers else None
        books = Books(epoch=row.epoch, metered=row.credit.metered_tokens, receipts=receipts, paid=paid)
        self._books = [*self._books, books][-EPOCHS_KEPT:]
        known, self.reconciliation = self.reconciliation, reconcile(self._books, self._tolerance)
        self._metrics.work_disagreement.set(self.reconciliation.disagreement)
        if self.reconciliation.alarm is not None and (known is None or known.alarm is None):
            log.warning("the books disagree: %s", self.reconciliation.alarm)

    async def _paid(
        self, chain: Chain, settling: Settling, entry: Participant | None, policy: PoolPolicy
    ) -> int | None:
        """What the chain paid the own worker since the last look; None: not known, or in another unit."""
        if entry is None or entry.worker is None or policy.work.kind != Source.COCOON or settling.view.block is None:
            return None
        try:
            tokens = await paid_tokens(chain, entry, worker_rules(policy), settling.view.block)
        except ContractsError as error:
            log.info("the own worker contract cannot be counted: %s", error)
            if isinstance(error, UnacceptableWorkerError):
                self.worker_state = "refused"
            self._worker = None
            return None
        self.worker_state = "paid" if tokens else "unpaid"
        before, self._worker = self._worker, (str(entry.worker), tokens)
        if before is None or before[0] != str(entry.worker):
            return None
        return max(0, tokens - before[1])

    def _receipted(self, reading: Reading) -> int:
        """Tokens of the receipts that this settlement was the first to count; blocks as long as the disk takes."""
        first, self._counted_seq = self._counted_seq + 1, max(self._counted_seq, reading.head.seq)
        tokens: dict[tuple[bytes, bytes], int] = {}
        for wire in self._journal.records(self._node_key, first, reading.head.seq):
            body = parse_record(wire, self._pool).body
            if isinstance(body, ReceiptBody):
                # Those of a later time are in the log once more, and counted then.
                tokens |= {each.id: each.tokens for each in body.receipts if each.time_s < reading.work_end_s}
        return sum(tokens.values())


def _own_value(row: EpochRow) -> dict[str, Any]:
    """This node's part in a settled epoch, as JSON; `reasons` say why less was credited than measured."""
    return {
        "epoch": row.epoch,
        "tokens": row.tokens,
        "metered_tokens": row.credit.metered_tokens if row.credit is not None else None,
        "score": row.score,
        "total_score": row.total_score,
        "earned_nanoton": row.cumulative_nanoton,
        "reasons": list(reasons_of(row)),
        "flags": row.flags,
    }
