"""Checks of the own work: the evidence that makes it count, the sources that count it, the Cocoon worker behind it."""

from __future__ import annotations

from agent.doctor.checks import Check, Trouble, tried
from agent.doctor.facts import DoesNotApplyError, Facts, NotKnownError, Unknown, WorkerFacts, known
from agent.doctor.findings import FindingClass, Severity
from agent.doctor.status_form import EvidenceForm, SourceForm

SILENT_AFTER_S = 300
"""A source that was not read for so long."""
RESTART_SHOWN_S = 3600
IDLE_AFTER_S = 600
NOTES_SHOWN = 4
_UPLINKS = "proxies_connected"

_EVIDENCE, _SOURCES, _CHAIN = FindingClass.EVIDENCE, FindingClass.SOURCES, FindingClass.CHAIN
_PROBLEM, _WARNING, _NOTE = Severity.PROBLEM, Severity.WARNING, Severity.NOTE


def _refused(facts: Facts) -> Trouble | None:
    evidence = _evidence(facts)
    own = evidence.own
    if own is None or own.valid or own.error is None:
        return None
    return Trouble(
        f"this host's evidence is refused ({own.error.code or 'refused'}): {own.error.message}",
        own.error.remedy or "change what the host runs, or have the operators agree on a policy that allows it",
        _WARNING if evidence.valid else None,
    )


def _missing(facts: Facts) -> Trouble | None:
    evidence, up_s = _evidence(facts), known(facts.status().agent).uptime_s
    if evidence.valid:
        return None
    if evidence.error is None:
        cause = f"no evidence is in force; the agent is up for {up_s} s"
        return Trouble(cause, "wait if it has just started; else see its log")
    cause = f"no evidence is in force, none can be made: {evidence.error.message}"
    return Trouble(cause, evidence.error.remedy or "see the agent's log")


def _failing(facts: Facts) -> Trouble | None:
    evidence = _evidence(facts)
    if not evidence.valid or evidence.error is None:
        return None
    left_s = max(0, (evidence.valid_until_s or 0) - facts.now_s)
    cause = f"evidence runs out in {left_s} s, no new one can be made: {evidence.error.message}"
    return Trouble(cause, evidence.error.remedy or "see the agent's log")


def _collateral(facts: Facts) -> Trouble | None:
    error = _evidence(facts).collateral_error
    if error is None:
        return None
    fix = error.remedy or "check network and firewall towards Intel's service, or name a PCCS"
    return Trouble(f"collateral is not renewed: {error.message}", fix)


def _place(facts: Facts) -> Trouble | None:
    evidence = _evidence(facts)
    if evidence.place_taken_by is None:
        return None
    holder = evidence.place_taken_by[:16]
    if evidence.is_gpu_taken:
        cause = f"{holder} holds the place on a GPU that this host proves; one node alone earns with a GPU"
        return Trouble(cause, "give each GPU to one agent; this one is free when the other's evidence has run out")
    cause = f"{holder} holds the place on this machine; the pool lets only so many nodes earn on one"
    return Trouble(cause, "run one agent on each machine; the other's place is free when its evidence has run out")


def _evidence(facts: Facts) -> EvidenceForm:
    return known(facts.status().evidence)


def _image(facts: Facts) -> Trouble | None:
    told = {worker.name: worker.is_image_listed for worker in _workers(facts)}
    return _unlisted(told, "image", "update the worker: no proxy takes this one")


def _model(facts: Facts) -> Trouble | None:
    told = {worker.name: worker.is_model_listed for worker in _workers(facts)}
    return _unlisted(told, "model", "serve a model that is listed: no proxy asks for this one")


def _unlisted(told: dict[str, bool | None], what: str, fix: str) -> Trouble | None:
    unlisted = [name for name, is_listed in told.items() if is_listed is False]
    if unlisted:
        cause = f"the {what} of {', '.join(unlisted)} is not in Cocoon's root contract"
        return Trouble(cause, fix, None if len(unlisted) == len(told) else _WARNING)
    untold = [name for name, is_listed in told.items() if is_listed is None]
    if untold:
        raise NotKnownError(f"{', '.join(untold)}: whether the {what} stands in Cocoon's root contract is not told")
    return None


def _workers(facts: Facts) -> tuple[WorkerFacts, ...]:
    workers = known(facts.workers)
    if not workers:
        raise DoesNotApplyError("no Cocoon worker is configured")
    return workers


def _source_absent(facts: Facts) -> Trouble | None:
    wanted, sources = facts.policy().work.source, known(facts.sources)
    if any(source.source == wanted for source in sources):
        return None
    names = ", ".join(sorted({source.source for source in sources})) or "none"
    cause = f"the pool counts what `{wanted}` reports; this agent reads: {names}"
    return Trouble(cause, f"configure {'an' if wanted == 'engine' else 'a'} {wanted} source")


def _source_failing(facts: Facts) -> Trouble | None:
    failing = [source for source in _credited(facts) if source.error]
    fix = "start it, or mend its address in the settings; what it counts meanwhile is a gap"
    return _failures(failing, fix, _unless_all_fail(facts))


def _source_silent(facts: Facts) -> Trouble | None:
    silent = [f"{source.name} was read {_ago(facts, source)}" for source in _silent(facts)]
    if not silent:
        return None
    return Trouble("; ".join(silent), "restart the agent; report it with its log", _unless_all_fail(facts))


def _silent(facts: Facts) -> list[SourceForm]:
    """The credited sources that answered, but not of late."""
    silent = [
        source
        for source in _credited(facts)
        if not source.error and (source.sampled_s is None or facts.now_s - source.sampled_s > SILENT_AFTER_S)
    ]
    return silent if silent and known(facts.status().agent).uptime_s > SILENT_AFTER_S else []


def _unless_all_fail(facts: Facts) -> Severity | None:
    """A warning while one of the credited sources is read: its work still earns."""
    credited = _credited(facts)
    failing = sum(bool(source.error) for source in credited) + len(_silent(facts))
    return None if failing == len(credited) else _WARNING


def _ago(facts: Facts, source: SourceForm) -> str:
    return "never" if source.sampled_s is None else f"{facts.now_s - source.sampled_s} s ago"


def _restarted(facts: Facts) -> Trouble | None:
    fresh = [
        f"{each.name} began to count anew {facts.now_s - each.restarted_s} s ago ({each.restarts} times in all)"
        for each in _credited(facts)
        if each.restarted_s is not None and 0 <= facts.now_s - each.restarted_s <= RESTART_SHOWN_S
    ]
    if not fresh:
        return None
    fix = "nothing, if you restarted it: only what it did after the last reading is lost; else see its log"
    return Trouble("; ".join(fresh), fix)


def _uplink(facts: Facts) -> Trouble | None:
    told = [each for each in known(facts.sources) if each.source == "cocoon" and _UPLINKS in each.gauges]
    if not told:
        raise DoesNotApplyError("no Cocoon worker tells of its uplinks")
    cut = [each for each in told if not each.gauges[_UPLINKS]]
    if not cut:
        return None
    is_all = len(cut) == len(_credited(facts)) and facts.policy().work.source == "cocoon"
    return Trouble(
        f"{', '.join(each.name for each in cut)}: connected to no proxy, so nobody sends it requests",
        "see the guest's network and its router (docs/cocoon.md)",
        None if is_all else _WARNING,
    )


def _gpu_lost(facts: Facts) -> Trouble | None:
    losers = [each for each in known(facts.sources) if each.gauges.get("gpus_lost")]
    if not losers:
        return None
    notes = [f"{each.name}: {note}" for each in losers for note in each.notes if "lost" in note]
    return Trouble(
        "; ".join(notes[:NOTES_SHOWN]) or "a GPU is lost", "reset the GPU, or restart the host; docs/gpus.md"
    )


def _other_failing(facts: Facts) -> Trouble | None:
    wanted = facts.policy().work.source
    failing = [source for source in known(facts.sources) if source.source != wanted and source.error]
    return _failures(failing, "mend it, or take it out of the settings; it counts nothing by itself")


def _failures(failing: list[SourceForm], fix: str, severity: Severity | None = None) -> Trouble | None:
    if not failing:
        return None
    return Trouble("; ".join(f"{each.name}: {each.error or ''}" for each in failing), fix, severity)


def _credited(facts: Facts) -> list[SourceForm]:
    """The sources whose figures count."""
    wanted = facts.policy().work.source
    return [source for source in known(facts.sources) if source.source == wanted]


def _control_port(facts: Facts) -> Trouble | None:
    found = {worker.name: worker.exposed for worker in _workers(facts)}
    exposed = [f"{name}: {line}" for name, lines in found.items() if not isinstance(lines, Unknown) for line in lines]
    if exposed:
        return Trouble("; ".join(exposed), "forward that port to loopback only")
    for lines in found.values():
        known(lines)
    return None


def _guest(facts: Facts) -> Trouble | None:
    trials = {worker.name: worker.guest for worker in _workers(facts)}
    wrong = [f"the guest of {name}: {trial}" for name, trial in trials.items() if isinstance(trial, str)]
    if wrong:
        return Trouble("; ".join(wrong), "look at that service's log in the guest; start the worker again")
    for trial in trials.values():
        known(trial)
    return None


def _notes(facts: Facts) -> Trouble | None:
    notes = [f"{each.name}: {note}" for each in known(facts.sources) for note in each.notes]
    if not notes:
        return None
    more = f"; and {len(notes) - NOTES_SHOWN} more, see gpupool status" if len(notes) > NOTES_SHOWN else ""
    return Trouble("; ".join(notes[:NOTES_SHOWN]) + more, "docs/gpus.md and docs/cocoon.md say what each means")


def _idle(facts: Facts) -> Trouble | None:
    status = facts.status()
    up_s = known(status.agent).uptime_s
    if known(status.work).tokens or up_s < IDLE_AFTER_S:
        return None
    return Trouble(f"nothing was counted since the agent started, {up_s} s ago", "see that clients send requests here")


def _worker_unset(facts: Facts) -> Trouble | None:
    _require_contract_pool(facts)
    entry = known(known(facts.pool).entry)
    if entry is None:
        raise DoesNotApplyError("this node key is not registered")
    if entry.worker is not None:
        return None
    cause = "the pool credits what the chain paid a Cocoon worker, and the own entry names no worker contract"
    return Trouble(cause, "register with --worker ADDRESS")


def _worker_refused(facts: Facts) -> Trouble | None:
    _require_contract_pool(facts)
    return tried(known(facts.pool).worker, "name the contract of the own worker with one of the policy's proxies")


def _worker_unpaid(facts: Facts) -> Trouble | None:
    _require_contract_pool(facts)
    if known(known(facts.pool).worker_tokens):
        return None
    return Trouble("no proxy has signed for any token of the worker yet", "see the worker's uplink to its proxies")


def _require_contract_pool(facts: Facts) -> None:
    """Raise `DoesNotApplyError` in a pool that asks for no worker contract."""
    if facts.policy().receipts.ceiling != "worker-contract":
        raise DoesNotApplyError("this pool does not count by worker contracts")


CHECKS = tuple(
    Check(code=code, clazz=clazz, severity=severity, fine=fine, look=look)
    for code, clazz, severity, fine, look in (
        ("evidence-refused", _EVIDENCE, _PROBLEM, "this host's evidence is accepted", _refused),
        ("evidence-missing", _EVIDENCE, _PROBLEM, "evidence is in force", _missing),
        ("evidence-failing", _EVIDENCE, _WARNING, "evidence is renewed", _failing),
        ("machine-taken", _EVIDENCE, _PROBLEM, "this node has a place on its machine", _place),
        ("collateral-stale", _EVIDENCE, _WARNING, "collateral is renewed", _collateral),
        ("cocoon-image", _EVIDENCE, _PROBLEM, "the guest's image stands in Cocoon's root contract", _image),
        ("cocoon-model", _EVIDENCE, _PROBLEM, "the guest's model stands in Cocoon's root contract", _model),
        ("source-absent", _SOURCES, _PROBLEM, "a source of the kind that the pool counts is read", _source_absent),
        ("source-failing", _SOURCES, _PROBLEM, "the source that counts answers", _source_failing),
        ("source-silent", _SOURCES, _PROBLEM, "the source that counts is read", _source_silent),
        ("source-restarted", _SOURCES, _NOTE, "the source that counts did not begin anew of late", _restarted),
        ("uplink-down", _SOURCES, _PROBLEM, "the Cocoon worker is connected to a proxy", _uplink),
        ("gpu-lost", _SOURCES, _WARNING, "no GPU is lost", _gpu_lost),
        ("other-source-failing", _SOURCES, _WARNING, "the other sources answer", _other_failing),
        ("control-port-public", _SOURCES, _WARNING, "the worker's control port is not public", _control_port),
        ("guest-failing", _SOURCES, _WARNING, "all services of the guest run", _guest),
        ("source-notes", _SOURCES, _NOTE, "the sources have nothing to say", _notes),
        ("idle", _SOURCES, _NOTE, "work is counted", _idle),
        ("worker-unset", _CHAIN, _PROBLEM, "the worker contract is named", _worker_unset),
        ("worker-refused", _CHAIN, _PROBLEM, "the worker contract counts", _worker_refused),
        ("worker-unpaid", _CHAIN, _PROBLEM, "the worker contract was paid", _worker_unpaid),
    )
)
