"""Accounts and transactions of the embedded chain as values, read from TON's own cells.

Untrusted input: what contract code made (state, messages). Anything that does not decode raises
`InvalidMessageError`.
Source: TON `crypto/block/block.tlb` (`ShardAccount`, `Account`, `Transaction`, `Message`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytoniq_core
from pytoniq_core import Builder, Cell, ExternalAddress, Slice
from pytoniq_core.tlb.account import ShardAccount
from pytoniq_core.tlb.transaction import MessageAny, Transaction

from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.errors import InvalidMessageError
from contracts.model import Address

Status = Literal["nonexist", "uninit", "active", "frozen"]

_STATUS: dict[str, Status] = {
    "account_uninit": "uninit",
    "account_active": "active",
    "account_frozen": "frozen",
}


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """A `ShardAccount` as a cell, and as a BoC of it: of a large account, neither is cheap to make."""

    cell: Cell
    boc: bytes

    @classmethod
    def from_boc(cls, boc: bytes) -> StoredAccount:
        """Raises `InvalidMessageError` if `boc` does not decode."""
        return cls(from_boc(boc), boc)

    @classmethod
    def from_cell(cls, cell: Cell) -> StoredAccount:
        return cls(cell, to_boc(cell))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """An account at some block. `code` and `data` stand only while it is active."""

    address: Address
    status: Status
    balance_nanoton: int
    code: Cell | None
    data: Cell | None
    last_lt: int
    last_hash: bytes

    @property
    def code_hash(self) -> bytes | None:
        return None if self.code is None else bytes(self.code.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutMessage:
    """A message that a transaction sent. `dest` is None for an external one (a log)."""

    cell: Cell
    dest: Address | None
    value_nanoton: int
    fwd_fee_nanoton: int
    bounce: bool
    bounced: bool
    body: Cell

    @property
    def op(self) -> int | None:
        return _op(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTransaction:
    """One transaction of one account.

    `exit_code` is None if no code ran; `action_code` is None if there was no action phase.
    `fees_nanoton` are the transaction's own (storage, gas, actions); what a message pays on its way is
    `OutMessage.fwd_fee_nanoton`.
    """

    address: Address
    cell: Cell
    lt: int
    now: int
    prev_lt: int
    exit_code: int | None
    action_code: int | None
    gas_used: int
    fees_nanoton: int
    aborted: bool
    destroyed: bool
    bounce: bool
    """A bounce phase sent the value back."""
    in_message: Cell | None
    in_source: Address | None
    in_value_nanoton: int
    in_op: int | None
    out_messages: tuple[OutMessage, ...]

    @property
    def hash(self) -> bytes:
        return bytes(self.cell.hash)

    @property
    def success(self) -> bool:
        return not self.aborted


def read_account(address: Address, shard_account: Cell | None) -> AccountState:
    """Read a `ShardAccount` cell; None stands for an account that was never touched."""
    if shard_account is None:
        return _nonexistent(address, 0, bytes(32))
    try:
        shard = ShardAccount.deserialize(shard_account.begin_parse())
    except Exception as error:
        raise InvalidMessageError(f"account {address}: {error!r:.120}") from error
    if shard.account is None:
        return _nonexistent(address, shard.last_trans_lt, shard.last_trans_hash)
    state = shard.account.storage.state
    active = state.type_ == "account_active"
    return AccountState(
        address=address,
        status=_STATUS[state.type_],
        balance_nanoton=shard.account.storage.balance.grams,
        code=state.state_init.code if active else None,
        data=state.state_init.data if active else None,
        last_lt=shard.last_trans_lt,
        last_hash=shard.last_trans_hash,
    )


def read_transaction(cell: Cell) -> AppliedTransaction:
    """Read a `Transaction` cell of workchain 0.

    Raises:
        InvalidMessageError: it does not decode.
    """
    try:
        return _read_transaction(cell)
    except Exception as error:
        raise InvalidMessageError(f"transaction: {error!r:.120}") from error


def _read_transaction(cell: Cell) -> AppliedTransaction:
    parsed = Transaction.deserialize(cell.begin_parse())
    messages: Slice = cell.refs[0].begin_parse()
    in_cell = messages.load_ref() if messages.load_bit() else None
    out_cells = messages.load_dict(15, value_deserializer=lambda s: s.load_ref()) or {}
    compute: Any = getattr(parsed.description, "compute_ph", None)
    ran = compute is not None and compute.type_ == "vm"
    action = getattr(parsed.description, "action", None)
    bounce = getattr(parsed.description, "bounce", None)
    in_info = parsed.in_msg.info if parsed.in_msg else None
    return AppliedTransaction(
        address=Address(0, parsed.account_addr),
        cell=cell,
        lt=parsed.lt,
        now=parsed.now,
        prev_lt=parsed.prev_trans_lt,
        exit_code=compute.exit_code if ran else None,
        action_code=action.result_code if action else None,
        gas_used=compute.gas_used if ran else 0,
        fees_nanoton=parsed.total_fees.grams,
        aborted=bool(parsed.description.aborted),
        destroyed=bool(getattr(parsed.description, "destroyed", False)),
        bounce=bounce is not None and bounce.type_ == "ok",
        in_message=in_cell,
        in_source=_address(getattr(in_info, "src", None)),
        in_value_nanoton=getattr(in_info, "value_coins", 0),
        in_op=_op(parsed.in_msg.body) if parsed.in_msg else None,
        out_messages=tuple(_read_out_message(out_cells[key]) for key in sorted(out_cells)),
    )


def _read_out_message(cell: Cell) -> OutMessage:
    message = MessageAny.deserialize(cell.begin_parse())
    internal = bool(message.is_internal)
    return OutMessage(
        cell=cell,
        dest=_address(message.info.dest) if internal else None,
        value_nanoton=message.info.value_coins if internal else 0,
        fwd_fee_nanoton=message.info.fwd_fee if internal else 0,
        bounce=internal and message.info.bounce,
        bounced=internal and message.info.bounced,
        body=message.body,
    )


def external_destination(message: Cell) -> Address:
    """Destination of an external inbound message.

    Raises:
        InvalidMessageError: it is not one, or not for an account of workchain 0.
    """
    try:
        parsed = MessageAny.deserialize(message.begin_parse())
        destination = _address(parsed.info.dest) if parsed.is_external else None
    except Exception as error:
        raise InvalidMessageError(f"external message: {error!r:.120}") from error
    if destination is None or destination.workchain != 0:
        raise InvalidMessageError("external message: no destination in workchain 0")
    return destination


def internal_message(
    *,
    source: Address,
    dest: Address,
    value_nanoton: int,
    body: Cell,
    state_init: Cell | None,
    bounce: bool,
    lt: int,
    now: int,
) -> Cell:
    """An internal message as if an account `source` had sent it (no forward fee was paid)."""
    builder = Builder().store_uint(0b01, 2).store_bit(bounce).store_bit(0)
    builder.store_address(to_pytoniq(source)).store_address(to_pytoniq(dest))
    builder.store_coins(value_nanoton).store_bit(0).store_coins(0).store_coins(0)
    builder.store_uint(lt, 64).store_uint(now, 32)
    if state_init is None:
        builder.store_bit(0)
    else:
        builder.store_uint(0b11, 2).store_ref(state_init)
    return builder.store_bit(1).store_ref(body).end_cell()


def absent_account() -> Cell:
    """The `ShardAccount` of an account that does not exist yet."""
    none = Builder().store_bit(0).end_cell()
    return Builder().store_ref(none).store_bytes(bytes(32)).store_uint(0, 64).end_cell()


def funded_account(address: Address, balance_nanoton: int, now: int) -> Cell:
    """The `ShardAccount` of an uninitialized account that holds `balance_nanoton`."""
    account = Builder().store_bit(1).store_address(to_pytoniq(address))
    account.store_var_uint(1, 3).store_var_uint(103, 3).store_uint(0, 3).store_uint(now, 32).store_bit(0)
    account.store_uint(0, 64).store_coins(balance_nanoton).store_bit(0).store_uint(0b00, 2)
    shard = Builder().store_ref(account.end_cell()).store_bytes(bytes(32)).store_uint(0, 64)
    return shard.end_cell()


def to_pytoniq(address: Address) -> pytoniq_core.Address:
    return pytoniq_core.Address((address.workchain, address.account))


def _nonexistent(address: Address, last_lt: int, last_hash: bytes) -> AccountState:
    return AccountState(
        address=address,
        status="nonexist",
        balance_nanoton=0,
        code=None,
        data=None,
        last_lt=last_lt,
        last_hash=last_hash,
    )


def _address(value: pytoniq_core.Address | ExternalAddress | None) -> Address | None:
    if isinstance(value, pytoniq_core.Address):
        return Address(value.wc, value.hash_part)
    return None


def _op(body: Cell) -> int | None:
    return int(body.begin_parse().load_uint(32)) if len(body.bits) >= 32 else None
