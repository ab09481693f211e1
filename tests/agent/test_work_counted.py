"""`gpupool work explain`: whether a record counted in the epoch that settled it, and which records an epoch has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_scene import LIMITS
from pool_fixture import START_S, participant

from agent.errors import OperationError
from agent.ledger_rows import EpochRow, WindowRow
from agent.meter.work import WorkWindow
from agent.work.explaining import Counted, Span, judge, span_of
from gossip.credit import Credit
from gossip.records import WorkBody
from gossip.settlement import EvidenceWindow

ACCOUNT = participant(0).address.account
EVIDENCE = b"e" * 32
HELD = EvidenceWindow(record=EVIDENCE, from_s=START_S, until_s=START_S + 100, machine=bytes(32), tokens_per_s=1)
MIXED = Credit(windows=3, windows_uncovered=1)
SETTLED = EpochRow(epoch=2, account=ACCOUNT, is_computed=True, credit=MIXED, head_seq=20, evidence=(HELD,))
BODY = WorkBody(start_s=START_S + 10, end_s=START_S + 70, readings=(), evidence=EVIDENCE)
ROW = WindowRow(window=WorkWindow(start_s=START_S, end_s=START_S, readings=()), limits=LIMITS, first=1, last=2)


@pytest.mark.parametrize(
    ("settled", "body", "counted", "why"),
    [
        (None, BODY, Counted.WAITS, None),
        (replace(SETTLED, head_seq=9), BODY, Counted.WAITS, None),
        (replace(SETTLED, credit=replace(MIXED, windows_uncovered=0), evidence=()), BODY, Counted.YES, None),
        (SETTLED, BODY, Counted.YES, None),
        (replace(SETTLED, credit=None, is_computed=False), BODY, Counted.YES, None),
        (replace(SETTLED, account=None), BODY, Counted.NO, "not registered"),
        (replace(SETTLED, credit=None), BODY, Counted.NO, "suspended or inactive"),
        (SETTLED, replace(BODY, evidence=None), Counted.NO, "names no evidence"),
        (SETTLED, replace(BODY, end_s=BODY.start_s + 61), Counted.NO, "longer than the policy's 60 s"),
        (SETTLED, replace(BODY, start_s=START_S + 41, end_s=START_S + 101), Counted.NO, "did not hold all the time"),
        (replace(SETTLED, credit=Credit(windows_uncovered=4), evidence=()), BODY, Counted.NO, "did not hold: refused"),
        (replace(SETTLED, evidence=()), BODY, Counted.UNKNOWN, "refused, or renewed since"),
    ],
)
def test_whether_a_record_counted(settled: EpochRow | None, body: WorkBody, counted: Counted, why: str | None) -> None:
    found, reason = judge(10, body, ROW, Span(epoch=2, first=1, last=20, row=settled, before=None))
    assert found is counted
    assert (reason is None) == (why is None)
    assert (why or "") in (reason or "")


def test_evidence_of_the_settlement_before_counts_as_well() -> None:
    before = EpochRow(epoch=1, account=ACCOUNT, evidence=(HELD,))
    span = Span(epoch=2, first=1, last=20, row=replace(SETTLED, evidence=()), before=before)
    assert judge(10, BODY, ROW, span) == (Counted.YES, None)


ROWS = [EpochRow(epoch=1, head_seq=10), EpochRow(epoch=2, head_seq=10), EpochRow(epoch=4, head_seq=30)]


@pytest.mark.parametrize(
    ("epoch", "seq", "found"),
    [
        (None, None, (4, 11, 30)),
        (1, None, (1, 1, 10)),
        (2, None, (2, 11, 10)),
        (None, 12, (4, 12, 12)),
        (None, 31, (5, 31, 31)),
        (5, None, (5, 31, (1 << 62) - 1)),
    ],
)
def test_an_epochs_records_lie_between_two_heads(
    epoch: int | None, seq: int | None, found: tuple[int, int, int]
) -> None:
    span = span_of(ROWS, epoch, seq)
    assert (span.epoch, span.first, span.last) == found


@pytest.mark.parametrize(
    ("rows", "epoch", "seq", "said"),
    [
        ([], None, None, "no epoch is settled yet"),
        (ROWS, 3, None, "epoch 3 is not in this agent's ledger"),
        (ROWS, 1, 11, "record 11 is not one of epoch 1: those are 1 to 10"),
        (ROWS, 5, 4, "record 4 is not one of epoch 5: those are 31 and later"),
        (ROWS, 6, None, "epoch 6 is not there yet: as far as .* knows, epoch 4 is the last"),
        (ROWS, 9, 31, "epoch 9 is not there yet"),
    ],
)
def test_what_is_not_there_is_said(rows: list[EpochRow], epoch: int | None, seq: int | None, said: str) -> None:
    with pytest.raises(OperationError, match=said):
        span_of(rows, epoch, seq)
