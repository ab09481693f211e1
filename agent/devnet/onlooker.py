"""Watches a dev network from outside: the contracts on chain, and what the agents say of themselves.

It trusts no agent: a settlement counts when it hashes to what the chain took.

1. Every epoch is noted once, in order, whatever was missed meanwhile: pots and landings that nobody looked
   at in time are read from the rewards contract as it stood just before each settlement.
2. An epoch is noted whole or not at all; what failed is tried again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import trio

from agent.devnet.layout import GLOBAL_ID, Seat
from agent.errors import OperationError
from contracts.certificate import settle_certificate
from contracts.chain import Account, Block, TransactionSummary
from contracts.model import NANO, Address, CertificateDomain, Landed, OpenEpoch, RewardsState
from contracts.opcodes import Op
from contracts.reader import PoolReader
from gossip.errors import InvalidMessageError
from gossip.pinning import settling_set
from gossip.settlement import Settlement, verify_checkpoint

POLL_S = 0.5
HTTP_TIMEOUT_S = 2
STEPS_BACK_MAX = 16
CREDITED_HEAD = 4
_TRANSACTIONS_LOOKED_AT = 32


class ChainHistory(Protocol):
    """The part of the chain client that looks back."""

    async def account(self, address: Address, block: Block | None = None) -> Account: ...

    async def block_at(self, time_s: int) -> Block: ...

    async def block_by_seqno(self, seqno: int) -> Block: ...

    async def transactions(self, address: Address, count: int) -> list[TransactionSummary]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """A settlement on chain: when its epoch ended, when it landed, and how it came there."""

    settlement: Settlement
    pot: OpenEpoch
    settled_s: int
    certificate: bytes
    """Hash of the certificate: what the operators signed."""
    submitter: str | None
    """Agent, or address of a stranger; None if the transaction is not among the latest ones."""
    transaction: bytes | None

    @property
    def after_s(self) -> int:
        """From the epoch's end to its landing."""
        return self.settled_s - self.pot.end_s


class Onlooker:
    """What was seen so far. `say` is told what happens; `wallets` names the agents by address."""

    def __init__(
        self,
        chain: ChainHistory,
        reader: PoolReader,
        seats: Sequence[Seat],
        wallets: Mapping[Address, str],
        http: httpx.AsyncClient,
        say: Callable[[str], None],
    ) -> None:
        self._chain = chain
        self._reader = reader
        self._seats = seats
        self._wallets = wallets
        self._http = http
        self._say = say
        self.rewards: RewardsState | None = None
        self.pots: dict[int, OpenEpoch] = {}
        self.landings: dict[int, Landing] = {}
        self.statuses: dict[str, dict[str, Any]] = {}
        """The last answer of each agent that ever answered."""
        self.down: set[str] = set()
        """Agents that did not answer when they were last asked."""

    @property
    def settled_epoch(self) -> int:
        """The last epoch whose settlement was noted; 0 before the first. All before it were noted, too."""
        return len(self.landings)

    def has_caught_up(self, name: str) -> bool:
        """Whether this agent said that it adopted everything that was noted."""
        settled = self.statuses.get(name, {}).get("settled") or {}
        return name not in self.down and settled.get("adopted_epoch", 0) >= self.settled_epoch

    def has_worked(self, name: str) -> bool:
        """Whether this agent's log holds work that counts: the first windows began before the evidence did."""
        status = self.statuses.get(name)
        return status is not None and (status["work"]["head"] or 0) >= CREDITED_HEAD

    async def look(self) -> None:
        """Look at the rewards contract once, and note what settled since the last look.

        Raises:
            ContractsError: the chain does not answer.
            OperationError: the chain does not show an epoch open that it has settled.
        """
        self.rewards = rewards = await self._reader.rewards()
        for pot in rewards.open_epochs:
            if pot.epoch not in self.pots:
                self._say(f"epoch {pot.epoch} finalized, pot {pot.pot_nanoton / NANO:.3f} TON")
                self.pots[pot.epoch] = pot
        for landed in await self._landed_since(rewards.landed):
            settlement = await self._fetch_settlement(landed.payload_hash)
            if settlement is None:
                return  # no agent that answers has it yet
            await self._note(settlement, landed.settled_s)

    async def poll_agents(self) -> None:
        """Ask every agent for its status, for ever."""
        while True:
            errors = {error for status in self.statuses.values() for error in errors_of(status)}
            for seat in self._seats:
                status = await self._fetch_status(seat)
                if status is None:
                    self.down.add(seat.name)
                    continue
                self.down.discard(seat.name)
                self.statuses[seat.name] = status
                for error in errors_of(status):
                    if error not in errors:  # all agents meet the same chain: one of them tells of it
                        self._say(f"{seat.name}: {error}")
                        errors.add(error)
            await trio.sleep(POLL_S)

    async def _landed_since(self, newest: Landed) -> list[Landed]:
        """What landed after the last noted epoch, ascending; on the way back, the pots that were missed."""
        landed, found = newest, []
        while landed.epoch > self.settled_epoch:
            found.append(landed)
            if landed.epoch == self.settled_epoch + 1 and landed.epoch in self.pots:
                break
            before = await self._rewards_before(landed)
            for pot in before.open_epochs:
                self.pots.setdefault(pot.epoch, pot)
            landed = before.landed
        return found[::-1]

    async def _rewards_before(self, landed: Landed) -> RewardsState:
        """The rewards contract when `landed` was the next settlement to come: its epoch is open there."""
        block = await self._chain.block_at(landed.settled_s)
        for _ in range(STEPS_BACK_MAX):
            rewards = await self._reader.rewards(block)
            if any(pot.epoch == landed.epoch for pot in rewards.open_epochs):
                return rewards
            block = await self._chain.block_by_seqno(block.seqno - 1)
        raise OperationError(f"the chain does not show epoch {landed.epoch} open before it settled")

    async def _note(self, settlement: Settlement, settled_s: int) -> None:
        payload, pot, state = settlement.payload, self.pots[settlement.payload.epoch], await self._reader.state()
        operators = settling_set(pot, state, settled_s)
        assert operators is not None, "only operators settle"
        domain = CertificateDomain(global_id=GLOBAL_ID, pool=self._reader.pool, set_id=operators.set_id)
        sent = await self._submission(settled_s)
        submitter = None
        if sent is not None and sent.source is not None:
            submitter = self._wallets.get(sent.source, str(sent.source))
        landing = Landing(
            settlement=settlement,
            pot=pot,
            settled_s=settled_s,
            certificate=settle_certificate(domain, payload).hash,
            submitter=submitter,
            transaction=sent.hash if sent is not None else None,
        )
        self.landings[payload.epoch] = landing
        how = f", sent by {submitter} in transaction {sent.hash.hex()[:12]}" if sent is not None else ""
        root = payload.totals_root.hex()[:12]
        self._say(f"epoch {payload.epoch} settled {landing.after_s} s after its end, root {root}{how}")

    async def _submission(self, settled_s: int) -> TransactionSummary | None:
        """The transaction that brought what landed at `settled_s`: the last certificate that was taken by then."""
        for transaction in await self._chain.transactions(self._reader.pool, _TRANSACTIONS_LOOKED_AT):
            is_certificate = transaction.in_op == Op.POOL_SUBMIT_CERTIFICATE and not transaction.aborted
            if is_certificate and transaction.now_s <= settled_s:
                return transaction
        return None

    async def _fetch_status(self, seat: Seat) -> dict[str, Any] | None:
        try:
            response = await self._http.get(f"{seat.web}/-/status")
            status = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None
        return status if isinstance(status, dict) else None

    async def _fetch_settlement(self, payload_hash: bytes) -> Settlement | None:
        for seat in self._seats:
            try:
                response = await self._http.get(f"{seat.web}/-/checkpoint", params={"payload_hash": payload_hash.hex()})
                return verify_checkpoint(response.raise_for_status().content, payload_hash)
            except (httpx.HTTPError, InvalidMessageError):
                continue  # down, or not there yet: another agent has it
        return None


def errors_of(status: Mapping[str, Any]) -> list[str]:
    """What an agent says that it cannot do now: reach the chain, read its engine."""
    return [error for error in ((status["chain"] or {}).get("error"), status["work"]["error"]) if error]
