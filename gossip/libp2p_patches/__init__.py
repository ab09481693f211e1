"""Mends libp2p 0.8.1 where one peer's bytes, or one lost connection, would stop this process or deafen it.

Two kinds of patch: subclasses (`connections`, `pubsub`), used by `gossip.transport` when it builds a
node; and, where the library names its own classes and functions, replacements that `install` puts into
its modules once per process. Each says what was seen without it, and tests/gossip/test_libp2p_patches.py
shows it. The replacements reach into private names, so libp2p is pinned to exactly 0.8.1.

Besides `gossip.transport`, no other module imports libp2p.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import trio
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network.connection import swarm_connection
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.pubsub import gossipsub
from libp2p.pubsub import pubsub as library_pubsub  # this package has a `pubsub` of its own
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp import tcp
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from gossip.libp2p_patches.connections import BoundedYamuxStream
from gossip.libp2p_patches.rpc import BoundedRpcQueue

STREAM_WINDOW_BYTES_MAX = 1 << 20
NEGOTIATION_BYTES_MAX = 1024
OUTBOUND_RPCS_MAX = 256


def install() -> None:
    """Put the replacements into libp2p's modules. Idempotent; process-wide."""
    # Seen: errors in the log for every peer that goes (what matters of them is counted), and root logging
    # configured behind our back (its module calls `logging.warning` itself).
    library_log = logging.getLogger("libp2p")
    library_log.setLevel(logging.CRITICAL)
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
    # Seen: 20,000 idle streams cost 92 MB; a peer that ignores the window took 83 MB to 481 MB.
    yamux.YamuxStream = BoundedYamuxStream
    yamux.MAX_WINDOW_SIZE = STREAM_WINDOW_BYTES_MAX
    # Seen: a length of 2**40 in a negotiation, before any proof of identity, was passed to recv().
    multiselect_communicator.read_delim = read_negotiation_line
    # Seen: with SO_REUSEPORT a second agent on the same port starts and takes half of the connections.
    tcp._set_reuse_flags = _set_reuse_address
    # Seen: a signed address record in every RPC, verified by every receiver; nobody here reads it.
    gossipsub.env_to_send_in_RPC = library_pubsub.env_to_send_in_RPC = _no_signed_record
    # Seen: 16 messages of a burst of 500 arrive, the queue towards each peer holds 32; and 32 of any size.
    library_pubsub.RpcQueue = partial(BoundedRpcQueue, OUTBOUND_RPCS_MAX)


async def read_negotiation_line(reader: Any) -> bytes:
    """Read one line of multistream-select without its newline, of at most 1024 bytes as in go-libp2p."""
    line: bytes = await read_varint_prefixed_bytes_limited(reader, NEGOTIATION_BYTES_MAX)
    try:
        line.decode()
    except UnicodeDecodeError as error:
        # The library decodes it outside of any handler.
        raise IncompleteReadError("a negotiation line is not text") from error
    if not line.endswith(b"\n"):
        raise IncompleteReadError("a negotiation line does not end in a newline")
    return line[:-1]


def _set_reuse_address(sock: trio.socket.SocketType) -> None:
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)


def _no_signed_record(_host: Any) -> tuple[bytes, bool]:
    return b"", False
