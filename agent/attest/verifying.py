"""`gpupool attest verify`: the verdict on a quote, from files, as every operator of the pool reaches it.

Exit codes: 0 the quote is authentic (and the policy allows it, with `--policy`); 1 it is refused; 2 wrong usage.
What is wrong with the quote or the collateral, be it malformed, is a refusal: both come from others.

1. Without `--policy` the answer is authenticity and TCB status; `--report-data` is held against the quote.
2. With a policy every rule is asked, so that all that is wrong shows at once; the first refusal is the verdict.
3. Without `--report-data` the first rule says "not checked": nobody said what the quote is to bind.
4. GPU evidence is verified up to NVIDIA's root; that the quote binds it is the report data's to say.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from agent.attest.inputs import (
    QUOTE_FILE_BYTES_MAX,
    REPORT_DATA_BYTES,
    parse_hex,
    parse_time,
    read_binary,
    read_bytes,
    read_root,
)
from agent.attest.policies import PolicyFile, read_policy_file
from agent.attest.report import section, table
from agent.attest.values import Tree, error_value, moment, platform_value, quote_value, td_value
from agent.errors import ConfigError
from agent.output import EXIT_FAILED, answer
from agent.pool.values import legible
from attestation.appraisal import Appraisal, Case, Finding, appraise, findings
from attestation.collateral import COLLATERAL_BYTES_MAX, Collateral, verify_collateral
from attestation.errors import AttestationError, ReportDataMismatchError, RootRefusedError
from attestation.gpu import GPU_EVIDENCE_BYTES_MAX, VerifiedGpu, decode_gpu_evidence, verify_gpu_evidence
from attestation.gpu_chain import NVIDIA_ROOT
from attestation.gpu_report import NONCE_BYTES, parse_gpu_report
from attestation.quote import parse_quote
from attestation.roots import INTEL_ROOT
from attestation.types import Quote, VerifiedQuote
from attestation.verify import verify_quote

_GPU_FILE_BYTES_MAX = 3 * GPU_EVIDENCE_BYTES_MAX
"""In hex, with line ends."""
_REPORT_DATA_RULE = "report data"
_NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the user gave: bytes, untrusted (`raw`, `collateral`, `gpu`), and by what to judge them."""

    raw: bytes
    collateral: bytes
    root: bytes
    now: int
    report_data: bytes | None = None
    gpu: bytes | None = None
    gpu_nonce: bytes | None = None
    policy: PolicyFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far it came: each is None if what goes before it failed, or was not asked for."""

    quote: Quote | None = None
    verified: VerifiedQuote | None = None
    collateral_until_s: int | None = None
    rules: tuple[Finding, ...] | None = None
    appraisal: Appraisal | None = None
    error: AttestationError | None = None


def verify(options: argparse.Namespace) -> int:
    """Verify a quote, and appraise it if there is a policy."""
    given = Given(
        raw=read_binary(options.quote, QUOTE_FILE_BYTES_MAX),
        collateral=read_bytes(options.collateral, COLLATERAL_BYTES_MAX),
        root=read_root(options.root),
        now=parse_time(options.at),
        report_data=parse_hex("--report-data", options.report_data, REPORT_DATA_BYTES),
        gpu=None if options.gpu is None else read_binary(options.gpu, _GPU_FILE_BYTES_MAX),
        gpu_nonce=parse_hex("--gpu-nonce", options.gpu_nonce, NONCE_BYTES),
        policy=None if options.policy is None else read_policy_file(options.policy),
    )
    try:
        outcome = judge(given)
    except RootRefusedError as error:
        raise ConfigError(f"--root {options.root}: {error}") from error
    answer(options, outcome_value(given, outcome), outcome_text(given, outcome))
    return 0 if outcome.error is None else EXIT_FAILED


def judge(given: Given) -> Outcome:
    """Verify and appraise; a refusal is part of the outcome.

    Raises:
        RootRefusedError: the given root is none of Intel's form.
    """
    quote = verified = until_s = None
    try:
        quote = parse_quote(given.raw)
        collateral = Collateral.from_json(given.collateral)
        verified = verify_quote(given.raw, collateral, now=given.now, root=given.root)
        until_s = min(part.not_after_s for part in verify_collateral(collateral, root=given.root).validities)
        gpus = _verify_gpus(given)
        if given.policy is None:
            _require_report_data(given, verified)
            return Outcome(quote=quote, verified=verified, collateral_until_s=until_s)
    except RootRefusedError:
        raise
    except AttestationError as error:
        return Outcome(quote=quote, verified=verified, collateral_until_s=until_s, error=error)
    case = Case(
        verified=verified,
        policy=given.policy.attestation,
        now=given.now,
        expected_report_data=given.report_data,
        gpus=gpus,
    )
    rules = tuple(findings(case))
    refusal = next((rule.error for rule in rules if rule.error is not None), None)
    appraisal = appraise(case) if refusal is None else None
    return Outcome(
        quote=quote, verified=verified, collateral_until_s=until_s, rules=rules, appraisal=appraisal, error=refusal
    )


def _verify_gpus(given: Given) -> tuple[VerifiedGpu, ...]:
    if given.gpu is None:
        return ()
    nonce = given.gpu_nonce or parse_gpu_report(decode_gpu_evidence(given.gpu)[0].report).nonce
    return verify_gpu_evidence(given.gpu, nonce=nonce, root=NVIDIA_ROOT, now=given.now)


def _require_report_data(given: Given, verified: VerifiedQuote) -> None:
    if given.report_data not in (None, verified.td.report_data):
        raise ReportDataMismatchError(f"report data: {verified.td.report_data.hex()}, expected another one")


def outcome_value(given: Given, outcome: Outcome) -> Tree:
    """The outcome as JSON: the first five keys are a contract, the others may become more."""
    verified, error = outcome.verified, outcome.error
    value: Tree = {
        "status": None if verified is None else verified.status.value,
        "error": None if error is None else error.code,
        "advisories": [] if verified is None else list(verified.advisories),
        "tcb_date": None if verified is None else moment(verified.tcb_date_s),
        "appraisal": _appraisal_value(given, outcome),
    }
    refusal = {"fault": None, "message": None, "remedy": None} if error is None else error_value(error)
    value |= {name: refusal[name] for name in ("fault", "message", "remedy")}
    value |= {"time": moment(given.now), "is_intel_root": given.root == INTEL_ROOT}
    if verified is not None:
        value |= {"collateral_valid_until": moment(outcome.collateral_until_s), **_verified_value(verified)}
    elif outcome.quote is not None:
        value["td"] = td_value(outcome.quote.td)
    return value


def _verified_value(verified: VerifiedQuote) -> Tree:
    return {
        "quote_version": verified.quote_version,
        "signed_digest": verified.signed_digest.hex(),
        "collateral_digest": verified.collateral_digest.hex(),
        "tcb_info_evaluation": verified.tcb_evaluation,
        "qe_identity_evaluation": verified.qe_evaluation,
        "platform": platform_value(verified.platform),
        "td": td_value(verified.td),
    }


def _appraisal_value(given: Given, outcome: Outcome) -> Tree | None:
    if outcome.rules is None:
        return None
    appraisal, error = outcome.appraisal, outcome.error
    return {
        "allowed": appraisal is not None,
        "measurement": None if appraisal is None else appraisal.measurement,
        "error": None if error is None else error.code,
        "valid_until": None if appraisal is None else moment(appraisal.valid_until_s),
        "rules": [
            {
                "rule": rule.rule,
                "seen": _seen(given, rule),
                "allowed": rule.error is None,
                "error": None if rule.error is None else rule.error.code,
            }
            for rule in outcome.rules
        ],
    }


def _seen(given: Given, rule: Finding) -> str:
    return _NOT_CHECKED if given.report_data is None and rule.rule == _REPORT_DATA_RULE else rule.seen


def outcome_text(given: Given, outcome: Outcome) -> str:
    """The outcome for people: the verdict first, then what it rests on, at last the policy rule by rule."""
    parts = [_headline(given, outcome)]
    verified = outcome.verified
    if verified is not None:
        parts.append(
            section(
                "TCB",
                {
                    "status": verified.status.value,
                    "advisories": list(verified.advisories),
                    "tcb_date": moment(verified.tcb_date_s),
                    "evaluation": f"TCB info {verified.tcb_evaluation}, QE identity {verified.qe_evaluation}",
                    "collateral": verified.collateral_digest.hex(),
                    "usable until": moment(outcome.collateral_until_s),
                },
            )
        )
    if outcome.quote is not None:
        name = "quote" if verified is not None else "quote (nothing of it is verified)"
        parts.append(section(name, quote_value(given.raw, outcome.quote)))
    if outcome.rules is not None and given.policy is not None:
        parts.append(_rules_text(given, outcome, given.policy))
    return "\n\n".join(parts)


def _headline(given: Given, outcome: Outcome) -> str:
    root = "Intel's root" if given.root == INTEL_ROOT else "the given root, which is NOT Intel's"
    where = f"at {moment(given.now)}, up to {root}"
    error = outcome.error
    if error is None:
        allowed = "" if outcome.appraisal is None else f", and allowed until {moment(outcome.appraisal.valid_until_s)}"
        return f"VERIFIED {where}{allowed}"
    genuine = "" if outcome.verified is None else ", although it is authentic"
    facts = {"why": str(error), "code": error.code, "at fault": error.fault, "what to do": error.remedy}
    return f"REFUSED {where}{genuine}\n{table(facts)}"


def _rules_text(given: Given, outcome: Outcome, policy: PolicyFile) -> str:
    hash_text = "" if policy.pool is None else f", hash {policy.pool.hash.hex()}"
    lines = [f"policy {legible(str(policy.path))}{hash_text}"]
    for rule in outcome.rules or ():
        mark = "ok     " if rule.error is None else "REFUSED"
        lines.append(f"  {mark}  {rule.rule:20}  {legible(_seen(given, rule))}")
        if rule.error is not None:
            lines.append(f"           {legible(str(rule.error))}")
    if outcome.appraisal is not None:
        lines.append(f'  allowed as "{legible(outcome.appraisal.measurement)}"')
    return "\n".join(lines)
