"""Evidence: a quote as a participant publishes it, with the anchor and the collateral that it names.

`appraise_evidence` is the verdict that the tally consumes. It must be the same on every node and at any
later time, so it never looks at a clock: the time of verification is the anchor's.

Rules
1. The collateral is the one that the evidence names, by digest.
2. The report data binds network, pool, node key, anchor and GPU report (`attestation.binding`).
3. A public network takes Intel's root only, and no debuggable TD, whatever the policy says.
4. Valid from the anchor's time on, for the policy's maximum age.

Elsewhere: that (seqno, root hash, time) is a block of the masterchain. Only the chain knows; the caller
must have checked it before, on a proven block header.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from attestation.binding import NO_GPU_EVIDENCE, report_data
from attestation.collateral import Collateral
from attestation.errors import CollateralMismatchError, EvidenceMalformedError
from attestation.policy import AttestationPolicy, appraise
from attestation.roots import PUBLIC_NETWORKS, require_root_allowed
from attestation.types import QUOTE_BYTES_MAX, Appraisal
from attestation.verify import Verifier

GPU_REPORT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a participant publishes; every field is untrusted.

    `quote` at most 16 KiB, `gpu_report` at most 64 KiB or None, `collateral_digest` and `anchor_root_hash`
    32 bytes, `anchor_seqno` uint32, `anchor_time_s` Unix seconds (uint32).
    """

    quote: bytes
    gpu_report: bytes | None
    collateral_digest: bytes
    anchor_seqno: int
    anchor_root_hash: bytes
    anchor_time_s: int

    def __post_init__(self) -> None:
        if len(self.quote) > QUOTE_BYTES_MAX or len(self.gpu_report or b"") > GPU_REPORT_BYTES_MAX:
            raise EvidenceMalformedError("evidence: quote or GPU report is too long")
        if len(self.collateral_digest) != 32 or len(self.anchor_root_hash) != 32:
            raise EvidenceMalformedError("evidence: a digest is not 32 bytes")
        if not (0 <= self.anchor_seqno < 1 << 32 and 0 <= self.anchor_time_s < 1 << 32):
            raise EvidenceMalformedError("evidence: anchor seqno or time is not a uint32")

    @property
    def gpu_digest(self) -> bytes:
        """SHA-256 of the GPU report, 32 zero bytes without one: what the report data binds."""
        return NO_GPU_EVIDENCE if self.gpu_report is None else hashlib.sha256(self.gpu_report).digest()


def appraise_evidence(
    evidence: Evidence,
    collateral: Collateral,
    policy: AttestationPolicy,
    *,
    network: int,
    pool: bytes,
    node_key: bytes,
    root: bytes | Verifier,
) -> Appraisal:
    """Give the verdict on `evidence`: from when to when it is valid, or the error that says why never.

    `network` is the TON global id, `pool` the 32-byte account hash, `node_key` the 32-byte key whose record
    carried the evidence. `root` is the DER root certificate, or a `Verifier` made for it (same verdict,
    faster). Deterministic; reads no clock.

    Raises:
        AttestationError: see `verify_quote` and `appraise`; besides `CollateralMismatchError` for another
            collateral than the named one, `RootRefusedError` for a private root on a public network.
    """
    verifier = Verifier(root) if isinstance(root, bytes) else root
    require_root_allowed(network, verifier.root)
    if collateral.digest != evidence.collateral_digest:
        raise CollateralMismatchError(f"evidence: names collateral {evidence.collateral_digest.hex()[:16]}...")
    expected = report_data(network, pool, node_key, evidence.anchor_root_hash, evidence.gpu_digest)
    if network in PUBLIC_NETWORKS:
        policy = replace(policy, debug_allowed=False)
    verified = verifier.verify_quote(evidence.quote, collateral, now=evidence.anchor_time_s)
    return appraise(verified, policy, expected_report_data=expected, now=evidence.anchor_time_s)
