"""Cocoon worker contracts: what the chain paid each participant's worker, as this operator observes it.

Read once per epoch, from proven state, by a node that settles the epoch, if its policy counts by these contracts.
Readings are cumulative: what is paid later, or not read now, counts in the next epoch. Untrusted: the addresses,
which participants choose, and what stands there.

1. All are read at the first masterchain block that is not older than the epoch's finalization, as its registry is
   (`agent.registries`): every operator reads the same, and anybody can read it again later.
2. Nobody waits for it but the epoch itself, which is opened here when all is read, or after `BUDGET_S`. What is not
   read by then is absent, which is not zero: a liteserver may have forgotten the block.
3. Where nothing stands yet nothing was paid: zero (`contracts.cocoon`, rule 2), so that the first payment counts.
4. A contract that does not count, or that no server could show, is read once in an epoch; one that no server answered
   for, `TRIES_MAX` times.

Source: METERING, `worker-contract`; PROTOCOL, "Epoch close" step 2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from contracts.chain import Chain
from contracts.chain_values import Block
from contracts.cocoon import UnacceptableWorkerError, WorkerRules, appraise_worker, read_worker
from contracts.errors import ChainUnavailableError, ContractAbsentError, ContractsError
from contracts.model import Participant
from gossip.policy import PoolPolicy
from gossip.tally import EpochFrame

AT_ONCE_MAX = 4
TRIES_MAX = 2
RETRY_S = 10.0
PAUSE_S = 1.0
"""After no answer: the chain client leaves a server that failed alone for less, and the next one is not to suffer."""
BUDGET_S = 60.0
TOKENS_MAX = (1 << 63) - 1
"""The most that an observation says."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Look:
    """What is read for one epoch."""

    epoch: int
    finalized_s: int
    rules: WorkerRules
    left: dict[bytes, Participant]
    """Whom to read yet, by node key."""
    until_s: float
    """On trio's clock: how long to wait for the rest."""
    tokens: dict[bytes, int] = field(default_factory=dict)
    failure: str = "there was no time left"


class Workers:
    """The readings of the epoch that is to be settled, by the node `node_key`. `run` has to run beside it."""

    def __init__(self, chain: Chain, node_key: bytes) -> None:
        self._chain = chain
        self._node_key = node_key
        self._look: _Look | None = None
        self._asked = trio.Event()

    def of(self, frame: EpochFrame, finalized_s: int) -> Mapping[bytes, int] | None:
        """Cumulative tokens by node key, of those that were read; None while they are being read (rule 2).

        Empty if the policy asks for none, or this node does not settle the epoch. `finalized_s`: Unix seconds.
        """
        if frame.policy.receipts.ceiling != "worker-contract" or frame.operators.index_of(self._node_key) is None:
            return {}
        if self._look is None or self._look.epoch != frame.epoch:
            self._look = _Look(
                epoch=frame.epoch,
                finalized_s=finalized_s,
                rules=worker_rules(frame.policy),
                left={p.node_key: p for p in frame.participants if p.worker is not None},
                until_s=trio.current_time() + BUDGET_S,
            )
            self._asked.set()
        return self._look.tokens if trio.current_time() >= self._look.until_s else None

    async def run(self) -> None:
        """Read what `of` asks for, for ever. Cancelled, it leaves nothing behind."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            look = self._look
            assert look is not None
            with trio.CancelScope(deadline=look.until_s):
                await self._read(look)
            look.until_s = trio.current_time()
            if look.left:
                log.warning(
                    "epoch %d: %d worker contracts are not read, and what they were paid counts in a later epoch: %s",
                    look.epoch,
                    len(look.left),
                    look.failure,
                )

    async def _read(self, look: _Look) -> None:
        for attempt in range(TRIES_MAX):
            if attempt:
                await trio.sleep(RETRY_S)
            try:
                block = await self._chain.block_at(look.finalized_s)
            except ContractsError as error:
                look.failure = f"the block of its finalization cannot be read: {error}"
                continue
            slots = trio.CapacityLimiter(AT_ONCE_MAX)
            async with trio.open_nursery() as nursery:
                for participant in list(look.left.values()):
                    nursery.start_soon(self._read_one, look, participant, block, slots)
            if not look.left:
                return

    async def _read_one(self, look: _Look, participant: Participant, block: Block, slots: trio.CapacityLimiter) -> None:
        async with slots:
            try:
                tokens = await paid_tokens(self._chain, participant, look.rules, block)
            except ChainUnavailableError as error:
                look.failure = f"{error}; if the epoch was finalized long ago, name an archive liteserver"
                await trio.sleep(PAUSE_S)
                return
            except UnacceptableWorkerError as error:
                log.warning("worker contract of %s does not count: %s", participant.address, error)
            except ContractsError as error:
                log.warning("worker contract of %s cannot be read: %s", participant.address, error)
            else:
                look.tokens[participant.node_key] = min(tokens, TOKENS_MAX)
            del look.left[participant.node_key]


async def paid_tokens(chain: Chain, participant: Participant, rules: WorkerRules, block: Block) -> int:
    """Cumulative tokens that the chain paid the participant's worker, as of `block`; 0 where nothing stands yet.

    Raises:
        UnacceptableWorkerError: the contract does not count.
        ContractsError: it cannot be read.
    """
    assert participant.worker is not None
    try:
        worker = await read_worker(chain, participant.worker, block)
    except ContractAbsentError:
        return 0
    appraise_worker(worker, rules, participant.address)
    return worker.tokens


def worker_rules(policy: PoolPolicy) -> WorkerRules:
    """Which contracts the policy counts."""
    return WorkerRules(
        code_hashes=frozenset(bytes.fromhex(code) for code in policy.receipts.worker_codes),
        proxies=frozenset(bytes.fromhex(key) for key in policy.receipts.worker_proxies),
    )
