"""A living pool with one agent that is hurt: the dev network's parts, what can be done to them, and nothing of why.

The pool of `tests.chaos.pool`, in rooms of its own or, where its parts speak over loopback (Cocoon workers), in one.
Besides, the parts that its agents measure can be stopped and started, and an agent's settings can be changed before
it starts for the first time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import trio

from agent.devnet.credits import Crediting
from agent.devnet.layout import Seat, free_ports
from agent.devnet.onlooker import Onlooker
from agent.devnet.processes import Child, start
from agent.setup import toml_table
from contracts.chain import Chain, LiteServer
from contracts.reader import PoolReader
from tests.chaos.network import Network
from tests.chaos.pool import SKEWED, LivingPool

Change = Callable[[Seat], Awaitable[None]]


class FaultPool(LivingPool):
    """`prepare` is asked before an agent starts for the first time; `drive` has the pool in its hand."""

    def __init__(
        self,
        directory: Path,
        network: Network,
        drive: Callable[[FaultPool], Awaitable[None]],
        prepare: Change,
        **options: object,
    ) -> None:
        super().__init__(directory, network, cast(Callable[[LivingPool], Awaitable[None]], drive), SKEWED, **options)
        self._prepare = prepare
        self._prepared: set[str] = set()
        self._programs: dict[str, tuple[Sequence[str], Path, Seat]] = {}
        self._parts: dict[str, Child] = {}
        self._others: dict[str, Child] = {}
        self._collateral: Child | None = None
        self._collateral_port = 0
        self.modules: dict[str, str] = {}
        """Which module an agent runs in, where it is not the usual one."""

    @property
    def server(self) -> LiteServer:
        """The chain's liteserver."""
        return self._server

    def seat(self, name: str) -> Seat:
        return next(seat for seat in self._seats if seat.name == name)

    def prefix(self, name: str) -> tuple[str, ...]:
        """What enters the room of this part."""
        return self.network.rooms[name].enter

    async def end(self, name: str) -> None:
        """Stop an agent in order, and wait until it has ended."""
        self.expect_end(name)
        await self._agents[name].stop()

    def kill_part(self, name: str) -> None:
        """SIGKILL to what an agent measures ("engine-3", "worker-2")."""
        self._parts[name].kill()

    async def start_part(self, name: str, port: int) -> None:
        """Start it again, at the port where it listened."""
        program, log, seat = self._programs[name]
        await self._spawn(name, [*program, "--port", str(port)], log, seat)

    async def start_engine(self, seat: Seat) -> str:
        """Start an engine for a seat that came later; the URL of its metrics."""
        program = ["-m", "agent.devnet.engine", "--seed", str(seat.index)]
        ready = await self._spawn(f"engine-{seat.index}", program, seat.directory / "engine.log", seat)
        metrics: str = ready["metrics"]
        return metrics

    async def serve_collateral(self, name: str, tls: str) -> dict[str, str]:
        """Serve the collateral of this pool's machines in an agent's room, with the certificate of the folder `tls`.

        Whoever served it before is stopped. Gives the keys of [attestation] that lead there.
        """
        if self._collateral is not None:
            await self._collateral.stop()
        self._collateral_port = self._collateral_port or free_ports(1)[0]
        place = ("--root", self.directory / "tdx-root", "--tls", self.directory / tls, "--port", self._collateral_port)
        program = ["-m", "tests.faults.pcs", *map(str, place)]
        self._collateral = await self.run_beside(name, program, "pcs", reads_ready=True)
        ready = await self._collateral.read_ready()
        return {"pccs_url": ready["url"], "pccs_ca_file": ready["ca_file"]}

    async def start_other(self, config: Path, room: str) -> Child:
        self._others[room] = await super().start_other(config, room)
        return self._others[room]

    async def end_other(self, room: str) -> None:
        """Stop what `start_other` started in this room, if it runs."""
        await self._others[room].stop()

    async def run_beside(self, name: str, program: Sequence[str], log: str, *, reads_ready: bool = False) -> Child:
        """Start some other Python program in an agent's room; it may end by itself."""
        file = self.directory / f"{log}.log"
        child = await start(log, program, file, reads_ready=reads_ready, prefix=self.prefix(name))
        child.stopping = True
        self._children.append(child)
        return child

    async def _conclude(self, chain: Chain, reader: PoolReader, onlooker: Onlooker) -> int:
        # What the chain paid a worker last is credited in an epoch that nobody waits for here.
        self._crediting = _SharesAlone()
        return await super()._conclude(chain, reader, onlooker)

    async def _spawn(self, name: str, program: Sequence[str], log: Path, seat: Seat) -> dict[str, Any]:
        self._programs.setdefault(name, (program, log, seat))
        ready = await super()._spawn(name, program, log, seat)
        self._parts[name] = self._children[-1]
        return ready

    async def _start_agent(self, seat: Seat) -> None:
        if seat.name not in self._prepared:
            self._prepared.add(seat.name)
            await self._prepare(seat)
        await super()._start_agent(seat)

    def _program(self, name: str, config: Path) -> list[str]:
        program = super()._program(name, config)
        return [program[0], self.modules.get(name, program[1]), *program[2:]]


class _SharesAlone(Crediting):
    """Does not hold what was credited against what was vouched for."""

    def __init__(self) -> None:
        pass  # nothing is followed

    @property
    def is_shown(self) -> bool:
        return False


class Settings:
    """An agent's settings file, changed in place as an operator would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._was = path.read_text()

    def add(self, table: str, **keys: object) -> None:
        """Set keys of a table that may be there already."""
        text, lines = self.path.read_text(), toml_table(f"[{table}]", keys)
        head = re.search(rf"^\[{re.escape(table)}\]\n", text, re.MULTILINE)
        if head is None:
            self.path.write_text(f"{text}\n{lines}")
            return
        body = lines.partition("\n")[2].rstrip("\n")
        for key in keys:
            text = re.sub(rf"^{key} = .*\n", "", text, count=1, flags=re.MULTILINE)
        self.path.write_text(text.replace(head.group(), f"{head.group()}{body}\n", 1))

    def replace(self, old: str, new: str) -> None:
        """Put `new` for `old`, which must be there."""
        text = self.path.read_text()
        assert old in text, f"{self.path} has no {old!r}"
        self.path.write_text(text.replace(old, new))

    def restore(self) -> None:
        """As it was when it was opened."""
        self.path.write_text(self._was)


async def wait_until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until something holds of other processes.

    Raises:
        TimeoutError: it does not in time.
    """
    until_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        await trio.sleep(0.2)
