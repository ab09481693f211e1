"""The agent's status: an operator sees why the own work earns nothing, and what the pool is about to change."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from contract_states import pinned, pool_state, rewards_state
from pool_fixture import EPOCH_S, POOL, START_S, key, operator_set, participant, policy

from agent.measuring import Measured
from agent.policies import Policies
from agent.settling import PoolView
from agent.standings import Refusal, Standing, settled_evidence
from agent.status import (
    _entry,
    _evidence_of_others,
    _peers,
    _policies,
    _pool,
    _reach,
    _work,
    not_earning,
)
from contracts.chain import Block
from contracts.model import NANO, Address, CertificateKind, ParticipantStatus, PoolStatus, Proposal, UpgradeTarget
from gossip.acquaintances import Acquaintances, Run
from gossip.roster import Roster
from gossip.settlement import Base, EvidenceWindow, Reading
from gossip.transport import PeerView

BLOCK = Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=START_S)


def settling_of(**state: Any) -> Any:
    rewards = rewards_state(Address(0, bytes(32)), start_s=START_S, end_s=START_S + EPOCH_S)
    view = PoolView(
        block=BLOCK,
        state=pool_state(operator_set=operator_set(4), **state),
        rewards=replace(rewards, running=pinned(1, policy().hash), next=pinned(1, b"\x22" * 32)),
    )
    return SimpleNamespace(view=view)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"status": ParticipantStatus.WITHDRAWING, "pending_nanoton": 100 * NANO}, None),
        ({"status": ParticipantStatus.SUSPENDED}, "until they reinstate it"),
        (
            {"status": ParticipantStatus.INACTIVE, "stake_nanoton": 90 * NANO},
            "the stake of 90 TON is below the pool's minimum of 100 TON",
        ),
    ],
)
def test_why_work_earns_nothing(changes: dict[str, Any], reason: str | None) -> None:
    said = not_earning(replace(participant(0), **changes), pool_state())
    assert said is None if reason is None else reason in str(said)
    assert "gpupool pool register" in str(not_earning(None, pool_state()))


def test_the_own_entry_shows_what_is_asked_back_and_what_is_held() -> None:
    entry = replace(
        participant(0), pending_nanoton=NANO, withdraw_at_s=START_S, held_nanoton=2 * NANO, held_until_s=START_S + 1
    )
    value = _entry(entry, settling_of())
    assert value is not None
    assert (value["pending_nanoton"], value["withdraw_at_s"]) == (NANO, START_S)
    assert (value["held_nanoton"], value["held_until_s"]) == (2 * NANO, START_S + 1)
    assert value["status"] == "active"
    young = _entry(participant(0), settling_of())
    assert young is not None
    assert (young["withdraw_at_s"], young["held_until_s"]) == (None, None)


def test_the_pool_shows_its_pause_and_its_proposals() -> None:
    proposal = Proposal(
        kind=CertificateKind.PROPOSE_UPGRADE, hash=b"h" * 32, since_s=START_S, target=UpgradeTarget.REGISTRY
    )
    value = _pool(settling_of(paused_until_s=START_S + 1, pending=(proposal,)))
    assert value is not None
    assert (value["status"], value["is_paused"], value["paused_until_s"]) == ("active", True, START_S + 1)
    (shown,) = value["proposals"]
    assert (shown["kind"], shown["target"]) == ("propose_upgrade", "registry")
    assert shown["expires_s"] > shown["ready_s"] > START_S
    over = _pool(settling_of(paused_until_s=START_S, status=PoolStatus.CLOSED))
    assert over is not None
    assert (over["status"], over["is_paused"]) == ("closed", False)


def test_a_policy_that_is_not_here_is_shown_with_the_epoch_that_needs_it() -> None:
    agent: Any = SimpleNamespace(settling=settling_of(), policies=Policies(policy()))
    assert [(p["epoch"], p["is_held"]) for p in _policies(agent)] == [(1, True), (2, False)]


async def test_each_peer_shows_its_role_and_where_its_address_is_from() -> None:
    def view(i: int, *, connected: bool, in_roster: bool = True) -> PeerView:
        return PeerView(
            node_key=key(i).public,
            in_roster=in_roster,
            connected=connected,
            last_heard_s=None,
            rtt_s=0.0015,
            addresses=(),
            dial_errors=() if connected else ("/ip4/10.0.0.5/tcp/1: connection refused",),
        )

    peers = (view(1, connected=True), view(2, connected=True), view(3, connected=False), view(9, connected=True))
    sources = {key(1).public: "config"}
    roster = Roster(
        weights={key(0).public: 1, key(1).public: 4},
        operators=frozenset({key(0).public, key(1).public}),
        participants=frozenset(key(i).public for i in range(4)),
    )
    gossiping: Any = SimpleNamespace(
        transport=SimpleNamespace(peers=lambda: peers),
        roster=roster,
        address_source=sources.get,
        reach=lambda: roster.reach(key(0).public, [key(2).public]),
        acquaintances=Acquaintances(key(0), POOL, Run(agent="test", id=bytes(16), started_s=0), policies=list),
    )
    shown = _peers(gossiping)
    assert [peer["role"] for peer in shown] == ["operator", "participant", "participant", None]
    assert [peer["address_from"] for peer in shown] == ["config", "inbound", None, "inbound"]
    assert [peer["rtt_ms"] for peer in shown] == [1.5] * 4
    assert [(peer["terms"], peer["agent"]) for peer in shown] == [("unmet", None)] * 4
    assert [peer["dial_errors"] for peer in shown] == [[], [], ["/ip4/10.0.0.5/tcp/1: connection refused"], []]
    assert _reach(gossiping) == {"weight": 1, "total_weight": 5}
    assert _reach(None) is None


def test_evidence_that_an_epoch_settled_is_not_missing_after_a_restart() -> None:
    """Its record is not here any more, so nothing judges it again until it is renewed."""

    def settled(from_s: int, until_s: int) -> Reading:
        return Reading(
            evidence=(
                EvidenceWindow(record=b"r" * 32, from_s=from_s, until_s=until_s, machine=b"m" * 32, tokens_per_s=1),
            )
        )

    now_s = START_S + 100
    readings = {
        key(0).public: settled(START_S, now_s + 50),
        key(1).public: settled(START_S, now_s),
        key(2).public: settled(START_S, now_s - 1),
        key(3).public: settled(now_s + 1, now_s + 50),
    }
    refused = Standing(record=b"r" * 32, seq=1, found=Refusal(code="c", fault="f", message="m", remedy="r"))
    standings = {key(4).public: refused}
    base = Base(readings={**readings, key(4).public: settled(START_S, now_s + 50)})
    keys = [key(i).public for i in range(6)]
    assert settled_evidence(keys, standings, base, now_s) == {key(0).public: now_s + 50, key(1).public: now_s}

    agent: Any = SimpleNamespace(
        key=key(0),
        attesting=SimpleNamespace(status=lambda node_key, now_s: {}),
        verdicts=SimpleNamespace(standings=standings),
        settling=SimpleNamespace(view=PoolView(participants=tuple(participant(i) for i in range(6)))),
        node=SimpleNamespace(machine=SimpleNamespace(base=base)),
        policies=Policies(policy()),
    )
    value = _evidence_of_others(agent, now_s)
    assert value["settled"] == {key(1).public.hex(): now_s}
    assert value["missing"] == [key(i).public.hex() for i in (2, 3, 5)], "the own key is nobody else's"


def test_tasks_are_those_of_the_kind_of_source_that_counts() -> None:
    measured = Measured(windows=1, amounts={(1, 1): 50, (1, 2): 50, (1, 4): 10, (2, 3): 90, (2, 4): 12})
    agent: Any = SimpleNamespace(
        measuring=SimpleNamespace(measured=measured), policies=SimpleNamespace(in_force=policy())
    )
    work = _work(agent, None)
    assert (work["source"], work["tokens"], work["tasks"]) == ("engine", 100, 10)
