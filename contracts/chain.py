"""The chain as the agent sees it, through one or several liteservers. With `chain_servers` the sole
importer of pytoniq's networking.

Decides: which server is asked, when a connection is given up and tried again, and that no answer is
used before it is believed (`chain_proofs`).

Untrusted input: every answer. Rules:
1. A call ends within `timeout_s` per server, with an answer or a typed error.
2. A connection that fails is dropped, and that server is left alone for a while that doubles each
   time, up to `BACKOFF_S_MAX`; meanwhile the others are asked. The first call after it connects anew.
3. A server whose proof does not hold is left alone for `LIE_S`; if no other one answers, the call
   raises `ChainConflictError`.
4. An address that somebody else chose is read by `foreign_account` alone: what stands there blames no server, and
   costs little to look at.

pytoniq runs in a loop of its own (`loop_thread`), its connections stand in `chain_servers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytoniq_core
import trio
from pytoniq import LiteClient
from pytoniq.liteclient.client import LiteServerError
from pytoniq_core import Builder, Cell
from pytoniq_core.tlb.vm_stack import VmStack

from contracts.chain_kept import KeptAccount, KeptHeader, KeptLink
from contracts.chain_proofs import read_account, read_config, read_header, read_transactions
from contracts.chain_servers import Ask, Connection, Servers, close_all
from contracts.chain_values import (
    Account,
    Block,
    LiteServer,
    ServersStanding,
    TransactionSummary,
    account_id,
    block_lookup,
)
from contracts.errors import (
    ChainConflictError,
    ChainUnavailableError,
    ContractAbsentError,
    GetMethodFailedError,
    InvalidValueError,
    MessageRefusedError,
)
from contracts.loop_thread import LoopThread, open_loop_thread
from contracts.model import Address

__all__ = ["Account", "Block", "Chain", "LiteServer", "TransactionSummary", "open_chain"]

STEPS_MAX = 256
"""How many blocks `block_at` walks from where the server's own lookup lands."""
FOREIGN_STATE_BYTES_MAX = 16 * 1024
"""Of an account that somebody else chose. 65,536 cells, the most that one can have, take six seconds to parse."""

_TRANSACTIONS_PER_QUERY = 16
_NOT_ACTIVE = (-256, -13)
_WAIT_TIMEOUT = 652
_REFUSAL = "cannot apply external message"
_T = TypeVar("_T")


@asynccontextmanager
async def open_chain(
    servers: Sequence[LiteServer], *, trust_level: int = 1, timeout_s: float = 5
) -> AsyncIterator[Chain]:
    """Open the client; servers are connected when a call needs one.

    Args:
        trust_level: 1: everything is proven down from the masterchain block that the server names;
            2: the shard block is the server's word as well. timeout_s: per call and server, 0.1 to 9.
    Raises:
        InvalidValueError: no server, or an argument out of range.
    """
    if not servers:
        raise InvalidValueError("liteservers: at least one is needed")
    if trust_level not in (1, 2):
        raise InvalidValueError(f"trust_level: expected 1 or 2, got {trust_level!r}")
    if not 0.1 <= timeout_s <= 9:
        # pytoniq's own poll asks the server to wait 10 s; a longer client timeout would end it.
        raise InvalidValueError(f"timeout_s: expected 0.1 to 9 seconds, got {timeout_s!r}")
    async with open_loop_thread("liteclient") as thread:
        connections = [Connection(server, timeout_s) for server in servers]
        try:
            yield Chain(Servers(connections), thread, trust_level, timeout_s)
        finally:
            with trio.CancelScope(shield=True):
                await thread.run(lambda: close_all(connections))


class Chain:
    """Proven reads and external messages. Safe for concurrent calls. Made by `open_chain`.

    Every call may raise `ChainUnavailableError` (no server answered in time) and `ChainConflictError`
    (a server's proof does not hold); cancelling one leaves nothing behind.
    """

    def __init__(self, servers: Servers, thread: LoopThread, trust_level: int, timeout_s: float) -> None:
        self._servers = servers
        self._thread = thread
        self._trust_level = trust_level
        self._timeout_s = timeout_s
        self._head: Block | None = None

    def servers(self) -> ServersStanding:
        """How the liteservers stand, as the last calls found them; asks none."""
        return self._servers.standing()

    async def head(self) -> Block:
        """The latest masterchain block: never an older one than any call has seen before."""

        async def ask(client: LiteClient) -> Block:
            last = (await client.liteserver_request("getMasterchainInfo", {}))["last"]
            known = self._head
            if known is not None:
                if last["seqno"] < known.seqno:
                    raise ChainUnavailableError(f"a liteserver is behind: at {last['seqno']} of {known.seqno}")
                if last["seqno"] == known.seqno and last["root_hash"] == known.root_hash.hex():
                    return known
                if last["seqno"] == known.seqno:
                    raise ChainConflictError(f"liteservers disagree on block {known.seqno}")
            header = await client.liteserver_request("getBlockHeader", {"id": last, "mode": 0})
            return read_header(header, seqno=last["seqno"])

        return self._newest(await self._ask(ask))

    async def wait_next(self, seqno: int, timeout_s: float) -> Block:
        """The block after `seqno`, as soon as there is one; `ChainUnavailableError` after `timeout_s`."""
        slice_s = self._timeout_s / 2

        async def ask(client: LiteClient) -> Block | None:
            lookup = client.schemas.serialize(
                client.schemas.get_by_name("liteServer.lookupBlock"), block_lookup(1, seqno + 1)
            )
            try:
                answer = await client.raw_wait_masterchain_seqno(seqno + 1, int(slice_s * 1000), lookup)
            except LiteServerError as error:
                if error.code == _WAIT_TIMEOUT:
                    return None
                raise
            return read_header(answer, seqno=seqno + 1)

        with trio.move_on_after(timeout_s):
            while True:
                block = await self._ask(ask)
                if block is not None:
                    self._newest(block)
                    return block
        raise ChainUnavailableError(f"no block after {seqno} within {timeout_s:g} s")

    async def block_by_seqno(self, seqno: int) -> Block:
        """The masterchain block number `seqno`."""
        return await self._ask(lambda client: _look_up(client, block_lookup(1, seqno), seqno))

    async def block_at(self, time_s: int) -> Block:
        """The first masterchain block that was made at `time_s` (unix seconds) or later.

        The same on every node, whatever a server's lookup by time means exactly: it is only where the
        search starts. Raises `ChainUnavailableError` while there is no such block yet.
        """
        head = await self.head()
        if head.time_s < time_s:
            raise ChainUnavailableError(f"no block of {time_s} yet: the latest is of {head.time_s}")
        block = await self._ask(lambda client: _look_up(client, block_lookup(4, -1, utime=time_s)))
        for _ in range(STEPS_MAX):
            if block.time_s < time_s:
                block = await self.block_by_seqno(block.seqno + 1)
                if block.time_s >= time_s:
                    return block
            elif block.seqno <= 1:
                return block
            else:
                before = await self.block_by_seqno(block.seqno - 1)
                if before.time_s < time_s:
                    return block
                block = before
        raise ChainUnavailableError(f"the lookup of {time_s} landed more than {STEPS_MAX} blocks away")

    async def account(self, address: Address, block: Block | None = None) -> Account:
        """The account at `block` (None: the latest), proven; inactive and empty if there is none.

        Raises `InvalidValueError`, before anybody is asked, for an address of an unknown workchain.
        """
        return await self._account(address, block)

    async def foreign_account(self, address: Address, block: Block | None = None) -> Account:
        """As `account`, for an address that somebody else chose.

        Raises:
            InvalidValueError: there is no such workchain; nobody was asked.
            UnreadableStateError: its state is longer than `FOREIGN_STATE_BYTES_MAX`, or no server shows one that
                decodes to the proven one.
        """
        return await self._account(address, block, FOREIGN_STATE_BYTES_MAX)

    async def _account(self, address: Address, block: Block | None, state_bytes_max: int | None = None) -> Account:
        account = account_id(address)
        at = await self.head() if block is None else block

        async def ask(client: LiteClient) -> Account:
            answer = await client.liteserver_request("getAccountState", {"id": at.to_tl(), "account": account})
            return read_account(answer, address, at, trust_level=self._trust_level, state_bytes_max=state_bytes_max)

        return await self._ask(ask)

    async def kept_account(self, address: Address, block: Block) -> KeptAccount:
        """The account at `block` with all that proves it, to be believed again elsewhere (at trust level 1)."""
        query = {"id": block.to_tl(), "account": account_id(address)}

        async def ask(client: LiteClient) -> KeptAccount:
            kept = KeptAccount.of(await client.liteserver_request("getAccountState", query), address, block)
            kept.believe(block)
            return kept

        return await self._ask(ask)

    async def kept_header(self, block: Block) -> KeptHeader:
        """The header of `block` with its proof, to be believed again elsewhere."""

        async def ask(client: LiteClient) -> KeptHeader:
            query = {"id": block.to_tl(), "mode": 0}
            kept = KeptHeader.of(await client.liteserver_request("getBlockHeader", query))
            if kept.believe()[0] != block:
                raise ChainConflictError(f"block header: of another block than {block.seqno}")
            return kept

        return await self._ask(ask)

    async def kept_link(self, source: Block, target: Block) -> KeptLink:
        """What shows that `target` is an earlier masterchain block than `source`, to be believed again elsewhere."""
        query = {"mode": 1, "known_block": source.to_tl(), "target_block": target.to_tl()}

        async def ask(client: LiteClient) -> KeptLink:
            kept = KeptLink.of(await client.liteserver_request("getBlockProof", query), source, target)
            if kept.believe(source) != target.root_hash:
                raise ChainConflictError(f"block {target.seqno}: another one stands before block {source.seqno}")
            return kept

        return await self._ask(ask)

    async def config(self, block: Block | None = None) -> Cell:
        """The blockchain's config at `block` (None: the latest), proven: root of `Hashmap 32 ^Cell`."""
        at = await self.head() if block is None else block
        query = {"mode": 0, "id": at.to_tl()}

        async def ask(client: LiteClient) -> Cell:
            return read_config(await client.liteserver_request("getConfigAll", query), at)

        return await self._ask(ask)

    async def get_method(
        self, address: Address, name: str, args: Sequence[Any] = (), block: Block | None = None
    ) -> list[Any]:
        """Run a get-method over there: the server's word, not proven. For display and tests.

        Args: args: ints, cells, addresses. Returns the stack's values, last one on top.
        Raises:
            ContractAbsentError: no code stands at the address.
            GetMethodFailedError: the method ended with an exit code other than 0.
        """
        at = await self.head() if block is None else block
        method = pytoniq_core.crypto.crc.crc16(name.encode())
        query = {
            "mode": 4,
            "id": at.to_tl(),
            "account": account_id(address),
            "method_id": (int.from_bytes(method, "big") & 0xFFFF) | 0x10000,
            "params": VmStack.serialize([_stack_value(arg) for arg in args]).to_boc(),
        }
        answer = await self._request("runSmcMethod", query)
        exit_code = answer["exit_code"]
        if exit_code in _NOT_ACTIVE:
            raise ContractAbsentError(f"no contract stands at {address}")
        if exit_code != 0:
            raise GetMethodFailedError(f"{name} of {address}", exit_code)
        try:
            return list(VmStack.deserialize(Cell.one_from_boc(answer["result"]).begin_parse()))
        except Exception as error:
            raise ChainConflictError(f"{name} of {address}: unreadable result: {error!r:.120}") from error

    async def send(self, boc: bytes) -> None:
        """Hand over an external message. Returning means that a server took it, not that it landed.

        Raises:
            MessageRefusedError: its account does not accept it.
        """

        async def ask(client: LiteClient) -> None:
            try:
                await client.raw_send_message(boc)
            except LiteServerError as error:
                if _REFUSAL in error.message:
                    raise MessageRefusedError(error.message[:300]) from error
                raise

        await self._ask(ask)

    async def transactions(self, address: Address, count: int, block: Block | None = None) -> list[TransactionSummary]:
        """Up to `count` transactions of `address` as of `block` (None: the latest), newest first.

        As far back as the server has them.
        """
        account = await self.account(address, block)
        lt, last_hash = account.last_lt, account.last_hash
        found: list[TransactionSummary] = []
        while lt and len(found) < count:
            amount = min(_TRANSACTIONS_PER_QUERY, count - len(found))
            query = {"count": amount, "account": account_id(address), "lt": lt, "hash": last_hash.hex()}
            answer = await self._request("getTransactions", query)
            part, lt, last_hash = read_transactions(answer, last_hash, amount)
            found += part
            if len(part) < amount:
                break
        return found

    async def global_id(self) -> int:
        """The network's global id: -239 is mainnet, -3 is testnet."""
        return (await self.head()).global_id

    def _newest(self, block: Block) -> Block:
        """Note `block`; the newest one known. A slower answer or server must not take the head back."""
        if self._head is None or block.seqno > self._head.seqno:
            self._head = block
        return self._head

    async def _request(self, name: str, query: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._ask(lambda client: client.liteserver_request(name, query))
        return answer

    async def _ask(self, ask: Ask[_T]) -> _T:
        return await self._thread.run(lambda: self._servers.ask(ask))


async def _look_up(client: LiteClient, query: dict[str, Any], seqno: int | None = None) -> Block:
    return read_header(await client.liteserver_request("lookupBlock", query), seqno=seqno)


def _stack_value(value: Any) -> Any:
    if isinstance(value, Address):
        raw = pytoniq_core.Address((value.workchain, value.account))
        return Builder().store_address(raw).end_cell().begin_parse()
    return value
