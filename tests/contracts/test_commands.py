"""Commands: one value has one cell, what is broken is refused, and a value is one that the contracts take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import certificate, layout
from contracts.commands import (
    AcceptSet,
    CancelProposal,
    Command,
    FeesTo,
    ProposeParams,
    ProposeSet,
    SetMetadata,
    SetReputation,
    Slash,
    SlashReason,
    Target,
)
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.payloads import PAYLOADS
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    Address,
    CertificateDomain,
    CertificateKind,
    EpochTerms,
    Operator,
    OperatorSet,
    PoolMetadata,
    PoolParams,
    Proposal,
    SettlePayload,
    StakeRules,
)
from tests.contracts.cell_values import COMMAND_CLASSES, COMMANDS, LIBRARY, commands_of, mutated
from tests.contracts.pool_scene import PARAMS, TERMS
from tests.contracts.unchecked import unchecked

HASH = hashlib.sha256(b"something").digest()
OWNER = Address(0, hashlib.sha256(b"owner").digest())
TARGET = Target(participant=OWNER, joined_s=1_800_000_000, seqno=3)
DOMAIN = CertificateDomain(global_id=-239, pool=OWNER, set_id=12)


def test_every_kind_has_its_command() -> None:
    assert set(PAYLOADS) == set(COMMAND_CLASSES) == set(CertificateKind)


@pytest.mark.parametrize("kind", CertificateKind)
def test_a_command_survives(kind: CertificateKind) -> None:
    @settings(max_examples=30)
    @given(commands_of(kind))
    def survives(command: Command) -> None:
        cell = layout.command_cell(command)
        assert cell.bits[:8].tobytes() == bytes([kind])
        assert layout.read_command(layout.parse_boc(cell.to_boc())) == command

    survives()


@settings(max_examples=400)
@given(COMMANDS, st.data())
def test_a_command_has_one_form(command: Command, data: st.DataObject) -> None:
    """Whatever decodes is exactly the cell that it encodes to: a hash stands for one value."""
    changed = mutated(layout.command_cell(command), data)
    try:
        decoded = layout.read_command(changed)
    except InvalidCellError:
        return
    assert layout.command_cell(decoded).hash == changed.hash


@settings(max_examples=100)
@given(COMMANDS, st.integers(0, 2**32 - 1), st.data())
def test_a_certificate_survives_and_has_one_form(command: Command, until_s: int, data: st.DataObject) -> None:
    cell = certificate.command_certificate(DOMAIN, command, valid_until_s=until_s)
    read = certificate.read_certificate(cell)
    assert (read.domain, read.kind, read.valid_until_s, read.command()) == (DOMAIN, command.kind, until_s, command)
    changed = mutated(cell, data)
    try:
        read = certificate.read_certificate(changed)
        decoded = read.command()
    except InvalidCellError:
        return
    again = certificate.command_certificate(read.domain, decoded, valid_until_s=read.valid_until_s)
    assert again.hash == changed.hash


@pytest.mark.parametrize(
    "cell",
    [
        Cell.empty(),
        Builder().store_uint(0x7F, 8).end_cell(),
        Builder().store_uint(0, 8).end_cell(),
        Builder().store_uint(CertificateKind.PAUSE, 8).store_uint(1, 31).end_cell(),
        Builder().store_uint(CertificateKind.PAUSE, 8).store_uint(1, 33).end_cell(),
        LIBRARY,
    ],
    ids=["empty", "unknown", "zero", "short", "long", "library"],
)
def test_what_is_no_command(cell: Cell) -> None:
    with pytest.raises(InvalidCellError):
        layout.read_command(cell)


def broken_commands() -> list[tuple[str, Command]]:
    """Values that no command has, as a hostile peer would write them."""
    slash = Slash(target=TARGET, amount_nanoton=1, reason=SlashReason.FORK, evidence_hash=HASH)
    params = ProposeParams(gov_seqno=1, params=PARAMS)
    metadata = SetMetadata(gov_seqno=1, metadata=PoolMetadata(name="name"))
    cancel = CancelProposal(gov_seqno=1, proposal=CertificateKind.PROPOSE_SET)
    return [
        ("reason", unchecked(slash, reason=9)),
        ("reputation", unchecked(SetReputation(target=TARGET, reputation=1000), reputation=1001)),
        ("fee", unchecked(params, params=unchecked(PARAMS, terms=unchecked(TERMS, fee_bps=10_001)))),
        ("no minimum", unchecked(params, params=unchecked(PARAMS, rules=unchecked(PARAMS.rules, min_stake_nanoton=0)))),
        ("proposal", unchecked(cancel, proposal=CertificateKind.PAUSE)),
        ("no such proposal", unchecked(cancel, proposal=0x7F)),
        ("long name", unchecked(metadata, metadata=unchecked(PoolMetadata(), name="x" * 65))),
        ("control character", unchecked(metadata, metadata=unchecked(PoolMetadata(), contact="a\x1b[2J"))),
    ]


@pytest.mark.parametrize(("name", "command"), broken_commands(), ids=[name for name, _ in broken_commands()])
def test_a_value_out_of_range_is_refused(name: str, command: Command) -> None:
    with pytest.raises(InvalidCellError):
        layout.read_command(layout.command_cell(command))


def text_cell(*parts: bytes) -> Cell:
    link: Cell | None = None
    for part in reversed(parts):
        builder = Builder().store_bytes(part)
        link = (builder if link is None else builder.store_ref(link)).end_cell()
    assert link is not None
    return link


@pytest.mark.parametrize(
    "text",
    [
        text_cell(b"\xff"),
        text_cell(b"ab", b"c"),
        text_cell(b"x" * 127, b""),
        text_cell(b"x" * 127, b"x" * 127, b"x" * 3),
        Builder().store_uint(1, 7).end_cell(),
        Builder().store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell(),
        LIBRARY,
    ],
    ids=["not UTF-8", "cells half full", "empty rest", "too long", "half a byte", "two rests", "library"],
)
def test_a_text_that_nobody_should_sign(text: Cell) -> None:
    cell = layout.command_cell(SetMetadata(gov_seqno=1, metadata=PoolMetadata()))
    metadata = cell.refs[0]
    forged = Cell(cell.bits, [Cell(metadata.bits, [metadata.refs[0], text, *metadata.refs[2:]], -1)], -1)
    with pytest.raises(InvalidCellError):
        layout.read_command(forged)


def wrong_set(change: str) -> Cell:
    """An operator set that says one thing and holds another."""
    cell = Builder().store_uint(2, 32)
    cell.store_uint(2 if change == "count" else 1, 16).store_uint(9 if change == "weight" else 1, 64)
    key = 1 if change == "index" else 0
    weight = 0 if change == "no weight" else 1
    root = layout.dictionary.build({key: weight}, 16, lambda b, w: b.store_bytes(HASH).store_uint(w, 32))
    if change == "nobody":
        root = None
    return cell.store_maybe_ref(root).end_cell()


@pytest.mark.parametrize("change", ["count", "weight", "index", "no weight", "nobody"])
def test_a_set_that_contradicts_itself_is_refused(change: str) -> None:
    with pytest.raises(InvalidCellError):
        layout.read_operator_set(wrong_set(change))
    payload = Builder().store_uint(CertificateKind.ACCEPT_SET, 8).store_ref(wrong_set(change)).end_cell()
    with pytest.raises(InvalidCellError):
        layout.read_command(payload)


def test_a_set_with_one_key_twice_is_not_accepted() -> None:
    one = Operator(node_key=HASH, weight=1)
    cell = layout.command_cell(AcceptSet(operator_set=OperatorSet(set_id=2, operators=(one, one))))
    with pytest.raises(InvalidCellError, match="a node key stands twice"):
        layout.read_command(cell)


def test_a_set_of_too_many_is_refused() -> None:
    keys = {i: i for i in range(181)}
    root = layout.dictionary.build(keys, 16, lambda b, i: b.store_bytes(i.to_bytes(32, "big")).store_uint(1, 32))
    cell = Builder().store_uint(2, 32).store_uint(181, 16).store_uint(181, 64).store_maybe_ref(root).end_cell()
    with pytest.raises(InvalidCellError, match="more than 180"):
        layout.read_operator_set(cell)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EpochTerms(fee_bps=10_001, policy_hash=HASH),
        lambda: EpochTerms(fee_bps=1, policy_hash=HASH[:31]),
        lambda: EpochTerms(fee_bps=1, policy_hash=HASH, max_refund_nanoton=2**120),
        lambda: StakeRules(min_stake_nanoton=0),
        lambda: StakeRules(slash_bps=10_001),
        lambda: StakeRules(withdrawal_delay_s=HOUR_S - 1),
        lambda: StakeRules(withdrawal_delay_s=30 * DAY_S + 1),
        lambda: StakeRules(min_uptime_pct=101),
        lambda: PoolParams(terms=TERMS, max_participants=12_001),
        lambda: PoolParams(terms=TERMS, parameter_delay_s=HOUR_S - 1),
        lambda: PoolParams(terms=TERMS, parameter_delay_s=30 * DAY_S + 1),
        lambda: PoolParams(terms=TERMS, upgrade_delay_s=8 * DAY_S - 1),
        lambda: PoolParams(terms=TERMS, upgrade_delay_s=90 * DAY_S + 1),
        lambda: PoolMetadata(name="x" * 65),
        lambda: PoolMetadata(name="é" * 33),
        lambda: PoolMetadata(description="two\nlines"),
        lambda: PoolMetadata(website="\ud800"),
        lambda: OperatorSet(set_id=1, operators=()),
        lambda: Target(participant=Address(-1, HASH), joined_s=0, seqno=0),
        lambda: Target(participant=OWNER, joined_s=0, seqno=2**32),
        lambda: SetReputation(target=TARGET, reputation=-1),
        lambda: ProposeSet(gov_seqno=-1, set_hash=HASH),
        lambda: ProposeSet(gov_seqno=1, set_hash=b""),
        lambda: FeesTo(gov_seqno=1, recipient=OWNER, amount_nanoton=-1),
        lambda: CancelProposal(gov_seqno=1, proposal=CertificateKind.CLOSE),
        lambda: Proposal(kind=CertificateKind.PROPOSE_PARAMS, hash=HASH, since_s=1),
        lambda: Proposal(kind=CertificateKind.PROPOSE_SET, hash=HASH, since_s=1, params=PARAMS),
        lambda: Proposal(kind=CertificateKind.PAUSE, hash=HASH, since_s=1),
    ],
)
def test_values_that_no_pool_takes(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError):
        make()


def test_the_defaults_are_those_of_the_specification() -> None:
    params = PoolParams(terms=EpochTerms(fee_bps=200, policy_hash=HASH))
    assert (params.rules.min_stake_nanoton, params.rules.slash_bps) == (100 * NANO, 1000)
    assert (params.rules.withdrawal_delay_s, params.parameter_delay_s) == (7 * DAY_S, 3 * DAY_S)
    assert params.upgrade_delay_s > params.rules.withdrawal_delay_s
    assert not params.emergency


def test_when_a_proposal_can_be_applied() -> None:
    upgrade = Proposal(kind=CertificateKind.PROPOSE_UPGRADE, hash=HASH, since_s=1000)
    change = Proposal(kind=CertificateKind.PROPOSE_PARAMS, hash=HASH, since_s=1000, params=PARAMS)
    assert change.ready_s(PARAMS) == 1000 + 3 * DAY_S
    assert upgrade.ready_s(PARAMS) == 1000 + 8 * DAY_S
    assert upgrade.expires_s(PARAMS) == upgrade.ready_s(PARAMS) + 30 * DAY_S
    announced = replace(upgrade, not_before_s=1000 + 60 * DAY_S)
    assert announced.ready_s(PARAMS) == announced.not_before_s


def test_a_settlement_is_a_command() -> None:
    payload = SettlePayload(
        epoch=1, prev=HASH, totals_root=HASH, count=1, total_score=1, total_earned_nanoton=1,
        tasks=1, tokens=1, policy_hash=HASH, cut_root=HASH,
    )  # fmt: skip
    assert layout.read_command(layout.payload_cell(payload)) == payload
    assert AcceptSet.kind != payload.kind == CertificateKind.SETTLE
