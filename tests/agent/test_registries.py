"""Registries of open epochs: kept on disk from the first look on, whatever the chain forgets and the disk does."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from chain_in_memory import opened
from pool_fixture import START_S, key, participant
from pytoniq_core import Cell
from trio.testing import MockClock

from agent.registries import FETCH_S, RETRY_S, Registries
from contracts.chain import Block
from contracts.errors import ChainUnavailableError, ContractsError
from tests.contracts.pool_scene import Scene


@dataclass
class Chain:
    """A chain and a reader of the registry, with what it held at each time that is still known."""

    states: dict[int, Cell] = field(default_factory=dict)
    error: ContractsError | None = None
    reads: int = 0
    answer_s: float = 0.0

    async def block_at(self, time_s: int) -> Block:
        await trio.sleep(self.answer_s)
        return Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=time_s)

    async def registry_data(self, block: Block) -> Cell:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.states[block.time_s]


def registry_of(count: int) -> Cell:
    """The storage of a real registry with so many entries."""
    scene = Scene()
    assert scene.deploy().refusal is None
    for i in range(count):
        assert scene.register(participant(i).address, key=key(i)).refusal is None
    data = scene.ledger.account(scene.registry).data
    assert data is not None
    return data


FIRST, SECOND = opened(1, START_S), opened(2, START_S + 100)


@pytest.fixture(scope="module")
def cells() -> dict[int, Cell]:
    return {START_S: registry_of(2), START_S + 100: registry_of(3)}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def keys_of(registries: Registries, epoch: object) -> set[bytes]:
    return {p.node_key for p in await registries.of(epoch)}


async def test_what_was_read_once_is_there_after_the_chain_forgot_it(cells: dict[int, Cell], tmp_path: Path) -> None:
    chain = Chain(cells)
    await Registries(tmp_path / "r", chain, chain).keep([FIRST, SECOND])
    chain.error = ChainUnavailableError("state is gone")
    again = Registries(tmp_path / "r", chain, chain)
    await again.keep([FIRST, SECOND])
    assert await keys_of(again, FIRST) == {key(i).public for i in range(2)}
    assert await keys_of(again, SECOND) == {key(i).public for i in range(3)}
    assert chain.reads == 2


async def test_an_open_epoch_is_read_once_and_forgotten_when_it_has_settled(
    cells: dict[int, Cell], tmp_path: Path
) -> None:
    chain = Chain(cells)
    registries = Registries(tmp_path, chain, chain)
    (tmp_path / "somebody.txt").touch()
    for _ in range(3):
        await registries.keep([FIRST, SECOND])
    assert chain.reads == 2
    await registries.keep([SECOND])
    assert names(tmp_path) == [f"2-{START_S + 100}.boc", "somebody.txt"]
    await registries.keep([])
    assert names(tmp_path) == ["somebody.txt"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
async def test_a_damaged_file_is_read_anew(
    cells: dict[int, Cell], tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain(cells)
    await Registries(tmp_path, chain, chain).keep([FIRST])
    file = tmp_path / names(tmp_path)[0]
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert await keys_of(Registries(tmp_path, chain, chain), FIRST) == {key(i).public for i in range(2)}
    assert "damaged" in caplog.text
    assert file.read_bytes() == whole


async def test_a_chain_that_is_away_is_asked_again_after_a_while(
    cells: dict[int, Cell], tmp_path: Path, mock_clock: MockClock
) -> None:
    chain = Chain(cells, error=ChainUnavailableError("away"))
    registries = Registries(tmp_path, chain, chain)
    await registries.keep([FIRST])
    chain.error = None
    with pytest.raises(ChainUnavailableError, match="away"):
        await registries.of(FIRST)
    await registries.keep([FIRST])
    assert chain.reads == 1
    mock_clock.jump(RETRY_S)
    await registries.keep([FIRST])
    assert chain.reads == 2
    assert len(names(tmp_path)) == 1


async def test_a_disk_that_takes_nothing_costs_the_copy_and_not_the_epoch(
    cells: dict[int, Cell], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain, folder = Chain(cells), tmp_path / "r"
    folder.write_bytes(b"a file where the folder should be")
    caplog.set_level(logging.WARNING)
    registries = Registries(folder, chain, chain)
    await registries.keep([FIRST])
    assert len(await registries.of(FIRST)) == 2
    assert "is not kept" in caplog.text
    folder.unlink()
    await registries.keep([FIRST])
    assert len(names(folder)) == 1, "it is tried again"


async def test_servers_that_answer_slowly_hold_nobody_up(
    cells: dict[int, Cell], tmp_path: Path, autojump_clock: MockClock
) -> None:
    chain = Chain(cells, answer_s=10 * FETCH_S)
    registries = Registries(tmp_path / "r", chain, chain)
    began_s = trio.current_time()
    for _ in range(2):
        with pytest.raises(ChainUnavailableError, match="not read within"):
            await registries.of(FIRST)
    assert trio.current_time() - began_s == pytest.approx(FETCH_S), "the second time nobody is asked"
    chain.answer_s = 0.0
    await trio.sleep(RETRY_S)
    assert len(await keys_of(registries, FIRST)) == 2
