"""Which messages of an epoch are kept, and which of them are looked at."""

from __future__ import annotations

from pool_fixture import POOL, START_S, frame, key

from gossip.log_chain import GENESIS
from gossip.messages import (
    ListedObservation,
    Observation,
    ObservedLog,
    Proposal,
    make_observation,
    make_proposal,
)
from gossip.round import JUDGED_MAX, OBSERVATIONS_PER_OPERATOR_MAX, Round
from gossip.settlement import Base

N = 4
HOSTILE = 3
TIMING = frame(N).policy.timing


def open_round(n: int = N) -> Round:
    return Round(frame(n), POOL, START_S)


def observation(operator: int, number: int) -> Observation:
    logs = {key(i).public: ObservedLog(head=GENESIS, witnessed_s=number, worker_tokens=0) for i in range(N)}
    return make_observation(
        key(operator),
        POOL,
        epoch=1,
        set_id=1,
        policy_hash=frame(N).policy.hash,
        base=Base().payload_hash,
        logs=logs,
        forks=(),
    )


def proposal(round_: Round, view: int, digests: dict[int, bytes]) -> Proposal:
    listed = tuple(ListedObservation(index=i, digest=digests.get(i, bytes(32))) for i in range(N))
    leader = key(round_.leader_of(view))
    return make_proposal(leader, POOL, epoch=1, view=view, set_id=1, listed=listed, cert_hash=bytes(32))


def test_what_a_proposal_of_the_latest_views_lists_does_not_give_way() -> None:
    round_ = open_round()
    listed = observation(HOSTILE, 0)
    round_.add_observation(listed, Base(), 0)
    round_.add_proposal(proposal(round_, 0, {HOSTILE: listed.digest}))
    for number in range(1, 5 * OBSERVATIONS_PER_OPERATOR_MAX):
        round_.add_observation(observation(HOSTILE, number), Base(), OBSERVATIONS_PER_OPERATOR_MAX - 2)
    assert listed.digest in round_.observations
    assert len(round_.observations) == OBSERVATIONS_PER_OPERATOR_MAX
    for number in range(100, 100 + OBSERVATIONS_PER_OPERATOR_MAX):
        round_.add_observation(observation(HOSTILE, number), Base(), OBSERVATIONS_PER_OPERATOR_MAX - 1)
    assert listed.digest not in round_.observations, "its view is over long since"


def test_an_operator_that_fills_its_share_with_listed_ones_still_has_a_place_for_the_next() -> None:
    """Hostile leaders list its observations under others' names, too: these do not count."""
    round_ = open_round()
    held = [observation(HOSTILE, number) for number in range(OBSERVATIONS_PER_OPERATOR_MAX)]
    for each in held:
        round_.add_observation(each, Base(), 0)
    round_.add_proposal(proposal(round_, 0, {i: each.digest for i, each in enumerate(held)}))
    wanted = observation(HOSTILE, 9)
    assert round_.add_observation(wanted, Base(), 0) == held[0]
    assert wanted.digest in round_.observations
    assert held[HOSTILE].digest in round_.observations


def test_of_many_proposals_that_wait_those_of_the_latest_open_views_are_looked_at() -> None:
    n = 8
    round_ = open_round(n)
    views = range(n * 6)
    for view in reversed(views):
        listed = tuple(ListedObservation(index=i, digest=bytes(32)) for i in range(n))
        leader = key(round_.leader_of(view))
        round_.add_proposal(
            make_proposal(leader, POOL, epoch=1, view=view, set_id=1, listed=listed, cert_hash=bytes(32))
        )
    opened_s = START_S + TIMING.collect_s
    assert round_.to_judge(opened_s - 1) == []
    assert [p.view for p in round_.to_judge(opened_s)] == [0]
    latest = [p.view for p in round_.to_judge(opened_s + 40 * TIMING.view_s)]
    assert latest == list(range(41 - JUDGED_MAX, 41))


def test_the_latest_observation_is_the_last_that_came() -> None:
    round_ = open_round()
    assert round_.latest_observation(key(0).public) is None
    for number in (2, 1):
        round_.add_observation(observation(0, number), Base(), None)
    assert round_.latest_observation(key(0).public) == observation(0, 1)
