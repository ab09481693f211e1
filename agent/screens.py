"""Texts for people: the agent's status and the pool's, from the same trees that `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.model import NANO, OperatorSet, Participant, PoolState, RewardsState


def ton(nanoton: int) -> str:
    """An amount for people: TON with three decimals."""
    return f"{nanoton / NANO:,.3f} TON"


def ton_exact(nanoton: int) -> str:
    """An amount to the last nanoTON: whole TON and as many decimals as it has."""
    whole, rest = divmod(nanoton, NANO)
    return (f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)) + " TON"


def status_text(status: dict[str, Any]) -> str:
    """The status of a running agent, a line a concern; what is wrong comes with its reason."""
    chain, evidence, work, close, settled = (status[key] for key in ("chain", "evidence", "work", "close", "settled"))
    peers = [peer for peer in status["peers"] if peer["in_roster"]]
    connected = sum(peer["connected"] for peer in peers)
    lines = [
        f"agent     {status['version']}, up {status['uptime_s']} s, node {status['node_key'][:16]}",
        f"chain     {_chain_text(chain)}",
        f"peers     {connected} of {len(peers)} connected",
        f"evidence  {_evidence_text(evidence, status['time_s'])}",
        f"work      {work['tokens']:,} tokens in {work['tasks']:,} tasks since start, log at record {work['head']}"
        + (f"; {work['error']}" if work["error"] else ""),
    ]
    if chain is not None and chain["seqno"] is not None and not status["is_registered"]:
        lines.append("registry  this node key is not registered and earns nothing: gpupool pool register")
    if not status["is_own_log_known"]:
        lines.append("log       waiting for operators to say how far they know it")
    if close is not None:
        view = "-" if close["view"] is None else close["view"]
        lines.append(
            f"close     epoch {close['epoch']}: view {view}, {close['observations']} observations, "
            f"attested {close['attested_weight']} of {close['total_weight']}"
            + (", certified" if close["certified"] else "")
        )
    if settled is not None:
        lines.append(f"settled   epoch {settled['epoch']}, root {settled['root'][:16]}")
    return "\n".join(lines)


def _chain_text(chain: dict[str, Any] | None) -> str:
    if chain is None or chain["seqno"] is None:
        return "not reached yet"
    text = f"block {chain['seqno']}, {chain['age_s']} s old; epoch {chain['epoch']}"
    return text + (f"; {chain['error']}" if chain["error"] else "")


def _evidence_text(evidence: dict[str, Any] | None, now_s: int) -> str:
    if evidence is None:
        return "none yet"
    if evidence["valid"]:
        return f"valid for {evidence['valid_until_s'] - now_s} s"
    return f"none: {evidence['error'] or 'being made'}"


def operators_value(operators: OperatorSet, participants: Sequence[Participant]) -> dict[str, Any]:
    """An operator set that is about to be, as JSON."""
    addresses = {p.node_key: str(p.address) for p in participants}
    return {
        "total_weight": operators.total_weight,
        "operators": [
            {"node_key": o.node_key.hex(), "address": addresses[o.node_key], "weight": o.weight}
            for o in operators.operators
        ],
    }


def operators_text(value: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{len(value['operators'])} operators, total weight {value['total_weight']}:"]
    lines += [f"  {o['node_key']}  weight {o['weight']}  {o['address']}" for o in value["operators"]]
    return "\n".join(lines)


def pool_value(state: PoolState, rewards: RewardsState, participants: Sequence[Participant]) -> dict[str, Any]:
    """The pool as JSON."""
    operators = state.operator_set
    return {
        "owner": str(state.owner),
        "phase": "operators" if operators is not None else "owner",
        "policy_hash": state.policy_hash.hex(),
        "fee_bps": state.fee_bps,
        "epoch": rewards.current_epoch,
        "epoch_end_s": rewards.current_end_s,
        "received_nanoton": rewards.received_nanoton,
        "liabilities_nanoton": rewards.liabilities_nanoton,
        "distributed_nanoton": rewards.distributed_nanoton,
        "pending_fees_nanoton": rewards.pending_fees_nanoton,
        "open_epochs": [{"epoch": e.epoch, "pot_nanoton": e.pot_nanoton} for e in rewards.open_epochs],
        "settled_epoch": rewards.landed.epoch,
        "settled_root": rewards.landed.totals_root.hex(),
        "total_earned_nanoton": rewards.landed.total_earned_nanoton,
        "participants": [
            {
                "address": str(p.address),
                "node_key": p.node_key.hex(),
                "stake_nanoton": p.stake_nanoton,
                "status": p.status.name.lower(),
                "operator": operators is not None and operators.index_of(p.node_key) is not None,
                "paid_nanoton": rewards.paid_nanoton.get(p.address.account, 0),
            }
            for p in participants
        ],
    }


def pool_text(pool: dict[str, Any]) -> str:
    """The pool for people."""
    lines = [
        f"run by    {'its operators' if pool['phase'] == 'operators' else 'its owner ' + pool['owner']}",
        f"epoch     {pool['epoch']}, received {ton(pool['received_nanoton'])}",
        f"settled   epoch {pool['settled_epoch']}, root {pool['settled_root'][:16]}",
        f"paid      {ton(pool['distributed_nanoton'])} of {ton(pool['total_earned_nanoton'])} earned",
    ]
    lines += [
        f"  {p['address']}  stake {ton(p['stake_nanoton'])}  {p['status']}{', operator' if p['operator'] else ''}"
        f"  paid {ton(p['paid_nanoton'])}"
        for p in pool["participants"]
    ]
    return "\n".join(lines)
