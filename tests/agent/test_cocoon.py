"""A Cocoon worker as a source: what is counted, shown and noted, over restarts; and that nothing is changed there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from cocoon_stage import URL, address, client_of, owed, source_of, worker_model
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from agent.devnet.cocoon_worker import WorkerServer, generate_work
from agent.errors import ConfigError, InvalidSourceError, SourceUnavailableError
from agent.http_serve import serve_app
from agent.meter.cocoon import (
    ADJUSTED_TOKENS,
    FAILED_TASKS,
    PROBE_INTERVAL_S,
    TASKS,
    CocoonSource,
    Exposure,
    control_port_exposure,
    host_addresses,
)
from agent.meter.cocoon_stats import REPORT_BYTES_MAX
from agent.meter.counters import CounterState, Deltas, advance
from agent.meter.sources import PROVENANCE_CHARS_MAX, MeterSource
from agent.meter.work import UNITS
from agent.web import WebConfig, bind
from gossip.records import Source, Unit

DOUBLING = "b75d444" + "0" * 33


def answering(status: int = 200, content: bytes = b"", **headers: str) -> httpx.AsyncClient:
    async def body() -> AsyncIterator[bytes]:
        yield content

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body(), headers=headers)

    return httpx.AsyncClient(transport=httpx.MockTransport(handle))


# ---- what is counted ----


@pytest.mark.parametrize(("schema", "commit"), [(1, ""), (2, "1" * 40), (2, DOUBLING)])
async def test_a_reading_says_what_was_served(schema: int, commit: str, autojump_clock: MockClock) -> None:
    model = worker_model(proxies=2, error_per_mille=300)
    server = WorkerServer(model, schema=schema, commit=commit)
    async with client_of(server) as client:
        source: MeterSource = source_of(client, instance=3)
        with trio.move_on_after(30):
            await generate_work(model, 1, rate=4)
        sample = await source.sample()
    life = model.life
    assert (source.source, source.instance) == (Source.COCOON, 3)
    assert sample.counters.series == {
        TASKS: life.succeeded,
        FAILED_TASKS: life.failed,
        ADJUSTED_TOKENS: sum(life.adjusted.values()),
    }
    assert life.failed > 10
    assert sum(life.adjusted.values()) == sum(proxy.known for proxy in model.proxies) > 0


def test_counters_are_called_as_the_meter_knows_them() -> None:
    assert [UNITS[name] for name in (TASKS, FAILED_TASKS, ADJUSTED_TOKENS)] == [
        Unit.TASK,
        Unit.FAILED_TASK,
        Unit.ADJUSTED_TOKEN,
    ]


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(0, 10**6), st.sampled_from(["run", "restart"])),
        max_size=12,
    ),
    commit=st.sampled_from(["1" * 40, DOUBLING]),
)
def test_credited_is_what_was_counted_whatever_restarts(steps: list[tuple[int, int, int, str]], commit: str) -> None:
    """A worker tells no start time: its restarts show only where counters fell, so it is read before each."""

    async def measure() -> tuple[dict[str, int], dict[str, int]]:
        model = worker_model()
        true, credited = dict.fromkeys((TASKS, FAILED_TASKS, ADJUSTED_TOKENS), 0), {}
        state: CounterState | None = None
        async with client_of(WorkerServer(model, commit=commit)) as client:
            source = source_of(client)
            for number, (succeeded, failed, tokens, then) in enumerate([(0, 0, 0, "run"), *steps]):
                life = model.life
                life.queries += succeeded + failed
                life.succeeded, life.failed = life.succeeded + succeeded, life.failed + failed
                life.adjusted["completion"] += tokens
                for name, amount in ((TASKS, succeeded), (FAILED_TASKS, failed), (ADJUSTED_TOKENS, tokens)):
                    true[name] += amount
                state, outcome = advance(state, (await source.sample()).counters, number)
                for name, amount in (outcome.amounts if isinstance(outcome, Deltas) else {}).items():
                    credited[name] = credited.get(name, 0) + amount
                if then == "restart":
                    model.restart()
                    state, _ = advance(state, (await source.sample()).counters, number)
        return true, credited

    true, credited = trio.run(measure)
    assert all(credited.get(name, 0) == amount for name, amount in true.items())


async def test_provenance_names_unit_coefficient_params_and_commit() -> None:
    async with client_of(WorkerServer(worker_model(coefficient=1500), commit=DOUBLING)) as client:
        told = (await source_of(client).sample()).provenance
    assert told == "cocoon b75d44400000 unit=adjusted coefficient=1500 params=3 failed=halved"
    async with client_of(WorkerServer(worker_model(coefficient=2**31 - 1), commit="1" * 40)) as client:
        told = (await source_of(client).sample()).provenance
    assert told == "cocoon 111111111111 unit=adjusted coefficient=2147483647 params=3 failed=as-told"
    assert len(told) < PROVENANCE_CHARS_MAX


# ---- what is shown ----


async def test_gauges_show_parts_and_what_is_owed(autojump_clock: MockClock) -> None:
    model = worker_model(proxies=2)
    async with client_of(WorkerServer(model)) as client:
        await model.serve(100, 10)
        model.flush()
        model.pay(model.proxies[0].proxy_public_key, model.proxies[0].in_database)
        source = source_of(client)
        gauges = (await source.sample()).gauges
    assert gauges["adjusted_prompt_tokens"] == model.life.adjusted["prompt"] > 0
    assert gauges["tokens_known"] == gauges["tokens_in_database"] == sum(p.known for p in model.proxies)
    assert gauges["tokens_paid_out"] == gauges["tokens_signed"] == model.proxies[0].known
    assert (gauges["proxies"], gauges["proxies_connected"], gauges["engine_connected"]) == (2, 2, 1)
    assert source.report is not None
    assert [p.worker for p in source.report.proxies] == [address("worker contract 0"), address("worker contract 1")]


async def test_a_healthy_worker_has_no_notes() -> None:
    async with client_of(WorkerServer(worker_model(proxies=2))) as client:
        assert (await source_of(client).sample()).notes == ()


async def test_notes_say_why_nothing_is_earned() -> None:
    model = worker_model(proxies=2)
    model.is_enabled = model.is_engine_connected = model.proxies[0].is_connected = False
    model.life.queries, model.life.succeeded, model.life.failed = 2, 1, 2
    async with client_of(WorkerServer(model)) as client:
        notes = (await source_of(client).sample()).notes
    assert [note.partition(":")[0].partition(";")[0] for note in notes] == [
        "it counts failures twice, and tells no commit that is known for it",
        "it is disabled",
        "its connection to the model is down",
        f"its uplink to proxy {address('proxy 0').friendly(bounceable=False)} is down",
    ]
    model.proxies[1].is_connected = False
    async with client_of(WorkerServer(model)) as client:
        assert (
            "it is connected to no proxy; look at the guest's network and router"
            in (await source_of(client).sample()).notes
        )


async def test_a_worker_without_a_page_is_counted() -> None:
    stand_in = WorkerServer(worker_model()).app()
    without = httpx.ASGITransport(app=stand_in)

    class NoPage(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/stats":
                return httpx.Response(404)
            return await without.handle_async_request(request)

    async with httpx.AsyncClient(transport=NoPage()) as client:
        sample = await source_of(client).sample()
    assert sample.counters.series[TASKS] == 0
    assert "enabled" not in sample.gauges
    assert sample.notes == ()


async def test_nothing_is_ever_changed_at_the_worker(autojump_clock: MockClock) -> None:
    server = WorkerServer(worker_model())
    async with client_of(server) as client:
        source = source_of(client, addresses=lambda: ("10.0.0.1",))
        for _ in range(3):
            await source.sample()
            await trio.sleep(PROBE_INTERVAL_S)
        assert (await owed(client))["state_changes"] == server.state_changes == 0
        await client.get(f"{URL}/request/disable")
    assert server.state_changes == 1
    assert not server.model.is_enabled


# ---- what is refused ----


async def test_an_access_hash_is_handed_in_and_never_shown() -> None:
    server = WorkerServer(worker_model(), access_hash="s3cret&x")
    async with client_of(server) as client:
        assert (await source_of(client, access_hash="s3cret&x").sample()).counters.series[TASKS] == 0
        for source in (source_of(client), source_of(client, access_hash="guess-of-mine")):
            with pytest.raises(SourceUnavailableError, match="wants its access hash") as caught:
                await source.sample()
            assert "guess" not in str(caught.value)


@pytest.mark.parametrize(
    ("client", "error"),
    [
        (answering(503), SourceUnavailableError),
        (answering(302, Location="http://elsewhere/"), SourceUnavailableError),
        (answering(content=b"{}"), InvalidSourceError),
        (answering(content=b" " * (REPORT_BYTES_MAX + 1)), InvalidSourceError),
        (answering(**{"Content-Encoding": "gzip"}), InvalidSourceError),
    ],
)
async def test_bad_answers_are_typed_errors(client: httpx.AsyncClient, error: type[Exception]) -> None:
    source = source_of(client)
    with pytest.raises(error, match=r"worker|jsonstats"):
        await source.sample()
    assert source.report is None


async def test_a_worker_that_does_not_answer_is_unavailable(autojump_clock: MockClock) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep_forever()
            raise AssertionError

    async with httpx.AsyncClient(transport=Silent()) as client:
        with pytest.raises(SourceUnavailableError, match="no answer within 5 s"):
            await source_of(client).sample()
        assert await control_port_exposure(client, 1, ("10.0.0.1", "10.0.0.2")) == ()


async def test_settings_out_of_range_are_refused() -> None:
    client = answering()
    assert CocoonSource(client, 2).url == "http://127.0.0.1:12020"
    for instance in (-1, 256):
        with pytest.raises(ConfigError, match=r"cocoon\.instance"):
            CocoonSource(client, instance)
    with pytest.raises(ConfigError, match=r"cocoon\.access_hash") as caught:
        CocoonSource(client, access_hash="two words")
    assert "two" not in str(caught.value)


# ---- who else reaches it ----


@pytest.fixture
async def everywhere() -> AsyncIterator[tuple[WorkerServer, int]]:
    """A worker on a port of this host."""
    server = WorkerServer(worker_model())
    listener = bind(WebConfig(port=0))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_app, server.app(), listener)
        yield server, listener.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_control_port_that_others_reach_is_noted(everywhere: tuple[WorkerServer, int]) -> None:
    server, port = everywhere
    async with httpx.AsyncClient(trust_env=False) as client:
        # 127.0.0.1 plays an address of this host that others reach; on 127.0.0.2 nobody listens.
        addresses = lambda: ("127.0.0.2", "127.0.0.1", "not an address")  # noqa: E731
        source = CocoonSource(client, url=f"http://127.0.0.1:{port}", addresses=addresses)
        notes = (await source.sample()).notes
    assert source.exposures == (Exposure(address="127.0.0.1", is_guarded=False),)
    assert notes == (
        "its control port answers on 127.0.0.1: whoever reaches it may disable the worker, change its price or "
        f"trigger payouts; forward port {port} to 127.0.0.1 only",
    )
    assert server.state_changes == 0


async def test_a_port_with_an_access_hash_is_guarded() -> None:
    for status, found in ((403, (Exposure(address="10.0.0.1", is_guarded=True),)), (404, ()), (302, ())):
        async with answering(status) as client:
            assert await control_port_exposure(client, 12000, ("10.0.0.1",)) == found


async def test_the_port_is_tried_from_time_to_time(autojump_clock: MockClock) -> None:
    tried: list[float] = []

    def addresses() -> Iterator[str]:
        tried.append(trio.current_time())
        if len(tried) == 1:
            raise SourceUnavailableError("no addresses")
        return iter(())

    async with client_of(WorkerServer(worker_model())) as client:
        source = source_of(client, addresses=lambda: tuple(addresses()))
        for _ in range(5):
            assert (await source.sample()).notes == ()
            await trio.sleep(PROBE_INTERVAL_S / 2)
    assert len(tried) == 3


def test_host_addresses_are_those_that_others_reach(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.1.2.3\n        /32 host LOCAL\n"
        "     |-- 10.1.2.255\n        /32 link BROADCAST\n     |-- 169.254.1.1\n        /32 host LOCAL\n"
        "Local:\n     |-- 10.1.2.3\n        /32 host LOCAL\n"
    )
    read = partial(host_addresses, tmp_path)
    assert read() == ("10.1.2.3",)
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "20010db8000000000000000000000005 02 40 00 80     eth0\n"
    )
    assert read() == ("10.1.2.3", "2001:db8::5")
    with pytest.raises(SourceUnavailableError, match="addresses"):
        host_addresses(tmp_path / "nothing")
    assert "127.0.0.1" not in host_addresses()
