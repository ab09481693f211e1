"""What scenarios are written with: the pool, its network, and the questions "does it settle", "does it stall".

All times are the chain's, in Unix seconds; chain and harness run on one machine.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import trio

from agent.devnet.onlooker import POLL_S, Landing
from contracts.permutation import permutation
from gossip.policy import PoolPolicy
from tests.chaos.books import LEVEL_S, Watchdog
from tests.chaos.errors import ViolationError
from tests.chaos.network import CUT
from tests.chaos.pool import LivingPool

LANDING_S = 6
"""From a certificate to its landing as the harness sees it: two slots of submitters, blocks, looks."""
READY_S = 60


class Stage:
    """One pool in the hands of scenarios. `noted` is what the running one measured."""

    def __init__(self, pool: LivingPool, policy: PoolPolicy, watchdog: Watchdog, seed: int) -> None:
        self.pool = pool
        self.network = pool.network
        self.names = pool.names
        self.watchdog = watchdog
        self.random = random.Random(seed)
        self.noted: dict[str, object] = {}
        self.lost: set[str] = set()
        """Agents that can take part no more, and need not."""
        timing = policy.timing
        self.view_s = timing.view_s
        self.settle_s = timing.settle_delay_s + timing.collect_s
        """From an epoch's end to its first view."""
        faulty = (len(self.names) - 1) // 3
        self.heal_s = (faulty + 2) * timing.view_s + LANDING_S
        """After healing, an epoch settles in so long (PROTOCOL, invariant 6)."""

    # Faults.

    async def divide(self, *sides: Sequence[str]) -> None:
        self.pool.say(f"cut: {' | '.join(' '.join(side) for side in sides)}")
        await self.network.divide(*sides)

    async def mute(self, ways: Sequence[tuple[str, str]]) -> None:
        """Cut these ways in their one direction."""
        self.pool.say(f"cut one way: {', '.join(f'{source} > {dest}' for source, dest in ways)}")
        await self.network.set(ways, CUT)

    async def heal(self) -> int:
        """Make all links plain; returns when that was."""
        await self.network.heal()
        self.pool.say("healed")
        return _now_s()

    async def leader(self) -> str:
        """Who leads view 0 of the epoch that runs now (PROTOCOL, "Epoch close" step 3)."""
        epoch, operators = self.pool.rewards.current_epoch, await self.pool.operators()
        seed = hashlib.sha256(epoch.to_bytes(4, "big") + operators.set_id.to_bytes(4, "big")).digest()
        key = operators.operators[permutation(seed, len(operators.operators))[0]].node_key
        return next(seat.name for seat in self.pool.seats if seat.node_key.public == key)

    # Questions.

    async def until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until something holds.

        Raises:
            ViolationError: it does not in time.
        """
        with trio.move_on_after(within_s):
            while not holds():  # noqa: ASYNC110 -- other processes' state
                await trio.sleep(POLL_S / 2)
            return
        raise ViolationError(f"{what}: not within {within_s:.0f} s")

    async def near_end(self, lead_s: float = 3) -> int:
        """Wait until so many seconds before the end of an epoch; returns that end."""
        while True:
            end_s = self.pool.rewards.current_end_s
            wait_s = end_s - lead_s - time.time()
            if wait_s > -1:
                await trio.sleep(max(0, wait_s))
                return end_s
            await trio.sleep(POLL_S)

    def settled_since(self, since_s: int) -> list[Landing]:
        """Settlements of epochs that ended at `since_s` or later."""
        return [landing for landing in self.pool.landings if landing.pot.end_s >= since_s]

    async def settles(self, since_s: int) -> None:
        """An epoch that ends at `since_s` or later settles, within f + 2 views, whatever the fault.

        Raises:
            ViolationError: it does not.
        """
        within_s = since_s + self.settle_s + self.heal_s - time.time()
        await self.until(lambda: bool(self.settled_since(since_s)), within_s, "an epoch that can settle")
        landing = self.settled_since(since_s)[0]
        self.note("settled_after_s", landing.after_s)

    async def stalls(self, since_s: int) -> None:
        """The epoch that ends at `since_s` is open a view after it could have settled, and so is all that follows.

        Raises:
            ViolationError: it is not: too few agreed on it, or it was never finalized, which needs nobody's consent.
        """
        await trio.sleep(max(0, since_s + self.settle_s + self.view_s - time.time()))
        if not any(epoch.end_s == since_s for epoch in self.pool.rewards.open_epochs):
            raise ViolationError("an epoch settled without a quorum, or nobody finalized it")

    async def recovers(self, healed_s: int) -> None:
        """All that is open settles, the first epoch within f + 2 views, and every agent knows it.

        Raises:
            ViolationError: it does not.
        """
        before, seen, rewards = len(self.pool.landings), dict(self.pool.onlooker.statuses), self.pool.rewards
        ended = rewards.current_epoch - (rewards.current_end_s > healed_s)
        if pending := ended - before:
            first_end_s = rewards.open_epochs[0].end_s if rewards.open_epochs else rewards.current_end_s
            can_s = max(healed_s, first_end_s + self.settle_s)
            within_s = can_s + self.heal_s - time.time()
            await self.until(lambda: len(self.pool.landings) > before, within_s, "after healing: the first epoch")
            self.note("pending", pending)
            self.note("settled_after_healing_s", max(0, self.pool.landings[before].settled_s - can_s))
            rest_s = pending * (self.settle_s + self.view_s + LANDING_S)
            await self.until(lambda: len(self.pool.landings) >= ended, rest_s, f"after healing: epoch {ended}")
        await self.until(partial(self.is_level, seen), READY_S, "after healing: every agent up to date")
        self.note("level_after_s", round(time.time() - healed_s))
        self.watchdog.owe(healed_s)
        await self.audit()

    def is_level(self, seen: Mapping[str, object] = MappingProxyType({})) -> bool:
        """Whether every agent is connected with every other, and has adopted what settled; as said after `seen`."""
        statuses, there = self.pool.onlooker.statuses, set(self.names) - self.lost
        return all(
            self.takes_part(name)
            and statuses[name] is not seen.get(name)
            and sum(p["connected"] for p in statuses[name]["peers"] if p["in_roster"]) == len(there) - 1
            for name in there
        )

    def takes_part(self, name: str) -> bool:
        """Whether this agent answers, knows its own log, and has adopted what settled."""
        onlooker = self.pool.onlooker
        return onlooker.has_caught_up(name) and onlooker.statuses[name]["is_own_log_known"]

    async def audit(self) -> None:
        """Judge all that landed (`tests.chaos.books`)."""
        await trio.to_thread.run_sync(self.watchdog.follow, self.pool.landings)

    async def all_is_paid(self) -> None:
        """Wait for the settlement that must hold everything, and judge it."""

        def is_due() -> bool:
            landings = self.pool.landings
            return self.watchdog.is_due(landings[-1].pot.end_s)

        await self.until(is_due, 2 * self.pool.epoch_s + LEVEL_S + self.heal_s, "the settlement that pays everything")
        await self.audit()

    def note(self, name: str, value: object) -> None:
        self.noted[name] = value


def _now_s() -> int:
    return int(time.time())
