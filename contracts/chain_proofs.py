"""Believes a liteserver's answers: pure functions from its bytes to values, or an error.

Everything here is untrusted until its hashes lead to the masterchain block that was asked for. Rules:
1. A header is believed if its root hash is the block's.
2. A state is believed if its hash stands in the *data* of the block's state update. The hash of the
   update's child proves nothing: a pruned branch of level mask 3 names any hash for level 0 and still
   keeps the update's own, which is made of the child's hash for level 1. pytoniq does not check that
   both agree, as TON does when it loads the cell; so its proof functions are not used here.
3. A shard block is believed if the masterchain block's state names it (trust level 1), or because the
   server names it (trust level 2).
4. An account is believed if the shard block's state holds exactly this account, and its absence if the
   shard is the account's own and the dictionary's path shows that there is no room for it.
5. A list of transactions is believed if each one names the next by hash, from the account's last.
6. A config is believed if it stands in the state after the masterchain block (rule 2), with nothing left out.
7. An earlier masterchain block is believed if the state after a later one (rule 2) lists it: all before it stand there.
8. Of an account whose address a stranger chose, the state is bounded before it is parsed; one that is too large, or
   cannot be parsed here, is nobody's lie (`UnreadableStateError`): the stranger could make servers look like liars.

Whatever does not decode or does not match raises `ChainConflictError`. That the masterchain block
itself is signed by the validators is not checked (pytoniq's trust level 0).

Source: TON `crypto/block/check-proof.cpp`, `crypto/block/block.tlb`, `crypto/vm/cells/DataCell.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytoniq_core import Cell, CellTypes, Slice
from pytoniq_core.boc.hashmap.parse import deserialize_hml
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.account import Account as RawAccount
from pytoniq_core.tlb.block import BlockInfo, CurrencyCollection, ShardIdent, ShardStateUnsplit
from pytoniq_core.tlb.transaction import Transaction

from contracts.chain_values import ABSENT, Account, Block, TransactionSummary
from contracts.errors import ChainConflictError, UnreadableStateError
from contracts.model import Address

_ACCOUNT_KEY_BITS = 256
_BLOCK_TAG, _STATE_TAG = 0x11EF55AA, 0x9023AFE2
_INFO_REF, _UPDATE_REF = 0, 2
_ACCOUNTS_REF, _CUSTOM_REF = 1, 3
_EXTRA_TAG = 0xCC26
_KEY_MAX_LT_BITS = 65
_NEW_HASH = slice(33, 65)
"""Where a Merkle update's data (tag, old hash, new hash, depths) names the new state."""


def read_header(answer: dict[str, Any], *, seqno: int | None = None) -> Block:
    """Believe a `blockHeader` of a masterchain block: the one with the number `seqno`, if it is given.

    Raises:
        ChainConflictError: the header is not that of the block that the answer names, or of another number.
    """
    with _doubting("block header"):
        block_id = BlockIdExt.from_dict(answer["id"])
        _require(block_id.workchain == -1, "it is not of the masterchain")
        root = Cell.one_from_boc(answer["header_proof"])[0]
        _require(root.get_hash(0) == block_id.root_hash, "it is of another block")
        head = root.begin_parse()
        _require(head.load_uint(32) == _BLOCK_TAG, "it is no block")
        info = BlockInfo.deserialize(root[_INFO_REF].begin_parse())
        _require(info.seqno == block_id.seqno, "its number is another")
        _require(seqno is None or info.seqno == seqno, f"asked for {seqno}, got {info.seqno}")
        return Block(
            seqno=info.seqno,
            root_hash=block_id.root_hash,
            file_hash=block_id.file_hash,
            time_s=info.gen_utime,
            global_id=head.load_int(32),
        )


def read_account(
    answer: dict[str, Any], address: Address, block: Block, *, trust_level: int, state_bytes_max: int | None = None
) -> Account:
    """Believe an `accountState` of `address` at `block`.

    Args:
        state_bytes_max: given for an address that a stranger chose (rule 8).
    Raises:
        ChainConflictError: the answer is for another block, or a proof in it does not hold.
        UnreadableStateError: only with `state_bytes_max`: the state is longer, or does not decode to the proven one.
    """
    with _doubting(f"state of {address}"):
        asked = BlockIdExt.from_dict(block.to_tl())
        _require(BlockIdExt.from_dict(answer["id"]) == asked, "it is of another block")
        shard = BlockIdExt.from_dict(answer["shardblk"])
        _require(shard.workchain == address.workchain, "it is of another workchain")
        if trust_level <= 1:
            _check_shard(answer["shard_proof"], asked, shard)
        state = _state_after(answer["proof"], shard.root_hash)
        _check_contains(state, address)
        leaf = _find_account(state[_ACCOUNTS_REF], address.account)
        if leaf is None:
            _require(not answer["state"], "the proof says that there is none")
            return ABSENT
        proven, last_hash, last_lt = leaf.load_ref().get_hash(0), leaf.load_bytes(32), leaf.load_uint(64)
    size = len(answer["state"])
    if state_bytes_max is not None and size > state_bytes_max:
        raise UnreadableStateError(f"state of {address}: {size} bytes, at most {state_bytes_max} are read")
    with _doubting(f"state of {address}") if state_bytes_max is None else _blaming_nobody(f"state of {address}"):
        root = Cell.one_from_boc(answer["state"])
        _require(proven == root.hash, "the proof is for another state")
        return _account(root, last_hash=last_hash, last_lt=last_lt)


def read_config(answer: dict[str, Any], block: Block) -> Cell:
    """Believe a `configInfo` with all of the blockchain's config at `block`: root of `Hashmap 32 ^Cell`.

    Raises:
        ChainConflictError: the answer is for another block, a proof in it does not hold, or it leaves a part out.
    """
    with _doubting("config"):
        asked = BlockIdExt.from_dict(block.to_tl())
        _require(BlockIdExt.from_dict(answer["id"]) == asked, "it is of another block")
        state = _state_after(answer["state_proof"], asked.root_hash, Cell.one_from_boc(answer["config_proof"])[0])
        extra = state[_CUSTOM_REF].begin_parse()
        _require(extra.load_uint(16) == _EXTRA_TAG, "it is not of the masterchain")
        if extra.load_bit():
            extra.load_ref()  # the shards
        config: Cell = extra.load_ref()
        _require(_is_whole(config), "a part is left out")
        return config


def read_earlier_block(proof: bytes, state_proof: bytes, block: Block, seqno: int) -> bytes:
    """Believe what the state after `block` says of the masterchain block number `seqno` before it: its root hash.

    `proof` and `state_proof` are those of a `blockLinkBack` from `block`.
    Raises:
        ChainConflictError: they are of another block, or do not show that one.
    """
    with _doubting(f"block {seqno} before {block.seqno}"):
        state = _state_after(proof, block.root_hash, Cell.one_from_boc(state_proof)[0])
        extra = state[_CUSTOM_REF].begin_parse()
        _require(extra.load_uint(16) == _EXTRA_TAG, "it is not of the masterchain")
        if extra.load_bit():
            extra.load_ref()  # the shards
        extra.load_ref()  # the config
        info = extra.load_ref().begin_parse()
        _require(not info.is_special(), "the earlier blocks are left out")
        info.load_bits(16 + 65)  # flags, validators
        leaf = _find_leaf(info, f"{seqno:032b}") if info.load_bit() else None
        if leaf is None:
            raise ChainConflictError("there is none")
        leaf.load_bits(_KEY_MAX_LT_BITS + 1 + 64)
        _require(leaf.load_uint(32) == seqno, "its number is another")
        return bytes(leaf.load_bytes(32))


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


def _state_after(proof: bytes, block_hash: bytes, state: Cell | None = None) -> Cell:
    """The state after the block with the root hash `block_hash`, pruned to what the proof shows (rule 2).

    It stands beside the header in `proof`, unless the answer brought it apart, as `state`.
    """
    header, *beside = (cell[0] for cell in Cell.from_boc(proof))
    (state,) = beside if state is None else (state,)
    _require(header.get_hash(0) == block_hash, "its header is of another block")
    update = header[_UPDATE_REF]
    _require(update.type_ == CellTypes.merkle_update, "its header shows no state update")
    _require(update.data[_NEW_HASH] == state.get_hash(0), "it is not of this block's state")
    return state


def _check_shard(proof: bytes, block: BlockIdExt, shard: BlockIdExt) -> None:
    """Raise unless the masterchain block `block` names `shard`, or is it."""
    if shard == block:
        return
    state = ShardStateUnsplit.deserialize(_state_after(proof, block.root_hash).begin_parse())
    named = state.custom.shard_hashes[shard.workchain].list
    _require(any(s is not None and s.root_hash == shard.root_hash for s in named), "no such shard block is named")


def _check_contains(state: Cell, address: Address) -> None:
    """Raise unless the state is of the shard that `address` belongs to: no other one proves its absence."""
    head = state.begin_parse()
    _require(head.load_uint(32) == _STATE_TAG, "it is no state")
    head.load_int(32)
    shard = ShardIdent.deserialize(head)
    _require(shard.workchain_id == address.workchain, "it is of another workchain")
    rest = 64 - shard.shard_pfx_bits
    ours = int.from_bytes(address.account[:8], "big") >> rest == shard.shard_prefix >> rest
    _require(ours, "it is of another shard")


def _find_account(accounts: Cell, account: bytes) -> Slice | None:
    """Walk the accounts dictionary to `account`: its `ShardAccount`, or None if it proves absent."""
    root = accounts.begin_parse()
    _require(not root.is_special(), "the accounts are left out")
    if not root.load_bit():
        return None
    leaf = _find_leaf(root, f"{int.from_bytes(account, 'big'):0{_ACCOUNT_KEY_BITS}b}")
    if leaf is not None:
        leaf.load_uint(5)
        CurrencyCollection.deserialize(leaf)
    return leaf


def _find_leaf(dictionary: Slice, key: str) -> Slice | None:
    """Walk the dictionary under the next reference to `key` (bits): what stands there behind the label, or None."""
    node = dictionary.load_ref().begin_parse()
    while True:
        _require(not node.is_special(), "the path to it is left out")
        _, label = deserialize_hml(node, len(key))
        if not key.startswith(label.to01()):
            return None
        key = key[len(label) :]
        if not key:
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
        state=root,
        frozen=state.type_ == "account_frozen",
    )


def _is_whole(root: Cell) -> bool:
    """Whether nothing under `root` is pruned; each distinct cell is looked at once."""
    pending, seen = [root], {root.hash}
    while pending:
        cell = pending.pop()
        if cell.type_ == CellTypes.pruned_branch:
            return False
        for ref in cell.refs:
            if ref.hash not in seen:
                seen.add(ref.hash)
                pending.append(ref)
    return True


def _summary(raw: Transaction, transaction_hash: bytes) -> TransactionSummary:
    compute: Any = getattr(raw.description, "compute_ph", None)
    ran = compute is not None and compute.type_ == "vm"
    action = getattr(raw.description, "action", None)
    body = None if raw.in_msg is None else raw.in_msg.body
    bits = 0 if body is None else len(body.bits)
    head = None if body is None else body.begin_parse()
    return TransactionSummary(
        hash=transaction_hash,
        lt=raw.lt,
        now_s=raw.now,
        exit_code=compute.exit_code if ran else None,
        action_code=None if action is None else action.result_code,
        in_op=head.load_uint(32) if head is not None and bits >= 32 else None,
        in_query_id=head.load_uint(64) if head is not None and bits >= 96 else None,
        in_body=body,
        source=_source(raw),
        aborted=bool(getattr(raw.description, "aborted", False)),
    )


def _source(raw: Transaction) -> Address | None:
    if raw.in_msg is None or not raw.in_msg.is_internal:
        return None
    return Address(raw.in_msg.info.src.wc, bytes(raw.in_msg.info.src.hash_part))


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


@contextmanager
def _blaming_nobody(subject: str) -> Iterator[None]:
    """Turn whatever a parser stumbles over into an error that leaves the liteserver out of it (rule 8)."""
    try:
        yield
    except Exception as error:
        reason = error if isinstance(error, ChainConflictError) else repr(error)
        raise UnreadableStateError(f"{subject}: {reason!s:.120}") from error
