"""When the source fetches, and what it gives when fetching or keeping fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from pcs_server import ServerTls, Site, serving

from attestation import errors as e
from attestation.collateral import Collateral
from attestation.collateral_key import CollateralKey, PckCa, Update
from attestation.collateral_source import FAILURE_PAUSE_S, CollateralSource
from attestation.collateral_store import CollateralStore
from attestation.errors import CollateralStoreError, PcsNotFoundError
from attestation.pcs import PcsClient
from attestation.providers.software import SOFTWARE_MACHINE

NOW = 1_800_000_000
HOUR = 3600
KEY = CollateralKey(fmspc=SOFTWARE_MACHINE.fmspc, ca=PckCa.PLATFORM)


@dataclass
class Fetcher:
    """Gives what it is told, an error included, and counts."""

    gives: Collateral | Exception
    asked: list[CollateralKey] = field(default_factory=list)

    async def fetch(self, key: CollateralKey) -> Collateral:
        self.asked.append(key)
        await trio.lowlevel.checkpoint()
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


@dataclass
class World:
    """A source, with all that stands around it."""

    forge: Any
    fetcher: Fetcher
    store: CollateralStore
    source: CollateralSource

    async def ask(self, now_s: int = NOW) -> Collateral:
        return await self.source.collateral(self.forge.quote(), now_s)

    def newer(self, evaluation: int) -> Collateral:
        made: Collateral = self.forge.collateral(lambda tree: tree.update(tcbEvaluationDataNumber=evaluation))
        return made


@pytest.fixture
def world(forge: Any, tmp_path: Path) -> World:
    fetcher = Fetcher(forge.collateral())
    store = CollateralStore(tmp_path / "held", root=forge.root.der)
    return World(forge, fetcher, store, CollateralSource(fetcher, store, root=forge.root.der, rand=lambda: 0.0))


DOWN = PcsNotFoundError("https://pccs.example: answered status 404")


async def test_it_is_fetched_once_and_again_when_due(world: World) -> None:
    first = await world.ask()
    assert first == world.fetcher.gives
    due_s = world.store.admit(KEY, first, NOW).due_s
    assert await world.ask(due_s - 1) == first
    assert world.fetcher.asked == [KEY]
    world.fetcher.gives = second = world.newer(2)
    assert await world.ask(due_s) == second
    assert len(world.fetcher.asked) == 2
    assert world.source.error is None


async def test_hosts_do_not_renew_together(world: World, forge: Any) -> None:
    first = await world.ask()
    due_s = world.store.admit(KEY, first, NOW).due_s
    eager = CollateralSource(world.fetcher, world.store, root=forge.root.der, rand=lambda: 0.5)
    early_s = due_s - (due_s - NOW) // 10
    await eager.collateral(forge.quote(), early_s - 1)
    assert len(world.fetcher.asked) == 1
    await eager.collateral(forge.quote(), early_s)
    assert len(world.fetcher.asked) == 2


async def test_what_is_held_is_used_while_the_service_is_down(world: World) -> None:
    first = await world.ask()
    world.fetcher.gives = DOWN
    late_s = NOW + 20 * HOUR
    assert await world.ask(late_s) == first
    assert world.source.error is DOWN
    assert await world.ask(late_s + FAILURE_PAUSE_S - 1) == first
    assert len(world.fetcher.asked) == 2
    world.fetcher.gives = second = world.newer(2)
    assert await world.ask(late_s + FAILURE_PAUSE_S) == second
    assert world.source.error is None


async def test_without_any_it_says_why(world: World) -> None:
    world.fetcher.gives = DOWN
    for now_s, asked in ((NOW, 1), (NOW + 1, 1), (NOW + FAILURE_PAUSE_S, 2), (NOW - HOUR, 3)):
        with pytest.raises(PcsNotFoundError):
            await world.ask(now_s)
        assert len(world.fetcher.asked) == asked
    world.fetcher.gives = good = world.newer(2)
    assert await world.ask(NOW + HOUR) == good


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tree: tree.update(tcbEvaluationDataNumber=0), e.CollateralRollbackError),
        (lambda tree: tree.update(fmspc="00" * 6), e.FmspcMismatchError),
        (lambda tree: tree.update(id="SGX"), e.TcbInfoError),
        (lambda tree: tree.update(nextUpdate=tree["issueDate"]), e.TcbInfoExpiredError),
    ],
)
async def test_a_bad_answer_does_not_take_the_place_of_a_good_one(
    world: World, change: Callable[[Any], object], error: type[Exception]
) -> None:
    first = await world.ask()
    world.fetcher.gives = world.forge.collateral(change)
    assert await world.ask(NOW + 20 * HOUR) == first
    assert isinstance(world.source.error, error)


async def test_a_bad_answer_is_raised_if_nothing_is_held(world: World) -> None:
    world.fetcher.gives = replace(world.newer(2), tcb_info=b"{}")
    with pytest.raises(e.TcbInfoSignatureError):
        await world.ask()


async def test_a_full_disk_does_not_stop_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(held: object) -> None:
        raise CollateralStoreError("held: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "keep", full)
        first = await world.ask()
        assert isinstance(world.source.error, CollateralStoreError)
        assert await world.ask(NOW + HOUR) == first
        assert len(world.fetcher.asked) == 1
        world.fetcher.gives = world.forge.collateral(lambda tree: tree.update(tcbEvaluationDataNumber=0))
        assert await world.ask(NOW + 20 * HOUR) == first
        assert isinstance(world.source.error, e.CollateralRollbackError)
    world.fetcher.gives = second = world.newer(2)
    assert await world.ask(NOW + 21 * HOUR) == second
    assert world.source.error is None
    held = world.store.newest(KEY, NOW + 21 * HOUR)
    assert held is not None
    assert held.collateral == second


async def test_what_could_not_be_kept_ends_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(held: object) -> None:
        raise CollateralStoreError("held: cannot be written: No space left on device")

    monkeypatch.setattr(world.store, "keep", full)
    await world.ask()
    world.fetcher.gives = DOWN
    with pytest.raises(PcsNotFoundError):
        await world.ask(NOW + 25 * HOUR)


async def test_many_askers_cause_one_fetch(world: World) -> None:
    found: list[Collateral] = []

    async def ask() -> None:
        found.append(await world.ask())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert found == [world.fetcher.gives] * 5
    assert len(world.fetcher.asked) == 1


async def test_a_quote_of_another_pki_asks_nobody(world: World, forge: Any) -> None:
    other = type(forge).new()
    with pytest.raises(e.PckChainError):
        await world.source.collateral(other.quote(), NOW)
    assert not world.fetcher.asked


async def test_a_failure_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.fetcher.gives = DOWN
    with caplog.at_level(logging.WARNING):
        for now_s in (NOW, NOW + HOUR, NOW + 2 * HOUR):
            with pytest.raises(PcsNotFoundError):
                await world.ask(now_s)
    assert len(caplog.records) == 1


async def test_a_host_from_quote_to_verdict(forge: Any, tmp_path: Path) -> None:
    collateral = forge.collateral()
    site = Site({("platform", "early"): collateral}, KEY.fmspc.hex().upper(), is_pccs=True)
    store = CollateralStore(tmp_path / "held", root=forge.root.der)
    async with serving(site, ServerTls.make(tmp_path)) as service:
        source = CollateralSource(PcsClient(service), store, root=forge.root.der, update=Update.EARLY)
        found = await source.collateral(forge.quote(), NOW)
        assert await source.collateral(forge.quote(), NOW + 60) == found
    assert forge.verify(collateral=found).collateral_digest == collateral.digest
    assert len(site.requests) == 4
