"""Explains own work records: what each was made of, whether that gives the same again, and whether it counted.

Pure, from what ledger and journal still hold. Neither is trusted to be whole: what is missing is said.

1. The records of an epoch are those between the heads that its settlement and the one before counted up to.
2. A record counted if all of the cut's windows did, or if evidence that is known to have held covers it. Where
   evidence was renewed so often that it is not known any more, this is said.

Source: METERING, "Counters"; PROTOCOL, "Tally" (evidence).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.errors import OperationError
from agent.ledger_reader import LedgerReader
from agent.ledger_rows import EpochRow, WindowRow
from agent.meter.work import WorkWindow
from agent.work.again import Again, measure_again
from gossip.records import UnverifiedRecord, WorkBody

SEQ_MAX = (1 << 62) - 1


class Agreement(StrEnum):
    """Whether the readings give the record again."""

    SAME = "same"
    DIFFERENT = "different"
    PRUNED = "not possible: its readings are pruned already"
    UNKNOWN = "not possible: the ledger does not know this window"


class Counted(StrEnum):
    """What the settlement made of a record."""

    YES = "counted"
    NO = "did not count"
    WAITS = "waits to be settled"
    UNKNOWN = "not known whether it counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The records `first` to `last` by number, and the epoch that counted them; `row` is None while it is open."""

    epoch: int
    first: int
    last: int
    row: EpochRow | None
    before: EpochRow | None
    """The last epoch before it that is known here; others in between are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One work record. `hash` is None if neither journal nor ledger know it."""

    seq: int
    hash: bytes | None
    window: WorkWindow
    evidence: bytes | None
    counted: Counted
    why: str | None
    agreement: Agreement
    again: Again | None


def span_of(rows: Sequence[EpochRow], epoch: int | None, seq: int | None) -> Span:
    """Which records to explain: those of `epoch`, of the one that counted `seq`, or of the last one settled.

    Raises:
        OperationError: the epoch is not in the ledger, or later than the open one; or `seq` is not of it.
    """
    if epoch is None and seq is None:
        if not rows:
            raise OperationError("no epoch is settled yet, as far as this agent's ledger knows; name one with --epoch")
        epoch = rows[-1].epoch
    if epoch is None:
        last = rows[-1].epoch if rows else 0
        epoch = next((row.epoch for row in rows if seq is not None and row.head_seq >= seq), last + 1)
    row = next((row for row in rows if row.epoch == epoch), None)
    if row is None and rows and epoch < rows[-1].epoch:
        raise OperationError(f"epoch {epoch} is not in this agent's ledger: it did not see it settle")
    if rows and epoch > rows[-1].epoch + 1:
        settled = f"as far as this agent's ledger knows, epoch {rows[-1].epoch} is the last one settled"
        raise OperationError(f"epoch {epoch} is not there yet: {settled}")
    before = next((row for row in reversed(rows) if row.epoch < epoch), None)
    first = 1 if before is None else before.head_seq + 1
    last = SEQ_MAX if row is None else row.head_seq
    if seq is not None and not first <= seq <= last:
        those = f"{first} to {last}" if row is not None else f"{first} and later"
        raise OperationError(f"record {seq} is not one of epoch {epoch}: those are {those}")
    return Span(epoch=epoch, first=seq or first, last=seq or last, row=row, before=before)


def require_within(seq: int, head_seq: int) -> None:
    """Return if the own log, known up to record `head_seq` (0: none), reaches `seq`; raises OperationError."""
    if seq > head_seq:
        there = f"the last one known here is {head_seq}" if head_seq else "none is known here"
        raise OperationError(f"record {seq} is not there: {there}")


def explain(ledger: LedgerReader, records: Iterable[UnverifiedRecord], span: Span) -> list[Explained]:
    """Explain the work records of the span, ascending; `records` are those that the journal still has."""
    bodies: dict[int, tuple[bytes | None, WorkBody]] = {
        record.seq: (record.hash, record.body) for record in records if isinstance(record.body, WorkBody)
    }
    kept = {row.seq: row for row in ledger.windows(span.first, span.last) if row.seq is not None}
    for seq, row in kept.items():
        bodies.setdefault(seq, (row.record, _body(row)))
    explained = []
    for seq, (digest, body) in sorted(bodies.items()):
        window = WorkWindow(start_s=body.start_s, end_s=body.end_s, readings=body.readings)
        found = kept.get(seq) or ledger.window(body.start_s, body.end_s)
        again = _again(ledger, found)
        counted, why = judge(seq, body, found, span)
        explained.append(
            Explained(
                seq=seq,
                hash=digest,
                window=window,
                evidence=body.evidence,
                counted=counted,
                why=why,
                agreement=_agreement(found, again, window),
                again=again,
            )
        )
    return explained


def judge(seq: int, body: WorkBody, row: WindowRow | None, span: Span) -> tuple[Counted, str | None]:
    """Whether a record counted, and why not (rule 2); `row` is its window in the ledger, if it is there."""
    settled = span.row
    if settled is None or seq > settled.head_seq:
        return Counted.WAITS, None
    if settled.account is None:
        return Counted.NO, "this node key was not registered"
    credit = settled.credit
    if credit is not None and credit.windows_uncovered == 0:
        return Counted.YES, None
    if credit is None and settled.is_computed:
        return Counted.NO, "this participant was suspended or inactive"
    if body.evidence is None:
        return Counted.NO, "it names no evidence"
    if row is not None and body.end_s - body.start_s > row.limits.window_max_s:
        return Counted.NO, f"it is longer than the policy's {row.limits.window_max_s} s"
    before = () if span.before is None else span.before.evidence
    held = next((each for each in (*before, *settled.evidence) if each.record == body.evidence), None)
    if held is not None and held.from_s <= body.start_s and body.end_s <= held.until_s:
        return Counted.YES, None
    if held is not None:
        return Counted.NO, "the evidence that it names did not hold all the time"
    if credit is not None and credit.windows == 0:
        return Counted.NO, "the evidence that it names did not hold: refused, run out, or another has the place"
    return Counted.UNKNOWN, "the evidence that it names was refused, or renewed since"


def _again(ledger: LedgerReader, row: WindowRow | None) -> Again | None:
    if row is None or not ledger.has_anchor(row.first):
        return None
    return measure_again(ledger.anchor(row.first), ledger.rounds(row.first, row.last), row)


def _agreement(row: WindowRow | None, again: Again | None, recorded: WorkWindow) -> Agreement:
    if row is None:
        return Agreement.UNKNOWN
    if again is None:
        return Agreement.PRUNED
    return Agreement.SAME if again.window == recorded else Agreement.DIFFERENT


def _body(row: WindowRow) -> WorkBody:
    """The body of the record that the window became."""
    window = row.window
    return WorkBody(start_s=window.start_s, end_s=window.end_s, readings=window.readings, evidence=row.evidence)
