"""Settling: follows the chain for the machine, and tells people what came of each epoch.

A shell: every decision is `gossip.epoch_close`'s; here the contracts are read at finalized blocks. A chain that
is away is waited for, with a warning once. What the machine asks the chain for is sent by `agent.submitting`.

1. Pot, operator set and policy of an epoch are those that the rewards contract pinned to it; its registry is the
   one when it was finalized (`agent.registries`). So every operator has the same.
2. An epoch whose policy document is not held, whose registry cannot be read, or whose operators can sign no
   more, is not closed here; the reason is said.
3. An epoch is opened when the worker contracts are read that count in it, or some time was given to that
   (`agent.workers`); the chain is followed meanwhile.

Source: PROTOCOL, "Epoch close" steps 1, 2, 7.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from agent.epoch_watch import EpochWatch
from agent.metrics.registry import Metrics
from agent.policies import NeededPolicy, Policies, needed_policies
from agent.pulse import Pulse
from agent.registries import Registries
from agent.workers import Workers
from contracts.chain import Block, Chain
from contracts.chain_values import ServersStanding
from contracts.errors import ChainUnavailableError, ContractsError
from contracts.model import (
    NANO,
    Address,
    OpenEpoch,
    Participant,
    PoolState,
    RewardsState,
)
from contracts.reader import PoolReader
from gossip.epoch_events import Advanced, ChainView
from gossip.node import Node
from gossip.pinning import settling_set
from gossip.roster import Roster
from gossip.settlement import Settlement
from gossip.tally import EpochFrame

RETRY_S = 2.0
CLOCK_OFF_MAX_S = 60

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PoolView:
    """What the chain said last, for the status and for finding peers."""

    block: Block | None = None
    state: PoolState | None = None
    rewards: RewardsState | None = None
    participants: tuple[Participant, ...] = ()
    balance_nanoton: int | None = None
    error: str | None = None
    obstacle: str | None = None
    """Why this agent cannot close the oldest open epoch."""
    clock: str | None = None
    """What is wrong with this host's clock, as far as the chain tells."""

    def roster(self) -> Roster:
        """Who belongs to the pool: the operators, those before them, and all participants."""
        current = self.state.operator_set if self.state is not None else None
        previous = self.state.previous_set if self.state is not None else None
        return Roster(
            weights={o.node_key: o.weight for o in current.operators} if current is not None else {},
            operators=frozenset(o.node_key for held in (current, previous) if held is not None for o in held.operators),
            participants=frozenset(participant.node_key for participant in self.participants),
        )


class Settling:
    """Keeps one pool's chain view fresh."""

    def __init__(
        self,
        chain: Chain,
        reader: PoolReader,
        wallet: Address,
        registries: Registries,
        workers: Workers,
        policies: Policies,
        metrics: Metrics,
        *,
        poll_interval_s: float,
        roster_interval_s: float,
        now_s: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._reader = reader
        self._wallet = wallet
        self._registries = registries
        self.workers = workers
        self._policies = policies
        self._missing: frozenset[bytes] = frozenset()
        self._metrics = metrics
        self._poll_interval_s = poll_interval_s
        self._roster_interval_s = roster_interval_s
        self._now_s = now_s
        self._frame: EpochFrame | None = None
        self._roster_read_s = float("-inf")
        self.view = PoolView()
        self.pulse = Pulse()
        """The daemon's, for whoever watches its loops."""
        self.watch = EpochWatch(metrics)
        self.settled: list[Settlement] = []

    async def follow(self, node: Node, roster_changed: Callable[[], None]) -> None:
        """Read the chain for ever and tell the machine; `roster_changed` is called when participants did."""
        while True:
            try:
                await self.refresh()
                if self.view.state is not None and self.view.state.operator_set is not None:
                    roster_changed()
                    await self._tell(node)
            except ContractsError as error:
                self._unavailable(error)
            else:
                if self.view.error is not None:
                    log.info("the chain answers again")
                self.view.error = None
            await self.pulse.rest("chain", self._poll_interval_s if self.view.error is None else RETRY_S)

    async def refresh(self) -> None:
        """Read the latest block, the pool and the rewards contract, and now and then the registry.

        Raises:
            ContractsError: the chain does not answer, or what stands there is not the pool.
        """
        try:
            await self._read()
        except ContractsError:
            self._metrics.chain_up.set(0)
            raise
        self._metrics.chain_up.set(1)

    async def _read(self) -> None:
        view, block = self.view, await self._chain.head()
        state, rewards = await self._reader.state(block), await self._reader.rewards(block)
        if trio.current_time() - self._roster_read_s >= self._roster_interval_s:
            view.participants = await self._reader.registry(block)
            view.balance_nanoton = (await self._chain.account(self._wallet, block)).balance_nanoton
            self._roster_read_s = trio.current_time()
        if view.block is None or block.seqno > view.block.seqno:
            self._compare_clocks(block)
        view.state, view.rewards, view.block = state, rewards, block
        self._policies.turn_to(rewards.running.terms.policy_hash)
        self._note_missing(needed_policies(state, rewards), rewards.current_epoch)
        self._metrics.pool_paused.set(state.is_paused(block.time_s))
        if view.balance_nanoton is not None:
            self._metrics.wallet_balance.set(view.balance_nanoton / NANO)
        self._metrics.chain_head_time.set(block.time_s)
        self._metrics.epoch.set(rewards.current_epoch)

    def _compare_clocks(self, block: Block) -> None:
        """Hold the local clock against a block that is new: it was made moments ago."""
        ahead_s = self._now_s() - block.time_s
        self._metrics.clock_offset.set(ahead_s)
        off = None
        if abs(ahead_s) > CLOCK_OFF_MAX_S:
            side = "ahead of" if ahead_s > 0 else "behind"
            # Said without the number of seconds in between: it would be another text with each block.
            off = f"this host's clock is more than {CLOCK_OFF_MAX_S} s {side} the chain's: set it (see timedatectl)"
            if ahead_s > 0:
                off += "; or the liteserver is behind"
        if off is not None and off != self.view.clock:
            log.warning("%s; now %d s", off, abs(ahead_s))
        if off is None and self.view.clock is not None:
            log.info("the clock agrees with the chain's again")
        self.view.clock = off

    def _note_missing(self, needed: tuple[NeededPolicy, ...], epoch: int) -> None:
        """Say which policy documents have to be got, each once; `epoch` is the one that runs."""
        missing = [policy for policy in needed if policy.policy_hash not in self._policies]
        for policy in missing:
            if policy.policy_hash not in self._missing:
                first = "a proposed change of parameters" if policy.epoch is None else f"epoch {policy.epoch}"
                log.error(
                    "from %s on the pool counts by policy %s, whose document is not here: get it from the pool's "
                    "operators, name it as pool.next_policy_file and start the agent again",
                    first,
                    policy.policy_hash.hex(),
                )
        self._missing = frozenset(policy.policy_hash for policy in missing)
        now = sum(policy.epoch is not None and policy.epoch <= epoch for policy in missing)
        self._metrics.policies_missing.replace({"now": now, "soon": len(missing) - now})

    async def _tell(self, node: Node) -> None:
        view = self.view
        assert view.block is not None
        assert view.rewards is not None
        assert view.state is not None
        assert view.state.operator_set is not None
        self.look(node)
        node.register(participant.node_key for participant in view.participants)
        frame = await self._frame_of(view.state, view.rewards.open_epochs, view.block.time_s)
        read = self.workers.of(frame, view.rewards.open_epochs[0].finalized_s) if frame is not None else None
        await node.handle(
            Advanced(
                view=ChainView(
                    now_s=view.block.time_s,
                    current_epoch=view.rewards.current_epoch,
                    current_end_s=view.rewards.current_end_s,
                    open_epochs=view.rewards.open_epochs,
                    landed=view.rewards.landed,
                ),
                operators=view.state.operator_set,
                frame=frame if read is not None else None,  # rule 3
                witnessed_s=node.witness.seconds,
                worker_tokens=read or {},
            )
        )

    async def _frame_of(self, state: PoolState, open_epochs: tuple[OpenEpoch, ...], now_s: int) -> EpochFrame | None:
        """What is pinned to the oldest open epoch (rule 1); None without one, or while it cannot be closed (rule 2)."""
        if not open_epochs:
            self._hindered(None)
            return None
        oldest = open_epochs[0]
        operators, policy = settling_set(oldest, state, now_s), self._policies.get(oldest.policy_hash)
        if operators is None:
            self._hindered(f"epoch {oldest.epoch} waits: its operators, set {oldest.set_id}, can sign no more")
            return None
        if policy is None:
            self._hindered(f"epoch {oldest.epoch} is counted by policy {oldest.policy_hash.hex()}, which is not here")
            return None
        self._hindered(None)
        if self._frame is None or self._frame.epoch != oldest.epoch:
            try:
                participants = await self._registries.of(oldest)
            except ContractsError as error:
                self._hindered(
                    f"epoch {oldest.epoch} waits: its registry cannot be read ({error}); if it was finalized long ago, "
                    "name an archive liteserver, or ask another operator for the file"
                )
                return None
            self._frame = EpochFrame(
                epoch=oldest.epoch,
                start_s=oldest.start_s,
                end_s=oldest.end_s,
                pot_nanoton=oldest.pot_nanoton,
                operators=operators,
                policy=policy,
                participants=participants,
            )
        elif self._frame.operators != operators:
            log.warning("epoch %d is settled by operator set %d from now on", oldest.epoch, operators.set_id)
            self._frame = replace(self._frame, operators=operators)
        self._hindered(None)
        return self._frame

    def _hindered(self, obstacle: str | None) -> None:
        if obstacle is not None and obstacle != self.view.obstacle:
            log.error("%s", obstacle)
        self.view.obstacle = obstacle

    def servers(self) -> ServersStanding:
        """How the liteservers stand."""
        return self._chain.servers()

    @property
    def frame(self) -> EpochFrame | None:
        """What the chain fixed for the epoch that is, or was last, to be settled."""
        return self._frame

    def settled_s(self, epoch: int) -> int | None:
        """When the chain took this epoch's settlement (Unix seconds), if it was the last one."""
        landed = self.view.rewards.landed if self.view.rewards is not None else None
        return landed.settled_s if landed is not None and landed.epoch == epoch else None

    def open_epochs(self) -> tuple[OpenEpoch, ...]:
        """The epochs that wait for their settlement, as last seen."""
        return self.view.rewards.open_epochs if self.view.rewards is not None else ()

    def look(self, node: Node) -> None:
        """Note how far the open epoch's close has come."""
        if self._frame is not None:
            assert self.view.block is not None
            self.watch.look(node.machine.progress(), self._frame.end_s, self.view.block.time_s)

    def note_settled(self, settlement: Settlement, entry: Participant | None) -> None:
        """Tell people and metrics that a settlement landed; `entry` is this node's own in the registry."""
        self.settled = [*self.settled[-15:], settlement]
        if self.view.rewards is not None:
            own = entry.address if entry is not None else None
            self.watch.settled(settlement, self.view.rewards.landed, own)

    def _unavailable(self, error: ContractsError) -> None:
        self._metrics.chain_errors.inc(type(error).__name__)
        if self.view.error is None:
            kind = "is away" if isinstance(error, ChainUnavailableError) else "does not show the pool"
            log.warning("the chain %s; trying again every %.0f s: %s", kind, RETRY_S, error)
        self.view.error = str(error)
