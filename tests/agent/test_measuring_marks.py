"""What the meter tells besides its counts: a source that began anew, a clock set back, uplinks that are cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_on_disk import agent_on_disk
from cocoon_stage import URL, client_of, source_of, worker_model
from pool_fixture import POOL, START_S, key
from trio.testing import MockClock

from agent.config import load_config
from agent.devnet.cocoon_worker import WorkerServer
from agent.journal import create_journal, open_journal
from agent.ledger import open_ledger
from agent.measuring import Measuring, sources_value
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from agent.metrics.registry import Metrics
from agent.providers import open_providers
from agent.tables import MeterTable
from attestation.collateral_source import CollateralSource
from attestation.providers.software import SoftwarePlatform
from gossip.records import Source


class Restarting:
    """Counts up, and begins anew at these seconds."""

    source = Source.ENGINE
    instance = 0

    def __init__(self, *restarts_s: float) -> None:
        self._restarts_s = restarts_s

    async def sample(self) -> SourceSample:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        began_s = max((each for each in self._restarts_s if each <= now), default=0.0)
        counters = CounterSample(source="vllm", start_s=None, series={"prompt_token": 100 + 10 * int(now - began_s)})
        return SourceSample(counters=counters, provenance="vllm", gauges={}, notes=())


class SetBack:
    """The wall clock, set back by 50 s after half a minute."""

    def now_s(self) -> int:
        return START_S + int(trio.current_time()) - (50 if trio.current_time() >= 30 else 0)


async def inline(function: Any, *arguments: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@pytest.fixture
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Measuring]:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    ledger = open_ledger(tmp_path / "ledger.sqlite", node_key=key(0).public, pool=POOL)
    table, metrics = MeterTable(sample_interval_s=1.0, window_s=10), Metrics(version="0", process=False)
    yield Measuring(table, 600, journal, ledger, metrics, SetBack().now_s)
    ledger.close()
    journal.close()


async def test_a_source_that_begins_anew_is_counted_and_dated(measuring: Measuring, autojump_clock: MockClock) -> None:
    with trio.move_on_after(20):
        await measuring.run([Restarting(5, 12)])
    (source,) = sources_value(measuring.measured)
    assert (source["restarts"], source["restarted_s"]) == (2, START_S + 12)


async def test_a_source_that_runs_on_is_not_said_to_begin_anew(measuring: Measuring, autojump_clock: MockClock) -> None:
    with trio.move_on_after(20):
        await measuring.run([Restarting()])
    (source,) = sources_value(measuring.measured)
    assert (source["restarts"], source["restarted_s"]) == (0, None)


async def test_a_clock_that_is_set_back_is_told(measuring: Measuring, autojump_clock: MockClock) -> None:
    with trio.move_on_after(29):
        await measuring.run([Restarting()])
    assert measuring.clock.last is None
    with trio.move_on_after(10):
        await measuring.run([Restarting()])
    assert measuring.clock.last is not None
    assert measuring.clock.last.by_s == 50


async def test_a_stand_in_worker_can_be_cut_off_its_proxies() -> None:
    async with client_of(WorkerServer(worker_model())) as client:
        for state, connected in (("down", 0), ("up", 1)):
            assert (await client.post(f"{URL}/devnet/uplinks/{state}")).status_code == 200
            sample = await source_of(client).sample()
            assert sample.gauges["proxies_connected"] == connected


def test_a_software_platform_with_a_service_has_its_collateral_from_there(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    assert isinstance(open_providers(config).collateral, SoftwarePlatform)
    text = config.path.read_text().replace("[attestation]\n", '[attestation]\npccs_url = "https://127.0.0.1:9"\n')
    config.path.write_text(text)
    assert isinstance(open_providers(load_config(config.path)).collateral, CollateralSource)
