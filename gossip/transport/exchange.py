"""Requests and their responses: one stream each, both directions framed alike.

A frame is 4 bytes of length, big-endian, then so many bytes. The requester sends one, half-closes, and
reads one. Decides nothing about their meaning. Untrusted: every byte of a stream. Rules:
1. A length is compared with its bound, and with the memory left for it, before anything more is read.
2. Serving takes a place and bytes (`gossip.serving`) and ends after `request_timeout_s`; a request has
   `REQUEST_READ_TIMEOUT_S` to arrive. How long its answer may be is known before it is made, and held against it.
3. A request that is malformed is its peer's fault, and counted; a handler that fails otherwise, or answers
   too much, is ours, and logged. Either ends its own stream and nothing else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from gossip.conduct import Fault
from gossip.errors import InvalidMessageError, PeerMisbehavedError, PeerUnavailableError
from gossip.libp2p_patches.connections import SafeHost, open_stream, reset_quietly
from gossip.libp2p_patches.identity import node_key_of
from gossip.serving import Place, ServeAdmission, ServeRefusal
from gossip.transport.links import Links
from gossip.transport.values import AnswerBytesMax, Serve, TransportConfig

log = logging.getLogger(__name__)

READ_BYTES_MAX = 64 * 1024
REQUEST_READ_TIMEOUT_S = 3.0
"""A request has so long from its turn to its last byte."""
BYTES_RETRY_S = 0.5
"""How often a request that waits for memory looks whether somebody reads too slowly."""


class Exchange:
    """The request/response protocol of one node, in both roles."""

    def __init__(
        self,
        host: SafeHost,
        links: Links,
        config: TransportConfig,
        counters: Counter[str],
        serve: Serve,
        answer_bytes_max: AnswerBytesMax | None,
    ) -> None:
        self._host = host
        self._links = links
        self._config = config
        self._counters = counters
        self._serve = serve
        self._answer_bytes_max = answer_bytes_max or (lambda request: config.response_bytes_max)
        self._protocol = TProtocol(config.request_protocol)
        self.admission = ServeAdmission(config.serving)
        self._given_back = trio.Event()
        """Set, and replaced, whenever a place gives back what it held."""
        host.set_stream_handler(self._protocol, self._serve_stream)

    async def request(self, node_key: bytes, payload: bytes, *, response_bytes_max: int, timeout_s: float) -> bytes:
        """See `Transport.request`."""
        peer = self._links.connected(node_key)
        try:
            with trio.fail_after(timeout_s):
                async with peer.requests:
                    open_any = partial(self._host.new_stream, peer.peer_id, [self._protocol])
                    return await self._ask(node_key, open_any, payload, response_bytes_max)
        except trio.TooSlowError as error:
            self._counters["request_timed_out"] += 1
            raise PeerUnavailableError(f"{node_key.hex()}: no response within {timeout_s} s") from error

    async def request_over(self, connection: Any, node_key: bytes, payload: bytes) -> bytes:
        """Ask over this connection alone, which may be any of those with the peer. Raises as `Transport.request`.

        The answer may be as long as one of ours to the same request.
        """

        async def open_this() -> Any:
            stream = await open_stream(connection)
            try:
                speaks = MultiselectCommunicator(stream)
                stream.set_protocol(await self._host.multiselect_client.select_one_of([self._protocol], speaks))
            except BaseException:
                await reset_quietly(stream)
                raise
            return stream

        return await self._ask(node_key, open_this, payload, self._answer_bytes_max(payload))

    async def _ask(
        self, node_key: bytes, open_one: Callable[[], Awaitable[Any]], payload: bytes, response_bytes_max: int
    ) -> bytes:
        stream = None
        try:
            stream = await open_one()
            await _write_frame(stream, payload)
            await stream.close_write()
            response = await _read_frame(stream, response_bytes_max)
        except PeerMisbehavedError:
            self._counters["response_too_long"] += 1
            raise
        except Exception as error:
            self._counters["request_lost"] += 1
            raise PeerUnavailableError(f"{node_key.hex()}: {type(error).__name__} {error}") from error
        finally:
            # Also after an answer: a peer that never ends its side would have us hold the stream for ever.
            if stream is not None:
                await reset_quietly(stream)
        self._links.heard(node_key)
        return response

    async def _serve_stream(self, stream: Any) -> None:
        # Runs inside `SafeHost`'s guard: whatever the stream raises is counted and resets it.
        peer = node_key_of(stream.muxed_conn.peer_id.to_bytes())
        place = self.admission.open(peer, trio.current_time())
        if isinstance(place, ServeRefusal):
            self._counters[place.value] += 1
            if place is ServeRefusal.RATE:
                self._links.blame(peer, Fault.OVER_RATE)
            await reset_quietly(stream)
            return
        try:
            with trio.move_on_after(self._config.request_timeout_s) as scope:
                place.give_up = scope.cancel
                if await self._serve_one(stream, place):
                    return
            if place.has_given_way:
                self._counters["serve_gave_way"] += 1
            elif scope.cancelled_caught:
                self._counters["serve_timed_out"] += 1
            if scope.cancelled_caught and place.answer_bytes:  # whoever asks and does not read
                self._links.blame(peer, Fault.SLOW)
            await reset_quietly(stream)
        finally:
            self.admission.close(place)
            self._given_back.set()
            self._given_back = trio.Event()

    async def _serve_one(self, stream: Any, place: Place) -> bool:
        """Whether the request was answered."""
        admission = self.admission
        await trio.sleep(admission.wait_s(place, trio.current_time()))
        request = await self._read_request(stream, place)
        if request is None:
            return False
        self._links.heard(place.peer)
        bytes_max = self._answer_bytes_max(request)
        if not admission.is_served(place, bytes_max):
            self._counters[ServeRefusal.PLACES.value] += 1
            return False
        while not admission.take_answer(place, bytes_max, trio.current_time()):
            with trio.move_on_after(BYTES_RETRY_S):
                await self._given_back.wait()
        response = await self._answer(place.peer, request, bytes_max)
        if response is None:
            return False
        admission.begin_answer(place, len(response), trio.current_time())
        await _write_frame(stream, response)
        await stream.close()
        return True

    async def _read_request(self, stream: Any, place: Place) -> bytes | None:
        """The request, or None if it is too long for what its peer may hold, or did not come in time."""
        request = None
        with trio.move_on_after(REQUEST_READ_TIMEOUT_S) as scope:
            size = await _read_length(stream, self._config.request_bytes_max)
            if self.admission.take_request(place, size):
                request = await _read_exactly(stream, size)
            else:
                self._counters["serve_refused_bytes"] += 1
        if scope.cancelled_caught:
            self._counters["serve_timed_out"] += 1
        return request

    async def _answer(self, peer: bytes, request: bytes, bytes_max: int) -> bytes | None:
        try:
            response = await self._serve(peer, request)
            if len(response) > bytes_max:
                raise ValueError(f"a response of {len(response)} bytes, more than {bytes_max}")
        except InvalidMessageError as error:
            self._counters["serve_malformed"] += 1
            self._links.blame(peer, Fault.MALFORMED)
            log.debug("%s sent a malformed request: %s", peer.hex(), error)
            return None
        except Exception:
            # Logged here because nobody is left to raise to: the requester sees a reset stream.
            self._counters["serve_failed"] += 1
            log.exception("serving a request of %s failed", peer.hex())
            return None
        return response


async def _write_frame(stream: Any, data: bytes) -> None:
    prefix = len(data).to_bytes(4, "big")
    # In one frame, unless that would copy megabytes.
    if len(data) <= READ_BYTES_MAX:
        await stream.write(prefix + data)
        return
    await stream.write(prefix)
    await stream.write(data)


async def _read_frame(stream: Any, bytes_max: int) -> bytes:
    return await _read_exactly(stream, await _read_length(stream, bytes_max))


async def _read_length(stream: Any, bytes_max: int) -> int:
    size = int.from_bytes(await _read_exactly(stream, 4), "big")
    if size > bytes_max:
        raise PeerMisbehavedError(f"a frame of {size} bytes, more than {bytes_max}")
    return size


async def _read_exactly(stream: Any, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = await stream.read(min(READ_BYTES_MAX, count - len(data)))
        if not chunk:
            raise StreamEOF
        data += chunk
    return bytes(data)
