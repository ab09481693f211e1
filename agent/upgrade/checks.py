"""What stands against going over to the installed version now, and what has to be known.

Decides by facts alone, each check by itself. A check whose facts are unknown says so, and stands against nothing: who
has no agent running has nothing to lose by a restart. Only what this host itself has to start with must be known: its
settings, with the files that they name, and its journal. Rules:

1. A problem is what the restart would break: the journal, this node's part in the pool, or the pool's quorum.
2. Operators go over one at a time: the others must be more than two thirds of the weight without this one.
3. Versions are held against those that the *installed* program has; the one that runs is about to go.

Pure. Source: docs/upgrading.md, ADR 0038.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.doctor.facts import Maybe, NotKnownError, Unknown, known
from agent.doctor.findings import Finding, FindingClass, Severity
from agent.upgrade.facts import Facts, JournalFacts, OperatorForm, ProposalForm, RunningFacts, VersionsForm

_HEX_SHOWN = 16
_NOT_RUNNING = "agent-not-running"
Check = Callable[[Facts], Iterable[Finding]]


def assess(facts: Facts) -> list[Finding]:
    """Every finding, in the order in which somebody upgrades."""
    if isinstance(facts.running, Unknown):
        finding = _finding(_NOT_RUNNING, Severity.UNKNOWN, f"what the pool does is not known: {facts.running.reason}")
        return [finding, *_made(facts, OF_THE_HOST)]
    return _made(facts, CHECKS)


def not_made(findings: Iterable[Finding]) -> list[str]:
    """The codes of the checks that could not be made, of what `assess` found."""
    unknown = {finding.code for finding in findings if finding.severity is Severity.UNKNOWN}
    if _NOT_RUNNING in unknown:
        unknown |= CHECKS.keys() - OF_THE_HOST.keys()
    return [code for code in CHECKS if code in unknown]


def missing_of_host(findings: Iterable[Finding]) -> Finding | None:
    """What has to be known before nothing can be said to stand against a restart, and is not; None: all of it is."""
    return next((each for each in findings if each.severity is Severity.UNKNOWN and each.code in OF_THE_HOST), None)


def _made(facts: Facts, checks: Mapping[str, Check]) -> list[Finding]:
    found: list[Finding] = []
    for code, check in checks.items():
        try:
            found += check(facts)
        except NotKnownError as error:
            found.append(_finding(code, Severity.UNKNOWN, str(error)))
    return found


def check_program(facts: Facts) -> Iterable[Finding]:
    """Is the installed version the one that runs?"""
    runs = known(_running(facts).agent).version
    if runs == facts.installed:
        yield _finding("version-differs", Severity.OK, f"{runs} is installed and runs")
    else:
        cause = f"{facts.installed} is installed, {runs} runs"
        yield _finding(
            "version-differs", Severity.NOTE, cause, "restart the agent once nothing below stands against it"
        )


def check_settings(facts: Facts) -> Iterable[Finding]:
    """Can the installed version start with these settings, and with the files that they name?"""
    if not facts.unusable:
        yield _finding("settings-unusable", Severity.OK, "the settings, and the files that they name, can be used")
    for each in facts.unusable:
        yield _finding("settings-unusable", Severity.PROBLEM, each.cause, each.fix)


def check_journal(facts: Facts) -> Iterable[Finding]:
    """Can the installed version read the journal, or bring it to its schema?"""
    journal: JournalFacts = known(facts.journal)
    ran = f", last used by {journal.written_by}" if journal.written_by else ""
    cause = f"the journal is of schema {journal.schema}{ran}; the installed version has {facts.schema}"
    if journal.schema == facts.schema:
        yield _finding("journal-schema", Severity.OK, cause)
    elif journal.schema > facts.schema:
        yield _finding("journal-schema", Severity.PROBLEM, cause, "install the newer version: this one cannot read it")
    elif journal.free_bytes < journal.needed_bytes:
        fix = f"make room: {journal.needed_bytes - journal.free_bytes} bytes are missing for a copy and the new one"
        yield _finding("journal-schema", Severity.PROBLEM, cause, fix)
    else:
        yield _finding(
            "journal-schema", Severity.NOTE, f"{cause}: it is brought there at the start, and a copy is kept"
        )


def check_protocol(facts: Facts) -> Iterable[Finding]:
    """Do the other operators speak with the installed version?"""
    return _apart(facts, "protocol", facts.protocols, lambda operator: operator.protocols)


def check_tally(facts: Facts) -> Iterable[Finding]:
    """Do the other operators come to the same totals as the installed version?"""
    return _apart(facts, "tally", facts.tallies, lambda operator: operator.tallies)


def check_quorum(facts: Facts) -> Iterable[Finding]:
    """Are the others enough while this one restarts (rule 2)?"""
    reach, own = known(_running(facts).reach), known(_running(facts).agent).node_key
    operators = _versions(facts).operators
    mine = sum(operator.weight for operator in operators if operator.node_key == own)
    rest = reach.weight - mine
    said = f"operators with {rest} of {reach.total_weight} of the weight are connected besides this node"
    if not mine:
        yield _finding("quorum-without", Severity.OK, "this node is no operator: the pool settles while it restarts")
    elif 3 * rest > 2 * reach.total_weight:
        yield _finding("quorum-without", Severity.OK, f"{said}: they settle while it restarts")
    elif 3 * (reach.total_weight - mine) <= 2 * reach.total_weight:
        fix = "restart quickly, between two epochs' ends: whatever you do, the others are too few while it is down"
        yield _finding("quorum-without", Severity.WARNING, f"{said}, of more than two thirds that are needed", fix)
    else:
        fix = "wait until the others are back; operators upgrade one at a time"
        yield _finding("quorum-without", Severity.PROBLEM, f"{said}, of more than two thirds that are needed", fix)


def check_key(facts: Facts) -> Iterable[Finding]:
    """Does another host use the node key?"""
    rival = _versions(facts).key_in_use
    if rival is None:
        yield _finding("key-in-use-elsewhere", Severity.OK, "no other host uses this node key")
    else:
        fix = "stop the other agent first: if this one goes down, that one may begin to sign"
        yield _finding("key-in-use-elsewhere", Severity.PROBLEM, rival.text, fix)


def check_contracts(facts: Facts) -> Iterable[Finding]:
    """Does the installed version work with the contracts as they are, and as they will be?"""
    proposals = [each for each in known(_running(facts).pool).proposals if each.kind == "propose_upgrade"]
    if not proposals:
        yield _finding("contract-upgrade", Severity.OK, "no change of the contracts' code is under way")
    for each in proposals:
        yield _contract_finding(facts, each)


def check_policies(facts: Facts) -> Iterable[Finding]:
    """Is every policy held that epochs are counted by, now or soon?"""
    missing = [each for each in known(_running(facts).policies) if not each.is_held]
    if not missing:
        yield _finding("policy-missing", Severity.OK, "every policy that is needed is held")
    for each in missing:
        since = "once it is agreed on" if each.epoch is None else f"from epoch {each.epoch} on"
        cause = f"the policy {each.hash[:_HEX_SHOWN]}, by which epochs are counted {since}, is not held"
        fix = "get the document from the pool, and name it as pool.next_policy_file before you restart"
        yield _finding("policy-missing", Severity.WARNING, cause, fix)


OF_THE_HOST: dict[str, Check] = {"settings-unusable": check_settings, "journal-schema": check_journal}
"""What is asked of this host's files alone."""
CHECKS: dict[str, Check] = {
    "version-differs": check_program,
    **OF_THE_HOST,
    "key-in-use-elsewhere": check_key,
    "quorum-without": check_quorum,
    "protocol-apart": check_protocol,
    "tally-apart": check_tally,
    "contract-upgrade": check_contracts,
    "policy-missing": check_policies,
}
"""By the code of what they find."""


def _apart(
    facts: Facts, what: str, ours: Sequence[int], theirs_of: Callable[[OperatorForm], Sequence[int] | None]
) -> Iterable[Finding]:
    operators = _versions(facts).operators
    own = known(_running(facts).agent).node_key
    total = sum(operator.weight for operator in operators)
    others = [(operator, theirs_of(operator)) for operator in operators if operator.node_key != own]
    silent = sum(operator.weight for operator, theirs in others if theirs is None)
    apart = [(operator, theirs) for operator, theirs in others if theirs is not None and set(theirs).isdisjoint(ours)]
    weight = sum(operator.weight for operator, _ in apart)
    mine = f"the installed version has {what} {_list(ours)}"
    untold = f"; of {silent} of {total} of the weight it is not known" if silent else ""
    if not weight:
        yield _finding(f"{what}-apart", Severity.OK, f"{mine}, and so have the other operators{untold}")
        return
    theirs = sorted({version for _, versions in apart for version in versions})
    cause = f"{mine}; operators with {weight} of {total} of the weight have {what} {_list(theirs)} alone{untold}"
    if 3 * weight < total:
        yield _finding(f"{what}-apart", Severity.WARNING, cause, "epochs settle without them; they have to upgrade")
    elif max(theirs) > max(ours):
        yield _finding(f"{what}-apart", Severity.PROBLEM, cause, "install a newer version")
    else:
        fix = f"wait until more operators are of a version with {what} {_list(ours)}: see docs/upgrading.md"
        yield _finding(f"{what}-apart", Severity.PROBLEM, cause, fix)


def _contract_finding(facts: Facts, proposal: ProposalForm) -> Finding:
    wait_s = max(0, proposal.ready_s - facts.now_s)
    when = f"in {wait_s // 3600} h or later" if wait_s else "at any time now"
    cause = f"the pool is about to change the code of its {proposal.target} to {proposal.hash[:_HEX_SHOWN]}, {when}"
    if facts.codes.get(proposal.target or "") == proposal.hash:
        fix = "restart only after it is applied: the installed version reads the new code and not the one before"
        return _finding("contract-upgrade", Severity.PROBLEM, f"{cause}, which the installed version knows", fix)
    fix = "have a version at hand that knows it: from that moment this one cannot read the pool"
    return _finding("contract-upgrade", Severity.WARNING, f"{cause}, which the installed version does not know", fix)


def _running(facts: Facts) -> RunningFacts:
    return known(facts.running)


def _versions(facts: Facts) -> VersionsForm:
    versions: Maybe[VersionsForm] = _running(facts).versions
    return known(versions)


def _list(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions))


def _finding(code: str, severity: Severity, cause: str, fix: str = "") -> Finding:
    return Finding(code=code, severity=severity, clazz=FindingClass.HOST, cause=cause, fix=fix)
