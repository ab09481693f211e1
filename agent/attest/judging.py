"""The verdict of `gpupool attest verify`, as every operator of the pool reaches it: from bytes to an outcome.

What is wrong with the quote, the collateral or what GPUs report, be it malformed, is a refusal: all come from others.

1. Without a policy the outcome is authenticity and TCB status; report data that is given is held against the quote.
2. With a policy every rule is asked, so that all that is wrong shows at once; the first refusal is the verdict.
3. Where nobody said what the quote is to bind, or what the GPUs were to sign, that is not checked, and shows so.
4. GPU evidence is verified up to NVIDIA's root; that the quote binds it is the report data's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.attest.kinds import Kind, expecting
from agent.attest.policies import PolicyFile
from attestation.appraisal import Appraisal, Case, Finding, appraise, findings
from attestation.collateral import Collateral, verify_collateral
from attestation.errors import (
    AttestationError,
    ReportDataMismatchError,
    RootRefusedError,
)
from attestation.gpu import GpuEvidence, VerifiedGpu, decode_gpu_evidence, encode_gpu_evidence, verify_gpu_evidence
from attestation.gpu_chain import NVIDIA_ROOT
from attestation.gpu_report import parse_gpu_report
from attestation.quote import parse_quote
from attestation.types import Quote, VerifiedQuote
from attestation.verify import verify_quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the user gave: bytes, untrusted (`raw`, `collateral`, `gpu`, `gpu_chain`), and by what to judge them.

    With `gpu_chain` (DER, leaf first) `gpu` is a report alone.
    """

    raw: bytes
    collateral: bytes
    root: bytes
    now: int
    report_data: bytes | None = None
    gpu: bytes | None = None
    gpu_chain: tuple[bytes, ...] | None = None
    gpu_nonce: bytes | None = None
    policy: PolicyFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far it came: each is None if what goes before it failed, or was not asked for."""

    quote: Quote | None = None
    verified: VerifiedQuote | None = None
    collateral_until_s: int | None = None
    gpus: tuple[VerifiedGpu, ...] | None = None
    rules: tuple[Finding, ...] | None = None
    appraisal: Appraisal | None = None
    error: AttestationError | None = None


def judge(given: Given) -> Outcome:
    """Verify and appraise; a refusal is part of the outcome.

    Raises:
        RootRefusedError: the given root is none of Intel's form.
    """
    quote = verified = until_s = gpus = None
    try:
        with expecting(Kind.QUOTE, given.raw):
            quote = parse_quote(given.raw)
        with expecting(Kind.COLLATERAL, given.collateral):
            collateral = Collateral.from_json(given.collateral)
        verified = verify_quote(given.raw, collateral, now=given.now, root=given.root)
        until_s = min(part.not_after_s for part in verify_collateral(collateral, root=given.root).validities)
        gpus = _verify_gpus(given)
        if given.policy is None:
            _require_report_data(given, verified)
            return Outcome(quote=quote, verified=verified, collateral_until_s=until_s, gpus=gpus)
    except RootRefusedError:
        raise
    except AttestationError as error:
        return Outcome(quote=quote, verified=verified, collateral_until_s=until_s, gpus=gpus, error=error)
    case = Case(
        verified=verified,
        policy=given.policy.attestation,
        now=given.now,
        expected_report_data=given.report_data,
        gpus=gpus or (),
    )
    rules = tuple(findings(case))
    refusal = next((rule.error for rule in rules if rule.error is not None), None)
    return Outcome(
        quote=quote,
        verified=verified,
        collateral_until_s=until_s,
        gpus=gpus,
        rules=rules,
        appraisal=appraise(case) if refusal is None else None,
        error=refusal,
    )


def _verify_gpus(given: Given) -> tuple[VerifiedGpu, ...] | None:
    if given.gpu is None:
        return None
    evidence = given.gpu if given.gpu_chain is None else _evidence_of(given.gpu, given.gpu_chain)
    with expecting(Kind.GPU_EVIDENCE, evidence):
        first = decode_gpu_evidence(evidence)[0]
    nonce = given.gpu_nonce or parse_gpu_report(first.report).nonce
    return verify_gpu_evidence(evidence, nonce=nonce, root=NVIDIA_ROOT, now=given.now)


def _evidence_of(report: bytes, chain: tuple[bytes, ...]) -> bytes:
    """Evidence of a report and its certificates; drivers add the root, which evidence has not."""
    below = chain[:-1] if chain[-1] == NVIDIA_ROOT else chain
    return encode_gpu_evidence([GpuEvidence(chain=below, report=report)])


def _require_report_data(given: Given, verified: VerifiedQuote) -> None:
    if given.report_data not in (None, verified.td.report_data):
        raise ReportDataMismatchError(f"report data: {verified.td.report_data.hex()}, expected another one")
