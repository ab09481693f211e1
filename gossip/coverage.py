"""Coverage: which evidence holds in an epoch, who has a place on its machine, and which work it covers.

Pure. Whether a quote is good is injected as `Verdict`.

1. Evidence over an anchor that is older than the policy's `anchor_age_max_s` at the epoch's end is void, unseen:
   whoever computes the epoch must be able to look the anchor up.
2. A work window counts only if it is no longer than the policy's longest, and the evidence record that it
   names covers it from start to end. Evidence that a settlement found valid stays so until it expires.
3. At most `machine_nodes_max` participants count on one machine. It is claimed by evidence that covers work of
   this cut, and by a participant's latest piece that is in force at the epoch's end. First come those who had
   evidence of it in the settlement before, then those whose anchor is older, then by address; the evidence of
   all others on that machine is void. Who is barred takes no place.
4. Kept is what a later window can still name: not yet expired for its participant's next window, nor so long
   ago that no uptime of then is left.

Source: PROTOCOL, "Tally" (evidence); docs/adr/0015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from contracts.model import Address, Participant, ParticipantStatus
from gossip.errors import DataUnavailableError
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, Record, WorkBody
from gossip.settlement import EVIDENCE_KEPT_MAX, EvidenceWindow, Reading

BARRED = frozenset({ParticipantStatus.SUSPENDED, ParticipantStatus.INACTIVE})
"""Who earns nothing, and takes no place on a machine."""


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
class Covered:
    """A participant's evidence that holds, in the order of its log, and the work windows that it covers."""

    evidence: tuple[EvidenceWindow, ...]
    work: tuple[tuple[WorkBody, EvidenceWindow], ...] = ()

    def without(self, machine: bytes) -> Covered:
        """The same, with the evidence on `machine` void."""
        return Covered(
            evidence=tuple(window for window in self.evidence if window.machine != machine),
            work=tuple((body, window) for body, window in self.work if window.machine != machine),
        )


def cover(
    before: Reading,
    records: Sequence[Record],
    policy: PoolPolicy,
    end_s: int,
    judge: Callable[[EvidenceBody], Approval | None],
) -> Covered:
    """What covers a participant's `records` (in order) of an epoch that ended at `end_s` (rules 1 and 2).

    Raises:
        DataUnavailableError: something that evidence names is missing; `missing` names all of it.
    """
    evidence = list(before.evidence)
    missing: set[object] = set()
    for record in records:
        body = record.body
        if not isinstance(body, EvidenceBody) or body.anchor_time_s < end_s - policy.work.anchor_age_max_s:
            continue
        try:
            found = judge(body)
        except DataUnavailableError as error:
            missing |= error.missing
            continue
        if found is not None:
            evidence.append(
                EvidenceWindow(record=record.hash, from_s=found.from_s, until_s=found.until_s, machine=found.machine)
            )
    if missing:
        raise DataUnavailableError("evidence cannot be judged yet", frozenset(missing))
    return Covered(evidence=tuple(evidence), work=tuple(_covered_work(records, evidence, policy)))


def share_machines(
    covered: Mapping[bytes, Covered],
    settled: Mapping[bytes, Reading],
    participants: Sequence[Participant],
    policy: PoolPolicy,
    end_s: int,
) -> dict[bytes, Covered]:
    """`covered` (by node key) without the evidence for which there is no room on its machine (rule 3).

    `settled` are the readings of the base. An anchor is a block of the sender's choice: evidence that is dated
    back wins nothing against what was settled before.
    """
    claims: dict[bytes, dict[bytes, tuple[bool, int, Address]]] = {}
    for participant in participants:
        node_key = participant.node_key
        if participant.status in BARRED or node_key not in covered:
            continue
        held = {window.machine for window in settled.get(node_key, Reading()).evidence}
        for window in _claiming(covered[node_key], end_s):
            claim = (window.machine not in held, window.from_s, participant.address)
            on_machine = claims.setdefault(window.machine, {})
            on_machine[node_key] = min(claim, on_machine.get(node_key, claim))
    left = dict(covered)
    for machine, on_machine in claims.items():
        for node_key in sorted(on_machine, key=on_machine.__getitem__)[policy.work.machine_nodes_max :]:
            left[node_key] = left[node_key].without(machine)
    return left


def still_needed(covered: Covered, work_end_s: int, policy: PoolPolicy, end_s: int) -> tuple[EvidenceWindow, ...]:
    """The few latest pieces of evidence that a later window can still name (rule 4)."""
    carried_s = end_s - policy.work.witness_carry_s
    alive = [window for window in covered.evidence if window.until_s > max(work_end_s, carried_s)]
    return tuple(alive[-EVIDENCE_KEPT_MAX:])


def _covered_work(
    records: Sequence[Record], evidence: Sequence[EvidenceWindow], policy: PoolPolicy
) -> list[tuple[WorkBody, EvidenceWindow]]:
    by_record = {window.record: window for window in evidence}
    found = []
    for body in (record.body for record in records):
        if not isinstance(body, WorkBody) or body.end_s - body.start_s > policy.work.window_max_s:
            continue
        window = by_record.get(body.evidence or b"")
        if window is not None and window.from_s <= body.start_s and body.end_s <= window.until_s:
            found.append((body, window))
    return found


def _claiming(covered: Covered, end_s: int) -> set[EvidenceWindow]:
    claiming = {window for _, window in covered.work}
    if covered.evidence and covered.evidence[-1].until_s >= end_s:
        claiming.add(covered.evidence[-1])
    return claiming
