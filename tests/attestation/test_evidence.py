"""Evidence as a record carries it: bound to key, pool, network and anchor; the same verdict for everyone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation import errors
from attestation.binding import report_data
from attestation.collateral import Collateral
from attestation.evidence import Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from attestation.providers import QuoteProvider
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from attestation.roots import INTEL_ROOT, root_for
from attestation.types import Appraisal
from attestation.verify import Verifier

NOW = 1_800_000_000
NETWORK = -217
POOL, KEY, ANCHOR = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
POLICY = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=600)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> SoftwareRoot:
    return SoftwareRoot.create(tmp_path_factory.mktemp("software") / "root", now_s=NOW)


async def evidence_of(provider: QuoteProvider, gpu_report: bytes | None = None) -> tuple[Evidence, Collateral]:
    collateral = await provider.collateral()
    evidence = Evidence(
        quote=b"",
        gpu_report=gpu_report,
        collateral_digest=collateral.digest,
        anchor_seqno=77,
        anchor_root_hash=ANCHOR,
        anchor_time_s=NOW,
    )
    quote = await provider.quote(report_data(NETWORK, POOL, KEY, ANCHOR, evidence.gpu_digest))
    return replace(evidence, quote=quote), collateral


def judge(evidence: Evidence, collateral: Collateral, root: bytes | Verifier, **changes: Any) -> Appraisal:
    arguments = {"network": NETWORK, "pool": POOL, "node_key": KEY, "root": root}
    return appraise_evidence(evidence, collateral, **({"policy": POLICY} | arguments | changes))


async def test_machines_of_one_root_are_accepted_and_told_apart(shared_root: SoftwareRoot, tmp_path: Path) -> None:
    ppids = set()
    verifier = Verifier(shared_root.certificate)
    for name in ("a", "b"):
        platform = SoftwarePlatform.create(tmp_path / name, root=shared_root)
        evidence, collateral = await evidence_of(platform)
        appraisal = judge(evidence, collateral, shared_root.certificate)
        assert judge(evidence, collateral, verifier) == judge(evidence, collateral, verifier) == appraisal
        assert (appraisal.valid_from_s, appraisal.valid_until_s) == (NOW, NOW + 600)
        ppids.add(appraisal.ppid)
    assert len(ppids) == 2


async def test_a_gpu_report_is_bound(shared_root: SoftwareRoot, tmp_path: Path) -> None:
    platform = SoftwarePlatform.create(tmp_path / "a", root=shared_root)
    evidence, collateral = await evidence_of(platform, gpu_report=b"report")
    assert judge(evidence, collateral, shared_root.certificate).measurement == "software"
    for other in (None, b"other"):
        with pytest.raises(errors.ReportDataMismatchError):
            judge(replace(evidence, gpu_report=other), collateral, shared_root.certificate)


@pytest.mark.parametrize(
    ("change", "arguments", "error"),
    [
        ({}, {"network": -218}, errors.ReportDataMismatchError),
        ({}, {"pool": KEY}, errors.ReportDataMismatchError),
        ({}, {"node_key": POOL}, errors.ReportDataMismatchError),
        ({"anchor_root_hash": bytes(32)}, {}, errors.ReportDataMismatchError),
        ({"collateral_digest": bytes(32)}, {}, errors.CollateralMismatchError),
        ({"anchor_time_s": NOW + 4000 * 86_400}, {}, errors.CollateralExpiredError),
        ({"anchor_time_s": NOW - 2 * 86_400}, {}, errors.CollateralNotYetValidError),
        ({"quote": b""}, {}, errors.QuoteMalformedError),
        ({}, {"network": -239}, errors.RootRefusedError),
        ({}, {"network": -3}, errors.RootRefusedError),
        ({}, {"root": INTEL_ROOT}, errors.CollateralChainError),
        ({}, {"policy": AttestationPolicy()}, errors.MeasurementRefusedError),
    ],
)
async def test_refused(
    shared_root: SoftwareRoot,
    tmp_path: Path,
    change: dict[str, Any],
    arguments: dict[str, Any],
    error: type[Exception],
) -> None:
    platform = SoftwarePlatform.create(tmp_path / "a", root=shared_root)
    evidence, collateral = await evidence_of(platform)
    with pytest.raises(error):
        judge(replace(evidence, **change), collateral, **({"root": shared_root.certificate} | arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"quote": bytes(16 * 1024 + 1)},
        {"gpu_report": bytes(64 * 1024 + 1)},
        {"collateral_digest": b""},
        {"anchor_root_hash": bytes(31)},
        {"anchor_seqno": 1 << 32},
        {"anchor_time_s": -1},
    ],
)
def test_fields_out_of_range(change: dict[str, Any]) -> None:
    good = Evidence(
        quote=b"",
        gpu_report=None,
        collateral_digest=bytes(32),
        anchor_seqno=1,
        anchor_root_hash=bytes(32),
        anchor_time_s=1,
    )
    with pytest.raises(errors.EvidenceMalformedError):
        replace(good, **change)


def test_report_data_is_what_the_document_says() -> None:
    message = b"gpupool/report/1" + (-3).to_bytes(4, "big", signed=True) + POOL + KEY + ANCHOR + bytes(32)
    assert report_data(-3, POOL, KEY, ANCHOR) == hashlib.sha512(message).digest()


@pytest.mark.parametrize(
    "make",
    [
        lambda: report_data(1 << 31, POOL, KEY, ANCHOR),
        lambda: report_data(-3, POOL[1:], KEY, ANCHOR),
        lambda: report_data(-3, POOL, KEY + b"\0", ANCHOR),
        lambda: report_data(-3, POOL, KEY, b""),
        lambda: report_data(-3, POOL, KEY, ANCHOR, b""),
    ],
)
def test_report_data_takes_exact_lengths_only(make: Callable[[], bytes]) -> None:
    with pytest.raises(errors.EvidenceMalformedError):
        make()


def test_public_networks_take_intels_root_only() -> None:
    for network in (-239, -3):
        assert root_for(network) == root_for(network, INTEL_ROOT) == INTEL_ROOT
        with pytest.raises(errors.RootRefusedError):
            root_for(network, b"other")
    assert root_for(NETWORK, b"other") == b"other"


async def test_a_debuggable_td_is_refused_on_public_networks(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forge's root stands in for Intel's; only the policy's debug switch differs between the networks."""
    monkeypatch.setattr("attestation.roots.INTEL_ROOT_SHA256", hashlib.sha256(forge.root.der).digest())
    collateral = forge.collateral()
    for network, refused in [(-3, True), (NETWORK, False)]:
        bound = report_data(network, POOL, KEY, ANCHOR)
        evidence = Evidence(
            quote=forge.quote(forge.signed(td_attributes=1 << 28 | 1, report_data=bound)),
            gpu_report=None,
            collateral_digest=collateral.digest,
            anchor_seqno=1,
            anchor_root_hash=ANCHOR,
            anchor_time_s=NOW,
        )
        policy = replace(POLICY, debug_allowed=True)
        if refused:
            with pytest.raises(errors.DebugRefusedError):
                judge(evidence, collateral, forge.root.der, network=network, policy=policy)
        else:
            assert judge(evidence, collateral, forge.root.der, network=network, policy=policy).ppid == bytes(16)
