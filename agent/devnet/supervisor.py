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
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import trio
from rich.console import Console
from rich.live import Live

from agent.devnet.cheats import OF_TWO, STOPPED
from agent.devnet.commands import STAKE_TON, OwnerCommands, claim_for, register_all
from agent.devnet.credits import Crediting, Credits, credits_view
from agent.devnet.layout import GLOBAL_ID, Seat, free_ports, prepare_seats, write_config, write_policy
from agent.devnet.onlooker import HTTP_TIMEOUT_S, POLL_S, Landing, Onlooker
from agent.devnet.options import DevnetOptions, require_options
from agent.devnet.processes import Child, start
from agent.devnet.proxy import CocoonWorks
from agent.devnet.report import Books, Share, keep_books, report_table, report_value, shares
from agent.devnet.stopping import stop_now_and_then
from agent.devnet.view import Frame, live_view
from agent.devnet.works import EngineWorks, Works
from agent.errors import ConfigError, OperationError
from agent.identity import create_key
from contracts import layout
from contracts.chain import Chain, LiteServer, open_chain
from contracts.errors import ContractsError
from contracts.model import NANO, Address, RewardsState
from contracts.reader import PoolReader
from contracts.signing import SigningKey
from contracts.wallet import OutMessage, Wallet, wallet_address

__all__ = ["DevnetOptions", "run_devnet"]

BLOCK_S = 1
FUNDS_NANOTON = 1_000 * NANO
PAYMENT_NANOTON = 10 * NANO
CHAIN_OUTAGE_S = 8
CLAIM_ROUNDS_MAX = 20
SETTLE_SLACK_S = 120
"""How long after its end an epoch may take before the run is given up."""


def run_devnet(options: DevnetOptions) -> int:
    """Run it to the end; 0 if every epoch settled, everything was claimed and the books balance.

    Raises:
        ConfigError: an option is out of range, or the folder is not empty.
        OperationError: a part did not start, or an epoch did not settle in time.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP; no process is left, nor a temporary folder unless kept.
    """
    require_options(options)
    directory = _make_folder(options.directory)
    # A failure leaves what explains it behind; success and Ctrl-C clean up.
    keep = True
    try:
        code = trio.run(Devnet(options, directory.absolute()).run)
        keep = options.keep or code == 1
    finally:
        if keep:
            print(f"files and logs are in {directory}", file=sys.stderr)  # noqa: T201
        else:
            shutil.rmtree(directory)
    if code is None:
        print("interrupted", file=sys.stderr)  # noqa: T201
        raise KeyboardInterrupt
    return code


def _make_folder(wanted: Path | None) -> Path:
    try:
        if wanted is None:
            return Path(tempfile.mkdtemp(prefix="gpupool-devnet-"))
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--dir: {wanted or tempfile.gettempdir()} cannot be made: {error.strerror}") from error
    return wanted


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
        self._last_epoch = options.epochs
        """The run ends when it has settled; nothing is paid in after it."""
        self._is_chaos_over = options.chaos is None
        self._started = time.monotonic()
        self._seats: list[Seat] = []
        self._crediting: Crediting
        self._credited: Credits | None = None
        """In the end, if there is more to see than tokens and shares."""

    async def run(self) -> int | None:
        """Everything, in order; None if interrupted. Whatever happens, no process is left behind."""
        code = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
                try:
                    code = await self._life_of_a_pool()
                finally:
                    with trio.CancelScope(shield=True):
                        await self._stop_all()
                nursery.cancel_scope.cancel()
        return code

    async def _life_of_a_pool(self) -> int:
        self._say(f"pool of {self._options.agents} agents, {self._options.epochs} epochs of {self._options.epoch_s} s")
        options = self._options
        self._seats = prepare_seats(
            self._directory,
            options.agents,
            int(time.time()),
            options.host_of,
            are_last_on_one_machine=options.cheat in OF_TWO,
        )
        owner_key, customer_key = (create_key(self._directory / f"{name}.key") for name in ("owner", "customer"))
        works: Works
        if options.source == "cocoon":
            works = CocoonWorks(options, self._directory, self._say)
        else:
            works = EngineWorks(options, self._directory, self._say)
        self._crediting = Crediting(self._seats, works, options.cheat)
        funded = [owner_key, customer_key, *works.funded, *(seat.wallet_key for seat in self._seats)]
        server = await self._start_chain(funded)
        async with open_chain([server]) as chain:
            customer = Wallet(chain, customer_key.seed, "v5r1", global_id=GLOBAL_ID)
            owner = OwnerCommands(self._directory / "owner.key", server)
            policy = self._directory / "policy.toml"
            write_policy(policy, options.epoch_s, options.agents, {**works.demands, **options.demands})
            pool = await owner.deploy(policy, options.epoch_s)
            self._say(f"pool contracts deployed at {pool}")
            tables = await works.begin(chain, self._seats, self._spawn)
            self._say(f"{len(tables)} {'inference engines' if options.source == 'engine' else 'Cocoon workers'}")
            root_file = self._directory / "tdx-root" / "root.der"
            for seat in self._seats:
                write_config(seat, self._seats, pool, policy, root_file, server, tables[seat.name])
            await register_all(self._seats, works.worker_of)
            self._say(f"{len(self._seats)} participants registered with {STAKE_TON} TON each")
            await owner.hand_over(pool, len(self._seats))
            self._say("the owner handed the pool over to its operators")
            reader = PoolReader(chain, pool)
            for seat in self._seats:
                await self._start_agent(seat)
            async with httpx.AsyncClient(trust_env=False, timeout=HTTP_TIMEOUT_S) as http:
                names = {self._wallet_of(seat): seat.name for seat in self._seats}
                onlooker = Onlooker(chain, reader, self._seats, names, http, self._say)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(works.run, chain, pool, onlooker, lambda: self._last_epoch)
                    await self._watch(reader, customer, server, onlooker)
                    nursery.cancel_scope.cancel()
                return await self._conclude(chain, reader, onlooker)

    async def _start_chain(self, funded: Sequence[SigningKey]) -> LiteServer:
        funds_nanoton = FUNDS_NANOTON + 2 * PAYMENT_NANOTON * self._options.epochs
        genesis = [
            {"address": str(wallet_address(key.public, "v5r1", global_id=GLOBAL_ID)), "nanoton": funds_nanoton}
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
        host = self._options.host_of("chain")
        place = ("--dir", folder, "--host", host.address, "--port", port)
        program = ["-m", "contracts.devchain", *map(str, (*place, "--genesis", genesis, "--block-seconds", BLOCK_S))]
        log = self._directory / "chain.log"
        self._chain = await start("chain", program, log, reads_ready=True, prefix=host.prefix)
        self._children.append(self._chain)
        return await self._chain.read_ready()

    async def _spawn(self, name: str, program: Sequence[str], log: Path, seat: Seat) -> dict[str, Any]:
        """Start a stand-in on a seat's host; its ready line."""
        child = await start(name, program, log, reads_ready=True, prefix=seat.host.prefix)
        self._children.append(child)
        return await child.read_ready()

    async def _start_agent(self, seat: Seat) -> None:
        child = await start(seat.name, self._options.agent_arguments(seat), seat.log, prefix=seat.host.prefix)
        self._children.append(child)
        self._agents[seat.name] = child

    # Watching.

    async def _watch(self, reader: PoolReader, customer: Wallet, server: LiteServer, onlooker: Onlooker) -> None:
        """Pay in every epoch, draw, do the chaos, until there is nothing more to see."""
        is_live = self._console.is_terminal and not self._options.as_json
        with Live(console=self._console, refresh_per_second=4) if is_live else nullcontext() as self._live:
            self._events.clear()  # the live view shows what happens from here on; it was printed until here
            async with trio.open_nursery() as nursery:
                nursery.start_soon(onlooker.poll_agents)
                if (cheat := self._options.cheat) in STOPPED:
                    agent = self._agents[self._seats[-1].name]
                    timing = (self._options.epoch_s, lambda: self._last_epoch)
                    nursery.start_soon(stop_now_and_then, cheat, agent, onlooker, *timing)
                if self._options.chaos is not None:
                    nursery.start_soon(self._make_chaos, self._options.chaos, server, onlooker)
                while not self._is_over(onlooker):
                    await self._step(reader, customer, onlooker)
                    self._draw(onlooker)
                    self._require_progress(onlooker.settled_epoch)
                    await trio.sleep(POLL_S)
                nursery.cancel_scope.cancel()
        self._live = None

    def _is_over(self, onlooker: Onlooker) -> bool:
        """The last epoch has settled, what broke has come back, and every agent that runs can prove a claim."""
        running = [name for name, child in self._agents.items() if child.code is None]
        is_settled = onlooker.settled_epoch >= self._last_epoch
        return is_settled and self._is_chaos_over and all(onlooker.has_caught_up(name) for name in running)

    async def _step(self, reader: PoolReader, customer: Wallet, onlooker: Onlooker) -> None:
        try:
            await onlooker.look()
            await self._pay(reader, customer, onlooker.rewards)
        except ContractsError as error:
            if self._chain_error is None:
                self._say(f"the chain is away: {error}")
            self._chain_error = str(error)
        else:
            if self._chain_error is not None:
                self._say("the chain answers again")
            self._chain_error = None

    def _draw(self, onlooker: Onlooker) -> None:
        if self._live is not None:
            frame = Frame(
                names=[seat.name for seat in self._seats],
                statuses=onlooker.statuses,
                down=onlooker.down,
                rewards=onlooker.rewards,
                is_chain_away=self._chain_error is not None,
                landing=onlooker.landings.get(onlooker.settled_epoch),
                now_s=int(time.time()),
                events=self._events,
                credits=self._credits(onlooker) if self._crediting.is_shown else None,
            )
            self._live.update(live_view(frame))

    def _credits(self, onlooker: Onlooker) -> Credits:
        settlements = [onlooker.landings[epoch].settlement for epoch in sorted(onlooker.landings)]
        rows = shares(self._names(), settlements, {}) if settlements else []
        return self._crediting.so_far(rows, onlooker.statuses)

    async def _pay(self, reader: PoolReader, customer: Wallet, rewards: RewardsState | None) -> None:
        """The customer pays in every epoch of the run, not always the same; what fails is tried again soon."""
        if rewards is not None and self._paid_epoch < rewards.current_epoch <= self._last_epoch:
            epoch = rewards.current_epoch
            rewards_address = (await reader.state()).rewards
            value_nanoton = PAYMENT_NANOTON + epoch % 10 * NANO
            body = layout.receive_payment_body()
            await customer.transfer(
                [OutMessage(dest=rewards_address, value_nanoton=value_nanoton, body=body, bounce=True)]
            )
            self._paid_epoch = epoch

    def _require_progress(self, settled_epoch: int) -> None:
        for child in self._children:
            if child.code is not None and not child.stopping:
                raise OperationError(f"{child.name} ended by itself with code {child.code}: {child.last_words()}")
        due_s = SETTLE_SLACK_S + (settled_epoch + 2) * self._options.epoch_s + 30 * (settled_epoch + 1)
        if time.monotonic() - self._started > due_s:
            raise OperationError(f"the pool comes no further: epoch {settled_epoch} was the last to settle in time")

    async def _make_chaos(self, what: str, server: LiteServer, onlooker: Onlooker) -> None:
        """Break something, if all goes fast in the first epoch; what shall come back does so later.

        An agent dies once it has work to its name, so that the others settle and claim it without it.
        """
        await trio.sleep(self._options.epoch_s * 0.6)
        if what == "chain":
            assert self._chain is not None
            self._chain.kill()
            self._say("killed the chain")
            await trio.sleep(CHAIN_OUTAGE_S)
            await self._run_chain(server.port)
            self._say("started the chain again")
        else:
            seat = self._seats[-1]
            while not onlooker.has_worked(seat.name):  # noqa: ASYNC110 -- another process's state
                await trio.sleep(POLL_S)
            self._agents[seat.name].kill()
            self._say(f"killed {seat.name}")
            if onlooker.rewards is not None:  # what it did until now is settled, too, before the run ends
                self._last_epoch = max(self._last_epoch, onlooker.rewards.current_epoch)
            if what == "restart":
                await trio.sleep(self._options.epoch_s)
                await self._start_agent(seat)
                self._say(f"started {seat.name} again")
        self._is_chaos_over = True

    # The end.

    async def _conclude(self, chain: Chain, reader: PoolReader, onlooker: Onlooker) -> int:
        """Claim for everybody, then hold the books against the chain."""
        rewards = await self._claim_all(onlooker)
        landings = [onlooker.landings[epoch] for epoch in sorted(onlooker.landings)]
        settlements = [landing.settlement for landing in landings]
        contract = await chain.account((await reader.state()).rewards)
        books = keep_books(landings, rewards, contract.balance_nanoton)
        rows = shares(self._names(), settlements, rewards.paid_nanoton)
        faults = books.faults(settlements)
        if self._crediting.is_shown:
            running = {name for name, agent in self._agents.items() if agent.code is None}
            self._credited, more = await self._crediting.final(rows, onlooker.statuses, chain, running)
            faults += more
        self._report(rows, books, landings, faults)
        for fault in faults:
            self._say(f"WRONG: {fault}")
        if not faults:
            took_s = round(time.monotonic() - self._started)
            self._say(f"{len(settlements)} epoch(s) settled, everything claimed, the books balance ({took_s} s)")
        return 1 if faults else 0

    def _report(self, rows: Sequence[Share], books: Books, landings: Sequence[Landing], faults: Sequence[str]) -> None:
        if self._options.as_json:
            credited = self._credited.value() if self._credited is not None else None
            print(json.dumps(report_value(rows, books, landings, faults) | {"credits": credited}))  # noqa: T201
        else:
            views = [credits_view(self._credited)] if self._credited is not None else []
            Console().print(report_table(rows, books), *views)

    async def _claim_all(self, onlooker: Onlooker) -> RewardsState:
        """Everybody who is owed claims with its own agent; for a guest, or one that is down, another one does.

        What settles meanwhile is noted, and claimed, too. Returns the rewards contract when nothing is owed any more.
        """
        alive = {self._wallet_of(seat): seat for seat in self._seats if self._agents[seat.name].code is None}
        if not alive:
            raise OperationError("no agent runs any more; nobody can claim")
        for _ in range(CLAIM_ROUNDS_MAX):
            await onlooker.look()
            assert onlooker.rewards is not None
            rewards, paid = onlooker.rewards, onlooker.rewards.paid_nanoton
            leaves = onlooker.landings[onlooker.settled_epoch].settlement.leaves
            owed = [each.participant for each in leaves if each.earned_nanoton > paid.get(each.participant.account, 0)]
            if not owed and onlooker.settled_epoch == rewards.landed.epoch:
                return rewards
            await claim_for(owed, lambda participant: alive.get(participant) or next(iter(alive.values())))
            await trio.sleep(POLL_S)
        raise OperationError("more was earned than could be claimed, again and again")

    def _names(self) -> dict[bytes, str]:
        """The agents' names by their wallets' accounts."""
        return {self._wallet_of(seat).account: seat.name for seat in self._seats}

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


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()
