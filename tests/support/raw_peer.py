"""A peer that proves its key and from there on writes Yamux frames by hand, to whatever rule a test wants broken."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.trio import TrioTCPStream
from libp2p.io.utils import read_exactly
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.utils.varint import encode_uvarint

from gossip.libp2p_patches.identity import peer_id_of

MULTISTREAM = "/multistream/1.0.0"
FRAME_BYTES_MAX = 60_000


def line(text: str) -> bytes:
    """A line of multistream-select."""
    return encode_uvarint(len(text) + 1) + text.encode() + b"\n"


async def open_tcp(port: int, source: str) -> trio.SocketStream:
    """A connection to a port on loopback, from any of its addresses (127.x.y.z)."""
    sock = trio.socket.socket()
    try:
        await sock.bind((source, 0))
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


class RawPeer:
    """A proven connection; what arrives is counted by stream.

    `heedless`: writes more than its windows allow. `greedy`: gives no window back, as if it read nothing.
    """

    def __init__(self, secured: Any, *, heedless: bool = False, greedy: bool = False) -> None:
        self.secured = secured
        self._next = 1
        self._writing = trio.Lock()
        self._heedless = heedless
        self._greedy = greedy
        self._windows: dict[int, int] = {}
        self.received: Counter[int] = Counter()
        self.closed = trio.Event()

    async def frame(self, kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> None:
        async with self._writing:
            await self.secured.write(struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, flags, stream, length) + body)

    async def open(self, *protocols: str) -> int:
        """Open a stream and ask for protocols without waiting for an answer; none: the stream stays silent."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = yamux.DEFAULT_WINDOW_SIZE
        await self.frame(yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream, 0)
        if protocols:
            await self.write(stream, line(MULTISTREAM) + b"".join(map(line, protocols)))
        return stream

    async def write(self, stream: int, data: bytes) -> None:
        """Send data, as fast as the window allows it; ends early when the connection does."""
        start = 0
        while start < len(data):
            room = FRAME_BYTES_MAX if self._heedless else min(FRAME_BYTES_MAX, self._windows[stream])
            chunk = data[start : start + room]
            if chunk:
                self._windows[stream] -= len(chunk)
                await self.frame(yamux.TYPE_DATA, 0, stream, len(chunk), chunk)
                start += len(chunk)
            elif self.closed.is_set():
                return
            else:
                await trio.sleep(0.01)

    async def close_write(self, stream: int) -> None:
        """Say that nothing more comes on this stream."""
        await self.frame(yamux.TYPE_DATA, yamux.FLAG_FIN, stream, 0)

    async def read_for_ever(self) -> None:
        """Answer pings, count data, give windows back; ends when the connection does."""
        try:
            while True:
                _, kind, flags, stream, length = struct.unpack(
                    yamux.YAMUX_HEADER_FORMAT, await read_exactly(self.secured, yamux.HEADER_SIZE)
                )
                if kind == yamux.TYPE_DATA and length:
                    await read_exactly(self.secured, length)
                    self.received[stream] += length
                    if not self._greedy:
                        await self.frame(yamux.TYPE_WINDOW_UPDATE, 0, stream, length)
                elif kind == yamux.TYPE_WINDOW_UPDATE:
                    self._windows[stream] = self._windows.get(stream, 0) + length
                elif kind == yamux.TYPE_PING and flags & yamux.FLAG_SYN:
                    await self.frame(yamux.TYPE_PING, yamux.FLAG_ACK, 0, length)
                elif kind == yamux.TYPE_GO_AWAY:
                    return
        except Exception:  # noqa: BLE001 however it ended, it ended
            return
        finally:
            self.closed.set()


async def secure(tcp: trio.SocketStream, seed: bytes, victim: bytes, *, claimed: bytes | None = None) -> Any:
    """Negotiate Noise as the key of `seed`, or with the identity of `claimed` and that key's signature."""
    raw = RawConnection(TrioTCPStream(tcp), True)
    await MultiselectClient().select_one_of([TProtocol("/noise")], MultiselectCommunicator(raw))
    key_pair = create_new_key_pair(seed)
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    if claimed is not None:
        noise.libp2p_privkey = _Claiming(key_pair.private_key, claimed)
    return await noise.secure_outbound(raw, peer_id_of(victim))


class _Claiming:
    """A private key that names somebody else's public key."""

    def __init__(self, private_key: Any, claimed: bytes) -> None:
        self._private_key = private_key
        self._claimed = claimed

    def get_public_key(self) -> Any:
        return Ed25519PublicKey.from_bytes(self._claimed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._private_key, name)


@asynccontextmanager
async def open_raw_peer(
    port: int, seed: bytes, victim: bytes, *, source: str = "127.0.0.1", **habits: bool
) -> AsyncIterator[RawPeer]:
    """A raw peer connected with the node that listens on `port`; raises whatever a refused connection raises.

    `habits` are those of `RawPeer`.
    """
    tcp = await open_tcp(port, source)
    try:
        with trio.fail_after(10):
            secured = await secure(tcp, seed, victim)
            await MultiselectClient().select_one_of([TProtocol(yamux.PROTOCOL_ID)], MultiselectCommunicator(secured))
        peer = RawPeer(secured, **habits)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read_for_ever)
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(tcp)
