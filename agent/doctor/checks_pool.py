"""Checks of the own work among the others: whether it becomes records, the close of epochs and what came of it."""

from __future__ import annotations

from agent.doctor.checks import Check, Trouble, tried
from agent.doctor.facts import Facts, NotKnownError, PoolFacts, known
from agent.doctor.findings import FindingClass, Severity
from agent.doctor.status_form import CloseForm, OwnForm
from agent.journal import WINDOWS_KEPT
from agent.policies import settlement_due_s
from agent.pool.values import span
from agent.screens import ton_exact
from gossip.policy import Timing

WINDOWS_WAITING_MAX = 10
"""So many closed windows and batches of receipts may wait for evidence or the own log."""
SHOWN = 4

_NETWORK, _SETTLEMENT = FindingClass.NETWORK, FindingClass.SETTLEMENT
_PROBLEM, _WARNING, _NOTE = Severity.PROBLEM, Severity.WARNING, Severity.NOTE


def _windows_waiting(facts: Facts) -> Trouble | None:
    waiting = known(known(facts.journal).windows_waiting)
    if waiting <= WINDOWS_WAITING_MAX:
        return None
    fix = f"mend what is named above; they are kept, but of more than {WINDOWS_KEPT:,} the oldest give way"
    return Trouble(f"{waiting} work windows and batches of receipts wait to become records", fix)


def _not_operator(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    operators = pool.state.operator_set
    if operators is None or operators.index_of(known(facts.node_key)) is not None:
        return None
    return Trouble("this node is no operator: it earns, and others settle; they vote who is one", "")


def _hindered(facts: Facts) -> Trouble | None:
    obstacle = known(facts.status().pool).obstacle
    return None if obstacle is None else Trouble(obstacle, "mend what it names; the other operators go on")


def _stalled(facts: Facts) -> Trouble | None:
    pool, timing = known(facts.pool), _timing(facts)
    if not pool.rewards.open_epochs:
        return None
    oldest = pool.rewards.open_epochs[0]
    late_s = pool.time_s - oldest.end_s
    if pool.time_s <= settlement_due_s(oldest.end_s, timing) or pool.state.is_paused(pool.time_s):
        return None
    cause = f"epoch {oldest.epoch} ended {late_s} s ago and is not settled: {_lacking(facts, oldest.epoch)}"
    return Trouble(cause, "see that more than two thirds of the operators run and reach each other")


def _timing(facts: Facts) -> Timing:
    held = known(facts.policies)
    open_epochs = known(facts.pool).rewards.open_epochs
    if open_epochs and open_epochs[0].policy_hash in held:
        return held[open_epochs[0].policy_hash].timing
    return facts.policy().timing


def _lacking(facts: Facts, epoch: int) -> str:
    """What the close of this epoch waits for, as the agent sees it."""
    try:
        close = known(facts.status().close)
    except NotKnownError as error:
        return str(error)
    if close is None or close.epoch != epoch:
        return "this agent does not close it"
    return _waits_for(close)


def _waits_for(close: CloseForm) -> str:
    quorum = 2 * close.total_weight // 3 + 1
    if close.certified:
        return "it is certified; the certificate has not landed"
    if close.waiting_for:
        return f"{close.waiting_for} objects of others are missing here"
    if close.attested_weight:
        return f"attested by {close.attested_weight} of {close.total_weight}, {quorum} are needed"
    of = f" of {close.operators}" if close.operators is not None else ""
    return f"{close.observations}{of} operators have observed, nothing is attested"


def _behind(facts: Facts) -> Trouble | None:
    landed, adopted = known(facts.pool).rewards.landed.epoch, known(facts.status().settled).adopted_epoch
    if adopted >= landed:
        return None
    return Trouble(
        f"the chain settled epoch {landed}, this agent knows epoch {adopted}",
        "wait if it has just started; else see that it reaches an operator",
    )


def _nothing_settled(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    if pool.rewards.landed.epoch:
        return None
    return Trouble("no epoch is settled yet", f"wait: an epoch takes {span(pool.rewards.epoch_duration_s)}")


def _no_part(facts: Facts) -> Trouble | None:
    pool, (settled, leaf) = known(facts.pool), facts.settled()
    if settled.epoch < pool.rewards.landed.epoch or (leaf is not None and leaf.score):
        return None
    return Trouble(
        f"epoch {settled.epoch} was settled without work of this node{_reasons(facts, settled.epoch)}",
        "the causes above; else gpupool earnings and gpupool work explain say what was counted",
        _NOTE if _is_young(facts, pool) else None,
    )


def _is_young(facts: Facts, pool: PoolFacts) -> bool:
    """Whether agent and entry were not both there for the whole of the last epoch that could be settled.

    Work that the meter has not closed into a window yet could not count either: an idle host's first takes the longest.
    """
    up_s, entry = known(facts.status().agent).uptime_s, known(pool.entry)
    registered_s = up_s if entry is None else pool.time_s - max(entry.joined_s, entry.rotated_s)
    return min(up_s, registered_s) < 2 * pool.rewards.epoch_duration_s + facts.policy().work.window_max_s


def _reasons(facts: Facts, epoch: int) -> str:
    try:
        own = known(facts.status().own)
    except NotKnownError:
        return ""
    if own is None or own.epoch != epoch or not own.reasons:
        return ""
    return ": " + "; ".join(reason for reason in own.reasons[:SHOWN])


def _less(facts: Facts) -> Trouble | None:
    own = known(facts.status().own)
    if own is None or not own.metered_tokens or own.tokens >= own.metered_tokens:
        return None
    if not own.tokens:
        return _nothing_credited(facts, own)
    if not own.score:
        return None
    part = 100 * own.tokens / own.metered_tokens
    cause = f"epoch {own.epoch} credited {own.tokens:,} of {own.metered_tokens:,} metered tokens ({part:.0f} %)"
    return Trouble(cause + _reasons(facts, own.epoch), "gpupool earnings and gpupool work explain say more")


def _nothing_credited(facts: Facts, own: OwnForm) -> Trouble | None:
    if not own.score and _is_young(facts, known(facts.pool)):
        return None  # `no-part` says so
    cause = f"epoch {own.epoch} credited 0 of {own.metered_tokens:,} metered tokens{_reasons(facts, own.epoch)}"
    try:
        asks_receipts = facts.policy().receipts.ceiling == "receipts"
    except NotKnownError:
        asks_receipts = False
    if asks_receipts and (not own.reasons or any("receipts" in reason for reason in own.reasons)):
        return Trouble(cause, "no receipts came: see the gateway, `receipts.port`, docs/metering.md", _PROBLEM)
    return Trouble(cause, "gpupool earnings and gpupool work explain say more", _PROBLEM)


def _unclaimed(facts: Facts) -> Trouble | None:
    _, leaf = facts.settled()
    if leaf is None:
        return None
    due = leaf.earned_nanoton - known(facts.pool).rewards.paid_nanoton.get(leaf.participant.account, 0)
    return Trouble(f"{ton_exact(due)} wait to be claimed", "gpupool pool claim") if due > 0 else None


def _reconciliation(facts: Facts) -> Trouble | None:
    alarm = known(facts.status().reconciliation).alarm
    if alarm is None:
        return None
    return Trouble(alarm, "find out which of receipts, counters and payments is wrong before others ask")


def _not_backed_up(facts: Facts) -> Trouble | None:
    files = known(facts.settings.not_backed_up)
    if not files:
        return None
    cause = f"no backup is known of {' and '.join(files)}: with this host's disk stake and earnings would be lost"
    return Trouble(cause, "gpupool keys backup; keep it on another machine")


def _not_ready(facts: Facts) -> Trouble | None:
    return tried(known(facts.daemon).ready, "mend what is named above; if nothing is, see the agent's log")


CHECKS = tuple(
    Check(code=code, clazz=clazz, severity=severity, fine=fine, look=look)
    for code, clazz, severity, fine, look in (
        ("windows-waiting", _NETWORK, _WARNING, "work becomes records", _windows_waiting),
        ("not-operator", _SETTLEMENT, Severity.OK, "this node is an operator", _not_operator),
        ("close-hindered", _SETTLEMENT, _WARNING, "nothing hinders the close", _hindered),
        ("close-stalled", _SETTLEMENT, _PROBLEM, "epochs are settled in time", _stalled),
        ("settlement-behind", _SETTLEMENT, _WARNING, "the agent knows the last settlement", _behind),
        ("nothing-settled", _SETTLEMENT, _NOTE, "an epoch was settled", _nothing_settled),
        ("no-part", _SETTLEMENT, _PROBLEM, "this node has its part in the last settlement", _no_part),
        ("credited-less", _SETTLEMENT, _WARNING, "all that was metered was credited", _less),
        ("unclaimed", _SETTLEMENT, _NOTE, "nothing waits to be claimed", _unclaimed),
        ("reconciliation-alarm", _SETTLEMENT, _WARNING, "receipts, counters and payments agree", _reconciliation),
        ("keys-not-backed-up", FindingClass.SETTINGS, _WARNING, "the keys are backed up", _not_backed_up),
        # Last: whatever else keeps the agent from counting on itself was named above.
        ("agent-not-ready", FindingClass.HOST, _PROBLEM, "the agent says that it is ready", _not_ready),
    )
)
