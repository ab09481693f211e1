"""Operator sets that change while epochs run and close: each epoch is settled by the set that is pinned to it.

Participants 0 to 5; operators 0 to 3 are set 1, 2 to 5 are set 2.
"""

from __future__ import annotations

import pytest
from pool_fixture import Pool, operator_set, run_epoch, write_work

from contracts.model import SET_FALLBACK_S
from gossip.epoch_events import Publish
from gossip.errors import InvalidMessageError
from gossip.messages import Observation

OLD, NEW = operator_set(4), operator_set(4, set_id=2, first=2)


@pytest.fixture
def pool() -> Pool:
    made = Pool(6, operators=OLD)
    write_work(made)
    return made


def step_until_open(pool: Pool) -> None:
    while not pool.chain.open:
        pool.step()


def test_a_rotation_at_the_boundary_changes_who_settles_the_next_epoch_only(pool: Pool) -> None:
    pool.chain.now_s = pool.chain.end_s - 1
    pool.chain.rotate(NEW)
    run_epoch(pool)
    write_work(pool)
    run_epoch(pool)
    assert pool.chain.settled_by == [1, 2]
    assert [payload.epoch for payload in pool.chain.payloads] == [1, 2]
    assert {agent.machine.base.payload_hash for agent in pool.agents} == {pool.chain.landed.payload_hash}


def test_a_set_that_took_over_while_an_epoch_closes_settles_neither_it_nor_the_running_one(pool: Pool) -> None:
    step_until_open(pool)
    pool.chain.rotate(NEW)
    for _ in range(3):
        run_epoch(pool)
    assert pool.chain.settled_by == [1, 1, 2]


def test_operators_that_left_the_set_are_needed_for_its_last_epoch_and_give_their_signatures(pool: Pool) -> None:
    pool.down = {2}
    pool.chain.rotate(NEW)
    run_epoch(pool)
    assert pool.chain.settled_by == [1]


def test_nobody_settles_for_a_pinned_set_without_quorum_until_it_counts_as_lost(pool: Pool) -> None:
    pool.down = {0, 1}
    pool.chain.rotate(NEW)
    for _ in range(60):
        pool.step()
    assert pool.chain.open
    assert pool.chain.settled_by == []
    pool.chain.now_s += SET_FALLBACK_S
    run_epoch(pool)
    assert pool.chain.settled_by == [2]
    assert pool.chain.landed.total_earned_nanoton > 0


def test_an_epoch_that_began_under_the_owner_is_settled_by_whoever_stands(pool: Pool) -> None:
    pool.chain.pinned_set = 0
    pool.down = {0, 1}
    step_until_open(pool)
    for _ in range(10):
        pool.step()
    assert pool.agents[3].machine.progress().total_weight == 4
    pool.chain.rotate(NEW)
    run_epoch(pool)
    assert pool.chain.settled_by == [2]


def test_what_was_said_under_the_old_frame_does_not_count_under_the_new_one(pool: Pool) -> None:
    pool.chain.pinned_set = 0
    pool.down = {0, 1}
    step_until_open(pool)
    said: list[Observation] = []

    def listen(_sender: int, message: object) -> object:
        if isinstance(message, Observation):
            said.append(message)
        return message

    pool.tamper = listen
    for _ in range(10):
        pool.step()
    pool.chain.rotate(NEW)
    agent = pool.agents[2]
    again = [a.message for a in agent.advance(pool.chain) if isinstance(a, Publish)]
    assert [(m.set_id, m.operator) for m in again] == [(2, agent.machine._key.public)]
    assert agent.machine.progress().observations == 1
    with pytest.raises(InvalidMessageError, match="another operator set"):
        agent.hear(next(m for m in said if m.operator == OLD.operators[3].node_key))
