"""Every bug of PROTOCOL's list, injected: some seed notices it, and without it the same seed passes."""

from __future__ import annotations

import pytest
from pool_fixture import operator_set

from tests.sim.bugs import BUGS, FORGET_OUTCOME, NONE, Bug
from tests.sim.plan import Plan
from tests.sim.world import ViolationError, World, simulate

SEEDS = range(300)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_noticed(bug: Bug) -> None:
    caught = next((seed for seed in SEEDS if simulate(seed, bug).violation is not None), None)
    assert caught is not None
    assert simulate(caught).violation is None


def all_killed_after_a_landing(bug: Bug) -> World:
    world = World(0, bug, plan=Plan(seed=0, agents=4, operators=operator_set(4)))
    while world.chain.landed.epoch == 0:
        world.take_step()
    world.black_out()
    for _ in range(3):
        world.chain.add_block()  # whoever comes back sees that it landed, however late it reads
    return world


def test_all_that_are_killed_when_an_epoch_has_just_landed_still_know_it() -> None:
    world = all_killed_after_a_landing(NONE)
    assert all(agent.journal.last_landed() is None for agent in world.agents)
    world.run()
    assert {agent.machine.base.epoch for agent in world.agents} == {2}


def test_without_its_outcome_an_attest_leaves_a_pool_that_nothing_helps() -> None:
    with pytest.raises(ViolationError, match="epoch 2 does not settle"):
        all_killed_after_a_landing(FORGET_OUTCOME).run()
