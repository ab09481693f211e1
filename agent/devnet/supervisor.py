"""`gpupool devnet`: a whole pool on this machine, from a measured second to TON in a participant's wallet.

Reads as the life of a pool: start the chain, deploy, register, hand over to the operators, start the agents,
pay in, watch epochs settle, claim, check that every nanoTON is accounted for. Each part is its own process,
started as it would be on a real host; this process only plays owner, customer and onlooker.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.live import Live

from agent import pool_ops
from agent.devnet.layout import GLOBAL_ID, Seat, free_ports, prepare_seats, write_config, write_policy
from agent.devnet.onlooker import POLL_S, Onlooker
from agent.devnet.processes import Child, run_json, start
from agent.devnet.report import keep_books, report_table, report_value, shares
from agent.devnet.view import live_view
from agent.errors import ConfigError, OperationError
from agent.identity import create_key
from contracts.chain import Chain, LiteServer, open_chain
from contracts.errors import ContractsError
from contracts.model import NANO, Address, PoolParams, RewardsState
from contracts.reader import PoolReader
from contracts.signing import SigningKey
from contracts.wallet import Wallet, wallet_address
from gossip.policy import parse_policy
from gossip.settlement import Settlement

AGENTS_MAX = 25
BLOCK_S = 1
STAKE_NANOTON = 100 * NANO
FUNDS_NANOTON = 1_000 * NANO
PAYMENT_NANOTON = 10 * NANO
FEE_BPS = 200
CHAIN_OUTAGE_S = 8
SETTLE_SLACK_S = 120
"""How long after its end an epoch may take before the run is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetOptions:
    """What the command line asks for. `agent_arguments` replaces `run --config FILE` for tests that need a liar."""

    agents: int = 4
    epochs: int = 3
    epoch_s: int = 25
    directory: Path | None = None
    keep: bool = False
    engine_url: str | None = None
    chaos: str | None = None
    seed: int = 1
    rate: float = 4.0
    """Requests per second at the first engine; each further one has half as many more."""
    as_json: bool = False
    agent_arguments: Callable[[Seat], Sequence[str]] = field(
        default=lambda seat: ("-m", "agent", "run", "--config", str(seat.config))
    )


def run_devnet(options: DevnetOptions) -> int:
    """Run it to the end; 0 if every epoch settled, everything was claimed and the books balance.

    Raises:
        ConfigError: an option is out of range, or the folder is not empty.
        OperationError: a part did not start, or an epoch did not settle in time.
    """
    _require_options(options)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="gpupool-devnet-"))
    directory.mkdir(parents=True, exist_ok=True)
    done = False
    try:
        code = trio.run(Devnet(options, directory.absolute()).run)
        done = code == 0
        return code
    finally:
        if done and not options.keep:
            shutil.rmtree(directory)
        else:
            print(f"files and logs are in {directory}", file=sys.stderr)  # noqa: T201


def _require_options(options: DevnetOptions) -> None:
    if not 1 <= options.agents <= AGENTS_MAX:
        raise ConfigError(f"--agents: expected 1 to {AGENTS_MAX}, got {options.agents}")
    if not 1 <= options.epochs <= 1000:
        raise ConfigError(f"--epochs: expected 1 to 1000, got {options.epochs}")
    if not 15 <= options.epoch_s <= 86_400:
        raise ConfigError(f"--epoch-seconds: expected 15 to 86400, got {options.epoch_s}")
    if options.chaos in ("kill", "restart") and options.agents < 4:
        raise ConfigError(f"--chaos {options.chaos}: needs at least 4 agents: two of three are no quorum")
    if options.directory is not None and options.directory.exists() and any(options.directory.iterdir()):
        raise ConfigError(f"--dir: {options.directory} is not empty; remove it or name another folder")


class Devnet:
    """One run."""

    def __init__(self, options: DevnetOptions, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._console = Console(stderr=True)
        self._children: list[Child] = []
        self._agents: dict[str, Child] = {}
        self._chain: Child | None = None
        self._chain_error: str | None = None
        self._events: list[str] = []
        self._live: Live | None = None
        self._paid_epoch = 0
        self._started = time.monotonic()
        self._seats: list[Seat] = []

    async def run(self) -> int:
        """Everything, in order. Whatever happens, no process is left behind."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt_on_signal)
            try:
                code = await self._life_of_a_pool()
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop_all()
            nursery.cancel_scope.cancel()
        return code

    async def _life_of_a_pool(self) -> int:
        self._say(f"pool of {self._options.agents} agents, {self._options.epochs} epochs of {self._options.epoch_s} s")
        self._seats = prepare_seats(self._directory, self._options.agents, int(time.time()))
        owner_key, customer_key = (create_key(self._directory / f"{name}.key") for name in ("owner", "customer"))
        server = await self._start_chain([owner_key, customer_key, *(seat.wallet_key for seat in self._seats)])
        async with open_chain([server]) as chain:
            owner, customer = (
                Wallet(chain, key.seed, "v5r1", global_id=GLOBAL_ID) for key in (owner_key, customer_key)
            )
            policy = self._directory / "policy.toml"
            pool = await self._found_pool(chain, owner, policy)
            engines = await self._start_engines()
            root_file = self._directory / "tdx-root" / "root.der"
            for seat, url in zip(self._seats, engines, strict=True):
                write_config(seat, self._seats, pool, policy, root_file, server, url)
            await self._register_all()
            reader = PoolReader(chain, pool)
            await pool_ops.hand_over(chain, owner, pool, await pool_ops.operators_of(reader))
            self._say("the owner handed the pool over to its operators")
            for seat in self._seats:
                await self._start_agent(seat)
            onlooker = await self._watch(chain, reader, customer, server)
            return await self._conclude(chain, reader, onlooker)

    async def _start_chain(self, funded: Sequence[SigningKey]) -> LiteServer:
        genesis = [
            {"address": str(wallet_address(key.public, "v5r1", global_id=GLOBAL_ID)), "nanoton": FUNDS_NANOTON}
            for key in funded
        ]
        path = self._directory / "genesis.json"
        path.write_text(json.dumps(genesis))
        (port,) = free_ports(1)
        ready = await self._run_chain(port)
        self._say(f"TON chain on {ready['host']}:{ready['port']}")
        return LiteServer(host=ready["host"], port=ready["port"], public_key=base64.b64decode(ready["public_key"]))

    async def _run_chain(self, port: int) -> dict[str, Any]:
        """Start the chain's process: a new chain, or the one that stands on disk. Returns its ready line."""
        folder, genesis = self._directory / "chain", self._directory / "genesis.json"
        arguments = [
            "--dir",
            str(folder),
            "--port",
            str(port),
            "--genesis",
            str(genesis),
            "--block-seconds",
            str(BLOCK_S),
        ]
        log = self._directory / "chain.log"
        self._chain = await start("chain", ["-m", "contracts.devchain", *arguments], log, reads_ready=True)
        self._children.append(self._chain)
        return await self._chain.read_ready()

    async def _found_pool(self, chain: Chain, owner: Wallet, policy_path: Path) -> Address:
        policy = parse_policy(write_policy(policy_path, self._options.epoch_s))
        params = PoolParams(
            fee_bps=FEE_BPS,
            min_stake_nanoton=STAKE_NANOTON,
            max_participants=1000,
            registration_open=True,
            policy_hash=policy.hash,
            max_refund_nanoton=NANO // 10,
        )
        pool = await pool_ops.deploy_pool(
            chain, owner, pool_id=1, epoch_duration_s=self._options.epoch_s, params=params
        )
        self._say(f"pool contracts deployed at {pool}")
        return pool

    async def _start_engines(self) -> list[str]:
        """One inference engine per agent, each with a load of its own; the first may be a real server."""
        urls = []
        for seat in self._seats:
            if seat.index == 0 and self._options.engine_url is not None:
                urls.append(self._options.engine_url)
                continue
            rate = self._options.rate * (1 + seat.index / 2)
            arguments = ["--seed", str(self._options.seed * 1000 + seat.index), "--rate", str(rate)]
            child = await start(
                f"engine-{seat.index}",
                ["-m", "agent.devnet.engine", *arguments],
                seat.directory / "engine.log",
                reads_ready=True,
            )
            self._children.append(child)
            urls.append((await child.read_ready())["metrics"])
        self._say(f"{len(urls)} inference engines")
        return urls

    async def _register_all(self) -> None:
        stake = str(STAKE_NANOTON // NANO)
        for seat in self._seats:
            await run_json(
                f"register {seat.name}", ["pool", "register", "--config", str(seat.config), "--stake", stake, "--json"]
            )
        self._say(f"{len(self._seats)} participants registered with {stake} TON each")

    async def _start_agent(self, seat: Seat) -> None:
        child = await start(seat.name, self._options.agent_arguments(seat), seat.log)
        self._children.append(child)
        self._agents[seat.name] = child

    # Watching.

    async def _watch(self, chain: Chain, reader: PoolReader, customer: Wallet, server: LiteServer) -> Onlooker:
        """Pay in every epoch, draw, do the chaos, until the last epoch has settled."""
        names = {self._wallet_of(seat): seat.name for seat in self._seats}
        onlooker = Onlooker(chain, reader, self._seats, names, self._say)
        is_live = self._console.is_terminal and not self._options.as_json
        with Live(console=self._console, refresh_per_second=4) if is_live else nullcontext() as self._live:
            self._events.clear()  # the live view shows what happens from here on; it was printed until here
            async with trio.open_nursery() as nursery:
                nursery.start_soon(onlooker.poll_agents)
                nursery.start_soon(self._make_chaos, server)
                while onlooker.settled_epoch < self._options.epochs:
                    await self._step(chain, reader, customer, onlooker)
                    self._draw(onlooker)
                    self._require_progress(onlooker.settled_epoch)
                    await trio.sleep(POLL_S)
                nursery.cancel_scope.cancel()
        self._live = None
        return onlooker

    async def _step(self, chain: Chain, reader: PoolReader, customer: Wallet, onlooker: Onlooker) -> None:
        try:
            await onlooker.look()
            await self._pay(chain, reader, customer, onlooker.rewards)
        except ContractsError as error:
            if self._chain_error is None:
                self._say(f"the chain is away: {error}")
            self._chain_error = str(error)
        else:
            self._chain_error = None

    def _draw(self, onlooker: Onlooker) -> None:
        if self._live is not None:
            names = [seat.name for seat in self._seats]
            self._live.update(live_view(names, onlooker.statuses, onlooker.rewards, int(time.time()), self._events))

    async def _pay(self, chain: Chain, reader: PoolReader, customer: Wallet, rewards: RewardsState | None) -> None:
        """The customer pays once in every epoch: 10 TON, and one more each time."""
        if rewards is not None and rewards.current_epoch > self._paid_epoch:
            self._paid_epoch = rewards.current_epoch
            await pool_ops.pay_in(chain, customer, reader.pool, PAYMENT_NANOTON + self._paid_epoch * NANO)

    def _require_progress(self, settled_epoch: int) -> None:
        for child in self._children:
            if child.code is not None and not child.stopping:
                raise OperationError(f"{child.name} ended by itself with code {child.code}: {child.last_words()}")
        due_s = SETTLE_SLACK_S + (settled_epoch + 2) * self._options.epoch_s + 30 * (settled_epoch + 1)
        if time.monotonic() - self._started > due_s:
            raise OperationError(f"epoch {settled_epoch + 1} did not settle in time")

    async def _make_chaos(self, server: LiteServer) -> None:
        """Break something in the middle of the first epoch; what shall come back does so later."""
        if self._options.chaos is None:
            return
        seat = self._seats[-1]
        await trio.sleep(self._options.epoch_s * 0.6)
        if self._options.chaos == "chain":
            assert self._chain is not None
            self._chain.kill()
            self._say("killed the chain")
            await trio.sleep(CHAIN_OUTAGE_S)
            await self._run_chain(server.port)
            self._say("started the chain again")
            return
        self._agents[seat.name].kill()
        self._say(f"killed {seat.name}")
        if self._options.chaos == "restart":
            await trio.sleep(self._options.epoch_s)
            await self._start_agent(seat)
            self._say(f"started {seat.name} again")

    # The end.

    async def _conclude(self, chain: Chain, reader: PoolReader, onlooker: Onlooker) -> int:
        """Claim for everybody, then hold the books against the chain."""
        settlements = [onlooker.settlements[epoch] for epoch in sorted(onlooker.settlements)]
        await self._claim_all(settlements[-1])
        rewards = await reader.rewards()
        contract = await chain.account((await reader.state()).rewards)
        names = {self._wallet_of(seat).account: seat.name for seat in self._seats}
        books = keep_books(onlooker.pots, settlements, rewards, contract.balance_nanoton)
        rows = shares(names, settlements, rewards.paid_nanoton)
        faults = books.faults(settlements)
        if self._options.as_json:
            print(json.dumps(report_value(rows, books, settlements, onlooker.landed_after_s, faults)))  # noqa: T201
        else:
            self._console.print(report_table(rows, books))
        for fault in faults:
            self._say(f"WRONG: {fault}")
        if not faults:
            took_s = round(time.monotonic() - self._started)
            self._say(f"{len(settlements)} epoch(s) settled, everything claimed, the books balance ({took_s} s)")
        return 1 if faults else 0

    async def _claim_all(self, last: Settlement) -> None:
        """Everybody claims with its own agent; for one that is down another one does."""
        alive = [seat for seat in self._seats if self._agents[seat.name].code is None]
        for seat in self._seats:
            address = self._wallet_of(seat)
            earned = last.base().earned_nanoton.get(address, 0)
            if earned == 0:
                continue
            own = seat if seat in alive else alive[0]
            arguments = ["pool", "claim", "--config", str(own.config), "--participant", str(address), "--json"]
            await run_json(f"claim of {seat.name}", arguments)

    @staticmethod
    def _wallet_of(seat: Seat) -> Address:
        return wallet_address(seat.wallet_key.public, "v5r1", global_id=GLOBAL_ID)

    async def _stop_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for child in reversed(self._children):
                nursery.start_soon(child.stop)

    def _say(self, text: str) -> None:
        line = f"{time.monotonic() - self._started:6.1f} s  {text}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)


async def _interrupt_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            raise KeyboardInterrupt
