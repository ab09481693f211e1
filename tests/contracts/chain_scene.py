"""An embedded chain in the test's own process: a node without sockets, or one that serves on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from nacl.signing import SigningKey
from pytoniq_core import Cell
from pytoniq_core.tl.generator import TlGenerator

from contracts.chain import Account, Block, LiteServer
from contracts.chain_proofs import read_account
from contracts.devchain.ledger import Ledger
from contracts.devchain.liteserver import LiteServer as Server
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.queries import answer
from contracts.devchain.storage import Storage
from contracts.devchain.tl import BlockId
from contracts.errors import ChainUnavailableError
from contracts.model import NANO, Address
from contracts.wallet import OutMessage, Wallet, wallet_address

START_S = 1_800_000_000
SEED = hashlib.sha256(b"wallet").digest()
FUNDS = 1000 * NANO
BLOCK_S = 0.05
TL = TlGenerator.with_default_schemas().generate()
"""pytoniq's own reading of the wire format: what the server writes must make sense to it."""


def account(name: str) -> Address:
    return Address(0, hashlib.sha256(name.encode()).digest())


NOBODY, RECEIVER = account("nobody"), account("receiver")


def own_address(version: str = "v5r1", seed: bytes = SEED) -> Address:
    return wallet_address(bytes(SigningKey(seed).verify_key), version, global_id=DEVNET_GLOBAL_ID)


GENESIS = {own_address("v5r1"): FUNDS, own_address("v4r2"): FUNDS}


def message(value_nanoton: int = NANO, dest: Address = RECEIVER) -> OutMessage:
    return OutMessage(dest=dest, value_nanoton=value_nanoton, body=Cell.empty(), bounce=False)


def external(seqno: int, messages: Sequence[OutMessage], *, version: str = "v5r1", until_s: int = 2**31) -> bytes:
    """A signed transfer of the test's wallet, as the wallet itself makes it."""
    wallet = Wallet(FakeChain.none(), SEED, version, global_id=DEVNET_GLOBAL_ID)
    return wallet._external(messages, seqno, until_s, deploy=seqno == 0)


def funded_ledger() -> Ledger:
    ledger = Ledger(now=START_S)
    for address, nanoton in GENESIS.items():
        ledger.fund(address, nanoton)
    return ledger


def query(node: Node, name: str, now: int = START_S, **fields: object) -> dict[str, object]:
    """Ask the node as a client would, and read the answer as pytoniq reads it."""
    raw = answer(node, f"liteServer.{name}", dict(fields), now)
    decoded: dict[str, object] = TL.deserialize(raw)[0]
    return decoded


class FakeChain:
    """The chain client without a network: each `wait_next` seals one block, `block_s` later.

    `drops` says how many of the next messages vanish on their way; `unavailable` makes every call fail.
    """

    def __init__(self, node: Node, block_s: int = 5) -> None:
        self.node = node
        self.block_s = block_s
        self.now = START_S
        self.drops = 0
        self.unavailable = False
        self.sent: list[bytes] = []

    @classmethod
    def none(cls) -> FakeChain:
        return cls.__new__(cls)

    async def head(self) -> Block:
        self._check()
        return self._block(self.node.head.masterchain_id, self.node.head.time_s)

    async def wait_next(self, seqno: int, timeout_s: float) -> Block:
        self._check()
        await trio.lowlevel.checkpoint()
        self.now += self.block_s
        step = self.node.seal(self.now)
        return self._block(step.masterchain_id, step.time_s)

    async def account(self, address: Address, block: Block | None = None) -> Account:
        self._check()
        at = self.node.head.masterchain_id if block is None else _block_id(block)
        known = self._block(at, self.node.step(at).time_s)
        fields = {"id": at, "account": {"workchain": address.workchain, "id": address.account}}
        return read_account(query(self.node, "getAccountState", **fields), address, known, trust_level=1)

    async def send(self, boc: bytes) -> None:
        self._check()
        self.sent.append(boc)
        if self.drops:
            self.drops -= 1
            return
        self.node.send(boc, self.now)

    def _check(self) -> None:
        if self.unavailable:
            raise ChainUnavailableError("the test says so")

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


@asynccontextmanager
async def serving(directory: Path, *, port: int = 0, block_s: float = BLOCK_S) -> AsyncIterator[LiteServer]:
    """A liteserver on loopback with the chain in `directory`; stopped on the way out."""
    with Storage(directory) as storage:
        node = Node(storage, GENESIS, now=START_S)
        server = Server(node, block_s=block_s)
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        host, bound = listeners[0].socket.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listeners)
            yield LiteServer(host=host, port=bound, public_key=server.public_key)
            nursery.cancel_scope.cancel()
