"""The chain client's interface over the embedded chain, without a socket: proofs are made and checked as ever.

A pool on it is deployed by wallets whose keys the test holds. Time moves by `advance`, and by a few seconds with
every block that somebody waits for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from pytoniq_core import Cell
from pytoniq_core.tl import TlGenerator

from contracts.chain import FOREIGN_STATE_BYTES_MAX
from contracts.chain_proofs import read_account, read_config, read_transactions
from contracts.chain_values import Account, Block, TransactionSummary, account_id
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.queries import answer
from contracts.devchain.storage import Storage
from contracts.devchain.tl import BlockId
from contracts.errors import ChainUnavailableError
from contracts.model import Address
from contracts.signing import SigningKey
from contracts.wallet import Wallet, wallet_address

START_S = 1_800_000_000
BLOCK_S = 5
TL = TlGenerator.with_default_schemas().generate()


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def wallet_of(name: str, version: str = "v5r1") -> Address:
    """Where the wallet of `key(name)` stands."""
    return wallet_address(key(name).public, version, global_id=DEVNET_GLOBAL_ID)


class EmulatedChain:
    """One chain; `genesis` funds accounts (nanoTON)."""

    def __init__(self, storage: Storage, genesis: Mapping[Address, int]) -> None:
        self.now_s = START_S
        self.node = Node(storage, genesis, now=START_S)
        self.sent: list[bytes] = []

    def wallet(self, name: str, version: str = "v5r1") -> Wallet:
        return Wallet(self, key(name).seed, version, global_id=DEVNET_GLOBAL_ID)  # type: ignore[arg-type]

    def advance(self, seconds: int) -> None:
        self.now_s += seconds
        self.node.seal(self.now_s)

    async def head(self) -> Block:
        return self._block(self.node.head.masterchain_id, self.node.head.time_s)

    async def wait_next(self, seqno: int, timeout_s: float) -> Block:
        await trio.lowlevel.checkpoint()
        self.advance(BLOCK_S)
        return await self.head()

    async def account(self, address: Address, block: Block | None = None) -> Account:
        return await self._account(address, block)

    async def foreign_account(self, address: Address, block: Block | None = None) -> Account:
        return await self._account(address, block, FOREIGN_STATE_BYTES_MAX)

    async def _account(self, address: Address, block: Block | None, bytes_max: int | None = None) -> Account:
        at = block or await self.head()
        account_id(address)  # raises for a workchain that nobody asks for
        fields = {"id": _block_id(at), "account": {"workchain": address.workchain, "id": address.account}}
        answer = self._ask("getAccountState", **fields)
        return read_account(answer, address, at, trust_level=1, state_bytes_max=bytes_max)

    async def config(self, block: Block | None = None) -> Cell:
        at = block or await self.head()
        return read_config(self.ask_config(at), at)

    def ask_config(self, block: Block) -> dict[str, Any]:
        """A liteserver's answer, not yet believed."""
        return self._ask("getConfigAll", mode=0, id=_block_id(block))

    async def transactions(self, address: Address, count: int) -> list[TransactionSummary]:
        found: list[TransactionSummary] = []
        account = await self.account(address)
        lt, last_hash = account.last_lt, account.last_hash
        while lt and len(found) < count:
            fields = {"account": {"workchain": 0, "id": address.account}, "lt": lt, "hash": last_hash, "count": 16}
            part, lt, last_hash = read_transactions(self._ask("getTransactions", **fields), last_hash, 16)
            found += part
        return found[:count]

    async def send(self, boc: bytes) -> None:
        self.sent.append(boc)
        self.node.send(boc, self.now_s)

    async def global_id(self) -> int:
        return DEVNET_GLOBAL_ID

    def _ask(self, name: str, **fields: object) -> dict[str, Any]:
        raw = answer(self.node, f"liteServer.{name}", dict(fields), self.now_s)
        decoded: dict[str, Any] = TL.deserialize(raw)[0]
        if "code" in decoded:
            raise ChainUnavailableError(f"{decoded}")
        return decoded

    @staticmethod
    def _block(block: BlockId, time_s: int) -> Block:
        return Block(
            seqno=block.seqno,
            root_hash=block.root_hash,
            file_hash=block.file_hash,
            time_s=time_s,
            global_id=DEVNET_GLOBAL_ID,
        )


def _block_id(block: Block) -> BlockId:
    return BlockId(workchain=-1, seqno=block.seqno, root_hash=block.root_hash, file_hash=block.file_hash)


def open_storage(directory: Path) -> Storage:
    """The chain's file; closed when used as a context."""
    return Storage(directory)
