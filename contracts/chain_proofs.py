"""Believes a liteserver's answers: pure functions from its bytes to values, or an error.

Everything here is untrusted until its hashes lead to the masterchain block that was asked for. Rules:
1. A header is believed if its root hash is the block's.
2. A shard block is believed if the masterchain block's state names it (trust level 1), or because the
   server names it (trust level 2).
3. An account is believed if the shard block's state holds exactly this account, and its absence if the
   dictionary's path shows that there is no room for it.
4. A list of transactions is believed if each one names the next by hash, from the account's last.

Whatever does not decode or does not match raises `ChainConflictError`. That the masterchain block
itself is signed by the validators is not checked (pytoniq's trust level 0).

Source: TON `crypto/block/check-proof.cpp`, `crypto/block/block.tlb`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytoniq_core import Cell, Slice
from pytoniq_core.boc.hashmap.parse import deserialize_hml
from pytoniq_core.proof.check_proof import check_block_header_proof, check_shard_proof
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.account import Account as RawAccount
from pytoniq_core.tlb.block import BlockInfo, CurrencyCollection
from pytoniq_core.tlb.transaction import Transaction

from contracts.errors import ChainConflictError
from contracts.model import Address

_ACCOUNT_KEY_BITS = 256
_ACCOUNTS_REF = 1
_MASTERCHAIN_SHARD = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A masterchain block: number, hashes of 32 bytes, unix time of its making in seconds."""

    seqno: int
    root_hash: bytes
    file_hash: bytes
    time_s: int
    global_id: int = 0

    def to_tl(self) -> dict[str, Any]:
        """The block's id as a liteserver's query wants it."""
        return {
            "workchain": -1,
            "shard": _MASTERCHAIN_SHARD,
            "seqno": self.seqno,
            "root_hash": self.root_hash.hex(),
            "file_hash": self.file_hash.hex(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account at some block, proven. `code_hash` and `data` stand only while it is active."""

    balance_nanoton: int
    active: bool
    code_hash: bytes | None
    data: Cell | None
    last_lt: int
    last_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSummary:
    """One transaction. `exit_code` is None if no code ran, `action_code` if there was no action phase."""

    hash: bytes
    lt: int
    now_s: int
    exit_code: int | None
    action_code: int | None
    in_op: int | None
    aborted: bool


ABSENT = Account(balance_nanoton=0, active=False, code_hash=None, data=None, last_lt=0, last_hash=bytes(32))
"""What an account is that was never touched."""


def read_header(answer: dict[str, Any]) -> Block:
    """Believe a `blockHeader` of a masterchain block.

    Raises:
        ChainConflictError: the header is not that of the block that the answer names.
    """
    with _doubting("block header"):
        block_id = BlockIdExt.from_dict(answer["id"])
        _require(block_id.workchain == -1, "it is not of the masterchain")
        root = Cell.one_from_boc(answer["header_proof"])[0]
        check_block_header_proof(root, block_id.root_hash)
        head = root.begin_parse()
        _require(head.load_uint(32) == 0x11EF55AA, "it is no block")
        info = BlockInfo.deserialize(root[0].begin_parse())
        _require(info.seqno == block_id.seqno, "its number is another")
        return Block(
            seqno=info.seqno,
            root_hash=block_id.root_hash,
            file_hash=block_id.file_hash,
            time_s=info.gen_utime,
            global_id=head.load_int(32),
        )


def read_account(answer: dict[str, Any], address: Address, block: Block, *, trust_level: int) -> Account:
    """Believe an `accountState` of `address` at `block`.

    Raises:
        ChainConflictError: the answer is for another block, or a proof in it does not hold.
    """
    with _doubting(f"state of {address}"):
        asked = BlockIdExt.from_dict(block.to_tl())
        _require(BlockIdExt.from_dict(answer["id"]) == asked, "it is of another block")
        shard = BlockIdExt.from_dict(answer["shardblk"])
        _require(shard.workchain == address.workchain, "it is of another workchain")
        if trust_level <= 1:
            check_shard_proof(shard_proof=answer["shard_proof"], blk=asked, shrd_blk=shard)
        header, state = (cell[0] for cell in Cell.from_boc(answer["proof"]))
        state_hash = check_block_header_proof(header, shard.root_hash, True)
        _require(state.get_hash(0) == state_hash, "it is not of this shard block")
        leaf = _find_account(state[_ACCOUNTS_REF], address.account)
        if leaf is None:
            _require(not answer["state"], "the proof says that there is none")
            return ABSENT
        root = Cell.one_from_boc(answer["state"])
        _require(leaf.load_ref().get_hash(0) == root.hash, "the proof is for another state")
        return _account(root, last_hash=leaf.load_bytes(32), last_lt=leaf.load_uint(64))


def read_transactions(
    answer: dict[str, Any], last_hash: bytes, count: int
) -> tuple[list[TransactionSummary], int, bytes]:
    """Believe a `transactionList` that begins with the transaction `last_hash`.

    Returns the transactions, newest first, and lt and hash of the one before them.
    Raises:
        ChainConflictError: a transaction is not the one that the chain of hashes names.
    """
    with _doubting("transactions"):
        cells = Cell.from_boc(answer["transactions"])
        _require(0 < len(cells) <= count, f"asked for {count}, got {len(cells)}")
        summaries, last_lt = [], 0
        for cell in cells:
            _require(cell.hash == last_hash, "one is not in the account's chain")
            raw = Transaction.deserialize(cell.begin_parse())
            summaries.append(_summary(raw, last_hash))
            last_lt, last_hash = raw.prev_trans_lt, raw.prev_trans_hash
        return summaries, last_lt, last_hash


def _find_account(accounts: Cell, account: bytes) -> Slice | None:
    """Walk the accounts dictionary to `account`: its `ShardAccount`, or None if it proves absent."""
    key = f"{int.from_bytes(account, 'big'):0{_ACCOUNT_KEY_BITS}b}"
    root = accounts.begin_parse()
    _require(not root.is_special(), "the accounts are left out")
    if not root.load_bit():
        return None
    node = root.load_ref().begin_parse()
    while True:
        _require(not node.is_special(), "the account's path is left out")
        _, label = deserialize_hml(node, len(key))
        if not key.startswith(label.to01()):
            return None
        key = key[len(label) :]
        if not key:
            node.load_uint(5)
            CurrencyCollection.deserialize(node)
            return node
        left, right = node.load_ref(), node.load_ref()
        node, key = (right if key[0] == "1" else left).begin_parse(), key[1:]


def _account(root: Cell, *, last_hash: bytes, last_lt: int) -> Account:
    raw = RawAccount.deserialize(root.begin_parse())
    if raw is None:
        return ABSENT
    state = raw.storage.state
    active = state.type_ == "account_active"
    code = state.state_init.code if active else None
    return Account(
        balance_nanoton=raw.storage.balance.grams,
        active=active,
        code_hash=None if code is None else bytes(code.hash),
        data=state.state_init.data if active else None,
        last_lt=last_lt,
        last_hash=last_hash,
    )


def _summary(raw: Transaction, transaction_hash: bytes) -> TransactionSummary:
    compute: Any = getattr(raw.description, "compute_ph", None)
    ran = compute is not None and compute.type_ == "vm"
    action = getattr(raw.description, "action", None)
    body = None if raw.in_msg is None else raw.in_msg.body
    return TransactionSummary(
        hash=transaction_hash,
        lt=raw.lt,
        now_s=raw.now,
        exit_code=compute.exit_code if ran else None,
        action_code=None if action is None else action.result_code,
        in_op=body.begin_parse().load_uint(32) if body is not None and len(body.bits) >= 32 else None,
        aborted=bool(getattr(raw.description, "aborted", False)),
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ChainConflictError(message)


@contextmanager
def _doubting(subject: str) -> Iterator[None]:
    """Turn whatever a parser stumbles over into the liteserver's fault."""
    try:
        yield
    except ChainConflictError as error:
        raise ChainConflictError(f"{subject}: {error}") from error
    except Exception as error:
        raise ChainConflictError(f"{subject}: its proof does not hold: {error!r:.120}") from error
