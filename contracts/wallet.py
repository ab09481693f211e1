"""The agent's own wallet: its address, and transfers that land once or not at all.

Decides: the external message of a transfer, and when it counts as landed. Rules:
1. One transfer at a time. Its message carries the wallet's sequence number and expires `VALID_S` after
   the latest block; the contract takes a number once.
2. A transfer has landed when proven state shows a higher number. Until then the *same* message is
   sent again every `RESEND_BLOCKS` blocks.
3. A new message is signed only when the one before has landed or can land no more. So a caller that
   was cancelled or lost the chain may repeat the transfer: the same messages join the one in flight.
4. The balance is checked first: wallets skip what they cannot pay, and still use up the number.
5. Processes that share a wallet share a lock file, and transfer one after the other.

The seed is a secret: it appears in no error, `repr` or log.

Source: `wallet-contract-v5` (W5 specification), `wallet-contract` v4r2; code cells as pytoniq has them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytoniq_core
import trio
from nacl.signing import SigningKey
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq.contract.wallets.wallet_v5 import WALLET_V5_R1_CODE
from pytoniq_core import Builder, Cell

from contracts.chain import Account, Block, Chain
from contracts.errors import (
    ChainUnavailableError,
    InvalidCellError,
    InvalidValueError,
    MessageRefusedError,
    TransferExpiredError,
    WalletBusyError,
)
from contracts.model import Address, require_bytes, require_uint

VALID_S = 60
SETTLE_S = 15
"""How long after its expiry a message may still show up: in a shard block that is not yet in a masterchain block."""
RESEND_BLOCKS = 5
BLOCK_WAIT_S = 30
LOCK_POLL_S = 0.2
FEES_RESERVE_NANOTON = 20_000_000
"""What a transfer must leave in the wallet for its own fees."""
MESSAGES_MAX = {"v4r2": 4, "v5r1": 255}

_EXTERNAL_BYTES_MAX = 65535
_V4_SUBWALLET = 698983191
_V5_SIGNED_EXTERNAL = 0x7369676E
_SEND_MESSAGE_ACTION = 0x0EC3C86D
_SEND_MODE = 3
"""Pay fees from the wallet, skip what fails: v5 accepts nothing without the latter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutMessage:
    """An internal message to send. `state_init` is a `StateInit` cell that deploys `dest`."""

    dest: Address
    value_nanoton: int
    body: Cell | None
    """None: a plain payment."""
    bounce: bool = True
    state_init: Cell | None = None

    def __post_init__(self) -> None:
        require_uint("value_nanoton", self.value_nanoton, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFlight:
    """A signed message that may still land."""

    seqno: int
    valid_until_s: int
    content: bytes
    boc: bytes = field(repr=False)


class Wallet:
    """A wallet contract of one key. Safe for concurrent transfers: they wait for each other."""

    def __init__(
        self, chain: Chain, seed: bytes, version: str = "v5r1", *, global_id: int, lock_file: Path | None = None
    ) -> None:
        """Args: seed: Ed25519 seed, 32 bytes; version: `v5r1` or `v4r2`; global_id: the network's; lock_file:
        locked for the length of a transfer by every process that uses this wallet (rule 5).

        Raises:
            InvalidValueError: an argument is out of range (the seed is not shown).
        """
        if type(seed) is not bytes or len(seed) != 32:
            raise InvalidValueError("seed: expected 32 bytes")
        self._chain = chain
        self._key = SigningKey(seed)
        self._version = version
        self.global_id = global_id
        self._state_init = wallet_state_init(bytes(self._key.verify_key), version, global_id=global_id)
        self._lock = trio.Lock()
        self._lock_file = lock_file
        self._in_flight: _InFlight | None = None
        self.address = Address(0, bytes(self._state_init.hash))

    def __repr__(self) -> str:
        return f"<Wallet {self._version} {self.address}>"

    async def transfer(self, messages: Sequence[OutMessage]) -> None:
        """Send `messages` in one transaction of the wallet; return when it has landed.

        The wallet is deployed with its first transfer. That the wallet sent the messages does not mean
        that their receivers accepted them. After a cancellation or `ChainUnavailableError` the outcome is open:
        calling again with the same messages joins the transfer in flight, if it still is.

        Raises:
            InvalidValueError: no message, or more than the wallet takes at once.
            MessageRefusedError: the balance does not suffice, or the wallet refuses the message.
            TransferExpiredError: it did not land in time and never will: it may be sent anew.
            ChainUnavailableError, ChainConflictError: as `Chain` raises them.
        """
        if not 1 <= len(messages) <= MESSAGES_MAX[self._version]:
            raise InvalidValueError(f"messages: expected 1 to {MESSAGES_MAX[self._version]}, got {len(messages)}")
        content = b"".join(bytes(_internal(message).hash) for message in messages)
        async with self._lock, self._alone():
            flying = self._in_flight
            if flying is not None:
                landed = await self._conclude(flying)
                if landed and flying.content == content:
                    return
            flying = await self._sign(messages, content)
            self._in_flight = flying
            await self._send_first(flying)
            if not await self._conclude(flying):
                raise TransferExpiredError(f"wallet {self.address}: transfer {flying.seqno} did not land in time")

    async def rehearsal(self, messages: Sequence[OutMessage]) -> bytes:
        """The external message that `transfer` would send now, as a BoC, to be emulated; nothing is sent.

        It is a valid transfer while it has not expired: it must not leave this process. Raises as `transfer` does.
        """
        return (await self._sign(messages, b"")).boc

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock file: another process's transfer must not be taken for this one's."""
        if self._lock_file is None:
            yield
            return
        try:
            file = self._lock_file.open("ab")
            if os.geteuid() == 0:  # a command of root's must not lock the agent's own user out
                folder = self._lock_file.parent.stat()
                os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
        except OSError as error:
            raise WalletBusyError(f"{self._lock_file}: the wallet's lock: {error.strerror}") from error
        with file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await trio.sleep(LOCK_POLL_S)
            yield

    async def _sign(self, messages: Sequence[OutMessage], content: bytes) -> _InFlight:
        block = await self._chain.head()
        account = await self._chain.account(self.address, block)
        needed = sum(message.value_nanoton for message in messages) + FEES_RESERVE_NANOTON
        if account.balance_nanoton < needed:
            raise MessageRefusedError(
                f"wallet {self.address}: the balance of {account.balance_nanoton} nanoton is less than the "
                f"{needed} that the transfer needs with fees; top it up"
            )
        seqno = self._seqno(account)
        valid_until_s = block.time_s + VALID_S
        external = self._external(messages, seqno, valid_until_s, deploy=not account.active)
        if len(external) > _EXTERNAL_BYTES_MAX:
            raise InvalidValueError(f"messages: {len(external)} bytes are more than {_EXTERNAL_BYTES_MAX}")
        return _InFlight(seqno=seqno, valid_until_s=valid_until_s, content=content, boc=external)

    async def _send_first(self, flying: _InFlight) -> None:
        """Send; a refusal counts unless the message landed all the same (through another server)."""
        try:
            await self._chain.send(flying.boc)
        except MessageRefusedError:
            block = await self._chain.head()
            block = await self._chain.wait_next(block.seqno, BLOCK_WAIT_S)
            if not await self._landed(flying, block):
                self._in_flight = None
                raise

    async def _conclude(self, flying: _InFlight) -> bool:
        """Wait until `flying` has landed (True) or can land no more (False); send it again meanwhile."""
        block, seen = await self._chain.head(), 0
        while not await self._landed(flying, block):
            if block.time_s > flying.valid_until_s + SETTLE_S:
                self._in_flight = None
                return False
            block, seen = await self._chain.wait_next(block.seqno, BLOCK_WAIT_S), seen + 1
            if seen % RESEND_BLOCKS == 0 and block.time_s < flying.valid_until_s:
                await self._send_again(flying)
        self._in_flight = None
        return True

    async def _send_again(self, flying: _InFlight) -> None:
        try:
            await self._chain.send(flying.boc)
        except (MessageRefusedError, ChainUnavailableError):
            # It may have landed a moment ago; only what proven state shows counts.
            return

    async def _landed(self, flying: _InFlight, block: Block) -> bool:
        account = await self._chain.account(self.address, block)
        return self._seqno(account) > flying.seqno

    def _seqno(self, account: Account) -> int:
        """The wallet's next number; 0 before it is deployed."""
        if not account.active or account.data is None:
            return 0
        data = account.data.begin_parse()
        try:
            if self._version == "v5r1":
                data.load_bit()
            return int(data.load_uint(32))
        except Exception as error:
            raise InvalidCellError(f"wallet {self.address}: unreadable data") from error

    def _external(self, messages: Sequence[OutMessage], seqno: int, valid_until_s: int, *, deploy: bool) -> bytes:
        cells = [_internal(message) for message in messages]
        if self._version == "v5r1":
            body = self._signed_v5(cells, seqno, valid_until_s)
        else:
            body = self._signed_v4(cells, seqno, valid_until_s)
        builder = Builder().store_uint(0b10, 2).store_uint(0, 2).store_address(_raw(self.address)).store_coins(0)
        if deploy:
            builder.store_uint(0b11, 2).store_ref(self._state_init)
        else:
            builder.store_bit(0)
        return bytes(builder.store_bit(1).store_ref(body).end_cell().to_boc())

    def _signed_v5(self, cells: Sequence[Cell], seqno: int, valid_until_s: int) -> Cell:
        actions = Cell.empty()
        for cell in cells:
            action = Builder().store_ref(actions).store_uint(_SEND_MESSAGE_ACTION, 32)
            actions = action.store_uint(_SEND_MODE, 8).store_ref(cell).end_cell()
        request = Builder().store_uint(_V5_SIGNED_EXTERNAL, 32).store_uint(_wallet_id(self.global_id), 32)
        request.store_uint(valid_until_s, 32).store_uint(seqno, 32)
        request.store_bit(1).store_ref(actions).store_bit(0)
        signature = self._key.sign(request.end_cell().hash).signature
        return request.store_bytes(signature).end_cell()

    def _signed_v4(self, cells: Sequence[Cell], seqno: int, valid_until_s: int) -> Cell:
        request = Builder().store_uint(_V4_SUBWALLET, 32).store_uint(valid_until_s, 32).store_uint(seqno, 32)
        request.store_uint(0, 8)
        for cell in cells:
            request.store_uint(_SEND_MODE, 8).store_ref(cell)
        signed = request.end_cell()
        return Builder().store_bytes(self._key.sign(signed.hash).signature).store_cell(signed).end_cell()


def wallet_address(public_key: bytes, version: str = "v5r1", *, global_id: int) -> Address:
    """Address of the wallet of `public_key` (Ed25519, 32 bytes) in workchain 0. Needs no chain."""
    return Address(0, bytes(wallet_state_init(public_key, version, global_id=global_id).hash))


def wallet_state_init(public_key: bytes, version: str, *, global_id: int) -> Cell:
    """The `StateInit` cell that deploys the wallet; its hash is the address.

    Raises:
        InvalidValueError: unknown version, or not 32 bytes of key.
    """
    require_bytes("public_key", public_key, 32)
    data = Builder()
    if version == "v5r1":
        code = WALLET_V5_R1_CODE
        data.store_bit(1).store_uint(0, 32).store_uint(_wallet_id(global_id), 32)
    elif version == "v4r2":
        code = WALLET_V4_R2_CODE
        data.store_uint(0, 32).store_uint(_V4_SUBWALLET, 32)
    else:
        raise InvalidValueError(f"wallet version: expected v5r1 or v4r2, got {version!r}")
    data.store_bytes(public_key).store_bit(0)
    return Builder().store_uint(0b00110, 5).store_ref(code).store_ref(data.end_cell()).end_cell()


def _wallet_id(global_id: int) -> int:
    """W5's wallet id: the network's id and the default context (workchain 0, version 0, subwallet 0)."""
    return (1 << 31 ^ global_id) & 0xFFFFFFFF


def _internal(message: OutMessage) -> Cell:
    builder = Builder().store_uint(0b01, 2).store_bit(message.bounce).store_bit(0).store_uint(0, 2)
    builder.store_address(_raw(message.dest)).store_coins(message.value_nanoton)
    builder.store_bit(0).store_coins(0).store_coins(0).store_uint(0, 64 + 32)
    if message.state_init is None:
        builder.store_bit(0)
    else:
        builder.store_uint(0b11, 2).store_ref(message.state_init)
    if message.body is None:
        return builder.store_bit(0).end_cell()
    return builder.store_bit(1).store_ref(message.body).end_cell()


def _raw(address: Address) -> pytoniq_core.Address:
    return pytoniq_core.Address((address.workchain, address.account))
