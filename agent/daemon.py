"""The agent, composed. Read this first: what runs, in which order, and what it needs.

    measure  ->  own log  ->  gossip  <->  peers
    prove    ->  own log        |
                                v
    chain    ->  epoch's close: observe, propose, attest, certify, submit  ->  chain

1. Keys, policy and journal are checked before anything is opened: what is wrong is said in one line.
2. The listener for status and metrics comes up next, so that a waiting agent can be asked what it waits for.
3. Measuring starts at once and needs nobody; records are written only when operators of more than two
   thirds of the weight have said how far they know the own log.
4. One nursery holds everything. SIGTERM or SIGINT cancels it; a journal that fails ends it.
"""

from __future__ import annotations

import logging
import signal
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib import metadata
from typing import TYPE_CHECKING, Any

import trio

from agent.attesting import Attesting
from agent.bookkeeping import Bookkeeping
from agent.config import Config
from agent.errors import AddressAwayError, ConfigError, JournalError, PoolMismatchError, PortInUseError
from agent.gossiping import Gossiping, join_pool
from agent.health import START_CHECKS_S, Health
from agent.identity import load_key
from agent.journal import Journal, open_journal
from agent.journal_file import KEY_IN_USE
from agent.ledger import ledger_file, open_ledger
from agent.measuring import Measuring
from agent.metrics.following import follow_agent
from agent.metrics.registry import Metrics
from agent.notify import Notifier
from agent.page.looking import Page
from agent.policies import load_policies, needed_policies, require_window
from agent.providers import open_providers, pool_root
from agent.pruning import keep_pruned
from agent.pulse import Pulse
from agent.receipts import Receipts, receipts_app
from agent.registries import Registries
from agent.servers import config_servers
from agent.settling import Settling
from agent.sources import open_sources
from agent.status import agent_status, not_earning
from agent.submitting import Submitting
from agent.undumpable import forbid_dumps
from agent.verdicts import Verdicts
from agent.versions import begin_run, first_of
from agent.web import Probes, WebConfig, serve_local, serve_web
from agent.workers import Workers
from contracts.chain import Chain, open_chain
from contracts.errors import ContractsError
from contracts.model import OperatorSet, Participant
from contracts.reader import PoolReader
from contracts.wallet import Wallet
from gossip.acquaintances import Acquaintances
from gossip.errors import KeyInUseError
from gossip.node import Node, open_node
from gossip.records import PoolId
from gossip.settlement import Settlement

if TYPE_CHECKING:
    # The stubs of trio-typing, which libp2p brings, hide trio's own types from the type checker.
    from trio_typing import TaskStatus

VERSION = metadata.version("gpupool-agent")
HOUSEKEEPING_S = 2.0
CHAIN_RETRY_S = 2.0
RECEIPTS_RETRY_S = 30.0

log = logging.getLogger(__name__)


def run_agent(config: Config) -> None:
    """Run the agent until it is told to stop.

    Raises:
        AgentError, GossipError, ContractsError, AttestationError: it cannot start or go on; one line says why.
    """
    forbid_dumps()
    agent = Agent(config)
    try:
        trio.run(agent.run, strict_exception_groups=True)
    except* KeyInUseError as group:
        _note_key_in_use(agent.journal, first_of(group))
        raise
    finally:
        agent.ledger.close()
        agent.journal.close()


def _note_key_in_use(journal: Journal, cause: KeyInUseError) -> None:
    """Keep it for who asks why no agent runs here; a disk that fails now must not hide it."""
    try:
        journal.note(KEY_IN_USE, str(cause).encode())
    except JournalError as error:
        log.error("why this agent stops is not noted: %s", error)


class Agent:
    """One agent of one pool; its parts come up one after another and are None until then."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.notifier = Notifier.from_environment()
        self.notifier.starting("checking settings, keys and journal", START_CHECKS_S)
        self.policies = load_policies(config)
        require_window(config, self.policies)
        self.key = load_key(config.resolve(config.identity.node_key_file))
        self.wallet_key = load_key(config.resolve(config.wallet.key_file))
        self.pool = PoolId(config.pool.global_id, config.pool.contract.account)
        self.journal: Journal = open_journal(config.journal_file, node_key=self.key.public, pool=self.pool)
        self.metrics = Metrics(version=VERSION)
        self.pulse = Pulse(lambda loop: self.metrics.loop_advanced.set(loop, self.now_s()))
        self.health = Health(self)
        self.version = VERSION
        self.started_s = self.now_s()
        self.this_run = begin_run(self.journal, config.journal_file, VERSION, self.started_s)
        self.ledger = open_ledger(
            ledger_file(config),
            node_key=self.key.public,
            pool=self.pool,
            keep_s=int(config.meter.samples_kept_days * 86_400),
        )
        self.measuring = Measuring(
            config.meter, self.policies.window_max_s, self.journal, self.ledger, self.metrics, self.now_s
        )
        self.receipts = Receipts(
            self.pool, self.key.public, lambda: self.policies.in_force, self.journal, self.metrics, self.now_s
        )
        self.receipts.on_queued = self.measuring.pending_came
        self.books = Bookkeeping(
            self.key.public,
            self.pool,
            self.journal,
            self.ledger,
            self.receipts,
            self.metrics,
            config.meter.disagreement_max,
        )
        self.node: Node | None = None
        self.settling: Settling | None = None
        self.verdicts = Verdicts(self.pool, self.policies, pool_root(config), self.journal)
        self.attesting = Attesting(
            self.pool, self.policies, self.verdicts, open_providers(config), self.journal, self.metrics
        )
        self.attesting.on_begun = self.measuring.part
        self.gossiping: Gossiping | None = None
        self.receipts_error: str | None = None
        """Why no receipts are taken, though the settings say so."""
        self.is_own_log_known = False
        self.page = Page(self)

    @staticmethod
    def now_s() -> int:
        return int(time.time())

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, nursery.cancel_scope, self.notifier)
            address = await nursery.start(self._serve_web)
            log.info("agent %s of node %s listens on http://%s:%d", VERSION, self.key.public.hex(), *address)
            nursery.start_soon(self.health.report, self.notifier)
            nursery.start_soon(follow_agent, self)
            nursery.start_soon(self.page.diagnosing.run)
            sources = await stack.enter_async_context(open_sources(self.config))
            self.measuring.pulse = self.pulse
            nursery.start_soon(self.measuring.run, sources)
            servers = config_servers(self.config)
            table = self.config.chain
            async with open_chain(servers, trust_level=table.trust_level, timeout_s=table.timeout_s) as chain:
                await self._take_part(chain)
        log.info("stopped")

    async def _take_part(self, chain: Chain) -> None:
        """Everything that needs the chain, in the order in which it can begin."""
        reader, wallet = PoolReader(chain, self.config.pool.contract), self._open_wallet(chain)
        registries = Registries(self.config.journal_file.parent / "registries", chain, reader)
        self.settling = settling = self._open_settling(chain, reader, wallet, registries)
        settling.pulse = self.pulse
        operators = await self._first_look(settling)
        attesting = self.attesting
        self.node = node = open_node(
            self.key,
            self.pool,
            self.policies.in_force,
            self.journal,
            self.verdicts.verdict,
            participants=[participant.node_key for participant in settling.view.participants],
            now_s=self.now_s,
        )
        async with self._join_pool(node) as gossiping, trio.open_nursery() as nursery:
            self.gossiping = gossiping
            gossiping.pulse = self.pulse
            landed = await trio.to_thread.run_sync(self.journal.last_landed)
            self.books.begin(landed, self.entry, settling)
            node.on_settled = self._note_settled
            nursery.start_soon(self.books.run, chain, settling, self.policies.get)
            nursery.start_soon(self.books.follow_payments, settling, lambda: self.entry)
            gossiping.set_roster(settling.view.roster())
            nursery.start_soon(gossiping.run)
            nursery.start_soon(registries.run, settling.open_epochs)
            nursery.start_soon(settling.workers.run)
            nursery.start_soon(settling.follow, node, lambda: gossiping.set_roster(settling.view.roster()))
            nursery.start_soon(Submitting(chain, reader, wallet, self.metrics).perform, node)
            nursery.start_soon(self.verdicts.examine, node, chain)
            nursery.start_soon(self._keep_house, node)
            await self._learn_own_log(gossiping, operators)
            log.info("taking part from record %d on", node.logs[self.key.public].head.seq + 1)
            nursery.start_soon(keep_pruned, node, self.journal)
            nursery.start_soon(attesting.renew, node, chain)
            await attesting.proven.wait()
            nursery.start_soon(self.measuring.append_windows, node, attesting.covering, self._block_time_s)
            await self._serve_receipts(node)

    def _join_pool(self, node: Node) -> AbstractAsyncContextManager[Gossiping]:
        policies = self.policies
        acquaintances = Acquaintances(self.key, self.pool, self.this_run, policies=lambda: [p.hash for p in policies])
        return join_pool(node, self.config.p2p, self.config.address_file, acquaintances)

    async def _learn_own_log(self, gossiping: Gossiping, operators: OperatorSet) -> None:
        """Wait until operators said how far they know the own log; a restored journal has no say in it."""
        remembers = await trio.to_thread.run_sync(lambda: self.journal.is_own_log_known)
        who = "" if remembers else ": this journal may lack some of it, so more than two thirds of them have to answer"
        log.info("asking the other operators how far they know the own log%s", who)
        await gossiping.learn_own_log(operators, remembers=remembers)
        await trio.to_thread.run_sync(self.journal.note, KEY_IN_USE, b"")
        if not remembers:
            await trio.to_thread.run_sync(self.journal.note_own_log_known)
        self.is_own_log_known = True

    def _open_wallet(self, chain: Chain) -> Wallet:
        return Wallet(
            chain,
            self.wallet_key.seed,
            self.config.wallet.version,
            global_id=self.pool.network,
            lock_file=self.config.wallet_lock_file,
        )

    def _open_settling(self, chain: Chain, reader: PoolReader, wallet: Wallet, registries: Registries) -> Settling:
        return Settling(
            chain,
            reader,
            wallet.address,
            registries,
            Workers(chain, self.key.public),
            self.policies,
            self.metrics,
            poll_interval_s=self.config.chain.poll_interval_s,
            roster_interval_s=self.config.chain.roster_interval_s,
            now_s=self.now_s,
        )

    async def _first_look(self, settling: Settling) -> OperatorSet:
        """Wait until the chain shows the pool under its operators.

        Raises:
            PoolMismatchError: no policy file is one that the pool counts by, now or soon.
        """
        said: type | None = None
        kind: type
        self.pulse.beat("chain")
        while True:
            try:
                await settling.refresh()
            except ContractsError as error:
                reason, kind = str(error), type(error)
            else:
                state, rewards = settling.view.state, settling.view.rewards
                assert state is not None
                assert rewards is not None
                if not any(needed.policy_hash in self.policies for needed in needed_policies(state, rewards)):
                    path = self.config.resolve(self.config.pool.policy_file)
                    raise PoolMismatchError(
                        f"{path}: its hash is {self.policies.in_force.hash.hex()}, but the pool agreed on "
                        f"{rewards.running.terms.policy_hash.hex()}; get the pool's current policy document"
                    )
                if state.operator_set is not None:
                    barred = not_earning(self.entry, state)
                    if barred is not None:
                        log.warning("%s", barred)
                    return state.operator_set
                reason, kind = "the pool is still run by its owner: no operator set yet", OperatorSet
            if kind is not said:  # the text may change with each try
                log.warning("waiting for the pool: %s", reason)
                said = kind
            settling.view.error = reason
            await self.pulse.rest("chain", CHAIN_RETRY_S)

    async def _keep_house(self, node: Node) -> None:
        while True:
            assert self.settling is not None
            self.settling.look(node)
            self.page.look()
            await trio.sleep(HOUSEKEEPING_S)

    def _note_settled(self, settlement: Settlement) -> None:
        """Tell people, metrics and the books what came of an epoch."""
        assert self.settling is not None
        self.settling.note_settled(settlement, self.entry)
        self.books.note(settlement, self.entry, self.settling)

    async def _serve_receipts(self, node: Node) -> None:
        """Take receipts, if the settings say so; the own log is known by now."""
        table, own = self.config.receipts, node.logs[self.key.public]
        self.receipts.recorded_s = lambda: own.work_end_s(own.head)
        await self.receipts.settled(node.machine.base.reading(self.key.public))
        said = ""
        while table is not None:
            place = WebConfig(host=table.host, port=table.port, allowed_hosts=table.allowed_hosts)
            try:
                self.receipts_error = None
                await serve_local(receipts_app(self.receipts), place)
            except (PortInUseError, AddressAwayError, ConfigError) as error:
                # All else earns without receipts: it is in the log, and in what readiness says. An address that is not
                # here now may come, as a tunnel's does.
                named = f"receipts.port: {error}" if isinstance(error, PortInUseError) else f"receipts.{error}"
                if named != said:
                    log.error("no receipts are taken: %s", named)
                said = self.receipts_error = named
                await trio.sleep(RECEIPTS_RETRY_S)

    def status(self) -> dict[str, Any]:
        """What `/-/status` answers."""
        return agent_status(self, self.now_s())

    def _block_time_s(self) -> int:
        """The time of the last block seen, of which there is one when this is asked."""
        assert self.settling is not None
        assert self.settling.view.block is not None
        return self.settling.view.block.time_s

    @property
    def entry(self) -> Participant | None:
        """This node's entry in the registry as last seen, if there is one."""
        participants = self.settling.view.participants if self.settling is not None else ()
        return next((p for p in participants if p.node_key == self.key.public), None)

    def _probes(self) -> Probes:
        return Probes(
            healthy=self.health.healthy,
            ready=self.health.ready,
            status=self.status,
            page=self.page.html,
            checkpoint=self.journal.find_checkpoint,
        )

    async def _serve_web(self, *, task_status: TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer questions until cancelled. Raises as `serve_web` does, with the key in the settings."""
        table = self.config.web
        place = WebConfig(host=table.host, port=table.port, allowed_hosts=table.allowed_hosts)
        try:
            await serve_web(place, self.metrics.registry, self._probes(), task_status=task_status)
        except AddressAwayError as error:
            raise AddressAwayError(f"{self.config.path}: web.{error}") from error
        except ConfigError as error:
            raise ConfigError(f"web.{error}") from error


async def _stop_on_signal(scope: trio.CancelScope, notifier: Notifier) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: stopping", signal.Signals(number).name)
            notifier.stopping("stopping")
            scope.cancel()
            return  # a second signal ends the process at once
