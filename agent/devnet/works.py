"""What the seats' work comes from: engines, with or without a gateway that signs for it.

Decides which load each seat has, how the engines of those who cheat lie, and what the policy demands of all.

1. Loads differ, so that shares do. Where somebody cheats all loads are equal: an honest share is what the others get.
2. Who vouches for work sees what was served, not what was counted: the stand-ins tell it behind the agents' backs.

Elsewhere: Cocoon workers (`agent.devnet.proxy`), receipts (`agent.devnet.gateway`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx

from agent.devnet.cheats import INFLATION, cheating
from agent.devnet.gateway import Gateway
from agent.devnet.layout import GLOBAL_ID, Seat, Tables
from agent.devnet.load import GENERATION_TOKENS_MEAN, PROMPT_TOKENS_MEAN
from agent.devnet.onlooker import HTTP_TIMEOUT_S, Onlooker
from agent.devnet.options import DevnetOptions
from agent.identity import create_key
from contracts.chain import Chain
from contracts.model import Address
from contracts.signing import SigningKey
from gossip.records import PoolId

CAP_PER_CENT = 125
"""Of an honest load: what `capped` allows."""


class Spawn(Protocol):
    """Starts a stand-in: its name, its program, its log, its seat. Returns its ready line; it ends with the network."""

    def __call__(self, name: str, program: Sequence[str], log: Path, seat: Seat) -> Awaitable[dict[str, Any]]: ...


class Works(Protocol):
    """Where work comes from, and who vouches for it."""

    @property
    def vouched_by(self) -> str | None:
        """Heading of what is vouched for; None: nobody does."""

    @property
    def vouched(self) -> Mapping[str, int]:
        """Tokens that somebody vouches for, by the agent's name; who is not in it has nobody."""

    @property
    def funded(self) -> Sequence[SigningKey]:
        """Whose wallets need TON."""

    @property
    def demands(self) -> Tables:
        """What the policy has otherwise than usual."""

    async def begin(self, chain: Chain, seats: Sequence[Seat], spawn: Spawn) -> dict[str, Tables]:
        """Start the stand-ins; the tables of what each agent measures, by its name."""

    def worker_of(self, seat: Seat) -> Address | None:
        """The Cocoon worker contract that a participant registers."""

    async def run(self, chain: Chain, pool: Address, onlooker: Onlooker, last_epoch: Callable[[], int]) -> None:
        """Vouch for what is served, for ever, or return at once if nobody does. Cancelled, it leaves nothing behind."""

    async def conclude(self, chain: Chain) -> None:
        """Bring `vouched` up to date after `run`."""

    def faults(self, credited: Mapping[str, int]) -> list[str]:
        """What is wrong with what these honest agents were credited; empty if nothing is."""


class EngineWorks:
    """One inference engine per agent; the first may be a real server."""

    funded: Sequence[SigningKey] = ()

    def __init__(self, options: DevnetOptions, directory: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._gateway: Gateway | None = None
        receipts: dict[str, Any] = {}
        if options.has_gateway:
            self._gateway = Gateway(create_key(directory / "gateway.key"), say)
            is_ceiling = options.policy_level not in ("open", "capped")
            receipts = {"ceiling": "receipts" if is_ceiling else "none", "signers": [self._gateway.key.public.hex()]}
        tokens = PROMPT_TOKENS_MEAN + GENERATION_TOKENS_MEAN
        self.demands: Tables = {"work": level_demands(options, tokens), "receipts": receipts}
        self.vouched_by = "receipted" if self._gateway is not None else None
        self._engines: dict[str, str] = {}
        self._seats: Sequence[Seat] = ()

    @property
    def vouched(self) -> Mapping[str, int]:
        return {} if self._gateway is None else self._gateway.signed

    async def begin(self, chain: Chain, seats: Sequence[Seat], spawn: Spawn) -> dict[str, Tables]:
        options, self._seats = self._options, seats
        for seat in seats:
            if seat.index == 0 and options.engine_url is not None:
                self._engines[seat.name] = options.engine_url
            elif is_clone(options, seat):
                self._engines[seat.name] = self._engines[seats[seat.index - 1].name]
            else:
                program = ["-m", "agent.devnet.engine", *load_arguments(options, seat)]
                ready = await spawn(f"engine-{seat.index}", program, seat.directory / "engine.log", seat)
                self._engines[seat.name] = ready["metrics"]
        return {seat.name: self._tables(seat) for seat in seats}

    def worker_of(self, seat: Seat) -> Address | None:
        return None

    async def run(self, chain: Chain, pool: Address, onlooker: Onlooker, last_epoch: Callable[[], int]) -> None:
        if self._gateway is not None:
            engines = [(seat, self._engines[seat.name]) for seat in self._seats if not is_clone(self._options, seat)]
            forger = self._seats[-1] if self._options.cheat == "forge" else None
            async with httpx.AsyncClient(trust_env=False, timeout=HTTP_TIMEOUT_S) as http:
                await self._gateway.run(http, PoolId(GLOBAL_ID, pool.account), engines, forger)

    async def conclude(self, chain: Chain) -> None:
        if self._gateway is not None and self._gateway.forged:
            taken = self._gateway.forged_taken
            self._say(f"{self._gateway.forged} forged receipts were handed in, {taken} of them taken")

    def faults(self, credited: Mapping[str, int]) -> list[str]:
        """Receipts come a little later than what they are for: at an epoch's end some may miss it, so less counts."""
        if self.demands["receipts"].get("ceiling") != "receipts":
            return []
        return [
            f"{name} was credited {tokens} tokens, more than the {self.vouched.get(name, 0)} of its receipts"
            for name, tokens in credited.items()
            if tokens > self.vouched.get(name, 0)
        ]

    def _tables(self, seat: Seat) -> Tables:
        tables: dict[str, dict[str, Any]] = {"engine": {"url": self._engines[seat.name]}}
        if self._gateway is not None:
            tables["receipts"] = {"port": seat.receipts_port}
        return tables


def is_clone(options: DevnetOptions, seat: Seat) -> bool:
    """Whether this seat has no stand-in of its own, but reports what that of the seat before does."""
    return options.cheat == "clone" and seat.index == options.agents - 1


def load_arguments(options: DevnetOptions, seat: Seat) -> list[str]:
    """A stand-in's own load, and how it lies."""
    seed, rate = options.seed * 1000 + seat.index, _rate(options, seat.index)
    is_last = seat.index == options.agents - 1
    if options.cheat is not None:
        seed = options.seed * 1000
    lies = []
    if is_last and options.cheat in ("inflate", "forge"):
        lies = ["--inflation", str(INFLATION)]
    elif is_last and options.cheat == "idle":
        lies = ["--idle"]
    return ["--seed", str(seed), "--rate", str(rate), *lies]


def level_demands(options: DevnetOptions, tokens_per_request: float) -> dict[str, Any]:
    """What a policy level changes in [work]; a load brings `tokens_per_request` on average, in the policy's units."""
    match options.policy_level:
        case "open":
            return {"machine_nodes_max": options.agents}
        case "capped":
            rate = max(_rate(options, index) for index in range(options.agents))
            return {"tokens_per_s_max": max(1, math.ceil(rate * tokens_per_request * CAP_PER_CENT / 100))}
        case _:
            return {}


def _rate(options: DevnetOptions, index: int) -> float:
    """Requests per second at the stand-in of the seat with this number."""
    if options.cheat is None:
        return options.rate * (1 + index / 2)
    is_half = options.cheat == "sybil" and index in cheating(options.cheat, options.agents)
    return options.rate / 2 if is_half else options.rate
