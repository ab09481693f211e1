"""Watches a dev network from outside: the contracts on chain, and what the agents say of themselves.

It trusts no agent: a settlement counts when it hashes to what the chain took.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import trio

from agent.devnet.layout import Seat
from contracts.chain import Chain
from contracts.model import NANO, Address, OpenEpoch, RewardsState
from contracts.opcodes import Op
from contracts.reader import PoolReader
from gossip.errors import InvalidMessageError
from gossip.settlement import Settlement, verify_checkpoint

POLL_S = 0.5
_TIMEOUT_S = 2
_TRANSACTIONS_LOOKED_AT = 10


class Onlooker:
    """What was seen so far. `say` is told what happens; `wallets` names the agents by address."""

    def __init__(
        self,
        chain: Chain,
        reader: PoolReader,
        seats: Sequence[Seat],
        wallets: Mapping[Address, str],
        say: Callable[[str], None],
    ) -> None:
        self._chain = chain
        self._reader = reader
        self._seats = seats
        self._wallets = wallets
        self._say = say
        self.rewards: RewardsState | None = None
        self.pots: dict[int, OpenEpoch] = {}
        self.settlements: dict[int, Settlement] = {}
        self.landed_after_s: dict[int, int] = {}
        """From an epoch's end to its landing, by epoch."""
        self.statuses: dict[str, dict[str, Any] | None] = {}
        """By agent; None while it does not answer."""

    @property
    def settled_epoch(self) -> int:
        """The last epoch whose settlement was seen; 0 before the first."""
        return max(self.settlements, default=0)

    async def look(self) -> None:
        """Look at the rewards contract once. Raises `ContractsError` if the chain does not answer."""
        self.rewards = rewards = await self._reader.rewards()
        for epoch in rewards.open_epochs:
            if epoch.epoch not in self.pots:
                self.pots[epoch.epoch] = epoch
                self._say(f"epoch {epoch.epoch} finalized, pot {epoch.pot_nanoton / NANO:.3f} TON")
        if rewards.landed.epoch > self.settled_epoch:
            settlement = await self._fetch_settlement(rewards.landed.payload_hash)
            if settlement is not None:
                await self._note(settlement, rewards.landed.settled_s)

    async def poll_agents(self) -> None:
        """Ask every agent for its status, for ever."""
        async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S) as client:
            while True:
                for seat in self._seats:
                    try:
                        response = await client.get(f"http://127.0.0.1:{seat.web_port}/-/status")
                        self.statuses[seat.name] = response.json()
                    except (httpx.HTTPError, ValueError):
                        self.statuses[seat.name] = None
                await trio.sleep(POLL_S)

    async def _note(self, settlement: Settlement, settled_s: int) -> None:
        payload = settlement.payload
        took_s = settled_s - self.pots[payload.epoch].end_s
        self.settlements[payload.epoch], self.landed_after_s[payload.epoch] = settlement, took_s
        sent = ""
        for transaction in await self._chain.transactions(self._reader.pool, _TRANSACTIONS_LOOKED_AT):
            sender = self._wallets.get(transaction.source) if transaction.source is not None else None
            if transaction.in_op == Op.POOL_SUBMIT_CERTIFICATE and sender is not None:
                sent = f", sent by {sender} in transaction {transaction.hash.hex()[:12]}"
                break
        root = payload.totals_root.hex()[:12]
        self._say(f"epoch {payload.epoch} settled {took_s} s after its end, root {root}{sent}")

    async def _fetch_settlement(self, payload_hash: bytes) -> Settlement | None:
        async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S) as client:
            for seat in self._seats:
                try:
                    response = await client.get(f"http://127.0.0.1:{seat.web_port}/-/checkpoint")
                    if response.status_code == httpx.codes.OK:
                        return verify_checkpoint(response.content, payload_hash)
                except (httpx.HTTPError, InvalidMessageError):
                    continue  # down, or not there yet: another agent has it
        return None
