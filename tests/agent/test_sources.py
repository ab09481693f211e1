"""The sources that the settings name: what answers at the address of one cannot disturb another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from agent.errors import InvalidSourceError
from agent.sources import open_sources

METRICS = b"# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total 5\n"
COOKIE = b"Set-Cookie: %d=" + b"x" * 3000 + b"; Path=/\r\n"


def config(engine: int, cocoon: int) -> Any:
    """An engine and a Cocoon worker at these ports."""
    return SimpleNamespace(
        engine=SimpleNamespace(urls=[f"http://127.0.0.1:{engine}/metrics"]),
        cocoon=SimpleNamespace(urls=[f"http://127.0.0.1:{cocoon}"], workers=[0], host="127.0.0.1", access_hash=None),
        gpus=SimpleNamespace(nvml=False),
    )


async def serve(nursery: trio.Nursery, answer: Callable[[], bytes], heads: list[bytes]) -> int:
    """Answer every request with these headers and body, noting the head of each; the port."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some(65536)
            heads.append(head)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + answer())

    (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
    return int(listener.socket.getsockname()[1])


async def test_a_guest_that_sets_cookies_sets_none(nursery: trio.Nursery) -> None:
    asked: list[bytes] = []
    told: list[bytes] = []

    def cookies() -> bytes:
        return b"".join(COOKIE % (10 * len(told) + i) for i in range(10)) + b"Content-Length: 2\r\n\r\n{}"

    def metrics() -> bytes:
        return b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(METRICS) + METRICS

    ports = [await serve(nursery, metrics, asked), await serve(nursery, cookies, told)]
    async with open_sources(config(*ports)) as (engine, cocoon):
        for _ in range(3):
            assert sum((await engine.sample()).counters.series.values()) == 5
            with pytest.raises(InvalidSourceError):
                await cocoon.sample()
    assert (len(asked), len(told) >= 3) == (3, True)
    assert not [head for head in asked + told if b"cookie" in head.lower()]
