"""A real engine against our meter: llama.cpp's server answers requests, and what it says must be what is recorded.

Starts the server with a model of random weights (`tests.engines.model`), sends it requests, reads it as the agent
does (`EngineSource`, `agent.meter.work`), and compares three figures of each unit: what the answers reported, what
/metrics showed, what stands in the work windows. The server is stopped after a reading, and killed before one.
Not collected by pytest; docs/engines.md says how to build a server, and what came out.

    python -m tests.engines --server build/bin/llama-server
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx
import trio

from agent.errors import SourceUnavailableError
from agent.meter.engine import CACHED_TOKENS, GENERATION_TOKENS, PROMPT_TOKENS, EngineSource
from agent.meter.sources import SourceSample
from agent.meter.work import MeterState, WindowLimits, WorkWindow, close, observe
from gossip.records import Unit
from tests.engines.model import write_model

UNITS = {PROMPT_TOKENS: Unit.PROMPT_TOKEN, CACHED_TOKENS: Unit.CACHED_TOKEN, GENERATION_TOKENS: Unit.GENERATION_TOKEN}
_WORDS = ("one", "host", "of", "many", "gives", "time", "and", "asks", "what", "it", "earned")
_START_TIMEOUT_S = 60
_READ_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by the counters' names; those of the prompt include the cached ones."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.generated + other.generated)


@dataclass(slots=True)
class Meter:
    """The agent's meter, one reading a minute of a clock of its own; `shown` is the last sample."""

    source: EngineSource
    now_s: int = 1_800_000_000
    state: MeterState | None = None
    windows: list[WorkWindow] = field(default_factory=list)
    shown: SourceSample | None = None

    async def read(self) -> None:
        self.now_s += _READ_EVERY_S
        self.shown = await self.source.sample()
        observed = observe(self.state, {(self.source.source, 0): self.shown}, self.now_s, WindowLimits())
        self.state = observed.state
        self.windows += observed.windows

    def recorded(self) -> dict[str, int]:
        """What the closed windows hold, and the open one would."""
        assert self.state is not None
        _, last = close(self.state)
        readings = [r for window in [*self.windows, *([last] if last else [])] for r in window.readings]
        amounts = [dict(reading.counters) for reading in readings]
        return {
            name: sum(amount.get(unit, 0) for amount in amounts)
            for name, unit in UNITS.items()
            if any(unit in amount for amount in amounts)
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit with 1 where a figure differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--server", type=Path, required=True, help="llama-server, as docs/engines.md builds it")
    parser.add_argument("--requests", type=int, default=40, help="how many are sent in each part (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the model and of the requests (default: 1)")
    parser.add_argument("--exposition", type=Path, help="write the last /metrics of the first part to this file")
    return trio.run(_run, parser.parse_args(arguments))


async def _run(options: argparse.Namespace) -> int:
    numbers = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "random.gguf"
        write_model(model, options.seed)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            url = f"http://127.0.0.1:{_free_port()}"
            meter = Meter(EngineSource(client, url=f"{url}/metrics"))
            start = partial(_server, options.server, model, client, url)

            async with start():
                await meter.read()
                told = await _load(client, url, numbers, options.requests)
                await meter.read()
                same = _compare("first run", told, meter, lost=Tokens())
                if options.exposition:
                    options.exposition.write_text((await client.get(f"{url}/metrics")).text)
            async with start():
                await meter.read()
                told += await _load(client, url, numbers, options.requests)
                await meter.read()
                same &= _compare("stopped after a reading, started again", told, meter, lost=Tokens())
                lost = await _load(client, url, numbers, options.requests // 2)
                told += lost
            async with start():
                # One reading before the load: an engine that tells no start time is known by its zeros.
                await meter.read()
                told += await _load(client, url, numbers, options.requests)
                await meter.read()
                same &= _compare("ended with work unread, started again", told, meter, lost=lost)
    return 0 if same else 1


def _compare(part: str, told: Tokens, meter: Meter, *, lost: Tokens) -> bool:
    """Print a line a unit; whether what is recorded is what the answers told, less what nobody read."""
    assert meter.shown is not None
    shown: dict[str, int] = {}
    for series, value in meter.shown.counters.series.items():
        name, _, _ = series.partition("{")
        shown[name] = shown.get(name, 0) + value
    recorded = meter.recorded()
    if CACHED_TOKENS not in recorded:
        # A server that does not tell cached tokens counts the computed ones alone.
        told, lost = (replace(tokens, prompt=tokens.prompt - tokens.cached, cached=0) for tokens in (told, lost))
    _say(f"{part}  ({meter.shown.provenance})")
    same = True
    for name, reported, unread in (
        (PROMPT_TOKENS, told.prompt, lost.prompt),
        (CACHED_TOKENS, told.cached, lost.cached),
        (GENERATION_TOKENS, told.generated, lost.generated),
    ):
        if name not in recorded:
            _say(f"  {name:18} not told by this server")
            continue
        equal = recorded[name] == reported - unread
        same &= equal
        verdict = "equal" if equal else "DIFFERENT"
        _say(
            f"  {name:18} answers {reported:7}  unread {unread:6}  recorded {recorded[name]:7}"
            f"  (/metrics of this run {shown[name]:7})  {verdict}"
        )
    return same


async def _load(client: httpx.AsyncClient, url: str, numbers: random.Random, count: int) -> Tokens:
    """Send `count` requests, four at a time; return what their answers add up to."""
    bodies = [_request(numbers) for _ in range(count)]
    told: list[Tokens] = []
    limit = trio.CapacityLimiter(4)

    async def send(path: str, body: dict[str, object]) -> None:
        async with limit:
            answer = await client.post(url + path, json=body)
            answer.raise_for_status()
            told.append(_reported(answer.json()))

    async with trio.open_nursery() as nursery:
        for path, body in bodies:
            nursery.start_soon(send, path, body)
    return sum(told, Tokens())


def _request(numbers: random.Random) -> tuple[str, dict[str, object]]:
    prompt = " ".join(numbers.choices(_WORDS, k=numbers.randint(1, 40)))
    generated = numbers.randint(1, 100)
    common: dict[str, object] = {"top_k": 5, "seed": numbers.randint(1, 10**6)}
    if numbers.random() < 0.7:
        return "/completion", {**common, "prompt": prompt, "n_predict": generated, "cache_prompt": True}
    messages = [{"role": "user", "content": prompt}]
    # Old servers do not say in these answers what was cached: nothing is.
    return "/v1/chat/completions", {**common, "messages": messages, "max_tokens": generated, "cache_prompt": False}


def _reported(answer: dict[str, object]) -> Tokens:
    """What an answer says that it cost, in llama.cpp's form or in OpenAI's."""
    match answer:
        case {
            "tokens_evaluated": int(prompt),
            "tokens_predicted": int(generated),
            "timings": {"prompt_n": int(computed)},
        }:
            return Tokens(prompt, prompt - computed, generated)
        case {"usage": {"prompt_tokens": int(prompt), "completion_tokens": int(generated), **details}}:
            match details:
                case {"prompt_tokens_details": {"cached_tokens": int(cached)}}:
                    return Tokens(prompt, cached, generated)
            return Tokens(prompt, 0, generated)
    raise ValueError(f"an answer of another form: {json.dumps(answer):.200}")


@asynccontextmanager
async def _server(binary: Path, model: Path, client: httpx.AsyncClient, url: str) -> AsyncIterator[None]:
    """Run the server until the block is left; it is told to stop, as by a service manager."""
    port = url.rpartition(":")[2]
    command = [str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", port]
    command += ["--metrics", "--ctx-size", "4096", "--parallel", "2", "--threads", "1"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with trio.fail_after(_START_TIMEOUT_S):
            while not await _is_ready(client, url):
                if process.poll() is not None:
                    raise SourceUnavailableError(f"{binary} ended with {process.returncode} instead of serving")
                await trio.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True):
            await process.wait()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/health")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
