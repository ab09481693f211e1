"""What owner and participants of the dev network do through `gpupool pool`, as they would on a real host."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from agent.devnet.layout import GLOBAL_ID, Seat
from agent.devnet.processes import run_json
from contracts.chain import LiteServer
from contracts.model import Address

STAKE_TON = 100
FEE_BPS = 200
AT_ONCE = 4

_T = TypeVar("_T")


class OwnerCommands:
    """The owner, with its key file and the chain's liteserver. Each raises `OperationError` if it failed."""

    def __init__(self, key_file: Path, server: LiteServer) -> None:
        liteserver = f"{server.host}:{server.port}:{base64.b64encode(server.public_key).decode()}"
        self._access = [f"--liteserver={liteserver}", f"--network={GLOBAL_ID}", f"--wallet-key={key_file}", "--json"]

    async def deploy(self, policy: Path, epoch_s: int) -> Address:
        """Deploy a pool; its address."""
        terms = [f"--policy-file={policy}", f"--epoch-seconds={epoch_s}", f"--fee-bps={FEE_BPS}"]
        done = await run_json("deploy", ["pool", "deploy", *self._access, *terms, f"--min-stake={STAKE_TON}"])
        return Address.parse(done["pool"])

    async def hand_over(self, pool: Address, count: int) -> None:
        """Give the pool to all who are registered, who must be so many."""
        consent = [f"--operators={count}", "--yes"]
        await run_json("hand-over", ["pool", "hand-over", *self._access, f"--pool={pool}", *consent])


async def register_all(seats: Sequence[Seat], worker_of: Callable[[Seat], Address | None]) -> None:
    """Register every seat's agent, with its Cocoon worker contract if it has one, a few at a time."""

    async def register(seat: Seat) -> None:
        worker = worker_of(seat)
        more = [f"--worker={worker}"] if worker is not None else []
        arguments = [f"--config={seat.config}", f"--stake={STAKE_TON}", "--json", *more]
        await run_json(f"register {seat.name}", ["pool", "register", *arguments])

    await _few_at_a_time(register, seats)


async def claim_for(participants: Sequence[Address], seat_of: Callable[[Address], Seat]) -> None:
    """Claim for each of these, through the agent that `seat_of` names, a few at a time."""

    async def claim(participant: Address) -> None:
        seat = seat_of(participant)
        arguments = [f"--config={seat.config}", f"--participant={participant}", "--json"]
        await run_json(f"claim by {seat.name}", ["pool", "claim", *arguments])

    await _few_at_a_time(claim, participants)


async def _few_at_a_time(act: Callable[[_T], Awaitable[None]], items: Sequence[_T]) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def limited(item: _T) -> None:
        async with limit:
            await act(item)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(limited, item)
