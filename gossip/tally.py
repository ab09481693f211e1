"""The tally: from the records behind a cut to what every participant has earned.

Pure, integer-only, independent of the order in which anything arrived. Two honest operators with the
same frame, base, cut and records compute the same settlement, bit by bit; an auditor does too.

1. A work window counts if valid evidence covers it (`gossip.coverage`).
2. uptime = min(sum of counted windows less gaps, witnessed and not yet credited). The cap is the length of
   the counted windows, not of the epoch, and what was witnessed but not credited stays available (at most
   `witness_carry_s`): late records keep their value.
3. tokens: the policy's units only, at most its rate x uptime.
4. amount = floor(pot x score / sum of scores), added to what the base says was earned.
5. Everyone who ever earned keeps a leaf, registered or not: the contract pays from the latest root.
6. Whoever is suspended or inactive when the epoch is finalized earns nothing in it: what they did up to the
   cut lapses, it is not postponed. Whoever is withdrawing still has a stake to lose, and still earns.

Elsewhere: which records count (`gossip.cut`), which evidence holds (`gossip.coverage`), how figures become
scores (`gossip.score`).

Source: PROTOCOL, "Tally"; CONTRACTS, "Cumulative entitlement".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.model import Address, Leaf, OperatorSet, Participant, SettlePayload
from gossip.coverage import BARRED, Covered, Verdict, cover, share_machines, still_needed
from gossip.cut import CutPoint, compute_cut
from gossip.errors import DataUnavailableError
from gossip.log_chain import LogBook
from gossip.messages import Observation
from gossip.policy import PoolPolicy
from gossip.records import CloseBody, Record, Unit, WorkBody
from gossip.score import Figures, quality, weighted_scores
from gossip.settlement import Base, Reading, Settlement, cut_root, totals_root

_UINT32_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFrame:
    """What the chain fixes for one epoch: its end and pot, and the set, policy and registry pinned to it."""

    epoch: int
    end_s: int
    pot_nanoton: int
    operators: OperatorSet
    policy: PoolPolicy
    participants: tuple[Participant, ...]


def settle(
    frame: EpochFrame, base: Base, observations: Sequence[Observation], logs: LogBook, verdict: Verdict
) -> Settlement:
    """Compute the settlement that follows from these observations: the one function that all must agree on.

    Raises:
        DataUnavailableError: records or attachments are missing; `missing` names them.
        InvalidMessageError: an observation does not fit the base.
    """
    return tally(frame, base, compute_cut(frame.operators, base, observations, logs), logs, verdict)


def tally(frame: EpochFrame, base: Base, cut: Mapping[bytes, CutPoint], logs: LogBook, verdict: Verdict) -> Settlement:
    """Compute the settlement of a cut.

    Raises:
        DataUnavailableError: records or attachments are missing; `missing` names them.
    """
    participants = sorted(frame.participants, key=lambda p: p.address)
    records = _records_of(participants, cut, logs)
    covered = _cover(frame, base, records, verdict)
    readings = dict(base.readings)
    figures = []
    for participant in participants:
        node_key = participant.node_key
        before, point = base.reading(node_key), cut.get(node_key)
        if point is None:
            figures.append(Figures(reputation=participant.reputation))
            if node_key in base.readings:
                kept = still_needed(covered[node_key], before.work_end_s, frame.policy, frame.end_s)
                readings[node_key] = replace(before, evidence=kept)
            continue
        if participant.status in BARRED:
            figure, credited_s = Figures(reputation=participant.reputation), point.witnessed_s
        else:
            counted = [body for body, _ in covered[node_key].work]
            figure = _figures(counted, point.witnessed_s - before.credited_s, participant.reputation, frame.policy)
            floor_s = point.witnessed_s - frame.policy.work.witness_carry_s
            credited_s = max(before.credited_s + figure.uptime_s, floor_s)
        figures.append(figure)
        after = _advance(before, point, records[node_key])
        kept = still_needed(covered[node_key], after.work_end_s, frame.policy, frame.end_s)
        readings[node_key] = replace(after, credited_s=credited_s, evidence=kept)
    scores = weighted_scores(figures, frame.policy.score)
    leaves = _leaves(frame, base, [p.address for p in participants], figures, scores)
    payload = SettlePayload(
        epoch=frame.epoch,
        prev=base.payload_hash,
        totals_root=totals_root(leaves),
        count=len(leaves),
        total_score=sum(leaf.score for leaf in leaves),
        total_earned_nanoton=sum(leaf.earned_nanoton for leaf in leaves),
        tasks=sum(leaf.tasks for leaf in leaves),
        tokens=sum(leaf.tokens for leaf in leaves),
        policy_hash=frame.policy.hash,
        cut_root=cut_root(readings),
    )
    return Settlement(payload=payload, leaves=leaves, readings=readings)


def _records_of(
    participants: Sequence[Participant], cut: Mapping[bytes, CutPoint], logs: LogBook
) -> dict[bytes, list[Record]]:
    """The records of the cut by node key, oldest first, of every participant that has a point in it."""
    keys = [participant.node_key for participant in participants if participant.node_key in cut]
    return {node_key: [*logs[node_key].chain(cut[node_key].head)][::-1] for node_key in keys}


def _cover(
    frame: EpochFrame, base: Base, records: Mapping[bytes, Sequence[Record]], verdict: Verdict
) -> dict[bytes, Covered]:
    """What covers each participant's work; raises `DataUnavailableError` with all that is missing for it."""
    covered: dict[bytes, Covered] = {}
    missing: set[object] = set()
    for node_key in (participant.node_key for participant in frame.participants):
        judge = functools.partial(verdict, frame.policy, node_key)
        try:
            covered[node_key] = cover(
                base.reading(node_key), records.get(node_key, ()), frame.policy, frame.end_s, judge
            )
        except DataUnavailableError as error:
            missing |= error.missing
    if missing:
        raise DataUnavailableError("evidence cannot be judged yet", frozenset(missing))
    return share_machines(covered, base.readings, frame.participants, frame.policy, frame.end_s)


def _advance(before: Reading, point: CutPoint, records: Sequence[Record]) -> Reading:
    """The reading at the cut, but for uptime and evidence."""
    work_ends = [record.body.end_s for record in records if isinstance(record.body, WorkBody)]
    return Reading(
        head=point.head,
        work_end_s=work_ends[-1] if work_ends else before.work_end_s,
        witnessed_s=point.witnessed_s,
        worker_tokens=point.worker_tokens,
        dead=point.dead or (bool(records) and isinstance(records[-1].body, CloseBody)),
    )


def _figures(counted: Sequence[WorkBody], witnessed_s: int, reputation: int, policy: PoolPolicy) -> Figures:
    uptime_s = min(sum(body.end_s - body.start_s - body.gap_s for body in counted), witnessed_s, _UINT32_MAX)
    tokens = sum(body.amount(policy.work.token_units) for body in counted)
    tasks = min(sum(body.amount((Unit.TASK,)) for body in counted), _UINT32_MAX)
    return Figures(
        tokens=min(tokens, policy.work.tokens_per_s_max * uptime_s),
        uptime_s=uptime_s,
        tasks=tasks if uptime_s else 0,
        quality=_quality(counted, tasks, policy) if uptime_s else 0,
        reputation=reputation,
    )


def _quality(counted: Sequence[WorkBody], tasks: int, policy: PoolPolicy) -> int:
    """Quality over the counted windows; the latency is the windows' p95, weighted by their tasks."""
    timed = [(body.latency_ms[1], body.amount((Unit.TASK,))) for body in counted if body.latency_ms is not None]
    weight = sum(amount for _, amount in timed)
    p95_ms = sum(latency * amount for latency, amount in timed) // weight if weight else None
    failed = sum(body.failed or 0 for body in counted)
    return quality(tasks=tasks, failed=failed, latency_p95_ms=p95_ms, targets=policy.quality)


def _leaves(
    frame: EpochFrame, base: Base, addresses: Sequence[Address], figures: Sequence[Figures], scores: Sequence[int]
) -> tuple[Leaf, ...]:
    total = sum(scores)
    leaves = {
        address: Leaf(
            participant=address,
            earned_nanoton=base.earned_nanoton.get(address, 0) + (frame.pot_nanoton * score // total if total else 0),
            score=score,
            tokens=figure.tokens,
            tasks=figure.tasks,
            uptime_s=figure.uptime_s,
            quality=figure.quality,
            reputation=figure.reputation,
        )
        for address, figure, score in zip(addresses, figures, scores, strict=True)
    }
    for address, earned in base.earned_nanoton.items():
        if address not in leaves and earned:
            leaves[address] = Leaf(
                participant=address,
                earned_nanoton=earned,
                score=0,
                tokens=0,
                tasks=0,
                uptime_s=0,
                quality=0,
                reputation=0,
            )
    return tuple(leaves[address] for address in sorted(leaves))
