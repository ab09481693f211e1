"""The diagnosis in single cases: what comes before what, how bad it is, and whatever an agent tells of itself."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract_states import pinned
from doctor_facts import (
    ERROR,
    NOW_S,
    SETTLED,
    asking_receipts,
    counting,
    evidence,
    healthy,
    heard,
    own,
    peer,
    policies,
    pool_facts,
    rewards,
    rift,
    source,
    state,
    status_tree,
    told,
    with_daemon,
    worker,
)
from pool_fixture import EPOCH_S, key, operator_set, participant, policy
from rich.console import Console

from agent.doctor.diagnosis import CHECKS, diagnose, exit_code, first_problem, verdict
from agent.doctor.facts import DaemonState, Facts, Unknown, WorkerFacts
from agent.doctor.findings import Finding, FindingClass, Severity
from agent.doctor.status_form import read_status
from agent.errors import DENIED
from agent.watch_view import Frame, watch_view
from contracts.model import NANO
from gossip.policy import PoolPolicy


def test_the_first_cause_comes_before_what_follows_from_it() -> None:
    """An agent that cannot start for a damaged journal is down because of it."""
    down = with_daemon(DaemonState.DOWN, "refused")
    facts = replace(down, journal=replace(healthy().journal, damage="a row"))
    assert [each.code for each in heard(facts)][:2] == ["journal-damaged", "agent-down"]
    assert exit_code(diagnose(facts)) == FindingClass.HOST


@pytest.mark.parametrize(
    "facts", [healthy(), with_daemon(DaemonState.DOWN, "refused"), told(evidence=evidence(valid=False, error=ERROR))]
)
def test_a_log_that_is_dead_comes_before_what_follows_from_it(facts: Facts) -> None:
    dead = replace(facts, journal=replace(healthy().journal, settled=replace(SETTLED, is_dead=True)))
    assert heard(dead)[0].code == "log-dead"
    assert exit_code(diagnose(dead)) == FindingClass.SETTLEMENT


def test_whoever_reaches_nobody_has_no_evidence_for_that() -> None:
    """An agent proves its host only once others told it how far they know its log."""
    away = [peer(i, connected=False, dial_errors=["timed out"]) for i in (1, 2, 3)]
    closed = told(
        is_own_log_known=False,
        evidence=evidence(valid=False),
        peers=away,
        reach={"weight": 1, "total_weight": 4},
    )
    problems = [each.code for each in diagnose(closed) if each.severity is Severity.PROBLEM]
    assert problems == ["alone", "reach-short", "log-unknown", "evidence-missing"]
    assert exit_code(diagnose(closed)) == FindingClass.NETWORK


def test_another_node_at_the_port_is_told_without_the_chain() -> None:
    away = Unknown("the chain is not reached")
    foreign = told(node_key=key(1).public.hex(), evidence=evidence(valid=False))
    facts = replace(foreign, chain=replace(healthy().chain, error="refused"), pool=away, pool_absent=away)
    problem = first_problem(diagnose(facts))
    assert problem is not None
    assert problem.code == "agent-foreign"


def test_the_first_of_two_agents_with_one_key_earns_on() -> None:
    facts = told(versions={"rifts": [], "key_in_use": {"text": "heard from 10.0.0.7"}})
    (found,) = heard(facts)
    assert (found.code, found.severity) == ("key-in-use-elsewhere", Severity.WARNING)
    assert exit_code(diagnose(facts)) == 0


@pytest.mark.parametrize(
    ("changes", "severity"),
    [({}, Severity.NOTE), ({"stops": True}, Severity.PROBLEM)],
)
def test_operators_of_another_version_are_a_problem_once_nothing_settles_with_this_agent(
    changes: dict[str, bool], severity: Severity
) -> None:
    (found,) = heard(rift("protocol", **changes))
    assert (found.code, found.severity) == ("peers-other-version", severity)


@pytest.mark.parametrize(("changed_ago_s", "severity"), [(5, Severity.WARNING), (200_000, Severity.UNKNOWN)])
def test_liteservers_that_only_newer_settings_name_are_tried_before_a_restart(
    changed_ago_s: int, severity: Severity
) -> None:
    away = Unknown("the chain is not reached")
    facts = replace(healthy(), chain=replace(healthy().chain, error="refused"), pool=away, pool_absent=away)
    facts = replace(facts, settings=replace(facts.settings, changed_s=NOW_S - changed_ago_s))
    assert only(facts, "chain-unreachable").severity is severity


def test_sources_of_newer_settings_are_named_before_a_restart() -> None:
    late = replace(healthy().settings, changed_s=NOW_S - 5)
    (found,) = heard(replace(healthy(), settings=late, untried=("engine 0: refused",)))
    assert found.cause == "the settings were written after the agent started; with them: engine 0: refused"


def test_liteservers_that_conflict_are_the_cause_while_the_agent_is_off_the_chain() -> None:
    facts = replace(told(chain={"error": "no pool"}), chain=replace(healthy().chain, conflict="two blocks 7"))
    problem = first_problem(diagnose(facts))
    assert problem is not None
    assert problem.code == "liteservers-conflict"


@pytest.mark.parametrize("source_name", ["engine", "cocoon"])
def test_an_uplink_costs_everything_only_where_its_worker_is_all_that_counts(source_name: str) -> None:
    sources = [source("engine"), source("cocoon", gauges={"proxies_connected": 0.0})]
    facts = replace(told(sources=sources), policies=policies(counting(source_name)))
    expected = Severity.PROBLEM if source_name == "cocoon" else Severity.WARNING
    assert only(facts, "uplink-down").severity is expected


@pytest.mark.parametrize(("at_s", "is_told"), [(NOW_S - 3599, True), (NOW_S - 3601, False), (NOW_S + 5, False)])
def test_a_step_back_is_told_for_an_hour(at_s: int, is_told: bool) -> None:
    found = heard(told(clock_step_back={"by_s": 9, "at_s": at_s}))
    assert [each.code for each in found] == (["clock-stepped-back"] if is_told else [])


OLD_S = NOW_S - 301


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([source(), source(instance=1, error="refused")], {"source-failing": Severity.WARNING}),
        ([source(), source(instance=1, sampled_s=OLD_S)], {"source-silent": Severity.WARNING}),
        ([source(error="x"), source(instance=1, error="x")], {"source-failing": Severity.PROBLEM}),
        (
            [source(error="x"), source(instance=1, sampled_s=None)],
            {"source-failing": Severity.PROBLEM, "source-silent": Severity.PROBLEM},
        ),
        (
            [source(), source(instance=1, error="x"), source(instance=2, sampled_s=OLD_S)],
            {"source-failing": Severity.WARNING, "source-silent": Severity.WARNING},
        ),
    ],
)
def test_a_source_that_fails_is_a_problem_once_none_is_left(
    sources: list[dict[str, Any]], found: dict[str, Severity]
) -> None:
    assert {each.code: each.severity for each in heard(told(sources=sources))} == found


@pytest.mark.parametrize("what", ["image", "model"])
@pytest.mark.parametrize(
    ("listed", "severity", "words"),
    [
        ((True, False), Severity.WARNING, "of worker 1 is not in"),
        ((False, False), Severity.PROBLEM, "of worker 0, worker 1 is not in"),
        ((None, False), Severity.WARNING, "of worker 1 is not in"),
        ((True, None), Severity.UNKNOWN, "not checked: worker 1: whether the"),
        ((), Severity.NOT_APPLICABLE, "no Cocoon worker is configured"),
    ],
)
def test_a_worker_that_nobody_takes_is_a_problem_once_none_is_left(
    what: str, listed: tuple[bool | None, ...], severity: Severity, words: str
) -> None:
    fine = WorkerFacts(name="", is_image_listed=True, is_model_listed=True, exposed=(), guest=None)
    workers = [replace(fine, name=f"worker {i}", **{f"is_{what}_listed": each}) for i, each in enumerate(listed)]
    (found,) = (each for each in diagnose(replace(healthy(), workers=tuple(workers))) if each.code == f"cocoon-{what}")
    assert found.severity is severity
    assert words in found.cause


def test_a_control_port_that_was_not_tried_is_unknown() -> None:
    (found,) = (each for each in diagnose(worker(exposed=Unknown("not tried"))) if each.code == "control-port-public")
    assert (found.severity, found.cause) == (Severity.UNKNOWN, "not checked: not tried")


def test_a_missing_prover_is_the_cause_once_no_evidence_is_in_force() -> None:
    facts = replace(
        told(evidence=evidence(valid=False, error=ERROR)), host=replace(healthy().host, prover="no interface")
    )
    assert [each.code for each in heard(facts)][:2] == ["prover-away", "evidence-missing"]
    assert exit_code(diagnose(facts)) == FindingClass.HOST


FIRST_S = 2 * EPOCH_S + policy().work.window_max_s
"""So long an agent may take to its first part: an idle host's first window is the longest."""


@pytest.mark.parametrize(("uptime_s", "severity"), [(FIRST_S - 1, Severity.NOTE), (FIRST_S, Severity.PROBLEM)])
def test_an_agent_that_has_just_started_has_no_part_yet_without_being_broken(uptime_s: int, severity: Severity) -> None:
    facts = replace(told(uptime_s=uptime_s, own=None), journal=replace(healthy().journal, settled=SETTLED))
    assert [(each.code, each.severity) for each in heard(facts)] == [("no-part", severity)]


def test_a_host_that_was_registered_moments_ago_has_no_part_yet_without_being_broken() -> None:
    own = pool_facts().time_s - EPOCH_S
    facts = replace(
        told(own=None),
        journal=replace(healthy().journal, settled=SETTLED),
        pool=pool_facts(entry=replace(participant(0), joined_s=own)),
    )
    assert [(each.code, each.severity) for each in heard(facts)] == [("no-part", Severity.NOTE)]


def test_a_chain_that_only_this_command_cannot_reach_is_no_problem() -> None:
    away = Unknown("the chain is not reached")
    facts = replace(healthy(), chain=replace(healthy().chain, error="refused"), pool=away, pool_absent=away)
    assert first_problem(diagnose(facts)) is None


def test_a_participant_without_operators_rights_needs_only_the_fee_of_a_claim() -> None:
    elsewhere = state(operator_set=operator_set(3, first=1))
    poor = replace(healthy(), pool=pool_facts(state=elsewhere, wallet_nanoton=NANO // 100))
    (found,) = (each for each in diagnose(poor) if each.code == "wallet-low")
    assert found.severity is Severity.NOTE
    assert "too little to claim" in found.cause


@pytest.mark.parametrize(("metered", "credited"), [(0, 0), (None, 900), (900, 901)])
def test_nothing_less_is_credited_than_was_measured(metered: int | None, credited: int) -> None:
    assert heard(told(own=own(tokens=credited, metered_tokens=metered))) == []


def only(facts: Facts, code: str) -> Finding:
    (found,) = (each for each in diagnose(facts) if each.code == code)
    return found


@pytest.mark.parametrize("daemon", [DaemonState.DOWN, DaemonState.UP])
def test_a_policy_of_another_pool_comes_before_the_agent_that_cannot_start(daemon: DaemonState) -> None:
    world = with_daemon(daemon, "refused") if daemon is DaemonState.DOWN else healthy()
    late = replace(world.settings, changed_s=NOW_S - 5)
    facts = replace(world, settings=late, pool=pool_facts(rewards=rewards(running=pinned(1, b"\x33" * 32))))
    follows = "agent-down" if daemon is DaemonState.DOWN else "agent-before-settings"
    first, second = heard(facts)[:2]
    assert [first.code, second.code] == ["policy-missing", follows]
    assert second.fix.startswith("mend what stands above")
    assert exit_code(diagnose(facts)) == FindingClass.CHAIN


@pytest.mark.parametrize(("text", "severity"), [(policy(), Severity.WARNING), (asking_receipts(), Severity.PROBLEM)])
def test_a_receipts_port_that_is_taken_costs_what_receipts_are_worth(text: PoolPolicy, severity: Severity) -> None:
    down = with_daemon(DaemonState.DOWN, "refused")
    facts = replace(down, host=replace(healthy().host, receipts_port="in use"), policies=policies(text))
    first, second = heard(facts)[:2]
    assert (first.code, first.severity, second.code) == ("receipts-port-taken", severity, "agent-down")
    assert only(healthy(), "receipts-port-taken").severity is Severity.NOT_APPLICABLE


@pytest.mark.parametrize("name", ["node_key", "wallet_key"])
def test_a_key_that_others_can_read_does_not_stop_the_agent_that_runs(name: str) -> None:
    closed = {name: "mode 0644", "closed_keys": {name: "/etc/my keys/a.key"}}
    settings = replace(healthy().settings, **closed)
    runs = heard(replace(healthy(), settings=settings))[0]
    down = heard(replace(with_daemon(DaemonState.DOWN, "refused"), settings=settings))[0]
    assert (runs.severity, down.severity) == (Severity.WARNING, Severity.PROBLEM)
    assert runs.fix == down.fix == "chmod 600 '/etc/my keys/a.key'"
    assert "earns on; it will not start again, and you cannot claim" in runs.cause
    broken = replace(healthy().settings, **{name: "missing"})
    assert heard(replace(healthy(), settings=broken))[0].severity is Severity.PROBLEM


def test_who_has_a_share_without_tokens_earns_for_uptime_alone() -> None:
    facts = told(own=own(tokens=0, reasons=["no receipts cover it"]))
    found = only(facts, "credited-less")
    assert found.severity is Severity.PROBLEM
    assert "epoch 1 credited 0 of 900 metered tokens: no receipts cover it" in found.cause
    said = verdict(facts, diagnose(facts))
    assert (said.earns, said.text) == (True, "you earn for uptime alone: 0 of 900 tokens credited")
    assert "receipts" not in found.fix
    other = replace(facts, daemon=replace(facts.daemon, ready="not today"))
    assert verdict(other, diagnose(other)).text.startswith("you do not earn")


def test_who_has_neither_share_nor_tokens_does_not_earn() -> None:
    facts = told(own=own(tokens=0, score=0))
    assert only(facts, "credited-less").severity is Severity.PROBLEM
    assert verdict(facts, diagnose(facts)).text == "you do not earn: epoch 1 credited 0 of 900 metered tokens"


@pytest.mark.parametrize(
    ("reasons", "is_told"),
    [([], True), (["no receipts cover it"], True), (["no GPU that the policy has a rate for"], False)],
)
def test_where_receipts_are_the_ceiling_the_fix_names_them(reasons: list[str], is_told: bool) -> None:
    facts = replace(told(own=own(tokens=0, reasons=reasons)), policies=policies(asking_receipts()))
    words = "no receipts came: see the gateway, `receipts.port`, docs/metering.md"
    assert (only(facts, "credited-less").fix == words) is is_told


@pytest.mark.parametrize(("wanted", "words"), [("engine", "an engine source"), ("cocoon", "a cocoon source")])
def test_a_source_that_is_absent_is_named(wanted: str, words: str) -> None:
    text = replace(policy(), work=msgspec.structs.replace(policy().work, source=wanted))
    facts = replace(told(sources=[source("nvml")]), policies=policies(text))
    assert only(facts, "source-absent").fix == f"configure {words}"


def numbers(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where the whole numbers of a tree stand."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield from numbers(each, *path, name)


WHOLE = status_tree(close={"epoch": 2, "view": 0, "operators": 4, "observations": 2, "total_weight": 4})


@pytest.mark.parametrize("path", list(numbers(WHOLE)), ids=str)
@pytest.mark.parametrize("wrong", [-1, -(10**400), 2**63, 10**400])
def test_a_number_that_is_none_of_an_agents_breaks_nothing(path: tuple[str | int, ...], wrong: int) -> None:
    tree = copy.deepcopy(WHOLE)
    *folders, name = path
    place: Any = tree
    for folder in folders:
        place = place[folder]
    place[name] = wrong
    status = read_status(tree)
    facts = replace(healthy(), daemon=replace(healthy().daemon, status=status), sources=status.sources)
    findings = diagnose(facts)
    assert [each.code for each in findings] == [check.code for check in CHECKS]
    frame = Frame(status=status, away=None, seen_ago_s=0, findings=findings, now_s=NOW_S)
    Console(file=io.StringIO()).print(watch_view(frame))


@pytest.mark.parametrize(
    "tree",
    [
        {"node_key": "ab"},
        dict.fromkeys(status_tree()),
        dict.fromkeys(status_tree(), 7),
        {name: [[]] for name in status_tree()},
        {**status_tree(), "sources": [{"gauges": "many"}], "peers": {"a": 1}, "close": {"epoch": -1, "view": "x"}},
        {**status_tree(), "close": {"epoch": 1, "total_weight": 0}, "reach": {"weight": 0, "total_weight": 0}},
    ],
)
def test_whatever_an_agent_tells_there_is_a_diagnosis(tree: dict[str, Any]) -> None:
    facts = replace(healthy(), daemon=replace(healthy().daemon, status=read_status(tree)))
    assert [each.code for each in diagnose(facts)] == [check.code for check in CHECKS]


def test_a_key_of_another_user_is_no_fault_while_the_agent_runs() -> None:
    settings = replace(healthy().settings, node_key=DENIED, denied_keys=frozenset({"node_key"}))
    runs = only(replace(healthy(), settings=settings), "node-key-unusable")
    assert (runs.severity, "run with sudo" in runs.cause) == (Severity.UNKNOWN, True)
    down = only(replace(with_daemon(DaemonState.DOWN, "refused"), settings=settings), "node-key-unusable")
    assert (down.severity, "run the command with sudo" in down.cause) == (Severity.PROBLEM, True)


def test_a_wallet_that_is_registered_with_another_node_key_is_not_sent_to_register() -> None:
    facts = replace(healthy(), pool=pool_facts(entry=None, wallets_node_key=key(7).public))
    found = only(facts, "not-registered")
    assert f"this wallet is, with the node key {key(7).public.hex()[:16]}" in found.cause
    assert "register" not in found.fix
    unfinished = only(replace(facts, pool=pool_facts(entry=None, is_next_registered=True)), "not-registered")
    assert unfinished.severity is Severity.NOT_APPLICABLE


def test_who_is_no_operator_hears_of_it_only_on_asking() -> None:
    facts = replace(healthy(), pool=pool_facts(state=state(operator_set=operator_set(3, first=1))))
    found = only(facts, "not-operator")
    assert (found.severity, found.fix) == (Severity.OK, "")
    assert "no operator" in found.cause
    assert heard(facts) == []


def test_an_agent_that_is_down_for_nothing_else_is_started() -> None:
    (found,) = heard(with_daemon(DaemonState.DOWN, "refused"))
    assert found.fix == (
        "start it: sudo systemctl start gpupool-agent; why it ended its log says: journalctl -u gpupool-agent"
    )


def test_what_helps_names_the_settings_that_were_looked_at() -> None:
    facts = replace(healthy(), pool=pool_facts(entry=None), config_file=Path("/srv/two/agent.toml"))
    assert only(facts, "not-registered").fix == "gpupool pool register --config /srv/two/agent.toml"
