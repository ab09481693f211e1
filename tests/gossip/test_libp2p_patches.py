"""Each patch of libp2p, by the symptom that it removes: most of these fail, hang or crash without it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter

import pytest
import trio
from libp2p.crypto.rsa import create_new_key_pair as create_rsa_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.io.exceptions import IOException
from libp2p.network.connection import swarm_connection
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.pubsub import gossipsub
from libp2p.pubsub import pubsub as library_pubsub
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.utils.varint import encode_uvarint
from transport_nodes import (
    TOPIC,
    connected,
    eventually,
    gossip_until_heard,
    key_of,
    open_node,
    open_pair,
    open_rogue,
    standing_of,
)

from gossip import libp2p_patches
from gossip.buckets import SharedBytes
from gossip.errors import InvalidMessageError
from gossip.libp2p_patches import pubsub, rpc
from gossip.libp2p_patches import router as router_module
from gossip.libp2p_patches.identity import node_key_of, peer_id_of

GOSSIP = TProtocol(PROTOCOL_ID_V11)


def test_installing_twice_is_installing_once_and_quiet(caplog):
    libp2p_patches.install()
    libp2p_patches.install()
    swarm_connection.logging.warning("a peer went away")
    logging.getLogger("libp2p.pubsub").error("a peer sent something")
    assert caplog.records == []
    assert multiselect_communicator.read_delim is libp2p_patches.read_negotiation_line
    assert library_pubsub.RpcQueue()._queue.max_size == libp2p_patches.OUTBOUND_RPCS_MAX
    assert library_pubsub.env_to_send_in_RPC(None) == gossipsub.env_to_send_in_RPC(None) == (b"", False)


async def test_no_thread_outlives_a_node():
    before = set(threading.enumerate())
    async with open_node("a"):
        pass
    assert [t.name for t in threading.enumerate() if t not in before and not t.name.startswith("Trio")] == []


def test_a_peer_id_is_the_node_key():
    key = key_of("a")
    assert node_key_of(peer_id_of(key).to_bytes()) == key


def _rsa_id() -> bytes:
    return ID.from_pubkey(create_rsa_key_pair(2048).public_key).to_bytes()


@pytest.mark.parametrize(
    "peer_id", [b"", bytes(38), b"\x12\x20" + bytes(32), bytes.fromhex("002408021220") + bytes(32)]
)
def test_other_peer_ids_are_refused(peer_id):
    with pytest.raises(InvalidMessageError):
        node_key_of(peer_id)


async def test_a_connection_of_an_rsa_key_is_refused():
    class Muxed:
        peer_id = ID(_rsa_id())
        closed = False

        async def close(self) -> None:
            self.closed = True

    async with open_node("a") as a:
        muxed = Muxed()
        with pytest.raises(SwarmException):
            await a._host.get_network().add_conn(muxed, "inbound")
        assert muxed.closed
        assert a.peers() == ()


class _Bytes:
    """A stream that yields these chunks, then ends as libp2p's do."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def read(self, count: int) -> bytes:
        if not self._chunks:
            raise StreamEOF
        chunk = self._chunks.pop(0)
        if len(chunk) > count:
            self._chunks.insert(0, chunk[count:])
        return chunk[:count]


async def test_a_negotiation_line_is_read_without_its_newline():
    assert await libp2p_patches.read_negotiation_line(_Bytes(b"\x03/a", b"\n")) == b"/a"


@pytest.mark.parametrize("line", [encode_uvarint(1 << 40), encode_uvarint(1025), b"\x02/a", b"\x02\xff\n", b"\x00"])
async def test_a_bad_negotiation_line_is_refused_before_it_is_read(line):
    with pytest.raises(IOException):
        await libp2p_patches.read_negotiation_line(_Bytes(line))


async def test_gossip_frames_are_cut_out_of_whatever_arrives():
    frames = [b"one", b"", b"x" * 300]
    wire = b"".join(encode_uvarint(len(frame)) + frame for frame in frames)
    for chunk_bytes in (1, 2, 7, len(wire)):
        chunks = [wire[i : i + chunk_bytes] for i in range(0, len(wire), chunk_bytes)]
        reader = rpc.FrameReader(_Bytes(*chunks), lambda: True, SharedBytes())
        assert [await reader.next() for _ in frames] == frames
        with pytest.raises(StreamEOF):
            await reader.next()


@pytest.mark.parametrize("prefix", [encode_uvarint(rpc.RPC_BYTES_MAX + 1), b"\x80\x80\x80\x80\x01", b"\xff" * 9])
async def test_a_gossip_frame_too_long_is_refused_by_its_length(prefix):
    with pytest.raises(InvalidMessageError):
        await rpc.FrameReader(_Bytes(prefix), lambda: True, SharedBytes()).next()


def _rpc(*messages: rpc_pb2.Message) -> bytes:
    body = rpc_pb2.RPC(publish=messages).SerializeToString()
    return encode_uvarint(len(body)) + body


def _signed(host, **fields) -> rpc_pb2.Message:
    """A message as this host would sign it, then with some fields replaced."""
    message = rpc_pb2.Message(data=b"data", topicIDs=[TOPIC], from_id=host.get_id().to_bytes(), seqno=bytes(8))
    message.signature = host.get_private_key().sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    for name, value in fields.items():
        if name == "topicIDs":
            del message.topicIDs[:]
            message.topicIDs.extend(value)
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    "garbage",
    [b"\x32" + b"\xff" * 50, encode_uvarint(1 << 24), b"\xff" * 50, encode_uvarint(4) + b"\x0a\x02\x08\x01"],
    ids=["not protobuf", "too long", "no length", "subscription without topic"],
)
async def test_garbage_on_the_gossip_stream_ends_nothing_but_the_stream(garbage):
    async with open_pair() as (a, b):
        async with open_rogue("rogue", a) as rogue:
            stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
            await stream.write(garbage)
            await stream.close_write()
            await eventually(lambda: not a._pubsub._inbound_streams[rogue.get_id()])
        await gossip_until_heard(b, a, b"still alive")
        assert peer_id_of(b.node_key) in a._pubsub.peers


@pytest.mark.parametrize(
    "fields",
    [
        {"from_id": b"\x12\x20" + bytes(32), "key": b"junk"},
        {"from_id": b"\x12\x20" + bytes(32)},
        {"from_id": b""},
        {"from_id": peer_id_of(key_of("b")).to_bytes()},
        {"from_id": peer_id_of(bytes(32)).to_bytes()},
        {"signature": bytes(64)},
        {"signature": b""},
        {"seqno": b""},
        {"seqno": bytes(9)},
        {"topicIDs": ["another"]},
        {"topicIDs": []},
        {"data": bytes(100)},
    ],
    ids=str,
)
async def test_an_invalid_message_is_dropped_and_counted(fields):
    async with open_node("a", gossip_bytes_max=99) as a, open_rogue("rogue", a) as rogue:
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        await stream.write(_rpc(_signed(rogue, **fields), _signed(rogue, seqno=bytes(8))))
        with trio.fail_after(5):
            message = await a.messages.receive()  # the second of them: the stream goes on
        assert (message.origin, message.data) == (node_key_of(rogue.get_id().to_bytes()), b"data")
        assert a.counters["gossip_invalid"] == 1


async def test_a_message_is_delivered_once_however_often_it_comes():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        await stream.write(_rpc(*[_signed(rogue)] * 3))
        await eventually(lambda: a.counters.get("gossip_duplicate") == 2)
        assert a.messages.statistics().current_buffer_used == 1


async def test_a_control_message_keeps_no_state_of_other_topics():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        control = rpc_pb2.ControlMessage(
            graft=[rpc_pb2.ControlGraft(topicID=f"topic {n}") for n in range(100)],
            prune=[rpc_pb2.ControlPrune(topicID=f"topic {n}", backoff=9999) for n in range(100)],
            ihave=[rpc_pb2.ControlIHave(topicID="topic", messageIDs=[b"x"])],
            iwant=[rpc_pb2.ControlIWant(messageIDs=[b"junk", bytes(46)])],
        )
        subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"topic {n}") for n in range(100)]
        body = rpc_pb2.RPC(control=control, subscriptions=subscriptions).SerializeToString()
        await stream.write(encode_uvarint(len(body)) + body + _rpc(_signed(rogue)))
        with trio.fail_after(5):
            await a.messages.receive()
        assert set(a._pubsub.router.mesh) == {TOPIC}
        assert not a._pubsub.router.back_off
        assert set(a._pubsub.peer_topics) <= {TOPIC}


async def test_a_peer_opens_few_gossip_streams():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        for _ in range(pubsub.STREAMS_PER_PEER_MAX + 3):
            with contextlib.suppress(StreamFailure):
                await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        await eventually(lambda: a.counters.get("stream_failed") == 3)
        assert a._pubsub._inbound_streams[rogue.get_id()] == pubsub.STREAMS_PER_PEER_MAX


async def test_message_ids_are_not_repeated_after_a_quick_restart():
    counters = []
    for _ in range(2):
        async with open_node("a") as a:
            counters.append(a._pubsub.counter)
            await a.publish(b"one")
            await a.publish(b"two")
    assert counters[1] > counters[0] + 2
    assert abs(counters[1] - time.time_ns()) < 3600 * 10**9


async def test_gossip_moves_to_the_connection_that_remains():
    async with open_pair() as (a, b):
        await gossip_until_heard(a, b, b"before")
        for node, peer in ((a, b), (b, a)):
            # As if the stream had been opened on a connection that was lost a moment later.
            await _rehome(node._pubsub, peer_id_of(peer.node_key))
        await gossip_until_heard(a, b, b"after")
        await gossip_until_heard(b, a, b"and back")
        assert all(peer_id_of(y.node_key) in x._pubsub.peers for x, y in ((a, b), (b, a)))


async def _rehome(gossip: pubsub.SafePubsub, peer_id: ID) -> None:
    stream = gossip.peers[peer_id]
    gossip.rehome(peer_id, object())
    assert gossip.peers[peer_id] is stream  # another connection of that peer was lost
    gossip.rehome(peer_id, stream.muxed_conn)
    await eventually(lambda: gossip.peers.get(peer_id) not in (None, stream))


async def test_gossip_attaches_again_when_opening_its_stream_fails_for_any_reason(monkeypatch):
    failures = [StreamEOF(), MuxedStreamError("the connection that goes"), RuntimeError("anything")]
    async with open_node("a") as a, open_node("b") as b:
        new_stream = a._host.new_stream

        async def fail_at_first(*args):
            if failures:
                raise failures.pop()
            return await new_stream(*args)

        monkeypatch.setattr(a._host, "new_stream", fail_at_first)
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: ()})
        await gossip_until_heard(a, b, b"in the end")
        assert not failures


async def test_a_failing_heartbeat_is_followed_by_the_next(monkeypatch, autojump_clock):
    beats = []

    async def beat(_self) -> None:
        beats.append(trio.current_time())
        if len(beats) < 3:
            raise RuntimeError("a peer left meanwhile")
        await trio.sleep_forever()

    monkeypatch.setattr(router_module.GossipSub, "heartbeat", beat)
    counters: Counter[str] = Counter()
    router = router_module.SafeGossipSub(
        counters,
        standing_of(),
        protocols=[GOSSIP],
        degree=8,
        degree_low=6,
        degree_high=12,
        heartbeat_interval=1,
        gossip_window=6,
        gossip_history=12,
    )
    with trio.move_on_after(60):
        await router.heartbeat()
    assert len(beats) == 3
    assert counters["heartbeat_failed"] == 2


async def test_a_raising_stream_handler_ends_its_own_stream():
    async def fail(_stream) -> None:
        raise RuntimeError("a bug")

    async with open_pair() as (a, b):
        b._host.set_stream_handler(TProtocol("/fail/1"), fail)
        with pytest.raises((IOException, StreamFailure)):
            await (await a._host.new_stream(peer_id_of(b.node_key), [TProtocol("/fail/1")])).read(1)
        assert b.counters["stream_failed"] == 1
        assert await a.request(b.node_key, b"well") == b"well"


async def test_inbound_places_are_given_back_however_a_handshake_ends():
    async with open_node("a") as a:
        port = int(a.addresses[0].split("/")[4])
        for hello in (b"", b"\x00", b"\x13/multistream/1.0.0\n", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(hello)
            await stream.aclose()
        await eventually(lambda: a.counters.get("connection_inbound_failed") == 5)
        await eventually(lambda: not a._connection_admission._handshakes)
        assert not a._connection_admission._per_address
        async with open_node("b") as b:
            b.set_roster({a.node_key: a.addresses})
            await eventually(lambda: connected(b, a))


async def test_nothing_but_noise_is_negotiated():
    async with open_node("a") as a:
        port = int(a.addresses[0].split("/")[4])
        for protocol in (b"/plaintext/2.0.0\n", b"/tls/1.0.0\n", b"/secio/1.0.0\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"\x13/multistream/1.0.0\n" + bytes([len(protocol)]) + protocol)
            answer = b""
            with trio.fail_after(5):
                while b"na\n" not in answer:
                    answer += await stream.receive_some(100)
            assert protocol not in answer
            await stream.aclose()
