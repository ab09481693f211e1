"""The diagnosis: a table with a world for each code in which that finding comes first, and one in which nothing is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract_states import pinned
from doctor_facts import (
    ERROR,
    NOW_S,
    PASSED_BY,
    POLICY_FILE,
    SETTLED,
    asking_receipts,
    changed,
    counting,
    evidence,
    healthy,
    heard,
    held_by,
    of_contract,
    of_entry,
    own,
    peer,
    policies,
    rewards,
    rift,
    source,
    stalled,
    state,
    stopped_for,
    told,
    with_daemon,
    worker,
)
from pool_fixture import key, policy

from agent.doctor.diagnosis import CHECKS, diagnose, exit_code, first_problem, verdict
from agent.doctor.facts import DaemonState, Facts, Holder, ServerFacts, Unknown
from agent.doctor.findings import FindingClass, Severity
from contracts.model import NANO, Address, ParticipantStatus, PoolStatus

GUIDE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
OTHER_POLICY = b"\x33" * 32


WORKER = Address(0, b"w" * 32)
REFUSAL = {"code": "debug_refused", "message": "a debug guest", "remedy": "start it without debug"}

UNASKED = {"not-operator"}
"""Codes that nobody hears of without --all."""

# code -> facts in which that finding is the first, the severity, and words of its cause
WORLDS: dict[str, tuple[Facts, Severity, str]] = {
    "config-unusable": (changed("settings", config="agent.toml: no"), Severity.PROBLEM, "agent.toml: no"),
    "node-key-unusable": (changed("settings", node_key="mode 0644"), Severity.PROBLEM, "mode 0644"),
    "wallet-key-unusable": (changed("settings", wallet_key="missing"), Severity.PROBLEM, "missing"),
    "policy-file-unusable": (changed("settings", policy="no TOML"), Severity.PROBLEM, "no TOML"),
    "liteserver-list-unusable": (changed("settings", servers="too long"), Severity.PROBLEM, "too long"),
    "proof-files-unusable": (changed("settings", proof="no root"), Severity.PROBLEM, "no root"),
    "data-folder-unusable": (changed("host", data_dir="missing"), Severity.PROBLEM, "missing"),
    "disk-full": (changed("host", free_bytes=5 << 20), Severity.PROBLEM, "5 MiB are left"),
    "journal-missing": (changed("journal", missing="none there"), Severity.PROBLEM, "none there"),
    "journal-foreign": (changed("journal", foreign="of another pool"), Severity.PROBLEM, "of another pool"),
    "journal-unusable": (changed("journal", unusable="of another key"), Severity.PROBLEM, "of another key"),
    "journal-damaged": (changed("journal", damage="a row"), Severity.PROBLEM, "a row"),
    "key-in-use-elsewhere": (stopped_for("heard from 10.0.0.7"), Severity.PROBLEM, "the agent stopped: heard from"),
    "web-port-taken": (with_daemon(DaemonState.STRANGER, "not an agent"), Severity.PROBLEM, "not an agent"),
    "receipts-port-taken": (
        replace(
            with_daemon(DaemonState.DOWN, "refused"),
            host=replace(healthy().host, web_port=None, receipts_port="receipts.port: address in use"),
            policies=policies(asking_receipts()),
        ),
        Severity.PROBLEM,
        "receipts.port: address in use",
    ),
    "p2p-port-taken": (
        replace(with_daemon(DaemonState.DOWN, "refused"), host=replace(healthy().host, p2p_ports="address in use")),
        Severity.PROBLEM,
        "address in use",
    ),
    "journal-locked": (
        held_by(Holder(pid=7, command="backup", is_agent=False)),
        Severity.PROBLEM,
        "process 7 (backup)",
    ),
    "agent-silent": (with_daemon(DaemonState.SILENT, "no answer"), Severity.PROBLEM, "holds the journal"),
    "agent-down": (with_daemon(DaemonState.DOWN, "refused"), Severity.PROBLEM, "does not run: refused"),
    "agent-foreign": (told(node_key=key(1).public.hex()), Severity.PROBLEM, "another node key"),
    "agent-stuck": (changed("daemon", healthy="the meter has not come round"), Severity.PROBLEM, "the meter"),
    "agent-outdated": (told(version="0.9"), Severity.WARNING, "runs is 0.9, installed is 1.0"),
    "agent-before-settings": (changed("settings", changed_s=NOW_S - 5), Severity.WARNING, "after the agent started"),
    "disk-low": (changed("host", free_bytes=500 << 20), Severity.WARNING, "500 MiB are left"),
    "clock-behind": (changed("chain", clock_ahead_s=-61), Severity.PROBLEM, "61 s behind"),
    "clock-stepped-back": (
        told(clock_step_back={"by_s": 50, "at_s": NOW_S - 9}),
        Severity.WARNING,
        "set back by 50 s, 9 s ago",
    ),
    "memory-low": (
        told(memory={"used_bytes": 95 << 20, "limit_bytes": 100 << 20, "limited_by": "RLIMIT_AS"}),
        Severity.WARNING,
        "95 of 100 MiB that RLIMIT_AS lets it have (95 %)",
    ),
    "prover-away": (changed("host", prover="no report interface"), Severity.WARNING, "no report interface"),
    "chain-unreachable": (
        replace(
            told(chain={"error": "refused"}),
            chain=replace(healthy().chain, error="refused"),
            pool=Unknown("no chain"),
            pool_absent=Unknown("no chain"),
        ),
        Severity.PROBLEM,
        "no liteserver gives a block: refused",
    ),
    "liteservers-conflict": (changed("chain", conflict="two blocks 7"), Severity.WARNING, "two blocks 7"),
    "wrong-network": (changed("chain", global_id=-3), Severity.PROBLEM, "network -3, the settings are for -217"),
    "chain-stale": (changed("chain", clock_ahead_s=121), Severity.PROBLEM, "121 s old"),
    "pool-absent": (
        replace(healthy(), pool=Unknown("none"), pool_absent="no pool stands there"),
        Severity.PROBLEM,
        "no pool stands there",
    ),
    "agent-off-chain": (told(chain={"error": "no answer"}), Severity.PROBLEM, "the agent: no answer"),
    "liteserver-away": (
        changed(
            "chain",
            servers=(ServerFacts(name="a:1", error="refused"), ServerFacts(name="b:2", error=None)),
            servers_known=9,
        ),
        Severity.WARNING,
        "a:1: refused; 2 of 9 asked",
    ),
    "pool-without-operators": (
        changed("pool", state=state(operator_set=None)),
        Severity.PROBLEM,
        "the owner still runs the pool",
    ),
    "pool-closed": (changed("pool", state=state(status=PoolStatus.CLOSED)), Severity.PROBLEM, "closed for ever"),
    "pool-paused": (changed("pool", state=state(paused_until_s=NOW_S + 60)), Severity.WARNING, "paused until 2027"),
    "policy-missing": (
        changed("pool", rewards=rewards(running=pinned(1, OTHER_POLICY))),
        Severity.PROBLEM,
        f"{POLICY_FILE}: its hash is {policy().hash.hex()}; the running epoch is counted by policy {'33' * 32}",
    ),
    "policy-next-missing": (
        changed("pool", rewards=rewards(next=pinned(1, OTHER_POLICY))),
        Severity.WARNING,
        "which counts epoch 3",
    ),
    "rotation-unfinished": (
        changed("pool", entry=None, is_next_registered=True),
        Severity.PROBLEM,
        "names the new node key (node.key.next)",
    ),
    "not-registered": (changed("pool", entry=None), Severity.PROBLEM, "not registered"),
    "suspended": (of_entry(status=ParticipantStatus.SUSPENDED), Severity.PROBLEM, "suspended"),
    "stake-too-small": (
        of_entry(status=ParticipantStatus.INACTIVE, stake_nanoton=90 * NANO),
        Severity.PROBLEM,
        "90 TON is below the pool's minimum of 100 TON",
    ),
    "withdrawing": (of_entry(pending_nanoton=NANO, withdraw_at_s=NOW_S), Severity.NOTE, "1.000 TON of the stake"),
    "slashed": (of_entry(held_nanoton=NANO, held_until_s=NOW_S), Severity.NOTE, "1.000 TON are slashed"),
    "wallet-low": (
        changed("pool", wallet_nanoton=NANO // 10),
        Severity.WARNING,
        "which is too little to bring",
    ),
    "evidence-refused": (
        told(evidence=evidence(valid=False, own={"valid": False, "error": REFUSAL})),
        Severity.PROBLEM,
        "refused (debug_refused): a debug guest",
    ),
    "evidence-missing": (
        told(evidence=evidence(valid=False, error=ERROR, own=None)),
        Severity.PROBLEM,
        "no evidence is in force, none can be made: no TDX",
    ),
    "evidence-failing": (told(evidence=evidence(error=ERROR)), Severity.WARNING, "runs out in 3600 s"),
    "machine-taken": (told(evidence=evidence(place_taken_by="ab" * 32)), Severity.PROBLEM, "holds the place"),
    "collateral-stale": (
        told(evidence=evidence(collateral_error={"message": "404"})),
        Severity.WARNING,
        "collateral is not renewed: 404",
    ),
    "cocoon-image": (worker(is_image_listed=False), Severity.PROBLEM, "the image of worker 0"),
    "cocoon-model": (worker(is_model_listed=False), Severity.PROBLEM, "the model of worker 0"),
    "source-absent": (told(sources=[source("nvml")]), Severity.PROBLEM, "counts what `engine` reports"),
    "source-failing": (told(sources=[source(error="refused")]), Severity.PROBLEM, "engine 0: refused"),
    "source-silent": (told(sources=[source(sampled_s=NOW_S - 301)]), Severity.PROBLEM, "was read 301 s ago"),
    "source-restarted": (
        told(sources=[source(restarts=2, restarted_s=NOW_S - 9)]),
        Severity.NOTE,
        "engine 0 began to count anew 9 s ago (2 times in all)",
    ),
    "uplink-down": (
        replace(
            told(sources=[source("cocoon", gauges={"proxies_connected": 0.0})]),
            policies=policies(counting("cocoon")),
        ),
        Severity.PROBLEM,
        "cocoon 0: connected to no proxy",
    ),
    "gpu-lost": (
        told(sources=[source(), source("nvml", gauges={"gpus_lost": 1.0}, notes=["GPU-1: lost (15)", "hot"])]),
        Severity.WARNING,
        "nvml 0: GPU-1: lost (15)",
    ),
    "other-source-failing": (
        told(sources=[source(), source("nvml", error="GPU 0 is lost")]),
        Severity.WARNING,
        "nvml 0: GPU 0 is lost",
    ),
    "control-port-public": (worker(exposed=("its control port answers",)), Severity.WARNING, "its control port"),
    "guest-failing": (worker(guest="cocoon-vllm: failed"), Severity.WARNING, "of worker 0: cocoon-vllm: failed"),
    "source-notes": (told(sources=[source(notes=["it throttles"])]), Severity.NOTE, "engine 0: it throttles"),
    "idle": (told(work={"tokens": 0}), Severity.NOTE, "nothing was counted since"),
    "worker-unset": (of_contract(None), Severity.PROBLEM, "names no worker contract"),
    "worker-refused": (of_contract(WORKER, worker="of another owner"), Severity.PROBLEM, "of another owner"),
    "worker-unpaid": (of_contract(WORKER, worker=None, worker_tokens=0), Severity.PROBLEM, "no proxy has signed"),
    "peers-other-version": (rift("protocol", stops=True), Severity.PROBLEM, "of another protocol"),
    "tally-differs": (rift("tally"), Severity.NOTE, "of another tally"),
    "alone": (
        told(peers=[peer(1, connected=False, dial_errors=["/ip4/10.0.0.5/tcp/1: timed out"])]),
        Severity.PROBLEM,
        "timed out",
    ),
    "reach-short": (told(reach={"weight": 2, "total_weight": 3}), Severity.PROBLEM, "2 of 3 of the weight"),
    "operators-away": (told(peers=[peer(1), peer(2, connected=False)]), Severity.WARNING, key(2).public.hex()[:16]),
    "peer-not-dialled": (told(not_dialled={"p2p.peers[0]": "not registered"}), Severity.WARNING, "p2p.peers[0]"),
    "not-dialable": (told(dialled_at=[]), Severity.NOTE, "nobody can dial"),
    "log-unknown": (told(is_own_log_known=False), Severity.PROBLEM, "more than two thirds"),
    "windows-waiting": (
        changed("journal", windows_waiting=11),
        Severity.WARNING,
        "11 work windows and batches of receipts",
    ),
    "log-dead": (changed("journal", settled=replace(SETTLED, is_dead=True)), Severity.PROBLEM, "forked"),
    "close-hindered": (told(pool={"obstacle": "epoch 3 waits"}), Severity.WARNING, "epoch 3 waits"),
    "close-stalled": (
        stalled(),
        Severity.PROBLEM,
        "is not settled: 2 of 4 operators have observed",
    ),
    "settlement-behind": (
        told(settled={"epoch": 1, "adopted_epoch": 0}),
        Severity.WARNING,
        "settled epoch 1, this agent knows epoch 0",
    ),
    "nothing-settled": (
        changed("pool", rewards=rewards(landed=replace(rewards().landed, epoch=0))),
        Severity.NOTE,
        "no epoch is settled yet",
    ),
    "no-part": (changed("journal", settled=SETTLED), Severity.PROBLEM, "epoch 1 was settled without work of this node"),
    "credited-less": (
        told(own=own(tokens=450, reasons=["2 windows without evidence"])),
        Severity.WARNING,
        "450 of 900 metered tokens (50 %): 2 windows without evidence",
    ),
    "unclaimed": (changed("pool", rewards=rewards(paid_nanoton={})), Severity.NOTE, "2 TON wait to be claimed"),
    "reconciliation-alarm": (told(reconciliation={"alarm": "12 % apart"}), Severity.WARNING, "12 % apart"),
    "keys-not-backed-up": (changed("settings", not_backed_up=("/a/node.key",)), Severity.WARNING, "/a/node.key"),
    "agent-not-ready": (changed("daemon", ready="not today"), Severity.PROBLEM, "not today"),
}


def test_nothing_is_wrong() -> None:
    findings = diagnose(healthy())
    assert heard(healthy()) == []
    assert {each.code for each in findings if each.severity is Severity.NOT_APPLICABLE} == PASSED_BY
    assert {each.severity for each in findings} == {Severity.OK, Severity.NOT_APPLICABLE}, "everything else was checked"
    assert exit_code(findings) == 0
    assert verdict(healthy(), findings).text == "you earn: epoch 1 credited 900 tokens, a share of 25.0 %"


@pytest.mark.parametrize("code", [check.code for check in CHECKS if check.code not in UNASKED])
def test_each_code_comes_first_in_a_world_of_its_own(code: str) -> None:
    facts, severity, words = WORLDS[code]
    first = heard(facts)[0]
    assert (first.code, first.severity) == (code, severity)
    assert words in first.cause
    assert first.fix, "every finding says what helps"


def test_a_code_stands_for_one_check() -> None:
    codes = [check.code for check in CHECKS]
    assert sorted(set(codes)) == sorted(codes)
    assert set(WORLDS) == set(codes) - UNASKED
    assert all(
        re.fullmatch("[a-z0-9]+(-[a-z0-9]+)+|alone|idle|slashed|suspended|unclaimed|withdrawing", c) for c in codes
    )


def test_the_guide_explains_every_code_in_the_order_of_the_checks() -> None:
    explained = re.findall(r"^\| `([a-z0-9-]+)` \|", GUIDE.read_text(), re.MULTILINE)
    assert explained == [check.code for check in CHECKS]


@pytest.mark.parametrize("clazz", list(FindingClass))
def test_the_exit_code_is_the_class_of_the_first_problem(clazz: FindingClass) -> None:
    worlds = [facts for facts, severity, _ in WORLDS.values() if severity is Severity.PROBLEM]
    found = [(exit_code(diagnose(facts)), first_problem(diagnose(facts))) for facts in worlds]
    of_class = [problem for code, problem in found if code == clazz]
    assert of_class, "each class is somebody's"
    assert all(problem is not None and problem.clazz is clazz for problem in of_class)


def test_warnings_and_notes_leave_the_exit_code() -> None:
    mild = [facts for facts, severity, _ in WORLDS.values() if severity is not Severity.PROBLEM]
    assert {exit_code(diagnose(facts)) for facts in mild} == {0}


def test_a_place_that_is_taken_is_named() -> None:
    for is_gpu_taken, words in ((False, "the place on this machine"), (True, "the place on a GPU")):
        assert words in heard(told(evidence=evidence(place_taken_by="ab" * 32, is_gpu_taken=is_gpu_taken)))[0].cause


def test_what_cannot_be_known_is_said_not_guessed() -> None:
    """With the settings broken there is one problem, and everything else is unknown."""
    unread = Unknown("the settings cannot be read")
    facts = replace(
        changed(
            "settings",
            config="agent.toml: not TOML",
            **dict.fromkeys(
                ("node_key", "wallet_key", "policy", "servers", "proof", "changed_s", "not_backed_up"), unread
            ),
        ),
        **dict.fromkeys(
            ("host", "journal", "daemon", "chain", "pool", "pool_absent", "policies", "sources", "workers"), unread
        ),
    )
    findings = diagnose(facts)
    assert [each.code for each in findings if each.severity is not Severity.UNKNOWN] == ["config-unusable"]
    assert all("not checked: the settings cannot be read" in each.cause for each in findings[1:])
    assert verdict(facts, findings).text == "you do not earn: agent.toml: not TOML"


@pytest.mark.parametrize("part", ["daemon", "pool", "journal"])
def test_nobody_is_said_to_earn_on_a_guess(part: str) -> None:
    facts = replace(healthy(), **{part: Unknown("it took too long")})
    assert "but not all could be looked at: it took too long" in verdict(facts, diagnose(facts)).text


def test_a_node_whose_work_was_not_settled_yet_is_told_so() -> None:
    facts = changed("journal", settled=None)
    assert verdict(facts, diagnose(facts)).text.startswith("nothing keeps you from earning; no epoch has been settled")


@pytest.mark.parametrize(
    ("close", "words"),
    [
        ({"certified": True}, "the certificate has not landed"),
        ({"waiting_for": 3}, "3 objects of others are missing here"),
        ({"attested_weight": 2}, "attested by 2 of 4, 3 are needed"),
        ({"operators": None}, "2 operators have observed"),
        ({"epoch": 9}, "this agent does not close it"),
    ],
)
def test_a_stalled_close_says_what_is_missing(close: dict[str, Any], words: str) -> None:
    (found,) = (each for each in diagnose(stalled(**close)) if each.code == "close-stalled")
    assert words in found.cause
