"""Connections: Yamux, the swarm and the host, mended against peers that vanish, flood or send garbage.

Decides when a connection or a stream is given up. Untrusted: every frame and every negotiation. Rules:
1. A peer that breaks the rules of Yamux, or stops answering, loses its connection; nobody else does.
2. A failing stream handler ends its own stream.
3. Places for inbound connections are counted by `gossip.admission`, and given back when they end.

Source: libp2p specs (connections, yamux), hashicorp/yamux spec.md; py-libp2p 0.8.1, whose classes these are.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
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

from gossip.admission import ConnectionAdmission, Refusal
from gossip.errors import InvalidMessageError
from gossip.libp2p_patches.identity import node_key_of

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 10.0
"""A frame that the socket does not take for so long: the connection is given up."""
HEALTH_INTERVAL_S = 5.0
PROBE_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
STREAMS_PER_CONNECTION_MAX = 64


async def reset_quietly(stream: Any) -> None:
    """Reset a stream whatever state it and its connection are in; bounded in time, not cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001 the stream is being given up, nothing follows from it
            log.debug("resetting a stream failed: %r", error)


class PeerViolation(trio.TooSlowError):
    """A peer broke Yamux's rules. Its base is the one exception that Yamux answers by closing the connection."""


class BoundedYamuxStream(YamuxStream):  # type: ignore[misc]
    """A stream whose peer cannot exceed the window that it was given, nor open streams without end."""

    def __init__(self, stream_id: int, conn: Any, is_initiator: bool) -> None:
        if not is_initiator and len(conn.streams) >= STREAMS_PER_CONNECTION_MAX:
            raise PeerViolation("too many open streams")
        super().__init__(stream_id, conn, is_initiator)

    @property
    def recv_window(self) -> int:
        return self._recv_window

    @recv_window.setter
    def recv_window(self, value: int) -> None:
        # Yamux sets it before it would log the violation, forgive it and keep the bytes.
        if value < 0:
            raise PeerViolation("more bytes than the window allows")
        self._recv_window = value

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        # Seen: one WINDOW_UPDATE per read doubled the CPU time of a message. Half a window at a time.
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            missing = self.target_recv_window - (self.recv_window + buffered)
            if missing < self.target_recv_window // 2:
                return
            update = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        await self.send_window_update(update)


class SafeYamux(Yamux):  # type: ignore[misc]
    """A connection that survives cancelled writers, and notices within seconds that its peer is gone."""

    def __init__(self, secured_conn: Any, peer_id: ID, counters: Counter[str], **kwargs: Any) -> None:
        super().__init__(secured_conn, peer_id, **kwargs)
        self._counters = counters
        self._probe_lock = trio.Lock()

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


class SafeMuxer(MuxerMultistream):  # type: ignore[misc]
    """Yamux selection that builds `SafeYamux` (the library names its own class there)."""

    def __init__(self, counters: Counter[str]) -> None:
        super().__init__({TProtocol(yamux.PROTOCOL_ID): SafeYamux})
        self._counters = counters

    async def new_conn(self, conn: Any, peer_id: ID) -> Any:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = SafeYamux(conn, peer_id, self._counters, is_initiator=conn.is_initiator)
        return self._annotate_connection(muxed, conn, protocol)


class SafeSwarm(Swarm):  # type: ignore[misc]
    """Connections with explicit limits, given back when they end; dials nobody on its own."""

    def __init__(self, *args: Any, admission: ConnectionAdmission, counters: Counter[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = admission
        self._counters = counters
        # Seen: it dials every address that any peer ever told us, up to half of the connection limit.
        self.auto_connector.maybe_connect = trio.lowlevel.checkpoint

    def _schedule_auto_connect(self) -> None:
        pass

    async def _handle_inbound_connection(self, read_write_closer: Any, maddr: Any) -> None:
        # Seen: the library's inbound places are held until the node stops, also by connections long
        # closed: after 250 of them every peer is refused.
        slot = self._admission.open(_remote_ip(read_write_closer))
        try:
            if isinstance(slot, Refusal):
                self._counters[slot.value] += 1
                return
            muxed = await self.upgrade_inbound_raw_conn(RawConnection(read_write_closer, False), maddr)
            refusal = self._admission.prove(slot, node_key_of(muxed.peer_id.to_bytes()))
            if refusal is None:
                await muxed.event_closed.wait()
            else:
                self._counters[refusal.value] += 1
                await muxed.close()
        except Exception as error:  # noqa: BLE001 an unproven peer's bytes may raise anything
            self._counters["connection_inbound_failed"] += 1
            log.debug("an inbound connection failed: %r", error)
        finally:
            if not isinstance(slot, Refusal):
                self._admission.close(slot)
            await trio.aclose_forcefully(read_write_closer.stream)

    async def add_conn(self, muxed_conn: Any, direction: str = "unknown") -> Any:
        # Seen: a peer with an RSA key is a peer like any other.
        try:
            node_key_of(muxed_conn.peer_id.to_bytes())
        except InvalidMessageError as error:
            await muxed_conn.close()
            raise SwarmException(str(error)) from error
        return await super().add_conn(muxed_conn, direction)


def _remote_ip(read_write_closer: Any) -> str:
    try:
        return str(read_write_closer.stream.socket.getpeername()[0])
    except OSError:
        # Already gone: its place is taken and given back within the failing handshake.
        return ""


class SafeHost(BasicHost):  # type: ignore[misc]
    """A host whose stream handlers may fail, each for itself, and that asks no peer to describe itself."""

    def __init__(self, network: SafeSwarm, counters: Counter[str], **kwargs: Any) -> None:
        self._counters = counters
        super().__init__(network, **kwargs)

    async def _swarm_stream_handler(self, net_stream: Any) -> None:
        # Seen: an exception that leaves a handler ends every stream of that peer, or the process.
        try:
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:  # noqa: BLE001 see above
            self._counters["stream_failed"] += 1
            log.debug("a stream of %s failed: %r", net_stream.muxed_conn.peer_id, error)
            await reset_quietly(net_stream)

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        # Seen: unbounded addresses and keys of passers-by in the peer store, in a system task.
        pass
