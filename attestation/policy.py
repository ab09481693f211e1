"""Appraisal: is an authentic quote allowed? Decides by the pool's policy, and fails closed.

Rules
1. An empty list allows nothing; what is not to be restricted says so with the word "any".
2. `Revoked` can never be allowed. `OutOfDate` may be, for a while, by `out_of_date_grace_s`.
3. A debuggable TD is refused unless `debug_allowed`, which public networks ignore
   (`attestation.evidence`).
4. The report data must be exactly the expected one: a genuine quote made for something else is refused
   before anything of it is looked at.
5. Floors for the evaluation numbers, because whoever brings the collateral chooses among all that Intel has
   signed and that are valid at the same time.

The policy is a mapping (a TOML table) in the pool's policy document; that document is what gets hashed.

Source: Intel TDX Module 1.5 ABI (TD attributes, XFAM); Intel DCAP appraisal of TDX TCB, platform policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from attestation.errors import (
    AdvisoryRefusedError,
    DebugRefusedError,
    EvaluationNumberError,
    FmspcRefusedError,
    GpuEvidenceRefusedError,
    InvalidPolicyError,
    MeasurementRefusedError,
    MrSeamRefusedError,
    PlatformFlagRefusedError,
    PpidRefusedError,
    ReportDataMismatchError,
    ServiceTdRefusedError,
    TcbStatusRefusedError,
    TdAttributesRefusedError,
    XfamRefusedError,
)
from attestation.types import Appraisal, PckPlatform, PlatformFlag, TcbStatus, TdAttribute, TdReport, VerifiedQuote

XFAM_KNOWN = 0x0006DBE7
"""Every extended feature that TDX lets a TD have."""
XFAM_REQUIRED = 0x3
"""x87 and SSE: every TD has them."""

_DEBUG_GROUP = 0xFF
"""TDATTRIBUTES[7:0], "TD under debug": if any bit is set, the TD is not trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One guest image that may run: MRTD and RTMR0..3 (48 bytes each; None: any value)."""

    name: str
    mr_td: bytes
    rtmrs: tuple[bytes | None, bytes | None, bytes | None, bytes | None]

    def matches(self, td: TdReport) -> bool:
        """Whether `td` runs this image."""
        pairs = zip(self.rtmrs, td.rtmrs, strict=True)
        return td.mr_td == self.mr_td and all(want is None or want == have for want, have in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy:
    """What a pool allows. `None` for a list stands for "any"; the default denies every measurement.

    `td_attributes_required` are bits that must be set, `td_attributes_allowed` those that may be set
    besides; `mr_service_tds` lists service TDs that may be bound (none being bound is always allowed);
    `platform_flags_allowed` defaults to all, as every two-socket server carries all three;
    `machine_nodes_max` is not appraised here: it caps the nodes per PPID, and is for the tally.
    """

    measurements: tuple[Measurement, ...] = ()
    tcb_statuses: frozenset[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE})
    out_of_date_grace_s: int = 0
    advisories_rejected: frozenset[str] = frozenset()
    tcb_evaluation_min: int = 0
    qe_evaluation_min: int = 0
    evidence_age_max_s: int = 86_400
    debug_allowed: bool = False
    td_attributes_required: TdAttribute = TdAttribute.SEPT_VE_DISABLE
    td_attributes_allowed: TdAttribute = TdAttribute.PKS | TdAttribute.KL | TdAttribute.LASS
    xfam_allowed: int = XFAM_KNOWN
    mr_service_tds: frozenset[bytes] = frozenset()
    mr_seams: frozenset[bytes] | None = None
    fmspcs: frozenset[bytes] | None = None
    ppids_allowed: frozenset[bytes] | None = None
    ppids_denied: frozenset[bytes] = frozenset()
    platform_flags_allowed: frozenset[PlatformFlag] = frozenset(PlatformFlag)
    machine_nodes_max: int = 1
    gpu_evidence_required: bool = False

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AttestationPolicy:
        """Read the table form (see `_Table`); an absent key has its default.

        Raises:
            InvalidPolicyError: an unknown key, a wrong type or a value out of range; the message names the key.
        """
        try:
            table = msgspec.convert(mapping, _Table, strict=True)
        except msgspec.ValidationError as error:
            raise InvalidPolicyError(f"attestation policy: {error}") from error
        return cls(
            measurements=tuple(_read_measurement(entry) for entry in table.measurements),
            tcb_statuses=_read_statuses(table.tcb_statuses),
            out_of_date_grace_s=table.out_of_date_grace_s,
            advisories_rejected=frozenset(table.advisories_rejected),
            tcb_evaluation_min=table.tcb_evaluation_min,
            qe_evaluation_min=table.qe_evaluation_min,
            evidence_age_max_s=table.evidence_age_max_s,
            debug_allowed=table.debug_allowed,
            td_attributes_required=_read_attributes(table.td_attributes_required),
            td_attributes_allowed=_read_attributes(table.td_attributes_allowed),
            xfam_allowed=table.xfam_allowed,
            mr_service_tds=_read_set("mr_service_tds", table.mr_service_tds, 48),
            mr_seams=_read_list("mr_seams", table.mr_seams, 48),
            fmspcs=_read_list("fmspcs", table.fmspcs, 6),
            ppids_allowed=_read_list("ppids_allowed", table.ppids_allowed, 16),
            ppids_denied=_read_set("ppids_denied", table.ppids_denied, 16),
            platform_flags_allowed=frozenset(table.platform_flags_allowed),
            machine_nodes_max=table.machine_nodes_max,
            gpu_evidence_required=table.gpu_evidence_required,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return the table form, every key present, lists sorted: equal policies give equal mappings."""
        return {
            "measurements": [_write_measurement(entry) for entry in self.measurements],
            "tcb_statuses": sorted(status.value for status in self.tcb_statuses),
            "out_of_date_grace_s": self.out_of_date_grace_s,
            "advisories_rejected": sorted(self.advisories_rejected),
            "tcb_evaluation_min": self.tcb_evaluation_min,
            "qe_evaluation_min": self.qe_evaluation_min,
            "evidence_age_max_s": self.evidence_age_max_s,
            "debug_allowed": self.debug_allowed,
            "td_attributes_required": _write_attributes(self.td_attributes_required),
            "td_attributes_allowed": _write_attributes(self.td_attributes_allowed),
            "xfam_allowed": self.xfam_allowed,
            "mr_service_tds": _write_list(self.mr_service_tds),
            "mr_seams": _write_list(self.mr_seams),
            "fmspcs": _write_list(self.fmspcs),
            "ppids_allowed": _write_list(self.ppids_allowed),
            "ppids_denied": _write_list(self.ppids_denied),
            "platform_flags_allowed": sorted(flag.value for flag in self.platform_flags_allowed),
            "machine_nodes_max": self.machine_nodes_max,
            "gpu_evidence_required": self.gpu_evidence_required,
        }


def appraise(verified: VerifiedQuote, policy: AttestationPolicy, *, expected_report_data: bytes, now: int) -> Appraisal:
    """Allow `verified` from `now` (Unix seconds) for the policy's maximum age, or raise.

    `expected_report_data` (64 bytes) comes from `attestation.binding`. GPU evidence is not verified here; a
    policy that demands it allows nothing yet.

    Raises:
        ReportDataMismatchError: the quote was made for another key, pool, network or anchor.
        PolicyRefusedError: the policy does not allow it; the subclass says which rule.
    """
    td = verified.td
    if td.report_data != expected_report_data:
        raise ReportDataMismatchError("report data: the quote binds another node key, pool, network or anchor")
    _appraise_td(td, policy)
    _appraise_tcb(verified, policy, now)
    _appraise_platform(verified.platform, policy)
    if policy.gpu_evidence_required:
        raise GpuEvidenceRefusedError("GPU evidence: demanded by the policy, and not verified by this version")
    measurement = next((known for known in policy.measurements if known.matches(td)), None)
    if measurement is None:
        rtmrs = " ".join(f"{value.hex()[:16]}..." for value in td.rtmrs)
        raise MeasurementRefusedError(f"measurements: MRTD {td.mr_td.hex()}, RTMRs {rtmrs} match no entry")
    return Appraisal(
        verified=verified,
        measurement=measurement.name,
        valid_from_s=now,
        valid_until_s=now + policy.evidence_age_max_s,
    )


def _appraise_td(td: TdReport, policy: AttestationPolicy) -> None:
    if td.td_attributes & _DEBUG_GROUP and not policy.debug_allowed:
        raise DebugRefusedError(f"TD attributes {td.td_attributes:#018x}: the TD can be debugged")
    # With `debug_allowed` the whole group is let through here: nothing in it is worse than debug.
    attributes = td.td_attributes & ~_DEBUG_GROUP
    required, allowed = policy.td_attributes_required, policy.td_attributes_allowed
    if attributes & required != required:
        missing = TdAttribute(required & ~attributes)
        raise TdAttributesRefusedError(f"TD attributes {attributes:#018x}: {missing!r} must be set")
    if extra := attributes & ~(required | allowed):
        raise TdAttributesRefusedError(f"TD attributes {attributes:#018x}: {extra:#x} is not allowed")
    if td.xfam & XFAM_REQUIRED != XFAM_REQUIRED or td.xfam & ~policy.xfam_allowed:
        raise XfamRefusedError(f"XFAM {td.xfam:#018x}: allowed {policy.xfam_allowed:#x}, required {XFAM_REQUIRED:#x}")
    if td.mr_service_td is not None and any(td.mr_service_td) and td.mr_service_td not in policy.mr_service_tds:
        raise ServiceTdRefusedError(f"service TD {td.mr_service_td.hex()}: not listed")
    if _is_denied(td.mr_seam, policy.mr_seams):
        raise MrSeamRefusedError(f"TDX module {td.mr_seam.hex()}: not listed")


def _appraise_tcb(verified: VerifiedQuote, policy: AttestationPolicy, now: int) -> None:
    if verified.tcb_evaluation < policy.tcb_evaluation_min or verified.qe_evaluation < policy.qe_evaluation_min:
        raise EvaluationNumberError(
            f"evaluation numbers: TCB info {verified.tcb_evaluation}, QE {verified.qe_evaluation}; "
            f"at least {policy.tcb_evaluation_min} and {policy.qe_evaluation_min}"
        )
    if rejected := sorted(policy.advisories_rejected.intersection(verified.advisories)):
        raise AdvisoryRefusedError(f"advisories: {', '.join(rejected)}")
    in_grace = (
        verified.status is TcbStatus.OUT_OF_DATE
        and policy.out_of_date_grace_s > 0
        and now <= verified.tcb_date_s + policy.out_of_date_grace_s
    )
    if verified.status not in policy.tcb_statuses and not in_grace:
        raise TcbStatusRefusedError(f"TCB status {verified.status}, of {verified.tcb_date_s}: not allowed")


def _appraise_platform(platform: PckPlatform, policy: AttestationPolicy) -> None:
    if _is_denied(platform.fmspc, policy.fmspcs):
        raise FmspcRefusedError(f"FMSPC {platform.fmspc.hex()}: not listed")
    if platform.ppid in policy.ppids_denied or _is_denied(platform.ppid, policy.ppids_allowed):
        raise PpidRefusedError(f"machine {platform.ppid.hex()}: denied, or not listed")
    if refused := sorted(platform.flags - policy.platform_flags_allowed):
        raise PlatformFlagRefusedError(f"platform: {', '.join(refused)}: not allowed")


def _is_denied(value: bytes, allowed: Collection[bytes] | None) -> bool:
    return allowed is not None and value not in allowed


# --- the table form ---

_ANY = "any"
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_Texts = Annotated[list[Annotated[str, msgspec.Meta(max_length=128)]], msgspec.Meta(max_length=1024)]
_DAY_S = 86_400
_DEFAULT = AttestationPolicy()


class _Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hex of 48 bytes each; an RTMR may be "any"."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    mr_td: str
    rtmr0: str
    rtmr1: str
    rtmr2: str
    rtmr3: str


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`AttestationPolicy` in TOML's types: bytes are hex, bits are names, None is "any"."""

    measurements: Annotated[list[_Measurement], msgspec.Meta(max_length=256)] = []
    tcb_statuses: list[TcbStatus] = msgspec.field(default_factory=lambda: list(_DEFAULT.tcb_statuses))
    out_of_date_grace_s: Annotated[int, msgspec.Meta(ge=0, le=730 * _DAY_S)] = _DEFAULT.out_of_date_grace_s
    advisories_rejected: _Texts = []
    tcb_evaluation_min: _U32 = _DEFAULT.tcb_evaluation_min
    qe_evaluation_min: _U32 = _DEFAULT.qe_evaluation_min
    evidence_age_max_s: Annotated[int, msgspec.Meta(ge=1, le=31 * _DAY_S)] = _DEFAULT.evidence_age_max_s
    debug_allowed: bool = _DEFAULT.debug_allowed
    td_attributes_required: _Texts = msgspec.field(
        default_factory=lambda: _write_attributes(_DEFAULT.td_attributes_required)
    )
    td_attributes_allowed: _Texts = msgspec.field(
        default_factory=lambda: _write_attributes(_DEFAULT.td_attributes_allowed)
    )
    xfam_allowed: Annotated[int, msgspec.Meta(ge=XFAM_REQUIRED, le=(1 << 63) - 1)] = _DEFAULT.xfam_allowed
    mr_service_tds: _Texts = []
    mr_seams: _Texts | Literal["any"] = "any"
    fmspcs: _Texts | Literal["any"] = "any"
    ppids_allowed: _Texts | Literal["any"] = "any"
    ppids_denied: _Texts = []
    platform_flags_allowed: list[PlatformFlag] = msgspec.field(default_factory=lambda: list(PlatformFlag))
    machine_nodes_max: Annotated[int, msgspec.Meta(ge=1, le=1024)] = _DEFAULT.machine_nodes_max
    gpu_evidence_required: bool = _DEFAULT.gpu_evidence_required


def _read_measurement(raw: _Measurement) -> Measurement:
    def rtmr(key: str, text: str) -> bytes | None:
        return None if text == _ANY else _read_hex(f"measurements.{key}", text, 48)

    return Measurement(
        name=raw.name,
        mr_td=_read_hex("measurements.mr_td", raw.mr_td, 48),
        rtmrs=(rtmr("rtmr0", raw.rtmr0), rtmr("rtmr1", raw.rtmr1), rtmr("rtmr2", raw.rtmr2), rtmr("rtmr3", raw.rtmr3)),
    )


def _read_statuses(statuses: list[TcbStatus]) -> frozenset[TcbStatus]:
    if TcbStatus.REVOKED in statuses:
        raise InvalidPolicyError("attestation policy: tcb_statuses: Revoked can never be allowed")
    return frozenset(statuses)


def _read_attributes(names: list[str]) -> TdAttribute:
    attributes = TdAttribute(0)
    for name in names:
        bit = TdAttribute.__members__.get(name)
        if bit is None or bit & _DEBUG_GROUP:
            raise InvalidPolicyError(f"attestation policy: TD attribute {name!r} is unknown, or is for debugging")
        attributes |= bit
    return attributes


def _read_list(key: str, texts: list[str] | str, length: int) -> frozenset[bytes] | None:
    return None if isinstance(texts, str) else _read_set(key, texts, length)


def _read_set(key: str, texts: list[str], length: int) -> frozenset[bytes]:
    return frozenset(_read_hex(key, text, length) for text in texts)


def _read_hex(key: str, text: str, length: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise InvalidPolicyError(f"attestation policy: {key}: {text!r:.100} is not hex") from error
    if len(value) != length:
        raise InvalidPolicyError(f"attestation policy: {key}: {len(value)} bytes, expected {length}")
    return value


def _write_measurement(measurement: Measurement) -> dict[str, str]:
    rtmrs = {f"rtmr{i}": _ANY if value is None else value.hex() for i, value in enumerate(measurement.rtmrs)}
    return {"name": measurement.name, "mr_td": measurement.mr_td.hex(), **rtmrs}


def _write_attributes(attributes: TdAttribute) -> list[str]:
    return sorted(str(bit.name) for bit in attributes)


def _write_list(values: Iterable[bytes] | None) -> list[str] | str:
    return _ANY if values is None else sorted(value.hex() for value in values)
