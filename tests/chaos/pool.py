"""A living pool in rooms of its own: the dev network's parts, each where the network says, and what breaks them.

Everything up to the first epoch, and the books at the end, is `agent.devnet`'s; between the two `drive` has the pool
in its hand. Agents run with a clock that can be set wrong (`tests.chaos.skewed_agent`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from agent.config import load_config
from agent.devnet.layout import Host, Seat, agent_name
from agent.devnet.onlooker import POLL_S, Landing, Onlooker
from agent.devnet.options import DevnetOptions
from agent.devnet.processes import Child, start
from agent.devnet.report import Books, Share
from agent.devnet.supervisor import Devnet
from contracts.chain import LiteServer, open_chain
from contracts.model import OperatorSet, RewardsState
from contracts.reader import PoolReader
from tests.chaos.errors import ViolationError
from tests.chaos.network import Network
from tests.chaos.skewed_agent import set_ahead

CHAIN, TWIN, HOME = "chain", "twin", "home"
EPOCHS_MAX = 1000
SKEWED = ("skewed_agent", "clock")
"""Module that agents run in (`python -m tests.chaos.MODULE FILE run ...`), and how its FILE ends."""


class LivingPool(Devnet):
    """The parts of one pool by name: "agent-0" to "agent-6", "chain", and a "twin" that a scenario may start."""

    def __init__(
        self,
        directory: Path,
        network: Network,
        drive: Callable[[LivingPool], Awaitable[None]],
        wrapper: tuple[str, str] = SKEWED,
        **options: object,
    ) -> None:
        def host_of(name: str) -> Host:
            room = network.rooms[name]
            return Host(address=room.address, prefix=room.enter)

        chosen = DevnetOptions(
            epochs=EPOCHS_MAX,
            chaos="scenarios",
            as_json=True,
            agent_arguments=self._arguments,
            host_of=host_of,
            **options,  # type: ignore[arg-type]
        )
        super().__init__(chosen, directory)
        self.directory = directory
        self.network = network
        self.epoch_s = chosen.epoch_s
        self.names = [agent_name(index) for index in range(chosen.agents)]
        self.books: Books | None = None
        self.faults: list[str] = []
        self._drive = drive
        self._module, self._suffix = wrapper
        self._server: LiteServer
        self._seen: Onlooker | None = None
        for name in (*self.names, TWIN):
            if wrapper == SKEWED:
                set_ahead(self._beside(name), 0)

    # What can be seen.

    @property
    def seats(self) -> list[Seat]:
        return self._seats

    @property
    def rewards(self) -> RewardsState:
        """The rewards contract as last seen."""
        rewards = self.onlooker.rewards
        assert rewards is not None
        return rewards

    @property
    def landings(self) -> list[Landing]:
        """All settlements in order."""
        landings = self.onlooker.landings
        return [landings[epoch] for epoch in sorted(landings)]

    @property
    def epochs(self) -> int:
        """How many settled."""
        return 0 if self._seen is None else self._seen.settled_epoch

    @property
    def onlooker(self) -> Onlooker:
        """What is seen of the pool from outside, once its first epoch runs."""
        assert self._seen is not None
        return self._seen

    async def operators(self) -> OperatorSet:
        """The operator set that stands on chain."""
        address = load_config(self.seats[0].config).pool.contract
        async with open_chain([self._server]) as chain:
            operators = (await PoolReader(chain, address).state()).operator_set
        assert operators is not None
        return operators

    def say(self, text: str) -> None:
        self._say(text)

    def is_running(self, name: str) -> bool:
        return self._agents[name].code is None

    def child(self, name: str) -> Child:
        return self._agents[name]

    def data(self, name: str) -> Path:
        """An agent's state folder."""
        return load_config(self.directory / name / "agent.toml").data_dir

    # What can be done to it.

    def kill(self, name: str) -> None:
        """SIGKILL: nothing is saved. Its connections are reset, as by its kernel."""
        self._agents[name].kill()

    def stop(self, name: str) -> None:
        """SIGTERM: it ends in order, and leaves a journal without a log beside it."""
        self.expect_end(name)
        os.kill(self._agents[name].pid, signal.SIGTERM)

    async def start(self, name: str) -> None:
        """Start an agent that ended."""
        await self._start_agent(next(seat for seat in self._seats if seat.name == name))

    async def start_other(self, config: Path, room: str) -> Child:
        """Start one more agent, with this config, in this room; it may end by itself."""
        arguments = self._program(room, config)
        child = await start(room, arguments, config.parent / "second.log", prefix=self.network.rooms[room].enter)
        child.stopping = True
        self._children.append(child)
        return child

    def pause(self, name: str) -> None:
        os.kill(self._agents[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self._agents[name].pid, signal.SIGCONT)

    def set_clock_ahead(self, name: str, ahead_s: float) -> None:
        set_ahead(self._beside(name), ahead_s)

    def expect_end(self, name: str) -> None:
        """This agent may end by itself from now on, until it is started again."""
        self._agents[name].stopping = True

    def kill_chain(self) -> None:
        assert self._chain is not None
        self._chain.kill()

    async def start_chain(self) -> None:
        await self._run_chain(self._server.port)

    # What the dev network asks.

    async def _make_chaos(self, what: str, server: LiteServer, onlooker: Onlooker) -> None:
        self._seen, self._server = onlooker, server
        while onlooker.settled_epoch == 0:  # noqa: ASYNC110 -- other processes' state
            await trio.sleep(POLL_S)
        await self._drive(self)
        self._last_epoch = self.epochs  # what was paid in since goes to nobody here
        self._is_chaos_over = True

    def _require_progress(self, settled_epoch: int) -> None:
        for child in self._children:
            if child.code is not None and not child.stopping:
                raise ViolationError(f"{child.name} ended by itself with code {child.code}: {child.last_words()}")

    def _report(self, rows: Sequence[Share], books: Books, landings: Sequence[Landing], faults: Sequence[str]) -> None:
        self.books, self.faults = books, list(faults)

    def _arguments(self, seat: Seat) -> Sequence[str]:
        return self._program(seat.name, seat.config)

    def _program(self, name: str, config: Path) -> list[str]:
        return ["-m", f"tests.chaos.{self._module}", str(self._beside(name)), "run", "--config", str(config)]

    def _beside(self, name: str) -> Path:
        """The file of an agent's wrapper."""
        return self.directory / f"{name}.{self._suffix}"
