"""Appraisal: every option refuses what it should, the default denies, the table form is strict."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from attestation import errors
from attestation.appraisal import RULES, Appraisal, Case, appraise, findings
from attestation.policy import XFAM_KNOWN, AttestationPolicy, Measurement
from attestation.providers.software import SOFTWARE_MACHINE, SOFTWARE_MEASUREMENT, SOFTWARE_TD
from attestation.types import PlatformFlag, TcbStatus, TdAttribute, VerifiedQuote

NOW = 1_800_000_000
GOOD = VerifiedQuote(
    td=SOFTWARE_TD,
    platform=SOFTWARE_MACHINE,
    status=TcbStatus.UP_TO_DATE,
    advisories=(),
    tcb_date_s=NOW - 1000,
    tcb_evaluation=17,
    qe_evaluation=18,
    quote_version=4,
    signed_digest=bytes(32),
    collateral_digest=bytes(32),
    collateral_issued_s=NOW - 1000,
    verified_s=NOW,
)
POLICY = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,))
SEPT = int(TdAttribute.SEPT_VE_DISABLE)


def case(policy: dict[str, Any], verified: dict[str, Any], td: dict[str, Any]) -> Case:
    quote = replace(GOOD, td=replace(SOFTWARE_TD, **td), **verified)
    return Case(verified=quote, policy=replace(POLICY, **policy), now=NOW, expected_report_data=bytes(64))


def judge(policy: dict[str, Any], verified: dict[str, Any], td: dict[str, Any]) -> Appraisal:
    return appraise(case(policy, verified, td))


def machine(**changes: Any) -> dict[str, Any]:
    return {"platform": replace(SOFTWARE_MACHINE, **changes)}


OTHER = Measurement(name="other", mr_td=bytes(48), rtmrs=(None, None, None, None))
REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], type[errors.AttestationError]]] = [
    ({}, {}, {"report_data": b"\x01" * 64}, errors.ReportDataMismatchError),
    ({"measurements": ()}, {}, {}, errors.MeasurementRefusedError),
    ({"measurements": (OTHER,)}, {}, {}, errors.MeasurementRefusedError),
    ({}, {}, {"mr_td": bytes(48)}, errors.MeasurementRefusedError),
    ({}, {}, {"rtmrs": (*SOFTWARE_TD.rtmrs[:3], bytes(48))}, errors.MeasurementRefusedError),
    ({}, {}, {"td_attributes": SEPT | 1}, errors.DebugRefusedError),
    ({}, {}, {"td_attributes": SEPT | TdAttribute.PERF_PROF}, errors.DebugRefusedError),
    ({}, {}, {"td_attributes": 0}, errors.TdAttributesRefusedError),
    ({}, {}, {"td_attributes": SEPT | TdAttribute.MIGRATABLE}, errors.TdAttributesRefusedError),
    ({}, {}, {"td_attributes": SEPT | TdAttribute.PERFMON}, errors.TdAttributesRefusedError),
    ({}, {}, {"td_attributes": SEPT | 1 << 40}, errors.TdAttributesRefusedError),
    ({}, {}, {"xfam": 0}, errors.XfamRefusedError),
    ({}, {}, {"xfam": XFAM_KNOWN | 1 << 63}, errors.XfamRefusedError),
    ({"xfam_allowed": 3}, {}, {}, errors.XfamRefusedError),
    ({}, {}, {"mr_service_td": b"\x01" * 48}, errors.ServiceTdRefusedError),
    ({"mr_seams": frozenset()}, {}, {}, errors.MrSeamRefusedError),
    ({"fmspcs": frozenset()}, {}, {}, errors.FmspcRefusedError),
    ({"ppids_allowed": frozenset()}, {}, {}, errors.PpidRefusedError),
    ({"ppids_denied": frozenset({bytes(16)})}, {}, {}, errors.PpidRefusedError),
    (
        {"platform_flags_allowed": frozenset({PlatformFlag.SMT_ENABLED})},
        machine(flags=frozenset({PlatformFlag.CACHED_KEYS})),
        {},
        errors.PlatformFlagRefusedError,
    ),
    ({"tcb_evaluation_min": 18}, {}, {}, errors.EvaluationNumberError),
    ({"qe_evaluation_min": 19}, {}, {}, errors.EvaluationNumberError),
    (
        {"advisories_rejected": frozenset({"INTEL-SA-00001"})},
        {"advisories": ("INTEL-SA-00001", "INTEL-SA-00002")},
        {},
        errors.AdvisoryRefusedError,
    ),
    ({"collateral_age_max_s": 2 * 86_400}, {"collateral_issued_s": NOW - 172_801}, {}, errors.CollateralAgeError),
    ({"tcb_statuses": frozenset()}, {}, {}, errors.TcbStatusRefusedError),
    *(({}, {"status": status}, {}, errors.TcbStatusRefusedError) for status in TcbStatus if status != "UpToDate"),
    ({"out_of_date_grace_s": 999}, {"status": TcbStatus.OUT_OF_DATE}, {}, errors.TcbStatusRefusedError),
    (
        {"out_of_date_grace_s": 10_000},
        {"status": TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED},
        {},
        errors.TcbStatusRefusedError,
    ),
    ({"gpu_evidence_required": True}, {}, {}, errors.GpuEvidenceMissingError),
]

ALLOWED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"collateral_age_max_s": 86_400}, {"collateral_issued_s": NOW - 86_400}, {}),
    ({}, {}, {}),
    ({"measurements": (OTHER, replace(SOFTWARE_MEASUREMENT, rtmrs=(None,) * 4))}, {}, {"rtmrs": (bytes(48),) * 4}),
    ({"debug_allowed": True}, {}, {"td_attributes": SEPT | 1}),
    ({"td_attributes_required": TdAttribute(0)}, {}, {"td_attributes": 0}),
    ({"td_attributes_allowed": TdAttribute.MIGRATABLE}, {}, {"td_attributes": SEPT | TdAttribute.MIGRATABLE}),
    ({}, {}, {"mr_service_td": bytes(48)}),
    ({"mr_service_tds": frozenset({b"\x01" * 48})}, {}, {"mr_service_td": b"\x01" * 48}),
    ({"mr_seams": frozenset({SOFTWARE_TD.mr_seam}), "fmspcs": frozenset({SOFTWARE_MACHINE.fmspc})}, {}, {}),
    ({"ppids_allowed": frozenset({bytes(16)})}, {}, {}),
    ({}, machine(flags=frozenset(PlatformFlag)), {}),
    ({"tcb_evaluation_min": 17, "qe_evaluation_min": 18}, {}, {}),
    (
        {"tcb_statuses": frozenset({TcbStatus.SW_HARDENING_NEEDED})},
        {"status": TcbStatus.SW_HARDENING_NEEDED, "advisories": ("A",)},
        {},
    ),
    ({"out_of_date_grace_s": 1000}, {"status": TcbStatus.OUT_OF_DATE}, {}),
]


@pytest.mark.parametrize(("policy", "verified", "td", "error"), REFUSED)
def test_refused(policy: dict[str, Any], verified: dict[str, Any], td: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        judge(policy, verified, td)
    assert type(caught.value) is error


@pytest.mark.parametrize(("policy", "verified", "td"), ALLOWED)
def test_allowed(policy: dict[str, Any], verified: dict[str, Any], td: dict[str, Any]) -> None:
    appraisal = judge(policy, verified, td)
    assert (appraisal.valid_from_s, appraisal.valid_until_s) == (NOW, NOW + 86_400)
    assert appraisal.measurement == "software"
    assert appraisal.machine == hashlib.sha256(b"gpupool/machine/1" + bytes(16)).digest()


@pytest.mark.parametrize(
    ("td", "said"),
    [
        ({"mr_td": bytes(48)}, 'nearest is "software", differs in MRTD (0000000000000000...)'),
        (
            {"mr_td": b"\x01" * 48, "rtmrs": (*SOFTWARE_TD.rtmrs[:3], bytes(48))},
            'nearest is "software", differs in MRTD (0101010101010101...), RTMR3 (0000000000000000...)',
        ),
    ],
)
def test_a_refused_measurement_names_the_nearest_entry_and_what_differs(td: dict[str, Any], said: str) -> None:
    far = Measurement(name="far", mr_td=b"\x07" * 48, rtmrs=(b"\x07" * 48,) * 4)
    with pytest.raises(errors.MeasurementRefusedError) as caught:
        judge({"measurements": (far, SOFTWARE_MEASUREMENT)}, {}, td)
    assert str(caught.value) == f"measurements: {said}"


def test_the_default_policy_denies() -> None:
    with pytest.raises(errors.MeasurementRefusedError):
        appraise(replace(case({}, {}, {}), policy=AttestationPolicy.from_mapping({})))


def test_a_guest_that_was_only_talked_to_is_refused_unless_the_policy_allows_it() -> None:
    talked_to = replace(case({}, {}, {}), by_handshake=True)
    with pytest.raises(errors.GuestHandshakeRefusedError):
        appraise(talked_to)
    allowed = replace(POLICY, guest_handshake_allowed=True)
    assert appraise(replace(talked_to, policy=allowed)).measurement == "software"


def test_report_data_that_nobody_knows_is_not_checked() -> None:
    quote = case({}, {}, {"report_data": b"\x01" * 64})
    assert appraise(replace(quote, expected_report_data=None)).measurement == "software"


@pytest.mark.parametrize(("policy", "verified", "td", "error"), REFUSED)
def test_findings_name_the_rule_that_refuses(
    policy: dict[str, Any], verified: dict[str, Any], td: dict[str, Any], error: type[errors.AttestationError]
) -> None:
    found = findings(case(policy, verified, td))
    assert [finding.rule for finding in found] == [name for name, _, _ in RULES]
    first = next(finding for finding in found if finding.error is not None)
    assert type(first.error) is error
    assert all(finding.seen for finding in found)


def test_findings_of_what_is_allowed_name_no_error() -> None:
    assert [finding.error for finding in findings(case({}, {}, {}))] == [None] * len(RULES)


@pytest.mark.parametrize("changes", [change[0] for change in REFUSED + ALLOWED])  # type: ignore[operator]
def test_the_table_form_says_the_same(changes: dict[str, Any]) -> None:
    policy = replace(POLICY, **changes)
    mapping = policy.to_mapping()
    assert AttestationPolicy.from_mapping(mapping) == policy
    assert AttestationPolicy.from_mapping(mapping).to_mapping() == mapping


HEX48 = "00" * 48
IMAGE = {"name": "x", "mr_td": HEX48, "rtmr0": HEX48, "rtmr1": HEX48, "rtmr2": HEX48, "rtmr3": "any"}


@pytest.mark.parametrize(
    "mapping",
    [
        {"unknown": 1},
        {"debug_allowed": 1},
        {"debug_allowed": "false"},
        {"evidence_age_max_s": 0},
        {"evidence_age_max_s": 3600.0},
        {"out_of_date_grace_s": -1},
        {"xfam_allowed": 0},
        {"gpus_min": 0},
        {"advisories_rejected": ["intel-sa-00837"]},
        {"advisories_rejected": ["INTEL-SA-837"]},
        {"collateral_age_max_s": 0},
        {"gpus_denied": ["00" * 32]},
        {"tcb_statuses": ["Revoked"]},
        {"tcb_statuses": ["uptodate"]},
        {"td_attributes_allowed": ["DEBUG"]},
        {"td_attributes_required": ["NOTHING"]},
        {"fmspcs": "all"},
        {"fmspcs": ["0000"]},
        {"mr_seams": [HEX48[:-1] + "g"]},
        {"platform_flags_allowed": ["other"]},
        {"measurements": [IMAGE | {"mr_td": "any"}]},
        {"measurements": [IMAGE | {"rtmr3": ""}]},
        {"measurements": [IMAGE | {"rtmr4": HEX48}]},
        {"measurements": [{key: value for key, value in IMAGE.items() if key != "rtmr3"}]},
    ],
)
def test_a_mapping_that_is_not_exactly_a_policy_is_refused(mapping: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidPolicyError):
        AttestationPolicy.from_mapping(mapping)


GOLDEN = {"name": "H100", "blocks": {"1": "01" * 48}}


def test_gpus_are_restricted_only_where_they_are_demanded() -> None:
    demanded = AttestationPolicy.from_mapping({"gpu_evidence_required": True, "gpu_measurements": [GOLDEN]})
    assert AttestationPolicy.from_mapping(demanded.to_mapping()) == demanded
    assert demanded.to_mapping()["gpu_measurements"] == [
        {
            **GOLDEN,
            "driver": "any",
            "vbios": "any",
            "fwid": "any",
            "protected_pcie": False,
            "blocks": {"1": ["01" * 48]},
        }
    ]
    assert not AttestationPolicy.from_mapping({"gpu_evidence_required": False}).gpu_evidence_required
    for restricted in ({"gpu_measurements": [GOLDEN]}, {"gpus_denied": ["00" * 32]}):
        with pytest.raises(errors.InvalidPolicyError, match="gpu_evidence_required"):
            AttestationPolicy.from_mapping(restricted)
        with pytest.raises(errors.InvalidPolicyError, match="gpu_evidence_required"):
            AttestationPolicy.from_mapping(restricted | {"gpu_evidence_required": False})
    assert AttestationPolicy.from_mapping({"gpus_denied": ["00" * 32], "gpu_evidence_required": True}).gpus_denied
