"""The patches of Yamux, over a stream in memory whose other end is written by hand."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from transport_nodes import key_of, standing_of

from gossip import libp2p_patches
from gossip.buckets import SharedBytes
from gossip.libp2p_patches import connections
from gossip.libp2p_patches.connections import SafeYamux
from gossip.libp2p_patches.identity import peer_id_of


class _Secured:
    """What Yamux runs over, here a stream in memory."""

    is_initiator = False

    def __init__(self, stream: trio.StapledStream) -> None:
        self._stream = stream

    async def read(self, count: int) -> bytes:
        return bytes(await self._stream.receive_some(count))

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def close(self) -> None:
        await self._stream.aclose()


class _Peer:
    """The other end of a Yamux connection, written by hand."""

    def __init__(self, stream: trio.StapledStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def send(self, kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> None:
        await self.stream.send_all(struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, flags, stream_id, length) + body)

    async def receive(self) -> tuple[int, int, int, int]:
        """The next frame's type, flags, stream and length; the body of a data frame is read over."""
        _, kind, flags, stream_id, length = struct.unpack(yamux.YAMUX_HEADER_FORMAT, await self._exactly(12))
        if kind == yamux.TYPE_DATA:
            await self._exactly(length)
        return kind, flags, stream_id, length

    async def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            chunk = await self.stream.receive_some(65536)
            if not chunk:
                raise EOFError
            self._received += chunk
        data, self._received = bytes(self._received[:count]), self._received[count:]
        return data


@pytest.fixture
async def wired(nursery):
    libp2p_patches.install()
    ours, theirs = trio.testing.memory_stream_pair()
    key = key_of("peer")
    muxed = SafeYamux(_Secured(ours), peer_id_of(key), Counter(), standing_of(key), SharedBytes(), is_initiator=False)
    nursery.start_soon(muxed.start)
    await muxed.event_started.wait()
    return muxed, _Peer(theirs)


async def test_a_peer_that_exceeds_the_window_loses_the_connection(wired):
    muxed, peer = wired
    await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 1, 0)
    for _ in range(yamux.DEFAULT_WINDOW_SIZE // 65536):
        await peer.send(yamux.TYPE_DATA, 0, 1, 65536, bytes(65536))
    await trio.testing.wait_all_tasks_blocked()
    assert not muxed.event_closed.is_set()  # exactly the window is its right
    await peer.send(yamux.TYPE_DATA, 0, 1, 1, b"x")
    await muxed.event_closed.wait()
    assert not muxed.stream_buffers
    assert muxed._counters == {"connection_violation": 1}  # nor was it the health check that closed it


async def test_a_peer_that_announces_a_huge_frame_loses_the_connection(wired):
    muxed, peer = wired
    await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 1, 0)
    await peer.send(yamux.TYPE_DATA, 0, 1, libp2p_patches.STREAM_WINDOW_BYTES_MAX + 1)
    await muxed.event_closed.wait()
    assert not muxed._counters


async def test_a_peer_that_opens_streams_without_end_loses_the_connection(wired):
    muxed, peer = wired

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_all, peer)
        nursery.start_soon(_accept_all, muxed)
        for number in range(connections.STREAMS_PER_CONNECTION_MAX):
            await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 2 * number + 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert not muxed.event_closed.is_set()
        await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 9999, 0)
        await muxed.event_closed.wait()
        nursery.cancel_scope.cancel()
    assert muxed._counters == {"connection_violation": 1}


async def _accept_all(muxed: SafeYamux) -> None:
    with contextlib.suppress(MuxedConnUnavailable):
        while True:
            await muxed.accept_stream()


async def _read_all(peer: _Peer) -> None:
    with contextlib.suppress(EOFError):
        while True:
            await peer.receive()


async def test_a_stranger_opens_fewer_streams(wired, monkeypatch):
    muxed, peer = wired
    monkeypatch.setattr(muxed._standing, "in_roster", lambda node_key: False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_all, peer)
        nursery.start_soon(_accept_all, muxed)
        for number in range(connections.STREAMS_PER_STRANGER_MAX + 1):
            await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 2 * number + 1, 0)
        await muxed.event_closed.wait()
        nursery.cancel_scope.cancel()
    assert muxed._counters == {"connection_violation": 1}


@pytest.mark.parametrize("number", [0, 2], ids=["the connection's", "ours"])
async def test_a_stream_number_that_is_not_the_peers_to_give_ends_the_connection(wired, number):
    muxed, peer = wired
    await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, number, 0)
    await muxed.event_closed.wait()
    assert muxed._counters == {"connection_violation": 1}


@pytest.mark.parametrize(
    ("is_friend", "bytes_max"),
    [(True, connections.UNREAD_BYTES_MAX), (False, connections.UNREAD_BYTES_PER_STRANGER_MAX)],
    ids=["roster", "stranger"],
)
async def test_what_all_streams_hold_unread_is_bounded(autojump_clock, wired, monkeypatch, is_friend, bytes_max):
    muxed, peer = wired
    monkeypatch.setattr(muxed._standing, "in_roster", lambda node_key: is_friend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_all, peer)
        nursery.start_soon(_accept_all, muxed)
        for number in range(bytes_max // yamux.DEFAULT_WINDOW_SIZE):
            await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 2 * number + 1, 0)
            for _ in range(yamux.DEFAULT_WINDOW_SIZE // 65536):
                await peer.send(yamux.TYPE_DATA, 0, 2 * number + 1, 65536, bytes(65536))
        await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 4095, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert not muxed.event_closed.is_set()
        await peer.send(yamux.TYPE_DATA, 0, 4095, 1, b"x")
        await muxed.event_closed.wait()
        nursery.cancel_scope.cancel()
    assert muxed._counters == {"connection_violation": 1}


async def test_when_memory_is_short_who_holds_more_unread_than_others_goes(wired, monkeypatch):
    muxed, peer = wired
    muxed._all_unread.count = connections.UNREAD_BYTES_TOTAL_MAX
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_all, peer)
        nursery.start_soon(_accept_all, muxed)
        for number in (1, 3):
            await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, number, 0)
        for _ in range(4):
            await peer.send(yamux.TYPE_DATA, 0, 1, 65536, bytes(65536))
        await trio.testing.wait_all_tasks_blocked()
        assert not muxed.event_closed.is_set()  # what an ordinary peer may hold
        await peer.send(yamux.TYPE_DATA, 0, 3, 1, b"x")
        await muxed.event_closed.wait()
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert muxed._counters == {"connection_violation": 1}
    assert muxed._all_unread.count == connections.UNREAD_BYTES_TOTAL_MAX  # its own are given back


async def test_a_flood_is_read_no_faster_than_its_rate(autojump_clock):
    class Endless:
        async def read(self, count: int) -> bytes:
            await trio.lowlevel.checkpoint()
            return bytes(count)

    paced = connections.PacedConnection(Endless(), lambda: 1_000_000.0)
    began_s = trio.current_time()
    for _ in range(200):
        await paced.read(99_000 + 1_000 - connections.READ_CALL_BYTES)
    assert trio.current_time() - began_s == pytest.approx(20 - connections.READ_BURST_S, abs=0.2)


async def test_windows_are_given_back_by_halves_and_not_by_reads(wired):
    muxed, peer = wired
    await peer.send(yamux.TYPE_DATA, yamux.FLAG_SYN, 1, 0)
    stream = await muxed.accept_stream()
    assert (await peer.receive())[:2] == (yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_ACK)
    updates = []

    async def collect() -> None:
        while True:
            frame = await peer.receive()
            if frame[0] == yamux.TYPE_WINDOW_UPDATE:
                updates.append(frame[3])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        for _ in range(4 * yamux.DEFAULT_WINDOW_SIZE // 4096):
            await peer.send(yamux.TYPE_DATA, 0, 1, 4096, bytes(4096))
            assert len(await stream.read(4096)) == 4096
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert 1 <= len(updates) <= 8  # the library: 256
    assert min(updates) >= yamux.DEFAULT_WINDOW_SIZE // 2


async def test_a_peer_that_stops_answering_is_given_up_within_seconds(autojump_clock, wired):
    muxed, _peer = wired
    started_s = trio.current_time()
    await muxed.event_closed.wait()
    assert trio.current_time() - started_s <= 10  # the library: 75 s
    assert muxed._counters["connection_unresponsive"] == 1


async def test_a_peer_that_answers_is_kept(autojump_clock, wired):
    muxed, peer = wired
    with trio.move_on_after(60):
        while True:
            kind, flags, _, nonce = await peer.receive()
            assert (kind, flags) == (yamux.TYPE_PING, yamux.FLAG_SYN)
            await trio.sleep(0.2)
            await peer.send(yamux.TYPE_PING, yamux.FLAG_ACK, 0, nonce)
    assert not muxed.event_shutting_down.is_set()
    assert muxed.rtt() == pytest.approx(0.2)


async def test_a_cancelled_writer_still_writes_its_whole_frame(wired, monkeypatch):
    muxed, _peer = wired
    halfway, go_on, written = trio.Event(), trio.Event(), []

    async def write(data: bytes) -> None:
        halfway.set()
        await go_on.wait()  # encrypted, the nonce counted, not sent yet
        written.append(data)

    monkeypatch.setattr(muxed.secured_conn, "write", write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed._write_frame, b"frame")
        await halfway.wait()
        nursery.cancel_scope.cancel()
        go_on.set()
    assert written == [b"frame"]
    assert not muxed.event_shutting_down.is_set()


async def test_a_peer_that_takes_no_bytes_is_given_up(autojump_clock, wired, monkeypatch):
    muxed, _peer = wired

    async def write(_data: bytes) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(muxed.secured_conn, "write", write)
    with pytest.raises(MuxedStreamError):
        await muxed._write_frame(b"frame")
    assert muxed.event_closed.is_set()
    assert muxed._counters["connection_write_timeout"] == 1
