"""Coverage: which evidence holds in an epoch, who has a place on its machine, and which work it covers.

Pure. Whether a quote is good is injected as `Verdict`.

1. Evidence over an anchor that is older than the policy's `anchor_age_max_s` at the epoch's end is void, unseen:
   whoever computes the epoch must be able to look the anchor up.
2. A work window counts only if it is no longer than the policy's longest, and the evidence record that it
   names covers it from start to end. Evidence that a settlement found valid stays so until it expires.
3. At most `machine_nodes_max` participants have evidence on one machine, and one on a GPU; a piece gets all its devices
   or is void. First comes evidence that covers work of this cut, then the latest of each that is in force at the
   epoch's end, then what else there is, and that of who is barred. Among those: who had all of these devices in the
   settlement before, then the older anchor, then by address.
4. Kept is what a later window can still name: not yet expired for its participant's next window, nor so long
   ago that no uptime of then is left.

Source: PROTOCOL, "Tally" (evidence); docs/adr/0015.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from contracts.model import Address, Participant, ParticipantStatus
from gossip.errors import DataUnavailableError
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, Record, WorkBody
from gossip.settlement import EVIDENCE_KEPT_MAX, GPU_ID_BYTES, EvidenceWindow, Reading

BARRED = frozenset({ParticipantStatus.SUSPENDED, ParticipantStatus.INACTIVE})
"""Who earns nothing, and takes no place on a machine."""
_BARRED_RANK = 3
GPU_NODES_MAX = 1
"""So many nodes may earn with one GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that evidence proves: `identity` (32 bytes) is its own for ever, `model` what its maker certified."""

    identity: bytes
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Evidence that the policy allows from `from_s` to `until_s`, for a node on `machine` (32 bytes) with `gpus`."""

    from_s: int
    until_s: int
    machine: bytes
    gpus: tuple[Gpu, ...] = ()

    def window(self, record: bytes, policy: PoolPolicy) -> EvidenceWindow:
        """What a settlement keeps of it; `record` is the evidence record's hash."""
        return EvidenceWindow(
            record=record,
            from_s=self.from_s,
            until_s=self.until_s,
            machine=self.machine,
            gpus=tuple(sorted(gpu.identity[:GPU_ID_BYTES] for gpu in self.gpus)),
            tokens_per_s=policy.work.tokens_per_s([gpu.model for gpu in self.gpus]),
        )


Verdict = Callable[[PoolPolicy, bytes, EvidenceBody], Approval | None]
"""(the epoch's policy, node key, evidence) -> in which time it holds, or None if it is refused.

Raises DataUnavailableError when something that the evidence names is not here yet.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A participant's evidence that holds, in the order of its log, and the work windows that it covers."""

    evidence: tuple[EvidenceWindow, ...]
    work: tuple[tuple[WorkBody, EvidenceWindow], ...] = ()

    def only(self, holds: Callable[[EvidenceWindow], bool]) -> Covered:
        """The same, with the evidence void for which this is not so."""
        return Covered(
            evidence=tuple(window for window in self.evidence if holds(window)),
            work=tuple((body, window) for body, window in self.work if holds(window)),
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
            evidence.append(found.window(record.hash, policy))
    if missing:
        raise DataUnavailableError("evidence cannot be judged yet", frozenset(missing))
    return Covered(evidence=tuple(evidence), work=tuple(_covered_work(records, evidence, policy)))


def share_devices(
    covered: Mapping[bytes, Covered],
    settled: Mapping[bytes, Reading],
    participants: Sequence[Participant],
    policy: PoolPolicy,
    end_s: int,
) -> dict[bytes, Covered]:
    """`covered` (by node key) without the evidence for which there is no room on its machine or GPUs (rule 3).

    `settled` are the readings of the base. An anchor is a block of the sender's choice: evidence that is dated
    back wins nothing against what was settled before.
    """
    claims: list[tuple[tuple[int, bool, int, Address, bytes], bytes, EvidenceWindow]] = []
    for participant in participants:
        node_key = participant.node_key
        if node_key not in covered:
            continue
        held = {device for window in settled.get(node_key, Reading()).evidence for device in _devices(window)}
        own, working = covered[node_key], {window for _, window in covered[node_key].work}
        for window in own.evidence:
            is_latest = window == own.evidence[-1] and window.until_s >= end_s
            rank = _BARRED_RANK if participant.status in BARRED else 0 if window in working else 1 if is_latest else 2
            is_new = not held.issuperset(_devices(window))
            order = (rank, is_new, window.from_s, participant.address, window.record)
            claims.append((order, node_key, window))
    holders: dict[bytes, set[bytes]] = {}

    def fits(node_key: bytes, window: EvidenceWindow) -> bool:
        for device in _devices(window):
            on_device = holders.get(device, set())
            nodes_max = GPU_NODES_MAX if len(device) == GPU_ID_BYTES else policy.work.machine_nodes_max
            if node_key not in on_device and len(on_device) >= nodes_max:
                return False
        return True

    for _, node_key, window in sorted(claims, key=lambda claim: claim[0]):
        if fits(node_key, window):
            for device in _devices(window):
                holders.setdefault(device, set()).add(node_key)
    return {node_key: own.only(functools.partial(fits, node_key)) for node_key, own in covered.items()}


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


def _devices(window: EvidenceWindow) -> tuple[bytes, ...]:
    """What only so many nodes can have: ids of machines and of GPUs differ in length."""
    return (window.machine, *window.gpus)
