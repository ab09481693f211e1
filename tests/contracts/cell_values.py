"""Strategies for everything that the contracts' cells hold, and what goes wrong with cells."""

from __future__ import annotations

import typing
from typing import Any

from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts.commands import Command, SlashReason, Target
from contracts.layout.codec import Codec, Field, Part
from contracts.layout.payloads import PAYLOADS
from contracts.model import (
    BPS,
    DAY_S,
    HOUR_S,
    PARTICIPANTS_MAX,
    PROPOSAL_KINDS,
    REPUTATION_MAX,
    Address,
    CertificateKind,
    EpochTerms,
    Operator,
    OperatorSet,
    PinnedTerms,
    PoolMetadata,
    PoolParams,
    StakeRules,
    UpgradeTarget,
)

HASHES = st.binary(min_size=32, max_size=32)
TIMES = st.integers(0, 2**32 - 1)
COINS = st.integers(0, 2**120 - 1) | st.integers(0, 300)
ACCOUNTS = st.builds(Address, st.just(0), HASHES)
ADDRESSES = st.builds(Address, st.integers(-128, 127), HASHES)
TERMS = st.builds(
    EpochTerms,
    fee_bps=st.integers(0, BPS),
    policy_hash=HASHES,
    max_refund_nanoton=COINS,
    auto_distribute=st.booleans(),
    min_distribution_nanoton=COINS,
)
PINNED = st.builds(PinnedTerms, set_id=TIMES, terms=TERMS)
RULES = st.builds(
    StakeRules,
    min_stake_nanoton=st.integers(1, 2**120 - 1),
    slash_bps=st.integers(0, BPS),
    withdrawal_delay_s=st.integers(HOUR_S, 30 * DAY_S),
    heartbeat_timeout_s=TIMES,
    min_uptime_pct=st.integers(0, 100),
)
PARAMS = st.builds(
    PoolParams,
    terms=TERMS,
    rules=RULES,
    max_participants=st.integers(0, PARTICIPANTS_MAX),
    parameter_delay_s=st.integers(HOUR_S, 30 * DAY_S),
    upgrade_delay_s=st.integers(31 * DAY_S, 90 * DAY_S),
    emergency=st.booleans(),
    guardian=st.none() | ADDRESSES,
)
OPERATOR_SETS = st.builds(
    OperatorSet,
    set_id=TIMES,
    operators=st.lists(
        st.builds(Operator, node_key=HASHES, weight=st.integers(1, 2**32 - 1)),
        min_size=1,
        max_size=6,
        unique_by=lambda operator: operator.node_key,
    ).map(tuple),
)


def texts(bytes_max: int) -> st.SearchStrategy[str]:
    """Printable text of at most so many bytes, mostly short or as long as can be."""
    characters = st.characters(exclude_categories=("C", "Z"), max_codepoint=0xFFFF)
    short = st.text(characters, max_size=bytes_max // 3)
    return short | st.integers(bytes_max - 3, bytes_max).map(lambda length: "x" * length)


METADATA = st.builds(
    PoolMetadata, name=texts(64), description=texts(256), website=texts(100), contact=texts(100)
).filter(lambda metadata: all(getattr(metadata, name).isprintable() for name in ("name", "description")))
CELLS = st.binary(max_size=40).map(lambda octets: Builder().store_bytes(octets).end_cell())
SIGNATURES = st.binary(min_size=64, max_size=64)

_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "Bool": st.booleans(),
    "Coins": COINS,
    "MsgAddressInt": ADDRESSES,
    "MsgAddress": st.none() | ADDRESSES,
    "bits256": HASHES,
    "bits512": SIGNATURES,
    "Target": st.builds(Target, participant=ACCOUNTS, joined_s=TIMES, seqno=TIMES),
    "^Params": PARAMS,
    "^Metadata": METADATA,
    "^OperatorSet": OPERATOR_SETS,
    "^StakeRules": RULES,
    "^PinnedTerms": PINNED,
}
_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "reputation": st.integers(0, REPUTATION_MAX),
    "reason": st.sampled_from(SlashReason),
    "proposal": st.sampled_from(sorted(PROPOSAL_KINDS)),
    "owner": ACCOUNTS,
    "participant": ACCOUNTS,
}


def values(codec: Codec[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """What a struct's fields may hold, by attribute."""
    return st.fixed_dictionaries(dict(_flat(codec.fields)))


def _flat(fields: tuple[Field | Part, ...]) -> typing.Iterator[tuple[str, st.SearchStrategy[Any]]]:
    for field in fields:
        if isinstance(field, Part):
            yield from _flat(field.fields)
        elif field.key:
            yield field.key, _strategy(field)


def _strategy(field: Field) -> st.SearchStrategy[Any]:
    tlb = field.codec.tlb
    if field.key in _BY_NAME and not (field.key == "reputation" and tlb == "uint10"):
        return _BY_NAME[field.key]
    if tlb in _BY_TYPE:
        return _BY_TYPE[tlb]
    if tlb.startswith("uint"):
        return st.integers(0, 2 ** int(tlb[4:]) - 1)
    assert tlb.startswith("^"), tlb
    return CELLS


COMMAND_CLASSES: dict[CertificateKind, type] = {
    member.kind: member for union in typing.get_args(Command) for member in (typing.get_args(union) or (union,))
}


def commands_of(kind: CertificateKind) -> st.SearchStrategy[Any]:
    """Commands of one kind."""
    made = values(PAYLOADS[kind])
    if kind == CertificateKind.PROPOSE_UPGRADE:
        made = st.tuples(made, st.sampled_from(UpgradeTarget)).map(lambda pair: {**pair[0], "target": pair[1]})
    return made.map(lambda fields: COMMAND_CLASSES[kind](**fields))


COMMANDS = st.sampled_from(CertificateKind).flatmap(commands_of)

LIBRARY = Cell(Builder().store_uint(2, 8).store_uint(7, 256).end_cell().bits, [], 2)
"""An exotic cell that stands for whatever its publisher likes."""


def mutated(cell: Cell, data: st.DataObject) -> Cell:
    """The same tree of cells with one thing broken somewhere in it."""
    if cell.is_exotic:
        return LIBRARY
    bits, refs = cell.bits.copy(), list(cell.refs)
    if refs and data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(refs) - 1))
        instead = data.draw(st.sampled_from([None, None, LIBRARY, Cell.empty()]))
        refs[index] = instead or mutated(refs[index], data)
        return Cell(bits, refs, -1)
    how = data.draw(st.sampled_from(["flip", "shorten", "lengthen", "drop", "double"]))
    if how == "flip" and bits:
        bits[data.draw(st.integers(0, len(bits) - 1))] ^= 1
    elif how == "shorten" and bits:
        bits = bits[: data.draw(st.integers(0, len(bits) - 1))]
    elif how == "drop" and refs:
        refs.pop(data.draw(st.integers(0, len(refs) - 1)))
    elif how == "double" and 0 < len(refs) < 4:
        refs.append(refs[0])
    elif len(bits) < 1023:
        bits = bits + Builder().store_uint(data.draw(st.integers(0, 1)), 1).end_cell().bits
    return Cell(bits, refs, -1)
