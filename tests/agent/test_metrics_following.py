"""Metrics that follow the services' own state: what is not up yet is absent, what is known is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from contract_states import open_epoch, pinned, pool_state, rewards_state
from pool_fixture import EPOCH_S, POOL, START_S, key, operator_set, participant, policy

from agent.journal import create_journal, open_journal
from agent.keys.marker import note_backup
from agent.measuring import Measured, SourceView
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.metrics.following import _free, _size, follow_agent, update_entry, update_metrics
from agent.metrics.registry import Metrics
from agent.policies import Policies
from agent.reconciling import Books, reconcile
from agent.settling import PoolView
from contracts import fees
from contracts.chain import Block
from contracts.chain_values import ServersStanding
from contracts.model import NANO, Address, ParticipantStatus
from gossip.audit import Flag
from gossip.roster import Roster
from gossip.settlement import Base, EvidenceWindow, Reading
from gossip.transport import PeerView

NOW_S = START_S + 100
WORKER = Address(0, b"\x77" * 32)
COUNTERS = CounterSample(source="engine", start_s=None, series={})


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"gpupool_{name}", labels)


def agent_of(**parts: Any) -> Any:
    """An agent that has only begun: no chain, no node, no settlement."""
    begun = {
        "metrics": Metrics(version="1", process=False),
        "key": key(0),
        "pool": POOL,
        "config": SimpleNamespace(receipts=None),
        "policies": Policies(policy()),
        "measuring": SimpleNamespace(measured=Measured()),
        "receipts_error": None,
        "is_own_log_known": False,
        "settling": None,
        "entry": None,
        "books": SimpleNamespace(own=None, reconciliation=None, worker_state=None),
        "node": None,
        "gossiping": None,
        "attesting": SimpleNamespace(status=lambda node_key, now_s: EVIDENCE),
        "verdicts": SimpleNamespace(standings={}),
    }
    return SimpleNamespace(**{**begun, **parts})


EVIDENCE = {"valid": True, "valid_until_s": NOW_S + 50, "error": None, "collateral_error": None, "own": None}


def settling_of(**view: Any) -> Any:
    rewards = rewards_state(Address(0, bytes(32)), start_s=START_S, end_s=START_S + EPOCH_S)
    seen = {
        "block": Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=START_S),
        "state": pool_state(operator_set=operator_set(4)),
        "rewards": replace(rewards, running=pinned(1, policy().hash), next=pinned(1, policy().hash)),
        "participants": tuple(participant(i) for i in range(3)),
    }
    found = PoolView(**{**seen, **view})
    return SimpleNamespace(
        view=found,
        servers=lambda: ServersStanding(known=3, failing=1, conflicts=2),
        open_epochs=lambda: found.rewards.open_epochs if found.rewards is not None else (),
    )


def test_an_agent_that_waits_for_the_chain_shows_what_it_knows() -> None:
    agent = agent_of(settling=settling_of(state=None, rewards=None, block=None))
    update_metrics(agent, NOW_S)
    metrics = agent.metrics
    assert value(metrics, "own_log_known") == 0
    assert value(metrics, "liteservers") == 3
    assert value(metrics, "liteservers_failing") == 1
    assert value(metrics, "liteserver_conflicts_total") == 2
    for unknown in ("entry_state", "earning", "operators", "evidence_valid", "own_score_ratio", "settlement_due"):
        assert value(metrics, unknown) is None


def test_what_the_chain_shows_of_pool_and_entry() -> None:
    agent = agent_of(settling=settling_of(), entry=participant(0))
    update_metrics(agent, NOW_S)
    metrics = agent.metrics
    assert value(metrics, "operator") == 1
    assert value(metrics, "operators") == 4
    assert value(metrics, "participants") == 3
    assert value(metrics, "wallet_needed_ton") == fees.submit_nanoton(4) / NANO
    assert value(metrics, "stake_min_ton") == 100
    assert value(metrics, "entry_state", state="active") == 1
    assert value(metrics, "epoch_end_timestamp_seconds") == START_S + EPOCH_S
    assert value(metrics, "settlement_due_timestamp_seconds") is None, "nothing is open"
    assert value(metrics, "pool_closed") == 0


def test_a_participant_s_wallet_has_to_pay_a_claim() -> None:
    agent = agent_of(key=key(9), settling=settling_of())
    update_metrics(agent, NOW_S)
    assert value(agent.metrics, "wallet_needed_ton") == fees.CLAIM_NANOTON / NANO
    assert value(agent.metrics, "entry_state", state="absent") == 1


def test_an_open_epoch_is_due() -> None:
    waits = open_epoch(1, start_s=START_S - EPOCH_S, end_s=START_S, finalized_s=START_S, policy_hash=policy().hash)
    settling = settling_of()
    settling.view.rewards = replace(settling.view.rewards, open_epochs=(waits,))
    agent = agent_of(settling=settling)
    update_metrics(agent, NOW_S)
    due_s = value(agent.metrics, "settlement_due_timestamp_seconds")
    assert due_s is not None
    assert due_s > START_S + policy().timing.settle_delay_s


def test_metrics_of_the_own_entry() -> None:
    metrics = Metrics(version="1", process=False)
    update_entry(metrics, replace(participant(0), status=ParticipantStatus.SUSPENDED, held_nanoton=NANO // 2))
    assert value(metrics, "earning") == 0
    assert value(metrics, "entry_state", state="suspended") == 1
    assert value(metrics, "stake_ton") == 100
    assert value(metrics, "slashed_held_ton") == 0.5
    update_entry(metrics, participant(0))
    assert value(metrics, "earning") == 1
    update_entry(metrics, None)
    assert value(metrics, "entry_state", state="absent") == 1


@pytest.mark.parametrize(
    ("ceiling", "worker", "read", "state"),
    [
        ("none", None, None, None),
        ("worker-contract", None, "paid", "unset"),
        ("worker-contract", WORKER, None, None),
        ("worker-contract", WORKER, "refused", "refused"),
    ],
)
def test_the_own_worker_contract(ceiling: str, worker: Address | None, read: str | None, state: str | None) -> None:
    in_force = SimpleNamespace(receipts=SimpleNamespace(ceiling=ceiling), work=policy().work)
    agent = agent_of(
        settling=settling_of(),
        entry=replace(participant(0), worker=worker),
        policies=SimpleNamespace(in_force=in_force),
        books=SimpleNamespace(own=None, reconciliation=None, worker_state=read),
    )
    update_metrics(agent, NOW_S)
    states = ("unset", "refused", "unpaid", "paid")
    held = [each for each in states if value(agent.metrics, "worker_state", state=each) == 1]
    assert held == ([] if state is None else [state])


def test_sources_and_what_they_count() -> None:
    sample = SourceSample(counters=COUNTERS, provenance="p", notes=("hot", "slow"))
    measured = Measured(
        amounts={(1, 1): 50, (1, 2): 50, (1, 4): 10, (2, 3): 90},
        sources={
            (1, 0): SourceView(sample=sample, sampled_s=NOW_S - 3),
            (1, 1): SourceView(error="refused"),
            (3, 0): SourceView(),
        },
    )
    agent = agent_of(measuring=SimpleNamespace(measured=measured))
    update_metrics(agent, NOW_S)
    metrics, first = agent.metrics, {"source": "engine", "kind": "engine", "counts": "true"}
    assert value(metrics, "source_up", **first) == 1
    assert value(metrics, "source_up", **{**first, "source": "engine-1"}) == 0
    assert value(metrics, "source_up", source="nvml", kind="nvml", counts="false") is None, "not read yet"
    assert value(metrics, "source_last_read_timestamp_seconds", **first) == NOW_S - 3
    assert value(metrics, "source_notes", source="engine", kind="engine") == 2
    assert value(metrics, "sources_counted") == 2
    assert value(metrics, "work_tokens_total") == 100
    assert value(metrics, "work_tasks_total") == 10


@pytest.mark.parametrize(("error", "listening"), [(None, 1), ("the port is taken", 0)])
def test_receipts_are_listened_for(error: str | None, listening: int) -> None:
    agent = agent_of(config=SimpleNamespace(receipts=object()), receipts_error=error)
    update_metrics(agent, NOW_S)
    assert value(agent.metrics, "receipts_listening") == listening
    assert value(agent.metrics, "receipts_required") == 0


def test_what_the_last_settlement_gave() -> None:
    own = {
        "earned_nanoton": 5 * NANO,
        "score": 25,
        "total_score": 100,
        "tokens": 80,
        "metered_tokens": 90,
        "flags": int(Flag.OUTLIER),
    }
    settling = settling_of()
    paid = {participant(0).address.account: 2 * NANO}
    settling.view.rewards = replace(settling.view.rewards, paid_nanoton=paid)
    books = SimpleNamespace(
        own=own, reconciliation=reconcile([Books(epoch=1, metered=1)], tolerance=0.1), worker_state=None
    )
    agent = agent_of(settling=settling, entry=participant(0), books=books)
    update_metrics(agent, NOW_S)
    metrics = agent.metrics
    assert value(metrics, "earned_ton_total") == 5
    assert value(metrics, "paid_ton_total") == 2
    assert value(metrics, "claimable_ton") == 3
    assert value(metrics, "own_score_ratio") == 0.25
    assert value(metrics, "own_tokens_credited") == 80
    assert value(metrics, "own_tokens_metered") == 90
    assert value(metrics, "own_audit_flag", flag="outlier") == 1
    assert value(metrics, "own_audit_flag", flag="picked") == 0
    assert value(metrics, "reconciliation_alarm") == 0


def node_of(base: Base) -> Any:
    return SimpleNamespace(
        key=key(0),
        drops={"garbage": 1},
        placed={},
        registered=frozenset(key(i).public for i in range(4)),
        logs={key(0).public: SimpleNamespace(head=SimpleNamespace(seq=7), is_dead=False, fork=None)},
        machine=SimpleNamespace(base=base, progress=lambda: None),
    )


def test_evidence_that_an_epoch_settled_is_held_after_a_restart() -> None:
    """Its record is not here any more, so nothing judges it again until it is renewed."""

    def settled(until_s: int) -> Reading:
        window = EvidenceWindow(record=b"r" * 32, from_s=START_S, until_s=until_s, machine=b"m" * 32, tokens_per_s=1)
        return Reading(evidence=(window,))

    base = Base(readings={key(0).public: settled(NOW_S + 50), key(1).public: settled(NOW_S - 1)})
    agent = agent_of(node=node_of(base))
    update_metrics(agent, NOW_S)
    assert value(agent.metrics, "evidence_held") == 1
    assert value(agent.metrics, "evidence_valid") == 1
    assert value(agent.metrics, "evidence_valid_until_timestamp_seconds") == NOW_S + 50
    assert value(agent.metrics, "log_head_seq") == 7
    assert value(agent.metrics, "own_log_dead") == 0
    assert value(agent.metrics, "dropped_total", reason="garbage") == 1


def test_own_evidence_that_is_refused_says_why() -> None:
    found = {
        "valid": False,
        "valid_until_s": None,
        "error": {"code": None},
        "collateral_error": {"code": "collateral_unavailable"},
        "own": {"error": {"code": "tcb_refused"}, "tcb_status": "OutOfDate", "measurement": "image 1", "gpus": 2},
    }
    agent = agent_of(node=node_of(Base()), attesting=SimpleNamespace(status=lambda node_key, now_s: found))
    update_metrics(agent, NOW_S)
    metrics = agent.metrics
    assert value(metrics, "evidence_valid") == 0
    assert value(metrics, "evidence_valid_until_timestamp_seconds") is None
    assert value(metrics, "evidence_own_refused", code="tcb_refused") == 1
    assert value(metrics, "evidence_own_refused", code="unknown") == 1
    assert value(metrics, "evidence_info", tcb_status="OutOfDate", measurement="image 1", gpus="2") == 1
    assert value(metrics, "collateral_failing") == 1


async def test_peers_by_role_and_version() -> None:
    def peer(index: int, *, connected: bool, in_roster: bool = True) -> PeerView:
        return PeerView(
            node_key=key(index).public,
            in_roster=in_roster,
            connected=connected,
            last_heard_s=trio.current_time() if connected else None,
            rtt_s=None,
            addresses=(),
        )

    keys = [key(i).public for i in range(4)]
    roster = Roster(weights={keys[0]: 1, keys[1]: 1}, operators=frozenset(keys[:2]), participants=frozenset(keys))
    peers = (
        peer(1, connected=False),
        peer(2, connected=True),
        peer(3, connected=True),
        peer(5, connected=True, in_roster=False),
    )
    gossiping = SimpleNamespace(
        node=SimpleNamespace(key=key(0)),
        roster=roster,
        reach=lambda: (1, 2),
        transport=SimpleNamespace(counters={"dialled": 3}, peers=lambda: peers),
        acquaintances=SimpleNamespace(
            agents=lambda: Counter({"gpupool-agent/1": 2}),
            rifts=lambda weights: (SimpleNamespace(what="tally", weight=1),),
            rival=lambda now_s: None,
        ),
    )
    agent = agent_of(gossiping=gossiping)
    update_metrics(agent, NOW_S)
    metrics = agent.metrics
    assert value(metrics, "peers", role="operator") == 1
    assert value(metrics, "peers", role="participant") == 2
    assert value(metrics, "peers_connected", role="operator") == 0
    assert value(metrics, "peers_connected", role="participant") == 2
    assert value(metrics, "peers_connected_strangers") == 1
    assert value(metrics, "reachable_weight") == 1
    assert value(metrics, "peers_by_version", version="gpupool-agent/1") == 2
    assert value(metrics, "other_version_weight", what="tally") == 1
    assert value(metrics, "other_version_weight", what="protocol") == 0
    assert value(metrics, "key_in_use_elsewhere") == 0
    heard_s = value(metrics, "peer_last_heard_timestamp_seconds", peer=key(2).public.hex()[:16])
    assert heard_s == pytest.approx(NOW_S, abs=1)


async def test_an_agent_is_followed_from_its_start(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    journal_file = tmp_path / "journal.sqlite"
    create_journal(journal_file, node_key=key(0).public, pool=POOL)
    for name in ("node.key", "wallet.key"):
        note_backup(tmp_path / name, public_key=key(0).public, backup=tmp_path / "backup", made_s=1)
    config = SimpleNamespace(
        receipts=None,
        data_dir=tmp_path,
        journal_file=journal_file,
        identity=SimpleNamespace(node_key_file="node.key"),
        wallet=SimpleNamespace(key_file="wallet.key"),
        resolve=lambda name: tmp_path / name,
    )
    journal = open_journal(journal_file, node_key=key(0).public, pool=POOL)
    reasons: list[str | None] = [None]
    agent = agent_of(
        config=config,
        journal=journal,
        wallet_key=key(0),
        now_s=lambda: NOW_S,
        health=SimpleNamespace(healthy=lambda: None, ready=lambda: reasons[0]),
    )
    try:
        with trio.move_on_after(1):
            await follow_agent(agent)
    finally:
        journal.close()
    metrics = agent.metrics
    assert value(metrics, "work_windows_waiting") == 0
    assert (value(metrics, "data_dir_free_bytes") or 0) > 0
    assert (value(metrics, "journal_size_bytes") or 0) > 0
    assert value(metrics, "ledger_size_bytes") == 0
    assert value(metrics, "keys_backed_up") == 1
    assert value(metrics, "healthy") == 1
    assert value(metrics, "ready") == 1
    reasons[0] = "waiting for the chain"
    assert value(metrics, "ready") == 0
    labels = {"node_key": key(0).public.hex()[:16], "network": str(POOL.network), "pool": f"0:{POOL.account.hex()}"}
    assert value(metrics, "node_info", **labels) == 1


def test_a_folder_that_went_away_stops_nobody(tmp_path: Path) -> None:
    assert _free(tmp_path / "gone") is None
    assert _size(tmp_path / "gone" / "journal.sqlite") == 0
