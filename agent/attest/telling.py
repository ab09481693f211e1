"""What `gpupool attest verify` prints of an outcome: as JSON, and for people.

A rule that could not be asked, as nobody said what to hold the quote against, is told apart from one that is kept:
"NOT checked" and a mark of its own, in JSON `checked` beside `allowed`. What no signature vouches for is named so.
"""

from __future__ import annotations

from agent.attest.judging import Given, Outcome
from agent.attest.policies import PolicyFile
from agent.attest.report import section, table
from agent.attest.values import Tree, error_value, fault_words, gpu_value, moment, platform_value, quote_value, td_value
from agent.pool.values import legible
from attestation.appraisal import Finding
from attestation.roots import INTEL_ROOT
from attestation.types import VerifiedQuote

_REPORT_DATA_RULE = "report data"
_GPU_RULE = "GPUs"
_NOT_CHECKED = "NOT checked"


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
    value |= {"gpus": _gpus_value(outcome), "gpu_nonce_checked": _is_nonce_checked(given, outcome)}
    if verified is not None:
        value |= {"collateral_valid_until": moment(outcome.collateral_until_s), **_verified_value(verified)}
    elif outcome.quote is not None:
        value["td_unverified"] = td_value(outcome.quote.td)
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


def _gpus_value(outcome: Outcome) -> list[Tree] | None:
    return None if outcome.gpus is None else [gpu_value(gpu) for gpu in outcome.gpus]


def _is_nonce_checked(given: Given, outcome: Outcome) -> bool | None:
    return None if outcome.gpus is None else given.gpu_nonce is not None


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
                "seen": _seen(given, outcome, rule),
                "allowed": rule.error is None,
                "checked": _is_checked(given, outcome, rule),
                "error": None if rule.error is None else rule.error.code,
            }
            for rule in outcome.rules
        ],
    }


def _is_checked(given: Given, outcome: Outcome, rule: Finding) -> bool:
    if rule.rule == _REPORT_DATA_RULE:
        return given.report_data is not None
    return rule.rule != _GPU_RULE or _is_nonce_checked(given, outcome) is not False


def _seen(given: Given, outcome: Outcome, rule: Finding) -> str:
    if _is_checked(given, outcome, rule):
        return rule.seen
    return _NOT_CHECKED if rule.rule == _REPORT_DATA_RULE else f"{rule.seen}; nonce {_NOT_CHECKED}"


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
    gpus = _gpus_value(outcome)
    if gpus is not None:
        parts.append(section("GPUs", {"nonce": _nonce_text(given), "verified": gpus}))
    if outcome.rules is not None and given.policy is not None:
        parts.append(_rules_text(given, outcome, given.policy))
    return "\n\n".join(parts)


def _nonce_text(given: Given) -> str:
    return f"{_NOT_CHECKED}: --gpu-nonce says what it must be" if given.gpu_nonce is None else given.gpu_nonce.hex()


def _headline(given: Given, outcome: Outcome) -> str:
    root = "Intel's root" if given.root == INTEL_ROOT else "the given root, which is NOT Intel's"
    where = f"at {moment(given.now)}, up to {root}"
    verified, error = outcome.verified, outcome.error
    if error is not None:
        genuine = "" if verified is None else ", although it is authentic"
        facts = {"why": str(error), "code": error.code, "at fault": fault_words(error), "what to do": error.remedy}
        return f"REFUSED {where}{genuine}\n{table(facts)}"
    if outcome.appraisal is not None:
        return f"VERIFIED {where}, and allowed until {moment(outcome.appraisal.valid_until_s)}"
    status = "" if verified is None else f", TCB status {_status(verified)}"
    return f"AUTHENTIC {where}{status}; no --policy: nothing says that it is allowed"


def _status(verified: VerifiedQuote) -> str:
    count = len(verified.advisories)
    return verified.status.value + (f" ({count} {'advisory' if count == 1 else 'advisories'})" if count else "")


def _rules_text(given: Given, outcome: Outcome, policy: PolicyFile) -> str:
    hash_text = "" if policy.pool is None else f", hash {policy.pool.hash.hex()}"
    lines = [f"policy {legible(str(policy.path))}{hash_text}"]
    for rule in outcome.rules or ():
        kept = "ok     " if _is_checked(given, outcome, rule) else "?      "
        mark = kept if rule.error is None else "REFUSED"
        lines.append(f"  {mark}  {rule.rule:20}  {legible(_seen(given, outcome, rule))}")
        if rule.error is not None:
            lines.append(f"           {legible(str(rule.error))}")
    if outcome.appraisal is not None:
        lines.append(f'  allowed as "{legible(outcome.appraisal.measurement)}"')
    return "\n".join(lines)
