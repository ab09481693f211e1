"""Texts for people: the agent's status and the pool's, from the same trees that `--json` prints.

The status comes from whatever holds the agent's port: it is shown part by part, each checked first
(`agent.status_parts`). A part that is not there, or has another form, is named in place of being shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent import status_parts as parts
from agent.errors import OperationError
from agent.invoking import spelled
from agent.texts import legible, one_line
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


def aligned(table: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """The lines of a table (rows of equal length, at least one): its first `left` columns to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in table
    ]


def status_text(status: Mapping[str, Any], config: Path) -> str:
    """The status of the agent of the settings `config`, a line a concern; what is wrong comes with its reason.

    Raises:
        OperationError: it is no agent's status.
    """
    try:
        agent = msgspec.convert(status, parts.AgentPart)
    except msgspec.ValidationError as error:
        raise OperationError(f"what answers is not an agent ({error}); see web.port") from error
    version, node_key = legible(agent["version"]), legible(agent["node_key"][:16])
    lines, untold = [f"agent     {version}, up {agent['uptime_s']} s, node {node_key}"], []
    for name, form, texts in _PARTS:
        try:
            part = msgspec.convert(status, form)
        except msgspec.ValidationError:
            untold.append(name)
        else:
            lines += [f"{name:<10}{one_line(spelled(text, config))}" for text in texts(part)]
    if untold:
        names = ", ".join(untold)
        lines.insert(
            1,
            f"agent     the agent that runs is of version {version}, and does not tell of {names} as this command "
            "expects: restart it",
        )
    return "\n".join(lines)


def _source_texts(part: parts.SourcesPart) -> list[str]:
    """How each source stands, and what it wants its operator to know."""
    texts = []
    for source in part["sources"]:
        name = source["source"] + (f"-{source['instance']}" if source["instance"] else "")
        texts.append(f"{name}: {legible(source['error'] or source['provenance'] or 'not read yet')}")
        texts += [f"{name}: {legible(note)}" for note in source["notes"]]
    return texts


def _own_texts(part: parts.OwnPart) -> list[str]:
    """What this node got of the last settled epoch, why not more, and what is still to be claimed."""
    own, claimable_nanoton = part["own"], part["claimable_nanoton"]
    if own is None:
        return []
    score, total_score = own["score"], own["total_score"]
    share = 100 * min(max(score, 0), total_score) / total_score if total_score > 0 else 0.0
    metered = "" if own["metered_tokens"] is None else f" of {own['metered_tokens']:,} metered"
    texts = [f"epoch {own['epoch']}: {own['tokens']:,} tokens credited{metered}, share {share:.1f} %"]
    # Where it is not known what was metered, nothing is known to be less.
    lead = "" if own["metered_tokens"] is None else "less, as "
    texts += [lead + reason for reason in own["reasons"]]
    if claimable_nanoton:
        texts.append(f"{ton(claimable_nanoton)} to be claimed: gpupool pool claim")
    return texts


def _chain_texts(part: parts.ChainPart) -> list[str]:
    chain = part["chain"]
    if chain is None or chain["seqno"] is None:
        return ["not reached yet"]
    text = f"block {chain['seqno']}, {chain['age_s']} s old; epoch {chain['epoch']}"
    return ["; ".join([text, *(reason for reason in (chain["error"], chain["clock"]) if reason)])]


def _peers_texts(part: parts.PeersPart) -> list[str]:
    """How many are connected, by role; what that is of the operators' weight; then each, those that are away first."""
    roster, reach = [peer for peer in part["peers"] if peer["in_roster"]], part["reach"]
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
    if len(shown) > PEERS_SHOWN:
        lines.append(f"and {len(shown) - PEERS_SHOWN} more, see --json")
    return lines + [f"{key}: {reason}" for key, reason in part["not_dialled"].items()]


def _peer_text(peer: parts.Peer) -> str:
    heard = "never heard" if peer["heard_ago_s"] is None else f"heard {peer['heard_ago_s']:.0f} s ago"
    rtt = "" if peer["rtt_ms"] is None or not peer["connected"] else f", rtt {peer['rtt_ms']} ms"
    source = f"address: {peer['address_from']}" if peer["address_from"] else "no address known"
    errors = "".join(f"; {legible(error)}" for error in peer["dial_errors"])
    return f"{peer['role']} {'connected' if peer['connected'] else 'AWAY'}, {heard}{rtt}, {source}{errors}"


def pool_texts(part: parts.PoolPart) -> list[str]:
    """What is out of the ordinary with the pool, and what it is about to change."""
    pool = part["pool"]
    if pool is None:
        return []
    lines = []
    if pool["is_paused"]:
        until_s = pool["paused_until_s"]
        until = "the operators resume it" if pool["status"] == "paused" or until_s is None else _utc(until_s)
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


def policy_texts(part: parts.PoliciesPart) -> list[str]:
    """What has to be done about the pool's policy, and until when."""
    lines = []
    for policy in part["policies"]:
        if policy["is_held"]:
            continue
        name = policy["hash"][:16]
        if policy["epoch"] is None:
            when = f"proposed, not in force before {_utc(policy['from_s'])}"
        elif policy["from_s"] > part["time_s"]:
            when = f"in force from epoch {policy['epoch']} on, which begins {_utc(policy['from_s'])} or later"
        else:
            when = f"epoch {policy['epoch']} is counted by it, and this agent cannot attest"
        lines.append(f"{name} is not here ({when}): get its document, set pool.next_policy_file, restart")
    return lines


def _entry_texts(part: parts.EntryPart) -> list[str]:
    entry, chain = part["entry"], part["chain"]
    if entry is None:
        is_known = chain is not None and chain["seqno"] is not None
        return ["none: this node key is not registered and earns nothing: gpupool pool register"] if is_known else []
    texts = [f"{entry['status']}, stake {ton(entry['stake_nanoton'])}, reputation {entry['reputation']}"]
    if entry["withdraw_at_s"] is not None:
        texts.append(f"{ton(entry['pending_nanoton'])} of it asked back, paid from {_utc(entry['withdraw_at_s'])} on")
    if entry["held_until_s"] is not None:
        texts.append(f"{ton(entry['held_nanoton'])} slashed, open to appeal until {_utc(entry['held_until_s'])}")
    if entry["not_earning"]:
        texts.append(entry["not_earning"])
    return ["; ".join(texts)]


def _log_texts(part: parts.LogPart) -> list[str]:
    return [] if part["is_own_log_known"] else ["waiting for operators to say how far they know it"]


def _work_texts(part: parts.WorkPart) -> list[str]:
    work = part["work"]
    rate = work.get("tokens_per_s")
    text = f"{work['tokens']:,} tokens in {work['tasks']:,} tasks since start, log at record {work['head']}"
    text += "" if rate is None else f"; {rate:,.1f} tokens/s in the last window"
    return ["; ".join([text, *([work["error"]] if work["error"] else [])])]


def _close_texts(part: parts.ClosePart) -> list[str]:
    close = part["close"]
    if close is None:
        return []
    view = "-" if close["view"] is None else close["view"]
    return [
        f"epoch {close['epoch']}: view {view}, {close['observations']} observations, "
        f"attested {close['attested_weight']} of {close['total_weight']}"
        + (", certified" if close["certified"] else "")
        + (f", waiting for {close['waiting_for']} objects of others" if close["waiting_for"] else "")
    ]


def _settled_texts(part: parts.SettledPart) -> list[str]:
    settled = part["settled"]
    return [] if settled is None else [f"epoch {settled['epoch']}, root {settled['root'][:16]}"]


def books_texts(part: parts.BooksPart) -> list[str]:
    """The alarm, or what the sides say that are known besides the own counters."""
    books = part["reconciliation"]
    if books is None or books["alarm"]:
        return [] if books is None else [str(books["alarm"])]
    sides = {"in receipts": books.get("receipts"), "paid on chain": books.get("paid")}
    others = [f"{amount:,} {name}" for name, amount in sides.items() if amount is not None]
    if not others:
        return []
    return [
        ", ".join([f"{books.get('metered', 0):,} tokens metered", *others]) + f" in {books.get('epochs', 0)} epochs"
    ]


def _utc(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _evidence_texts(part: parts.EvidencePart) -> list[str]:
    """Own evidence, what is wrong with it, and how that of the others stands."""
    evidence, until_s, own = part["evidence"], part["evidence"]["valid_until_s"], part["evidence"]["own"]
    is_valid = evidence["valid"] and until_s is not None
    lines = ["none in force" if not is_valid or until_s is None else f"valid for {until_s - part['time_s']} s"]
    if is_valid and own is not None and own["valid"]:
        lines[0] += f" ({own.get('tcb_status')}, {own.get('measurement')})"
    if evidence["alarm"]:
        lines.append(legible(evidence["alarm"]))
    elif not is_valid:
        lines = ["being made"]
    if evidence["place_taken_by"]:
        what, why = "this machine", "the pool lets only so many nodes earn on one machine (work.machine_nodes_max)"
        if evidence.get("is_gpu_taken"):
            what, why = "a GPU that this host proves", "one node alone earns with a GPU"
        holder = evidence["place_taken_by"][:16]
        lines.append(f"{holder} holds the place on {what}: work here earns nothing, for {why}")
    if evidence["collateral_error"]:
        lines.append(f"collateral is not renewed: {legible(evidence['collateral_error']['message'])}")
    peers, settled, missing = evidence["peers"], evidence["settled"], len(evidence["missing"])
    if peers or settled or missing:
        held = sum(peer["valid"] for peer in peers.values())
        since = f" ({len(settled)} as settled, the first until {_utc(min(settled.values()))})" if settled else ""
        refused = f"{len(peers) - held} refused or ran out"
        lines.append(f"of others: {held + len(settled)} in force{since}, {refused}, {missing} not seen")
    refusals = ((node_key, _refusal_text(peer)) for node_key, peer in peers.items())
    lines += [f"{node_key[:16]} {text}" for node_key, text in refusals if text is not None][:REFUSALS_SHOWN]
    return lines


def _refusal_text(standing: parts.Standing) -> str | None:
    """Why evidence of another node does not count; None if it does."""
    error = standing.get("error")
    if error is None:
        return None
    if error["code"] == "anchor_stale" and "valid_until_s" in standing:
        return f"ran out at {_utc(standing['valid_until_s'])}, and no newer came"
    return f"refused ({error['code']}): {legible(error.get('message', 'no reason given'))}"


_PARTS: tuple[tuple[str, Any, Callable[[Any], list[str]]], ...] = (
    ("chain", parts.ChainPart, _chain_texts),
    ("peers", parts.PeersPart, _peers_texts),
    ("evidence", parts.EvidencePart, _evidence_texts),
    ("work", parts.WorkPart, _work_texts),
    ("source", parts.SourcesPart, _source_texts),
    ("pool", parts.PoolPart, pool_texts),
    ("policy", parts.PoliciesPart, policy_texts),
    ("entry", parts.EntryPart, _entry_texts),
    ("log", parts.LogPart, _log_texts),
    ("close", parts.ClosePart, _close_texts),
    ("settled", parts.SettledPart, _settled_texts),
    ("own part", parts.OwnPart, _own_texts),
    ("books", parts.BooksPart, books_texts),
)
"""What a line begins with, what it is read from, and its text; in the order of the screen."""


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
