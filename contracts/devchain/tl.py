"""The liteserver's wire format (TL), as much of it as the embedded chain speaks.

Untrusted input: queries. Rules: a known constructor, every field within the bytes that there are,
vectors of at most `VECTOR_MAX`, nothing left over; else `InvalidQueryError`.

Source: TON `tl/generate/scheme/lite_api.tl`; the lines below are that schema's, and a constructor's
number is the CRC-32 of its line unless the line names it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

from contracts.devchain.errors import InvalidQueryError

VECTOR_MAX = 256
SHARD_ALL = -(2**63)

_SCHEMA = """
tcp.ping random_id:long = tcp.Pong
tcp.pong random_id:long = tcp.Pong
adnl.message.query query_id:int256 query:bytes = adnl.Message
adnl.message.answer query_id:int256 answer:bytes = adnl.Message
tonNode.blockId workchain:int shard:long seqno:int = tonNode.BlockId
tonNode.blockIdExt workchain:int shard:long seqno:int root_hash:int256 file_hash:int256 = tonNode.BlockIdExt
tonNode.zeroStateIdExt workchain:int root_hash:int256 file_hash:int256 = tonNode.ZeroStateIdExt
liteServer.error code:int message:string = liteServer.Error
liteServer.accountId workchain:int id:int256 = liteServer.AccountId
liteServer.masterchainInfo last:tonNode.blockIdExt state_root_hash:int256 init:tonNode.zeroStateIdExt = liteServer.MasterchainInfo
liteServer.masterchainInfoExt mode:# version:int capabilities:long last:tonNode.blockIdExt last_utime:int now:int state_root_hash:int256 init:tonNode.zeroStateIdExt = liteServer.MasterchainInfoExt
liteServer.currentTime now:int = liteServer.CurrentTime
liteServer.version mode:# version:int capabilities:long now:int = liteServer.Version
liteServer.blockData id:tonNode.blockIdExt data:bytes = liteServer.BlockData
liteServer.blockHeader id:tonNode.blockIdExt mode:# header_proof:bytes = liteServer.BlockHeader
liteServer.sendMsgStatus status:int = liteServer.SendMsgStatus
liteServer.accountState id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:bytes proof:bytes state:bytes = liteServer.AccountState
liteServer.runMethodResult mode:# id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:mode.0?bytes proof:mode.0?bytes state_proof:mode.1?bytes init_c7:mode.3?bytes lib_extras:mode.4?bytes exit_code:int result:mode.2?bytes = liteServer.RunMethodResult
liteServer.allShardsInfo id:tonNode.blockIdExt proof:bytes data:bytes = liteServer.AllShardsInfo
liteServer.transactionList ids:(vector tonNode.blockIdExt) transactions:bytes = liteServer.TransactionList
liteServer.transactionId#b12f65af mode:# account:mode.0?int256 lt:mode.1?long hash:mode.2?int256 = liteServer.TransactionId
liteServer.transactionId3 account:int256 lt:long = liteServer.TransactionId3
liteServer.blockTransactions id:tonNode.blockIdExt req_count:# incomplete:Bool ids:(vector liteServer.transactionId) proof:bytes = liteServer.BlockTransactions
liteServer.configInfo mode:# id:tonNode.blockIdExt state_proof:bytes config_proof:bytes = liteServer.ConfigInfo
liteServer.query data:bytes = Object
liteServer.waitMasterchainSeqno seqno:int timeout_ms:int = Object
liteServer.getMasterchainInfo = liteServer.MasterchainInfo
liteServer.getMasterchainInfoExt mode:# = liteServer.MasterchainInfoExt
liteServer.getTime = liteServer.CurrentTime
liteServer.getVersion = liteServer.Version
liteServer.getBlock id:tonNode.blockIdExt = liteServer.BlockData
liteServer.getBlockHeader id:tonNode.blockIdExt mode:# = liteServer.BlockHeader
liteServer.sendMessage body:bytes = liteServer.SendMsgStatus
liteServer.getAccountState id:tonNode.blockIdExt account:liteServer.accountId = liteServer.AccountState
liteServer.runSmcMethod mode:# id:tonNode.blockIdExt account:liteServer.accountId method_id:long params:bytes = liteServer.RunMethodResult
liteServer.getAllShardsInfo id:tonNode.blockIdExt = liteServer.AllShardsInfo
liteServer.getTransactions count:# account:liteServer.accountId lt:long hash:int256 = liteServer.TransactionList
liteServer.lookupBlock mode:# id:tonNode.blockId lt:mode.1?long utime:mode.2?int = liteServer.BlockHeader
liteServer.listBlockTransactions id:tonNode.blockIdExt mode:# count:# after:mode.7?liteServer.transactionId3 reverse_order:mode.6?true want_proof:mode.5?true = liteServer.BlockTransactions
liteServer.getConfigAll mode:# id:tonNode.blockIdExt = liteServer.ConfigInfo
liteServer.getConfigParams mode:# id:tonNode.blockIdExt param_list:(vector int) = liteServer.ConfigInfo
"""  # noqa: E501 -- the schema's own lines: their CRC-32 is the constructor's number

_FIXED = {"int": (4, True), "long": (8, True), "#": (4, False)}
_TRUE, _FALSE = b"\xb5\x75\x72\x99", b"\x37\x97\x79\xbc"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockId:
    """`tonNode.blockIdExt`: one block of one chain. Hashes are 32 bytes."""

    workchain: int
    seqno: int
    root_hash: bytes
    file_hash: bytes
    shard: int = SHARD_ALL


@dataclass(frozen=True, slots=True)
class _Constructor:
    name: str
    number: bytes
    fields: tuple[tuple[str, str], ...]


def _constructors() -> dict[str, _Constructor]:
    found = {}
    for line in _SCHEMA.strip().splitlines():
        head, *fields = line.split(" = ")[0].replace("(vector ", "vector<").replace(")", ">").split()
        name, _, number = head.partition("#")
        value = int(number, 16) if number else zlib.crc32(re.sub("[()]", "", line).encode())
        pairs = tuple((field.partition(":")[0], field.partition(":")[2]) for field in fields)
        found[name] = _Constructor(name, value.to_bytes(4, "little"), pairs)
    return found


_BY_NAME = _constructors()
_BY_NUMBER = {c.number: c for c in _BY_NAME.values()}


def encode(name: str, **values: Any) -> bytes:
    """Encode a boxed value of the constructor `name`; fields that its mode leaves out may be absent."""
    constructor = _BY_NAME[name]
    return constructor.number + _encode_fields(constructor, values)


def decode(data: bytes) -> tuple[str, dict[str, Any]]:
    """Decode one boxed value that takes up all of `data`: constructor name and fields.

    Raises:
        InvalidQueryError: unknown constructor, truncated, or bytes left over.
    """
    name, fields, rest = decode_prefix(data)
    if rest:
        raise InvalidQueryError(f"{name}: {len(rest)} bytes too many")
    return name, fields


def decode_prefix(data: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Decode one boxed value at the start of `data`; returns what follows it as well."""
    constructor = _BY_NUMBER.get(data[:4])
    if constructor is None:
        raise InvalidQueryError(f"unknown query {data[:4].hex()}")
    fields, at = _decode_fields(constructor, data, 4)
    return constructor.name, fields, data[at:]


def _encode_fields(constructor: _Constructor, values: dict[str, Any]) -> bytes:
    parts = []
    for name, declared in constructor.fields:
        kind = _present(declared, values)
        if kind is not None:
            parts.append(_encode_value(kind, values[name]))
    return b"".join(parts)


def _encode_value(kind: str, value: Any) -> bytes:
    if kind in _FIXED:
        size, signed = _FIXED[kind]
        return int(value).to_bytes(size, "little", signed=signed)
    if kind == "int256":
        return bytes(value)
    if kind in ("bytes", "string"):
        head = bytes([len(value)]) if len(value) < 254 else b"\xfe" + len(value).to_bytes(3, "little")
        return head + bytes(value) + bytes(-(len(head) + len(value)) % 4)
    if kind == "Bool":
        return _TRUE if value else _FALSE
    if kind == "true":
        return b""
    if kind.startswith("vector<"):
        return len(value).to_bytes(4, "little") + b"".join(_encode_value(kind[7:-1], item) for item in value)
    fields = value if isinstance(value, dict) else {f: getattr(value, f) for f, _ in _BY_NAME[kind].fields}
    return _encode_fields(_BY_NAME[kind], fields)


def _decode_fields(constructor: _Constructor, data: bytes, at: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    for name, declared in constructor.fields:
        kind = _present(declared, values)
        if kind is not None:
            values[name], at = _decode_value(kind, data, at)
    return values, at


def _decode_value(kind: str, data: bytes, at: int) -> tuple[Any, int]:
    if kind in _FIXED:
        size, signed = _FIXED[kind]
        return int.from_bytes(_take(data, at, size), "little", signed=signed), at + size
    if kind == "int256":
        return _take(data, at, 32), at + 32
    if kind in ("bytes", "string"):
        size, head = _take(data, at, 1)[0], 1
        if size >= 254:
            marker, size, head = size, int.from_bytes(_take(data, at + 1, 3), "little"), 4
            if marker == 255 or size < 254:
                raise InvalidQueryError("a length that is not in its one form")
        padded = -(-(head + size) // 4) * 4
        return _take(data, at, padded)[head : head + size], at + padded
    if kind == "true":
        return True, at
    if kind == "Bool":
        flag = _take(data, at, 4)
        if flag not in (_TRUE, _FALSE):
            raise InvalidQueryError("neither true nor false")
        return flag == _TRUE, at + 4
    if kind.startswith("vector<"):
        count = int.from_bytes(_take(data, at, 4), "little")
        if count > VECTOR_MAX:
            raise InvalidQueryError(f"vector of {count} is more than {VECTOR_MAX}")
        at, items = at + 4, []
        for _ in range(count):
            item, at = _decode_value(kind[7:-1], data, at)
            items.append(item)
        return items, at
    fields, at = _decode_fields(_BY_NAME[kind], data, at)
    return (BlockId(**fields) if kind == "tonNode.blockIdExt" else fields), at


def _present(kind: str, values: dict[str, Any]) -> str | None:
    """The field's type, or None if its condition (`mode.3?bytes`) leaves it out."""
    condition, question, conditional = kind.partition("?")
    if not question:
        return kind
    name, _, bit = condition.partition(".")
    return conditional if values[name] >> int(bit) & 1 else None


def _take(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise InvalidQueryError("query ends too early")
    return part
