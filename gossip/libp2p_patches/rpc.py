"""The bytes of gossip streams: frames that are cut out of them, and RPCs that wait to be written.

Untrusted: every byte that is read. Rules:
1. A frame's length is compared with its bound before the frame is read; a stranger's bound is small.
2. A frame has few entries, and none longer than its kind: parsed, 1 MiB of empty entries take 60 MiB.
3. What has come of frames that are not complete is bounded over all streams of this node.
4. What waits to be written is counted in bytes, per peer and over all peers of this node.

Source: protobuf's encoding (wire types); libp2p specs (pubsub), whose frames these are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.pubsub.rpc_queue import PriorityQueue, RpcQueue

from gossip.buckets import SharedBytes
from gossip.errors import InvalidMessageError

RPC_BYTES_MAX = 1 << 20
"""One RPC of a gossip stream."""
RPC_BYTES_OF_STRANGER_MAX = 128 * 1024
"""The same of a stranger."""
RPC_ENTRIES_MAX = 512
"""Messages, subscriptions and control entries of one RPC."""
FRAMES_BYTES_MAX = 32 << 20
"""What came of RPCs that are not complete yet, over all streams of this node."""
FRAME_BYTES_OF_ORDINARY_PEER = 128 * 1024
"""A frame of this length is read whatever others hold: the largest message fits."""
CONTROL_BYTES_MAX = 64 * 1024
"""An entry of an RPC that is no message."""
MESSAGE_OVERHEAD_BYTES_MAX = 1024
"""Of a message, what is not its data: two keys, number, topic, signature."""
WAITING_BYTES_MAX = 32 << 20
"""Gossip that waits to be written, over all peers of this node."""
WAITING_BYTES_PER_PEER_MAX = 4 << 20
"""The same for one peer of the roster."""
WAITING_BYTES_PER_STRANGER_MAX = 128 * 1024
"""The same for one stranger."""

_LENGTH_DELIMITED = 2
_PUBLISH = 2


class FrameReader:
    """Length-prefixed frames of a stream (the library reads each prefix byte by byte, at a call each)."""

    def __init__(self, stream: Any, in_roster: Callable[[], bool], all_frames: SharedBytes) -> None:
        self._stream = stream
        self._in_roster = in_roster
        self._all_frames = all_frames
        self._counted = 0
        self._buffer = bytearray()

    async def next(self) -> bytes:
        """The next frame.

        Raises:
            InvalidMessageError: its length is not one that a peer of ours sends.
            StreamEOF: the peer ended the stream; the other errors of a stream pass through.
        """
        while True:
            prefix = _varint(self._buffer, 0)
            if prefix is not None:
                length, start = prefix
                if length > (RPC_BYTES_MAX if self._in_roster() else RPC_BYTES_OF_STRANGER_MAX):
                    raise InvalidMessageError(f"an RPC of {length} bytes")
                if len(self._buffer) >= start + length:
                    frame = bytes(self._buffer[start : start + length])
                    del self._buffer[: start + length]
                    self._count(len(self._buffer))
                    return frame
            self._buffer += await self._stream.read(65536)
            self._count(len(self._buffer))
            if self._all_frames.count > FRAMES_BYTES_MAX and len(self._buffer) > FRAME_BYTES_OF_ORDINARY_PEER:
                raise InvalidMessageError("a long RPC that is not complete, while memory is short")

    def discard(self) -> None:
        """Nothing will be read any more."""
        self._count(0)

    def _count(self, size: int) -> None:
        self._all_frames.count += size - self._counted
        self._counted = size


def require_shape(frame: bytes, message_bytes_max: int) -> None:
    """See that parsing `frame` will not take many times its size.

    Raises:
        InvalidMessageError: it has too many entries, one is too long, or it is no protobuf at all.
    """
    position = entries = 0
    while position < len(frame):
        tag, position = _require_varint(frame, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise InvalidMessageError(f"an RPC field of wire type {tag & 7}")
        length, position = _require_varint(frame, position)
        is_message = tag >> 3 == _PUBLISH
        if length > (message_bytes_max + MESSAGE_OVERHEAD_BYTES_MAX if is_message else CONTROL_BYTES_MAX):
            raise InvalidMessageError(f"an RPC field of {length} bytes")
        position += length
        entries += 1
        if entries > RPC_ENTRIES_MAX:
            raise InvalidMessageError("an RPC of too many entries")


def _require_varint(data: bytes, position: int) -> tuple[int, int]:
    read = _varint(data, position)
    if read is None:
        raise InvalidMessageError("an RPC that ends inside of a number")
    return read


def _varint(data: bytes | bytearray, position: int) -> tuple[int, int] | None:
    """A number of at most four bytes and the position after it, or None if it is not complete."""
    value = 0
    for index, byte in enumerate(data[position : position + 4]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    if len(data) >= position + 4:
        raise InvalidMessageError("a number of more than four bytes")
    return None


class BoundedRpcQueue(RpcQueue):  # type: ignore[misc]
    """RPCs that wait to be written to one peer; one that does not fit is not taken."""

    def __init__(self, rpcs_max: int) -> None:
        super().__init__(max_size=rpcs_max, max_message_size=RPC_BYTES_MAX)
        self._bytes = 0
        self._bytes_max = WAITING_BYTES_PER_STRANGER_MAX
        self._shared = SharedBytes()

    def share(self, shared: SharedBytes, in_roster: bool) -> None:
        """Count in `shared`, too, from now on."""
        shared.count += self._bytes
        self._shared = shared
        self._bytes_max = WAITING_BYTES_PER_PEER_MAX if in_roster else WAITING_BYTES_PER_STRANGER_MAX

    def push(self, rpc: Any, priority: bool = False) -> bool:
        size = rpc.ByteSize()
        if self._bytes + size > self._bytes_max or self._shared.count + size > WAITING_BYTES_MAX:
            return False
        if not super().push(rpc, priority):
            return False
        self._count(size)
        return True

    async def pop(self) -> Any:
        rpc = await super().pop()
        if rpc is not None:
            self._count(-rpc.ByteSize())
        return rpc

    def discard(self) -> None:
        """Nothing will be written any more."""
        self.close()
        self._count(-self._bytes)
        self._queue: Any = PriorityQueue(0)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._shared.count += size
