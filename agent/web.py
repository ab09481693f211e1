"""The agent's HTTP listener: metrics, health, status and the status page, for the operator of this host alone.

Decides who may ask: nobody but this host, unless the operator says otherwise, and no page in its browser.
Requests are untrusted.

1. The listener binds to a loopback address; another one needs `allowed_hosts` (`agent.listening`).
2. A request whose Host header names another host is refused: a web page that rebinds its own name to
   127.0.0.1 must not read this listener.
3. The pages here take GET and HEAD only, and change no state. Receipts come in at a listener of their own, to which the
   first two rules apply as well (`agent.receipts`).
4. Nor does a page of another site get anything out of it: an answer says so to browsers (`_HEADERS`), and what one
   asks on behalf of another site is refused, unless somebody follows a link.
5. `/-/healthy` says whether the process does its work (a supervisor restarts it if not), `/-/ready` whether
   the pool can count on it now. Both give the reason in one line.

Elsewhere: connections and their limits (`agent.http_serve`), what the status page shows (`agent.page`).

Source: Fetch Metadata Request Headers (W3C); Fetch, "Cross-Origin-Resource-Policy header".
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.errors import AddressAwayError, ConfigError, PortInUseError
from agent.http_serve import serve_app
from agent.listening import listen_address
from agent.page.document import CONTENT_SECURITY_POLICY

if TYPE_CHECKING:
    # The stubs of trio-typing, which libp2p brings, hide trio's own types from the type checker.
    from trio_typing import TaskStatus

_BACKLOG = 64
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "page.svg": "image/svg+xml"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """Where to listen. `port` 0 takes a free one; `allowed_hosts` are further names for the Host header."""

    host: str = "127.0.0.1"
    port: int = 9464
    allowed_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What the listener asks the daemon. `healthy` and `ready` return None, or one line that says why not."""

    healthy: Callable[[], str | None]
    ready: Callable[[], str | None]
    status: Callable[[], Mapping[str, Any]]
    page: Callable[[], Awaitable[str]]
    """The status page."""
    checkpoint: Callable[[bytes | None], bytes | None] = lambda payload_hash: None
    """Bytes of the settlement with this payload hash, or of the last one; may block for as long as the disk takes."""


async def serve_web(
    config: WebConfig,
    registry: CollectorRegistry,
    probes: Probes,
    *,
    task_status: TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; started with the (host, port) that was bound. Cancelled, it lets answers finish.

    Raises:
        PortInUseError: another process listens there.
        AddressAwayError: the address is none of this host now.
        ConfigError: the address is not this host's, or not loopback without `allowed_hosts`.
    """
    await serve_local(web_app(registry, probes), config, task_status=task_status)


async def serve_local(
    app: ASGIApp, config: WebConfig, *, task_status: TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an application for this host alone (rules 1 and 2), as `serve_web` does."""
    listener = bind(config)
    host, port = listener.getsockname()[:2]
    guarded = OnlyFor(app, frozenset({"localhost", "127.0.0.1", "::1", *map(str.lower, config.allowed_hosts)}))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_app, guarded, listener)
        task_status.started((host, port))


def web_app(registry: CollectorRegistry, probes: Probes) -> ASGIApp:
    """The pages, without the check of rule 2."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(_: Request) -> Response:
        return _verdict(probes.healthy())

    async def ready(_: Request) -> Response:
        return _verdict(probes.ready())

    async def status(_: Request) -> Response:
        return JSONResponse(dict(probes.status()))

    async def page(_: Request) -> Response:
        return HTMLResponse(await probes.page(), headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    async def checkpoint(request: Request) -> Response:
        """The last settlement, or `?payload_hash=<64 hex digits>`: what a claim is proved from."""
        wanted = request.query_params.get("payload_hash")
        try:
            payload_hash = bytes.fromhex(wanted) if wanted is not None else None
        except ValueError:
            return PlainTextResponse("payload_hash: expected 64 hex digits\n", status_code=400)
        data = await trio.to_thread.run_sync(probes.checkpoint, payload_hash)
        if data is None:
            return PlainTextResponse("no such settlement here\n", status_code=404)
        return Response(data, media_type="application/octet-stream")

    pages = {
        "/": page,
        **{f"/{name}": _asset(name, media_type) for name, media_type in _ASSETS.items()},
        "/metrics": metrics,
        "/-/healthy": healthy,
        "/-/ready": ready,
        "/-/status": status,
        "/-/checkpoint": checkpoint,
    }
    routes = [Route(path, answer, methods=["GET"]) for path, answer in pages.items()]
    return OwnSite(Starlette(routes=routes, exception_handlers={404: _no_such_page}))


async def _no_such_page(_: Request, __: Exception) -> Response:
    return PlainTextResponse("no such page here\n", status_code=404)


def _asset(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("agent.page").joinpath("assets", name).read_bytes()

    async def asset(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return asset


class OwnSite:
    """Keep other sites in the same browser out (rule 4)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self._app
        if scope["type"] == "http":
            asked = Headers(scope=scope)
            is_ours = asked.get("sec-fetch-site", "none") in ("none", "same-origin")
            if not is_ours and asked.get("sec-fetch-dest") != "document":
                app = PlainTextResponse("This listener does not serve other sites.\n", status_code=403)
        await app(scope, receive, send_closed)


class OnlyFor:
    """Refuse requests for other hosts than `hosts` (names without port, lower case): rule 2."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and _host(scope) not in self._hosts:
            app = PlainTextResponse("This listener does not serve that host.\n", status_code=421)
        await app(scope, receive, send)


def bind(config: WebConfig) -> socket.socket:
    """Open the listening socket ourselves, so that a failure is ours to explain.

    Raises:
        PortInUseError, AddressAwayError, ConfigError: as in `serve_web`; the last two begin with the key, `host` or
            `port`.
    """
    address = listen_address("", config.host, config.allowed_hosts)
    if not 0 <= config.port < 1 << 16:
        raise ConfigError(f"port: expected 0 to 65535, got {config.port}")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(f"{address} port {config.port} is in use by another process") from error
        failure = AddressAwayError if error.errno == errno.EADDRNOTAVAIL else ConfigError
        raise failure(f"host: cannot listen on {address} port {config.port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _verdict(reason: str | None) -> Response:
    return PlainTextResponse("ok\n") if reason is None else PlainTextResponse(f"{reason}\n", status_code=503)


def _host(scope: Scope) -> str:
    """The host that the request names, lower case, without port or brackets; empty if it names none or two."""
    values: list[bytes] = [value for name, value in scope["headers"] if name == b"host"]
    if len(values) != 1:
        return ""
    host = values[0].decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
