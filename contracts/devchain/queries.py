"""What the embedded chain answers to a liteserver's query. No I/O, no clock: (query, now) -> answer.

Untrusted input: queries. Rules: ids must be known; counts are capped; whatever a query cannot get is
answered with `liteServer.error`, with the code and the words that TON's own liteserver uses where
clients look at them.

Deliberately elsewhere: bytes on the wire (`tl`, `adnl`), waiting for a block (`liteserver`).
Source: TON `validator/impl/liteserver.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from pytoniq_core import Cell

from contracts.devchain.blocks import Step
from contracts.devchain.boc import from_boc, to_boc
from contracts.devchain.errors import (
    BlockUnknownError,
    DevchainError,
    InvalidMessageError,
    InvalidQueryError,
    NotAcceptedError,
)
from contracts.devchain.ledger import NOT_ACTIVE
from contracts.devchain.node import Node
from contracts.devchain.tl import BlockId, encode
from contracts.devchain.trie import merkle_proof

TRANSACTIONS_MAX = 16
BLOCK_TRANSACTIONS_MAX = 256
ARGUMENT_BYTES_MAX = 65536

_VERSION = 0x101
_CAPABILITIES = 7
_ERROR, _NOT_READY, _PROTOCOL = 0, 651, 621
_Fields = dict[str, Any]


def answer(node: Node, name: str, fields: _Fields, now: int) -> bytes:
    """Answer the decoded query `name` at unix time `now`; what cannot be answered becomes an error."""
    handler = _HANDLERS.get(name)
    if handler is None:
        return error(_PROTOCOL, f"{name} is not supported here")
    try:
        return handler(node, fields, now)
    except NotAcceptedError as refusal:
        return error(_ERROR, f"cannot apply external message to current state : {refusal}")
    except BlockUnknownError as unknown:
        return error(_NOT_READY, f"block is not in db : {unknown}")
    except DevchainError as failure:
        return error(_PROTOCOL, str(failure))


def error(code: int, message: str) -> bytes:
    return encode("liteServer.error", code=code, message=message.encode()[:250])


def _masterchain_info(node: Node, _fields: _Fields, _now: int) -> bytes:
    step = node.head
    return encode(
        "liteServer.masterchainInfo",
        last=step.masterchain_id,
        state_root_hash=step.masterchain_state.get_hash(0),
        init=node.zero_id,
    )


def _masterchain_info_ext(node: Node, _fields: _Fields, now: int) -> bytes:
    step = node.head
    return encode(
        "liteServer.masterchainInfoExt",
        mode=0,
        version=_VERSION,
        capabilities=_CAPABILITIES,
        last=step.masterchain_id,
        last_utime=step.time_s,
        now=now,
        state_root_hash=step.masterchain_state.get_hash(0),
        init=node.zero_id,
    )


def _time(_node: Node, _fields: _Fields, now: int) -> bytes:
    return encode("liteServer.currentTime", now=now)


def _version(_node: Node, _fields: _Fields, now: int) -> bytes:
    return encode("liteServer.version", mode=0, version=_VERSION, capabilities=_CAPABILITIES, now=now)


def _block(node: Node, fields: _Fields, _now: int) -> bytes:
    return encode("liteServer.blockData", id=fields["id"], data=to_boc(_block_cell(node, fields["id"])))


def _block_header(node: Node, fields: _Fields, _now: int) -> bytes:
    return _header(fields["id"], _block_cell(node, fields["id"]))


def _lookup_block(node: Node, fields: _Fields, _now: int) -> bytes:
    mode, wanted = fields["mode"], fields["id"]
    if wanted["workchain"] not in (-1, 0):
        raise InvalidQueryError("no such workchain")
    if mode & 7 == 1:
        step = node.step_by_seqno(wanted["seqno"])
    elif mode & 7 == 2:
        step = node.step_by_lt(fields["lt"])
    elif mode & 7 == 4:
        step = node.step_by_time(fields["utime"])
    else:
        raise InvalidQueryError("exactly one of mode.0, mode.1 and mode.2 must be set")
    if wanted["workchain"] == -1:
        return _header(step.masterchain_id, step.masterchain_block)
    return _header(step.shard_id, step.shard_block)


def _header(block_id: BlockId, block: Cell) -> bytes:
    return encode("liteServer.blockHeader", id=block_id, mode=0, header_proof=to_boc(_header_proof(block)))


def _all_shards_info(node: Node, fields: _Fields, _now: int) -> bytes:
    step = _masterchain_step(node, fields["id"])
    data = Cell.empty().to_builder().store_maybe_ref(step.shard_hashes).end_cell()
    return encode("liteServer.allShardsInfo", id=fields["id"], proof=_shard_proof(step), data=to_boc(data))


def _account_state(node: Node, fields: _Fields, _now: int) -> bytes:
    step, account = node.step(fields["id"]), _account(fields)
    cell, _ = node.account(step, account)
    return encode(
        "liteServer.accountState",
        id=fields["id"],
        shardblk=step.shard_id,
        shard_proof=_shard_proof(step),
        proof=_account_proof(step, account),
        state=b"" if cell is None else _state_boc(cell.refs[0]),
    )


@lru_cache(maxsize=8)
def _state_boc(account: Cell) -> bytes:
    """Every agent of a pool reads the same few accounts after each block, and those may be large."""
    return to_boc(account)


def _run_method(node: Node, fields: _Fields, _now: int) -> bytes:
    step, account = node.step(fields["id"]), _account(fields)
    stack = from_boc(fields["params"], bytes_max=ARGUMENT_BYTES_MAX)
    method = fields["method_id"] & 0xFFFFFFFF
    _, state = node.account(step, account)
    result = node.ledger.get_method_at(state, method, stack, step.time_s)
    proofs = {}
    if fields["mode"] & 1:
        proofs = {"shard_proof": _shard_proof(step), "proof": _account_proof(step, account)}
    return encode(
        "liteServer.runMethodResult",
        mode=fields["mode"] & 0b101,
        id=fields["id"],
        shardblk=step.shard_id,
        exit_code=NOT_ACTIVE if result is None else result.exit_code,
        result=b"" if result is None else to_boc(result.stack),
        **proofs,
    )


def _send_message(node: Node, fields: _Fields, now: int) -> bytes:
    try:
        node.send(fields["body"], now)
    except InvalidMessageError as invalid:
        return error(_ERROR, f"cannot apply external message to current state : {invalid}")
    return encode("liteServer.sendMsgStatus", status=1)


def _transactions(node: Node, fields: _Fields, _now: int) -> bytes:
    count = min(fields["count"], TRANSACTIONS_MAX)
    found = list(node.transactions(_account(fields), fields["lt"], count))
    if not found or found[0][1].hash != fields["hash"]:
        return error(_NOT_READY, "no such transaction, or it is older than the history")
    cells = to_boc(*(cell for _, cell in found))
    return encode("liteServer.transactionList", ids=[block for block, _ in found], transactions=cells)


def _block_transactions(node: Node, fields: _Fields, _now: int) -> bytes:
    step = node.step(fields["id"])
    listed = [] if fields["id"].workchain == -1 else list(step.transactions)
    listed.sort(key=lambda t: (t.address.account, t.lt))
    after = fields.get("after")
    if after is not None:
        listed = [t for t in listed if (t.address.account, t.lt) > (after["account"], after["lt"])]
    count = min(fields["count"], BLOCK_TRANSACTIONS_MAX)
    ids = [{"mode": 7, "account": t.address.account, "lt": t.lt, "hash": t.hash} for t in listed[:count]]
    return encode(
        "liteServer.blockTransactions",
        id=fields["id"],
        req_count=count,
        incomplete=len(listed) > count,
        ids=ids,
        proof=to_boc(_transactions_proof(_block_cell(node, fields["id"]), step)),
    )


def _config(node: Node, fields: _Fields, _now: int) -> bytes:
    """All of the config, for getConfigParams too: it is small."""
    step = _masterchain_step(node, fields["id"])
    state = step.masterchain_state
    extra = state.refs[3]
    shown = [extra, *_below(extra.refs[1]), extra.refs[2]]
    return encode(
        "liteServer.configInfo",
        mode=0,
        id=fields["id"],
        state_proof=to_boc(_header_proof(step.masterchain_block)),
        config_proof=to_boc(merkle_proof(state, shown)),
    )


def _masterchain_step(node: Node, block: BlockId) -> Step:
    step = node.step(block)
    if block.workchain != -1:
        raise InvalidQueryError("a masterchain block is needed")
    return step


def _block_cell(node: Node, block: BlockId) -> Cell:
    step = node.step(block)
    return step.masterchain_block if block.workchain == -1 else step.shard_block


def _account(fields: _Fields) -> bytes:
    account = fields["account"]
    if account["workchain"] != 0:
        raise InvalidQueryError("accounts live in workchain 0")
    return bytes(account["id"])


def _header_proof(block: Cell) -> Cell:
    """The block with its info and its state update; the rest pruned."""
    info, update = block.refs[0], block.refs[2]
    return merkle_proof(block, [info, *info.refs, update])


def _transactions_proof(block: Cell, step: Step) -> Cell:
    """The header, and the list of transactions by account without the transactions' own cells."""
    info, update, extra = block.refs[0], block.refs[2], block.refs[3]
    listed = _below(extra.refs[2], hidden={t.hash for t in step.transactions})
    return merkle_proof(block, [info, *info.refs, update, extra, *extra.refs[:2], *listed])


def _shard_proof(step: Step) -> bytes:
    """From a masterchain block to its state, to the shard blocks that it names."""
    extra = step.masterchain_state.refs[3]
    shards, info = extra.refs[0], extra.refs[2]
    state = merkle_proof(step.masterchain_state, [extra, *_below(shards), info])
    return to_boc(_header_proof(step.masterchain_block), state)


def _account_proof(step: Step, account: bytes) -> bytes:
    """From a shard block to its state, to the account in it or to where it would stand."""
    path = step.accounts.path(int.from_bytes(account, "big"))
    state = merkle_proof(step.shard_state, [step.shard_state.refs[1], *path])
    return to_boc(_header_proof(step.shard_block), state)


def _below(cell: Cell, hidden: Collection[bytes] = ()) -> list[Cell]:
    """`cell` and every cell under it, but for those with a hash in `hidden` and what is under them.

    For trees that this program made: what a client made may have a few cells and no end of paths.
    """
    if cell.hash in hidden:
        return []
    return [cell, *(inner for ref in cell.refs for inner in _below(ref, hidden))]


_HANDLERS: dict[str, Callable[[Node, _Fields, int], bytes]] = {
    "liteServer.getMasterchainInfo": _masterchain_info,
    "liteServer.getMasterchainInfoExt": _masterchain_info_ext,
    "liteServer.getTime": _time,
    "liteServer.getVersion": _version,
    "liteServer.getBlock": _block,
    "liteServer.getBlockHeader": _block_header,
    "liteServer.lookupBlock": _lookup_block,
    "liteServer.getAllShardsInfo": _all_shards_info,
    "liteServer.getAccountState": _account_state,
    "liteServer.runSmcMethod": _run_method,
    "liteServer.sendMessage": _send_message,
    "liteServer.getTransactions": _transactions,
    "liteServer.listBlockTransactions": _block_transactions,
    "liteServer.getConfigAll": _config,
    "liteServer.getConfigParams": _config,
}
