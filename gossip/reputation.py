"""Reputation: which steps an epoch's settlement gives reason for, the same for everyone who holds it.

Pure. A step is a proposal to the operators, who sign it as a certificate; nothing here changes what is earned before it
landed. An event counts only if it follows from two settlements that landed one after the other, from the registry, and
from records that every operator holds: what one operator alone saw or heard is no reason.

1. SETTLED: the participant has tokens in the settlement.
2. EVIDENCE_FAILED: its log brought work, operators witnessed it, and yet no second of it was credited, and no evidence
   of it is in force. Work of which a part was covered, and evidence that is in force but covers other windows, do not
   show in a settlement and count for nothing here.
3. OFFLINE: in this epoch it was seen `offline_after_s` less than whoever was seen most (so that nobody is charged for
   hours in which the operators saw nobody), or, where epochs are shorter than that: it was not seen at all, and one
   more `offline_after_s` since its last work ended in this epoch. Once in an epoch at most. Neither who closed its
   log nor who forked it is offline. A node key that took another's place in the registry is judged from then on.
4. FORKED: its log ended in this epoch, and not by its own close record.
5. The step is the sum of its events; reputation stays within 0..1000.
6. It starts from the reputation that the settlement counted with. If the registry has another one by now (an earlier
   proposal landed, or a slash), nothing is proposed: so proposing twice changes nothing.
7. Of whoever is suspended or inactive, or joined after the epoch, nothing is proposed. A log is judged by the key that
   the registry names now: what the log of a replaced key shows is for people to look at.

Elsewhere: how a proposal becomes a certificate (`agent.pool.reputation`).

Source: PROTOCOL, "Records" (fork) and "Tally"; CONTRACTS, "Certificate" (reputation).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from contracts.model import REPUTATION_MAX, Leaf, Participant
from gossip.coverage import BARRED
from gossip.policy import Reputation
from gossip.settlement import Base, Reading, Settlement


class Event(Enum):
    """What a settlement shows of a participant; the value is for people."""

    SETTLED = "settled work"
    EVIDENCE_FAILED = "no evidence held"
    OFFLINE = "offline"
    FORKED = "forked its log"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSpan:
    """When an epoch began and ended, by the chain."""

    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a settlement gives reason for: `reputation` is what it counted with, `proposed` what would follow."""

    participant: Participant
    reputation: int
    proposed: int
    events: tuple[Event, ...]

    @property
    def is_outdated(self) -> bool:
        """The registry has another reputation by now (rule 6)."""
        return self.participant.reputation != self.reputation


def judge(
    before: Base,
    settlement: Settlement,
    participants: Sequence[Participant],
    rules: Reputation,
    *,
    span: EpochSpan | None = None,
    closed: Collection[bytes] = (),
) -> list[Judgement]:
    """Whose reputation `settlement` gives reason to change, ascending by address.

    `participants` are the registry's entries, `closed` the node keys of those whose last counted record closed the
    log. Without a `span` nobody is judged offline for an epoch in which it is new, nor over several epochs.
    """
    leaves = {leaf.participant: leaf for leaf in settlement.leaves}
    watched_s = max(
        (after.witnessed_s - before.reading(node_key).witnessed_s for node_key, after in settlement.readings.items()),
        default=0,
    )
    if span is not None:
        watched_s = min(watched_s, span.end_s - span.start_s)
    judged = []
    for participant in sorted(participants, key=lambda p: p.address):
        leaf = leaves.get(participant.address)
        if leaf is None or participant.status in BARRED or (span is not None and participant.joined_s >= span.end_s):
            continue
        was, is_ = before.reading(participant.node_key), settlement.readings.get(participant.node_key, Reading())
        events = _log_events(was, is_, leaf, is_closed=participant.node_key in closed)
        if not is_.dead and _is_offline(participant, before, is_, rules, watched_s, span):
            events.append(Event.OFFLINE)
        proposed = min(max(leaf.reputation + sum(_step(event, rules) for event in events), 0), REPUTATION_MAX)
        if proposed != leaf.reputation:
            judged.append(
                Judgement(participant=participant, reputation=leaf.reputation, proposed=proposed, events=tuple(events))
            )
    return judged


def _log_events(was: Reading, is_: Reading, leaf: Leaf, *, is_closed: bool) -> list[Event]:
    """What the log and its leaf show (rules 1, 2, 4)."""
    events = []
    if leaf.tokens:
        events.append(Event.SETTLED)
    has_worked = is_.work_end_s > was.work_end_s and is_.witnessed_s > was.credited_s
    if has_worked and not leaf.uptime_s and not is_.evidence:
        events.append(Event.EVIDENCE_FAILED)
    if is_.dead and not was.dead and not is_closed:
        events.append(Event.FORKED)
    return events


def _is_offline(
    participant: Participant, before: Base, is_: Reading, rules: Reputation, watched_s: int, span: EpochSpan | None
) -> bool:
    """Rule 3."""
    is_new = participant.node_key not in before.readings
    if span is None and is_new:
        return False
    seen_s = is_.witnessed_s - before.reading(participant.node_key).witnessed_s
    since_s = max(participant.joined_s, participant.rotated_s)
    absent_s = 0 if span is None else max(0, since_s - span.start_s)
    if watched_s - absent_s - seen_s > rules.offline_after_s:
        return True
    if span is None or seen_s or not watched_s:
        return False
    last_s = max(is_.work_end_s, since_s)
    periods = max(0, span.end_s - last_s) // rules.offline_after_s
    return periods > max(0, span.start_s - last_s) // rules.offline_after_s


def _step(event: Event, rules: Reputation) -> int:
    match event:
        case Event.SETTLED:
            return rules.settled
        case Event.EVIDENCE_FAILED:
            return -rules.evidence_failed
        case Event.OFFLINE:
            return -rules.offline
        case Event.FORKED:
            return -rules.forked
