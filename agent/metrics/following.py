"""Brings the metrics up to date that follow what others keep: the services' own state, the chain's, files.

Decides nothing; what is counted as it happens is counted where it happens. A part that is not up yet leaves its
metrics absent. It begins with the agent, not with the chain: an agent that waits is watched, too.

Untrusted: what peers and the chain say; labels are bounded in `agent.metrics.kinds`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from agent.errors import KeyFileError
from agent.keys.marker import last_backup
from agent.ledger import ledger_file
from agent.measuring import Measured, source_name
from agent.memory import memory_use
from agent.metrics.registry import Metrics
from agent.policies import settlement_due_s
from agent.standings import settled_evidence
from agent.status import place_holder
from agent.verdicts import Verdicts
from agent.versions import count_versions
from contracts import fees
from contracts.model import NANO, Participant, ParticipantStatus, PoolStatus
from gossip.audit import Flag
from gossip.coverage import BARRED
from gossip.hello import PROTOCOLS, TALLIES
from gossip.node import Node
from gossip.policy import PoolPolicy
from gossip.records import Source, Unit

if TYPE_CHECKING:
    from agent.daemon import Agent
    from agent.gossiping import Gossiping
    from agent.settling import Settling

FOLLOW_S = 2.0


async def follow_agent(agent: Agent) -> None:
    """Keep the metrics of this agent up to date, for ever. Cancelled, it leaves nothing behind."""
    metrics = agent.metrics
    metrics.healthy.ask(lambda: agent.health.healthy() is None)
    metrics.ready.ask(lambda: agent.health.ready() is None)
    metrics.node.set(
        {
            "node_key": agent.key.public.hex()[:16],
            "network": str(agent.pool.network),
            "pool": f"0:{agent.pool.account.hex()}",
        }
    )
    metrics.protocol.set({"protocol": _versions(PROTOCOLS), "tally": _versions(TALLIES)})
    while True:
        update_metrics(agent, agent.now_s())
        _update_files(metrics, await trio.to_thread.run_sync(_look_at_files, agent))
        await trio.sleep(FOLLOW_S)


def update_metrics(agent: Agent, now_s: int) -> None:
    """Bring everything up to date that needs no disk; `now_s` are Unix seconds."""
    metrics, settling, node = agent.metrics, agent.settling, agent.node
    update_memory(metrics)
    _update_sources(metrics, agent.measuring.measured, agent.policies.in_force)
    _update_receipts(agent)
    metrics.own_log_known.set(agent.is_own_log_known)
    if settling is not None:
        _update_servers(metrics, settling)
        _update_settlement(agent, settling)
    if settling is not None and settling.view.state is not None:
        _update_pool(metrics, settling, agent.key.public)
        update_entry(metrics, agent.entry)
        _update_worker(agent)
    _update_earnings(agent)
    if node is not None:
        update_records(metrics, node)
        update_evidence(metrics, node, agent.verdicts, now_s)
        _update_own_evidence(agent, now_s)
    if agent.gossiping is not None:
        update_peers(metrics, agent.gossiping, now_s)
        update_versions(metrics, agent.gossiping, now_s)


def update_memory(metrics: Metrics) -> None:
    """The memory that this process may have."""
    use = memory_use()
    metrics.memory_used.set(None if use is None else use.used_bytes)
    metrics.memory_limit.set(None if use is None else use.limit_bytes)


def _update_sources(metrics: Metrics, measured: Measured, policy: PoolPolicy) -> None:
    work = policy.work
    up, read, notes = {}, {}, {}
    for place, view in measured.sources.items():
        kind = Source(place[0]).name.lower()
        named = (source_name(place), kind, "true" if place[0] == work.kind else "false")
        if view.sample is not None or view.error is not None:
            up[named] = int(view.error is None)
        if view.sampled_s is not None:
            read[named] = view.sampled_s
        if view.sample is not None:
            notes[named[:2]] = len(view.sample.notes)
    metrics.source_up.replace(up)
    metrics.source_read.replace(read)
    metrics.source_notes.replace(notes)
    metrics.sources_counted.set(sum(place[0] == work.kind for place in measured.sources))
    metrics.tokens.follow(measured.amount(work.kind, work.token_units))
    metrics.tasks.follow(measured.amount(work.kind, [Unit.TASK]))


def _update_receipts(agent: Agent) -> None:
    metrics = agent.metrics
    metrics.receipts_required.set(agent.policies.in_force.receipts.ceiling == "receipts")
    if agent.config.receipts is not None:
        metrics.receipts_listening.set(agent.receipts_error is None)


def _update_servers(metrics: Metrics, settling: Settling) -> None:
    standing = settling.servers()
    metrics.liteservers.set(standing.known)
    metrics.liteservers_failing.set(standing.failing)
    metrics.liteserver_conflicts.follow(standing.conflicts)


def _update_pool(metrics: Metrics, settling: Settling, own: bytes) -> None:
    state, rewards = settling.view.state, settling.view.rewards
    assert state is not None
    assert rewards is not None
    operators = state.operator_set
    is_operator = operators is not None and operators.index_of(own) is not None
    metrics.operators.set(0 if operators is None else len(operators.operators))
    metrics.operator.set(is_operator)
    metrics.participants.set(len(settling.view.participants))
    metrics.pool_closed.set(state.status is PoolStatus.CLOSED)
    metrics.stake_min.set(state.params.rules.min_stake_nanoton / NANO)
    needed = fees.CLAIM_NANOTON
    if operators is not None and is_operator:
        needed = fees.submit_nanoton(len(operators.operators))
    metrics.wallet_needed.set(needed / NANO)
    metrics.epoch_end.set(rewards.current_end_s)
    metrics.epoch_duration.set(rewards.epoch_duration_s)
    metrics.open_epochs.set(len(rewards.open_epochs))
    metrics.chain_settled_epoch.set(rewards.landed.epoch)


def _update_settlement(agent: Agent, settling: Settling) -> None:
    due_s = None
    open_epochs = settling.open_epochs()
    if open_epochs:
        policy = agent.policies.get(open_epochs[0].policy_hash) or agent.policies.in_force
        due_s = settlement_due_s(open_epochs[0].end_s, policy.timing)
    agent.metrics.settlement_due.set(due_s)
    agent.metrics.close_hindered.set(settling.view.obstacle is not None)


def update_entry(metrics: Metrics, entry: Participant | None) -> None:
    """The own registry entry; None: there is none."""
    metrics.entry_state.set("absent" if entry is None else ParticipantStatus(entry.status).name.lower())
    metrics.earning.set(entry is not None and entry.status not in BARRED)
    metrics.stake.set(entry.stake_nanoton / NANO if entry is not None else 0)
    metrics.stake_withdrawing.set(entry.pending_nanoton / NANO if entry is not None else 0)
    metrics.slashed_held.set(entry.held_nanoton / NANO if entry is not None else 0)


def _update_worker(agent: Agent) -> None:
    """The own worker contract, in a pool that counts by such."""
    state, entry = None, agent.entry
    if agent.policies.in_force.receipts.ceiling == "worker-contract" and entry is not None:
        state = "unset" if entry.worker is None else agent.books.worker_state
    agent.metrics.worker_state.set(state)


def _update_earnings(agent: Agent) -> None:
    """What the last settlement that is known here gave this node, and what the chain paid of it."""
    metrics, own, entry = agent.metrics, agent.books.own, agent.entry
    rewards = agent.settling.view.rewards if agent.settling is not None else None
    reconciliation = agent.books.reconciliation
    metrics.reconciliation_alarm.set(None if reconciliation is None else reconciliation.alarm is not None)
    if own is None or entry is None or rewards is None:
        return
    paid = rewards.paid_nanoton.get(entry.address.account, 0)
    metrics.earned.follow(own["earned_nanoton"] / NANO)
    metrics.paid.follow(paid / NANO)
    metrics.claimable.set(max(0, own["earned_nanoton"] - paid) / NANO)
    metrics.own_score.set(own["score"] / own["total_score"] if own["total_score"] else 0)
    metrics.own_credited.set(own["tokens"])
    metrics.own_metered.set(own["metered_tokens"])
    metrics.audit_flags.replace({str(flag.name).lower(): int(bool(own["flags"] & flag)) for flag in Flag})


def update_records(metrics: Metrics, node: Node) -> None:
    """The own log and those of others, and the close of the open epoch."""
    metrics.dropped.follow(node.drops)
    metrics.records.follow(node.placed)
    own = node.logs[node.key.public]
    metrics.log_head.set(own.head.seq)
    metrics.own_log_dead.set(own.is_dead or own.fork is not None)
    progress = node.machine.progress()
    metrics.view.set(0 if progress is None or progress.view is None else progress.view)
    metrics.attested_weight.set(0 if progress is None else progress.attested_weight)
    if progress is not None:
        metrics.quorum_weight.set(2 * progress.total_weight // 3 + 1)


def update_evidence(metrics: Metrics, node: Node, verdicts: Verdicts, now_s: int) -> None:
    """How everybody's evidence stands."""
    refusals = [standing.refusal(now_s) for standing in verdicts.standings.values()]
    settled = settled_evidence(node.registered, verdicts.standings, node.machine.base, now_s)
    metrics.evidence_held.set(refusals.count(None) + len(settled))
    metrics.evidence_refused.replace(Counter(refusal.code for refusal in refusals if refusal is not None))


def _update_own_evidence(agent: Agent, now_s: int) -> None:
    metrics, found = agent.metrics, agent.attesting.status(agent.key.public, now_s)
    own = found["own"] or {}
    errors = [error for error in (found["error"], own.get("error")) if error is not None]
    metrics.evidence_valid.set(found["valid"])
    metrics.evidence_valid_until.set(found["valid_until_s"])
    metrics.evidence_own_refused.replace({error["code"] or "unknown": 1 for error in errors})
    metrics.collateral_failing.set(found["collateral_error"] is not None)
    metrics.place_taken.set(place_holder(agent, now_s) is not None)
    metrics.evidence.set(_evidence_facts(own) if "tcb_status" in own else None)


def _evidence_facts(own: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(own[name]) for name in ("tcb_status", "measurement", "gpus")}


def update_peers(metrics: Metrics, gossiping: Gossiping, now_s: int) -> None:
    """With whom this node is connected, by role, and how much of the operators' weight."""
    roster, own = gossiping.roster, gossiping.node.key.public
    wanted, connected = roster.peers_of(own), Counter[str]()
    strangers = 0
    for peer in gossiping.transport.peers():
        name = peer.node_key.hex()[:16]
        if not peer.in_roster:
            strangers += peer.connected
            metrics.peer_last_heard.forget(name)
            continue
        if peer.connected:
            connected[_role(roster.operators, peer.node_key)] += 1
        if peer.last_heard_s is not None:
            metrics.peer_last_heard.set(name, now_s - (trio.current_time() - peer.last_heard_s))
    metrics.peers.replace(_by_role(Counter(_role(roster.operators, key) for key in wanted)))
    metrics.peers_connected.replace(_by_role(connected))
    metrics.strangers.set(strangers)
    reached, total = gossiping.reach()
    metrics.reachable_weight.set(reached)
    metrics.operators_weight.set(total)
    metrics.transport_events.follow(gossiping.transport.counters)


def update_versions(metrics: Metrics, gossiping: Gossiping, now_s: int) -> None:
    """Of which versions the others are, and whether another host uses the own key."""
    acquaintances, weights = gossiping.acquaintances, gossiping.roster.weights
    apart = {rift.what: rift.weight for rift in acquaintances.rifts(weights)}
    metrics.peers_by_version.replace(count_versions(acquaintances))
    metrics.other_version_weight.replace({what: apart.get(what, 0) for what in ("protocol", "tally")})
    metrics.key_in_use_elsewhere.set(acquaintances.rival(now_s) is not None)


def _role(operators: frozenset[bytes], node_key: bytes) -> str:
    return "operator" if node_key in operators else "participant"


def _by_role(counts: Counter[str]) -> dict[str, int]:
    return {role: counts[role] for role in ("operator", "participant")}


def _versions(versions: tuple[int, ...]) -> str:
    return ",".join(map(str, versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    windows_waiting: int
    free_bytes: int | None
    journal_bytes: int
    ledger_bytes: int
    is_backed_up: bool


def _look_at_files(agent: Agent) -> _Files:
    """Blocks for as long as the disk takes."""
    config = agent.config
    keys = ((config.identity.node_key_file, agent.key), (config.wallet.key_file, agent.wallet_key))
    return _Files(
        windows_waiting=agent.journal.windows_waiting(),
        free_bytes=_free(config.data_dir),
        journal_bytes=_size(config.journal_file),
        ledger_bytes=_size(ledger_file(config)),
        is_backed_up=all(_is_backed_up(config.resolve(file), key.public) for file, key in keys),
    )


def _update_files(metrics: Metrics, files: _Files) -> None:
    metrics.windows_waiting.set(files.windows_waiting)
    metrics.disk_free.set(files.free_bytes)
    metrics.journal_size.set(files.journal_bytes)
    metrics.ledger_size.set(files.ledger_bytes)
    metrics.keys_backed_up.set(files.is_backed_up)


def _free(folder: Path) -> int | None:
    """Room on its disk; None if the folder cannot be looked at. The journal says so in its own way."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _size(database: Path) -> int:
    """Of a database and its write-ahead log, which is there or not."""
    size = 0
    for file in (database, database.with_name(f"{database.name}-wal")):
        with suppress(OSError):
            size += file.stat().st_size
    return size


def _is_backed_up(key_file: Path, public_key: bytes) -> bool:
    try:
        return last_backup(key_file, public_key) is not None
    except KeyFileError:
        return False  # the doctor says what is wrong with the note
