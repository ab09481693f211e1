"""Blocks of the embedded chain: one masterchain and one shard block per step, as TON's cells.

Decides: the content of both blocks and both states; every cell is a pure function of a `Step`. What
pytoniq checks of a proof holds: block hash -> state hash -> shard block -> account, and the config.

Not modelled, and empty in the cells: validators and signatures, message queues and descriptions,
earlier masterchain blocks in the state. So a client trusts the masterchain block that the server
names (pytoniq's trust level 1 or 2), and proves everything below it.

Source: TON `crypto/block/block.tlb` (`Block`, `ShardStateUnsplit`, `McStateExtra`, `ShardDescr`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pytoniq_core import Builder, Cell

from contracts.devchain.accounts import AppliedTransaction, read_account
from contracts.devchain.boc import to_boc
from contracts.devchain.ledger import Changes
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.tl import BlockId
from contracts.devchain.trie import Trie, merkle_update
from contracts.model import Address

_MASTERCHAIN, _BASECHAIN = -1, 0
_SHARD_PREFIX = 1 << 63
_CONFIG_ADDRESS = b"\x55" * 32

EMPTY_ACCOUNTS = Trie(256, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """What the next block must know of a block: its ids, its states' hashes and depths, its end."""

    seqno: int
    time_s: int
    end_lt: int
    masterchain: BlockId
    shard: BlockId
    masterchain_state: tuple[bytes, int]
    shard_state: tuple[bytes, int]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything that a block is made of. Cells are made when asked for, and then kept."""

    previous: Tip | None
    seqno: int
    time_s: int
    end_lt: int
    config: Cell = field(repr=False)
    accounts: Trie = field(repr=False)
    transactions: tuple[AppliedTransaction, ...] = field(default=(), repr=False)

    @property
    def start_lt(self) -> int:
        return 0 if self.previous is None else self.previous.end_lt

    @cached_property
    def account_blocks(self) -> Trie:
        return _account_blocks(self.transactions)

    @cached_property
    def shard_state(self) -> Cell:
        return _state(self, _BASECHAIN, self.accounts, custom=None)

    @cached_property
    def shard_block(self) -> Cell:
        before = None if self.previous is None else (self.previous.shard, self.previous.shard_state)
        extra = _extra(self.account_blocks, custom=None)
        return _block(self, _BASECHAIN, before, self.shard_state, extra)

    @cached_property
    def shard_id(self) -> BlockId:
        return _block_id(_BASECHAIN, self.seqno, self.shard_block)

    @cached_property
    def shard_hashes(self) -> Cell:
        return _shard_hashes(self, self.shard_id)

    @cached_property
    def masterchain_state(self) -> Cell:
        extra = _masterchain_state_extra(self.shard_hashes, self.config, self.accounts.total)
        return _state(self, _MASTERCHAIN, EMPTY_ACCOUNTS, custom=extra)

    @cached_property
    def masterchain_block(self) -> Cell:
        before = None
        if self.previous is not None:
            before = (self.previous.masterchain, self.previous.masterchain_state)
        extra = _extra(Trie(256), custom=_masterchain_block_extra(self.shard_hashes))
        return _block(self, _MASTERCHAIN, before, self.masterchain_state, extra)

    @cached_property
    def masterchain_id(self) -> BlockId:
        return _block_id(_MASTERCHAIN, self.seqno, self.masterchain_block)

    def tip(self) -> Tip:
        return Tip(
            seqno=self.seqno,
            time_s=self.time_s,
            end_lt=self.end_lt,
            masterchain=self.masterchain_id,
            shard=self.shard_id,
            masterchain_state=(self.masterchain_state.get_hash(0), self.masterchain_state.get_depth(0)),
            shard_state=(self.shard_state.get_hash(0), self.shard_state.get_depth(0)),
        )


def with_changes(accounts: Trie, changes: Changes) -> Trie:
    """The accounts after `changes`; costs as much as what changed."""
    for account, stored in changes.accounts.items():
        balance = read_account(Address(_BASECHAIN, account), stored.cell).balance_nanoton
        accounts = accounts.with_value(int.from_bytes(account, "big"), stored.cell, balance)
    return accounts


def _account_blocks(transactions: Sequence[AppliedTransaction]) -> Trie:
    """`ShardAccountBlocks`: the transactions by account and logical time."""
    blocks = Trie(256)
    for account in sorted({t.address.account for t in transactions}):
        inner = Trie(64)
        for t in transactions:
            if t.address.account == account:
                value = Builder().store_ref(t.cell).end_cell()
                inner = inner.with_value(t.lt, value, t.fees_nanoton)
        assert inner.root is not None
        update = Builder().store_uint(0x72, 8).store_bytes(bytes(64)).end_cell()
        block = Builder().store_uint(5, 4).store_bytes(account).store_cell(inner.root.cell).store_ref(update)
        blocks = blocks.with_value(int.from_bytes(account, "big"), block.end_cell(), inner.total)
    return blocks


def _block_id(workchain: int, seqno: int, block: Cell) -> BlockId:
    return BlockId(
        workchain=workchain,
        seqno=seqno,
        root_hash=block.get_hash(0),
        file_hash=hashlib.sha256(to_boc(block)).digest(),
    )


def _block(
    step: Step, workchain: int, before: tuple[BlockId, tuple[bytes, int]] | None, state: Cell, extra: Cell
) -> Cell:
    previous_id, (state_hash, state_depth) = before or (None, (Cell.empty().hash, 0))
    info = _info(step, workchain, previous_id)
    update = merkle_update(state_hash, state_depth, state)
    builder = Builder().store_uint(0x11EF55AA, 32).store_int(DEVNET_GLOBAL_ID, 32).store_ref(info)
    return builder.store_ref(_value_flow()).store_ref(update).store_ref(extra).end_cell()


def _info(step: Step, workchain: int, previous: BlockId | None) -> Cell:
    builder = Builder().store_uint(0x9BC7A987, 32).store_uint(0, 32)
    builder.store_bit(workchain != _MASTERCHAIN).store_uint(0, 7).store_uint(0, 8)
    builder.store_uint(step.seqno, 32).store_uint(0, 32)
    _shard_ident(builder, workchain)
    builder.store_uint(step.time_s, 32).store_uint(step.start_lt, 64).store_uint(step.end_lt, 64)
    builder.store_uint(0, 32).store_uint(0, 32).store_uint(max(0, step.seqno - 1), 32).store_uint(0, 32)
    if workchain != _MASTERCHAIN:
        builder.store_ref(_reference(step, None if step.previous is None else step.previous.masterchain))
    return builder.store_ref(_reference(step, previous)).end_cell()


def _reference(step: Step, block: BlockId | None) -> Cell:
    """`ExtBlkRef` of the block before (all zero for the first)."""
    builder = Builder().store_uint(step.start_lt, 64).store_uint(max(0, step.seqno - 1), 32)
    if block is None:
        return builder.store_bytes(bytes(64)).end_cell()
    return builder.store_bytes(block.root_hash).store_bytes(block.file_hash).end_cell()


def _value_flow() -> Cell:
    four = Builder().store_uint(0, 20).end_cell()
    return Builder().store_uint(0xB8E48DFB, 32).store_ref(four).store_uint(0, 5).store_ref(four).end_cell()


def _extra(account_blocks: Trie, custom: Cell | None) -> Cell:
    messages_in = Builder().store_bit(0).store_coins(0).store_coins(0).store_bit(0).end_cell()
    messages_out = Builder().store_bit(0).store_coins(0).store_bit(0).end_cell()
    builder = Builder().store_uint(0x4A33F6FD, 32).store_ref(messages_in).store_ref(messages_out)
    builder.store_ref(account_blocks.cell()).store_bytes(bytes(64))
    return builder.store_maybe_ref(custom).end_cell()


def _state(step: Step, workchain: int, accounts: Trie, custom: Cell | None) -> Cell:
    builder = Builder().store_uint(0x9023AFE2, 32).store_int(DEVNET_GLOBAL_ID, 32)
    _shard_ident(builder, workchain)
    builder.store_uint(step.seqno, 32).store_uint(0, 32).store_uint(step.time_s, 32)
    builder.store_uint(step.end_lt, 64).store_uint(step.seqno, 32)
    queues = Builder().store_bit(0).store_uint(0, 64).store_bit(0).store_bit(0).end_cell()
    builder.store_ref(queues).store_bit(0).store_ref(accounts.cell())
    totals = Builder().store_uint(0, 128).store_coins(accounts.total).store_bit(0)
    totals.store_coins(0).store_bit(0).store_bit(0).store_bit(0)
    return builder.store_ref(totals.end_cell()).store_maybe_ref(custom).end_cell()


def _shard_ident(builder: Builder, workchain: int) -> None:
    builder.store_uint(0, 2).store_uint(0, 6).store_int(workchain, 32).store_uint(0, 64)


def _shard_hashes(step: Step, shard: BlockId) -> Cell:
    """Root of the `HashmapE 32 ^(BinTree ShardDescr)` with the one shard of workchain 0."""
    fees = Builder().store_uint(0, 10).end_cell()
    leaf = Builder().store_bit(0).store_uint(0xA, 4).store_uint(shard.seqno, 32).store_uint(shard.seqno, 32)
    leaf.store_uint(step.start_lt, 64).store_uint(step.end_lt, 64)
    leaf.store_bytes(shard.root_hash).store_bytes(shard.file_hash).store_uint(0, 8).store_uint(0, 32)
    leaf.store_uint(_SHARD_PREFIX, 64).store_uint(shard.seqno, 32).store_uint(step.time_s, 32).store_bit(0)
    leaf.store_ref(fees)
    label = Builder().store_bits("110").store_uint(32, 6)
    return label.store_ref(leaf.end_cell()).end_cell()


def _masterchain_state_extra(shard_hashes: Cell, config: Cell, balance: int) -> Cell:
    info = Builder().store_uint(0, 16).store_uint(0, 65)
    info.store_bit(0).store_uint(0, 65).store_bit(0).store_bit(0)
    builder = Builder().store_uint(0xCC26, 16).store_maybe_ref(shard_hashes)
    builder.store_bytes(_CONFIG_ADDRESS).store_ref(config).store_ref(info.end_cell())
    return builder.store_coins(balance).store_bit(0).end_cell()


def _masterchain_block_extra(shard_hashes: Cell) -> Cell:
    signatures = Builder().store_uint(0, 3).end_cell()
    builder = Builder().store_uint(0xCCA5, 16).store_bit(0).store_maybe_ref(shard_hashes)
    return builder.store_bit(0).store_uint(0, 10).store_ref(signatures).end_cell()
