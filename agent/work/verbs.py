"""What `gpupool work explain` does: from the ledger, and from the journal as far as it still has the records."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing

from agent import journal_file
from agent.config import Config, load_config
from agent.earnings.report import earnings
from agent.errors import ConfigError, DamagedRowError
from agent.ledger import ledger_file
from agent.ledger_reader import LedgerReader, read_ledger
from agent.ledger_rows import EpochRow
from agent.output import answer, note
from agent.work.explaining import SEQ_MAX, Span, explain, require_within, span_of
from agent.work.telling import explained_text, explained_value, span_text
from gossip.errors import InvalidMessageError
from gossip.records import PoolId, UnverifiedRecord, parse_record


def explain_records(options: argparse.Namespace) -> int:
    """Explain the own work records of an epoch, or one of them."""
    for name, value in (("--epoch", options.epoch), ("--record", options.record)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: expected 1 or more")
    config = load_config(options.config)
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    with read_ledger(ledger_file(config), pool) as ledger:
        rows = ledger.epochs()
        span = span_of(rows, options.epoch, options.record)
        kept, head_seq = _journal_records(config, pool, ledger.node_key, span)
        records = explain(ledger, kept, span)
        if options.record is not None and not records:
            require_within(options.record, max(head_seq, _head_seq(ledger, rows)))
        waiting = len(ledger.waiting()) if span.row is None else 0
    lines = earnings(rows, (), span.epoch, span.epoch)
    reasons = [reason for line in lines for reason in line.reasons]
    value = {
        "epoch": span.epoch,
        "is_settled": span.row is not None,
        "reasons": reasons,
        "records": [explained_value(each) for each in records],
        "windows_without_record": waiting,
    }
    texts = [
        f"epoch {span.epoch}{'' if span.row is not None else ', not settled yet'}: {span_text(records)}",
        *(f"why not more: {reason}" for reason in reasons),
        *(_gap_texts(span)),
        *([f"windows that are no records yet: {waiting}"] if waiting else []),
        *(explained_text(each, is_whole=options.record is not None) for each in records),
    ]
    return answer(options, value, "\n".join(texts))


def _gap_texts(span: Span) -> list[str]:
    known = 0 if span.before is None else span.before.epoch
    if known == span.epoch - 1:
        return []
    return [f"what settled after epoch {known} and before is not known here: its records are among these"]


def _head_seq(ledger: LedgerReader, rows: Sequence[EpochRow]) -> int:
    """The number of the last own record that the ledger knows, 0 for none."""
    windows = ledger.windows(1, SEQ_MAX)
    return max([0, *(row.head_seq for row in rows), *(row.seq for row in windows if row.seq is not None)])


def _journal_records(config: Config, pool: PoolId, node_key: bytes, span: Span) -> tuple[list[UnverifiedRecord], int]:
    """The own records of the span that the journal still has, and the number of its last one of all, 0 for none.

    A journal that cannot be read is told, and has none.
    """
    path = config.journal_file
    if not path.exists():
        note(f"{path}: missing; what the ledger knows of the records is shown")
        return [], 0
    query = "SELECT node_key, seq, hash, wire, crc FROM record WHERE node_key = ? AND seq BETWEEN ? AND ? ORDER BY seq"
    try:
        with closing(journal_file.connect_reading(path)) as database:
            ((head_seq,),) = database.execute("SELECT max(seq) FROM record WHERE node_key = ?", (node_key,))
            rows = [journal_file.unsealed(row) for row in database.execute(query, (node_key, span.first, span.last))]
        return [parse_record(row[-1], pool) for row in rows], head_seq or 0
    except (DamagedRowError, InvalidMessageError, *journal_file.UNREADABLE) as error:
        note(f"{path}: cannot be read: {error}; what the ledger knows of the records is shown")
        return [], 0
