"""The loops' beats: what counts as coming round, and what does not."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock

from agent.pulse import REST_S, Loop, Pulse


async def test_a_round_takes_every_loop_that_began(autojump_clock: MockClock) -> None:
    pulse = Pulse()
    assert not pulse.take_round()
    pulse.beat("measure")
    assert pulse.take_round()
    assert not pulse.take_round()
    pulse.beat("measure")
    pulse.beat("chain")
    assert pulse.take_round()
    for _ in range(3):
        pulse.beat("measure")
        assert not pulse.take_round()  # the chain's loop hangs
    pulse.beat("chain")
    assert pulse.take_round()


async def test_who_is_silent_longest(autojump_clock: MockClock) -> None:
    pulse = Pulse()
    assert pulse.most_silent() is None
    pulse.beat("measure")
    await trio.sleep(10)
    pulse.beat("gossip")
    await trio.sleep(5)
    assert pulse.most_silent() == ("measure", 15.0)


async def test_a_loop_that_rests_for_hours_beats_meanwhile(autojump_clock: MockClock) -> None:
    beats: list[tuple[Loop, float]] = []
    pulse = Pulse(lambda loop: beats.append((loop, trio.current_time())))
    began_s = trio.current_time()
    await pulse.rest("measure", 3600.5)
    assert trio.current_time() - began_s == 3600.5
    gaps = [after - before for (_, before), (_, after) in itertools.pairwise(beats)]
    assert max(gaps) <= REST_S
    assert {loop for loop, _ in beats} == {"measure"}


async def test_a_rest_of_no_time_gives_others_their_turn(autojump_clock: MockClock) -> None:
    pulse, turns = Pulse(), 0

    async def other() -> None:
        nonlocal turns
        turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await pulse.rest("chain", 0)
        await pulse.rest("chain", 0)
    assert turns == 1
