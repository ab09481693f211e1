"""Following a message through the pool's contracts: which of them took it, and which refused it, and why.

1. A message carries a query id of its own, which the contracts pass on. So each contract's transactions tell
   which of them this message caused; they are proven by the chain client.
2. A contract that refuses ends the way at once, with the refusal's name and meaning.
"""

from __future__ import annotations

import os

from agent.errors import OperationError
from contracts.chain import Chain, TransactionSummary
from contracts.model import Address
from contracts.opcodes import describe_exit, explain_exit

TRANSACTIONS_PER_LOOK = 64


def new_query_id() -> int:
    """A number that no other message of this pool has, but by a chance of 2^-64."""
    return int.from_bytes(os.urandom(8), "big")


class Trace:
    """The transactions of some contracts that one query id caused, from `begin` on."""

    def __init__(self, chain: Chain, contracts: dict[Address, str], query_id: int) -> None:
        self._chain = chain
        self._contracts = contracts
        self._query_id = query_id
        self._seen: dict[Address, int] = {}
        self._taken: dict[Address, TransactionSummary] = {}

    async def begin(self) -> None:
        """Note how far each contract is; what it did before is not looked at."""
        for address in self._contracts:
            self._seen[address] = (await self._chain.account(address)).last_lt

    async def is_taken_by(self, contract: Address) -> bool:
        """Whether this contract took the message, or what followed from it.

        Raises: as `taken_by`.
        """
        return await self.taken_by(contract) is not None

    async def taken_by(self, contract: Address) -> TransactionSummary | None:
        """The transaction by which this contract took the message, or what followed from it; None if it did not yet.

        Raises:
            RefusedError: one of the contracts refused.
            OperationError: what reached one of them did not pay for running it.
            ContractsError: the chain does not answer.
        """
        for address, name in self._contracts.items():
            for transaction in await self._new_ones(address):
                if transaction.in_query_id == self._query_id:
                    require_taken(transaction, name)
                    self._taken.setdefault(address, transaction)
        return self._taken.get(contract)

    async def _new_ones(self, address: Address) -> list[TransactionSummary]:
        """What the contract did since the last look, oldest first."""
        seen = self._seen[address]
        if (await self._chain.account(address)).last_lt <= seen:
            return []
        found = await self._chain.transactions(address, TRANSACTIONS_PER_LOOK)
        new = [transaction for transaction in reversed(found) if transaction.lt > seen]
        if new:
            self._seen[address] = new[-1].lt
        return new


class RefusedError(OperationError):
    """A contract of the pool refused the message: the text names contract, refusal and meaning."""

    def __init__(self, contract: str, exit_code: int) -> None:
        super().__init__(f"the {contract} refused: {describe_exit(exit_code)} ({exit_code}): {explain_exit(exit_code)}")
        self.exit_code = exit_code


def require_taken(transaction: TransactionSummary, contract: str) -> None:
    """Return if the contract of this name took the message.

    Raises:
        RefusedError: it refused. OperationError: it could not run.
    """
    if not transaction.aborted:
        return
    if transaction.exit_code not in (None, 0, 1):
        raise RefusedError(contract, transaction.exit_code)
    if transaction.action_code:
        raise RefusedError(contract, transaction.action_code)
    raise OperationError(f"the {contract} did not run: the message brought too little for its gas")
