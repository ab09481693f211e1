"""The embedded chain's liteserver: ADNL connections in, answers out; and the clock that seals blocks.

A thin shell around `Node`: everything that decides is in `queries`, `adnl` and `node`. All of it runs
in one trio task at a time, so a query sees a whole block.

Untrusted input: connections. Rules: at most `CONNECTIONS_MAX` at once, `HANDSHAKE_S` for a handshake,
`PENDING_MAX` unanswered queries per connection, `IDLE_S` without a byte. A connection that breaks a
rule is closed; nothing a client sends ends the server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from contracts.devchain.adnl import HANDSHAKE_BYTES, Channel, ServerKey
from contracts.devchain.errors import InvalidQueryError
from contracts.devchain.node import Node
from contracts.devchain.queries import answer, error
from contracts.devchain.tl import decode, decode_prefix, encode

CONNECTIONS_MAX = 256
PENDING_MAX = 64
HANDSHAKE_S = 10
IDLE_S = 60
SEND_S = 30
WAIT_S_MAX = 60
GATHER_S = 0.1
"""How long a block waits for more messages after the first: clients need not wait for the next tick."""

_TIMEOUT = 652

_log = logging.getLogger(__name__)


class LiteServer:
    """Serves one `Node` and seals its blocks.

    Args:
        block_s: seconds between blocks while nothing is sent, more than 0.
        clock: unix time in seconds (for tests).
    """

    def __init__(self, node: Node, *, block_s: float, clock: Callable[[], float] = time.time) -> None:
        self._node = node
        self._key = ServerKey(node.liteserver_seed)
        self._block_s = block_s
        self._clock = clock
        self._connections = 0
        self._sealed = trio.Event()
        self._sent = trio.Event()

    @property
    def public_key(self) -> bytes:
        return self._key.public

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Serve and seal until cancelled; then seal what was accepted since the last block."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._seal_for_ever)
                await trio.serve_listeners(self._serve_connection, listeners)
        finally:
            # Cancelled ones arrive in a group, hence no `except`.
            if self._node.has_pending:
                self._node.seal(self._now())

    async def _seal_for_ever(self) -> None:
        while True:
            with trio.move_on_after(self._block_s):
                await self._sent.wait()
                await trio.sleep(GATHER_S)
            self._sent = trio.Event()
            self._node.seal(self._now())
            self._sealed.set()
            self._sealed = trio.Event()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        if self._connections >= CONNECTIONS_MAX:
            await stream.aclose()
            return
        self._connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except* InvalidQueryError as group:
            _log.info("connection closed: %s", group.exceptions[0])
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            _log.debug("connection lost")
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        reader = _Reader(stream)
        with trio.fail_after(HANDSHAKE_S):
            handshake = await reader.exactly(HANDSHAKE_BYTES)
            if handshake is None:
                return
            channel = self._key.accept(handshake)
            writer = _Writer(stream, channel)
            await writer.send(b"")
        pending = trio.CapacityLimiter(PENDING_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                with trio.fail_after(IDLE_S):
                    head = await reader.exactly(4)
                    frame = None if head is None else await reader.exactly(channel.frame_bytes(head))
                if frame is None:
                    nursery.cancel_scope.cancel()
                    return
                await pending.acquire_on_behalf_of(frame)
                nursery.start_soon(self._respond, writer, channel.open(frame), pending, frame)

    async def _respond(self, writer: _Writer, packet: bytes, pending: trio.CapacityLimiter, token: object) -> None:
        try:
            name, fields = decode(packet)
            if name == "tcp.ping":
                await writer.send(encode("tcp.pong", random_id=fields["random_id"]))
            elif name == "adnl.message.query":
                reply = await self._answer(fields["query"])
                await writer.send(encode("adnl.message.answer", query_id=fields["query_id"], answer=reply))
            else:
                raise InvalidQueryError(f"unexpected packet {name}")
        finally:
            pending.release_on_behalf_of(token)

    async def _answer(self, wrapped: bytes) -> bytes:
        try:
            name, fields = decode(wrapped)
            if name != "liteServer.query":
                raise InvalidQueryError(f"expected a liteserver query, got {name}")
            name, fields, rest = decode_prefix(fields["data"])
            if name == "liteServer.waitMasterchainSeqno":
                if not await self._wait_for(fields["seqno"], fields["timeout_ms"] / 1000):
                    return error(_TIMEOUT, "timeout")
                name, fields = decode(rest)
            elif rest:
                raise InvalidQueryError(f"{name}: {len(rest)} bytes too many")
        except InvalidQueryError as invalid:
            return error(621, str(invalid))
        reply = answer(self._node, name, fields, self._now())
        if self._node.has_pending:
            self._sent.set()
        return reply

    async def _wait_for(self, seqno: int, timeout_s: float) -> bool:
        """Wait until block `seqno` is sealed; False when `timeout_s` has passed before."""
        with trio.move_on_after(min(max(timeout_s, 0), WAIT_S_MAX)):
            while self._node.head.seqno < seqno:
                await self._sealed.wait()
        return self._node.head.seqno >= seqno

    def _now(self) -> int:
        return int(self._clock())


class _Reader:
    """Exact reads from a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def exactly(self, size: int) -> bytes | None:
        """The next `size` bytes, or None if the stream ends before."""
        while len(self._buffer) < size:
            part = await self._stream.receive_some(65536)
            if not part:
                return None
            self._buffer += part
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class _Writer:
    """Whole frames to a stream, one after the other: the cipher's order is the wire's."""

    def __init__(self, stream: trio.SocketStream, channel: Channel) -> None:
        self._stream = stream
        self._channel = channel
        self._lock = trio.Lock()

    async def send(self, payload: bytes) -> None:
        async with self._lock:
            with trio.fail_after(SEND_S):
                await self._stream.send_all(self._channel.seal(payload))
