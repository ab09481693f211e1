"""The tally: from the records behind a cut to what every participant has earned.

Pure, integer-only, independent of the order in which anything arrived. Two honest operators with the
same frame, base, cut and records compute the same settlement, bit by bit; an auditor does too.

1. A work window counts only if it is no longer than the policy's longest, and the evidence record that it
   names covers it from start to end.
2. uptime = min(sum of counted windows less gaps, witnessed and not yet credited). The cap is the length of
   the counted windows, not of the epoch, and what was witnessed but not credited stays available (at most
   `witness_carry_s`): late records keep their value.
3. tokens: the policy's units only, at most its rate x uptime.
4. amount = floor(pot x score / sum of scores), added to what the base says was earned.
5. Everyone who ever earned keeps a leaf, registered or not: the contract pays from the latest root.
6. At most `machine_nodes_max` participants count on one machine: first those whose evidence of it was settled
   before, then those whose evidence began first, then by address. The evidence of all others on it is void.
7. Whoever is suspended or inactive when the epoch is finalized earns nothing in it: what they did up to the
   cut lapses, it is not postponed. Whoever is withdrawing still has a stake to lose, and still earns.

Elsewhere: which records count (`gossip.cut`), how figures become scores (`gossip.score`), whether a quote
is good (injected as `verdict`: a pure function of quote, collateral, policy and anchor).

Source: PROTOCOL, "Tally"; CONTRACTS, "Cumulative entitlement".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.model import Address, Leaf, OperatorSet, Participant, ParticipantStatus, SettlePayload
from gossip.cut import CutPoint, compute_cut
from gossip.log_chain import LogBook
from gossip.messages import Observation
from gossip.policy import PoolPolicy
from gossip.records import CloseBody, EvidenceBody, Record, Unit, WorkBody
from gossip.score import Figures, quality, weighted_scores
from gossip.settlement import EVIDENCE_KEPT_MAX, Base, EvidenceWindow, Reading, Settlement, cut_root, totals_root

BARRED = frozenset({ParticipantStatus.SUSPENDED, ParticipantStatus.INACTIVE})
"""Who earns nothing (rule 7)."""

_UINT32_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Evidence that the policy allows from `from_s` to `until_s`, for a node on `machine` (32 bytes)."""

    from_s: int
    until_s: int
    machine: bytes


Verdict = Callable[[PoolPolicy, bytes, EvidenceBody], Approval | None]
"""(the epoch's policy, node key, evidence) -> in which time it holds, or None if it is refused.

Raises DataUnavailableError when something that the evidence names is not here yet.
"""


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
    readings = dict(base.readings)
    records_of: dict[bytes, list[Record]] = {}
    for node_key in (p.node_key for p in participants if p.node_key in cut):
        records = records_of[node_key] = [*logs[node_key].chain(cut[node_key].head)][::-1]
        judge = functools.partial(verdict, frame.policy, node_key)
        readings[node_key] = _advance(base.reading(node_key), cut[node_key], records, judge)
    _share_machines(readings, base, participants, frame.policy.work.machine_nodes_max)
    figures = []
    for participant in participants:
        point = cut.get(participant.node_key)
        if point is None:
            figures.append(Figures(reputation=participant.reputation))
            continue
        before, after = base.reading(participant.node_key), readings[participant.node_key]
        records = records_of[participant.node_key]
        if participant.status in BARRED:
            figure, credited_s = Figures(reputation=participant.reputation), point.witnessed_s
        else:
            witnessed_s = point.witnessed_s - before.credited_s
            figure = _figures(records, after, witnessed_s, participant.reputation, frame.policy)
            floor_s = point.witnessed_s - frame.policy.work.witness_carry_s
            credited_s = max(before.credited_s + figure.uptime_s, floor_s)
        figures.append(figure)
        readings[participant.node_key] = _forget_expired(replace(after, credited_s=credited_s))
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


def _advance(
    before: Reading,
    point: CutPoint,
    records: Sequence[Record],
    verdict: Callable[[EvidenceBody], Approval | None],
) -> Reading:
    """The reading after `records`: its evidence windows are those of the base and of the new evidence."""
    windows = list(before.evidence)
    work_end_s = before.work_end_s
    for record in records:
        if isinstance(record.body, WorkBody):
            work_end_s = record.body.end_s
        elif isinstance(record.body, EvidenceBody):
            found = verdict(record.body)
            if found is not None:
                windows.append(
                    EvidenceWindow(
                        record=record.hash, from_s=found.from_s, until_s=found.until_s, machine=found.machine
                    )
                )
    return Reading(
        head=point.head,
        work_end_s=work_end_s,
        witnessed_s=point.witnessed_s,
        worker_tokens=point.worker_tokens,
        dead=point.dead or (bool(records) and isinstance(records[-1].body, CloseBody)),
        evidence=tuple(windows),
    )


def _share_machines(
    readings: dict[bytes, Reading], base: Base, participants: Sequence[Participant], nodes_max: int
) -> None:
    """Void the evidence of those for whom there is no room on its machine (rule 6).

    Who was barred in this epoch takes no room. Evidence is renewed before it expires, so whoever holds a place
    keeps it: an anchor of long ago, which anybody can name, wins nothing against what was settled before.
    """
    claims: dict[bytes, dict[bytes, tuple[bool, int, Address]]] = {}
    for participant in participants:
        if participant.status in BARRED:
            continue
        settled = {window.record for window in base.reading(participant.node_key).evidence}
        for window in readings.get(participant.node_key, Reading()).evidence:
            claim = (window.record not in settled, window.from_s, participant.address)
            on_machine = claims.setdefault(window.machine, {})
            on_machine[participant.node_key] = min(claim, on_machine.get(participant.node_key, claim))
    for machine, on_machine in claims.items():
        for node_key in sorted(on_machine, key=on_machine.__getitem__)[nodes_max:]:
            kept = tuple(window for window in readings[node_key].evidence if window.machine != machine)
            readings[node_key] = replace(readings[node_key], evidence=kept)


def _forget_expired(reading: Reading) -> Reading:
    """Keep the few latest pieces of evidence that a later window can still name."""
    alive = [window for window in reading.evidence if window.until_s > reading.work_end_s]
    return replace(reading, evidence=tuple(alive[-EVIDENCE_KEPT_MAX:]))


def _figures(
    records: Sequence[Record], reading: Reading, witnessed_s: int, reputation: int, policy: PoolPolicy
) -> Figures:
    covered = {window.record: window for window in reading.evidence}
    counted = [
        body
        for body in (record.body for record in records)
        if isinstance(body, WorkBody)
        and body.end_s - body.start_s <= policy.work.window_max_s
        and (window := covered.get(body.evidence or b"")) is not None
        and window.from_s <= body.start_s
        and body.end_s <= window.until_s
    ]
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
