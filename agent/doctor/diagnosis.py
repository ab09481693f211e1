"""The diagnosis: all checks in the order in which one thing keeps the next from working, and what follows from them.

Pure. Decides nothing about the host: the facts are collected elsewhere (`agent.doctor.collecting`).

1. Every check is made, whatever the ones before found; what lacks a fact is unknown and says why.
2. The first problem is the cause: it decides the verdict and the exit code.
3. A code never changes its meaning: scripts and docs/troubleshooting.md are keyed by it.

Source: METERING, "Why am I not earning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.doctor import checks_chain, checks_host, checks_peers, checks_pool, checks_work
from agent.doctor.checks import ABOVE
from agent.doctor.facts import Facts, NotKnownError, known
from agent.doctor.findings import Finding, Severity, stands_above
from agent.invoking import spelled

CHECKS = (
    *checks_host.CHECKS,
    *checks_chain.CHECKS,
    *checks_peers.CHECKS,
    *checks_work.CHECKS,
    *checks_pool.CHECKS,
)


def diagnose(facts: Facts) -> list[Finding]:
    """The outcome of every check, first cause first; commands can be copied (`agent.invoking`)."""
    findings: list[Finding] = []
    for check in CHECKS:
        found = check.make(facts)
        is_first = not any(stands_above(each, found) for each in findings)
        fix = found.fix.removeprefix(ABOVE) if is_first else found.fix
        cause, fix = (spelled(text, facts.config_file) for text in (found.cause, fix))
        findings.append(replace(found, cause=cause, fix=fix))
    return findings


def first_problem(findings: Sequence[Finding]) -> Finding | None:
    """Why this node earns nothing, if so."""
    return next((each for each in findings if each.severity is Severity.PROBLEM), None)


def exit_code(findings: Sequence[Finding]) -> int:
    """0, or the class of the first problem."""
    problem = first_problem(findings)
    return 0 if problem is None else int(problem.clazz)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether this node earns, in one line; `earns` None: that is not known yet."""

    earns: bool | None
    text: str


def verdict(facts: Facts, findings: Sequence[Finding]) -> Verdict:
    """What follows from the findings."""
    problem = first_problem(findings)
    if problem is not None:
        uptime_alone = _uptime_alone(facts, findings)
        if uptime_alone is not None:
            return uptime_alone
        cause, _, _ = problem.cause.partition(". ")
        return Verdict(False, f"you do not earn: {cause}")
    try:
        known(facts.daemon)
        if known(known(facts.journal).settled) is None:
            return _NOT_YET
        settled, leaf = facts.settled()
    except NotKnownError as error:
        return Verdict(None, f"nothing is found that keeps you from earning, but not all could be looked at: {error}")
    if leaf is None or not leaf.score or not settled.total_score:
        return _NOT_YET
    share = 100 * leaf.score / settled.total_score
    return Verdict(True, f"you earn: epoch {settled.epoch} credited {leaf.tokens:,} tokens, a share of {share:.1f} %")


def _uptime_alone(facts: Facts, findings: Sequence[Finding]) -> Verdict | None:
    """What is said of a node that has a share, though none of its tokens is credited, and no other problem."""
    if any(each.severity is Severity.PROBLEM and each.code != "credited-less" for each in findings):
        return None
    own = known(facts.status().own)
    if own is None or not own.score:
        return None
    return Verdict(True, f"you earn for uptime alone: 0 of {own.metered_tokens:,} tokens credited")


_NOT_YET = Verdict(None, "nothing keeps you from earning; no epoch has been settled with your work yet")
