"""The agent's HTTP listener: metrics, health, readiness and status, for the operator of this host alone.

Decides who may ask: nobody but this host, unless the operator says otherwise, and no page in its browser.
Requests are untrusted.

1. The listener binds to a loopback address; another one needs `allowed_hosts`, so that it is never an accident.
2. A request whose Host header names another host is refused: a web page that rebinds its own name to
   127.0.0.1 must not read this listener.
3. The pages here take GET and HEAD only, and change no state. Receipts come in at a listener of their own, to which the
   first two rules apply as well (`agent.receipts`).
4. `/-/healthy` says whether the process does its work (a supervisor restarts it if not), `/-/ready` whether
   the pool can count on it now. Both give the reason in one line.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.typing import Framework
from hypercorn.utils import wrap_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import ConfigError, PortInUseError

if TYPE_CHECKING:
    # The stubs of trio-typing, which libp2p brings, hide trio's own types from the type checker.
    from trio_typing import TaskStatus

_GRACE_S = 1
_READ_TIMEOUT_S = 10
_BACKLOG = 64


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
        ConfigError: the address is not this host's, or not loopback without `allowed_hosts`.
    """
    await serve_local(web_app(registry, probes), config, task_status=task_status)


async def serve_local(
    app: ASGIApp, config: WebConfig, *, task_status: TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an application for this host alone (rules 1 and 2), as `serve_web` does."""
    listener = bind(config)
    host, port = listener.getsockname()[:2]
    guarded = OnlyFor(app, frozenset({"localhost", "127.0.0.1", "::1", *config.allowed_hosts}))
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
        "/metrics": metrics,
        "/-/healthy": healthy,
        "/-/ready": ready,
        "/-/status": status,
        "/-/checkpoint": checkpoint,
    }
    return Starlette(routes=[Route(path, page, methods=["GET"]) for path, page in pages.items()])


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
        PortInUseError, ConfigError: as in `serve_web`.
    """
    try:
        address = ipaddress.ip_address(config.host)
    except ValueError:
        raise ConfigError(f"host: expected an IP address, got {config.host!r:.80}") from None
    if not address.is_loopback and not config.allowed_hosts:
        raise ConfigError(f"host: {address} is not loopback; name in allowed_hosts who it is reached as")
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
        raise ConfigError(f"cannot listen on {address} port {config.port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


async def serve_app(
    app: ASGIApp, listener: socket.socket, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an ASGI application on a bound socket until cancelled, then for a moment more to finish answers."""
    config = Config()
    config.loglevel = "WARNING"
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = _GRACE_S
    config.read_timeout = _READ_TIMEOUT_S
    config.include_server_header = False
    sockets = Sockets(secure_sockets=[], insecure_sockets=[listener], quic_sockets=[])
    wrapped = wrap_app(cast(Framework, app), config.wsgi_max_body_size, "asgi")
    serve = partial(worker_serve, wrapped, config, sockets=sockets)
    stop = trio.Event()
    # Shielded, so that a cancellation reaches the server as a request to stop; the deadline bounds its answer.
    last_moment = trio.CancelScope(shield=True)

    async def serve_until_stopped() -> None:
        with last_moment:
            await serve(shutdown_trigger=stop.wait)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_until_stopped)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            stop.set()
            last_moment.deadline = trio.current_time() + 2 * _GRACE_S


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
