"""Reading a ledger: one snapshot of it, beside an agent that writes it or without one.

The file is untrusted: what cannot be read is said in one line. A ledger is begun by `gpupool run`.

Elsewhere: what stands in it (`agent.ledger_rows`), who writes it (`agent.ledger`).
"""

from __future__ import annotations

import itertools
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent import journal_file
from agent.errors import DENIED, InvalidSourceError, OperationError
from agent.ledger import SCHEMA_VERSION, ledger_meta
from agent.ledger_rows import EpochRow, PaidRow, RawReading, Round, WindowRow, joined_sample
from agent.meter.work import MeterState, decode_state
from gossip.records import PoolId

STATE_BYTES_MAX = 32 * 1024 * 1024
"""Of a meter's state, unfolded: 16 sources of 1024 series each."""

T = TypeVar("T")


@contextmanager
def read_ledger(path: Path, pool: PoolId) -> Iterator[LedgerReader]:
    """One snapshot of the ledger at `path`, for as long as the block takes.

    Raises:
        OperationError: there is none, this user may not read it, it is of another pool or version, or damaged (also
            in the block).
    """
    if journal_file.is_denied(path):
        raise OperationError(f"{path}: {DENIED}")
    if not path.exists():
        raise OperationError(f"{path}: missing; the agent begins it when it runs (`gpupool run`)")
    try:
        database = journal_file.connect_reading(path)
        try:
            yield LedgerReader(path, database, pool)
        finally:
            database.close()
    except (msgspec.DecodeError, InvalidSourceError, zlib.error, *journal_file.UNREADABLE) as error:
        raise OperationError(
            f"{path}: cannot be read: {error}; if it is damaged, the agent sets it aside when it starts"
        ) from error


class LedgerReader:
    """An open snapshot. Every method raises what `read_ledger` turns into an `OperationError`."""

    def __init__(self, path: Path, database: sqlite3.Connection, pool: PoolId) -> None:
        self._database = database
        meta = dict(database.execute("SELECT key, value FROM meta"))
        if meta.get("schema") != SCHEMA_VERSION:
            raise OperationError(f"{path}: of another version of the agent")
        if "node_key" not in meta or meta != ledger_meta(meta["node_key"], pool):
            raise OperationError(f"{path}: belongs to another pool; check network and pool in the config")
        self.node_key: bytes = meta["node_key"]
        """The agent's (32 bytes)."""

    def epochs(self, last: int = -1) -> list[EpochRow]:
        """All settled epochs that are kept, ascending; or the `last` so many of them."""
        rows = self._all("SELECT body FROM epoch ORDER BY epoch DESC LIMIT ?", last)
        return [msgspec.json.decode(body, type=EpochRow) for (body,) in reversed(rows)]

    def paid(self) -> list[PaidRow]:
        """What the chain had paid, each time that changed, in the order seen."""
        return [msgspec.json.decode(body, type=PaidRow) for (body,) in self._all("SELECT body FROM paid ORDER BY id")]

    def windows(self, first_seq: int, last_seq: int) -> list[WindowRow]:
        """The windows that became the own records of these numbers, ascending."""
        query = f"{_WINDOWS} WHERE seq BETWEEN ? AND ? ORDER BY seq"
        return [_window(row) for row in self._all(query, first_seq, last_seq)]

    def window(self, start_s: int, end_s: int) -> WindowRow | None:
        """The window of this time (Unix seconds), if it is kept."""
        rows = self._all(f"{_WINDOWS} WHERE start_s = ? AND end_s = ?", start_s, end_s)
        return _window(rows[0]) if rows else None

    def waiting(self) -> list[WindowRow]:
        """The windows of which no record is known, ascending by time."""
        return [_window(row) for row in self._all(f"{_WINDOWS} WHERE seq IS NULL ORDER BY start_s")]

    def has_anchor(self, number: int) -> bool:
        """Whether the meter's state before this round is kept, and so all rounds from there on."""
        return bool(self._all("SELECT 1 FROM anchor WHERE round = ?", number))

    def anchor(self, number: int) -> MeterState | None:
        """The meter's state before this round, which `has_anchor`; None: the round was its first."""
        ((state,),) = self._all("SELECT state FROM anchor WHERE round = ?", number)
        if state is None:
            return None
        return decode_state(zlib.decompressobj().decompress(state, STATE_BYTES_MAX))

    def rounds(self, first: int, last: int) -> Iterator[Round]:
        """The rounds of these numbers that are kept, ascending."""
        rows = self._database.execute(
            "SELECT round, time_s, source, instance, names, start_s, figures, words FROM sample "
            "LEFT JOIN form ON form.id = sample.form WHERE round BETWEEN ? AND ? ORDER BY round, source, instance",
            (first, last),
        )
        for (number, time_s), group in itertools.groupby(rows, key=lambda row: row[:2]):
            yield Round(number=number, time_s=time_s, readings=tuple(_reading(*row[2:]) for row in group))

    def _all(self, query: str, *parameters: object) -> Sequence[Any]:
        return self._database.execute(query, parameters).fetchall()


_WINDOWS = "SELECT body, seq, record, evidence FROM window"


def _window(row: Sequence[Any]) -> WindowRow:
    body, seq, record, evidence = row
    return replace(msgspec.json.decode(body, type=WindowRow), seq=seq, record=record, evidence=evidence)


def _reading(
    source: int,
    instance: int,
    names: bytes | None,
    start_s: int | None,
    figures: bytes | None,
    words: bytes | None,
) -> RawReading:
    lines = [] if words is None else msgspec.json.decode(words, type=list[str])
    if figures is None:
        return RawReading(source=source, instance=instance, error="\n".join(lines))
    if names is None:
        raise InvalidSourceError("kept sample: its names are gone")
    return RawReading(source=source, instance=instance, sample=joined_sample(names, figures, start_s, lines))
