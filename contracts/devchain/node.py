"""The embedded chain as a whole: ledger, blocks and disk in step. Synchronous, no clock, no socket.

    with Storage(directory) as storage:
        node = Node(storage, genesis, now=...)
        node.send(boc, now)                  an external message: applied at once, in the next block
        node.seal(now) -> Step               the next block, durable when this returns
        node.step(block_id) -> Step          a block of the history, with all its cells

Decides: when a message becomes visible (with the block after it), that time never goes back, that a
block's time is its transactions' `now`, and how far back questions are answered (`Storage.history_blocks`).

Untrusted input: messages and block ids of clients; the stored file. Rules:
1. An id whose hashes are not those of the block is unknown.
2. Each stored block is made again from what is stored, and must have the id that is stored.

Deliberately elsewhere: execution (`ledger`), cells (`blocks`), file (`storage`), wire (`liteserver`).
"""

from __future__ import annotations

import bisect
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytoniq_core import Cell

from contracts.devchain.accounts import AccountState, AppliedTransaction, read_account, read_transaction
from contracts.devchain.blocks import EMPTY_ACCOUNTS, Step, Tip, with_changes
from contracts.devchain.errors import BlockUnknownError, StorageCorruptError
from contracts.devchain.ledger import Changes, Ledger
from contracts.devchain.network import devnet_config
from contracts.devchain.storage import Storage
from contracts.devchain.tl import BlockId
from contracts.devchain.trie import Trie
from contracts.model import Address

_WARM_BLOCKS = 16
"""Blocks whose cells are kept; those of older ones are made anew when asked for."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A block of the history, without its cells. `accounts` shares all that did not change."""

    tip: Tip
    accounts: Trie


class Node:
    """One chain. Not for use from several threads at once."""

    def __init__(self, storage: Storage, genesis: Mapping[Address, int], *, now: int) -> None:
        """Continue the stored chain, or begin one whose accounts are `genesis` (address -> nanoton).

        `genesis` counts only for a chain that begins. `now`: unix time in seconds.
        Raises:
            StorageCorruptError: the stored blocks do not follow from what is stored.
        """
        self._storage = storage
        self._config = devnet_config()
        self._history: list[_Kept] = []
        self._warm: dict[int, Step] = {}
        self.ledger = Ledger(self._config, now=now)
        tips = list(storage.tips())
        if tips:
            self._load(tips)
        else:
            self._begin(genesis)
        self.zero_id = self._zero_id()
        if len(self._history) == 1:
            self.seal(now)

    def _begin(self, genesis: Mapping[Address, int]) -> None:
        for address, nanoton in genesis.items():
            self.ledger.fund(address, nanoton)
        changes = self.ledger.take_changes()
        accounts = with_changes(EMPTY_ACCOUNTS, changes)
        step = self._make(None, 0, accounts, changes, self.ledger.now, 0)
        zero = step.masterchain_id
        self._storage.set_meta(seed=secrets.token_bytes(32), zero=zero.root_hash + zero.file_hash)
        self._append(step, changes)

    def _load(self, tips: list[Tip]) -> None:
        """Make every stored block again; the oldest one is the base, of which no cell is kept."""
        base = tips[0]
        cells = self._storage.accounts_until(base.seqno)
        accounts = with_changes(EMPTY_ACCOUNTS, Changes(accounts=cells, transactions=()))
        self._history.append(_Kept(base, accounts))
        for tip in tips[1:]:
            changed = self._storage.accounts_of(tip.seqno)
            transactions = tuple(map(read_transaction, self._storage.transactions_of(tip.seqno)))
            accounts = with_changes(accounts, Changes(accounts=changed, transactions=()))
            step = self._step_after(self._history[-1].tip, tip, accounts, transactions)
            if step.tip() != tip:
                raise StorageCorruptError(
                    f"{self._storage.path}: block {tip.seqno} does not follow from what is stored; "
                    "restore it from a copy, or start with an empty directory"
                )
            self._history.append(_Kept(tip, accounts))
        self.ledger.restore(self._storage.accounts_until(tips[-1].seqno), lt=tips[-1].end_lt)
        self.ledger.advance(max(self.ledger.now, tips[-1].time_s))

    def _zero_id(self) -> BlockId:
        zero = self._storage.meta("zero") or b""
        if len(zero) != 64:
            raise StorageCorruptError(f"{self._storage.path}: names no first block")
        return BlockId(workchain=-1, seqno=0, root_hash=zero[:32], file_hash=zero[32:])

    @property
    def liteserver_seed(self) -> bytes:
        """Ed25519 seed of this chain's liteserver, made with the chain."""
        seed = self._storage.meta("seed") or b""
        if len(seed) != 32:
            raise StorageCorruptError(f"{self._storage.path}: holds no liteserver key")
        return seed

    @property
    def config(self) -> Cell:
        return self._config

    @property
    def head(self) -> Step:
        """The newest block."""
        return self._step(len(self._history) - 1)

    @property
    def has_pending(self) -> bool:
        """Whether anything was applied since the newest block."""
        return self.ledger.has_changes

    def send(self, boc: bytes, now: int) -> list[AppliedTransaction]:
        """Apply an external message at `now`; raises as `Ledger.send_external` does."""
        self._advance(now)
        return self.ledger.send_external(boc)

    def seal(self, now: int) -> Step:
        """Make the next block of what was applied since the last, write it, and only then show it."""
        last = self._history[-1]
        self._advance(now)
        changes = self.ledger.take_changes()
        accounts = with_changes(last.accounts, changes)
        # An empty block still needs an end after its start.
        self.ledger.lt = max(self.ledger.lt, last.tip.end_lt + 1)
        seqno = last.tip.seqno + 1
        step = self._make(last.tip, seqno, accounts, changes, self.ledger.now, self.ledger.lt)
        self._append(step, changes)
        return step

    def step(self, block: BlockId) -> Step:
        """The block with this id, of either chain.

        Raises:
            BlockUnknownError: there is none, or it is older than the history.
        """
        step = self.step_by_seqno(block.seqno)
        if block not in (step.masterchain_id, step.shard_id):
            raise BlockUnknownError(f"block {block.seqno} has another id")
        return step

    def step_by_seqno(self, seqno: int) -> Step:
        first = self._history[0].tip.seqno
        if not first < seqno < first + len(self._history):
            raise BlockUnknownError(f"block {seqno} is not among {first + 1}..{first + len(self._history) - 1}")
        return self._step(seqno - first)

    def step_by_time(self, time_s: int) -> Step:
        """The newest block that is not younger than `time_s`, as liteservers look blocks up."""
        at = bisect.bisect_right(self._history, time_s, key=lambda kept: kept.tip.time_s) - 1
        return self._found(at, f"no block that old: {time_s}")

    def step_by_lt(self, lt: int) -> Step:
        """The block that the logical time `lt` falls into."""
        at = bisect.bisect_left(self._history, lt, key=lambda kept: kept.tip.end_lt)
        return self._found(at, f"no block with logical time {lt}")

    def account(self, step: Step, account: bytes) -> tuple[Cell | None, AccountState]:
        """An account as `step` has it: its `ShardAccount` cell (None: never touched) and its state."""
        cell = step.accounts.value(int.from_bytes(account, "big"))
        return cell, read_account(Address(0, account), cell)

    def transactions(self, account: bytes, lt: int, count: int) -> Iterator[tuple[BlockId, Cell]]:
        """Up to `count` transactions of `account` back from the one at `lt`, as far as they are kept."""
        for _ in range(count):
            found = self._storage.transaction(account, lt)
            if found is None or found.seqno > self._history[-1].tip.seqno:
                return
            first = self._history[0].tip.seqno
            if found.seqno < first:
                return
            yield self._history[found.seqno - first].tip.shard, found.cell
            lt = read_transaction(found.cell).prev_lt

    def _advance(self, now: int) -> None:
        # The first message of a block sets its time; the others, and the block itself, keep it.
        if not self.has_pending:
            self.ledger.advance(max(now, self.ledger.now))

    def _found(self, at: int, message: str) -> Step:
        if not 0 < at < len(self._history):
            raise BlockUnknownError(message)
        return self._step(at)

    def _step(self, at: int) -> Step:
        kept = self._history[at]
        warm = self._warm.get(kept.tip.seqno)
        if warm is not None:
            return warm
        transactions = tuple(map(read_transaction, self._storage.transactions_of(kept.tip.seqno)))
        return self._step_after(self._history[at - 1].tip, kept.tip, kept.accounts, transactions)

    def _step_after(self, before: Tip, tip: Tip, accounts: Trie, transactions: tuple[AppliedTransaction, ...]) -> Step:
        changes = Changes(accounts={}, transactions=transactions)
        return self._make(before, tip.seqno, accounts, changes, tip.time_s, tip.end_lt)

    def _make(self, before: Tip | None, seqno: int, accounts: Trie, changes: Changes, time_s: int, end_lt: int) -> Step:
        return Step(
            previous=before,
            seqno=seqno,
            time_s=time_s,
            end_lt=end_lt,
            config=self._config,
            accounts=accounts,
            transactions=changes.transactions,
        )

    def _append(self, step: Step, changes: Changes) -> None:
        tip = step.tip()
        self._storage.append(tip, changes)
        self._history.append(_Kept(tip, step.accounts))
        self._warm[step.seqno] = step
        self._warm.pop(step.seqno - _WARM_BLOCKS, None)
        if len(self._history) > self._storage.history_blocks + 1:
            del self._history[0]
