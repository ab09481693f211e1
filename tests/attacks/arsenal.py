"""The attacks: each does one kind of harm as fast as it can, and says what it sent.

All run on loopback, where an attacker has as many addresses as it likes (127.x.y.z); where an attack
stands for one party, it uses one.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.yamux import yamux
from libp2p.utils.varint import encode_uvarint
from pool_fixture import POOL, key
from raw_peer import MULTISTREAM, line, open_tcp, secure

from gossip import sync
from gossip.epoch_events import ObjectId
from gossip.libp2p_patches.identity import peer_id_of
from gossip.log_chain import RecordRange
from gossip.sync import ObjectRequest, RecordsRequest
from gossip.wire import topic
from tests.attacks.target import Attack, Target, in_parallel, source_of
from tests.attacks.victim import LARGE, RECORDS, RECORDS_OWNER

GOSSIP = str(PROTOCOL_ID_V11)
REQUESTS = "/gpupool/sync/1"
TOPIC = topic(POOL)
HOSTILE_MEMBER = 3
"""Number of the roster's peer that is on the attacker's side."""


# Garbage and lengths.


async def garbage(target: Target) -> None:
    """Random bytes and other protocols at every stage, down to the handlers of ours."""
    junk = os.urandom(4096)

    async def on_tcp(hello: bytes, number: int) -> None:
        tcp = await open_tcp(target.port, source_of(1, number))
        async with tcp:
            await tcp.send_all(hello + junk)
            target.sent["connections"] += 1
            target.sent["bytes"] += len(hello) + len(junk)
            await tcp.receive_some(1)

    async def in_noise() -> None:
        tcp = await open_tcp(target.port, source_of(1, 10))
        async with tcp:
            secured = await secure(tcp, os.urandom(32), target.node_key)
            await secured.write(junk)
            target.sent["connections"] += 1
            await tcp.receive_some(1)

    async def in_yamux() -> None:
        async with target.peer(source_of(1, 11)) as peer:
            await peer.secured.write(junk)
            await peer.closed.wait()

    async def on(protocol: str, number: int) -> None:
        async with target.peer(source_of(1, number)) as peer:
            for _ in range(20):
                await peer.write(await peer.open(protocol), os.urandom(512))
                target.sent["streams"] += 1
            await peer.closed.wait()

    hellos = (b"", line(MULTISTREAM), line(MULTISTREAM) + line("/noise"), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01")
    await in_parallel(
        *(lambda hello=hello, number=number: on_tcp(hello, number) for number, hello in enumerate(hellos)),
        in_noise,
        in_yamux,
        *(
            lambda protocol=protocol, number=number: on(protocol, number)
            for number, protocol in enumerate((GOSSIP, REQUESTS, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "\x00"), 12)
        ),
    )


async def oversized_frames(target: Target) -> None:
    """Lengths far over every bound, at every layer that has one."""
    huge = 2**32 - 1

    async def announce(number: int, frame: bytes | None, protocol: str = "", data: bytes = b"") -> None:
        async with target.peer(source_of(2, number)) as peer:
            if frame is not None:
                await peer.secured.write(frame)
            else:
                await peer.write(await peer.open(protocol), data)
            target.sent["frames"] += 1
            with trio.move_on_after(1):
                await peer.closed.wait()

    def header(kind: int) -> bytes:
        return struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, yamux.FLAG_SYN, 1, huge)

    empty_entries = b"\x12\x00" * (1 << 19)
    await in_parallel(
        lambda: announce(1, header(yamux.TYPE_DATA)),
        lambda: announce(2, header(yamux.TYPE_WINDOW_UPDATE)),
        lambda: announce(3, None, GOSSIP, b"\xff\xff\xff\xff\x0f"),
        lambda: announce(4, None, GOSSIP, encode_uvarint(len(empty_entries)) + empty_entries),
        lambda: announce(5, None, REQUESTS, huge.to_bytes(4, "big")),
        lambda: announce(6, None, REQUESTS, (1 << 20).to_bytes(4, "big") + bytes(1 << 20)),
    )


async def window_violation(target: Target) -> None:
    """Data without end on streams that nobody reads, heedless of every window."""

    async def flood(number: int) -> None:
        async with target.peer(source_of(3, number), heedless=True) as peer:
            streams = [await peer.open() for _ in range(8)]
            while not peer.closed.is_set():
                for stream in streams:
                    await peer.write(stream, bytes(60_000))
                    target.sent["bytes"] += 60_000

    await in_parallel(*(lambda number=number: flood(number) for number in range(8)))


# Places.


async def idle_streams(target: Target) -> None:
    """20,000 streams on which nothing is said, from 40 addresses."""

    async def open_all(number: int) -> None:
        async with target.peer(source_of(4, number)) as peer:
            for _ in range(500):
                await peer.open()
                target.sent["streams"] += 1
            await peer.closed.wait()

    await in_parallel(*(lambda number=number: open_all(number) for number in range(40)))


async def idle_connections(target: Target) -> None:
    """500 connections of one address, half of them mute, half with a proven key and then idle."""

    async def mute() -> None:
        async with await open_tcp(target.port, source_of(5, 0)) as tcp:
            target.sent["connections"] += 1
            while await tcp.receive_some(100):
                pass

    async def proven() -> None:
        async with target.peer(source_of(5, 0)) as peer:
            await peer.closed.wait()

    await in_parallel(*[mute] * 250, *[proven] * 250)


async def slow_handshakes(target: Target) -> None:
    """A handshake that comes byte by byte, from each of 300 addresses."""
    hello = line(MULTISTREAM) + line("/noise")

    async def dribble(number: int) -> None:
        async with await open_tcp(target.port, source_of(6, number)) as tcp:
            target.sent["connections"] += 1
            for byte in hello:
                await tcp.send_all(bytes([byte]))
                await trio.sleep(0.4)

    await in_parallel(*(lambda number=number: dribble(number) for number in range(300)))


async def churn(target: Target) -> None:
    """Connect with a fresh key, prove it, say a little, go; as fast as possible, from 20 addresses."""

    async def come_and_go(number: int) -> None:
        async with target.peer(source_of(7, number)) as peer:
            prune = rpc_pb2.ControlPrune(topicID=TOPIC, backoff=10**6)
            rpc = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(prune=[prune]))
            await peer.write(await peer.open(GOSSIP), _framed(rpc))
            await trio.sleep(0.05)

    await in_parallel(*(lambda number=number: come_and_go(number) for number in range(20)))


async def forged_identities(target: Target) -> None:
    """Claims to be a peer of the roster: in the handshake, and as the origin of gossip."""
    friend = key(1).public

    async def in_handshake() -> None:
        async with await open_tcp(target.port, source_of(8, 0)) as tcp:
            target.sent["handshakes"] += 1
            await secure(tcp, os.urandom(32), target.node_key, claimed=friend)
            await tcp.receive_some(1)

    async def in_gossip() -> None:
        async with target.peer(source_of(8, 1)) as peer:
            stream = await peer.open(GOSSIP)
            while not peer.closed.is_set():
                await peer.write(stream, _messages(os.urandom(32), 10, origin=friend))
                target.sent["messages"] += 10

    await in_parallel(in_handshake, in_gossip)


# Gossip.


def _framed(rpc: rpc_pb2.RPC) -> bytes:
    body = rpc.SerializeToString()
    return encode_uvarint(len(body)) + body


def _messages(seed: bytes, count: int, **how: Any) -> bytes:
    return _framed(_signed(seed, count, **how))


def _signed(
    seed: bytes, count: int, *, origin: bytes | None = None, signs: bool = True, size: int = 400
) -> rpc_pb2.RPC:
    """An RPC of fresh messages; `origin` is claimed, not proven."""
    pair = create_new_key_pair(seed)
    own = pair.public_key.to_bytes()
    rpc = rpc_pb2.RPC()
    for _ in range(count):
        message = rpc.publish.add(
            data=os.urandom(size),
            topicIDs=[TOPIC],
            from_id=peer_id_of(origin or own).to_bytes(),
            seqno=os.urandom(8),
        )
        signed = PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString()
        message.signature = pair.private_key.sign(signed) if signs else os.urandom(64)
    return rpc


async def badly_signed(target: Target) -> None:
    """60,000 messages whose signatures do not hold, from 30 addresses and from a peer of the roster."""
    rpc = [_messages(os.urandom(32), 100, signs=False, size=100) for _ in range(20)]

    async def pour(source: str, seed: bytes | None = None) -> None:
        async with target.peer(source, seed=seed) as peer:
            stream = await peer.open(GOSSIP)
            for number in range(40):
                await peer.write(stream, rpc[number % len(rpc)])
                target.sent["messages"] += 100
            await peer.closed.wait()

    await in_parallel(
        *(lambda number=number: pour(source_of(9, number)) for number in range(30)),
        lambda: pour(source_of(9, 99), key(HOSTILE_MEMBER).seed),
    )


async def flood_of_strangers(target: Target) -> None:
    """Well-signed messages of fresh keys, as many as go out, from 20 addresses."""

    async def flood(number: int) -> None:
        async with target.peer(source_of(10, number)) as peer:
            stream = await peer.open(GOSSIP)
            while not peer.closed.is_set():
                await peer.write(stream, _messages(os.urandom(32), 20))
                target.sent["messages"] += 20
                await trio.sleep(0.05)

    await in_parallel(*(lambda number=number: flood(number) for number in range(20)))


async def hostile_member(target: Target) -> None:
    """A peer of the roster floods large messages, and asks for each of them 250 times, without reading."""
    seed = key(HOSTILE_MEMBER).seed

    async def flood() -> None:
        async with target.peer(source_of(11, 0), seed=seed, greedy=True) as peer:
            stream = await peer.open(GOSSIP)
            subscription = rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)
            await peer.write(stream, _framed(rpc_pb2.RPC(subscriptions=[subscription])))
            while not peer.closed.is_set():
                rpc = _signed(seed, 10, size=60_000)
                await peer.write(stream, _framed(rpc))
                ids = [message.from_id + message.seqno for message in rpc.publish] * 25
                wants = rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=ids)])
                await peer.write(stream, _framed(rpc_pb2.RPC(control=wants)))
                target.sent["messages"] += 10
                target.sent["asked again"] += 250

    await in_parallel(flood)


# Requests.


def _request(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


LARGE_REQUEST = _request(sync.encode_request(ObjectRequest(ObjectId(kind="checkpoint", id=LARGE))))


async def _ask(
    target: Target, source: str, request: bytes, *, at_once: int, seed: bytes | None = None, greedy: bool = False
) -> None:
    async with target.peer(source, seed=seed, greedy=greedy) as peer:
        while not peer.closed.is_set():
            for _ in range(at_once):
                await peer.write(await peer.open(REQUESTS), request)
                target.sent["requests"] += 1
            await trio.sleep(1)


async def slow_readers(target: Target) -> None:
    """Answers of 4 MiB that nobody reads, asked for by 20 strangers and by a peer of the roster."""
    await in_parallel(
        *(
            lambda number=number: _ask(target, source_of(12, number), LARGE_REQUEST, greedy=True, at_once=4)
            for number in range(20)
        ),
        lambda: _ask(target, source_of(12, 99), LARGE_REQUEST, seed=key(HOSTILE_MEMBER).seed, greedy=True, at_once=16),
    )


async def slow_writers(target: Target) -> None:
    """Requests that are announced with a megabyte and come byte by byte."""

    async def dribble(source: str, seed: bytes | None, count: int) -> None:
        async with target.peer(source, seed=seed) as peer:
            streams = [await peer.open(REQUESTS) for _ in range(count)]
            for stream in streams:
                await peer.write(stream, (1 << 18).to_bytes(4, "big"))
                target.sent["requests"] += 1
            while not peer.closed.is_set():
                for stream in streams:
                    await peer.write(stream, b"x")
                await trio.sleep(0.5)

    await in_parallel(
        *(lambda number=number: dribble(source_of(13, number), None, 4) for number in range(20)),
        lambda: dribble(source_of(13, 99), key(HOSTILE_MEMBER).seed, 40),
    )


async def costly_requests(target: Target) -> None:
    """Long logs, in 256 overlapping ranges a time, from 20 strangers and from a peer of the roster."""
    ranges = tuple(RecordRange(key(RECORDS_OWNER).public, n + 1, RECORDS) for n in range(sync.RANGES_MAX))
    request = _request(sync.encode_request(RecordsRequest(ranges)))
    await in_parallel(
        *(lambda number=number: _ask(target, source_of(14, number), request, at_once=4) for number in range(20)),
        lambda: _ask(target, source_of(14, 99), request, seed=key(HOSTILE_MEMBER).seed, at_once=16),
    )


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        garbage,
        oversized_frames,
        window_violation,
        idle_streams,
        idle_connections,
        slow_handshakes,
        churn,
        forged_identities,
        badly_signed,
        flood_of_strangers,
        hostile_member,
        slow_readers,
        slow_writers,
        costly_requests,
    )
}
