"""How a settlement that others computed counted one participant: its own part, counted again from its own log.

A node that takes a settlement from others (its own computation came too late, or it was restarted) still holds its own
log, and the base before. That tells its part of the tally, for people: nothing that is signed or settled depends on it.

1. The cut is the one that landed, as the reading tells it; the records are those of this node's log.
2. What is found is taken only if it gives the very reading and figures that landed. Where others had a say in them (a
   place on a machine, a receipt that two claim), they differ, and the part stays unknown: it is never guessed.

Source: PROTOCOL, "Tally".
"""

from __future__ import annotations

from dataclasses import replace

from contracts.model import Leaf
from gossip.coverage import Verdict
from gossip.cut import CutPoint
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import LogBook
from gossip.settlement import Base, Reading, Settlement
from gossip.tally import EpochFrame, tally


def with_own_part(
    landed: Settlement, frame: EpochFrame, base: Base, node_key: bytes, logs: LogBook, verdict: Verdict
) -> Settlement:
    """`landed` with the credit of `node_key` (32 bytes) where that follows from its own log; else as it was.

    `frame` is what the chain fixed for the epoch, if it is the one of `landed`; `base` the settlement before it, from
    which `logs` go on.
    """
    reading = landed.readings.get(node_key)
    participants = tuple(each for each in frame.participants if each.node_key == node_key)
    if reading is None or not participants or node_key not in logs or not _follows(landed, frame, base):
        return landed
    alone = replace(frame, participants=participants)
    before = Base(epoch=base.epoch, payload_hash=base.payload_hash, readings={node_key: base.reading(node_key)})
    worker, payments = participants[0].worker, reading.payments
    is_read = worker is not None and payments.worker == worker.account
    point = CutPoint(
        head=reading.head,
        dead=reading.dead,
        witnessed_s=reading.witnessed_s,
        worker_tokens=payments.worker_tokens if is_read else None,
    )
    try:
        found = tally(alone, before, {node_key: point}, logs, verdict)
    except (DataUnavailableError, InvalidMessageError):
        return landed  # the own log lacks some of it, or a verdict does: the part is not known
    own = participants[0].address
    counted = _figures(found.readings[node_key], found.leaves, own)
    return replace(landed, credits=found.credits) if counted == _figures(reading, landed.leaves, own) else landed


def _follows(landed: Settlement, frame: EpochFrame, base: Base) -> bool:
    """Whether this is the settlement of the frame's epoch, and the one after `base`."""
    payload = landed.payload
    return (payload.epoch, payload.policy_hash, payload.prev) == (frame.epoch, frame.policy.hash, base.payload_hash)


def _figures(reading: Reading, leaves: tuple[Leaf, ...], own: object) -> tuple[object, ...]:
    """What a participant's part of the tally decides by itself: scores and amounts depend on the others, too."""
    leaf = next((leaf for leaf in leaves if leaf.participant == own), None)
    figures = None if leaf is None else (leaf.tokens, leaf.tasks, leaf.uptime_s, leaf.quality, leaf.reputation)
    return reading, figures
