"""Pruning: lets go of old attachments that no record names, bit by bit, while the agent runs.

Members decide how many there are, up to a gigabyte in an epoch; all that is old goes, however much it is.

1. A sweep over all attachments follows the start and each settlement. It is made of slices, each a transaction of its
   own: what is cut short is taken up by the next sweep.
2. A slice is a turn of the node: nothing goes between the look whether all is here that evidence names, and the record
   that names it. Between two slices others have their turn.
3. Slices follow one another until the sweep is over, some hundred attachments a second. More than that do not come
   in, for each is fetched from a peer and synced to the disk by itself.

Elsewhere: what is old (`agent.retention`).
"""

from __future__ import annotations

import trio

from agent.journal import Journal
from gossip.node import Node

INTERVAL_S = 5.0
PAUSE_S = 0.02


async def keep_pruned(node: Node, journal: Journal) -> None:
    """Prune the journal of this node for ever. Cancellation leaves what the next sweep finds.

    Raises:
        JournalError: the disk fails.
    """
    swept: int | None = None
    while True:
        epoch = node.machine.base.epoch
        if epoch != swept:
            await _sweep(node, journal)
            swept = epoch
        await trio.sleep(INTERVAL_S)


async def _sweep(node: Node, journal: Journal) -> None:
    after: bytes | None = b""
    while after is not None:
        async with node.step():
            after = await trio.to_thread.run_sync(journal.prune, after)
        await trio.sleep(PAUSE_S)
