"""What the dashboard shows: figures of all hosts together, columns of the table of hosts, and panels.

Of a panel it is said which metrics it shows, and no more; how, follows from the catalogue (`dashboard`).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.metrics.catalogue import CATALOGUE

SELECTOR = 'job="gpupool-agent",instance=~"$instance"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A figure of all hosts together, or a column of the table of hosts."""

    title: str
    expr: str
    unit: str
    bad_below: float | None = None
    bad_above: float | None = None


def asked(metric: str) -> str:
    """The query of a metric of the catalogue, for the hosts that are chosen."""
    return f"{CATALOGUE[metric].full_name}{{{SELECTOR}}}"


TOTALS = (
    Glance(title="Hosts that answer", expr=f"sum(up{{{SELECTOR}}})", unit="none"),
    Glance(
        title="Hosts that are not ready", expr=f"count({asked('ready')} == 0) or vector(0)", unit="none", bad_above=1
    ),
    Glance(
        title="Alerts",
        expr='count(ALERTS{alertstate="firing",alertname=~"Gpupool.*"}) or vector(0)',
        unit="none",
        bad_above=1,
    ),
    Glance(title="Earned, 7 days", expr=f"sum(increase({asked('earned_ton_total')}[7d]))", unit="suffix: TON"),
    Glance(title="To be claimed", expr=f"sum({asked('claimable_ton')})", unit="suffix: TON"),
    Glance(title="Tokens", expr=f"sum(rate({asked('work_tokens_total')}[$__rate_interval]))", unit="suffix: /s"),
)

COLUMNS = (
    Glance(title="Ready", expr=asked("ready"), unit="bool_yes_no", bad_below=1),
    Glance(title="Share", expr=asked("own_score_ratio"), unit="percentunit"),
    Glance(title="Earned, 24 h", expr=f"increase({asked('earned_ton_total')}[24h])", unit="suffix: TON"),
    Glance(title="Tokens", expr=f"rate({asked('work_tokens_total')}[1h])", unit="suffix: /s"),
    Glance(
        title="Evidence for",
        expr=f"{asked('evidence_valid_until_timestamp_seconds')} - time()",
        unit="s",
        bad_below=3600,
    ),
    Glance(
        title="Operators in reach",
        expr=f"{asked('reachable_weight')} / {asked('operators_weight')}",
        unit="percentunit",
        bad_below=0.667,
    ),
    Glance(title="Block age", expr=f"time() - {asked('chain_head_timestamp_seconds')}", unit="s", bad_above=120),
    Glance(title="Wallet", expr=asked("wallet_balance_ton"), unit="suffix: TON"),
    Glance(title="Disk free", expr=asked("data_dir_free_bytes"), unit="bytes", bad_below=1 << 30),
    Glance(title="Up for", expr=f"time() - {asked('process_start_time_seconds')}", unit="s"),
)
VERSIONS = f"max by (instance, version) ({asked('build_info')})"

PANELS: dict[str, tuple[str, ...]] = {
    "Earned": ("earned_ton_total", "paid_ton_total"),
    "Claimable": ("claimable_ton",),
    "Share of the last epoch": ("own_score_ratio",),
    "Epochs": ("epochs_settled_total",),
    "Tokens of the last epoch": ("own_tokens_metered", "own_tokens_credited"),
    "Audit": ("own_audit_flag",),
    "Three-way check": ("work_disagreement_ratio", "reconciliation_alarm"),
    "Registry entry": ("entry_state", "earning"),
    "Stake": ("stake_ton", "stake_min_ton", "stake_withdrawing_ton", "slashed_held_ton"),
    "Wallet": ("wallet_balance_ton", "wallet_needed_ton"),
    "Tokens and tasks": ("work_tokens_total", "work_tasks_total"),
    "Work by unit": ("work_measured_total",),
    "Sources": ("source_up", "sources_counted"),
    "Since the last reading": ("source_last_read_timestamp_seconds",),
    "Remarks of sources": ("source_notes",),
    "Readings of sources": ("source_reading",),
    "Not watched": ("gap_seconds_total",),
    "Failed readings": ("source_errors_total", "source_restarts_total"),
    "Windows": ("work_windows_waiting", "work_windows_lost_total"),
    "Own log": ("log_head_seq",),
    "Receipts": ("receipts_total", "receipts_required", "receipts_listening"),
    "Worker contract": ("worker_state",),
    "Own evidence": ("evidence_valid", "evidence_failing", "collateral_failing", "machine_place_taken"),
    "Own evidence holds for": ("evidence_valid_until_timestamp_seconds",),
    "Own evidence refused": ("evidence_own_refused",),
    "Evidence proves": ("evidence_info",),
    "Evidence of the pool": ("evidence_held", "evidence_refused"),
    "Peers": ("peers", "peers_connected", "peers_connected_strangers"),
    "Operators in reach": ("reachable_weight", "operators_weight"),
    "Since peers were heard": ("peer_last_heard_timestamp_seconds",),
    "Own log known": ("own_log_known",),
    "Versions of peers": ("peers_by_version", "protocol_info"),
    "Operators of another version": ("other_version_weight",),
    "Records": ("records_total",),
    "Refused": ("dropped_total",),
    "Transport": ("transport_events_total",),
    "Settled epoch": ("settled_epoch",),
    "Since the last settlement": ("settled_timestamp_seconds",),
    "Settlement overdue by": ("settlement_due_timestamp_seconds",),
    "Close": ("close_hindered", "view"),
    "Weight behind the certificate": ("attested_weight", "quorum_weight"),
    "Steps of the close": ("close_step_seconds", "certificate_lag_seconds"),
    "Chain actions": ("chain_actions_total",),
    "Chain": ("chain_up",),
    "Age of the newest block": ("chain_head_timestamp_seconds",),
    "Clock against the chain": ("clock_offset_seconds",),
    "Failed looks": ("chain_errors_total",),
    "Liteservers": ("liteservers", "liteservers_failing", "liteserver_conflicts_total"),
    "Epoch": ("epoch", "chain_settled_epoch", "open_epochs"),
    "Length of an epoch": ("epoch_duration_seconds",),
    "Epoch ends in": ("epoch_end_timestamp_seconds",),
    "Pool": ("pool_paused", "pool_closed", "operator"),
    "Members": ("operators", "participants"),
    "Policies missing": ("policies_missing",),
    "Agent": ("build_info", "node_info"),
    "Health": ("healthy", "ready"),
    "Since loops advanced": ("loop_last_advance_timestamp_seconds",),
    "Clock set back": ("clock_steps_back_total",),
    "Disk": ("data_dir_free_bytes",),
    "Databases": ("journal_size_bytes", "ledger_size_bytes"),
    "Memory": (
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "memory_used_bytes",
        "memory_limit_bytes",
    ),
    "Keys": ("keys_backed_up", "key_in_use_elsewhere", "own_log_dead"),
    "CPU": ("process_cpu_seconds_total",),
    "Up for": ("process_start_time_seconds",),
    "File descriptors": ("process_open_fds", "process_max_fds"),
}
"""By title, what is drawn together: metrics of one topic, and of one unit."""
