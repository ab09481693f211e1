"""Reads a pool's three contracts from proven account state, and the operations that the agent sends to them.

Decides that an account is the contract that it should be (by code hash and by who points at whom) before
its storage is believed. Everything read is untrusted until proven by the chain client.

Source: CONTRACTS, "Must exist"; `contracts.layout` for the cells.
"""

from __future__ import annotations

from typing import Protocol

from pytoniq_core import Cell

from contracts import layout
from contracts.chain import Account, Block
from contracts.errors import ContractAbsentError
from contracts.layout import ContractName
from contracts.model import Address, Participant, PoolState, RegistryState, RewardsState


class AccountSource(Protocol):
    """The part of the chain client that a reader needs."""

    async def account(self, address: Address, block: Block | None = None) -> Account: ...


class PoolReader:
    """One pool, read through `chain`. Each call reads anew; `block` None is the latest finalized one."""

    def __init__(self, chain: AccountSource, pool: Address) -> None:
        self._chain = chain
        self.pool = pool
        self._children: PoolState | None = None

    async def state(self, block: Block | None = None) -> PoolState:
        """Read PoolOperator.

        Raises:
            ContractAbsentError: no initialised pool of this version stands at the address.
            ChainUnavailableError: no liteserver answered.
        """
        state = layout.read_pool(await self._data(self.pool, "pool_operator", block))
        self._children = state
        return state

    async def rewards(self, block: Block | None = None) -> RewardsState:
        """Read RewardDistribution. Raises as `state` does."""
        return layout.read_rewards(await self._data((await self._known()).rewards, "reward_distribution", block))

    async def registry(self, block: Block | None = None) -> tuple[Participant, ...]:
        """Read every entry of ParticipantRegistry, ascending by account. Raises as `state` does."""
        return (await self.registry_state(block)).participants

    async def registry_state(self, block: Block | None = None) -> RegistryState:
        """Read ParticipantRegistry. Raises as `state` does."""
        return layout.read_registry(await self.registry_data(block))

    async def registry_data(self, block: Block | None = None) -> Cell:
        """The storage of ParticipantRegistry as `layout.read_registry` takes it, to be kept. Raises as `state` does."""
        return await self._data((await self._known()).registry, "participant_registry", block)

    async def _known(self) -> PoolState:
        """The pool's state as first read: where its children stand never changes."""
        return self._children if self._children is not None else await self.state()

    async def _data(self, address: Address, name: ContractName, block: Block | None) -> Cell:
        account = await self._chain.account(address, block)
        if not account.active or account.data is None:
            raise ContractAbsentError(f"no {name.replace('_', ' ')} contract stands at {address}; is it deployed?")
        if account.code_hash != layout.code(name).hash:
            raise ContractAbsentError(f"{address} is not a {name.replace('_', ' ')} contract of this version")
        return account.data
