"""Retention: what the journal lets go of as epochs settle, and what it keeps.

Statements for a transaction of `agent.journal`; they decide nothing but what is needed no more. What stands there may
come from hostile members: as many attachments as their logs may name, and those that no log ever named.

1. Messages, checkpoints, and the records behind their cuts go with the settlement that makes them old (`forget`).
2. An attachment goes once it is that old and no record names it. This takes as long as there are attachments, which
   others may make many of: it is done in slices (`prune`), by whoever keeps records out meanwhile (`agent.pruning`).
   Slices go by digest, as the table does: looking for what is old would read all of it each time.

Source: PROTOCOL, "Durable before sent".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gossip.settlement import Settlement

EPOCHS_KEPT = 16
"""Messages and checkpoints of older settled epochs, and records behind their cuts, are forgotten."""
SLICE_MAX = 32
"""Attachments that one slice looks at: it deletes 8 MiB at most, in some 30 ms."""


def forget(
    database: sqlite3.Connection, newest: Settlement, own_key: bytes, read: Callable[[bytes, bytes], Settlement]
) -> None:
    """Let go of what is old at the `newest` settlement, but for what evidence in force there names.

    `read` makes a settlement of a checkpoint that is kept and its payload's hash.

    Raises:
        sqlite3.Error: the disk fails.
        JournalError: a checkpoint is damaged.
    """
    base, epoch = newest.base(), newest.payload.epoch - EPOCHS_KEPT
    rows = database.execute("SELECT checkpoint, payload_hash FROM landed WHERE epoch <= ?", (epoch,)).fetchall()
    for checkpoint, payload_hash in rows:
        for node_key, reading in read(checkpoint, payload_hash).readings.items():
            # Nothing of a log that ended counts any more; of the own one it is kept that it was signed.
            first = 1 << 62 if reading.dead and node_key != own_key else reading.head.seq
            in_force = [window.record for window in base.reading(node_key).evidence]
            marks = ", ".join("?" * len(in_force))
            named = f"DELETE FROM named WHERE node_key = ? AND seq < ? AND hash NOT IN ({marks})"  # noqa: S608
            database.execute("DELETE FROM record WHERE node_key = ? AND seq < ?", (node_key, first))
            database.execute(named, (node_key, first, *in_force))
    database.execute("DELETE FROM landed WHERE epoch <= ?", (epoch,))
    database.execute("DELETE FROM message WHERE epoch <= ?", (epoch,))


def prune(database: sqlite3.Connection, after: bytes) -> bytes | None:
    """Delete what is old and unnamed among the next `SLICE_MAX` attachments behind the digest `after` (empty: all).

    Gives the last digest that was looked at, None behind the last one. Raises sqlite3.Error.
    """
    slice_ = "SELECT max(digest) FROM (SELECT digest FROM attachments WHERE digest > ? ORDER BY digest LIMIT ?)"
    last: bytes | None = database.execute(slice_, (after, SLICE_MAX)).fetchone()[0]
    if last is not None:
        database.execute(
            "DELETE FROM attachments WHERE digest > ? AND digest <= ? "
            "AND epoch <= (SELECT max(epoch) FROM landed) - ? "
            "AND NOT EXISTS (SELECT 1 FROM named WHERE named.digest = attachments.digest)",
            (after, last, EPOCHS_KEPT),
        )
    return last
