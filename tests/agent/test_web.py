"""The web listener: who may ask, what it says, and how it starts and stops."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agent.errors import AddressAwayError, ConfigError, PortInUseError
from agent.http_serve import serve_app
from agent.web import Probes, WebConfig, bind, serve_web

FREE_PORT = WebConfig(port=0)


class Daemon:
    """What the probes report."""

    def __init__(self) -> None:
        self.healthy: str | None = None
        self.ready: str | None = "the chain is not reached yet"

    def probes(self) -> Probes:
        return Probes(
            healthy=lambda: self.healthy, ready=lambda: self.ready, status=lambda: {"epoch": 7}, page=self.page
        )

    async def page(self) -> str:
        return "<!doctype html>\n<title>You earn</title>\n"


@asynccontextmanager
async def listening(daemon: Daemon, config: WebConfig = FREE_PORT) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    Counter("gpupool_things", "Things", registry=registry).inc(3)
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(serve_web, config, registry, daemon.probes())
        host = f"[{host}]" if ":" in host else host
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_pages() -> None:
    daemon = Daemon()
    async with listening(daemon) as client:
        metrics = await client.get("/metrics")
        assert metrics.status_code == 200
        assert "gpupool_things_total 3.0" in metrics.text
        assert (await client.get("/-/status")).json() == {"epoch": 7}
        assert (await client.head("/-/healthy")).status_code == 200
        nothing = await client.get("/nothing")
        assert (nothing.status_code, nothing.text) == (404, "no such page here\n")


async def test_probes_follow_the_daemon() -> None:
    daemon = Daemon()
    async with listening(daemon) as client:
        answer = await client.get("/-/ready")
        assert (answer.status_code, answer.text) == (503, "the chain is not reached yet\n")
        daemon.ready = None
        assert (await client.get("/-/ready")).status_code == 200
        daemon.healthy = "loop settling has stood still for 300 s"
        assert (await client.get("/-/healthy")).status_code == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_reading_is_all_that_one_can_do(method: str) -> None:
    async with listening(Daemon()) as client:
        assert (await client.request(method, "/-/status")).status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9464", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:9464", 200),
        ("evil.example", 421),
        ("evil.example:9464", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[::1", 200),
        ("[evil]", 421),
    ],
)
async def test_only_this_host_is_served(host: str, status: int) -> None:
    async with listening(Daemon()) as client:
        assert (await client.get("/-/healthy", headers={"Host": host})).status_code == status


async def test_request_without_host_is_refused() -> None:
    async with listening(Daemon()) as client:
        assert client.base_url.port is not None
        stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
        await stream.send_all(b"GET /-/status HTTP/1.0\r\n\r\n")
        assert b" 421 " in (await stream.receive_some()).partition(b"\r\n")[0]
        await stream.aclose()


async def test_garbage_does_no_harm() -> None:
    async with listening(Daemon()) as client:
        assert client.base_url.port is not None
        for garbage in (b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"):
            stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
            await stream.send_all(garbage)
            await stream.aclose()
        assert (await client.get("/-/healthy")).status_code == 200


@pytest.mark.parametrize("name", ["gpu7.example", "GPU7.Example"])
async def test_allowed_hosts_are_served_too(name: str) -> None:
    config = WebConfig(port=0, allowed_hosts=(name,))
    async with listening(Daemon(), config) as client:
        assert (await client.get("/-/healthy", headers={"Host": "gpu7.example:9464"})).status_code == 200


async def test_a_stop_does_not_wait_for_idle_connections() -> None:
    with trio.fail_after(5):
        async with listening(Daemon()) as client:
            await client.get("/-/healthy")
            assert client.base_url.port is not None
            idle = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
    assert await idle.receive_some() == b""


async def test_a_stop_lets_an_answer_finish() -> None:
    asked, release = trio.Event(), trio.Event()

    async def page(_: Request) -> Response:
        asked.set()
        await release.wait()
        return PlainTextResponse("done")

    listener = bind(FREE_PORT)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server = trio.CancelScope()
    answers: list[httpx.Response] = []

    async def serve() -> None:
        with server:
            await serve_app(Starlette(routes=[Route("/", page)]), listener)

    async def ask() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            answers.append(await client.get(url))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(ask)
        await asked.wait()
        server.cancel()
        release.set()
    assert [answer.text for answer in answers] == ["done"]


def test_port_in_use_is_one_line() -> None:
    with bind(WebConfig(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"^127\.0\.0\.1 port {port} is in use by another process$"):
            bind(WebConfig(port=port))


def test_freed_port_is_free_at_once() -> None:
    with bind(WebConfig(port=0)) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), first.accept()[0]:
            pass
    with bind(WebConfig(port=port)) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WebConfig(host="0.0.0.0"), "not loopback"),
        (WebConfig(host="example.org"), "IP address"),
        (WebConfig(port=65536), "port"),
        (WebConfig(port=-1), "port"),
    ],
)
def test_addresses_are_checked(config: WebConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bind(config)


def test_an_address_may_not_be_there_yet() -> None:
    with pytest.raises(AddressAwayError, match=r"^host: cannot listen on 192\.0\.2\.1 port 0: "):
        bind(WebConfig(host="192.0.2.1", port=0, allowed_hosts=("gpu7.example",)))
