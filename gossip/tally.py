"""The tally: from the records behind a cut to what every participant has earned.

Pure, integer-only, independent of the order in which anything arrived. Two honest operators with the
same frame, base, cut and records compute the same settlement, bit by bit; an auditor does too.

1. A work window counts if valid evidence covers it (`gossip.coverage`).
2. What counts of it is the policy's matter: source, units, GPUs' rates, ceilings (`gossip.credit`).
3. What was witnessed but not credited as uptime stays available (at most `witness_carry_s`): late records keep
   their value.
4. amount = floor(pot x score / sum of scores), added to what the base says was earned.
5. Everyone who ever earned keeps a leaf, registered or not: the contract pays from the latest root.
6. Whoever is suspended or inactive when the epoch is finalized earns nothing in it: what they did up to the
   cut lapses, it is not postponed. Whoever is withdrawing still has a stake to lose, and still earns.
7. Flags of a leaf tell whose work is to be looked at; they change no amount (`gossip.audit`).
8. Evidence and the worker contract's reading belong to a node key in its entry. Of a key that the registry does not
   name both are forgotten, and of one that came into it in this epoch the evidence of before. So who takes up a key
   that another gave up gets no place on its machine, and nobody goes from key to key to be credited twice.

Elsewhere: which records count (`gossip.cut`), how figures become scores (`gossip.score`).

Source: PROTOCOL, "Tally"; CONTRACTS, "Cumulative entitlement".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.model import Leaf, OperatorSet, Participant, SettlePayload
from gossip.audit import flags
from gossip.coverage import BARRED, Covered, Verdict, cover, share_devices, still_needed
from gossip.credit import Contribution, Credit, credit
from gossip.cut import CutPoint, compute_cut
from gossip.errors import DataUnavailableError
from gossip.log_chain import LogBook
from gossip.messages import Observation
from gossip.policy import PoolPolicy
from gossip.receipts import receipted_tokens
from gossip.records import CloseBody, Record, WorkBody
from gossip.score import require_split, scores, split
from gossip.settlement import Base, Reading, Settlement, cut_root, totals_root

TALLY_VERSION = 1
"""Which tally this is. It rises when any epoch, from the same cut and records, would come to another settlement.

So with a change of what counts, of an order, a rounding or a strategy, and of a form that is hashed; not with one of
speed. Operators of different tallies refuse each other's proposals; in the hello they learn that before an epoch ends.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFrame:
    """What the chain fixes for one epoch: its end and pot, and the set, policy and registry pinned to it."""

    epoch: int
    start_s: int
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
    base = replace(base, readings=_known(base.readings, frame))
    records = _records_of(participants, cut, logs)
    covered = _cover(frame, base, records, verdict)
    receipted = _receipted(participants, records, covered, frame.policy)
    readings, credits_ = dict(base.readings), {}
    for participant in participants:
        node_key = participant.node_key
        before, point = base.reading(node_key), cut.get(node_key)
        if point is None:
            if node_key in base.readings:
                kept = still_needed(covered[node_key], before.work_end_s, frame.policy, frame.end_s)
                readings[node_key] = replace(before, evidence=kept)
            continue
        contribution = Contribution(
            covered=covered[node_key],
            work=[record.body for record in records[node_key] if isinstance(record.body, WorkBody)],
            before=before,
            witnessed_s=point.witnessed_s,
            receipted_tokens=receipted.get(node_key, 0),
            worker=participant.worker,
            worker_tokens=point.worker_tokens,
        )
        found, payments = credit(contribution, frame.policy, frame.end_s - frame.start_s)
        if participant.status in BARRED:
            credited_s, payments = point.witnessed_s, payments.lapsed()
        else:
            credits_[node_key] = found
            floor_s = point.witnessed_s - frame.policy.work.witness_carry_s
            credited_s = max(before.credited_s + found.uptime_s, floor_s)
        after = _advance(before, point, records[node_key])
        kept = still_needed(covered[node_key], after.work_end_s, frame.policy, frame.end_s)
        readings[node_key] = replace(after, credited_s=credited_s, payments=payments, evidence=kept)
    leaves = _leaves(frame, base, participants, credits_, cut_root(readings))
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
    return Settlement(payload=payload, leaves=leaves, readings=readings, credits=credits_)


def _known(readings: Mapping[bytes, Reading], frame: EpochFrame) -> dict[bytes, Reading]:
    """The readings of the base without what is of a key's former entry (rule 8)."""
    since_s = {p.node_key: max(p.joined_s, p.rotated_s) for p in frame.participants}
    known = dict(readings)
    for node_key, reading in readings.items():
        if node_key not in since_s:
            known[node_key] = replace(reading, evidence=(), payments=reading.payments.parted())
        elif since_s[node_key] >= frame.start_s:
            own = tuple(window for window in reading.evidence if window.from_s >= frame.start_s)
            known[node_key] = replace(reading, evidence=own)
    return known


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
    return share_devices(covered, base.readings, frame.participants, frame.policy, frame.end_s)


def _advance(before: Reading, point: CutPoint, records: Sequence[Record]) -> Reading:
    """The reading at the cut, but for uptime, payments and evidence."""
    work_ends = [record.body.end_s for record in records if isinstance(record.body, WorkBody)]
    return Reading(
        head=point.head,
        work_end_s=work_ends[-1] if work_ends else before.work_end_s,
        witnessed_s=point.witnessed_s,
        dead=point.dead or (bool(records) and isinstance(records[-1].body, CloseBody)),
    )


def _receipted(
    participants: Sequence[Participant],
    records: Mapping[bytes, Sequence[Record]],
    covered: Mapping[bytes, Covered],
    policy: PoolPolicy,
) -> Mapping[bytes, int]:
    """Tokens that receipts cover, of those who can earn; nobody else takes a job's receipt from them."""
    if policy.receipts.ceiling != "receipts":
        return {}
    earning = [p.node_key for p in participants if p.status not in BARRED and p.node_key in records]
    counted = {node_key: [body for body, _ in covered[node_key].work] for node_key in earning}
    return receipted_tokens({node_key: records[node_key] for node_key in earning}, counted, policy)


def _leaves(
    frame: EpochFrame,
    base: Base,
    participants: Sequence[Participant],
    credits_: Mapping[bytes, Credit],
    seed: bytes,
) -> tuple[Leaf, ...]:
    """Everybody's leaf, ascending by address. `seed` is the hash of the cut: nobody knows it before."""
    figures = [credits_.get(p.node_key, Credit()).figures(p.reputation) for p in participants]
    scored = scores(figures, frame.policy.score)
    amounts = split(frame.pot_nanoton, scored)
    require_split(frame.pot_nanoton, [p.address for p in participants], amounts)
    flagged = flags(figures, [p.address for p in participants], frame.policy.audit, seed)
    leaves = {
        participant.address: Leaf(
            participant=participant.address,
            earned_nanoton=base.earned_nanoton.get(participant.address, 0) + amount_nanoton,
            score=score,
            tokens=figure.tokens,
            tasks=figure.tasks,
            uptime_s=figure.uptime_s,
            quality=figure.quality,
            reputation=figure.reputation,
            flags=flag,
        )
        for participant, figure, score, amount_nanoton, flag in zip(
            participants, figures, scored, amounts, flagged, strict=True
        )
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
