"""A chain of hand-made blocks: the embedded chain's cells and proofs, with whatever accounts a test puts into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from emulated_chain import TL
from pool_fixture import POOL
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.chain import Account, Block, TransactionSummary
from contracts.chain_kept import KeptAccount, KeptHeader, KeptLink
from contracts.chain_proofs import read_account
from contracts.devchain.accounts import to_pytoniq
from contracts.devchain.blocks import EMPTY_ACCOUNTS, Step, _state
from contracts.devchain.boc import to_boc
from contracts.devchain.queries import _header_proof, answer
from contracts.devchain.tl import BlockId
from contracts.devchain.trie import Trie, merkle_proof
from contracts.errors import ChainUnavailableError
from contracts.layout import ContractName
from contracts.model import NANO, Address

NO_BLOCKS = Trie(32, 60)
"""`OldMcBlocksInfo`: each node ends with a `KeyMaxLt` of 65 bits, all zero as no balance is counted."""


@dataclass(frozen=True, kw_only=True)
class LinkedStep(Step):
    """A block whose masterchain state lists those before it, as TON's do and the embedded chain's do not."""

    earlier: Trie = NO_BLOCKS

    @cached_property
    def masterchain_state(self) -> Cell:
        info = Builder().store_uint(0, 16).store_uint(0, 65).store_cell(self.earlier.cell()).store_uint(0, 2)
        extra = Builder().store_uint(0xCC26, 16).store_maybe_ref(self.shard_hashes).store_bytes(bytes(32))
        extra.store_ref(self.config).store_ref(info.end_cell()).store_coins(0).store_bit(0)
        return _state(self, -1, EMPTY_ACCOUNTS, custom=extra.end_cell())

    def link(self, seqno: int) -> tuple[bytes, bytes]:
        """Proof and state proof of a `blockLinkBack` to this block."""
        state = self.masterchain_state
        extra = state.refs[3]
        shown = [extra, extra.refs[2], *self.earlier.path(seqno)]
        return to_boc(_header_proof(self.masterchain_block)), to_boc(merkle_proof(state, shown))


@dataclass
class Blocks:
    """The part of the devchain's node that its answers are made from."""

    steps: list[LinkedStep] = field(default_factory=list)

    def step(self, block: BlockId) -> Step:
        return self.steps[block.seqno]

    def account(self, step: Step, account: bytes) -> tuple[Cell | None, None]:
        return step.accounts.value(int.from_bytes(account, "big")), None


class HandmadeChain:
    """What the chain client answers, over these blocks; the newest one is the head."""

    def __init__(self) -> None:
        self.accounts: Trie = EMPTY_ACCOUNTS
        self.sent: list[TransactionSummary] = []
        self.forgotten = 0
        """States of blocks below this number are not served any more."""
        self.links = True
        """Whether it is shown that earlier blocks are of one chain."""
        self.has_history = True
        """Whether transactions are served."""
        self._earlier = NO_BLOCKS
        self._blocks = Blocks()
        self._config = Builder().store_uint(0, 8).end_cell()

    def put(self, address: Address, name: ContractName, data: Cell) -> None:
        """Have a contract stand there from the next block on."""
        self.accounts = self.accounts.with_value(
            int.from_bytes(address.account, "big"), active_account(address, layout.code(name), data), NANO
        )

    def seal(self, time_s: int) -> Block:
        """Make a block of the accounts as they are."""
        steps = self._blocks.steps
        previous = steps[-1].tip() if steps else None
        number = len(steps)
        steps.append(
            LinkedStep(
                previous=previous,
                seqno=number,
                time_s=time_s,
                end_lt=number + 1,
                config=self._config,
                accounts=self.accounts,
                earlier=self._earlier,
            )
        )
        made = steps[-1].masterchain_id
        entry = Builder().store_bit(0).store_uint(0, 64).store_uint(number, 32)
        entry.store_bytes(made.root_hash).store_bytes(made.file_hash)
        self._earlier = self._earlier.with_value(number, entry.end_cell(), 0)
        return self._block(steps[-1])

    async def head(self) -> Block:
        return self._block(self._blocks.steps[-1])

    async def block_at(self, time_s: int) -> Block:
        found = next((step for step in self._blocks.steps if step.time_s >= time_s), None)
        if found is None:
            raise ChainUnavailableError(f"no block of {time_s} yet")
        return self._block(found)

    async def block_by_seqno(self, seqno: int) -> Block:
        if not 0 <= seqno < len(self._blocks.steps):
            raise ChainUnavailableError(f"no block {seqno}")
        return self._block(self._blocks.steps[seqno])

    async def account(self, address: Address, block: Block | None = None) -> Account:
        at = block or await self.head()
        return read_account(self._account_answer(address, at), address, at, trust_level=1)

    async def kept_account(self, address: Address, block: Block) -> KeptAccount:
        return KeptAccount.of(self._account_answer(address, block), address, block)

    async def kept_header(self, block: Block) -> KeptHeader:
        return KeptHeader.of(self._ask("getBlockHeader", mode=0, id=_block_id(block)))

    async def kept_link(self, source: Block, target: Block) -> KeptLink:
        if not self.links:
            raise ChainUnavailableError("getBlockProof is not supported here")
        proof, state_proof = self._blocks.steps[source.seqno].link(target.seqno)
        return KeptLink(source=source.seqno, target=target.seqno, proof=proof, state_proof=state_proof)

    async def transactions(
        self, _address: Address, count: int, _block: Block | None = None
    ) -> list[TransactionSummary]:
        if not self.has_history:
            raise ChainUnavailableError("no such transaction, or it is older than the history")
        return self.sent[::-1][:count]

    def _account_answer(self, address: Address, block: Block) -> dict[str, Any]:
        if block.seqno < self.forgotten:
            raise ChainUnavailableError(f"state of block {block.seqno} is not in db")
        account = {"workchain": 0, "id": address.account}
        return self._ask("getAccountState", id=_block_id(block), account=account)

    def _ask(self, name: str, **fields: object) -> dict[str, Any]:
        raw = answer(self._blocks, f"liteServer.{name}", dict(fields), 0)  # type: ignore[arg-type]
        decoded: dict[str, Any] = TL.deserialize(raw)[0]
        assert "code" not in decoded, decoded
        return decoded

    @staticmethod
    def _block(step: Step) -> Block:
        made = step.masterchain_id
        return Block(
            seqno=step.seqno,
            root_hash=made.root_hash,
            file_hash=made.file_hash,
            time_s=step.time_s,
            global_id=POOL.network,
        )


def active_account(address: Address, code: Cell, data: Cell) -> Cell:
    """The `ShardAccount` of a contract that holds a TON."""
    account = Builder().store_bit(1).store_address(to_pytoniq(address))
    account.store_var_uint(1, 3).store_var_uint(103, 3).store_uint(0, 3).store_uint(0, 32).store_bit(0)
    account.store_uint(0, 64).store_coins(NANO).store_bit(0)
    account.store_bit(1).store_bit(0).store_bit(0).store_maybe_ref(code).store_maybe_ref(data).store_bit(0)
    return Builder().store_ref(account.end_cell()).store_bytes(bytes(32)).store_uint(0, 64).end_cell()


def _block_id(block: Block) -> BlockId:
    return BlockId(workchain=-1, seqno=block.seqno, root_hash=block.root_hash, file_hash=block.file_hash)
