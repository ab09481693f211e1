"""For every alert: what is scraped while all is well, and while it is not. `test_rules` plays both to promtool.

All is well, then not for as long as the alert asks for, then well again: the alert must be silent, not fire too early,
fire, and be over. A series is a number, or goes with time; None: it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A counter that rises by so much a minute."""

    per_minute: float


@dataclass(frozen=True, slots=True)
class Now:
    """A Unix time that is always the present one and so many seconds."""

    offset_s: float = 0


Value = float | Rate | Now | None
Scrape = Mapping[str, Value]
"""By series, without the target's own labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`always` are series that are the same throughout; `window_m` is over how many minutes the alert looks back."""

    alert: str
    good: Scrape
    bad: Scrape
    always: Scrape | None = None
    window_m: int = 0


def _flag(alert: str, metric: str, *, bad: float = 1, always: Scrape | None = None) -> Case:
    """An alert on something that is 0 or 1."""
    return Case(alert=alert, good={metric: 1 - bad}, bad={metric: bad}, always=always)


_READ = 'gpupool_source_last_read_timestamp_seconds{source="engine",kind="engine",counts="true"}'
_UP = 'gpupool_source_up{source="engine",kind="engine",counts="true"}'
_OTHER_UP = 'gpupool_source_up{source="nvml",kind="nvml",counts="false"}'
_OPERATORS = 'gpupool_peers{role="operator"}'
_PARTICIPANTS = 'gpupool_peers{role="participant"}'
_OPERATORS_HERE = 'gpupool_peers_connected{role="operator"}'
_PARTICIPANTS_HERE = 'gpupool_peers_connected{role="participant"}'
_TAKEN = 'gpupool_receipts_total{outcome="taken"}'
_TALLY = 'gpupool_other_version_weight{what="tally"}'
_FAILED = 'gpupool_chain_actions_total{action="submit",outcome="failed"}'
_MIB = 1024 * 1024
_OLD_AGENT: Scrape = {"process_start_time_seconds": 0, "gpupool_epoch_duration_seconds": 600}

_AGENT = (
    _flag("GpupoolAgentDown", "up", bad=0),
    Case(alert="GpupoolAgentMissing", good={"up": 1}, bad={"up": None}, window_m=5),  # what was there is, for so long
    Case(
        alert="GpupoolAgentRestarting",
        good={"process_start_time_seconds": Rate(0)},
        bad={"process_start_time_seconds": Rate(60)},
        window_m=60,
    ),
    _flag("GpupoolAgentStuck", "gpupool_healthy", bad=0),
    _flag("GpupoolAgentNotReady", "gpupool_ready", bad=0),
    Case(
        alert="GpupoolMemoryNearLimit",
        always={"gpupool_memory_limit_bytes": 1000},
        good={"gpupool_memory_used_bytes": 900},
        bad={"gpupool_memory_used_bytes": 901},
    ),
    Case(
        alert="GpupoolFilesNearLimit",
        always={"process_max_fds": 100},
        good={"process_open_fds": 80},
        bad={"process_open_fds": 81},
    ),
    Case(
        alert="GpupoolDiskFull",
        good={"gpupool_data_dir_free_bytes": 64 * _MIB},
        bad={"gpupool_data_dir_free_bytes": 64 * _MIB - 1},
    ),
    Case(
        alert="GpupoolDiskLow",
        good={"gpupool_data_dir_free_bytes": 1024 * _MIB},
        bad={"gpupool_data_dir_free_bytes": 1024 * _MIB - 1},
    ),
)

_KEYS = (
    _flag("GpupoolKeyInUseElsewhere", "gpupool_key_in_use_elsewhere"),
    _flag("GpupoolLogDead", "gpupool_own_log_dead"),
    _flag("GpupoolKeysNotBackedUp", "gpupool_keys_backed_up", bad=0),
)

_CHAIN = (
    _flag("GpupoolChainUnreachable", "gpupool_chain_up", bad=0),
    Case(
        alert="GpupoolChainStale",
        always={"gpupool_chain_up": 1},
        good={"gpupool_chain_head_timestamp_seconds": Now(-120)},
        bad={"gpupool_chain_head_timestamp_seconds": Now(-121)},
    ),
    Case(
        alert="GpupoolClockOff",
        good={"gpupool_clock_offset_seconds": 60},
        bad={"gpupool_clock_offset_seconds": -61},
    ),
    Case(
        alert="GpupoolClockSetBack",
        good={"gpupool_clock_steps_back_total": Rate(0)},
        bad={"gpupool_clock_steps_back_total": Rate(0.1)},
        window_m=60,
    ),
    Case(
        alert="GpupoolLiteserverConflict",
        good={"gpupool_liteserver_conflicts_total": Rate(0)},
        bad={"gpupool_liteserver_conflicts_total": Rate(1)},
        window_m=60,
    ),
    Case(
        alert="GpupoolLiteserversAway",
        always={"gpupool_liteservers": 3},
        good={"gpupool_liteservers_failing": 1},
        bad={"gpupool_liteservers_failing": 2},
    ),
    Case(
        alert="GpupoolWalletLow",
        always={"gpupool_wallet_needed_ton": 0.2, "gpupool_operator": 1, "gpupool_claimable_ton": 0},
        good={"gpupool_wallet_balance_ton": 0.2},
        bad={"gpupool_wallet_balance_ton": 0.19},
    ),
)

_POOL = (
    *(
        Case(
            alert=alert,
            good={f'gpupool_entry_state{{state="{state}"}}': 0},
            bad={f'gpupool_entry_state{{state="{state}"}}': 1},
            always={'gpupool_entry_state{state="withdrawing"}': 1},
        )
        for alert, state in (
            ("GpupoolNotRegistered", "absent"),
            ("GpupoolSuspended", "suspended"),
            ("GpupoolStakeTooSmall", "inactive"),
        )
    ),
    Case(alert="GpupoolSlashed", good={"gpupool_slashed_held_ton": 0}, bad={"gpupool_slashed_held_ton": 0.5}),
    Case(
        alert="GpupoolStakeWithdrawing",
        always={"gpupool_stake_ton": 100},
        good={"gpupool_stake_withdrawing_ton": 0},
        bad={"gpupool_stake_withdrawing_ton": 0.5},
    ),
    Case(
        alert="GpupoolPolicyMissing",
        always={'gpupool_policies_missing{needed="soon"}': 1},
        good={'gpupool_policies_missing{needed="now"}': 0},
        bad={'gpupool_policies_missing{needed="now"}': 1},
    ),
    Case(
        alert="GpupoolPolicyMissingSoon",
        always={'gpupool_policies_missing{needed="now"}': 1},
        good={'gpupool_policies_missing{needed="soon"}': 0},
        bad={'gpupool_policies_missing{needed="soon"}': 2},
    ),
    _flag("GpupoolPoolPaused", "gpupool_pool_paused"),
    _flag("GpupoolPoolClosed", "gpupool_pool_closed"),
    Case(alert="GpupoolPoolWithoutOperators", good={"gpupool_operators": 1}, bad={"gpupool_operators": 0}),
)

_EVIDENCE = (
    _flag("GpupoolNoEvidence", "gpupool_evidence_valid", bad=0),
    Case(
        alert="GpupoolEvidenceRunsOut",
        always={"gpupool_evidence_valid": 1, "gpupool_evidence_failing": 1},
        good={"gpupool_evidence_valid_until_timestamp_seconds": Now(3600)},
        bad={"gpupool_evidence_valid_until_timestamp_seconds": Now(3599)},
    ),
    _flag("GpupoolEvidenceFailing", "gpupool_evidence_failing", always={"gpupool_evidence_valid": 1}),
    _flag("GpupoolMachineTaken", "gpupool_machine_place_taken"),
    _flag("GpupoolCollateralStale", "gpupool_collateral_failing"),
)

_WORK = (
    _flag("GpupoolSourceDown", _UP, bad=0, always={_OTHER_UP: 0}),
    Case(alert="GpupoolSourceAbsent", good={"gpupool_sources_counted": 1}, bad={"gpupool_sources_counted": 0}),
    Case(
        alert="GpupoolSourceSilent",
        always={_UP: 1},
        good={_READ: Now(-300)},
        bad={_READ: Now(-301)},
    ),
    _flag("GpupoolOtherSourceDown", _OTHER_UP, bad=0, always={_UP: 0}),
    Case(
        alert="GpupoolSourceGaps",
        good={'gpupool_gap_seconds_total{source="engine"}': Rate(5)},
        bad={'gpupool_gap_seconds_total{source="engine"}': Rate(7)},
        window_m=30,
    ),
    Case(
        alert="GpupoolSourceRestarting",
        good={'gpupool_source_restarts_total{source="engine"}': Rate(0)},
        bad={'gpupool_source_restarts_total{source="engine"}': Rate(0.1)},
        window_m=60,
    ),
    Case(
        alert="GpupoolGpuTrouble",
        always={'gpupool_source_notes{source="engine",kind="engine"}': 2},
        good={'gpupool_source_notes{source="nvml",kind="nvml"}': 0},
        bad={'gpupool_source_notes{source="nvml",kind="nvml"}': 1},
    ),
    Case(
        alert="GpupoolWorkerTrouble",
        always={'gpupool_source_notes{source="engine",kind="engine"}': 2},
        good={'gpupool_source_notes{source="cocoon",kind="cocoon"}': 0},
        bad={'gpupool_source_notes{source="cocoon",kind="cocoon"}': 1},
    ),
    Case(
        alert="GpupoolNoWork",
        always={_UP: 1},
        good={"gpupool_work_tokens_total": Rate(100)},
        bad={"gpupool_work_tokens_total": Rate(0)},
        window_m=60,
    ),
    Case(
        alert="GpupoolWindowsWaiting",
        good={"gpupool_work_windows_waiting": 10},
        bad={"gpupool_work_windows_waiting": 11},
    ),
    Case(
        alert="GpupoolWorkLost",
        good={"gpupool_work_windows_lost_total": Rate(0)},
        bad={"gpupool_work_windows_lost_total": Rate(1)},
        window_m=60,
    ),
    _flag("GpupoolReceiptsNotTaken", "gpupool_receipts_listening", bad=0, always={"gpupool_receipts_required": 1}),
    Case(
        alert="GpupoolReceiptsMissing",
        always={"gpupool_receipts_required": 1, "gpupool_work_tokens_total": Rate(100)},
        good={_TAKEN: Rate(1)},
        bad={_TAKEN: Rate(0)},
        window_m=60,
    ),
    Case(
        alert="GpupoolReceiptsRefused",
        good={'gpupool_receipts_total{outcome="refused"}': Rate(0)},
        bad={'gpupool_receipts_total{outcome="refused"}': Rate(1)},
        window_m=30,
    ),
    _flag("GpupoolWorkerUnset", 'gpupool_worker_state{state="unset"}'),
    _flag("GpupoolWorkerRefused", 'gpupool_worker_state{state="refused"}'),
    _flag("GpupoolWorkerUnpaid", 'gpupool_worker_state{state="unpaid"}'),
    _flag("GpupoolBooksDisagree", "gpupool_reconciliation_alarm"),
)

_PEERS = (
    Case(
        alert="GpupoolAlone",
        always={_OPERATORS: 2, _PARTICIPANTS: 1, _PARTICIPANTS_HERE: 0},
        good={_OPERATORS_HERE: 1},
        bad={_OPERATORS_HERE: 0},
    ),
    Case(
        alert="GpupoolQuorumOutOfReach",
        always={"gpupool_operators_weight": 3},
        good={"gpupool_reachable_weight": 3},
        bad={"gpupool_reachable_weight": 2},
    ),
    Case(
        alert="GpupoolOperatorsAway",
        always={"gpupool_operators_weight": 4},
        good={"gpupool_reachable_weight": 4},
        bad={"gpupool_reachable_weight": 3},
    ),
    _flag("GpupoolOwnLogUnknown", "gpupool_own_log_known", bad=0),
    Case(
        alert="GpupoolVersionsApart",
        always={"gpupool_operators_weight": 3},
        good={_TALLY: 0},
        bad={_TALLY: 1},
    ),
    Case(
        alert="GpupoolOtherVersion",
        always={"gpupool_operators_weight": 4},
        good={_TALLY: 0},
        bad={_TALLY: 1},
    ),
)

_SETTLEMENT = (
    Case(
        alert="GpupoolEpochNotSettled",
        always={"gpupool_pool_paused": 0},
        good={"gpupool_settlement_due_timestamp_seconds": Now()},
        bad={"gpupool_settlement_due_timestamp_seconds": Now(-1)},
    ),
    _flag("GpupoolCloseHindered", "gpupool_close_hindered"),
    Case(
        alert="GpupoolSettlementBehind",
        always={"gpupool_chain_settled_epoch": 7},
        good={"gpupool_settled_epoch": 7},
        bad={"gpupool_settled_epoch": 6},
    ),
    Case(
        alert="GpupoolNoShare",
        always=_OLD_AGENT,
        good={"gpupool_own_score_ratio": 0.01},
        bad={"gpupool_own_score_ratio": 0},
    ),
    Case(
        alert="GpupoolNothingCredited",
        always={**_OLD_AGENT, "gpupool_own_tokens_metered": 100},
        good={"gpupool_own_tokens_credited": 1},
        bad={"gpupool_own_tokens_credited": 0},
    ),
    Case(
        alert="GpupoolCreditedLess",
        always={"gpupool_own_tokens_metered": 100},
        good={"gpupool_own_tokens_credited": 80},
        bad={"gpupool_own_tokens_credited": 79},
    ),
    Case(
        alert="GpupoolChainActionsFailing",
        good={_FAILED: Rate(0)},
        bad={_FAILED: Rate(1)},
        window_m=60,
    ),
)

CASES = (*_AGENT, *_KEYS, *_CHAIN, *_POOL, *_EVIDENCE, *_WORK, *_PEERS, *_SETTLEMENT)

QUIET = (
    Case(
        alert="GpupoolWalletLow",
        always={"gpupool_wallet_needed_ton": 0.05, "gpupool_operator": 0, "gpupool_claimable_ton": 0},
        good={"gpupool_wallet_balance_ton": 1},
        bad={"gpupool_wallet_balance_ton": 0},
    ),
    Case(
        alert="GpupoolChainStale",
        good={"gpupool_chain_up": 0, "gpupool_chain_head_timestamp_seconds": Now()},
        bad={"gpupool_chain_up": 0, "gpupool_chain_head_timestamp_seconds": 0},
    ),
    _flag("GpupoolEvidenceFailing", "gpupool_evidence_failing", always={"gpupool_evidence_valid": 0}),
    _flag("GpupoolReceiptsNotTaken", "gpupool_receipts_listening", bad=0, always={"gpupool_receipts_required": 0}),
    Case(
        alert="GpupoolReceiptsMissing",
        always={"gpupool_receipts_required": 1, "gpupool_work_tokens_total": Rate(0)},
        good={_TAKEN: Rate(1)},
        bad={_TAKEN: Rate(0)},
        window_m=60,
    ),
    Case(
        alert="GpupoolEpochNotSettled",
        always={"gpupool_pool_paused": 1},
        good={"gpupool_settlement_due_timestamp_seconds": Now()},
        bad={"gpupool_settlement_due_timestamp_seconds": Now(-1)},
    ),
    Case(
        alert="GpupoolNoShare",
        always={"process_start_time_seconds": Now(-60), "gpupool_epoch_duration_seconds": 600},
        good={"gpupool_own_score_ratio": 0.01},
        bad={"gpupool_own_score_ratio": 0},
    ),
    Case(
        alert="GpupoolAlone",
        always={_OPERATORS: 0, _PARTICIPANTS: 0, _PARTICIPANTS_HERE: 0},
        good={_OPERATORS_HERE: 0},
        bad={_OPERATORS_HERE: 0},
    ),
    Case(
        alert="GpupoolDiskLow",
        good={"gpupool_data_dir_free_bytes": 1024 * _MIB},
        bad={"gpupool_data_dir_free_bytes": 1},
    ),
    Case(
        alert="GpupoolOperatorsAway",
        always={"gpupool_operators_weight": 3},
        good={"gpupool_reachable_weight": 3},
        bad={"gpupool_reachable_weight": 2},
    ),
)
"""What looks bad and is not, or is another alert's."""
