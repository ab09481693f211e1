"""What a pool may say of itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.commands import SetMetadata
from contracts.model import METADATA_BYTES_MAX, NANO, PoolMetadata
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import OWNER, PARAMS, Scene, Sent
from tests.contracts.unchecked import unchecked

LIMITS = METADATA_BYTES_MAX


def texts(**over: Cell) -> Cell:
    """Metadata made of these cells; the others are empty."""
    builder = Builder()
    for name in LIMITS:
        builder.store_ref(over.get(name, Cell.empty()))
    return builder.end_cell()


def snake(*parts: bytes) -> Cell:
    """One cell for each part, each referred to by the one before."""
    cell: Cell | None = None
    for part in reversed(parts):
        builder = Builder().store_bytes(part)
        cell = (builder.store_ref(cell) if cell is not None else builder).end_cell()
    return cell or Cell.empty()


def send(scene: Scene, metadata: Cell) -> Sent:
    payload = Builder().store_uint(0x1B, 8).store_uint(scene.gov_seqno, 32).store_ref(metadata).end_cell()
    return scene.send(OWNER, scene.pool, NANO, layout.body_cell(Op.POOL_OWNER_COMMAND, payload=payload))


def test_metadata_is_replaced_as_a_whole(scene: Scene) -> None:
    scene.advance(60)
    metadata = PoolMetadata(name="Ein Pool", description="ä" * 128, website="https://pool.example", contact="")
    sent = scene.owner_command(SetMetadata(gov_seqno=1, metadata=metadata))
    assert sent.refusal is None
    pool = scene.pool_state()
    assert (pool.metadata, pool.gov_seqno) == (metadata, 1)
    assert (pool.created_s, pool.updated_s) == (scene.ledger.now - 60, scene.ledger.now)
    assert [e.op for e in sent.events] == [Event.EVENT_METADATA_UPDATED]
    command = layout.command_cell(SetMetadata(gov_seqno=1, metadata=metadata))
    assert sent.events[0].values == {"hash": command.refs[0].hash}


@pytest.mark.parametrize("name", LIMITS)
def test_each_text_has_its_limit(scene: Scene, name: str) -> None:
    longest = PoolMetadata(**{name: "x" * LIMITS[name]})
    assert scene.owner_command(SetMetadata(gov_seqno=1, metadata=longest)).refusal is None
    too_long = unchecked(PoolMetadata(), **{name: "x" * (LIMITS[name] + 1)})
    assert scene.owner_command(SetMetadata(gov_seqno=2, metadata=too_long)).refusal is Refusal.INVALID_METADATA
    assert scene.pool_state().metadata == longest


@pytest.mark.parametrize("name", LIMITS)
def test_init_takes_no_more(name: str) -> None:
    scene = Scene()
    too_long = unchecked(PoolMetadata(), **{name: "x" * (LIMITS[name] + 1)})
    assert scene.deploy(PARAMS, metadata=too_long).refusal is Refusal.INVALID_METADATA


FULL = b"x" * 127
BROKEN = {
    "half a byte": texts(name=Builder().store_uint(5, 4).end_cell()),
    "a name in two cells": texts(name=snake(b"x", b"y")),
    "a website with a cell behind it": texts(website=snake(b"x" * 100, b"")),
    "a cell half full before another": texts(description=snake(b"x" * 100, b"y")),
    "an empty cell before another": texts(description=snake(b"", b"y")),
    "a text too long in its second cell": texts(description=snake(FULL, FULL, b"xyz")),
    "a text too long in its fourth cell": texts(description=snake(FULL, FULL, b"x", b"x")),
    "two cells behind one": texts(
        description=Builder().store_bytes(FULL).store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell()
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_texts_that_are_not_plain(scene: Scene, name: str) -> None:
    before = scene.pool_state()
    assert send(scene, BROKEN[name]).refusal is Refusal.INVALID_METADATA
    assert scene.pool_state() == before


def test_texts_beside_the_four(scene: Scene) -> None:
    three = Builder().store_ref(Cell.empty()).store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell()
    more = Builder().store_uint(1, 1)
    for _ in LIMITS:
        more.store_ref(Cell.empty())
    for metadata in (three, more.end_cell()):
        sent = send(scene, metadata)
        assert sent.at(scene.pool).exit_code == 9
        assert sent.received(OWNER) > NANO * 98 // 100


@settings(max_examples=25, deadline=None)
@given(octets=st.binary(max_size=256))
def test_whatever_bytes_the_pool_takes_can_be_read(octets: bytes) -> None:
    """The contract does not ask for UTF-8; a reader shows what it can and never stops."""
    scene = Scene()
    assert scene.deploy().refusal is None
    parts = [octets[start : start + 127] for start in range(0, len(octets), 127)] or [b""]
    assert send(scene, texts(description=snake(*parts))).refusal is None
    assert len(scene.pool_state().metadata.description) <= 256
