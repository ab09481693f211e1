"""What each fault looks like to the doctor, consequences included: the cause is named before what follows from it.

The facts are those that real agents gave while the faults were there (`python -m tests.faults`), cut down to what
differs from a healthy agent's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from contract_states import pinned
from doctor_facts import (
    ERROR,
    NOW_S,
    evidence,
    healthy,
    held_by,
    of_contract,
    own,
    peer,
    pool_facts,
    rewards,
    source,
    stalled,
    told,
    with_daemon,
    worker,
)
from pool_fixture import participant

from agent.doctor.diagnosis import diagnose, exit_code
from agent.doctor.facts import DaemonState, Facts, Holder, Unknown
from agent.doctor.findings import Finding, Severity
from contracts.model import NANO, ParticipantStatus
from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault

NO_CHAIN = Unknown("the chain is not reached")
OFF = [peer(i, connected=False, dial_errors=["timed out"]) for i in (1, 2, 3)]
EXPOSED = ("its control port answers on 10.77.0.1",)


def not_ready(facts: Facts, reason: str) -> Facts:
    """The agent itself says that its work does not count."""
    return replace(facts, daemon=replace(facts.daemon, ready=reason))


def down(**parts: dict[str, Any]) -> Facts:
    """The agent has ended; groups of facts are otherwise besides."""
    facts = with_daemon(DaemonState.DOWN, "refused")
    return replace(facts, **{part: replace(getattr(facts, part), **changes) for part, changes in parts.items()})


def of_pool(facts: Facts, **changes: Any) -> Facts:
    """The pool, or this node in it, is otherwise."""
    return replace(facts, pool=pool_facts(**changes))


def entry(**changes: Any) -> Facts:
    return not_ready(of_pool(healthy(), entry=replace(participant(0), **changes)), "it earns nothing")


def off_chain(facts: Facts, error: str) -> Facts:
    chain = replace(healthy().chain, error=error, clock_ahead_s=NO_CHAIN)
    return replace(facts, chain=chain, pool=NO_CHAIN, pool_absent=NO_CHAIN)


def with_cocoon(facts: Facts, **gauges: float) -> Facts:
    """The pool counts by worker contracts, and its worker says so much of itself."""
    base = of_contract(participant(0).address, worker=None, worker_tokens=5)
    told_of = told(sources=[source("cocoon", gauges=gauges, notes=["it is connected to no proxy"])])
    return replace(told_of, policies=base.policies, pool=base.pool, workers=facts.workers)


WRONG_CLOCK = told(
    chain={"error": None, "clock": "this host's clock is behind", "age_s": -300},
    evidence=evidence(error=ERROR),
    clock_step_back={"by_s": 300, "at_s": NOW_S - 2},
)
SUSPECT = {"rifts": [], "key_in_use": {"text": "another agent runs with this node key"}}

FACTS: dict[str, Facts] = {
    "wrong clock": not_ready(replace(WRONG_CLOCK, chain=replace(healthy().chain, clock_ahead_s=-300)), "the clock"),
    "clock step back": told(clock_step_back={"by_s": 50, "at_s": NOW_S - 2}, own=own(tokens=600)),
    "engine down": not_ready(told(sources=[source(error="refused"), source("nvml")]), "engine: refused"),
    "engine reset": told(sources=[source(restarts=1, restarted_s=NOW_S - 2)]),
    "GPU lost": told(sources=[source(), source("nvml", gauges={"gpus_lost": 1.0}, notes=["GPU 1: lost (15)"])]),
    "memory limit": told(memory={"used_bytes": 95, "limit_bytes": 100, "limited_by": "RLIMIT_AS"}),
    "empty wallet": of_pool(healthy(), wallet_nanoton=NANO // 50),
    "collateral stale": told(evidence=evidence(collateral_error={"message": "the certificate is not trusted"})),
    "evidence expired": not_ready(told(evidence=evidence(valid=False, error=ERROR, own=None)), "no evidence in force"),
    "chain down": not_ready(off_chain(told(chain={"error": "refused"}), "refused"), "the chain: refused"),
    "liteserver lying": not_ready(
        replace(
            told(chain={"error": "no pool stands there"}, evidence=evidence(valid=False), reach={}, peers=[]),
            chain=replace(healthy().chain, conflict="two blocks 7"),
        ),
        "waiting for the chain",
    ),
    "wrong key permissions": down(
        settings={"node_key": "mode 0644", "closed_keys": {"node_key": "/a/node.key"}},
        journal={"unusable": Unknown("the node key cannot be used")},
    ),
    "port taken": replace(
        with_daemon(DaemonState.STRANGER, "what answers is not an agent"), host=replace(healthy().host, web_port=None)
    ),
    "database locked": held_by(Holder(pid=7, command="python3 -c ...", is_agent=False)),
    "database corrupt": down(journal={"damage": "record 7 is not what was written", "settled": Unknown("damaged")}),
    "full disk": down(host={"free_bytes": 0}, journal={"damage": Unknown("not examined")}),
    "policy mismatch": of_pool(down(), rewards=rewards(running=pinned(1, b"\x33" * 32))),
    "wrong pool": replace(
        down(journal={"foreign": "belongs to another pool", "unusable": Unknown("it is of another agent")}),
        pool=Unknown("there is no pool at the address"),
        pool_absent="no pool stands there",
    ),
    "old version": told(version="0.0.9"),
    "firewall one-way": not_ready(told(peers=OFF, reach={"weight": 1, "total_weight": 4}), "waiting for operators"),
    "no peers": told(peers=OFF, reach={"weight": 1, "total_weight": 4}, settled={"epoch": 2, "adopted_epoch": 1}),
    "quorum unreachable": told(peers=[peer(1), *OFF[1:]], reach={"weight": 2, "total_weight": 4}),
    "peers behind": stalled(observations=2),
    "unregistered": not_ready(of_pool(told(evidence=evidence(valid=False)), entry=None), "not registered"),
    "no stake": entry(status=ParticipantStatus.INACTIVE, held_nanoton=NANO, held_until_s=NOW_S),
    "suspended": entry(status=ParticipantStatus.SUSPENDED),
    "duplicate key": told(versions=SUSPECT),
    "worker contract unset": of_contract(None),
    "uplink down": with_cocoon(healthy(), proxies_connected=0.0),
    "public control port": worker(exposed=EXPOSED),
}


def first(facts: Facts) -> Finding:
    """The first problem; without one the first warning; without one the first note."""
    findings = diagnose(facts)
    found = [[each for each in findings if each.severity is severity] for severity in _WORST_FIRST]
    return next(each[0] for each in found if each)


_WORST_FIRST = (Severity.PROBLEM, Severity.WARNING, Severity.NOTE)


def test_every_fault_has_its_facts() -> None:
    assert set(FACTS) == {fault.name for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_cause_is_named_before_what_follows(fault: Fault) -> None:
    found = first(FACTS[fault.name])
    assert (found.code, found.severity) == (fault.code, fault.severity)
    assert found.fix
    assert bool(exit_code(diagnose(FACTS[fault.name]))) is (fault.severity is Severity.PROBLEM)
