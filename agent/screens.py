"""Texts for people: the agent's status and the pool's, from the same trees that `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from agent.texts import legible
from contracts.model import NANO, OperatorSet, Participant

REFUSALS_SHOWN = 8
PEERS_SHOWN = 16


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
    lines = [
        f"agent     {status['version']}, up {status['uptime_s']} s, node {status['node_key'][:16]}",
        f"chain     {_chain_text(chain)}",
        *(f"peers     {text}" for text in _peers_texts(status["peers"], status["reach"])),
        *(f"peers     {key}: {reason}" for key, reason in status["not_dialled"].items()),
        *(f"evidence  {text}" for text in _evidence_texts(evidence, status["time_s"])),
        f"work      {work['tokens']:,} tokens in {work['tasks']:,} tasks since start, log at record {work['head']}"
        + (f"; {work['error']}" if work["error"] else ""),
    ]
    lines += [f"pool      {text}" for text in _pool_texts(status["pool"])]
    lines += [f"policy    {text}" for text in _policy_texts(status["policies"], status["time_s"])]
    if status["entry"] is not None:
        lines.append(f"entry     {_entry_text(status['entry'])}")
    elif chain is not None and chain["seqno"] is not None:
        lines.append("entry     none: this node key is not registered and earns nothing: gpupool pool register")
    if not status["is_own_log_known"]:
        lines.append("log       waiting for operators to say how far they know it")
    if close is not None:
        view = "-" if close["view"] is None else close["view"]
        lines.append(
            f"close     epoch {close['epoch']}: view {view}, {close['observations']} observations, "
            f"attested {close['attested_weight']} of {close['total_weight']}"
            + (", certified" if close["certified"] else "")
            + (f", waiting for {close['waiting_for']} objects of others" if close["waiting_for"] else "")
        )
    if settled is not None:
        lines.append(f"settled   epoch {settled['epoch']}, root {settled['root'][:16]}")
    return "\n".join(lines)


def _chain_text(chain: dict[str, Any] | None) -> str:
    if chain is None or chain["seqno"] is None:
        return "not reached yet"
    text = f"block {chain['seqno']}, {chain['age_s']} s old; epoch {chain['epoch']}"
    return "; ".join([text, *(chain[key] for key in ("error", "clock") if chain[key])])


def _peers_texts(peers: Sequence[dict[str, Any]], reach: dict[str, int] | None) -> list[str]:
    """How many are connected, by role; what that is of the operators' weight; then each, those that are away first."""
    roster = [peer for peer in peers if peer["in_roster"]]
    counts = []
    for role in ("operator", "participant"):
        those = [peer for peer in roster if peer["role"] == role]
        if those:
            counts.append(f"{sum(peer['connected'] for peer in those)} of {len(those)} {role}s")
    lines = [f"{', '.join(counts) or 'nobody'} connected"]
    if reach is not None:
        lines[0] += f"; operators' weight in reach: {reach['weight']} of {reach['total_weight']}"
        if 3 * reach["weight"] <= 2 * reach["total_weight"]:
            lines.append("not more than two thirds of the operators' weight: as seen from here no epoch can settle")
    shown = sorted(roster, key=lambda peer: (peer["connected"], str(peer["role"])))
    lines += [f"{peer['node_key'][:16]} {_peer_text(peer)}" for peer in shown[:PEERS_SHOWN]]
    return lines + ([f"and {len(shown) - PEERS_SHOWN} more, see --json"] if len(shown) > PEERS_SHOWN else [])


def _peer_text(peer: dict[str, Any]) -> str:
    heard = "never heard" if peer["heard_ago_s"] is None else f"heard {peer['heard_ago_s']:.0f} s ago"
    rtt = "" if peer["rtt_ms"] is None or not peer["connected"] else f", rtt {peer['rtt_ms']} ms"
    source = f"address: {peer['address_from']}" if peer["address_from"] else "no address known"
    errors = "".join(f"; {legible(error)}" for error in peer["dial_errors"])
    return f"{peer['role']} {'connected' if peer['connected'] else 'AWAY'}, {heard}{rtt}, {source}{errors}"


def _pool_texts(pool: dict[str, Any] | None) -> list[str]:
    """What is out of the ordinary with the pool, and what it is about to change."""
    if pool is None:
        return []
    lines = []
    if pool["is_paused"]:
        until = "the operators resume it" if pool["status"] == "paused" else _utc(pool["paused_until_s"])
        lines.append(f"paused until {until}: nothing settles; claims and withdrawals go on")
    if pool["status"] == "closed":
        lines.append("closed for ever: what was earned can be claimed, stakes can be withdrawn")
    if pool["obstacle"]:
        lines.append(pool["obstacle"])
    for proposal in pool["proposals"]:
        what = f"{proposal['kind']} {proposal['target'] or ''}".strip().replace("_", " ")
        ready, expires = _utc(proposal["ready_s"]), _utc(proposal["expires_s"])
        lines.append(f"{what} {proposal['hash'][:16]}: can be applied from {ready} to {expires}")
    return lines


def _policy_texts(policies: list[dict[str, Any]], now_s: int) -> list[str]:
    """What has to be done about the pool's policy, and until when."""
    lines = []
    for policy in policies:
        if policy["is_held"]:
            continue
        name = policy["hash"][:16]
        if policy["epoch"] is None:
            when = f"proposed, not in force before {_utc(policy['from_s'])}"
        elif policy["from_s"] > now_s:
            when = f"in force from epoch {policy['epoch']} on, which begins {_utc(policy['from_s'])} or later"
        else:
            when = f"epoch {policy['epoch']} is counted by it, and this agent cannot attest"
        lines.append(f"{name} is not here ({when}): get its document, set pool.next_policy_file, restart")
    return lines


def _entry_text(entry: dict[str, Any]) -> str:
    parts = [f"{entry['status']}, stake {ton(entry['stake_nanoton'])}, reputation {entry['reputation']}"]
    if entry["pending_nanoton"]:
        parts.append(f"{ton(entry['pending_nanoton'])} of it asked back, paid from {_utc(entry['withdraw_at_s'])} on")
    if entry["held_nanoton"]:
        parts.append(f"{ton(entry['held_nanoton'])} slashed, open to appeal until {_utc(entry['held_until_s'])}")
    if entry["not_earning"]:
        parts.append(entry["not_earning"])
    return "; ".join(parts)


def _utc(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _evidence_texts(evidence: dict[str, Any], now_s: int) -> list[str]:
    """Own evidence, what is wrong with it, and how that of the others stands."""
    own = f"valid for {evidence['valid_until_s'] - now_s} s" if evidence["valid"] else "none in force"
    if evidence["valid"] and evidence["own"] is not None and evidence["own"]["valid"]:
        own += f" ({evidence['own']['tcb_status']}, {evidence['own']['measurement']})"
    lines = [own]
    if evidence["alarm"]:
        lines.append(legible(evidence["alarm"]))
    elif not evidence["valid"]:
        lines = ["being made"]
    if evidence["place_taken_by"]:
        lines.append(
            f"{evidence['place_taken_by'][:16]} holds the place on this machine: work here earns nothing, for the pool "
            "lets only so many nodes earn on one machine (work.machine_nodes_max)"
        )
    if evidence["collateral_error"]:
        lines.append(f"collateral is not renewed: {legible(evidence['collateral_error']['message'])}")
    peers, settled, missing = evidence["peers"], evidence["settled"], len(evidence["missing"])
    if peers or settled or missing:
        held = sum(peer["valid"] for peer in peers.values())
        since = f" ({len(settled)} as settled, the first until {_utc(min(settled.values()))})" if settled else ""
        refused = f"{len(peers) - held} refused or ran out"
        lines.append(f"of others: {held + len(settled)} in force{since}, {refused}, {missing} not seen")
    lines += [
        f"{node_key[:16]} {_refusal_text(peer)}" for node_key, peer in peers.items() if peer["error"] is not None
    ][:REFUSALS_SHOWN]
    return lines


def _refusal_text(standing: dict[str, Any]) -> str:
    error = standing["error"]
    if error["code"] == "anchor_stale":
        return f"ran out at {_utc(standing['valid_until_s'])}, and no newer came"
    return f"refused ({error['code']}): {legible(error['message'])}"


def operators_value(operators: OperatorSet, participants: Sequence[Participant]) -> dict[str, Any]:
    """An operator set that is about to be, as JSON."""
    entries = {p.node_key: p for p in participants}
    return {
        "total_weight": operators.total_weight,
        "operators": [
            {
                "node_key": o.node_key.hex(),
                "address": str(entries[o.node_key].address),
                "status": entries[o.node_key].status.name.lower(),
                "weight": o.weight,
            }
            for o in operators.operators
        ],
    }


def operators_text(value: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{len(value['operators'])} operators, total weight {value['total_weight']}:"]
    lines += [f"  {o['node_key']}  weight {o['weight']}  {o['status']}  {o['address']}" for o in value["operators"]]
    return "\n".join(lines)
