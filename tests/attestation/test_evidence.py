"""Evidence as a record carries it: bound to key, pool, network and anchor; the same verdict for everyone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gpu_forge import GpuForge, report, verified
from ra_tls_guest import (
    ENCRYPTED_EXTENSIONS,
    Guest,
    certificate_message,
    certificate_verify,
    client_hello,
    make_guest,
    server_hello,
)

from attestation import errors
from attestation.appraisal import Appraisal
from attestation.binding import NO_GPU_EVIDENCE, report_data
from attestation.collateral import Collateral
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.gpu import encode_gpu_evidence, gpu_nonce
from attestation.gpu_chain import NVIDIA_ROOT
from attestation.gpu_policy import GpuGoldenTable, golden_of, read_goldens
from attestation.guest_certificate import parse_guest_certificate
from attestation.handshake import server_name
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from attestation.roots import INTEL_ROOT, root_for
from attestation.verify import Verifier

NOW = 1_800_000_000
NETWORK = -217
POOL, KEY, ANCHOR = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
POLICY = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=600)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> SoftwareRoot:
    return SoftwareRoot.create(tmp_path_factory.mktemp("software") / "root", now_s=NOW)


async def evidence_of(platform: SoftwarePlatform, gpu: bytes | None = None) -> tuple[Evidence, Attachments]:
    gpu_digest = None if gpu is None else hashlib.sha256(gpu).digest()
    quote = (await platform.quote(report_data(NETWORK, POOL, KEY, ANCHOR, gpu_digest or NO_GPU_EVIDENCE))).quote
    collateral = await platform.collateral(quote, NOW)
    return evidence_with(quote, collateral, gpu_digest=gpu_digest), Attachments(collateral=collateral, gpu=gpu)


def evidence_with(quote: bytes, collateral: Collateral, **digests: Any) -> Evidence:
    parts = {"gpu_digest": None, "handshake_digest": None} | digests
    return Evidence(
        quote=quote,
        collateral_digest=collateral.digest,
        anchor_seqno=77,
        anchor_root_hash=ANCHOR,
        anchor_time_s=NOW,
        **parts,
    )


def judge(evidence: Evidence, attachments: Attachments, root: bytes | Verifier, **changes: Any) -> Appraisal:
    arguments = {"network": NETWORK, "pool": POOL, "node_key": KEY, "root": root}
    return appraise_evidence(evidence, attachments, **({"policy": POLICY} | arguments | changes))


async def test_machines_of_one_root_are_accepted_and_told_apart(shared_root: SoftwareRoot, tmp_path: Path) -> None:
    machines = set()
    verifier = Verifier(shared_root.certificate)
    for name in ("a", "b"):
        platform = SoftwarePlatform.create(tmp_path / name, root=shared_root)
        evidence, attached = await evidence_of(platform)
        appraisal = judge(evidence, attached, shared_root.certificate)
        assert judge(evidence, attached, verifier) == judge(evidence, attached, verifier) == appraisal
        assert (appraisal.valid_from_s, appraisal.valid_until_s) == (NOW, NOW + 600)
        machines.add(appraisal.machine)
    assert len(machines) == 2


async def test_gpus_are_bound_and_those_of_another_node_are_refused(shared_root: SoftwareRoot, tmp_path: Path) -> None:
    platform, forge = SoftwarePlatform.create(tmp_path / "a", root=shared_root), GpuForge.new()
    root = shared_root.certificate
    own = encode_gpu_evidence([forge.gpu(raw=report(gpu_nonce(KEY, ANCHOR)))])
    evidence, attached = await evidence_of(platform, own)
    policy = replace(
        POLICY,
        gpu_evidence_required=True,
        gpu_measurements=read_goldens([msgspec.convert(golden_of([verified()], name="good"), GpuGoldenTable)]),
    )
    appraisal = judge(evidence, attached, root, gpu_root=forge.root.der, policy=policy)
    assert [gpu.driver for gpu in appraisal.gpus] == ["550.90.07"]
    for change, error in (
        ({"gpu_root": NVIDIA_ROOT}, errors.GpuChainSignatureError),
        ({"policy": replace(policy, gpu_measurements=())}, errors.GpuMeasurementRefusedError),
        ({"policy": replace(policy, gpus_min=2)}, errors.GpuCountError),
        ({"policy": replace(policy, gpus_denied=frozenset({appraisal.gpus[0].identity}))}, errors.GpuDeniedError),
    ):
        with pytest.raises(error):
            judge(evidence, attached, root, **({"gpu_root": forge.root.der, "policy": policy} | change))
    with pytest.raises(errors.EvidenceMalformedError):
        judge(evidence, replace(attached, gpu=None), root)
    with pytest.raises(errors.ReportDataMismatchError):
        judge(replace(evidence, gpu_digest=None), replace(attached, gpu=None), root)
    others = encode_gpu_evidence([forge.gpu(raw=report(gpu_nonce(POOL, ANCHOR)))])
    with pytest.raises(errors.GpuNonceMismatchError):
        judge(*await evidence_of(platform, others), root, gpu_root=forge.root.der)
    with pytest.raises(errors.GpuEvidenceMissingError):
        judge(*await evidence_of(platform), root, policy=policy)


def test_a_guest_that_was_talked_to(forge: Any) -> None:
    guest = make_guest(lambda data: forge.quote(forge.signed(report_data=data)))
    handshake = handshake_with(guest, report_data(NETWORK, POOL, KEY, ANCHOR))
    collateral = forge.collateral()
    attached = Attachments(collateral=collateral, handshake=handshake)
    quote = parse_guest_certificate(guest.certificate).quote
    evidence = evidence_with(quote, collateral, handshake_digest=hashlib.sha256(handshake).digest())
    policy = replace(POLICY, guest_handshake_allowed=True)
    root = forge.root.der
    assert judge(evidence, attached, root, policy=policy).measurement == "software"
    with pytest.raises(errors.GuestHandshakeRefusedError):
        judge(evidence, attached, root)
    with pytest.raises(errors.HandshakeChallengeError):
        judge(evidence, attached, root, policy=policy, node_key=POOL)
    with pytest.raises(errors.GuestReportDataError):
        judge(replace(evidence, quote=forge.quote()), attached, root, policy=policy)
    without = replace(evidence, handshake_digest=None), replace(attached, handshake=None)
    with pytest.raises(errors.ReportDataMismatchError):
        judge(*without, root, policy=policy)
    for time_s in (NOW - 1, NOW + 86_401):
        with pytest.raises(errors.GuestCertificateTimeError):
            judge(replace(evidence, anchor_time_s=time_s), attached, root, policy=policy)


def handshake_with(guest: Guest, challenge: bytes) -> bytes:
    before = b"".join(
        [
            client_hello(server_name(challenge).encode()),
            server_hello(),
            ENCRYPTED_EXTENSIONS,
            certificate_message(guest.certificate),
        ]
    )
    return before + certificate_verify(guest, before)


@pytest.mark.parametrize(
    ("change", "arguments", "error"),
    [
        ({}, {"network": -218}, errors.ReportDataMismatchError),
        ({}, {"pool": KEY}, errors.ReportDataMismatchError),
        ({}, {"node_key": POOL}, errors.ReportDataMismatchError),
        ({"anchor_root_hash": bytes(32)}, {}, errors.ReportDataMismatchError),
        ({"collateral_digest": bytes(32)}, {}, errors.CollateralDigestError),
        ({"gpu_digest": bytes(32)}, {}, errors.EvidenceMalformedError),
        ({"handshake_digest": bytes(32)}, {}, errors.EvidenceMalformedError),
        ({"anchor_time_s": NOW + 4000 * 86_400}, {}, errors.CertificateExpiredError),
        ({"anchor_time_s": NOW - 2 * 86_400}, {}, errors.CertificateNotYetValidError),
        ({"quote": b""}, {}, errors.QuoteTruncatedError),
        ({}, {"network": -239}, errors.RootRefusedError),
        ({}, {"network": -3}, errors.RootRefusedError),
        ({}, {"root": INTEL_ROOT}, errors.CollateralChainRootError),
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
    evidence, attached = await evidence_of(platform)
    with pytest.raises(error):
        judge(replace(evidence, **change), attached, **({"root": shared_root.certificate} | arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"quote": bytes(16 * 1024 + 1)},
        {"gpu_digest": bytes(31)},
        {"handshake_digest": b""},
        {"collateral_digest": b""},
        {"anchor_root_hash": bytes(31)},
        {"anchor_seqno": 1 << 32},
        {"anchor_time_s": -1},
    ],
)
def test_fields_out_of_range(change: dict[str, Any]) -> None:
    good = Evidence(
        quote=b"",
        collateral_digest=bytes(32),
        gpu_digest=None,
        handshake_digest=None,
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
        evidence = evidence_with(forge.quote(forge.signed(td_attributes=1 << 28 | 1, report_data=bound)), collateral)
        attached = Attachments(collateral=collateral)
        policy = replace(POLICY, debug_allowed=True)
        if refused:
            with pytest.raises(errors.DebugRefusedError):
                judge(evidence, attached, forge.root.der, network=network, policy=policy)
        else:
            assert judge(evidence, attached, forge.root.der, network=network, policy=policy).measurement == "software"
