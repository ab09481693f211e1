"""The attestation policy: what a pool allows, and how that reads in a TOML table. `appraisal` applies it.

Decides whether a table is a policy.

1. An empty list allows nothing; what is not to be restricted says so with the word "any".
2. `Revoked` can never be allowed. `OutOfDate` may be, for a while, by `out_of_date_grace_s`.
3. Unknown keys, wrong types and values out of range are refused; the message names the key.

The table stands in the pool's policy document; that document is what gets hashed and agreed upon.

Source: Intel TDX Module 1.5 ABI (TD attributes, XFAM); Intel DCAP appraisal of TDX TCB, platform policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from attestation.errors import InvalidPolicyError
from attestation.gpu_policy import GpuGolden, GpuGoldenTable, read_goldens, write_golden
from attestation.types import PlatformFlag, TcbStatus, TdAttribute, TdReport

XFAM_KNOWN = 0x0006DBE7
"""Every extended feature that TDX lets a TD have."""
XFAM_REQUIRED = 0x3
"""x87 and SSE: every TD has them."""

DEBUG_GROUP = 0xFF
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
    `collateral_age_max_s` bounds how old any part of the collateral may be, the root's revocation list aside: who
    brings it could otherwise choose a list from before a revocation;
    `platform_flags_allowed` defaults to all, as every two-socket server carries all three;
    `guest_handshake_allowed` lets a node outside of the TD prove a guest that it talked to (`handshake`).
    With `gpu_evidence_required`, at least `gpus_min` GPUs report, each matches one of `gpu_measurements`, and none
    is denied by identity (32 bytes); without, what GPUs report decides nothing.
    How many nodes may earn on one machine is the tally's (`work.machine_nodes_max` of the pool's policy).
    """

    measurements: tuple[Measurement, ...] = ()
    tcb_statuses: frozenset[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE})
    out_of_date_grace_s: int = 0
    advisories_rejected: frozenset[str] = frozenset()
    tcb_evaluation_min: int = 0
    qe_evaluation_min: int = 0
    collateral_age_max_s: int = 31 * 86_400
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
    guest_handshake_allowed: bool = False
    gpu_evidence_required: bool = False
    gpus_min: int = 1
    gpu_measurements: tuple[GpuGolden, ...] = ()
    gpus_denied: frozenset[bytes] = frozenset()

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
        if (table.gpu_measurements or table.gpus_denied) and not table.gpu_evidence_required:
            raise InvalidPolicyError("attestation policy: gpu_evidence_required: GPUs are restricted: must be true")
        return cls(
            measurements=tuple(_read_measurement(entry) for entry in table.measurements),
            tcb_statuses=_read_statuses(table.tcb_statuses),
            out_of_date_grace_s=table.out_of_date_grace_s,
            advisories_rejected=_read_advisories(table.advisories_rejected),
            tcb_evaluation_min=table.tcb_evaluation_min,
            qe_evaluation_min=table.qe_evaluation_min,
            collateral_age_max_s=table.collateral_age_max_s,
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
            guest_handshake_allowed=table.guest_handshake_allowed,
            gpu_evidence_required=table.gpu_evidence_required,
            gpus_min=table.gpus_min,
            gpu_measurements=read_goldens(table.gpu_measurements),
            gpus_denied=_read_set("gpus_denied", table.gpus_denied, 32),
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
            "collateral_age_max_s": self.collateral_age_max_s,
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
            "guest_handshake_allowed": self.guest_handshake_allowed,
            "gpu_evidence_required": self.gpu_evidence_required,
            "gpus_min": self.gpus_min,
            "gpu_measurements": [write_golden(golden) for golden in self.gpu_measurements],
            "gpus_denied": _write_list(self.gpus_denied),
        }


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
    collateral_age_max_s: Annotated[int, msgspec.Meta(ge=_DAY_S, le=400 * _DAY_S)] = _DEFAULT.collateral_age_max_s
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
    guest_handshake_allowed: bool = _DEFAULT.guest_handshake_allowed
    gpu_evidence_required: bool = _DEFAULT.gpu_evidence_required
    gpus_min: Annotated[int, msgspec.Meta(ge=1, le=16)] = _DEFAULT.gpus_min
    gpu_measurements: Annotated[list[GpuGoldenTable], msgspec.Meta(max_length=64)] = []
    gpus_denied: _Texts = []


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


def _read_advisories(names: list[str]) -> frozenset[str]:
    for name in names:
        if not re.fullmatch("INTEL-SA-[0-9]{5}", name):
            raise InvalidPolicyError(f"attestation policy: advisories_rejected: {name!r}: expected like INTEL-SA-00837")
    return frozenset(names)


def _read_attributes(names: list[str]) -> TdAttribute:
    attributes = TdAttribute(0)
    for name in names:
        bit = TdAttribute.__members__.get(name)
        if bit is None or bit & DEBUG_GROUP:
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
