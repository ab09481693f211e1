"""Old attachments that nothing names go while the node works, all of them, in turns that leave others theirs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
import trio.testing
from attesting_scene import without_threads
from journal_scene import settle_at_heads
from pool_fixture import POOL, Author, key, policy, verdict

from agent import retention
from agent.journal import Journal, create_journal, open_journal
from agent.pruning import INTERVAL_S, keep_pruned
from agent.retention import EPOCHS_KEPT
from gossip.node import Node, open_node
from gossip.settlement import Base

__all__ = ["without_threads"]

pytestmark = pytest.mark.usefixtures("without_threads")

OWN = {"node_key": key(0).public, "pool": POOL}
MADE = 30
"""What hostile members had everybody keep in one epoch."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    create_journal(tmp_path / "journal.sqlite", **OWN)
    with closing(open_journal(tmp_path / "journal.sqlite", **OWN)) as opened:
        yield opened


@pytest.fixture
def node(journal: Journal) -> Node:
    return open_node(key(0), POOL, policy(), journal, verdict, participants=[key(0).public], now_s=lambda: 0)


def digest(i: int) -> bytes:
    return hashlib.sha256(b"%d" % i).digest()


def keep(journal: Journal, first: int = 0) -> None:
    for i in range(first, first + MADE):
        journal.keep_attachment(digest(i), b"%d" % i)


def held(journal: Journal, first: int = 0) -> int:
    return sum(journal.attachment(digest(i)) is not None for i in range(first, first + MADE))


def settle(node: Node, journal: Journal, epochs: int) -> None:
    """So many epochs settle in which nothing happens."""
    for _ in range(epochs):
        landed = settle_at_heads([Author(0)], node.machine.base.epoch + 1, Base())
        journal.keep_landed(landed)
        node.machine.base = landed.base()


@asynccontextmanager
async def pruning(node: Node, journal: Journal) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_pruned, node, journal)
        yield
        nursery.cancel_scope.cancel()


async def test_however_many_there_are_none_is_left_soon_after_the_settlement(
    node: Node, journal: Journal, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_MAX", 3)
    async with pruning(node, journal):
        for round_ in range(3):
            keep(journal, MADE * round_)
            settle(node, journal, EPOCHS_KEPT - 1)
            await trio.sleep(2 * INTERVAL_S)
            assert held(journal, MADE * round_) == MADE, "not old enough"
            settle(node, journal, 1)
            await trio.sleep(2 * INTERVAL_S)
            assert held(journal, MADE * round_) == 0


async def test_what_is_left_from_before_goes_after_a_start(
    node: Node, journal: Journal, autojump_clock: object
) -> None:
    keep(journal)
    settle(node, journal, EPOCHS_KEPT)
    async with pruning(node, journal):
        await trio.sleep(2 * INTERVAL_S)
    assert held(journal) == 0


async def test_nothing_goes_while_the_node_takes_records(node: Node, journal: Journal, autojump_clock: object) -> None:
    """Between the look whether all is here that evidence names, and its record, nothing of it may go."""
    keep(journal)
    settle(node, journal, EPOCHS_KEPT)
    async with node.step(), pruning(node, journal):
        await trio.sleep(20 * INTERVAL_S)
        assert held(journal) == MADE


async def test_others_have_their_turn_between_two_slices(
    node: Node, journal: Journal, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_MAX", 1)
    keep(journal)
    settle(node, journal, EPOCHS_KEPT)
    left = []
    with trio.fail_after(60):
        async with pruning(node, journal):
            await trio.testing.wait_all_tasks_blocked()
            while held(journal):
                async with node.step():
                    left.append(held(journal))
                await trio.sleep(0.01)
    assert len(left) >= MADE / 2
