"""Reputation steps: each follows from two settlements, and nobody is charged for what they do not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from epochs import Epochs
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import EPOCH_S, START_S, frame, key, participant

from contracts.model import REPUTATION_MAX, Leaf, Participant, ParticipantStatus, SettlePayload
from gossip.log_chain import Head
from gossip.policy import Reputation
from gossip.records import CloseBody
from gossip.reputation import EpochSpan, Event, judge
from gossip.settlement import Base, EvidenceWindow, Reading, Settlement

HOUR_S, DAY_S, WEEK_S = 3600, 86_400, 7 * 86_400
RULES = Reputation(settled=2, evidence_failed=20, offline=10, offline_after_s=DAY_S, forked=200)
WEEK = EpochSpan(start_s=START_S, end_s=START_S + WEEK_S)
EVIDENCE = EvidenceWindow(
    record=bytes(32), from_s=START_S, until_s=START_S + 2 * WEEK_S, machine=bytes(32), tokens_per_s=9
)
OLD = Reading(head=Head(9, bytes(32)), work_end_s=START_S, witnessed_s=1000, credited_s=1000)
WORKED = Reading(
    head=Head(99, bytes(32)),
    work_end_s=WEEK.end_s,
    witnessed_s=1000 + WEEK_S,
    credited_s=1000 + WEEK_S,
    evidence=(EVIDENCE,),
)


def entry(i: int, **changes: Any) -> Participant:
    return replace(participant(i), **{"joined_s": START_S - WEEK_S, **changes})


def leaf(i: int, tokens: int = 5, reputation: int = 500, **figures: int) -> Leaf:
    values = {"earned_nanoton": 0, "score": 0, "tasks": 0, "uptime_s": 1 if tokens else 0, "quality": 0}
    return Leaf(participant=participant(i).address, tokens=tokens, reputation=reputation, **{**values, **figures})


def settled(leaves: list[Leaf], readings: Mapping[int, Reading]) -> Settlement:
    payload = SettlePayload(
        epoch=7, prev=bytes(32), totals_root=bytes(32), count=0, total_score=0, total_earned_nanoton=0, tasks=0,
        tokens=0, policy_hash=bytes(32), cut_root=bytes(32),
    )  # fmt: skip
    return Settlement(
        payload=payload, leaves=tuple(leaves), readings={key(i).public: reading for i, reading in readings.items()}
    )


def events_of(
    was: Reading | None,
    is_: Reading | None,
    own: Leaf,
    *,
    span: EpochSpan | None = WEEK,
    closed: bool = False,
    other: Reading = WORKED,
    **changes: Any,
) -> tuple[Event, ...]:
    """The events of participant 0, beside participant 1 that was there all the time."""
    before = Base(readings={key(1).public: OLD} | ({} if was is None else {key(0).public: was}))
    readings = {1: other} if is_ is None else {0: is_, 1: other}
    judged = judge(
        before,
        settled([own, leaf(1)], readings),
        [entry(0, **changes), entry(1)],
        RULES,
        span=span,
        closed={key(0).public} if closed else set(),
    )
    return next((each.events for each in judged if each.participant.node_key == key(0).public), ())


def test_settled_work_is_a_step_up() -> None:
    assert events_of(OLD, WORKED, leaf(0)) == (Event.SETTLED,)
    before = Base(readings={key(0).public: OLD})
    (judged,) = judge(before, settled([leaf(0)], {0: WORKED}), [entry(0)], RULES, span=WEEK)
    assert (judged.participant, judged.reputation, judged.proposed) == (entry(0), 500, 502)


def test_who_is_there_and_idle_keeps_its_reputation() -> None:
    assert events_of(OLD, WORKED, leaf(0, tokens=0)) == ()


# Evidence.


@pytest.mark.parametrize(
    ("changes", "uptime_s", "fails"),
    [
        ({"evidence": (), "credited_s": 1000}, 0, True),
        ({"credited_s": 1000}, 0, False),
        ({"evidence": (), "credited_s": 1000, "work_end_s": START_S}, 0, False),
        ({"evidence": (), "credited_s": 1000}, 3, False),
        ({"evidence": (), "credited_s": 1000, "witnessed_s": 1000}, 0, False),
    ],
    ids=["none in force", "in force", "no work", "some was credited", "not witnessed"],
)
def test_work_that_no_evidence_covered(changes: dict[str, Any], uptime_s: int, fails: bool) -> None:
    found = events_of(OLD, replace(WORKED, **changes), leaf(0, tokens=0, uptime_s=uptime_s))
    assert (Event.EVIDENCE_FAILED in found) is fails


# Offline.


@pytest.mark.parametrize(("away_s", "is_offline"), [(0, False), (DAY_S, False), (DAY_S + 1, True), (WEEK_S, True)])
def test_offline_is_more_than_a_day_less_than_who_was_seen_most(away_s: int, is_offline: bool) -> None:
    seen = replace(WORKED, witnessed_s=WORKED.witnessed_s - away_s)
    assert (Event.OFFLINE in events_of(OLD, seen, leaf(0))) is is_offline


def test_while_operators_saw_nobody_nobody_was_offline() -> None:
    seen = replace(WORKED, witnessed_s=OLD.witnessed_s + HOUR_S)
    assert events_of(OLD, seen, leaf(0), other=seen) == (Event.SETTLED,)


def test_a_reading_that_caught_up_does_not_make_others_offline() -> None:
    caught_up = replace(WORKED, witnessed_s=WORKED.witnessed_s + 3 * DAY_S)
    assert events_of(OLD, WORKED, leaf(0), other=caught_up) == (Event.SETTLED,)


def test_who_joins_in_an_epoch_is_judged_from_then_on() -> None:
    joined = {"joined_s": WEEK.end_s - 2 * DAY_S}
    late = Reading(work_end_s=WEEK.end_s, witnessed_s=2 * DAY_S, evidence=(EVIDENCE,))
    assert events_of(None, late, leaf(0), **joined) == (Event.SETTLED,)
    assert events_of(None, None, leaf(0, tokens=0), **joined) == (Event.OFFLINE,)
    assert events_of(None, None, leaf(0, tokens=0), span=None, **joined) == (), "when it ended is not known"
    assert events_of(None, None, leaf(0, tokens=0), joined_s=WEEK.end_s) == (), "it joined later"


def test_a_key_that_took_anothers_place_is_judged_from_then_on() -> None:
    """A rotation follows the settlement (`keys rotate --at-epoch-end`), and proposals follow both."""
    rotated = {"rotated_s": WEEK.end_s - 2 * DAY_S}
    assert events_of(None, None, leaf(0, tokens=0), **rotated) == (Event.OFFLINE,)
    assert events_of(None, None, leaf(0), rotated_s=WEEK.end_s + 60) == (Event.SETTLED,)
    hours = EpochSpan(start_s=START_S + 23 * HOUR_S, end_s=START_S + 24 * HOUR_S)
    there = replace(OLD, witnessed_s=OLD.witnessed_s + HOUR_S, work_end_s=hours.end_s)
    for rotated_s in (hours.end_s - 60, hours.end_s + 60):
        assert events_of(None, None, leaf(0), span=hours, other=there, rotated_s=rotated_s) == (Event.SETTLED,)


def test_in_short_epochs_each_day_without_a_sign_counts_once() -> None:
    """Hours without a sign, from the last work on: of 72 of them three show that another day is full."""
    charged = []
    for hour in range(72):
        span = EpochSpan(start_s=START_S + hour * HOUR_S, end_s=START_S + (hour + 1) * HOUR_S)
        there = replace(OLD, witnessed_s=OLD.witnessed_s + HOUR_S, work_end_s=span.end_s)
        charged.append(Event.OFFLINE in events_of(OLD, OLD, leaf(0, tokens=0), span=span, other=there))
    assert [hour for hour, is_offline in enumerate(charged) if is_offline] == [23, 47, 71]


def test_who_was_seen_in_a_short_epoch_is_not_offline() -> None:
    span = EpochSpan(start_s=START_S + 23 * HOUR_S, end_s=START_S + 24 * HOUR_S)
    seen = replace(OLD, witnessed_s=OLD.witnessed_s + 60)
    assert events_of(OLD, seen, leaf(0, tokens=0), span=span) == ()


# The end of a log.


@pytest.mark.parametrize(
    ("was_dead", "closed", "expected"),
    [(False, False, (Event.FORKED,)), (False, True, ()), (True, False, ())],
    ids=["fork", "close", "of an earlier epoch"],
)
def test_a_fork_is_charged_once_and_a_close_never(was_dead: bool, closed: bool, expected: tuple[Event, ...]) -> None:
    ended = replace(OLD, dead=True)
    assert events_of(replace(OLD, dead=was_dead), ended, leaf(0, tokens=0), closed=closed) == expected


# What comes of it.


@pytest.mark.parametrize(
    ("reputation", "proposed"), [(150, 0), (0, None), (350, 152)], ids=["bounded", "at the bound", "the sum"]
)
def test_steps_add_up_within_the_bounds(reputation: int, proposed: int | None) -> None:
    before = Base(readings={key(0).public: OLD})
    ended = settled([leaf(0, reputation=reputation)], {0: replace(WORKED, dead=True)})
    judged = judge(before, ended, [entry(0, reputation=reputation)], RULES, span=WEEK)
    assert [each.proposed for each in judged] == ([] if proposed is None else [proposed])


def test_nothing_is_proposed_twice() -> None:
    before, now = Base(readings={key(0).public: OLD}), settled([leaf(0)], {0: WORKED})
    (outdated,) = judge(before, now, [entry(0, reputation=502)], RULES, span=WEEK)
    assert (outdated.is_outdated, outdated.reputation, outdated.proposed) == (True, 500, 502)


@pytest.mark.parametrize("status", [ParticipantStatus.SUSPENDED, ParticipantStatus.INACTIVE])
def test_nothing_is_proposed_of_whoever_is_barred_or_unknown(status: ParticipantStatus) -> None:
    assert events_of(OLD, WORKED, leaf(0), status=status) == ()
    assert judge(Base(), settled([], {}), [entry(0)], RULES, span=WEEK) == []


@given(
    reputation=st.integers(0, REPUTATION_MAX),
    tokens=st.integers(0, 9),
    dead=st.booleans(),
    seen_s=st.integers(0, WEEK_S),
    rules=st.builds(
        Reputation,
        settled=st.integers(0, 1000),
        evidence_failed=st.integers(0, 1000),
        offline=st.integers(0, 1000),
        offline_after_s=st.integers(60, WEEK_S),
        forked=st.integers(0, 1000),
    ),
)
def test_a_proposal_is_in_range_and_changes_something(
    reputation: int, tokens: int, dead: bool, seen_s: int, rules: Reputation
) -> None:
    now = settled(
        [leaf(0, tokens=tokens, reputation=reputation), leaf(1)],
        {0: replace(WORKED, dead=dead, witnessed_s=1000 + seen_s), 1: WORKED},
    )
    before = Base(readings={key(i).public: OLD for i in range(2)})
    judged = judge(before, now, [entry(0, reputation=reputation), entry(1)], rules, span=WEEK)
    assert all(0 <= each.proposed <= REPUTATION_MAX for each in judged)
    assert all(each.proposed != each.reputation for each in judged)


# From the tally itself.


def test_the_events_follow_from_what_the_tally_settled() -> None:
    """One works, one has no evidence, one closes its log."""
    pool = Epochs(n=3)
    pool.authors[0].prove()
    pool.authors[2].prove()
    for author in pool.authors:
        author.work()
    pool.authors[2].append(CloseBody())
    before, settlement = pool.base, pool.settle()
    current = frame(3)
    judged = judge(
        before,
        settlement,
        current.participants,
        RULES,
        span=EpochSpan(start_s=START_S, end_s=START_S + EPOCH_S),
        closed={key(2).public},
    )
    assert {each.participant.node_key: each.events for each in judged} == {
        key(0).public: (Event.SETTLED,),
        key(1).public: (Event.EVIDENCE_FAILED,),
        key(2).public: (Event.SETTLED,),
    }
