"""What is done to a living pool, and what must hold while it is done and after.

Each scenario ends with the pool whole again, everything settled, and every settlement judged. They run one after the
other on one pool; those that leave a lasting mark on an agent (`clock`, `twin`) come last.

Source: PROTOCOL, "Failures that must be tested".
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import trio

from agent.output import EXIT_KEY
from tests.chaos.errors import ViolationError
from tests.chaos.links import Link
from tests.chaos.pool import CHAIN, TWIN
from tests.chaos.stage import Stage

FULL_DISK_AGENT = 5
"""Its state folder is a small disk of its own."""
CLOCK_AGENT, TWIN_AGENT = 4, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is done, what must hold, and whether it is among the few of a quick run."""

    name: str
    does: str
    holds: str
    run: Callable[[Stage], Awaitable[None]]
    is_quick: bool = False


SCENARIOS: list[Scenario] = []


def _scenario(
    does: str, holds: str, *, quick: bool = False
) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[Stage], Awaitable[None]]]:
    def register(run: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
        SCENARIOS.append(Scenario(name=run.__name__, does=does, holds=holds, run=run, is_quick=quick))
        return run

    return register


@_scenario("4 of 7 and 3 of 7 cannot hear each other", "stalls; then all of it is settled and paid", quick=True)
async def partition(stage: Stage) -> None:
    end_s = await stage.near_end()
    await stage.divide(stage.names[:4], stage.names[4:])
    await stage.stalls(end_s)
    await stage.recovers(await stage.heal())
    landing = stage.settled_since(end_s)[0]
    if idle := [leaf for leaf in landing.settlement.leaves if not (leaf.uptime_s and leaf.tokens)]:
        raise ViolationError(f"{len(idle)} participants got nothing for an epoch that was cut in two")


@_scenario("one agent is not heard; of the others, three pairs hear each other one way only", "settles")
async def one_way(stage: Stage) -> None:
    deaf = stage.names[0]
    others = stage.names[1:]
    end_s = await stage.near_end()
    await stage.mute([*((deaf, other) for other in others), *zip(others[::2], others[1::2], strict=True)])
    await stage.settles(end_s)
    await stage.recovers(await stage.heal())


@_scenario("one agent is cut off from all others, not from the chain, and comes back", "settles without it")
async def cut_off(stage: Stage) -> None:
    lone = stage.random.choice(stage.names)
    end_s = await stage.near_end()
    await stage.divide([lone], [name for name in stage.names if name != lone])
    await stage.settles(end_s)
    await stage.settles(await stage.near_end())  # long enough for every connection to be given up
    await stage.recovers(await stage.heal())


@_scenario("4 | 3, healed and cut again every 3 s", "settles what it can, and all of it afterwards")
async def flapping(stage: Stage) -> None:
    end_s = await stage.near_end()
    until_s = end_s + stage.settle_s + stage.view_s
    while time.time() < until_s:
        await stage.network.divide(stage.names[:4], stage.names[4:])
        await trio.sleep(3)
        await stage.network.heal()
        await trio.sleep(3)
    await stage.recovers(await stage.heal())


@_scenario("100 +- 50 ms each way, 5 % loss, 1 % doubled, 1 % reordered; to the chain, too", "settles")
async def lossy(stage: Stage) -> None:
    link = Link(delay_s=0.1, jitter_s=0.05, loss=0.05, duplicate=0.01, reorder=0.01)
    await stage.network.set(permutations([*stage.names, CHAIN], 2), link)
    stage.pool.say("100 +- 50 ms, 5 % loss")
    await stage.settles(await stage.near_end())
    await stage.settles(await stage.near_end())
    await stage.recovers(await stage.heal())


@_scenario("SIGSTOP of the leader, for 30 s", "the next leader settles; it catches up", quick=True)
async def stopped_leader(stage: Stage) -> None:
    end_s = await stage.near_end()
    leader = await stage.leader()
    stage.pool.say(f"stopped {leader}, the leader")
    stopped_s = time.time()
    stage.pool.pause(leader)
    try:
        await stage.settles(end_s)
        await trio.sleep(max(0.0, stopped_s + 30 - time.time()))
    finally:
        stage.pool.resume(leader)
    await stage.recovers(_resumed(stage, leader))


@_scenario("kill -9 of one agent after the other, each started again at once", "settles meanwhile", quick=True)
async def kill_loop(stage: Stage) -> None:
    end_s = await stage.near_end(lead_s=stage.pool.epoch_s / 2)
    until_s = end_s + stage.settle_s + stage.view_s
    kills = 0
    while time.time() < until_s:
        name = stage.random.choice(stage.names)
        stage.pool.kill(name)
        await trio.sleep(stage.random.uniform(0.1, 1.5))
        await stage.pool.start(name)
        kills += 1
        await trio.sleep(stage.random.uniform(0.5, 3.0))
    stage.note("kills", kills)
    stage.pool.say(f"killed {kills} agents")
    await stage.settles(end_s)
    await stage.recovers(int(time.time()))


@_scenario("kill -9 of all agents at once, before their close; then all start at once", "settles")
async def all_restarted(stage: Stage) -> None:
    end_s = await stage.near_end(lead_s=1)
    for name in stage.names:
        stage.pool.kill(name)
    stage.pool.say("killed all")
    for name in stage.names:
        await stage.pool.start(name)
    started_s = _resumed(stage, "all")
    await stage.settles(end_s)
    await stage.recovers(started_s)


@_scenario("the chain is killed over an epoch's end, and started again", "settles when it is back")
async def chain_outage(stage: Stage) -> None:
    await stage.near_end()
    stage.pool.kill_chain()
    stage.pool.say("killed the chain")
    await trio.sleep(12)
    await stage.pool.start_chain()
    await stage.recovers(_resumed(stage, "the chain"))


@_scenario("3 of 7 agents cannot reach the chain", "stalls: 4 are no quorum; settles afterwards")
async def chain_unseen(stage: Stage) -> None:
    end_s = await stage.near_end()
    await stage.divide([CHAIN], stage.names[4:])
    await stage.stalls(end_s)
    await stage.recovers(await stage.heal())


@_scenario("the disk of one agent is full", "it stops and says so; settles without it; it goes on with room")
async def full_disk(stage: Stage) -> None:
    name = stage.names[FULL_DISK_AGENT]
    # SQLite writes over its log of before: an agent that ran for long has room in it for minutes.
    stage.pool.stop(name)
    await stage.until(lambda: not stage.pool.is_running(name), 15, "an agent stops when it is told to")
    await stage.pool.start(name)
    end_s = await stage.near_end(lead_s=5)
    stage.pool.expect_end(name)
    filler = stage.pool.data(name) / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    stage.pool.say(f"filled the disk of {name}")
    await stage.until(lambda: not stage.pool.is_running(name), 15, "an agent with a full disk stops")
    said = stage.pool.child(name).last_words()
    says_what_helps = "make room" in said or "the disk is full" in said  # in the middle of its work, or of its start
    if stage.pool.child(name).code != 1 or not says_what_helps:
        raise ViolationError(f"an agent with a full disk should stop in order, and say what helps; it said: {said}")
    await stage.settles(end_s)
    filler.unlink()
    await stage.pool.start(name)
    await stage.recovers(_resumed(stage, name))


@_scenario("the clock of one agent is 10 min ahead, then right again: a step back", "settles; the others lose nothing")
async def clock(stage: Stage) -> None:
    name = stage.names[CLOCK_AGENT]
    end_s = await stage.near_end(lead_s=5)
    stage.pool.set_clock_ahead(name, 600)
    stage.pool.say(f"{name} is 10 min ahead")
    await stage.settles(end_s)
    end_s = await stage.near_end()
    stage.pool.set_clock_ahead(name, 0)
    stage.pool.say(f"{name} stepped back")
    await stage.settles(end_s)
    await stage.recovers(int(time.time()))


@_scenario(
    "a second agent with the key and a copy of the journal of one, on another machine", "settles; others unharmed"
)
async def twin(stage: Stage) -> None:
    name = stage.names[TWIN_AGENT]
    seat = stage.pool.seats[TWIN_AGENT]
    stage.watchdog.shared.add(seat.node_key.public)
    end_s = await stage.near_end(lead_s=stage.pool.epoch_s / 2)
    same = await stage.pool.start_other(seat.config, name)
    await stage.until(lambda: same.code is not None, 20, "a second agent on one journal refuses to start")
    if same.code != 1 or "in use by another process" not in same.last_words():
        raise ViolationError(f"a second agent on one journal should say what is wrong; it said: {same.last_words()}")
    stage.pool.kill(name)  # a copy of a file that is written to would be a damaged one
    folder = stage.pool.directory / TWIN
    await trio.to_thread.run_sync(partial(shutil.copytree, seat.directory, folder))
    await stage.pool.start(name)
    config = folder / seat.config.name
    config.write_text(config.read_text().replace(seat.host.address, stage.network.rooms[TWIN].address))
    other = await stage.pool.start_other(config, TWIN)
    stage.pool.expect_end(name)
    stage.pool.say(f"started a second {name}")
    await stage.settles(end_s)
    await stage.settles(await stage.near_end())
    for child in (other, stage.pool.child(name)):
        if child.code is not None:
            stage.note("refused", child.last_words()[:80])
        await child.stop()
    await stage.pool.start(name)
    started_s = _resumed(stage, name)
    stage.pool.expect_end(name)
    await stage.audit()
    if seat.node_key.public in stage.watchdog.forked:
        await stage.until(lambda: not stage.pool.is_running(name), 30, "an agent whose log forked stops")
        said = stage.pool.child(name).last_words()
        if stage.pool.child(name).code != EXIT_KEY or "stop every agent of this key" not in said:
            raise ViolationError(f"an agent whose log forked should say so; it said: {said}")
        stage.lost.add(name)
        stage.note("forked", name)
    await stage.recovers(started_s)


def _resumed(stage: Stage, what: str) -> int:
    stage.pool.say(f"{what}: running again")
    return int(time.time())
