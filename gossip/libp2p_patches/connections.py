"""Connections: Yamux, the swarm and the host, mended against peers that vanish, flood or send garbage.

Decides when a connection or a stream is given up. Untrusted: every frame and every negotiation. Rules:
1. A peer that breaks the rules of Yamux, or stops answering, loses its connection; nobody else does.
2. What a connection may hold unread is bounded over all of its streams, and how fast we read it, too.
3. A failing stream handler ends its own stream; what a peer did wrong is charged to it (`gossip.conduct`).
4. Places for inbound connections are counted by `gossip.admission`, and given back when they end.

Source: libp2p specs (connections, yamux), hashicorp/yamux spec.md; py-libp2p 0.8.1, whose classes these are.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from gossip.admission import ConnectionAdmission, ConnectionSlot, Refusal
from gossip.buckets import SharedBytes, TokenBucket
from gossip.conduct import Fault
from gossip.errors import InvalidMessageError, PeerMisbehavedError
from gossip.libp2p_patches.identity import node_key_of
from gossip.libp2p_patches.standing import Standing

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 10.0
"""A frame that the socket does not take for so long: the connection is given up."""
HANDSHAKE_TIMEOUT_S = 6.0
"""From the first byte of an inbound connection to the last of its negotiation."""
HEALTH_INTERVAL_S = 5.0
PROBE_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
STREAMS_PER_CONNECTION_MAX = 64
STREAMS_PER_STRANGER_MAX = 24
"""Streams that a stranger may have open."""
UNREAD_BYTES_MAX = 4 << 20
"""Bytes that arrived and are not read yet, over all streams of a connection."""
UNREAD_BYTES_PER_STRANGER_MAX = 1 << 20
"""The same of a stranger."""
UNREAD_BYTES_TOTAL_MAX = 64 << 20
"""The same over all connections of this node."""
UNREAD_BYTES_OF_ORDINARY_PEER = 256 * 1024
"""What a peer that does no harm holds unread at most, for a moment: it is not the one to go when memory is short."""
READ_BYTES_PER_S = float(32 << 20)
READ_BYTES_PER_S_OF_STRANGER = float(1 << 20)
READ_BURST_S = 4.0
"""What may gather of a reading rate."""
READ_CALL_BYTES = 1024
"""What a read costs besides its bytes: small frames cost us time, not bandwidth."""


async def reset_quietly(stream: Any) -> None:
    """Reset a stream whatever state it and its connection are in; bounded in time, not cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001 the stream is being given up, nothing follows from it
            log.debug("resetting a stream failed: %r", error)


async def open_stream(connection: Any) -> Any:
    """A new stream of this connection (a `SwarmConn`); not cancelled half-way, bounded by `WRITE_TIMEOUT_S`."""
    # Seen: a request that was cancelled between opening its stream and holding it left the stream open at
    # both ends for as long as the connection lived; after 64 of them the peer took us for an attacker.
    with trio.CancelScope(shield=True):
        return await connection.new_stream()


class PeerViolation(trio.TooSlowError):
    """A peer broke Yamux's rules. Its base is the one exception that Yamux answers by closing the connection."""


class BoundedYamuxStream(YamuxStream):  # type: ignore[misc]
    """A stream whose peer cannot exceed the window that it was given, nor open streams without end."""

    def __init__(self, stream_id: int, conn: Any, is_initiator: bool) -> None:
        if not is_initiator:
            if len(conn.streams) >= (STREAMS_PER_CONNECTION_MAX if conn.in_roster else STREAMS_PER_STRANGER_MAX):
                raise conn.violation("too many open streams")
            if stream_id == 0 or (stream_id % 2 == 1) == conn.is_initiator:
                raise conn.violation("a stream number that is ours")
        super().__init__(stream_id, conn, is_initiator)

    @property
    def recv_window(self) -> int:
        return self._recv_window

    @recv_window.setter
    def recv_window(self, value: int) -> None:
        # Yamux sets it before it would log the violation, forgive it and keep the bytes.
        if value < 0:
            raise self.conn.violation("more bytes than the window allows")
        is_data = value < getattr(self, "_recv_window", value)
        self._recv_window = value
        if is_data:
            self.conn.require_read()

    async def reset(self) -> None:
        # Seen: a stream with bytes that nobody read stayed for 90 s after its reset, by whichever end.
        try:
            await super().reset()
        finally:
            async with self.conn.streams_lock:
                self.conn.stream_buffers.pop(self.stream_id, None)
                self.conn._finalize_stream_locked(self, fully_closed=True)
            self.conn.note_unread()

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        # Seen: one WINDOW_UPDATE per read doubled the CPU time of a message. Half a window at a time.
        self.conn.note_unread()
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            missing = self.target_recv_window - (self.recv_window + buffered)
            if missing < self.target_recv_window // 2:
                return
            update = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        await self.send_window_update(update)


class SafeYamux(Yamux):  # type: ignore[misc]
    """A connection that survives cancelled writers, and notices within seconds that its peer is gone."""

    def __init__(
        self,
        secured_conn: Any,
        peer_id: ID,
        counters: Counter[str],
        standing: Standing,
        all_unread: SharedBytes,
        **kwargs: Any,
    ) -> None:
        super().__init__(PacedConnection(secured_conn, self._reading_rate), peer_id, **kwargs)
        self._counters = counters
        self._all_unread = all_unread
        self._unread = 0
        self._standing = standing
        self._node_key = _key_or_none(peer_id)
        self._probe_lock = trio.Lock()

    async def open_stream(self) -> YamuxStream:
        # The library would wait for a place, and we must not, as opening is not cancelled.
        if not self.stream_backlog_semaphore.value:
            raise MuxedStreamError("too many streams of ours are open")
        return await super().open_stream()

    @property
    def in_roster(self) -> bool:
        """Whether the peer is one that we want to be connected with."""
        return self._node_key is not None and self._standing.in_roster(self._node_key)

    def violation(self, what: str) -> PeerViolation:
        """Count a broken rule of Yamux and charge it to the peer; to be raised."""
        self._counters["connection_violation"] += 1
        if self._node_key is not None:
            self._standing.blame(self._node_key, Fault.VIOLATION)
        return PeerViolation(what)

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            self.note_unread()

    def note_unread(self) -> int:
        """Count what all streams hold unread, here and in the sum of all connections."""
        unread = sum(map(len, self.stream_buffers.values()))
        self._all_unread.count += unread - self._unread
        self._unread = unread
        return unread

    def require_read(self) -> None:
        """See that what arrived is read.

        Raises:
            PeerViolation: all streams together hold more unread bytes than a connection may.
        """
        # Seen: 64 streams of a window each, none read by us yet, would be 16 MiB of one connection.
        unread = self.note_unread()
        if unread > (UNREAD_BYTES_MAX if self.in_roster else UNREAD_BYTES_PER_STRANGER_MAX):
            raise self.violation("more unread bytes than a connection may hold")
        if self._all_unread.count > UNREAD_BYTES_TOTAL_MAX and unread > UNREAD_BYTES_OF_ORDINARY_PEER:
            raise self.violation("more unread bytes than others, while memory is short")

    def _reading_rate(self) -> float:
        return READ_BYTES_PER_S if self.in_roster else READ_BYTES_PER_S_OF_STRANGER

    async def probe(self, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
        """Whether the peer answers a ping in time. Asked twice: a stall of our own must not look like its."""
        async with self._probe_lock:
            for _ in range(2):
                self._ping_event = trio.Event()
                self._ping_sent_time = trio.current_time()
                ping = (yamux.TYPE_PING, yamux.FLAG_SYN, 0, 1)
                with trio.move_on_after(timeout_s / 2):
                    await self._write_frame(struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, *ping))
                    await self._ping_event.wait()
                    return True
        return False

    async def _measure_rtt_loop(self) -> None:
        # Seen: a stopped process stayed "connected" for 75 s.
        while not self.event_shutting_down.is_set():
            await trio.sleep(HEALTH_INTERVAL_S)
            try:
                if await self.probe():
                    continue
            except Exception as error:  # noqa: BLE001 whatever failed, the connection cannot carry a ping
                log.debug("probing %s failed: %r", self.peer_id, error)
            self._counters["connection_unresponsive"] += 1
            await self._give_up()

    async def _give_up(self) -> None:
        # Shielded: closing ends the task that would cancel us half-way through, and a connection that
        # is closed but still listed would be chosen for ever.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
            await self._cleanup_on_error()

    async def _write_frame(self, data: bytes) -> None:
        # Seen: a writer cancelled between encryption and sending desynchronised the Noise nonce, and
        # every stream of the connection died with it.
        deadline = trio.current_time() + WRITE_TIMEOUT_S
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            async with self._write_lock:
                await self.secured_conn.write(data)
        if not scope.cancelled_caught:
            return
        self._counters["connection_write_timeout"] += 1
        await self._give_up()
        raise MuxedStreamError("the peer takes no bytes; connection closed")


class PacedConnection:
    """A secured connection that is read no faster than `bytes_per_s` says; TCP then holds up its peer.

    So a peer that floods (pings, streams, data) gets a bounded share of this process. What else it does
    is the secured connection's.
    """

    def __init__(self, secured_conn: Any, bytes_per_s: Callable[[], float]) -> None:
        self._secured_conn = secured_conn
        self._bytes_per_s = bytes_per_s
        self._rate_s = TokenBucket(1.0, READ_BURST_S)
        """In seconds of reading at the rate, which changes when a peer joins the roster."""

    async def read(self, n: int | None = None) -> bytes:
        data: bytes = await self._secured_conn.read(n)
        ahead_s = self._rate_s.owe(trio.current_time(), (len(data) + READ_CALL_BYTES) / self._bytes_per_s())
        if ahead_s > 0:
            await trio.sleep(ahead_s)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._secured_conn, name)


class SafeMuxer(MuxerMultistream):  # type: ignore[misc]
    """Yamux selection that builds `SafeYamux` (the library names its own class there)."""

    def __init__(self, counters: Counter[str], standing: Standing) -> None:
        super().__init__({TProtocol(yamux.PROTOCOL_ID): SafeYamux})
        self._counters = counters
        self._standing = standing
        self._all_unread = SharedBytes()

    async def new_conn(self, conn: Any, peer_id: ID) -> Any:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = SafeYamux(
            conn, peer_id, self._counters, self._standing, self._all_unread, is_initiator=conn.is_initiator
        )
        return self._annotate_connection(muxed, conn, protocol)


class SafeSwarm(Swarm):  # type: ignore[misc]
    """Connections with explicit limits, given back when they end; dials nobody on its own."""

    def __init__(self, *args: Any, admission: ConnectionAdmission, counters: Counter[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = admission
        self._counters = counters
        # Seen: it dials every address that any peer ever told us, up to half of the connection limit.
        self.auto_connector.maybe_connect = trio.lowlevel.checkpoint
        # Seen: an entry per peer that ever left, for ever, when nothing connects automatically.
        self.auto_connector.record_disconnect = lambda peer_id: None

    def _schedule_auto_connect(self) -> None:
        pass

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        # Seen: the library's inbound places are held until the node stops, also by connections long
        # closed: after 250 of them every peer is refused.
        scope = trio.CancelScope()
        slot = self._admission.open(_remote_ip(read_write_closer), trio.current_time(), scope.cancel)
        try:
            if isinstance(slot, Refusal):
                self._counters[slot.value] += 1
                return
            with scope:
                await self._hold_connection(slot, read_write_closer)
            if scope.cancelled_caught:
                self._counters["connection_evicted"] += 1
        except Exception as error:  # noqa: BLE001 an unproven peer's bytes may raise anything
            self._counters["connection_inbound_failed"] += 1
            log.debug("an inbound connection failed: %r", error)
        finally:
            if not isinstance(slot, Refusal):
                self._admission.close(slot)
            await trio.aclose_forcefully(read_write_closer.stream)

    async def _hold_connection(self, slot: ConnectionSlot, read_write_closer: Any) -> None:
        """Until it ends. Cancelled when another needs its place; the socket is then closed by the caller."""
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            secured = await self.upgrader.upgrade_security(RawConnection(read_write_closer, False), False)
            peer_id = secured.get_remote_peer()
            # Before anything is built for it: a peer that is not let in costs its handshake and no more.
            refusal = self._admission.prove(slot, node_key_of(peer_id.to_bytes()), trio.current_time())
            if refusal is not None:
                self._counters[refusal.value] += 1
                return
            muxed = await self.upgrader.upgrade_connection(secured, peer_id)
        await self.add_conn(muxed, direction="inbound")
        await muxed.event_closed.wait()

    async def _open_stream_on_connection(self, connection: Any, connections: list[Any], peer_id: ID) -> Any:
        with trio.CancelScope(shield=True):  # as `open_stream`
            return await super()._open_stream_on_connection(connection, connections, peer_id)

    async def add_conn(self, muxed_conn: Any, direction: str = "unknown") -> Any:
        # Seen: a peer with an RSA key is a peer like any other.
        try:
            node_key_of(muxed_conn.peer_id.to_bytes())
        except InvalidMessageError as error:
            await muxed_conn.close()
            raise SwarmException(str(error)) from error
        return await super().add_conn(muxed_conn, direction)


def _key_or_none(peer_id: ID) -> bytes | None:
    """The peer's node key; None if it is of another kind, which `add_conn` refuses."""
    try:
        return node_key_of(peer_id.to_bytes())
    except InvalidMessageError:
        return None


def _remote_ip(read_write_closer: Any) -> str:
    try:
        return str(read_write_closer.stream.socket.getpeername()[0])
    except OSError:
        # Already gone: its place is taken and given back within the failing handshake.
        return ""


class SafeHost(BasicHost):  # type: ignore[misc]
    """A host whose stream handlers may fail, each for itself, and that asks no peer to describe itself."""

    def __init__(self, network: SafeSwarm, counters: Counter[str], standing: Standing, **kwargs: Any) -> None:
        self._counters = counters
        self._standing = standing
        super().__init__(network, **kwargs)

    async def _swarm_stream_handler(self, net_stream: Any) -> None:
        # Seen: an exception that leaves a handler ends every stream of that peer, or the process.
        try:
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:  # noqa: BLE001 see above
            peer_id = net_stream.muxed_conn.peer_id
            self._counters["stream_failed"] += 1
            log.debug("a stream of %s failed: %r", peer_id, error)
            if isinstance(error, (InvalidMessageError, PeerMisbehavedError)):
                self._standing.blame(node_key_of(peer_id.to_bytes()), Fault.MALFORMED)
            await reset_quietly(net_stream)

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        # Seen: unbounded addresses and keys of passers-by in the peer store, in a system task.
        pass
