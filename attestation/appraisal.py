"""Appraisal: is an authentic quote allowed? One rule after another, each by one option of the policy; fails closed.

Rules (in this order; the first one that refuses is the verdict)
1. The report data is exactly the expected one: a genuine quote made for something else is refused before
   anything of it is looked at.
2. A TD that can be debugged proves nothing (`debug_allowed` is ignored on public networks, see `evidence`);
   its attributes, extended features and service TDs are those that the policy names.
3. TDX module, evaluation numbers (floors, because whoever brings the collateral chooses among all that Intel
   has signed and that are valid at the same time), the age of the collateral, advisories, TCB status.
4. Processor family, machine and platform flags.
5. A quote of a guest that the node only talked to, GPUs, and at last what runs: MRTD and RTMRs.

Pure: a function of the verified quote, the policy, the expected report data and the time.

Source: Intel TDX Module 1.5 ABI (TD attributes, XFAM); Intel DCAP appraisal of TDX TCB, platform policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from attestation.errors import (
    AdvisoryRefusedError,
    AnchorStaleError,
    CollateralAgeError,
    DebugRefusedError,
    EvaluationNumberError,
    FmspcRefusedError,
    GpuEvidenceMissingError,
    GuestHandshakeRefusedError,
    InvalidQuoteError,
    MeasurementRefusedError,
    MrSeamRefusedError,
    PlatformFlagRefusedError,
    PolicyRefusedError,
    PpidRefusedError,
    ReportDataMismatchError,
    ServiceTdRefusedError,
    TcbStatusRefusedError,
    TdAttributesRefusedError,
    XfamRefusedError,
)
from attestation.gpu import VerifiedGpu
from attestation.gpu_policy import appraise_gpus
from attestation.policy import DEBUG_GROUP, XFAM_REQUIRED, AttestationPolicy, Measurement
from attestation.types import TcbStatus, TdAttribute, TdReport, VerifiedQuote

_MACHINE_TAG = b"gpupool/machine/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is to be appraised, by which policy and at what time (Unix seconds).

    `expected_report_data` is None where nobody knows what the quote was to bind: then rule 1 is not applied,
    and what comes out says nothing about whose quote it is. `gpus` are the verified GPUs that it binds,
    `by_handshake` tells that the node only talked to the guest.
    """

    verified: VerifiedQuote
    policy: AttestationPolicy
    now: int
    expected_report_data: bytes | None
    by_handshake: bool = False
    gpus: tuple[VerifiedGpu, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """A quote that the policy allows from `valid_from_s` to `valid_until_s`, both included.

    `measurement` names the policy's entry that matched; `machine` (32 bytes) is equal for all TDs on one
    machine, for a cap on the nodes there.
    """

    verified: VerifiedQuote
    gpus: tuple[VerifiedGpu, ...]
    measurement: str
    valid_from_s: int
    valid_until_s: int

    @property
    def machine(self) -> bytes:
        return hashlib.sha256(_MACHINE_TAG + self.verified.platform.ppid).digest()

    def require_current(self, now: int) -> None:
        """Raise `AnchorStaleError` if it holds no more at `now` (Unix seconds)."""
        if now > self.valid_until_s:
            raise AnchorStaleError(f"evidence: of an anchor of {self.valid_from_s}, valid until {self.valid_until_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule says: `seen` in the quote, and why it is refused, if it is."""

    rule: str
    seen: str
    error: PolicyRefusedError | InvalidQuoteError | None


def appraise(case: Case) -> Appraisal:
    """Allow the quote from `case.now` for the policy's maximum age, or raise the first rule's refusal.

    Raises:
        ReportDataMismatchError: the quote was made for another key, pool, network or anchor.
        PolicyRefusedError: the policy does not allow it; the subclass says which rule.
    """
    for _, _, require in RULES:
        require(case)
    return Appraisal(
        verified=case.verified,
        gpus=case.gpus,
        measurement=_measurement(case).name,
        valid_from_s=case.now,
        valid_until_s=case.now + case.policy.evidence_age_max_s,
    )


def findings(case: Case) -> list[Finding]:
    """What every rule says of the quote, in their order: `appraise` raises the first error among them."""
    found = []
    for rule, look, require in RULES:
        error: PolicyRefusedError | InvalidQuoteError | None = None
        try:
            require(case)
        except (PolicyRefusedError, InvalidQuoteError) as refusal:
            error = refusal
        found.append(Finding(rule=rule, seen=look(case), error=error))
    return found


def _require_report_data(case: Case) -> None:
    if case.expected_report_data not in (None, case.verified.td.report_data):
        raise ReportDataMismatchError("report data: the quote binds another node key, pool, network or anchor")


def _require_no_debug(case: Case) -> None:
    if case.verified.td.td_attributes & DEBUG_GROUP and not case.policy.debug_allowed:
        raise DebugRefusedError(f"TD attributes {case.verified.td.td_attributes:#018x}: the TD can be debugged")


def _require_td_attributes(case: Case) -> None:
    # With `debug_allowed` the whole group is let through here: nothing in it is worse than debug.
    attributes = case.verified.td.td_attributes & ~DEBUG_GROUP
    required, allowed = case.policy.td_attributes_required, case.policy.td_attributes_allowed
    if missing := required & ~attributes:
        raise TdAttributesRefusedError(f"TD attributes {attributes:#018x}: {TdAttribute(missing)!r} must be set")
    if extra := attributes & ~(required | allowed):
        raise TdAttributesRefusedError(f"TD attributes {attributes:#018x}: {extra:#x} is not allowed")


def _require_xfam(case: Case) -> None:
    xfam, allowed = case.verified.td.xfam, case.policy.xfam_allowed
    if xfam & XFAM_REQUIRED != XFAM_REQUIRED or xfam & ~allowed:
        raise XfamRefusedError(f"XFAM {xfam:#018x}: allowed {allowed:#x}, required {XFAM_REQUIRED:#x}")


def _require_service_td(case: Case) -> None:
    service = case.verified.td.mr_service_td
    if service is not None and any(service) and service not in case.policy.mr_service_tds:
        raise ServiceTdRefusedError(f"service TD {service.hex()}: not listed")


def _require_mr_seam(case: Case) -> None:
    if _is_denied(case.verified.td.mr_seam, case.policy.mr_seams):
        raise MrSeamRefusedError(f"TDX module {case.verified.td.mr_seam.hex()}: not listed")


def _require_evaluation(case: Case) -> None:
    verified, policy = case.verified, case.policy
    if verified.tcb_evaluation < policy.tcb_evaluation_min:
        raise EvaluationNumberError(
            f"evaluation number of the TCB info: {verified.tcb_evaluation}, at least {policy.tcb_evaluation_min}"
        )
    if verified.qe_evaluation < policy.qe_evaluation_min:
        raise EvaluationNumberError(
            f"evaluation number of the QE identity: {verified.qe_evaluation}, at least {policy.qe_evaluation_min}"
        )


def _require_collateral_age(case: Case) -> None:
    age_s = case.now - case.verified.collateral_issued_s
    if age_s > case.policy.collateral_age_max_s:
        raise CollateralAgeError(f"collateral: {age_s} s old, at most {case.policy.collateral_age_max_s}")


def _require_advisories(case: Case) -> None:
    if rejected := sorted(case.policy.advisories_rejected.intersection(case.verified.advisories)):
        raise AdvisoryRefusedError(f"advisories: {', '.join(rejected)}")


def _require_tcb_status(case: Case) -> None:
    verified, policy = case.verified, case.policy
    in_grace = (
        verified.status is TcbStatus.OUT_OF_DATE
        and policy.out_of_date_grace_s > 0
        and case.now <= verified.tcb_date_s + policy.out_of_date_grace_s
    )
    if verified.status not in policy.tcb_statuses and not in_grace:
        raise TcbStatusRefusedError(f"TCB status {verified.status}, of {verified.tcb_date_s}: not allowed")


def _require_fmspc(case: Case) -> None:
    if _is_denied(case.verified.platform.fmspc, case.policy.fmspcs):
        raise FmspcRefusedError(f"FMSPC {case.verified.platform.fmspc.hex()}: not listed")


def _require_ppid(case: Case) -> None:
    ppid = case.verified.platform.ppid
    if ppid in case.policy.ppids_denied or _is_denied(ppid, case.policy.ppids_allowed):
        raise PpidRefusedError(f"machine {ppid.hex()}: denied, or not listed")


def _require_platform_flags(case: Case) -> None:
    if refused := sorted(case.verified.platform.flags - case.policy.platform_flags_allowed):
        raise PlatformFlagRefusedError(f"platform: {', '.join(refused)}: not allowed")


def _require_inside(case: Case) -> None:
    if case.by_handshake and not case.policy.guest_handshake_allowed:
        raise GuestHandshakeRefusedError("guest: the node only talked to it, and the policy wants the node inside")


def _require_gpus(case: Case) -> None:
    policy = case.policy
    if not policy.gpu_evidence_required:
        return
    if not case.gpus:
        raise GpuEvidenceMissingError("GPU evidence: demanded by the policy, and there is none")
    appraise_gpus(case.gpus, policy.gpu_measurements, gpus_min=policy.gpus_min, denied=policy.gpus_denied)


def _require_measurement(case: Case) -> None:
    _measurement(case)


def _measurement(case: Case) -> Measurement:
    td = case.verified.td
    measurement = next((known for known in case.policy.measurements if known.matches(td)), None)
    if measurement is None:
        raise MeasurementRefusedError(f"measurements: {_nearest(td, case.policy.measurements)}")
    return measurement


def _nearest(td: TdReport, known: Sequence[Measurement]) -> str:
    """What is nearest to what `td` runs, and which registers differ."""
    if not known:
        return f"MRTD {td.mr_td.hex()}: the policy has no entry"
    found = {each.name: _differences(td, each) for each in known}
    name = min(found, key=lambda each: len(found[each]))
    return f'nearest is "{name}", differs in {", ".join(found[name])}'


def _differences(td: TdReport, known: Measurement) -> list[str]:
    pairs: list[tuple[str, bytes | None, bytes]] = [("MRTD", known.mr_td, td.mr_td)]
    pairs += [(f"RTMR{i}", want, have) for i, (want, have) in enumerate(zip(known.rtmrs, td.rtmrs, strict=True))]
    return [f"{name} ({have.hex()[:16]}...)" for name, want, have in pairs if want not in (None, have)]


def _is_denied(value: bytes, allowed: Collection[bytes] | None) -> bool:
    return allowed is not None and value not in allowed


def _see_service_td(case: Case) -> str:
    service = case.verified.td.mr_service_td
    return service.hex() if service is not None and any(service) else "none"


RULES: tuple[tuple[str, Callable[[Case], str], Callable[[Case], None]], ...] = (
    ("report data", lambda case: case.verified.td.report_data.hex(), _require_report_data),
    ("debug", lambda case: f"{case.verified.td.td_attributes & DEBUG_GROUP:#04x}", _require_no_debug),
    ("TD attributes", lambda case: f"{case.verified.td.td_attributes:#018x}", _require_td_attributes),
    ("XFAM", lambda case: f"{case.verified.td.xfam:#018x}", _require_xfam),
    ("service TD", _see_service_td, _require_service_td),
    ("TDX module", lambda case: case.verified.td.mr_seam.hex(), _require_mr_seam),
    (
        "evaluation numbers",
        lambda case: f"TCB info {case.verified.tcb_evaluation}, QE identity {case.verified.qe_evaluation}",
        _require_evaluation,
    ),
    (
        "collateral age",
        lambda case: f"{case.now - case.verified.collateral_issued_s} s",
        _require_collateral_age,
    ),
    ("advisories", lambda case: ", ".join(case.verified.advisories) or "none", _require_advisories),
    ("TCB status", lambda case: str(case.verified.status), _require_tcb_status),
    ("processor family", lambda case: case.verified.platform.fmspc.hex(), _require_fmspc),
    ("machine", lambda case: case.verified.platform.ppid.hex(), _require_ppid),
    ("platform flags", lambda case: ", ".join(sorted(case.verified.platform.flags)) or "none", _require_platform_flags),
    ("node and guest", lambda case: "talked to" if case.by_handshake else "bound by the quote", _require_inside),
    ("GPUs", lambda case: f"{len(case.gpus)} verified" if case.gpus else "none", _require_gpus),
    ("measurements", lambda case: f"MRTD {case.verified.td.mr_td.hex()}", _require_measurement),
)
"""(name, what is seen, the check) of each rule, cheapest and most telling first."""
