"""What the agent knows about itself, as one JSON-ready tree: for `/-/status`, `gpupool status` and the devnet.

Built anew for each question from the services' own state; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from agent.gossiping import Gossiping
from agent.measuring import sources_value
from agent.memory import memory_use
from agent.policies import needed_policies
from agent.screens import ton_exact
from agent.settling import Settling
from agent.standings import Holder, place_taken_by, settled_evidence
from agent.versions import peer_value, versions_value
from contracts.model import CertificateKind, Participant, ParticipantStatus, PoolState
from gossip.node import Node
from gossip.records import Unit

if TYPE_CHECKING:
    from agent.daemon import Agent


def agent_status(agent: Agent, now_s: int) -> dict[str, Any]:
    """The whole status; parts that are not up yet are None."""
    own = own_status(agent, now_s)
    evidence = {**own["evidence"], **_evidence_of_others(agent, now_s)}
    return {**own, "evidence": evidence, "peers": _peers(agent.gossiping)}


def own_status(agent: Agent, now_s: int) -> dict[str, Any]:
    """The status without what is said of each other participant: it does not grow with the pool."""
    node, gossiping = agent.node, agent.gossiping
    return {
        "version": agent.version,
        "time_s": now_s,
        "uptime_s": now_s - agent.started_s,
        "node_key": agent.key.public.hex(),
        "is_registered": agent.entry is not None,
        "is_own_log_known": agent.is_own_log_known,
        "clock_step_back": asdict(agent.measuring.clock.last) if agent.measuring.clock.last is not None else None,
        "memory": _memory(),
        "chain": _chain(agent.settling, now_s),
        "pool": _pool(agent.settling),
        "policies": _policies(agent),
        "entry": _entry(agent.entry, agent.settling),
        "evidence": _evidence(agent, now_s),
        "work": _work(agent, node),
        "sources": sources_value(agent.measuring.measured),
        "own": agent.books.own,
        "reconciliation": agent.books.reconciliation.value() if agent.books.reconciliation is not None else None,
        "claimable_nanoton": _claimable_nanoton(agent),
        "not_dialled": gossiping.not_dialled() if gossiping is not None else {},
        "dialled_at": list(gossiping.own_addresses()) if gossiping is not None else None,
        "reach": _reach(gossiping),
        "versions": _versions(gossiping, now_s),
        "close": _close(node),
        "settled": _settled(agent.settling, node),
        "drops": dict(node.drops) if node is not None else {},
    }


def not_earning(entry: Participant | None, state: PoolState) -> str | None:
    """Why the registry lets this node's work earn nothing, and what helps; None if it earns."""
    if entry is None:
        return "this node key is not registered in the pool and earns nothing: gpupool pool register"
    if entry.status == ParticipantStatus.SUSPENDED:
        return "the operators suspended this participant: it earns nothing until they reinstate it"
    if entry.status == ParticipantStatus.INACTIVE:
        least, staked = state.params.rules.min_stake_nanoton, entry.stake_nanoton - entry.pending_nanoton
        return (
            f"the stake of {ton_exact(staked)} is below the pool's minimum of {ton_exact(least)}: this participant "
            f"earns nothing; gpupool pool stake add"
        )
    return None


def _evidence(agent: Agent, now_s: int) -> dict[str, Any]:
    """Own evidence, and who holds the place on this machine."""
    holder = place_holder(agent, now_s)
    return {
        **agent.attesting.status(agent.key.public, now_s),
        "place_taken_by": None if holder is None else holder.node_key.hex(),
        "is_gpu_taken": holder is not None and holder.is_gpu,
    }


def _evidence_of_others(agent: Agent, now_s: int) -> dict[str, Any]:
    """How the others' evidence stands: judged since the start, as settled, or none at all."""
    standings = agent.verdicts.standings
    participants = agent.settling.view.participants if agent.settling is not None else ()
    others = [p.node_key for p in participants if p.node_key != agent.key.public]
    settled = settled_evidence(others, standings, agent.node.machine.base, now_s) if agent.node is not None else {}
    return {
        "peers": {key.hex(): each.value(now_s) for key, each in sorted(standings.items()) if key != agent.key.public},
        "settled": {key.hex(): until_s for key, until_s in settled.items()},
        "missing": [key.hex() for key in others if key not in standings and key not in settled],
    }


def place_holder(agent: Agent, now_s: int) -> Holder | None:
    """Who holds this machine's place, so that work here earns nothing; None if nobody else does."""
    if agent.node is None:
        return None
    nodes_max = agent.policies.in_force.work.machine_nodes_max
    base, registered = agent.node.machine.base, agent.node.registered
    standings = agent.verdicts.standings
    return place_taken_by(agent.key.public, standings, base, registered=registered, nodes_max=nodes_max, now_s=now_s)


def _memory() -> dict[str, Any] | None:
    use = memory_use()
    return None if use is None else asdict(use)


def _chain(settling: Settling | None, now_s: int) -> dict[str, Any] | None:
    if settling is None:
        return None
    view = settling.view
    rewards, block = view.rewards, view.block
    return {
        "error": view.error,
        "seqno": block.seqno if block is not None else None,
        "age_s": now_s - block.time_s if block is not None else None,
        "clock": view.clock,
        "epoch": rewards.current_epoch if rewards is not None else None,
        "epoch_start_s": rewards.current_start_s if rewards is not None else None,
        "epoch_end_s": rewards.current_end_s if rewards is not None else None,
        "open_epochs": [epoch.epoch for epoch in rewards.open_epochs] if rewards is not None else [],
        "participants": len(view.participants),
        "wallet_nanoton": view.balance_nanoton,
    }


def _pool(settling: Settling | None) -> dict[str, Any] | None:
    """The pool's state, what it is about to change, and why its oldest open epoch cannot be closed here."""
    if settling is None or settling.view.state is None or settling.view.block is None:
        return None
    state = settling.view.state
    return {
        "status": state.status.name.lower(),
        "is_paused": state.is_paused(settling.view.block.time_s),
        "paused_until_s": state.paused_until_s or None,
        "obstacle": settling.view.obstacle,
        "proposals": [
            {
                "kind": proposal.kind.name.lower(),
                "target": proposal.target.name.lower() if proposal.kind is CertificateKind.PROPOSE_UPGRADE else None,
                "hash": proposal.hash.hex(),
                "ready_s": proposal.ready_s(state.params),
                "expires_s": proposal.expires_s(state.params),
            }
            for proposal in state.pending
        ],
    }


def _policies(agent: Agent) -> list[dict[str, Any]]:
    """The policies that an operator needs now or soon, first things first."""
    view = agent.settling.view if agent.settling is not None else None
    if view is None or view.state is None or view.rewards is None:
        return []
    return [
        {
            "hash": needed.policy_hash.hex(),
            "is_held": needed.policy_hash in agent.policies,
            "epoch": needed.epoch,
            "from_s": needed.from_s,
        }
        for needed in needed_policies(view.state, view.rewards)
    ]


def _entry(entry: Participant | None, settling: Settling | None) -> dict[str, Any] | None:
    """The own registry entry, and why it earns nothing, if so."""
    if entry is None or settling is None or settling.view.state is None:
        return None
    return {
        "address": str(entry.address),
        "status": entry.status.name.lower(),
        "not_earning": not_earning(entry, settling.view.state),
        "reputation": entry.reputation,
        "stake_nanoton": entry.stake_nanoton,
        "pending_nanoton": entry.pending_nanoton,
        "withdraw_at_s": entry.withdraw_at_s if entry.pending_nanoton else None,
        "held_nanoton": entry.held_nanoton,
        "held_until_s": entry.held_until_s if entry.held_nanoton else None,
    }


def _claimable_nanoton(agent: Agent) -> int | None:
    """What the own address has earned and the chain has not paid yet; None: not known here."""
    view = agent.settling.view if agent.settling is not None else None
    if view is None or view.rewards is None or agent.entry is None or agent.books.own is None:
        return None
    paid: int = view.rewards.paid_nanoton.get(agent.entry.address.account, 0)
    return max(0, int(agent.books.own["earned_nanoton"]) - paid)


def _work(agent: Agent, node: Node | None) -> dict[str, Any]:
    """What was measured since the start, by the pool's kind of source."""
    measured, work = agent.measuring.measured, agent.policies.in_force.work
    views = [view for place, view in measured.sources.items() if place[0] == work.kind]
    return {
        "source": work.source,
        "tokens": measured.amount(work.kind, work.token_units),
        "tasks": measured.amount(work.kind, [Unit.TASK]),
        "tokens_per_s": measured.rate(work.kind, work.token_units),
        "windows": measured.windows,
        "sampled_s": max((view.sampled_s for view in views if view.sampled_s is not None), default=None),
        "error": agent.measuring.measured.error_of(work.kind),
        "head": node.logs[node.key.public].head.seq if node is not None else None,
    }


def _peers(gossiping: Gossiping | None) -> list[dict[str, Any]]:
    if gossiping is None:
        return []
    now = trio.current_time()
    return [
        {
            "node_key": peer.node_key.hex(),
            "connected": peer.connected,
            "in_roster": peer.in_roster,
            "role": _role(gossiping, peer.node_key),
            "address_from": gossiping.address_source(peer.node_key) or ("inbound" if peer.connected else None),
            "heard_ago_s": round(now - peer.last_heard_s, 1) if peer.last_heard_s is not None else None,
            "rtt_ms": round(peer.rtt_s * 1000, 1) if peer.rtt_s is not None else None,
            "dial_errors": list(peer.dial_errors),
            **peer_value(gossiping.acquaintances, peer.node_key),
        }
        for peer in gossiping.transport.peers()
    ]


def _role(gossiping: Gossiping, node_key: bytes) -> str | None:
    if node_key in gossiping.roster.operators:
        return "operator"
    return "participant" if node_key in gossiping.roster.participants else None


def _reach(gossiping: Gossiping | None) -> dict[str, int] | None:
    """How much of the operators' weight is connected, this node's own included."""
    if gossiping is None or not gossiping.roster.weights:
        return None
    weight, total = gossiping.reach()
    return {"weight": weight, "total_weight": total}


def _versions(gossiping: Gossiping | None, now_s: int) -> dict[str, Any] | None:
    """Of which version this agent and the others are, and whether another host uses its key."""
    if gossiping is None:
        return None
    return versions_value(gossiping.acquaintances, gossiping.roster, now_s)


def _close(node: Node | None) -> Mapping[str, Any] | None:
    progress = node.machine.progress() if node is not None else None
    if progress is None:
        return None
    return {
        "epoch": progress.epoch,
        "view": progress.view,
        "operators": progress.operators,
        "observations": progress.observations,
        "attested_weight": progress.attested_weight,
        "total_weight": progress.total_weight,
        "certified": progress.certified,
        "waiting_for": progress.waiting_for,
        "leader": None if progress.leader is None else progress.leader.hex(),
        "unseen": [key.hex() for key in progress.unseen],
        "unattested": [key.hex() for key in progress.unattested],
    }


def _settled(settling: Settling | None, node: Node | None) -> dict[str, Any] | None:
    if settling is None or node is None or settling.view.rewards is None:
        return None
    landed = settling.view.rewards.landed
    return {
        "epoch": landed.epoch,
        "adopted_epoch": node.machine.base.epoch,
        "root": landed.totals_root.hex(),
        "settled_s": landed.settled_s,
        "total_earned_nanoton": landed.total_earned_nanoton,
    }
