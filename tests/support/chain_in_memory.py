"""A chain, a pool and a wallet in memory, for the shells that follow the contracts and send to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import contract_states
from pool_fixture import EPOCH_S, POOL, START_S, operator_set, policy

from contracts.chain import Account, Block, TransactionSummary
from contracts.errors import ContractsError
from contracts.model import NANO, Address, OpenEpoch, Participant, PoolState, RewardsState
from contracts.wallet import OutMessage

POOL_ADDRESS = Address(0, POOL.account)


def rewards_state(**changes: Any) -> RewardsState:
    """A pool under set 1, and under `policy()`, since its first epoch began."""
    made = contract_states.rewards_state(POOL_ADDRESS, start_s=START_S, end_s=START_S + EPOCH_S)
    ours = contract_states.pinned(1, policy().hash)
    return replace(made, **{"running": ours, "next": ours, **changes})


@dataclass
class World:
    """A chain, a pool and a wallet at once: the parts that settling talks to."""

    now_s: int = START_S
    error: ContractsError | None = None
    pool_now: PoolState = field(default_factory=lambda: contract_states.pool_state(operator_set=operator_set(4)))
    state_now: RewardsState = field(default_factory=rewards_state)
    participants: dict[int, tuple[Participant, ...]] = field(default_factory=dict)
    """By the time from which on they are the registry's."""
    sent: list[OutMessage] = field(default_factory=list)
    refuses: ContractsError | None = None
    done: list[TransactionSummary] = field(default_factory=list)
    """What the contracts did with it, all of them alike: by `exit_code`, or nothing if it `is_lost`."""
    exit_code: int | None = 0
    is_lost: bool = False
    forgot: ContractsError | None = None
    """Raised for the registry of an open epoch."""
    balance_nanoton: int = 5 * NANO
    pool: Address = POOL_ADDRESS
    address: Address = field(default_factory=lambda: Address(0, b"w" * 32))
    global_id: int = POOL.network

    async def head(self) -> Block:
        if self.error is not None:
            raise self.error
        return self._block(self.now_s)

    async def block_at(self, time_s: int) -> Block:
        return self._block(time_s)

    @staticmethod
    def _block(time_s: int) -> Block:
        return Block(seqno=time_s - START_S + 1, root_hash=bytes(32), file_hash=bytes(32), time_s=time_s)

    async def account(self, _address: Address, _block: Block | None = None) -> Account:
        return Account(
            balance_nanoton=self.balance_nanoton,
            active=True,
            code_hash=None,
            data=None,
            last_lt=len(self.done),
            last_hash=bytes(32),
        )

    async def state(self, _block: Block | None = None) -> PoolState:
        return self.pool_now

    async def rewards(self, _block: Block | None = None) -> RewardsState:
        return self.state_now

    async def registry(self, block: Block | None = None) -> tuple[Participant, ...]:
        time_s = self.now_s if block is None else block.time_s
        return next(p for since, p in sorted(self.participants.items(), reverse=True) if since <= time_s)

    async def keep(self, open_epochs: Sequence[OpenEpoch]) -> None:
        """A `Registries` keeps here nothing: the chain forgets none."""

    async def of(self, epoch: OpenEpoch) -> tuple[Participant, ...]:
        if self.forgot is not None:
            raise self.forgot
        return await self.registry(self._block(epoch.finalized_s))

    async def transfer(self, messages: list[OutMessage]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent += messages
        self.done += [
            TransactionSummary(
                hash=bytes(32),
                lt=len(self.done) + 1,
                now_s=self.now_s,
                exit_code=self.exit_code,
                action_code=None,
                in_op=op_of(message),
                source=None,
                aborted=self.exit_code != 0,
                in_query_id=query_id_of(message),
            )
            for message in messages
            if not self.is_lost
        ]

    async def transactions(self, _address: Address, _count: int) -> list[TransactionSummary]:
        return self.done[::-1]


def op_of(message: OutMessage) -> int:
    assert message.body is not None
    return message.body.begin_parse().load_uint(32)


def opened(epoch: int, finalized_s: int, **pinned: Any) -> OpenEpoch:
    return contract_states.open_epoch(
        epoch,
        start_s=START_S,
        end_s=START_S + EPOCH_S,
        finalized_s=finalized_s,
        **{"policy_hash": policy().hash, **pinned},
    )


def query_id_of(message: OutMessage) -> int:
    assert message.body is not None
    body = message.body.begin_parse()
    body.load_uint(32)
    return body.load_uint(64)
