"""Evidence: a quote as a participant publishes it, with the anchor and with what it names by digest.

`appraise_evidence` is the verdict that the tally consumes. It must be the same on every node and at any
later time, so it never looks at a clock: the time of verification is the anchor's.

Rules
1. Collateral, GPU evidence and handshake are those that the evidence names, by SHA-256.
2. The challenge binds network, pool, node key, anchor and GPU evidence (`attestation.binding`). It is the
   quote's report data; or a handshake with the guest of the quote is over it (`attestation.handshake`), at a
   time at which the guest's certificate holds.
3. GPUs answer a nonce over node key and anchor (`attestation.gpu`).
4. A public network takes the roots of Intel and NVIDIA only, and no debuggable TD, whatever the policy says.
5. Valid from the anchor's time on, for the policy's maximum age.

Elsewhere: that (seqno, root hash, time) is a block of the masterchain. Only the chain knows; the caller
must have checked it before, on a proven block header.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from attestation.appraisal import Appraisal, Case, appraise
from attestation.binding import NO_GPU_EVIDENCE, report_data
from attestation.collateral import Collateral
from attestation.errors import (
    CollateralDigestError,
    EvidenceMalformedError,
    GuestCertificateTimeError,
    GuestReportDataError,
)
from attestation.gpu import VerifiedGpu, gpu_nonce, verify_gpu_evidence
from attestation.gpu_chain import NVIDIA_ROOT, require_gpu_root_allowed
from attestation.handshake import verify_handshake
from attestation.policy import AttestationPolicy
from attestation.roots import PUBLIC_NETWORKS, require_root_allowed
from attestation.types import QUOTE_BYTES_MAX
from attestation.verify import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a participant publishes; every field is untrusted.

    `quote` at most 16 KiB; `collateral_digest`, `gpu_digest` and `handshake_digest` SHA-256 (the latter two
    None without), `anchor_root_hash` 32 bytes, `anchor_seqno` uint32, `anchor_time_s` Unix seconds (uint32).
    """

    quote: bytes
    collateral_digest: bytes
    gpu_digest: bytes | None
    handshake_digest: bytes | None
    anchor_seqno: int
    anchor_root_hash: bytes
    anchor_time_s: int

    def __post_init__(self) -> None:
        if len(self.quote) > QUOTE_BYTES_MAX:
            raise EvidenceMalformedError("evidence: the quote is too long")
        digests = (self.collateral_digest, self.gpu_digest, self.handshake_digest, self.anchor_root_hash)
        if any(digest is not None and len(digest) != 32 for digest in digests):
            raise EvidenceMalformedError("evidence: a digest is not 32 bytes")
        if not (0 <= self.anchor_seqno < 1 << 32 and 0 <= self.anchor_time_s < 1 << 32):
            raise EvidenceMalformedError("evidence: anchor seqno or time is not a uint32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What evidence names by digest: unverified collateral, GPU evidence (`gpu`) and handshake, None without."""

    collateral: Collateral
    gpu: bytes | None = None
    handshake: bytes | None = None


def appraise_evidence(
    evidence: Evidence,
    attachments: Attachments,
    policy: AttestationPolicy,
    *,
    network: int,
    pool: bytes,
    node_key: bytes,
    root: bytes | Verifier,
    gpu_root: bytes = NVIDIA_ROOT,
) -> Appraisal:
    """Give the verdict on `evidence`: from when to when it is valid, or the error that says why never.

    `network` is the TON global id, `pool` the 32-byte account hash, `node_key` the 32-byte key whose record
    carried the evidence. `root` is the DER root certificate, or a `Verifier` made for it (same verdict,
    faster); `gpu_root` that of the GPUs. Deterministic; reads no clock.

    Raises:
        AttestationError: see `verify_quote`, `verify_handshake`, `verify_gpu_evidence` and `appraise`; besides
            `CollateralDigestError` and `EvidenceMalformedError` for other attachments than the named ones,
            `RootRefusedError` for a private root on a public network.
    """
    verifier = Verifier(root) if isinstance(root, bytes) else root
    require_root_allowed(network, verifier.root)
    require_gpu_root_allowed(network, gpu_root)
    _require_named(evidence, attachments)
    anchor_hash, now = evidence.anchor_root_hash, evidence.anchor_time_s
    challenge = report_data(network, pool, node_key, anchor_hash, evidence.gpu_digest or NO_GPU_EVIDENCE)
    if network in PUBLIC_NETWORKS:
        policy = replace(policy, debug_allowed=False)
    gpus: tuple[VerifiedGpu, ...] = ()
    if attachments.gpu is not None:
        gpus = verify_gpu_evidence(attachments.gpu, nonce=gpu_nonce(node_key, anchor_hash), root=gpu_root, now=now)
    expected = challenge
    if attachments.handshake is not None:
        expected = _vouched_report_data(evidence, attachments.handshake, challenge)
    case = Case(
        verified=verifier.verify_quote(evidence.quote, attachments.collateral, now=now),
        policy=policy,
        now=now,
        expected_report_data=expected,
        by_handshake=attachments.handshake is not None,
        gpus=gpus,
    )
    return appraise(case)


def _vouched_report_data(evidence: Evidence, handshake: bytes, challenge: bytes) -> bytes:
    """What the quote of a guest that was talked to for `challenge` must bind: its TLS key."""
    guest = verify_handshake(handshake, challenge)
    if guest.quote != evidence.quote:
        raise GuestReportDataError("handshake: with a guest of another quote than the evidence's")
    if not guest.not_before_s <= evidence.anchor_time_s <= guest.not_after_s:
        raise GuestCertificateTimeError(
            f"guest certificate: valid {guest.not_before_s} to {guest.not_after_s}, anchor {evidence.anchor_time_s}"
        )
    return hashlib.sha512(guest.claims).digest()


def _require_named(evidence: Evidence, attachments: Attachments) -> None:
    if attachments.collateral.digest != evidence.collateral_digest:
        raise CollateralDigestError(f"evidence: names collateral {evidence.collateral_digest.hex()[:16]}...")
    for what, named, given in (
        ("GPU evidence", evidence.gpu_digest, attachments.gpu),
        ("handshake", evidence.handshake_digest, attachments.handshake),
    ):
        if named != (None if given is None else hashlib.sha256(given).digest()):
            raise EvidenceMalformedError(f"evidence: names another {what}")
