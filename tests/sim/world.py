"""The world of one run: virtual time, the queue of what happens next, and everybody in it.

One `random.Random` decides everything, events of one moment happen in the order in which they were planned, and
nothing depends on the order of a set: the same seed gives the same trace, in any process.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pool_fixture import START_S

from gossip.epoch_events import Submit
from tests.sim.agent import CrashedError, SimAgent
from tests.sim.bugs import NONE, Bug
from tests.sim.chain import BLOCK_MS, SimChain
from tests.sim.hostile import Cabal, HostileAgent
from tests.sim.network import Network
from tests.sim.plan import Plan, draw_plan
from tests.sim.watch import BrokenError, Watch

TAIL = 60
TRANSACTION_MS_MAX = 6_000
DOWN_MS_MAX = 60_000
RECONNECTED_MS = (4_000, 12_000)
"""After things are healed every agent is connected anew, and asks all its peers."""
CALM_SKEW_S = 2


class ViolationError(AssertionError):
    """An invariant does not hold; names seed and step."""

    def __init__(self, seed: int, step: int, reason: str) -> None:
        super().__init__(f"seed {seed}, step {step}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a seed: `violation` is None if everything held; `lines` are the last of the trace, or all."""

    seed: int
    steps: int
    settled: int
    """Epochs that settled."""
    trace: str
    """SHA-256 of the trace."""
    violation: str | None
    lines: tuple[str, ...]


def simulate(seed: int, bug: Bug = NONE, *, keep_all: bool = False) -> Outcome:
    """Run one seed to its end, or to the first violation; never raises for what the seed does."""
    world = World(seed, bug, keep_all=keep_all)
    violation = None
    try:
        world.run()
    except ViolationError as error:
        violation = str(error)
    return Outcome(
        seed=seed,
        steps=world.step,
        settled=world.chain.landed.epoch,
        trace=world.trace.hexdigest(),
        violation=violation,
        lines=tuple(world.tail),
    )


class World:
    """Agents, network and chain of one seed."""

    def __init__(self, seed: int, bug: Bug = NONE, *, plan: Plan | None = None, keep_all: bool = False) -> None:
        self.rng = Random(seed)
        self.plan = draw_plan(self.rng, seed) if plan is None else plan
        self.bug = bug
        self.now_ms = 0
        self.step = 0
        self.is_done = False
        self.trace = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=None if keep_all else TAIL)
        self._queue: list[tuple[int, int, str, Callable[[], object]]] = []
        self._planned = 0
        self.chain = SimChain(self.plan.operators, self.plan.agents - bool(self.plan.join_s), self.plan.ceiling)
        self.network = Network(self)
        self.cabal = Cabal()
        self.agents: list[SimAgent] = [
            HostileAgent(self, i, self.plan.hostile[i]) if i in self.plan.hostile else SimAgent(self, i)
            for i in range(self.plan.agents)
        ]
        self.watch = Watch(self)
        self._peers = [[j for j in range(self.plan.agents) if j != i] for i in range(self.plan.agents)]
        for agent in self.agents:
            agent.start()
        self.after(BLOCK_MS, "", self._add_block)
        for delay_ms in RECONNECTED_MS:
            self.after(self.plan.heal_s * 1000 + delay_ms, "reconnected", self._reconnect)
        for at_s in self.plan.blackouts_s:
            self.after(at_s * 1000, "blackout", self.black_out)
        if self.plan.join_s:
            last = self.plan.agents - 1
            self.after(self.plan.join_s * 1000, f"{last} registers", lambda: self.chain.register(last))
        if self.plan.rotation is not None:
            at_s, operators = self.plan.rotation
            self.after(at_s * 1000, "rotation", lambda: self.chain.rotate(operators))

    def run(self) -> None:
        """Run until the end that the watch names.

        Raises:
            ViolationError: something did not hold, or something raised what it must not.
        """
        try:
            while not self.is_done:
                self.take_step()
        except Exception as error:
            reason = str(error) if isinstance(error, BrokenError) else f"raised {error!r}"
            raise ViolationError(self.plan.seed, self.step, reason) from error

    def take_step(self) -> None:
        """Let the next event happen, and check everything."""
        self.now_ms, _, name, call = heapq.heappop(self._queue)
        self.step += 1
        self.chain.now_s = self.now_s
        if name:
            self.note(name)
        try:
            call()
        except CrashedError as crashed:
            self.note(f"{crashed.agent.i} crashes")
            crashed.agent.crash()
        self.watch.check()

    def after(self, delay_ms: int, name: str, call: Callable[[], object]) -> None:
        """Plan an event; one with a name is written to the trace when it happens."""
        self._planned += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._planned, name, call))

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        line = f"{self.now_ms} {text}"
        self.trace.update(line.encode())
        self.tail.append(line)

    def _add_block(self) -> None:
        self.chain.add_block()
        self.after(BLOCK_MS, "", self._add_block)

    def black_out(self) -> None:
        """Kill all honest agents at once."""
        for agent in self.agents:
            if agent.is_honest and agent.is_up:
                agent.crash()

    def _reconnect(self) -> None:
        for agent in self.agents:
            if agent.is_up:
                agent.ask_all()

    # Time, and what is broken now.

    @property
    def elapsed_s(self) -> int:
        return self.now_ms // 1000

    @property
    def now_s(self) -> int:
        """Chain time."""
        return START_S + self.elapsed_s

    @property
    def is_healed(self) -> bool:
        return self.elapsed_s >= self.plan.heal_s

    def skew_s(self, i: int) -> int:
        """How far the clock of agent `i` is off; after healing, at most `CALM_SKEW_S`."""
        skew = self.plan.skew_s.get(i, 0)
        return max(-CALM_SKEW_S, min(CALM_SKEW_S, skew)) if self.is_healed else skew

    def crashes(self) -> bool:
        """Whether a process dies here."""
        return bool(self.plan.crash) and not self.is_healed and self.rng.random() < self.plan.crash

    def down_ms(self) -> int:
        """How long a process that died stays away: at most until things are healed."""
        until_healed_ms = self.plan.heal_s * 1000 - self.now_ms
        return max(1, min(self.rng.randint(1_000, DOWN_MS_MAX), until_healed_ms))

    def is_chain_away(self, i: int) -> bool:
        """Whether agent `i` does not reach the chain."""
        if self.is_healed:
            return False
        return any(o.agent == i and o.from_s <= self.elapsed_s < o.until_s for o in self.plan.outages)

    def peers_of(self, i: int) -> list[int]:
        return self._peers[i]

    # The chain.

    def transact(self, i: int, what: str, call: Callable[[], object]) -> None:
        """Send a transaction: it arrives later, or, while things break, not at all (dropped, bounced, out of gas)."""
        if not self.is_healed and self.rng.random() < self.plan.transaction_loss:
            self.note(f"{i}: {what} is lost")
            return
        self.after(self.rng.randint(500, TRANSACTION_MS_MAX), f"{i}: {what} arrives", call)

    def settle(self, sender: SimAgent, submit: Submit) -> None:
        """A settlement arrives at the contracts."""
        outcome = self.chain.judge(submit)
        self.note(f"{sender.i}: {outcome}")
        self.watch.judged(sender, submit, outcome)
