"""What the status page knows of a host with which nothing is wrong, to be changed by tests."""

from __future__ import annotations

import hashlib
from typing import Any

from doctor_facts import NOW_S, VERSION

from agent.earnings.report import EpochEarnings
from agent.page.facts import Diagnosis, LastClose, Neighbours, PageFacts, Peer, Said
from agent.verbs import DEFAULT_CONFIG
from contracts.model import NANO

OPERATORS, PARTICIPANTS = 7, 3


def node_key(i: int) -> str:
    return hashlib.sha256(b"node %d" % i).hexdigest()


def page_facts(**changes: Any) -> PageFacts:
    """Seven operators, this node among them, and three participants; epoch 42 closes."""
    values: dict[str, Any] = {
        "now_s": NOW_S,
        "config": DEFAULT_CONFIG,
        "status": status(),
        "trouble": None,
        "diagnosis": diagnosis(),
        "silence": None,
        "last_close": LastClose(epoch=41, attested_weight=7, total_weight=7),
        "epochs": tuple(epoch(i) for i in range(32, 42)),
        "no_epochs": None,
        "neighbours": neighbours(),
    }
    return PageFacts(**values | changes)


def status(**sections: Any) -> dict[str, Any]:
    """What `agent.status.own_status` tells."""
    return {
        "version": VERSION,
        "time_s": NOW_S,
        "uptime_s": 9 * 86_400,
        "node_key": node_key(0),
        "chain": chain(),
        "pool": {"status": "active", "is_paused": False, "paused_until_s": None, "obstacle": None, "proposals": []},
        "policies": [{"hash": "ab" * 32, "is_held": True, "epoch": 43, "from_s": NOW_S}],
        "entry": entry(),
        "evidence": evidence(),
        "work": {"tokens": 48_211_093, "tasks": 91_204, "tokens_per_s": 312.4, "head": 12_961, "error": None},
        "sources": [source(), gpus(8)],
        "own": own(),
        "reconciliation": None,
        "claimable_nanoton": 18_402_113_905,
        "not_dialled": {},
        "reach": {"weight": 7, "total_weight": 7},
        "close": close(),
        "settled": {"epoch": 41, "root": "cd" * 32, "settled_s": NOW_S - 59_900},
        **sections,
    }


def chain(**changes: Any) -> dict[str, Any]:
    value = {"error": None, "clock": None, "seqno": 48_210_771, "age_s": 4, "epoch": 43, "open_epochs": [42]}
    return {
        **value,
        "epoch_start_s": NOW_S - 60_000,
        "epoch_end_s": NOW_S + 20_000,
        "participants": 10,
        "wallet_nanoton": 6 * NANO + 120_000_000,
        **changes,
    }


def entry(**changes: Any) -> dict[str, Any]:
    value = {"status": "active", "not_earning": None, "reputation": 512, "stake_nanoton": 250 * NANO}
    rest = {"pending_nanoton": 0, "withdraw_at_s": None, "held_nanoton": 0, "held_until_s": None}
    return {**value, **rest, **changes}


def evidence(**changes: Any) -> dict[str, Any]:
    own_evidence = {
        "valid": True,
        "error": None,
        "valid_until_s": NOW_S + 61_000,
        "tcb_status": "UpToDate",
        "advisories": [],
        "measurement": "cocoon-worker-1.4",
        "machine": "7e78fc4ed977f513" * 4,
        "gpus": 8,
    }
    value = {"valid": True, "valid_until_s": NOW_S + 61_000, "alarm": None, "collateral_error": None}
    return {**value, "own": own_evidence, "place_taken_by": None, "is_gpu_taken": False, **changes}


def source(**changes: Any) -> dict[str, Any]:
    value = {"source": "engine", "instance": 0, "provenance": "vllm", "sampled_s": NOW_S - 3, "error": None}
    return {**value, "gauges": {"requests_running": 11.0, "requests_waiting": 2.0}, "notes": [], **changes}


def gpus(number: int) -> dict[str, Any]:
    figures = {"temperature_c": 61, "power_mw": 512_000, "memory_used_bytes": 71 << 30, "busy_percent": 93}
    figures |= {"memory_total_bytes": 80 << 30, "ecc_volatile": 0, "processes": 1}
    names = [f"GPU-{i}e0{i}a{i}4c" for i in range(number)]
    gauges = {f'gpu_{name}{{uuid="{uuid}"}}': value for uuid in names for name, value in figures.items()}
    return source(source="nvml", provenance="nvml 550.90.07", gauges={"gpus": number, "gpus_lost": 0, **gauges})


def own(**changes: Any) -> dict[str, Any]:
    value = {"epoch": 41, "tokens": 1_204_551, "metered_tokens": 1_209_000, "score": 123, "total_score": 1000}
    return {**value, "earned_nanoton": 211 * NANO, "reasons": [], "flags": 0, **changes}


def close(**changes: Any) -> dict[str, Any]:
    value = {"epoch": 42, "view": 1, "operators": OPERATORS, "observations": 6, "attested_weight": 4, "total_weight": 7}
    missing = [node_key(i) for i in (2, 4, 5)]
    rest = {"certified": False, "waiting_for": 3, "leader": node_key(3), "unseen": missing[1:2]}
    return {**value, **rest, "unattested": missing, **changes}


def diagnosis(**changes: Any) -> Diagnosis:
    values: dict[str, Any] = {
        "found_s": NOW_S - 21,
        "epoch": 41,
        "earns": True,
        "verdict": "you earn: epoch 41 credited 1,204,551 tokens, a share of 12.3 %",
        "findings": (
            Said(
                severity="note",
                code="unclaimed",
                cause="18.402113905 TON wait to be claimed",
                fix="sudo gpupool pool claim",
            ),
        ),
        "fine": 71,
        "unknown": 0,
    }
    return Diagnosis(**values | changes)


def broken() -> PageFacts:
    """The engine is down, and the host does not earn."""
    cause = "the engine does not answer at http://127.0.0.1:8000/metrics: connection refused"
    findings = (
        Said(severity="problem", code="engine-down", cause=cause, fix="start the engine, or correct engine.url"),
        Said(
            severity="warning", code="peers-away", cause="1 operator is away: 4a2f91c0", fix="nothing, if it comes back"
        ),
        Said(
            severity="note",
            code="unclaimed",
            cause="18.402113905 TON wait to be claimed",
            fix="sudo gpupool pool claim",
        ),
    )
    return page_facts(
        status=status(
            sources=[source(error="no answer: connection refused"), gpus(8)],
            chain=chain(error="the liteserver 203.0.113.7:4924 does not answer"),
            reach={"weight": 4, "total_weight": 7},
            evidence=evidence(alarm="no new evidence can be made, work counts for 812 s more: no TDX (see docs)"),
        ),
        trouble="engine: no answer: connection refused",
        diagnosis=diagnosis(earns=False, verdict=f"you do not earn: {cause}", findings=findings),
        neighbours=neighbours(away=(2, 8)),
    )


def epoch(number: int, **changes: Any) -> EpochEarnings:
    values: dict[str, Any] = {
        "epoch": number,
        "end_s": NOW_S - (42 - number) * 86_400,
        "settled_s": NOW_S - (42 - number) * 86_400 + 95,
        "metered_tokens": 1_200_000 + 997 * number,
        "credited_tokens": 1_200_000 + 991 * number,
        "uptime_s": 86_000,
        "tasks": 2200,
        "reasons": ("2 windows without evidence (3,276 tokens)",) if number % 4 == 0 else (),
        "score": 118 + number % 9,
        "total_score": 1000,
        "pot_nanoton": 160 * NANO,
        "earned_nanoton": 18 * NANO + number * 77_000_113,
        "cumulative_nanoton": 5 * number * NANO,
        "claimed_nanoton": None,
        "unclaimed_nanoton": None,
        "flags": 0,
    }
    return EpochEarnings(**values | changes)


def neighbours(
    operators: int = OPERATORS, participants: int = PARTICIPANTS, away: tuple[int, ...] = (), shown: int = 36
) -> Neighbours:
    """Everybody hears everybody, but for those that are away; node 3 does not hear node 5."""
    number = operators + participants
    peers = tuple(
        Peer(
            node_key=node_key(i),
            is_operator=i < operators,
            connected=None if i == 0 else i not in away,
            heard_ago_s=None if i == 0 else 3.0 if i not in away else 940.0,
            rtt_ms=None if i == 0 or i in away else 4.0 + 3 * i,
        )
        for i in range(min(number, shown))
    )
    keys = [peer.node_key for peer in peers]
    deaf = {(node_key(3), node_key(5))} | {(key, node_key(i)) for key in keys for i in away}
    heard_s = {
        hearer: {key: 0 if (hearer, key) in deaf else 86_000 for key in keys if key != hearer}
        for i, hearer in enumerate(keys[:operators])
        if i not in away
    }
    return Neighbours(
        peers=peers,
        operators=operators - 1,
        operators_connected=operators - 1 - sum(i < operators for i in away),
        participants=participants,
        participants_connected=participants - sum(i >= operators for i in away),
        epoch=41,
        heard_s=heard_s,
    )
