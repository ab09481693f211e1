"""The accounts of the embedded chain: messages in, transactions out. Synchronous, no clock, no socket.

    ledger = Ledger(now=1_700_000_000)
    ledger.fund(address, 10**12)
    ledger.send_external(boc)                        -> list[AppliedTransaction] (raises NotAcceptedError)
    ledger.send_internal(src, dst, value, body, state_init=None, bounce=True) -> list[AppliedTransaction]
    ledger.account(address)                          -> AccountState
    ledger.get_method(address, "name", [1, cell])    -> (exit_code, [values])
    ledger.advance(to_time)

Decides: order of messages (first in, first out, until no message is left), logical times, and which
accounts changed since the last `take_changes`. Time moves by `advance` only.

Untrusted input: external messages, and what contract code does. Rules:
1. An external message that its account does not accept changes nothing.
2. One call applies at most `MESSAGES_MAX` messages; what a runaway contract still sends is dropped.
3. An internal message that the emulator cannot digest, or that leaves workchain 0, is dropped with
   its value, and logged: the chain goes on.

Deliberately elsewhere: execution (`emulator`), blocks and proofs (`blocks`), disk (`storage`).
"""

from __future__ import annotations

import binascii
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytoniq_core import Cell
from pytoniq_core.tlb.vm_stack import VmStack

from contracts.devchain.accounts import (
    AccountState,
    AppliedTransaction,
    StoredAccount,
    absent_account,
    external_destination,
    funded_account,
    internal_message,
    read_account,
    read_transaction,
)
from contracts.devchain.boc import from_boc
from contracts.devchain.emulator import GetMethodResult, NotExecuted, TvmEmulator
from contracts.devchain.errors import (
    DevchainError,
    EmulatorTrapError,
    InvalidMessageError,
    NotAcceptedError,
)
from contracts.devchain.network import devnet_config
from contracts.errors import InvalidValueError
from contracts.model import Address, require_uint

MESSAGES_MAX = 4096
EXTERNAL_BYTES_MAX = 65535
NOT_ACTIVE = -256
"""Exit code of a get-method on an account without code, as liteservers report it."""

_ABSENT = StoredAccount.from_cell(absent_account())
_LT_STEP = 1000
"""Room for the messages of one transaction: it sends at most 255."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What happened since the last block: new accounts by hash, and transactions in order."""

    accounts: dict[bytes, StoredAccount]
    transactions: tuple[AppliedTransaction, ...]


class Ledger:
    """All accounts of workchain 0, and the emulator that moves them."""

    def __init__(self, config: Cell | None = None, *, now: int, emulator: TvmEmulator | None = None) -> None:
        """Args:
        config: root of the config dictionary; None: the devnet's (`network.devnet_config`).
        now: unix time in seconds.
        emulator: one of this config to use, from this thread alone; None: one of its own, made (0.3 s) when needed.
        """
        self._config = devnet_config() if config is None else config
        self._emulator = TvmEmulator(self._config) if emulator is None else emulator
        self._accounts: dict[bytes, StoredAccount] = {}
        self._changed: dict[bytes, StoredAccount] = {}
        self._transactions: list[AppliedTransaction] = []
        self.now = now
        self.lt = 0

    def warm_up(self) -> None:
        """Make the emulator ready, which the first message would do; raises `EmulatorUnavailableError`."""
        self._emulator.warm_up()

    def send_external(self, boc: bytes) -> list[AppliedTransaction]:
        """Deliver an external message, then every message that follows from it.

        Args: boc: bag of cells of an external inbound message, at most 65,535 bytes.
        Raises:
            InvalidMessageError: it does not decode, is too large or too deep.
            NotAcceptedError: the account did not accept it (nothing has changed).
            EmulatorTrapError: the emulator stopped on it (nothing has changed).
        """
        message = from_boc(boc, bytes_max=EXTERNAL_BYTES_MAX)
        address = external_destination(message)
        outcome = self._apply(address, message)
        if isinstance(outcome, NotExecuted):
            raise NotAcceptedError(outcome.reason, outcome.exit_code)
        return [outcome, *self._drain(outcome)]

    def send_internal(
        self,
        src: Address,
        dst: Address,
        value: int,
        body: Cell,
        state_init: Cell | None = None,
        bounce: bool = True,
    ) -> list[AppliedTransaction]:
        """Deliver an internal message that comes from nowhere (`src` pays nothing): for tests.

        Raises:
            InvalidMessageError: the emulator takes no such message.
        """
        require_uint("value", value, 120)
        message = internal_message(
            source=src,
            dest=dst,
            value_nanoton=value,
            body=body,
            state_init=state_init,
            bounce=bounce,
            lt=self.lt,
            now=self.now,
        )
        outcome = self._apply(dst, message)
        if isinstance(outcome, NotExecuted):
            raise InvalidMessageError(outcome.reason)
        return [outcome, *self._drain(outcome)]

    def fund(self, address: Address, nanoton: int) -> None:
        """Make an uninitialized account that holds `nanoton`: for the genesis, and for tests.

        Raises:
            InvalidValueError: the account exists already, or is not in workchain 0.
        """
        require_uint("nanoton", nanoton, 120)
        if address.workchain != 0 or address.account in self._accounts:
            raise InvalidValueError(f"cannot fund {address}: it exists, or is not in workchain 0")
        self._put(address.account, StoredAccount.from_cell(funded_account(address, nanoton, self.now)))

    def account(self, address: Address) -> AccountState:
        """The account as it is now."""
        stored = self._accounts.get(address.account)
        return read_account(address, None if stored is None else stored.cell)

    def get_method(self, address: Address, method: str | int, args: Sequence[Any] = ()) -> tuple[int, list[Any]]:
        """Run a get-method now; returns (exit code, result values), exit code -256 without code.

        Args: method: name, or number; args: ints, cells, slices as `pytoniq_core.VmStack` takes them.
        """
        stack = VmStack.serialize(list(args))
        result = self.get_method_at(self.account(address), method, stack, self.now)
        if result is None:
            return NOT_ACTIVE, []
        return result.exit_code, VmStack.deserialize(result.stack.begin_parse())

    def get_method_at(self, account: AccountState, method: str | int, stack: Cell, now: int) -> GetMethodResult | None:
        """Run a get-method of `account` as some block has it; None if it has no code."""
        if account.code is None or account.data is None:
            return None
        return self._emulator.run_get_method(
            address=account.address,
            code=account.code,
            data=account.data,
            balance=account.balance_nanoton,
            method_id=method if isinstance(method, int) else method_id(method),
            stack=stack,
            now=now,
        )

    def advance(self, to_time: int) -> None:
        """Move the time (unix seconds) forward; it never goes back."""
        if to_time < self.now:
            raise InvalidValueError(f"time goes forward only: {to_time} is before {self.now}")
        self.now = to_time

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    def take_changes(self) -> Changes:
        """What has happened since the last call: the content of the next block."""
        changes = Changes(accounts=self._changed, transactions=tuple(self._transactions))
        self._changed, self._transactions = {}, []
        return changes

    def restore(self, accounts: dict[bytes, StoredAccount], *, lt: int) -> None:
        """Take over accounts that were stored (by account hash), and their logical time."""
        self._accounts.update(accounts)
        self.lt = lt

    def _drain(self, first: AppliedTransaction) -> list[AppliedTransaction]:
        queue = deque(first.out_messages)
        applied: list[AppliedTransaction] = []
        while queue:
            message = queue.popleft()
            if message.dest is None:
                continue
            if message.dest.workchain != 0 or len(applied) >= MESSAGES_MAX:
                _log.warning("message to %s dropped: another workchain, or a runaway contract", message.dest)
                continue
            try:
                outcome = self._apply(message.dest, message.cell)
            except DevchainError as error:
                _log.warning("message to %s dropped: %s", message.dest, error)
                continue
            if isinstance(outcome, NotExecuted):
                _log.warning("message to %s dropped: %s", message.dest, outcome.reason)
                continue
            applied.append(outcome)
            queue.extend(outcome.out_messages)
        return applied

    def _apply(self, address: Address, message: Cell) -> AppliedTransaction | NotExecuted:
        lt = self.lt + _LT_STEP
        before = self._accounts.get(address.account, _ABSENT)
        seed = hashlib.sha256(b"devchain" + address.account + lt.to_bytes(8, "big")).digest()
        outcome = self._emulator.run_transaction(before, message, now=self.now, lt=lt, rand_seed=seed)
        if isinstance(outcome, NotExecuted):
            return outcome
        try:
            transaction = read_transaction(outcome.transaction)
            # The next block reads the account; what it could not read must not get that far.
            read_account(address, outcome.account.cell)
        except InvalidMessageError as error:
            raise EmulatorTrapError(str(error)) from error
        self.lt = lt
        self._put(address.account, outcome.account)
        self._transactions.append(transaction)
        return transaction

    def _put(self, account: bytes, stored: StoredAccount) -> None:
        self._accounts[account] = stored
        self._changed[account] = stored


def method_id(name: str) -> int:
    """Number of the get-method `name`: CRC-16/XMODEM with bit 16 set, as FunC and Tolk number them."""
    return binascii.crc_hqx(name.encode(), 0) & 0xFFFF | 0x10000
