"""Settlements made by hand, whose hashes hold, one on top of the other: for what looks back at settled epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from pool_fixture import participant, policy

from agent.journal import open_journal
from contracts.model import ZERO_HASH, Leaf, SettlePayload
from gossip.records import PoolId
from gossip.settlement import Reading, Settlement, cut_root, totals_root


def leaf(i: int, **figures: int) -> Leaf:
    """What participant `i` has; whatever is not named is 0, but for the reputation."""
    values = {"earned_nanoton": 0, "score": 0, "tokens": 0, "tasks": 0, "uptime_s": 0, "quality": 0, "reputation": 500}
    return Leaf(participant=participant(i).address, **(values | figures))


def settlement_of(
    leaves: Sequence[Leaf], readings: Mapping[bytes, Reading], *, previous: Settlement | None = None
) -> Settlement:
    """The settlement with these leaves and readings (by node key) that follows `previous`."""
    ordered = tuple(sorted(leaves, key=lambda each: each.participant))
    payload = SettlePayload(
        epoch=1 if previous is None else previous.payload.epoch + 1,
        prev=ZERO_HASH if previous is None else previous.payload_hash,
        totals_root=totals_root(ordered),
        count=len(ordered),
        total_score=sum(each.score for each in ordered),
        total_earned_nanoton=sum(each.earned_nanoton for each in ordered),
        tasks=sum(each.tasks for each in ordered),
        tokens=sum(each.tokens for each in ordered),
        policy_hash=policy().hash,
        cut_root=cut_root(readings),
    )
    return Settlement(payload=payload, leaves=ordered, readings=readings)


def with_policy(settlement: Settlement, policy_hash: bytes) -> Settlement:
    """The same under another policy."""
    return replace(settlement, payload=replace(settlement.payload, policy_hash=policy_hash))


def keep(path: Path, settlements: Sequence[Settlement], *, node_key: bytes, pool: PoolId) -> None:
    """Have the journal at `path` know that these landed."""
    with closing(open_journal(path, node_key=node_key, pool=pool)) as journal:
        for settlement in settlements:
            journal.keep_landed(settlement)
