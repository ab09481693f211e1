"""Serving HTTP on one socket: each connection by itself, so that none costs the agent more than itself.

Whoever connects is untrusted. The protocol is hypercorn's, with h11 below it; hypercorn's own server is not used:
it ends as a whole when one connection trips it up, and the agent with it (docs/adr/0036).

1. Whatever goes wrong in a connection ends that connection alone, and is told to the log.
2. There are at most `CONNECTIONS_MAX` connections; whoever comes when all are taken is hung up on. Peers, disk and
   chain need descriptors, too.
3. Who says nothing for `READ_TIMEOUT_S` is hung up on, and everybody after `CONNECTION_S`; a request's head is
   bounded (h11).
4. Told to stop, it takes no more connections, and lets the answers that it has begun finish for a moment.

Source: ASGI; trio, "serve_listeners"; hypercorn 0.18, `hypercorn.trio.tcp_server`.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, Framework
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    # The stubs of trio-typing, which libp2p brings, hide trio's own types from the type checker.
    from trio_typing import TaskStatus

CONNECTIONS_MAX = 128
CONNECTION_S = 120
READ_TIMEOUT_S = 10
GRACE_S = 1

log = logging.getLogger(__name__)


async def serve_app(
    app: ASGIApp, listener: socket.socket, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an ASGI application on a bound socket until cancelled, then for a moment more to finish answers."""
    server = _Server(app)
    stop = trio.Event()
    # Shielded, so that a cancellation reaches the server as a request to stop; the deadline bounds its answer.
    last_moment = trio.CancelScope(shield=True)

    async def serve_until_stopped() -> None:
        with last_moment:
            await server.run(listener, stop)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_until_stopped)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            stop.set()
            last_moment.deadline = trio.current_time() + 2 * GRACE_S


class _Server:
    def __init__(self, app: ASGIApp) -> None:
        self._config = _config()
        self._context = WorkerContext(None)
        self._app = wrap_app(cast(Framework, _Answering(app)), self._config.wsgi_max_body_size, "asgi")
        self._open = 0

    async def run(self, listener: socket.socket, stop: trio.Event) -> None:
        """Take connections until `stop`, then wait for those that are open."""
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
            serve: Any = partial(trio.serve_listeners, handler_nursery=connections)
            accepting.start_soon(serve, self._connection, listeners)
            await stop.wait()
            accepting.cancel_scope.cancel()
            await self._context.terminated.set()

    async def _connection(self, stream: trio.SocketStream) -> None:
        """One connection from its beginning to its end (rules 1 and 2)."""
        if self._open >= CONNECTIONS_MAX:
            await stream.aclose()
            return
        self._open += 1
        plain: Any = stream  # the annotations of `TCPServer` know of TLS alone
        connection = _Connection(self._app, self._config, self._context, ConnectionState({}), plain)
        try:
            with trio.move_on_after(CONNECTION_S):
                await connection.run()
        except* Exception as errors:  # noqa: BLE001  # whatever it is, it must not end the agent
            log.info("a connection is dropped: %s", _first(errors))
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)


class _Connection(TCPServer):
    async def _read_data(self) -> None:
        """Read until nothing comes any more; then it is over, and not only when it was idle for long enough."""
        await super()._read_data()
        await self.idle_task.stop()


class _Answering:
    """Leave alone who hangs up while it is answered: hypercorn closes the connection below the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except trio.BusyResourceError as error:
            log.info("an answer is dropped: %s", error)


def _config() -> Config:
    config = Config()
    config.loglevel = "WARNING"
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = GRACE_S
    config.read_timeout = READ_TIMEOUT_S
    config.include_server_header = False
    return config


def _first(error: BaseException) -> str:
    """The first of the errors in a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
