"""The stand-in engine: what it reports is what it ran, and the agent's meter reads it as a vLLM."""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import trio
from trio.testing import MockClock

from agent.devnet.completions import Model, Speed
from agent.devnet.engine import BODY_BYTES_MAX, EngineServer
from agent.devnet.load import Demand, demands, generate_load
from agent.errors import SourceUnavailableError
from agent.meter.counters import CounterState, Deltas, advance
from agent.meter.engine import (
    GENERATION_TOKENS,
    PROMPT_TOKENS,
    REQUESTS_FAILED,
    REQUESTS_FINISHED,
    scrape,
)

METRICS = "http://engine/metrics"


def client_of(server: EngineServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app()), base_url="http://engine")


async def read(
    client: httpx.AsyncClient, state: CounterState | None = None, url: str = METRICS
) -> tuple[CounterState | None, dict[str, int]]:
    sample = await scrape(client, url)
    state, outcome = advance(state, sample.counters, int(trio.current_time()))
    return state, dict(outcome.amounts) if isinstance(outcome, Deltas) else {}


async def test_completion_is_what_the_meter_reads(autojump_clock: MockClock) -> None:
    async with client_of(EngineServer(Model(1, Speed()))) as client:
        state, _ = await read(client)
        done = await client.post("/v1/completions", json={"prompt": "one two three", "max_tokens": 40})
        messages = [{"role": "user", "content": "four five"}]
        chat = await client.post("/v1/chat/completions", json={"messages": messages})
        usage, chat_usage = done.json()["usage"], chat.json()["usage"]
        _, counted = await read(client, state)
    assert (usage["prompt_tokens"], chat_usage["prompt_tokens"]) == (3, 2)
    assert len(done.json()["choices"][0]["text"].split()) == usage["completion_tokens"]
    assert counted[PROMPT_TOKENS] == 5
    assert counted[GENERATION_TOKENS] == usage["completion_tokens"] + chat_usage["completion_tokens"]
    assert (counted[REQUESTS_FINISHED], counted[REQUESTS_FAILED]) == (2, 0)
    assert counted["latency_le_us:inf"] == 2


async def test_an_engine_that_lies_still_tells_a_gateway_what_it_served(autojump_clock: MockClock) -> None:
    model = Model(1, Speed(), inflation=10)
    async with client_of(EngineServer(model)) as client:
        state, _ = await read(client)
        done = await client.post("/v1/completions", json={"prompt": "one two three", "max_tokens": 40})
        _, counted = await read(client, state)
        model.served = {second - 1: tokens for second, tokens in model.served.items()}  # the second is over
        served = (await client.get("/devnet/served")).json()["served"]
        after = (await client.get("/devnet/served", params={"after_s": str(served[0][0])})).json()["served"]
        refused = await client.get("/devnet/served", params={"after_s": "-1"})
    total = done.json()["usage"]["total_tokens"]
    assert [tokens for _, tokens in served] == [total]
    assert counted[PROMPT_TOKENS] + counted[GENERATION_TOKENS] == 10 * total
    assert after == []
    assert refused.status_code == 400


async def test_an_idle_engine_counts_what_it_did_not_serve(autojump_clock: MockClock) -> None:
    model = Model(1, Speed(), is_idle=True)
    async with client_of(EngineServer(model)) as client:
        state, _ = await read(client)
        await model.complete(30, 40)
        _, counted = await read(client, state)
    assert counted[PROMPT_TOKENS] == 30
    assert model.served == {}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b'{"prompt": 3}', 400),
        (b'{"prompt": ""}', 400),
        (b'{"prompt": "x", "max_tokens": 0}', 400),
        (b'{"prompt": "x", "max_tokens": "many"}', 400),
        (b'{"prompt": "x", "max_tokens": 100000}', 400),
        (b'{"prompt": "x", "stream": true}', 400),
        (b'"' + b"x" * BODY_BYTES_MAX + b'"', 413),
    ],
)
async def test_bad_requests_are_refused(content: bytes, status: int) -> None:
    async with client_of(EngineServer(Model(1, Speed()))) as client:
        answer = await client.post("/v1/completions", content=content)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("messages", [None, 3, [3], [{"content": 3}], []])
async def test_bad_chats_are_refused(messages: object) -> None:
    async with client_of(EngineServer(Model(1, Speed()))) as client:
        assert (await client.post("/v1/chat/completions", json={"messages": messages})).status_code == 400


async def test_failed_request_is_counted_as_failed(autojump_clock: MockClock) -> None:
    async with client_of(EngineServer(Model(1, Speed(), error_per_mille=1000))) as client:
        state, _ = await read(client)
        assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 500
        _, counted = await read(client, state)
    assert (counted[REQUESTS_FINISHED], counted[REQUESTS_FAILED]) == (0, 1)


async def test_aborted_request_counts_its_prompt_only(autojump_clock: MockClock) -> None:
    model = Model(1, Speed())
    async with client_of(EngineServer(model)) as client:
        state, _ = await read(client)
        with trio.move_on_after(0.03):
            await model.complete(100, 1000)
        _, counted = await read(client, state)
    assert counted[PROMPT_TOKENS] == 100
    assert counted[GENERATION_TOKENS] == counted[REQUESTS_FINISHED] == counted[REQUESTS_FAILED] == 0


async def test_restart_and_refusal_look_like_a_real_engine_s(autojump_clock: MockClock) -> None:
    model = Model(1, Speed())
    server = EngineServer(model)
    async with client_of(server) as client:
        await model.complete(100, 10)
        before = await scrape(client, METRICS)
        server.refusing = True
        with pytest.raises(SourceUnavailableError, match="503"):
            await scrape(client, METRICS)
        server.refusing = False
        model.restart()
        after = await scrape(client, METRICS)
    assert any(before.counters.series.values())
    assert not any(after.counters.series.values())


async def run_load(seed: int) -> dict[str, int]:
    model = Model(seed, Speed())
    async with client_of(EngineServer(model)) as client:
        state, _ = await read(client)
        with trio.move_on_after(60):
            await generate_load(model, seed, rate=4, abort_per_mille=50)
        return (await read(client, state))[1]


async def test_load_follows_from_its_seed(autojump_clock: MockClock) -> None:
    first = await run_load(7)
    assert first == await run_load(7)
    assert first != await run_load(8)
    assert 150 < first[REQUESTS_FINISHED] < 350


def test_demands_are_within_bounds() -> None:
    asked: list[Demand] = list(itertools.islice(demands(1, 4.0, 100), 1000))
    assert all(d.pause_s > 0 and 8 <= d.prompt_tokens <= 256 and 16 <= d.tokens_max <= 192 for d in asked)
    assert 50 < sum(d.aborted for d in asked) < 150


@contextmanager
def engine_process(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "agent.devnet.engine", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
async def test_process_serves_over_http_and_stops_on_sigterm() -> None:
    with engine_process("--seed", "3", "--rate", "0") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        async with httpx.AsyncClient(trust_env=False) as client:
            state, _ = await read(client, url=ready["metrics"])
            asked = await client.post(
                f"http://127.0.0.1:{ready['port']}/v1/completions", json={"prompt": "a b c", "max_tokens": 9}
            )
            _, counted = await read(client, state, url=ready["metrics"])
        assert counted[PROMPT_TOKENS] == 3
        assert counted[GENERATION_TOKENS] == asked.json()["usage"]["completion_tokens"]

        with engine_process("--port", str(ready["port"])) as second:
            _, stderr = second.communicate(timeout=20)
            assert second.returncode == 1
            assert stderr == f"engine: 127.0.0.1 port {ready['port']} is in use by another process\n"

        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
        assert process.returncode == 0
        assert stderr == ""
