"""The doctor at the sources: each is read once, in time; a Cocoon worker tells what nobody else knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.doctor import probing_sources
from agent.doctor.facts import Unknown
from agent.doctor.probing_sources import guest_trouble, read_sources
from agent.errors import SourceUnavailableError
from agent.meter.cocoon import CocoonSource, Exposure
from agent.meter.cocoon_health import GuestHealth, GuestTdx
from agent.meter.counters import CounterSample
from agent.meter.sources import SourceSample
from gossip.records import Source

SAMPLE = SourceSample(
    counters=CounterSample(source="vllm", start_s=None, series={}),
    provenance="vllm",
    gauges={"requests_running": 2.0},
    notes=("a note",),
)


class Plain:
    """A source that gives this, raises it, or hangs."""

    def __init__(self, source: Source, outcome: SourceSample | Exception | None, instance: int = 0) -> None:
        self.source = source
        self.instance = instance
        self._outcome = outcome

    async def sample(self) -> SourceSample:
        if self._outcome is None:
            await trio.sleep_forever()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class Worker(CocoonSource):
    """A Cocoon worker that tells this of itself."""

    def __init__(self, told: Any, *exposures: Exposure) -> None:
        self.instance = 0
        self.url = "http://127.0.0.1:12000"
        self.report = None
        self.exposures = None
        self.tries_addresses = True
        self._told = told
        self._found = exposures

    async def sample(self) -> SourceSample:
        if self._told is None:
            raise SourceUnavailableError("refused")
        self.report = self._told
        if self.tries_addresses:
            self.exposures = self._found
        return SAMPLE


def reading(monkeypatch: pytest.MonkeyPatch, *sources: Any) -> Any:
    @asynccontextmanager
    async def open_sources(_: object) -> AsyncIterator[list[Any]]:
        yield list(sources)

    monkeypatch.setattr(probing_sources, "open_sources", open_sources)
    return SimpleNamespace(cocoon=SimpleNamespace(health=False))


async def test_each_source_is_read(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    refused = Plain(Source.NVML, SourceUnavailableError("no driver"))
    config = reading(monkeypatch, refused, Plain(Source.ENGINE, None, 1), Plain(Source.ENGINE, SAMPLE))
    forms, workers = await read_sources(config, reads_all=True)
    assert [form.name for form in forms] == ["engine 0", "engine 1", "nvml 0"]
    assert [form.error for form in forms] == [None, "no answer within 5 s", "no driver"]
    assert (forms[0].provenance, forms[0].gauges, forms[0].notes) == ("vllm", {"requests_running": 2.0}, ["a note"])
    assert workers == ()
    assert trio.current_time() <= 6


async def test_beside_an_agent_only_workers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(is_image_listed=True, is_model_listed=False)
    exposed = Worker(told, Exposure(address="203.0.113.7", is_guarded=False))
    config = reading(monkeypatch, Plain(Source.ENGINE, SAMPLE), exposed)
    forms, (worker,) = await read_sources(config, reads_all=False)
    assert [form.name for form in forms] == ["cocoon 0"]
    assert (worker.name, worker.is_image_listed, worker.is_model_listed) == ("worker 0", True, False)
    assert not isinstance(worker.exposed, Unknown)
    assert "its control port answers on 203.0.113.7" in worker.exposed[0]
    assert isinstance(worker.guest, Unknown)


async def test_a_worker_that_does_not_answer_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    forms, (worker,) = await read_sources(reading(monkeypatch, Worker(None)), reads_all=True)
    assert forms[0].error == "refused"
    assert (worker.is_image_listed, worker.is_model_listed) == (None, None)
    assert worker.exposed == Unknown("worker 0: its control port was not tried, as it did not answer")


async def test_a_control_port_that_is_known_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(is_image_listed=True, is_model_listed=True)
    source = Worker(told, Exposure(address="203.0.113.7", is_guarded=False))
    config = reading(monkeypatch, source)
    _, (worker,) = await read_sources(config, reads_all=True, exposed={"worker 0": ("as before",)})
    assert (worker.exposed, worker.is_image_listed) == (("as before",), True)
    assert source.exposures is None


async def test_a_guest_that_hangs_hides_no_source(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    class Hanging(Worker):
        async def sample(self) -> SourceSample:
            await trio.sleep_forever()
            raise AssertionError

    async def hang(_: object) -> GuestHealth:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(probing_sources, "read_health", hang)
    config = reading(monkeypatch, Plain(Source.ENGINE, SAMPLE), Hanging(None))
    config.cocoon.health = True
    forms, (worker,) = await read_sources(config, reads_all=True)
    assert trio.current_time() <= probing_sources.SOURCE_S, "a worker and its guest are asked side by side"
    assert [form.error for form in forms] == [None, "no answer within 5 s"]
    assert worker.guest == Unknown("the guest's health service does not answer within 5 s")


async def test_a_guest_that_cannot_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    config = reading(monkeypatch, Worker(None))
    config.cocoon.health = True

    async def unreachable(_: object) -> GuestHealth:
        raise SourceUnavailableError("no vsock")

    monkeypatch.setattr(probing_sources, "read_health", unreachable)
    _, (worker,) = await read_sources(config, reads_all=True)
    assert worker.guest == Unknown("the guest's health service: no vsock")


@pytest.mark.parametrize(
    ("is_ok", "failing", "is_image_verified", "said"),
    [
        (True, (), None, None),
        (True, (), True, None),
        (False, ("cocoon-vllm: failed",), None, "cocoon-vllm: failed"),
        (False, (), None, "it says that not all is well"),
        (True, (), False, "the image that was started is not the one that was measured"),
    ],
)
def test_what_is_wrong_in_a_guest(
    is_ok: bool, failing: tuple[str, ...], is_image_verified: bool | None, said: str | None
) -> None:
    registers = (bytes(48),) * 4
    tdx = GuestTdx(mr_td=bytes(48), rtmr=registers, image_hash=bytes(32), is_image_verified=is_image_verified)
    health = GuestHealth(is_ok=is_ok, failing=failing, services=(), build_commit=None, gpus=None, tdx=tdx)
    assert guest_trouble(health) == said
