"""`gpupool pool status`: a pool's three contracts as they stand on chain."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from agent.output import answer
from agent.pool.access import with_session
from agent.pool.session import PoolSession
from agent.pool.values import changes, legible, plain, utc
from agent.screens import ton_exact
from contracts.model import (
    NANO,
    Address,
    CertificateKind,
    Participant,
    PoolState,
    Proposal,
    RegistryState,
    RewardsState,
)

STORAGE_LOW_NANOTON = NANO * 3 // 10
"""Below it somebody has to look after a contract's storage: a year's rent of a pool with many operators."""
APPLIED_BY = {"set": "set accept FILE", "params": "params apply", "upgrade": "upgrade apply FILE"}
"""The verb that puts a proposal of a kind in force."""


def status(options: argparse.Namespace) -> int:
    """Show the pool on chain."""

    async def show(session: PoolSession) -> int:
        reader = session.reader
        block = await session.chain.head()
        state, rewards, registry = (
            await reader.state(block),
            await reader.rewards(block),
            await reader.registry_state(block),
        )
        value = pool_value(session.pool, state, rewards, registry, block.time_s)
        owed = {
            session.pool: 0,
            state.registry: registry.total_stake_nanoton + registry.slashed_nanoton,
            state.rewards: rewards.liabilities_nanoton,
        }
        own = [(await session.chain.account(each, block)).balance_nanoton - owed[each] for each in owed]
        value["storage_nanoton"] = dict(zip(("pool", "registry", "rewards"), own, strict=True))
        return answer(options, value, pool_text(value))

    return with_session(options, show)


def pool_value(
    pool: Address, state: PoolState, rewards: RewardsState, registry: RegistryState, now_s: int
) -> dict[str, Any]:
    """The pool as JSON, at the chain's time `now_s`."""
    operators = state.operator_set
    return {
        "pool": str(pool),
        "time_s": now_s,
        "owner": str(state.owner),
        "registry": str(state.registry),
        "rewards": str(state.rewards),
        "phase": "operators" if operators is not None else "owner",
        "status": state.status.name.lower(),
        "is_paused": state.is_paused(now_s),
        "paused_until_s": state.paused_until_s or None,
        "registration_open": state.registration_open,
        "metadata": plain(state.metadata),
        "gov_seqno": state.gov_seqno,
        "params": plain(state.params),
        "operator_set": None if operators is None else _set_value(operators.set_id, len(operators.operators)),
        "previous_set_id": None if state.previous_set is None else state.previous_set.set_id,
        "proposals": [proposal_value(each, state, now_s) for each in state.pending],
        "policy_hash": state.policy_hash.hex(),
        "fee_bps": state.params.terms.fee_bps,
        "epoch": rewards.current_epoch,
        "epoch_end_s": rewards.current_end_s,
        "received_nanoton": rewards.received_nanoton,
        "received_ever_nanoton": rewards.received_before_nanoton + rewards.received_nanoton,
        "liabilities_nanoton": rewards.liabilities_nanoton,
        "distributed_nanoton": rewards.distributed_nanoton,
        "pending_fees_nanoton": rewards.pending_fees_nanoton,
        "fees_collected_nanoton": rewards.fees_collected_nanoton,
        "open_epochs": [
            {"epoch": e.epoch, "pot_nanoton": e.pot_nanoton, "set_id": e.set_id} for e in rewards.open_epochs
        ],
        "settled_epoch": rewards.landed.epoch,
        "settled_root": rewards.landed.totals_root.hex(),
        "total_earned_nanoton": rewards.landed.total_earned_nanoton,
        "tasks": state.tasks,
        "tokens": state.tokens,
        "active_count": registry.active_count,
        "pooled_stake_nanoton": registry.total_stake_nanoton,
        "pending_stake_nanoton": registry.total_pending_nanoton,
        "slashed_nanoton": registry.slashed_nanoton,
        "participants": [_participant_value(each, state, rewards) for each in registry.participants],
    }


def _set_value(set_id: int, count: int) -> dict[str, int]:
    return {"set_id": set_id, "operators": count}


def proposal_value(proposal: Proposal, state: PoolState, now_s: int) -> dict[str, Any]:
    """A proposal as JSON: what it would change, and when it can be applied."""
    ready_s, expires_s = proposal.ready_s(state.params), proposal.expires_s(state.params)
    is_upgrade = proposal.kind is CertificateKind.PROPOSE_UPGRADE
    return {
        "kind": proposal.kind.name.lower().removeprefix("propose_"),
        "target": proposal.target.name.lower() if is_upgrade else None,
        "hash": proposal.hash.hex(),
        "since_s": proposal.since_s,
        "ready_s": ready_s,
        "expires_s": expires_s,
        "can_be_applied": ready_s <= now_s <= expires_s,
        "is_expired": now_s > expires_s,
        "params": None if proposal.params is None else plain(proposal.params),
        "changes": [] if proposal.params is None else changes(state.params, proposal.params),
    }


def _participant_value(entry: Participant, state: PoolState, rewards: RewardsState) -> dict[str, Any]:
    operators = state.operator_set
    return {
        "address": str(entry.address),
        "node_key": entry.node_key.hex(),
        "status": entry.status.name.lower(),
        "operator": operators is not None and operators.index_of(entry.node_key) is not None,
        "reputation": entry.reputation,
        "stake_nanoton": entry.stake_nanoton,
        "pending_nanoton": entry.pending_nanoton,
        "withdraw_at_s": entry.withdraw_at_s if entry.pending_nanoton else None,
        "held_nanoton": entry.held_nanoton,
        "held_until_s": entry.held_until_s if entry.held_nanoton else None,
        "worker": None if entry.worker is None else str(entry.worker),
        "joined_s": entry.joined_s,
        "paid_nanoton": rewards.paid_nanoton.get(entry.address.account, 0),
    }


def pool_text(pool: Mapping[str, Any]) -> str:
    """The pool for people."""
    run_by = "its owner " + pool["owner"]
    if pool["operator_set"] is not None:
        run_by = f"its operators: set {pool['operator_set']['set_id']} of {pool['operator_set']['operators']}"
    name = pool["metadata"]["name"]
    out = [
        *([f"name      {legible(name)}"] if name else []),
        f"pool      {pool['pool']}",
        f"registry  {pool['registry']}",
        f"rewards   {pool['rewards']}",
        f"run by    {run_by}",
        f"status    {_status_text(pool)}",
        *_epoch_texts(pool),
        f"paid      {ton_exact(pool['distributed_nanoton'])} of {ton_exact(pool['total_earned_nanoton'])} earned; "
        f"operators' fees {ton_exact(pool['pending_fees_nanoton'])} due, "
        f"{ton_exact(pool['fees_collected_nanoton'])} collected",
        f"stakes    {ton_exact(pool['pooled_stake_nanoton'])}, of it {ton_exact(pool['pending_stake_nanoton'])} asked "
        f"back; {ton_exact(pool['slashed_nanoton'])} slashed and held",
    ]
    out += _storage_texts(pool["storage_nanoton"])
    for proposal in pool["proposals"]:
        out += proposal_lines(proposal)
    return "\n".join([*out, *(_participant_text(each) for each in pool["participants"])])


def _epoch_texts(pool: Mapping[str, Any]) -> list[str]:
    """The running epoch, those that wait for their settlement, and what was settled."""
    over = "; it is over: anybody can `gpupool pool finalize` it" if pool["time_s"] >= pool["epoch_end_s"] else ""
    received = ton_exact(pool["received_nanoton"])
    out = [f"epoch     {pool['epoch']} until {utc(pool['epoch_end_s'])}, received {received}{over}"]
    out += [
        f"open      epoch {each['epoch']}, pot {ton_exact(each['pot_nanoton'])}: the operators' agents settle it"
        for each in pool["open_epochs"]
    ]
    if pool["settled_epoch"] == 0:
        return [*out, "settled   none so far"]
    return [
        *out,
        f"settled   epoch {pool['settled_epoch']}, root {pool['settled_root'][:16]}; "
        f"{pool['tokens']:,} tokens in {pool['tasks']:,} tasks ever",
    ]


def _storage_texts(own: Mapping[str, int]) -> list[str]:
    """What each contract has beside what it owes: the rent of its storage is taken from it."""
    out = ["storage   " + ", ".join(f"{name} {ton_exact(own[name])}" for name in own)]
    low = [name for name in own if own[name] < STORAGE_LOW_NANOTON]
    if low:
        out += [f"  rent eats the {name} contract's balance: `gpupool pool top-up {name} 1`" for name in low]
    return out


def proposal_lines(proposal: Mapping[str, Any]) -> list[str]:
    """A proposal for people: a line, and one for each parameter that it would change."""
    what = " of the ".join(part for part in (proposal["kind"], proposal["target"]) if part)
    when = "now" if proposal["can_be_applied"] else f"from {utc(proposal['ready_s'])}"
    head = (
        f"proposed  {what} {proposal['hash'][:16]}: can be applied {when}, until {utc(proposal['expires_s'])}, "
        f"by `gpupool pool {APPLIED_BY[proposal['kind']]}`"
    )
    if proposal["is_expired"]:
        head = f"proposed  {what} {proposal['hash'][:16]}: expired {utc(proposal['expires_s'])}"
    return [head, *(f"  {change}" for change in proposal["changes"])]


def _status_text(pool: Mapping[str, Any]) -> str:
    text: str = pool["status"]
    if pool["status"] == "paused":
        text += " until a `gpupool pool resume`"
    elif pool["is_paused"]:
        text += f", paused by the guardian until {utc(pool['paused_until_s'])}"
    return text + (", registration open" if pool["registration_open"] else ", registration shut")


def _participant_text(entry: Mapping[str, Any]) -> str:
    parts = [
        f"  {entry['address']}  {entry['status']}{', operator' if entry['operator'] else ''}",
        f"stake {ton_exact(entry['stake_nanoton'])}",
        f"paid {ton_exact(entry['paid_nanoton'])}",
        f"reputation {entry['reputation']}",
    ]
    if entry["pending_nanoton"]:
        parts.append(f"withdraws {ton_exact(entry['pending_nanoton'])} from {utc(entry['withdraw_at_s'])}")
    if entry["held_nanoton"]:
        parts.append(f"slashed {ton_exact(entry['held_nanoton'])}, appeal until {utc(entry['held_until_s'])}")
    return "  ".join(parts)
