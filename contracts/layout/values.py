"""Codecs of the values that stand in several places: parameters, operator sets, metadata, profiles, leaves.

Untrusted: every cell that is read. Texts of a pool's metadata are strict where an operator is about to sign
them (`METADATA`), and legible whatever they are where the chain holds them already (`STORED_METADATA`): a
pool does not stop because its description is not UTF-8.

Source: `contracts/src/types.tolk`, `contracts/schema.tlb`.
"""

from __future__ import annotations

from typing import Any

from pytoniq_core import Builder, Cell

from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.cells import Reader
from contracts.layout.codec import (
    BOOL,
    COINS,
    HASH,
    MAYBE_ADDRESS,
    Codec,
    Field,
    Part,
    convert,
    hashmap,
    record,
    ref,
    struct,
    uint,
)
from contracts.model import (
    METADATA_BYTES_MAX,
    OPERATORS_MAX,
    Address,
    EpochTerms,
    Leaf,
    Operator,
    OperatorSet,
    PinnedTerms,
    PoolMetadata,
    PoolParams,
    StakeRules,
)

_TEXT_BYTES_MAX = max(METADATA_BYTES_MAX.values())
_CELL_BYTES = 127


def store_leaf(builder: Builder, leaf: Leaf) -> None:
    """Append a leaf's value; its key in the dictionary is the participant's account hash."""
    LEAF.write(builder, {name: getattr(leaf, name) for name in _LEAF_ATTRIBUTES})


def read_leaf(key: int, reader: Reader) -> Leaf:
    """Read the leaf under `key` to its end. Raises `InvalidCellError`."""
    leaf = Leaf(participant=Address(0, key.to_bytes(32, "big")), **LEAF.read(reader))
    reader.end()
    return leaf


def operator_set_cell(operator_set: OperatorSet) -> Cell:
    """Write an operator set; its hash is what a proposal of it names."""
    return OPERATOR_SET.cell(operator_set)


def read_operator_set(cell: Cell) -> OperatorSet:
    """Read an operator set; count and total weight must be those of its operators.

    Raises:
        InvalidCellError: malformed, not numbered 0, 1, 2 ..., or a sum is wrong.
    """
    return OPERATOR_SET.parse(cell)


def params_cell(params: PoolParams) -> Cell:
    """Write parameters; the hash is what a proposal of them names."""
    return PARAMS.cell(params)


def _operator_set(values: dict[str, Any]) -> OperatorSet:
    operators: dict[int, Operator] = values["operators"]
    if list(operators) != list(range(len(operators))):
        raise InvalidValueError("operators are not numbered 0, 1, 2 ...")
    made = OperatorSet(set_id=values["set_id"], operators=tuple(operators.values()))
    if (values["count"], values["total_weight"]) != (len(operators), made.total_weight):
        raise InvalidValueError("count or total weight is not that of its operators")
    return made


def _operator_values(operator_set: OperatorSet) -> dict[str, Any]:
    return {
        "set_id": operator_set.set_id,
        "count": len(operator_set.operators),
        "total_weight": operator_set.total_weight,
        "operators": dict(enumerate(operator_set.operators)),
    }


def _store_text(builder: Builder, text: str) -> None:
    _store_octets(builder, text.encode())


def _store_octets(builder: Builder, octets: bytes) -> None:
    builder.store_bytes(octets[:_CELL_BYTES])
    if len(octets) > _CELL_BYTES:
        rest = Builder()
        _store_octets(rest, octets[_CELL_BYTES:])
        builder.store_ref(rest.end_cell())


def _read_text(reader: Reader) -> str:
    octets = _read_octets(reader, full=True)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise InvalidCellError(f"{reader.name}: not UTF-8") from None


def _read_text_leniently(reader: Reader) -> str:
    text = _read_octets(reader, full=False).decode(errors="replace").replace("\ufffd", "?")
    return "".join(character if character.isprintable() else "?" for character in text)


def _read_octets(reader: Reader, *, full: bool) -> bytes:
    """Bytes over as many cells as the longest text may take; `full`: in the fewest that hold them."""
    octets = b""
    while True:
        if reader.bits_left % 8:
            raise InvalidCellError(f"{reader.name}: not whole bytes")
        part = reader.octets(reader.bits_left // 8)
        if octets and not part and full:
            raise InvalidCellError(f"{reader.name}: not in the fewest cells")
        octets += part
        if len(octets) > _TEXT_BYTES_MAX:
            raise InvalidCellError(f"{reader.name}: more than {_TEXT_BYTES_MAX} bytes")
        if not reader.refs_left:
            return octets
        if len(part) < (_CELL_BYTES if full else 1):
            raise InvalidCellError(f"{reader.name}: not in the fewest cells")
        rest = reader.ref()
        reader.end()
        reader = Reader(rest, reader.name)


def _metadata(text: Codec[str]) -> Codec[PoolMetadata]:
    return struct("Metadata", PoolMetadata, *(Field(name, ref(text)) for name in METADATA_BYTES_MAX))


TERMS = struct(
    "Terms",
    EpochTerms,
    Field("fee_bps", uint(16)),
    Field("policy_hash", HASH),
    Field("max_refund", COINS, "max_refund_nanoton"),
    Field("auto_distribute", BOOL),
    Field("min_distribution", COINS, "min_distribution_nanoton"),
)
PINNED_TERMS = struct("PinnedTerms", PinnedTerms, Field("set_id", uint(32)), Field("terms", ref(TERMS)))
STAKE_RULES = struct(
    "StakeRules",
    StakeRules,
    Field("min_stake", COINS, "min_stake_nanoton"),
    Field("slash_bps", uint(16)),
    Field("withdrawal_delay", uint(32), "withdrawal_delay_s"),
    Field("heartbeat_timeout", uint(32), "heartbeat_timeout_s"),
    Field("min_uptime_pct", uint(8)),
)
PARAMS = struct(
    "Params",
    PoolParams,
    Field("terms", ref(TERMS)),
    Field("rules", ref(STAKE_RULES)),
    Field("max_participants", uint(32)),
    Field("parameter_delay", uint(32), "parameter_delay_s"),
    Field("upgrade_delay", uint(32), "upgrade_delay_s"),
    Field("emergency", BOOL),
    Field("guardian", MAYBE_ADDRESS),
)
METADATA = _metadata(Codec("Text", _store_text, _read_text))
STORED_METADATA = _metadata(Codec("Text", _store_text, _read_text_leniently))
OPERATOR_KEY = struct("OperatorKey", Operator, Field("node_key", HASH), Field("weight", uint(32)))
OPERATOR_SET = convert(
    record(
        "OperatorSet",
        Field("set_id", uint(32)),
        Field("count", uint(16)),
        Field("total_weight", uint(64)),
        Field("operators", hashmap(16, OPERATOR_KEY, OPERATORS_MAX, "operator")),
    ),
    _operator_set,
    _operator_values,
)
PROFILE = Part(
    "profile",
    "Profile",
    (
        Field("node_key", HASH),
        Field("worker", MAYBE_ADDRESS),
        Field("gpu_spec_hash", HASH),
        Field("gpu_count", uint(8)),
    ),
)
LEAF = record(
    "Leaf",
    Field("earned", COINS, "earned_nanoton"),
    Field("score", uint(128)),
    Field("tokens", uint(64)),
    Field("tasks", uint(32)),
    Field("uptime", uint(32), "uptime_s"),
    Field("quality", uint(16)),
    Field("reputation", uint(16)),
    Field("flags", uint(8)),
)
_LEAF_ATTRIBUTES = tuple(field.key for field in LEAF.fields if isinstance(field, Field))
