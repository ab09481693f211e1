"""What a policy lets in, in words, and what in it is dangerous. Pure; the policy itself is judged elsewhere.

A danger lets in what proves little, or shuts everybody out. A note is a choice that operators should make
knowingly; a sane policy may have some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from agent.pool.values import span
from attestation.policy import AttestationPolicy, Measurement
from attestation.providers.software import SOFTWARE_MEASUREMENT
from attestation.types import TcbStatus, TdAttribute
from gossip.policy import HybridScore, PoolPolicy, Score, TieredScore, WeightedScore

EVIDENCE_AGE_SHORT_S = 600
EVIDENCE_AGE_LONG_S = 2 * 86_400
GRACE_LONG_S = 90 * 86_400
CARRY_LONG_S = 3_600

WORDS = {
    "measurements": "guest images that may run, by MRTD and RTMRs: a quote that matches none is refused, so an empty "
    'list refuses every quote; an RTMR of "any" is not looked at',
    "tcb_statuses": "TCB statuses that count; Revoked never does",
    "out_of_date_grace_s": "how long OutOfDate counts after the date of the TCB level (0: not at all), in seconds",
    "advisories_rejected": "advisories of Intel (INTEL-SA-...) that refuse a platform, whatever its status",
    "tcb_evaluation_min": "least evaluation number of the TCB info: without a floor, whoever brings the collateral "
    "chooses among all that Intel signed and that are valid at the same time",
    "qe_evaluation_min": "the same for the quoting enclave's identity",
    "collateral_age_max_s": "how old the collateral may be, the root's revocation list aside, in seconds: who brings "
    "it could otherwise choose a list from before a revocation",
    "evidence_age_max_s": "how long a piece of evidence counts, in seconds",
    "debug_allowed": "whether a TD that can be debugged counts, on development networks only: it proves nothing",
    "td_attributes_required": "TD attributes that must be set",
    "td_attributes_allowed": "TD attributes that may be set besides those; any other refuses the quote",
    "xfam_allowed": "bits of XFAM, the extended processor features that a TD may have",
    "mr_service_tds": "service TDs (as for migration) that may be bound to a TD; none being bound is always allowed",
    "mr_seams": 'TDX modules that may run, by MRSEAM; "any": every one that Intel signed and the TCB level allows',
    "fmspcs": "processor families that may take part, by FMSPC",
    "ppids_allowed": "machines that may take part, by PPID",
    "ppids_denied": "machines that may not: the answer to a key that was taken out of one",
    "platform_flags_allowed": "what a machine's PCK certificate may say of it",
    "guest_handshake_allowed": "whether a node outside of the TD may prove a guest that it talked to: anybody who can "
    "reach that guest's port can do so",
    "gpu_evidence_required": "whether a node without verified GPUs is refused",
    "gpus_min": "how many GPUs must report, if they must at all",
    "gpu_measurements": "what GPUs may run, by the blocks of their reports; a GPU that matches no entry is refused",
    "gpus_denied": "GPUs that do not count, by their identity: the answer to a broken one",
}
"""Each option of the attestation policy in words; a test holds that none is missing."""

_STALE = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})
_UNFINISHED = frozenset(TcbStatus) - _STALE - {TcbStatus.UP_TO_DATE, TcbStatus.REVOKED}
_TELLING = TdAttribute.MIGRATABLE | TdAttribute.PERFMON | TdAttribute.TPA


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something about the option `key`."""

    level: Literal["danger", "note"]
    key: str
    text: str


def remarks(policy: AttestationPolicy, pool: PoolPolicy | None) -> tuple[Remark, ...]:
    """What operators should know of a policy before they commit to it, the dangers first."""
    found = [
        *_of_images(policy),
        *_of_tcb(policy),
        *_of_guests(policy),
        *_of_machines(policy),
        *_of_gpus(policy),
    ]
    if pool is not None and policy.ppids_allowed is None and pool.work.machine_nodes_max > 1:
        found.append(_note("work.machine_nodes_max", f"{pool.work.machine_nodes_max} nodes may earn on one machine"))
    if pool is not None and pool.work.anchor_age_max_s <= policy.evidence_age_max_s:
        found.append(_danger("work.anchor_age_max_s", "evidence may be older than that, and then counts nothing"))
    if pool is not None:
        found += _of_work(pool)
    return tuple(sorted(found, key=lambda remark: remark.level))


def _of_work(pool: PoolPolicy) -> Iterator[Remark]:
    """docs/cheating.md has what each of these is worth to a cheat."""
    if pool.receipts.ceiling == "none":
        text = "nobody but the host says what it did: an idle one with a fake engine earns a full share"
        yield _danger("receipts.ceiling", text)
    if not pool.work.gpu_tokens_per_s:
        yield _note("work.gpu_tokens_per_s", "tokens are bounded by tokens_per_s_max alone, whatever the GPUs are")
    if pool.work.witness_carry_s > CARRY_LONG_S:
        carried = span(pool.work.witness_carry_s)
        yield _note("work.witness_carry_s", f"work may be put off by {carried}, to an epoch that pays more")
    if (key := _paid_quality(pool.score)) is not None:
        yield _note(f"score.{key}", "quality is the host's own word")


def _paid_quality(score: Score) -> str | None:
    """The key by which a strategy pays for quality; None if it does not."""
    match score:
        case WeightedScore() if score.quality:
            return "quality"
        case TieredScore() if score.base < 1000:
            return "base"
        case HybridScore() if score.quality_max > score.quality_min:
            return "quality_max"
        case _:
            return None


def _of_images(policy: AttestationPolicy) -> Iterator[Remark]:
    if not policy.measurements:
        yield _danger("measurements", "none is pinned, so every quote is refused")
    for first, second in combinations(policy.measurements, 2):
        if (first.mr_td, first.rtmrs) == (second.mr_td, second.rtmrs):
            yield _note("measurements", f'"{first.name}" and "{second.name}" are the same')
    for measurement in policy.measurements:
        open_rtmrs = [f"rtmr{i}" for i, rtmr in enumerate(measurement.rtmrs) if rtmr is None]
        if open_rtmrs:
            yield _danger(
                "measurements", f'"{measurement.name}": {", ".join(open_rtmrs)} may be anything, and what it measures'
            )
        if not any(measurement.mr_td):
            yield _danger("measurements", f'"{measurement.name}": MRTD is zeros, which no guest has')
        if _is_software(measurement):
            yield _danger("measurements", f'"{measurement.name}" is of the software platform: it proves nothing')


def _of_tcb(policy: AttestationPolicy) -> Iterator[Remark]:
    if not policy.tcb_statuses and not policy.out_of_date_grace_s:
        yield _danger("tcb_statuses", "none is allowed, so every quote is refused")
    if stale := sorted(policy.tcb_statuses & _STALE):
        yield _danger("tcb_statuses", f"{', '.join(stale)}: known holes stay open, and for how long is not bounded")
    if unfinished := sorted(policy.tcb_statuses & _UNFINISHED):
        yield _note("tcb_statuses", f"{', '.join(unfinished)}: the machine is not, or cannot be seen to be, up to date")
    if policy.out_of_date_grace_s > GRACE_LONG_S:
        yield _danger("out_of_date_grace_s", f"known holes may stay open for {span(policy.out_of_date_grace_s)}")
    elif policy.out_of_date_grace_s:
        yield _note("out_of_date_grace_s", f"known holes may stay open for {span(policy.out_of_date_grace_s)}")
    for key in ("tcb_evaluation_min", "qe_evaluation_min"):
        if getattr(policy, key) == 0:
            yield _danger(key, "no floor: who brings the collateral may choose an older verdict that still holds")


def _of_guests(policy: AttestationPolicy) -> Iterator[Remark]:
    if policy.debug_allowed:
        yield _danger("debug_allowed", "the host can read and change such a TD; ignored on public networks")
    if not policy.td_attributes_required & TdAttribute.SEPT_VE_DISABLE:
        yield _danger("td_attributes_required", "without SEPT_VE_DISABLE the host can inject faults into the TD")
    if telling := (policy.td_attributes_required | policy.td_attributes_allowed) & _TELLING:
        names = ", ".join(str(bit.name) for bit in telling)
        yield _note("td_attributes_allowed", f"{names}: a TD may move to another machine, or tell the host of itself")
    if policy.mr_service_tds:
        yield _note("mr_service_tds", "a service TD that is bound can see or move the TD: it must be trusted as much")
    if policy.guest_handshake_allowed:
        yield _danger("guest_handshake_allowed", "who can reach a guest's port can publish it as its own (relay)")
    if policy.evidence_age_max_s < EVIDENCE_AGE_SHORT_S:
        yield _danger(
            "evidence_age_max_s", f"evidence is void after {span(policy.evidence_age_max_s)}: nodes can hardly renew it"
        )
    if policy.evidence_age_max_s > EVIDENCE_AGE_LONG_S:
        yield _danger(
            "evidence_age_max_s", f"what changed on a machine may stay unseen for {span(policy.evidence_age_max_s)}"
        )


def _of_machines(policy: AttestationPolicy) -> Iterator[Remark]:
    for key, what in (("mr_seams", "TDX module"), ("fmspcs", "processor family"), ("ppids_allowed", "machine")):
        listed = getattr(policy, key)
        if listed is None:
            yield _note(key, f'"any": every {what} that Intel vouches for')
        elif not listed:
            yield _danger(key, "the list is empty, so every quote is refused")


def _of_gpus(policy: AttestationPolicy) -> Iterator[Remark]:
    if not policy.gpu_evidence_required:
        yield _note("gpu_evidence_required", "that there are GPUs, and which, is the host's own claim")
    elif not policy.gpu_measurements:
        yield _danger("gpu_measurements", "none is pinned, so every GPU and with it every quote is refused")
    for golden in policy.gpu_measurements:
        if not golden.fwids:
            yield _note("gpu_measurements", f'"{golden.name}": no fwid, so only the pinned blocks tell its firmware')
        if golden.protected_pcie:
            yield _note("gpu_measurements", f'"{golden.name}": links between GPUs may be without encryption')


def _is_software(measurement: Measurement) -> bool:
    return measurement.mr_td == SOFTWARE_MEASUREMENT.mr_td


def _danger(key: str, text: str) -> Remark:
    return Remark(level="danger", key=_place(key), text=text)


def _note(key: str, text: str) -> Remark:
    return Remark(level="note", key=_place(key), text=text)


def _place(key: str) -> str:
    return key if "." in key else f"attestation.{key}"
