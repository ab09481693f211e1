"""Entries of the catalogue: what this host is to the pool. Its earnings, peers, the close of epochs, the chain."""

from __future__ import annotations

from agent.metrics.metric import Kind, Label, Metric, Topic

REASONS_MAX = 64
PEERS_MAX = 1024
VERSIONS_MAX = 16

_ROLE = Label("role", 2, ("operator", "participant"))


def _earnings(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.EARNINGS, kind=kind, name=name, text=text, use=use, labels=labels)


def _peers(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.PEERS, kind=kind, name=name, text=text, use=use, labels=labels)


def _settlement(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.SETTLEMENT, kind=kind, name=name, text=text, use=use, labels=labels)


def _chain(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.CHAIN, kind=kind, name=name, text=text, use=use, labels=labels)


_EARNINGS = (
    _earnings(
        Kind.COUNTER,
        "earned_ton_total",
        "TON earned by the own address up to the last settlement that is known here",
        "The income: increase(gpupool_earned_ton_total[7d]).",
    ),
    _earnings(
        Kind.COUNTER,
        "paid_ton_total",
        "TON that the chain has paid to the own address",
        "Compare with what came into the wallet.",
    ),
    _earnings(
        Kind.GAUGE,
        "claimable_ton",
        "TON earned and not paid yet",
        "gpupool pool claim fetches it.",
    ),
    _earnings(
        Kind.GAUGE,
        "own_score_ratio",
        "Own share of the last settled epoch, 0 to 1",
        "At 0 the epoch settled without this node: gpupool earnings says why.",
    ),
    _earnings(
        Kind.COUNTER,
        "epochs_settled_total",
        "Epochs that settled while this agent ran, with some share for this node or none",
        "Each with none, after the first, is an epoch lost.",
        Label("share", 2, ("some", "none")),
    ),
    _earnings(
        Kind.GAUGE,
        "own_tokens_metered",
        "Own tokens of the last settled epoch, as this host metered them",
        "The measure of gpupool_own_tokens_credited.",
    ),
    _earnings(
        Kind.GAUGE,
        "own_tokens_credited",
        "Own tokens of the last settled epoch, as the pool credited them",
        "Less than metered: gpupool work explain says why.",
    ),
    _earnings(
        Kind.GAUGE,
        "own_audit_flag",
        "1 if the last settled epoch flags this node: far off the others, or drawn by lot",
        "Changes no amount; be ready to explain an outlier.",
        Label("flag", 2, ("outlier", "picked")),
    ),
    _earnings(
        Kind.GAUGE,
        "work_disagreement_ratio",
        "How far own counters, receipts and the chain are apart, as a share of the most",
        "Near meter.disagreement_max find out which side is wrong.",
    ),
    _earnings(
        Kind.GAUGE,
        "reconciliation_alarm",
        "1 while own counters, receipts and the chain are farther apart than meter.disagreement_max",
        "gpupool status names the side that is short.",
    ),
    _earnings(
        Kind.STATE,
        "entry_state",
        "State of the own registry entry; absent: this node key is not registered",
        "absent, inactive (stake below the minimum) and suspended earn nothing.",
        Label("state", 5, ("absent", "active", "inactive", "suspended", "withdrawing")),
    ),
    _earnings(
        Kind.GAUGE,
        "earning",
        "1 while the own registry entry lets work earn",
        "At 0 register, add stake, or ask the operators.",
    ),
    _earnings(
        Kind.GAUGE, "stake_ton", "Own stake, what is asked back included", "Has to stay above gpupool_stake_min_ton."
    ),
    _earnings(
        Kind.GAUGE,
        "stake_min_ton",
        "The least stake with which work earns",
        "gpupool pool stake add, before a change of the pool's rules is in force.",
    ),
    _earnings(
        Kind.GAUGE,
        "stake_withdrawing_ton",
        "Of the own stake, what is asked back",
        "gpupool pool withdraw complete, when its time has come.",
    ),
    _earnings(
        Kind.GAUGE,
        "slashed_held_ton",
        "Slashed of the own stake, still open to appeal",
        "Appeal to the operators in time.",
    ),
    _earnings(
        Kind.GAUGE,
        "wallet_balance_ton",
        "What the wallet holds for fees",
        "Below gpupool_wallet_needed_ton send it some.",
    ),
    _earnings(
        Kind.GAUGE,
        "wallet_needed_ton",
        "What this node's next duty costs: an operator brings a certificate, anybody else claims",
        "The measure of gpupool_wallet_balance_ton.",
    ),
)

_PEERS = (
    _peers(
        Kind.GAUGE,
        "peers",
        "Peers with whom this node has to be connected, by role",
        "The measure of gpupool_peers_connected.",
        _ROLE,
    ),
    _peers(
        Kind.GAUGE,
        "peers_connected",
        "Peers with whom this node has to be connected, and is, by role",
        "At 0 see firewall and p2p.peers: docs/networking.md.",
        _ROLE,
    ),
    _peers(
        Kind.GAUGE,
        "peers_connected_strangers",
        "Connected peers that are not of this pool",
        "Many: somebody wastes this node's connections.",
    ),
    _peers(
        Kind.GAUGE,
        "reachable_weight",
        "Weight of the operators that are connected, this node included",
        "At two thirds of gpupool_operators_weight or less nothing settles, as seen from here.",
    ),
    _peers(Kind.GAUGE, "operators_weight", "Weight of all operators", "The measure of gpupool_reachable_weight."),
    _peers(
        Kind.GAUGE,
        "peer_last_heard_timestamp_seconds",
        "When a roster peer was last heard, by the beginning of its node key",
        "Tells who is deaf while connected.",
        Label("peer", PEERS_MAX),
    ),
    _peers(
        Kind.GAUGE,
        "own_log_known",
        "1 once operators have said how far they know the own log",
        "At 0 no work becomes a record: see that operators are reached.",
    ),
    _peers(
        Kind.GAUGE,
        "peers_by_version",
        "Connected peers of the pool, by version of their agent",
        "See who upgraded before you do.",
        Label("version", VERSIONS_MAX),
    ),
    _peers(
        Kind.GAUGE,
        "other_version_weight",
        "Weight of the operators that speak another protocol, or compute another tally, than this agent",
        "From a third of gpupool_operators_weight on epochs may not settle: gpupool upgrade check.",
        Label("what", 2, ("protocol", "tally")),
    ),
    _peers(
        Kind.INFO,
        "protocol_info",
        "Which versions of the protocol and of the tally this agent has",
        "Compare hosts after an upgrade.",
        Label("protocol", 1),
        Label("tally", 1),
    ),
    _peers(
        Kind.COUNTER,
        "records_total",
        "Verified records of peers, by where they stood in their logs",
        "Tells whether records arrive at all.",
        Label("placement", REASONS_MAX),
    ),
    _peers(
        Kind.COUNTER,
        "dropped_total",
        "What was refused, by reason",
        "A sudden rise: a peer is broken or hostile; docs/networking.md.",
        Label("reason", REASONS_MAX),
    ),
    _peers(
        Kind.COUNTER,
        "transport_events_total",
        "What the transport counts: dials, duplicates, limits, by name",
        "Tells why peers do not stay: docs/transport.md.",
        Label("event", REASONS_MAX),
    ),
)

_SETTLEMENT = (
    _settlement(
        Kind.GAUGE,
        "settled_epoch",
        "Last settled epoch that this agent knows",
        "Behind gpupool_chain_settled_epoch: it has not got the totals from an operator yet.",
    ),
    _settlement(
        Kind.GAUGE,
        "settled_timestamp_seconds",
        "When the chain took the settlement of gpupool_settled_epoch",
        "Older than two epochs: something stalls.",
    ),
    _settlement(
        Kind.GAUGE,
        "settlement_due_timestamp_seconds",
        "By when the oldest open epoch ought to be settled; absent while none is open",
        "Past: see that more than two thirds of the operators run and reach each other.",
    ),
    _settlement(
        Kind.GAUGE,
        "close_hindered",
        "1 while this agent cannot close the oldest open epoch",
        "gpupool status names the obstacle.",
    ),
    _settlement(Kind.GAUGE, "view", "View of the epoch being closed", "High: leaders fail one after another."),
    _settlement(
        Kind.GAUGE,
        "attested_weight",
        "Weight behind the leading certificate hash",
        "Below gpupool_quorum_weight operators are missing: gpupool status names them.",
    ),
    _settlement(
        Kind.GAUGE, "quorum_weight", "Weight that a certificate needs", "The measure of gpupool_attested_weight."
    ),
    _settlement(
        Kind.GAUGE,
        "certificate_lag_seconds",
        "From the end of the last settled epoch to its landing",
        "Rising: operators come and go, or the chain is slow.",
    ),
    _settlement(
        Kind.GAUGE,
        "close_step_seconds",
        "From the end of the epoch closed last to each step, as this node saw it",
        "Tells which step takes the time.",
        Label("step", 8, ("observed", "proposed", "attested", "certified", "landed")),
    ),
    _settlement(
        Kind.COUNTER,
        "chain_actions_total",
        "What the chain was asked for in this node's turn, by action and outcome",
        "Failures cost fees: see wallet and liteservers.",
        Label("action", 2),
        Label("outcome", REASONS_MAX),
    ),
)

_CHAIN = (
    _chain(
        Kind.GAUGE,
        "chain_up",
        "1 if the last look at the chain showed the pool",
        "At 0 see the network, and name more liteservers.",
    ),
    _chain(
        Kind.GAUGE,
        "chain_head_timestamp_seconds",
        "Time of the latest masterchain block seen",
        "Old while chain_up is 1: the chain stands, or the liteservers are behind.",
    ),
    _chain(
        Kind.GAUGE,
        "clock_offset_seconds",
        "By how much this host's clock was ahead of the newest block when that was first seen; below 0: behind",
        "Beyond a minute set it: timedatectl set-ntp true.",
    ),
    _chain(
        Kind.COUNTER,
        "chain_errors_total",
        "Looks at the chain that failed",
        "Tells servers that are away from those that lie.",
        Label("reason", REASONS_MAX),
    ),
    _chain(Kind.GAUGE, "liteservers", "Liteservers in the settings", "Name several."),
    _chain(
        Kind.GAUGE,
        "liteservers_failing",
        "Liteservers that failed when they were asked last",
        "With one left, the next failure takes the chain away: name others.",
    ),
    _chain(
        Kind.COUNTER,
        "liteserver_conflicts_total",
        "Answers of liteservers that cannot be true, or contradict another one's",
        "The log names the server: take it out.",
    ),
    _chain(Kind.GAUGE, "epoch", "Epoch that runs now", "Names the epoch in question."),
    _chain(Kind.GAUGE, "epoch_end_timestamp_seconds", "When the running epoch ends", "When to expect the next close."),
    _chain(Kind.GAUGE, "epoch_duration_seconds", "How long an epoch is", "The measure of all that is slow."),
    _chain(Kind.GAUGE, "open_epochs", "Epochs that wait for their settlement", "More than one: something stalls."),
    _chain(Kind.GAUGE, "chain_settled_epoch", "Last epoch that the chain settled", "Compare hosts: all show the same."),
    _chain(Kind.GAUGE, "pool_paused", "1 while the pool is paused and settles nothing", "Wait; work counts meanwhile."),
    _chain(Kind.GAUGE, "pool_closed", "1 if the pool is closed for ever", "Claim, withdraw, join another pool."),
    _chain(Kind.GAUGE, "operators", "Operators of the pool; 0: its owner has not handed it over", "Wait at 0."),
    _chain(Kind.GAUGE, "participants", "Registered participants", "How many share the pot."),
    _chain(Kind.GAUGE, "operator", "1 if this node is an operator", "An operator's wallet pays for certificates."),
    _chain(
        Kind.GAUGE,
        "policies_missing",
        "Policy documents that are not here; now: epochs are counted by them that run or wait; soon: later ones",
        "Get them from the operators: pool.next_policy_file.",
        Label("needed", 2, ("now", "soon")),
    ),
)

POOL_ENTRIES = (*_EARNINGS, *_PEERS, *_SETTLEMENT, *_CHAIN)
