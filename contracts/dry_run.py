"""What a message would do, without sending it: it is run here, in TON's own emulator, on proven state.

Decides nothing about the pool; the contracts' own code does. Rules:
1. Every account is read at one block, proven; the blockchain's config (prices, limits, global id) is that
   block's, too.
2. Accounts that turn out to take part are read, and all is run again, until none is missing; at most
   `ROUNDS_MAX` times.
3. Time is the block's. What lands later may find another state: a forecast is no promise.
4. What leaves workchain 0 counts as delivered, and is not followed.

The message may be a signed transfer: it goes to the emulator and nowhere else.

Untrusted input: the accounts' code and data, which run in the emulator's sandbox (`devchain.emulator`).
Deliberately elsewhere: words for people (`agent.pool.forecast`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import trio
from pytoniq_core import Builder, Cell

from contracts.chain_values import Account, Block
from contracts.devchain.accounts import AppliedTransaction, StoredAccount, external_destination
from contracts.devchain.boc import from_boc
from contracts.devchain.ledger import EXTERNAL_BYTES_MAX, Ledger
from contracts.errors import ContractsError
from contracts.model import Address

ROUNDS_MAX = 5
_OK_EXITS = (None, 0, 1)


class ForecastError(ContractsError):
    """The message's effects spread over more accounts than are followed."""


class StateSource(Protocol):
    """The part of the chain client that a dry run needs."""

    async def account(self, address: Address, block: Block | None = None) -> Account: ...

    async def config(self, block: Block | None = None) -> Cell: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What would happen at `block`: every transaction in order, and the balances before and after (nanoTON)."""

    block: Block
    transactions: tuple[AppliedTransaction, ...]
    before: Mapping[Address, int]
    after: Mapping[Address, int]

    @property
    def refusal(self) -> AppliedTransaction | None:
        """The first transaction that failed; None if every one went well."""
        return next((each for each in self.transactions if is_refused(each)), None)

    @property
    def fees_nanoton(self) -> int:
        """What the network takes: storage, gas, actions, and forwarding of messages."""
        own = sum(each.fees_nanoton for each in self.transactions)
        return own + sum(out.fwd_fee_nanoton for each in self.transactions for out in each.out_messages if out.dest)


def is_refused(transaction: AppliedTransaction) -> bool:
    """Whether it failed: its code or an action did, or it bounced. An account without code just takes the value."""
    failed = transaction.exit_code not in _OK_EXITS or transaction.action_code not in (None, 0)
    return failed or transaction.bounce


async def dry_run(source: StateSource, message: bytes, block: Block, *, known: Iterable[Address] = ()) -> Forecast:
    """Run the external message (BoC) and all that follows from it on the state of `block`.

    `known` names accounts that will surely take part; it saves rounds.

    Raises:
        NotAcceptedError: its account does not accept the message.
        ForecastError: accounts are still missing after `ROUNDS_MAX` rounds.
        DevchainError: the emulator is missing, or cannot digest an account or a message.
        ChainUnavailableError, ChainConflictError: as the source raises them.
    """
    config = await source.config(block)
    wanted = {external_destination(from_boc(message, bytes_max=EXTERNAL_BYTES_MAX)), *known}
    accounts: dict[Address, Account] = {}
    for _ in range(ROUNDS_MAX):
        for address in sorted(wanted):
            accounts[address] = await source.account(address, block)
        ledger = _ledger(config, accounts, block.time_s)
        transactions = await trio.to_thread.run_sync(ledger.send_external, message)
        wanted = {each.address for each in transactions} - accounts.keys()
        if not wanted:
            return Forecast(
                block=block,
                transactions=tuple(transactions),
                before={address: account.balance_nanoton for address, account in accounts.items()},
                after={address: ledger.account(address).balance_nanoton for address in accounts},
            )
    raise ForecastError(f"the message reaches new accounts in each of {ROUNDS_MAX} rounds; it is not followed further")


def _ledger(config: Cell, accounts: Mapping[Address, Account], now_s: int) -> Ledger:
    """A ledger that holds these accounts, at this time."""
    ledger = Ledger(config, now=now_s)
    stored = {
        address.account: StoredAccount.from_cell(_shard_account(account.state, account))
        for address, account in accounts.items()
        if account.state is not None
    }
    ledger.restore(stored, lt=max((account.last_lt for account in accounts.values()), default=0))
    return ledger


def _shard_account(state: Cell, account: Account) -> Cell:
    """The account as a shard's state holds it (block.tlb `ShardAccount`)."""
    return Builder().store_ref(state).store_bytes(account.last_hash).store_uint(account.last_lt, 64).end_cell()
