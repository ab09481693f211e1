"""The loopback listener under whatever a program on this host, or a page in its browser, sends: it answers or hangs up.

Each run draws its requests from a seed that a failure names; what the draws found stays below as a case of its own.
"""

from __future__ import annotations

import gc
import random
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry

from agent import http_serve
from agent.web import Probes, WebConfig, serve_web

STATUSES = {100, 101, 200, 400, 403, 404, 405, 421, 431, 501, 503}
"""What an answer may be; 500 would be a defect."""
METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"get",
    b"\xff",
    b"A" * 99,
)
PATHS = (
    b"/", b"/metrics", b"/-/status", b"/-/checkpoint", b"/-/checkpoint?payload_hash=zz", b"/page.css", b"/page.js",
    b"/../../etc/passwd", b"/page.css/../../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"//evil.example/", b"*",
    b"http://evil.example/", b"/\xff\xfe", b"/%00", b"/%ff%fe?%ff=%fe", b"/" + b"a" * 9000, b"", b"/?" + b"&" * 2000,
    b"/-/checkpoint?payload_hash=" + b"ab" * 32 + b"&payload_hash=" + b"cd" * 32,
)  # fmt: skip
HEADERS = (
    b"Host: localhost", b"Host: evil.example", b"Host: localhost\r\nHost: evil.example", b"Host: 127.0.0.1:99999999",
    b"Host: localhost@evil.example", b"Host: [::1", b"Host:", b"Host: \xff", b"Host: localhost.", b"hOST: LOCALHOST",
    b"X-Forwarded-Host: evil.example", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: \xff",
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 6",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Connection: close", b"Connection: upgrade",
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", b"Upgrade: websocket\r\nSec-WebSocket-Key: AAAA",
    b"Expect: 100-continue",
    b"Range: bytes=0-,0-,0-", b"Cookie: " + b"a=b; " * 900, b"X: " + b"y" * 20_000, b" folded", b"no colon",
    b"X\x00: 1",
)  # fmt: skip
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/2.0", b"", b"\xff")
BODIES = (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"\x00" * 5000, b"GET / HTTP/1.1\r\n\r\n")


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    async def page() -> str:
        return "<!doctype html>\n<title>page</title>\n"

    probes = Probes(healthy=lambda: None, ready=lambda: "not yet", status=lambda: {"node_key": "ab"}, page=page)
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(serve_web, WebConfig(port=0), CollectorRegistry(), probes)
        yield port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/-/healthy")).text == "ok\n"
        nursery.cancel_scope.cancel()


async def say(port: int, raw: bytes) -> bytes:
    """Send it and hang up the sending side; whatever comes back until the listener hangs up, too."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        heard = b""
        with trio.move_on_after(5):
            try:
                await stream.send_all(raw)
                await stream.send_eof()
                while chunk := await stream.receive_some(65_536):
                    heard += chunk
            except trio.BrokenResourceError:
                pass  # it hung up
        return heard


def drawn(draw: random.Random) -> bytes:
    """One request, or several in one go."""
    raw = b""
    for _ in range(draw.choice((1, 1, 1, 2, 30))):
        headers = draw.sample(HEADERS, draw.randint(0, 4)) + ([b"Host: localhost"] if draw.random() < 0.5 else [])
        line = b" ".join((draw.choice(METHODS), draw.choice(PATHS), draw.choice(VERSIONS)))
        raw += b"\r\n".join((line, *headers, b"", b"")) + draw.choice(BODIES)
    if draw.random() < 0.2:
        at = draw.randrange(len(raw))
        raw = raw[:at] + draw.randbytes(8) + raw[at:]
    return raw[: draw.randint(1, len(raw))] if draw.random() < 0.2 else raw


def statuses(heard: bytes) -> set[int]:
    return {int(status) for status in re.findall(rb"(?:^|\n)HTTP/1\.[01] (\d{3})", heard)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_sent_is_answered_or_dropped(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(seed)
    async with listening() as port:
        for _ in range(150):
            raw = drawn(draw)
            heard = await say(port, raw)
            assert statuses(heard) <= STATUSES, (seed, raw)
            assert b"root:" not in heard, (seed, raw)
    assert not [record for record in caplog.records if record.levelname == "ERROR"], seed


@pytest.mark.parametrize(
    "path", [b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/page.css/../x", b"/assets/page.py"]
)
async def test_only_what_is_named_is_served(path: bytes) -> None:
    async with listening() as port:
        heard = await say(port, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert statuses(heard) == {404}


@pytest.mark.parametrize(
    "hosts",
    [
        b"Host: localhost\r\nHost: localhost",
        b"Host: evil.example\r\nX-Forwarded-Host: localhost",
        b"Host: localhost@evil.example",
        b"Host: evil.example#localhost",
        b"Host: localhost\xff",
        b"X: y",
    ],
)
async def test_a_host_that_is_not_ours_reads_nothing(hosts: bytes) -> None:
    async with listening() as port:
        heard = await say(port, b"GET /-/status HTTP/1.1\r\n" + hosts + b"\r\nConnection: close\r\n\r\n")
        absolute = b"GET http://evil.example/-/status HTTP/1.1\r\n" + hosts + b"\r\nConnection: close\r\n\r\n"
        heard += await say(port, absolute)
    assert statuses(heard) <= {400, 421}
    assert b"node_key" not in heard


async def test_endless_headers_and_bodies_fill_no_memory() -> None:
    async with listening() as port:
        await say(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        chunk = b"X: " + b"y" * 65_530 + b"\r\n"
        for start in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
            b"GET /-/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        ):
            await pour(port, start, chunk, 64 << 20)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak - before < 16 << 20


async def pour(port: int, start: bytes, chunk: bytes, length: int) -> None:
    """Send `start` and then as much as the listener takes, at most `length` bytes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(5):
            try:
                await stream.send_all(start)
                for _ in range(length // len(chunk)):
                    await stream.send_all(chunk)
            except trio.BrokenResourceError:
                pass  # it hung up


async def test_those_who_never_finish_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_serve, "READ_TIMEOUT_S", 1)
    async with listening() as port:
        slow = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
        for i, stream in enumerate(slow):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: local"[: 1 + i % 28])
        heard = await say(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert statuses(heard) == {200}
        with trio.fail_after(20):
            for stream in slow:
                while await stream.receive_some(4096):
                    pass
                await stream.aclose()


async def test_when_all_places_are_taken_others_are_hung_up_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_serve, "CONNECTIONS_MAX", 3)
    request = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with listening() as port:
        held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for stream in held:
            await stream.send_all(request)
            assert b"200" in await stream.receive_some(4096)
        assert await say(port, request) == b""
        for stream in held:
            await stream.send_eof()
            while await stream.receive_some(4096):
                pass
            await stream.aclose()
        assert statuses(await say(port, request)) == {200}


async def test_no_connection_lasts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that drips is never silent for long."""
    monkeypatch.setattr(http_serve, "CONNECTION_S", 0.5)
    async with listening() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: local")
        with trio.fail_after(http_serve.READ_TIMEOUT_S - 2):
            assert await stream.receive_some(4096) == b""


async def test_what_trips_one_connection_up_ends_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by the draws: a request cut off while the one before it is answered, which ended the agent."""
    raw = b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30 + b"GET / HT"
    caplog.set_level("INFO")

    async def trip(self: object, event: object) -> None:
        raise trio.BusyResourceError("another task is currently sending data")

    async with listening() as port:
        for _ in range(20):
            await say(port, raw)
        with monkeypatch.context() as patched:
            patched.setattr(http_serve._Connection, "protocol_send", trip)
            assert await say(port, raw) == b""
    assert "a connection is dropped: BusyResourceError" in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_other_sites_in_the_same_browser_are_kept_out(headers: dict[str, str], status: int) -> None:
    async with listening() as port, httpx.AsyncClient(trust_env=False) as client:
        for path in ("/", "/metrics", "/page.js", "/-/status"):
            answer = await client.get(f"http://localhost:{port}{path}", headers=headers)
            assert answer.status_code == status


async def test_every_answer_tells_browsers_to_keep_it_to_this_page() -> None:
    async with listening() as port, httpx.AsyncClient(base_url=f"http://localhost:{port}", trust_env=False) as client:
        for path in ("/", "/metrics", "/page.css", "/-/status", "/nothing"):
            headers = (await client.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert "Set-Cookie" not in headers
        policy = (await client.get("/")).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (await client.get("/page.css")).headers["Content-Type"].startswith("text/css")
        assert (await client.get("/page.js")).headers["Content-Type"].startswith("text/javascript")
        assert (await client.get("/page.svg")).headers["Content-Type"] == "image/svg+xml"
        assert (await client.head("/")).text == ""
        assert (await client.post("/")).status_code == 405
