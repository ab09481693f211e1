"""Every metric of the agent as an attribute, made of the catalogue's entries; `registry` is what the listener serves.

1. Nothing is served that is not in the catalogue, and all of that is here (a test holds both).
2. The registry is the agent's own: nothing that a library registers globally is served.
"""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from agent.metrics.catalogue import CATALOGUE
from agent.metrics.kinds import BoundedCounter, BoundedGauge, Census, Facts, LateCounter, LateGauge, State
from agent.metrics.metric import Kind

# A second series per counter that nobody here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Made = TypeVar("_Made", BoundedCounter, BoundedGauge, Census, Facts, LateCounter, LateGauge, State)
_FORMS = {
    LateGauge: (Kind.GAUGE, False),
    BoundedGauge: (Kind.GAUGE, True),
    Census: (Kind.GAUGE, True),
    LateCounter: (Kind.COUNTER, False),
    BoundedCounter: (Kind.COUNTER, True),
    State: (Kind.STATE, True),
    Facts: (Kind.INFO, True),
}
"""Of what kind an entry has to be for each of the objects, and whether it has labels."""


class Metrics:
    """What the agent counts and shows. Whoever knows something sets it here, or `agent.metrics.following` does."""

    def __init__(self, *, version: str, process: bool = True) -> None:
        """`process`: also serve memory, CPU and descriptors of this process."""
        self.registry = CollectorRegistry()
        self.made: set[str] = set()
        """Names of the entries that were made."""
        if process:
            ProcessCollector(registry=self.registry)
        self._of_earnings()
        self._of_work()
        self._of_evidence()
        self._of_peers()
        self._of_settlement()
        self._of_the_chain()
        self._of_this_host()
        self.build.set({"version": version})
        for counter in (self.windows_lost, self.clock_steps_back):
            counter.follow(0)  # what they count happens here alone, and has not yet

    def _of_earnings(self) -> None:
        self.earned = self._make(LateCounter, "earned_ton_total")
        self.paid = self._make(LateCounter, "paid_ton_total")
        self.claimable = self._make(LateGauge, "claimable_ton")
        self.own_score = self._make(LateGauge, "own_score_ratio")
        self.epochs_settled = self._make(BoundedCounter, "epochs_settled_total")
        self.own_metered = self._make(LateGauge, "own_tokens_metered")
        self.own_credited = self._make(LateGauge, "own_tokens_credited")
        self.audit_flags = self._make(BoundedGauge, "own_audit_flag")
        self.work_disagreement = self._make(LateGauge, "work_disagreement_ratio")
        self.reconciliation_alarm = self._make(LateGauge, "reconciliation_alarm")
        self.entry_state = self._make(State, "entry_state")
        self.earning = self._make(LateGauge, "earning")
        self.stake = self._make(LateGauge, "stake_ton")
        self.stake_min = self._make(LateGauge, "stake_min_ton")
        self.stake_withdrawing = self._make(LateGauge, "stake_withdrawing_ton")
        self.slashed_held = self._make(LateGauge, "slashed_held_ton")
        self.wallet_balance = self._make(LateGauge, "wallet_balance_ton")
        self.wallet_needed = self._make(LateGauge, "wallet_needed_ton")

    def _of_work(self) -> None:
        self.tokens = self._make(LateCounter, "work_tokens_total")
        self.tasks = self._make(LateCounter, "work_tasks_total")
        self.measured = self._make(BoundedCounter, "work_measured_total")
        self.source_up = self._make(BoundedGauge, "source_up")
        self.source_read = self._make(BoundedGauge, "source_last_read_timestamp_seconds")
        self.source_notes = self._make(BoundedGauge, "source_notes")
        self.sources_counted = self._make(LateGauge, "sources_counted")
        self.source_reading = self._make(BoundedGauge, "source_reading")
        self.gap_seconds = self._make(BoundedCounter, "gap_seconds_total")
        self.source_errors = self._make(BoundedCounter, "source_errors_total")
        self.source_restarts = self._make(BoundedCounter, "source_restarts_total")
        self.windows_waiting = self._make(LateGauge, "work_windows_waiting")
        self.windows_lost = self._make(LateCounter, "work_windows_lost_total")
        self.log_head = self._make(LateGauge, "log_head_seq")
        self.receipts = self._make(BoundedCounter, "receipts_total")
        self.receipts_required = self._make(LateGauge, "receipts_required")
        self.receipts_listening = self._make(LateGauge, "receipts_listening")
        self.worker_state = self._make(State, "worker_state")

    def _of_evidence(self) -> None:
        self.evidence_valid = self._make(LateGauge, "evidence_valid")
        self.evidence_valid_until = self._make(LateGauge, "evidence_valid_until_timestamp_seconds")
        self.evidence_failing = self._make(LateGauge, "evidence_failing")
        self.evidence_own_refused = self._make(BoundedGauge, "evidence_own_refused")
        self.evidence = self._make(Facts, "evidence_info")
        self.collateral_failing = self._make(LateGauge, "collateral_failing")
        self.place_taken = self._make(LateGauge, "machine_place_taken")
        self.evidence_held = self._make(LateGauge, "evidence_held")
        self.evidence_refused = self._make(BoundedGauge, "evidence_refused")

    def _of_peers(self) -> None:
        self.peers = self._make(BoundedGauge, "peers")
        self.peers_connected = self._make(BoundedGauge, "peers_connected")
        self.strangers = self._make(LateGauge, "peers_connected_strangers")
        self.reachable_weight = self._make(LateGauge, "reachable_weight")
        self.operators_weight = self._make(LateGauge, "operators_weight")
        self.peer_last_heard = self._make(BoundedGauge, "peer_last_heard_timestamp_seconds")
        self.own_log_known = self._make(LateGauge, "own_log_known")
        self.peers_by_version = self._make(Census, "peers_by_version")
        self.other_version_weight = self._make(BoundedGauge, "other_version_weight")
        self.protocol = self._make(Facts, "protocol_info")
        self.records = self._make(BoundedCounter, "records_total")
        self.dropped = self._make(BoundedCounter, "dropped_total")
        self.transport_events = self._make(BoundedCounter, "transport_events_total")

    def _of_settlement(self) -> None:
        self.settled_epoch = self._make(LateGauge, "settled_epoch")
        self.settled_time = self._make(LateGauge, "settled_timestamp_seconds")
        self.settlement_due = self._make(LateGauge, "settlement_due_timestamp_seconds")
        self.close_hindered = self._make(LateGauge, "close_hindered")
        self.view = self._make(LateGauge, "view")
        self.attested_weight = self._make(LateGauge, "attested_weight")
        self.quorum_weight = self._make(LateGauge, "quorum_weight")
        self.certificate_lag = self._make(LateGauge, "certificate_lag_seconds")
        self.close_step = self._make(BoundedGauge, "close_step_seconds")
        self.sent = self._make(BoundedCounter, "chain_actions_total")

    def _of_the_chain(self) -> None:
        self.chain_up = self._make(LateGauge, "chain_up")
        self.chain_head_time = self._make(LateGauge, "chain_head_timestamp_seconds")
        self.clock_offset = self._make(LateGauge, "clock_offset_seconds")
        self.chain_errors = self._make(BoundedCounter, "chain_errors_total")
        self.liteservers = self._make(LateGauge, "liteservers")
        self.liteservers_failing = self._make(LateGauge, "liteservers_failing")
        self.liteserver_conflicts = self._make(LateCounter, "liteserver_conflicts_total")
        self.epoch = self._make(LateGauge, "epoch")
        self.epoch_end = self._make(LateGauge, "epoch_end_timestamp_seconds")
        self.epoch_duration = self._make(LateGauge, "epoch_duration_seconds")
        self.open_epochs = self._make(LateGauge, "open_epochs")
        self.chain_settled_epoch = self._make(LateGauge, "chain_settled_epoch")
        self.pool_paused = self._make(LateGauge, "pool_paused")
        self.pool_closed = self._make(LateGauge, "pool_closed")
        self.operators = self._make(LateGauge, "operators")
        self.participants = self._make(LateGauge, "participants")
        self.operator = self._make(LateGauge, "operator")
        self.policies_missing = self._make(BoundedGauge, "policies_missing")

    def _of_this_host(self) -> None:
        self.build = self._make(Facts, "build_info")
        self.node = self._make(Facts, "node_info")
        self.healthy = self._make(LateGauge, "healthy")
        self.ready = self._make(LateGauge, "ready")
        self.loop_advanced = self._make(BoundedGauge, "loop_last_advance_timestamp_seconds")
        self.clock_steps_back = self._make(LateCounter, "clock_steps_back_total")
        self.disk_free = self._make(LateGauge, "data_dir_free_bytes")
        self.journal_size = self._make(LateGauge, "journal_size_bytes")
        self.ledger_size = self._make(LateGauge, "ledger_size_bytes")
        self.memory_used = self._make(LateGauge, "memory_used_bytes")
        self.memory_limit = self._make(LateGauge, "memory_limit_bytes")
        self.keys_backed_up = self._make(LateGauge, "keys_backed_up")
        self.key_in_use_elsewhere = self._make(LateGauge, "key_in_use_elsewhere")
        self.own_log_dead = self._make(LateGauge, "own_log_dead")

    def _make(self, form: type[_Made], name: str) -> _Made:
        metric = CATALOGUE[name]
        assert _FORMS[form] == (metric.kind, bool(metric.labels)), name
        assert name not in self.made, name
        self.made.add(name)
        return form(metric, self.registry)
