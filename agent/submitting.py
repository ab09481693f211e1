"""Submitting: sends to the contracts what the machine asks for, through the agent's wallet, and sees what became of it.

A shell: whose turn it is, and that the turns go on until the chain shows the epoch settled, is decided by
`gossip.epoch_close`. Rules:

1. Before anything is sent the contracts are read again: what was done meanwhile is not done twice, and what
   would be refused is not sent. "Settled already" is success, whoever settled it.
2. A certificate is followed through the contracts, so that a refusal is said by its name. It carries as few
   signatures as make a quorum, for each costs gas.
3. A turn that did not settle the epoch, whatever the reason (dropped, bounced, out of gas, its sender gone), lets
   the next one bring more TON, up to `VALUE_STEPS_MAX` steps; what an operation does not need comes back. A
   wallet that cannot pay more brings what is asked at least.

Source: PROTOCOL, "Epoch close" steps 1 and 6.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable

import trio

from agent.certificates import fewest
from agent.errors import OperationError
from agent.metrics.registry import Metrics
from agent.trace import RefusedError, Trace, new_query_id
from contracts import certificate, fees, layout
from contracts.chain import Block, Chain
from contracts.errors import ContractsError
from contracts.model import OPEN_EPOCHS_MAX, Address, CertificateDomain, RewardsState
from contracts.opcodes import Refusal
from contracts.reader import PoolReader
from contracts.wallet import FEES_RESERVE_NANOTON, OutMessage, Wallet
from gossip.epoch_events import Finalize, Submit
from gossip.node import Node

VALUE_STEPS_MAX = 6
"""Each adds half of what is asked: the seventh turn and all later ones bring four times as much."""
FOLLOW_S = 20.0
FOLLOW_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


class Submitting:
    """Performs the machine's chain actions for one pool."""

    def __init__(self, chain: Chain, reader: PoolReader, wallet: Wallet, metrics: Metrics) -> None:
        self._chain = chain
        self._reader = reader
        self._wallet = wallet
        self._metrics = metrics

    async def perform(self, node: Node) -> None:
        """Send what the machine asks for, one thing at a time, for ever. A failure is left to the next turn."""
        async for action in node.chain_actions:
            match action:
                case Finalize(epoch):
                    await self._attempt("finalize", epoch, functools.partial(self.finalize, epoch))
                case Submit():
                    epoch = action.settlement.payload.epoch
                    await self._attempt("submit", epoch, functools.partial(self.submit, action))

    async def _attempt(self, what: str, epoch: int, send: Callable[[], Awaitable[str]]) -> None:
        try:
            outcome = await send()
        except (ContractsError, OperationError) as error:
            outcome = "refused" if isinstance(error, OperationError) else "failed"
            log.warning("could not %s epoch %d, trying again at the next turn: %s", what, epoch, error)
        else:
            log.info("%s epoch %d: %s", what, epoch, outcome)
        self._metrics.sent.inc((what, outcome))

    async def finalize(self, epoch: int) -> str:
        """Close the running epoch, unless that was done; returns what became of it, in two or three words.

        Raises:
            ContractsError: the chain does not answer, or the wallet cannot send.
        """
        block, rewards = await self._latest()
        if rewards.current_epoch != epoch or block.time_s < rewards.current_end_s:
            return "done already"
        if len(rewards.open_epochs) >= OPEN_EPOCHS_MAX:
            return "too many open epochs"
        state = await self._reader.state(block)
        message = OutMessage(
            dest=state.rewards, value_nanoton=fees.FINALIZE_NANOTON, body=layout.finalize_body(), bounce=True
        )
        await self._wallet.transfer([message])
        return "sent"

    async def submit(self, submit: Submit) -> str:
        """Bring a certificate to the pool, unless its epoch is settled; returns what became of it.

        Raises:
            OperationError: a contract refused it; the text names the reason.
            ContractsError: the chain does not answer, or the wallet cannot send.
        """
        payload = submit.settlement.payload
        block, rewards = await self._latest()
        if rewards.landed.epoch >= payload.epoch:
            return "settled already"
        state = await self._reader.state(block)
        if state.is_paused(block.time_s):
            return "pool paused"
        signers = state.set_of(submit.set_id)
        if signers is None:
            return "set gone"
        pool, query_id = self._reader.pool, new_query_id()
        domain = CertificateDomain(global_id=self._wallet.global_id, pool=pool, set_id=submit.set_id)
        signatures = fewest(submit.signatures, signers)
        cell = certificate.settle_certificate(domain, payload)
        message = OutMessage(
            dest=pool,
            value_nanoton=await self._value(len(signatures), submit.turn, block),
            body=certificate.submit_body(cell, signatures, query_id=query_id),
            bounce=True,
        )
        trace = Trace(self._chain, {pool: "pool", state.rewards: "rewards"}, query_id)
        await trace.begin()
        await self._wallet.transfer([message])
        try:
            return await _follow(trace, state.rewards)
        except RefusedError as error:
            if error.exit_code != Refusal.ALREADY_SETTLED:
                raise
            return "settled already"

    async def _value(self, signatures: int, turn: int, block: Block) -> int:
        """What the certificate brings in this turn (rule 3), in nanoTON."""
        least = fees.submit_nanoton(signatures)
        more = least + least * min(turn, VALUE_STEPS_MAX) // 2
        if more == least:
            return least
        balance = (await self._chain.account(self._wallet.address, block)).balance_nanoton
        return more if balance >= more + FEES_RESERVE_NANOTON else least

    async def _latest(self) -> tuple[Block, RewardsState]:
        block = await self._chain.head()
        return block, await self._reader.rewards(block)


async def _follow(trace: Trace, rewards: Address) -> str:
    """Wait until the rewards contract took the certificate: "settled"; or for a while: "sent"."""
    deadline_s = trio.current_time() + FOLLOW_S
    while trio.current_time() < deadline_s:
        if await trace.is_taken_by(rewards):
            return "settled"
        await trio.sleep(FOLLOW_INTERVAL_S)
    return "sent"
