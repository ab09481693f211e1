"""The patches of gossip: who carries it, how much waits, and what a peer that asks for too much gets."""

from __future__ import annotations

import gc

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.pubsub import pubsub as library_pubsub
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, PROTOCOL_ID_V12
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint
from transport_nodes import TOPIC, connected, eventually, gossip_until_heard, key_of, open_node, open_pair, open_rogue

from gossip import libp2p_patches
from gossip.admission import MessageLimits
from gossip.buckets import SharedBytes
from gossip.errors import InvalidMessageError
from gossip.libp2p_patches import router, rpc
from gossip.libp2p_patches.connections import SafeHost
from gossip.libp2p_patches.identity import peer_id_of
from gossip.transport import Transport

GOSSIP = TProtocol(PROTOCOL_ID_V11)
UNPACED = {"publish_per_s": 1e6, "publish_burst": 1e6}
"""Settings of a node that publishes as fast as it can."""


def framed(message: rpc_pb2.RPC) -> bytes:
    body = message.SerializeToString()
    return encode_uvarint(len(body)) + body


def sub(subscribe: bool = True) -> rpc_pb2.RPC:
    return rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=subscribe, topicid=TOPIC)])


async def takes_gossip(node: Transport, rogue: SafeHost) -> None:
    """Let the rogue accept gossip streams, as a gossip peer does, and wait until the node has opened its own."""

    async def read_on(stream) -> None:
        while await stream.read(1000):
            pass

    rogue.set_stream_handler(GOSSIP, read_on)
    await eventually(lambda: rogue.get_id() in node._pubsub.router.peer_protocol)


async def test_gossipsub_1_1_is_spoken_and_nothing_newer():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        with pytest.raises(StreamFailure):
            await rogue.new_stream(peer_id_of(a.node_key), [TProtocol(PROTOCOL_ID_V12)])
        assert (await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])).get_protocol() == GOSSIP


async def test_a_heartbeat_soon_fills_a_mesh_that_lost_a_peer():
    async with open_pair() as (a, b):
        mesh = a._pubsub.router.mesh[TOPIC]
        await gossip_until_heard(a, b, b"there")
        await gossip_until_heard(b, a, b"and back")  # no GRAFT is on its way any more
        for _ in range(2):  # the first heartbeat comes soon whatever the interval is
            mesh.clear()
            await eventually(lambda: mesh)
            assert mesh == {peer_id_of(b.node_key)}


async def test_nobody_limits_the_messages_of_others():
    limits = MessageLimits(origin_burst=1000)
    async with (
        open_node("a", **UNPACED) as a,
        open_node("b", messages=limits) as b,
        open_node("c", messages=limits) as c,
    ):
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: (), c.node_key: c.addresses})
        c.set_roster({b.node_key: (), a.node_key: ()})
        await gossip_until_heard(a, c, b"the mesh is up")
        for number in range(60):
            await a.publish(b"%d" % number)
        heard = set()
        with trio.fail_after(20):
            while len(heard) < 60:
                data = (await c.messages.receive()).data
                heard |= {data} - {b"the mesh is up"}
        assert heard == {b"%d" % number for number in range(60)}


async def test_publishing_is_paced():
    async with open_node("a", publish_per_s=100, publish_burst=5) as a:
        began_s = trio.current_time()
        for _ in range(15):
            await a.publish(b"x")
        assert trio.current_time() - began_s >= 0.09


def test_a_burst_waits_and_is_not_lost():
    libp2p_patches.install()
    queue = library_pubsub.RpcQueue()
    queue.share(SharedBytes(), in_roster=True)
    assert all(queue.push(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(400))])) for _ in range(250))


async def test_what_waits_is_bounded_in_bytes_per_peer_and_overall(monkeypatch):
    monkeypatch.setattr(rpc, "WAITING_BYTES_MAX", 6_000)
    monkeypatch.setattr(rpc, "WAITING_BYTES_PER_PEER_MAX", 4_500)
    shared = SharedBytes()
    queues = [rpc.BoundedRpcQueue(256) for _ in range(2)]
    for queue in queues:
        queue.share(shared, in_roster=True)
    message = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(990))])
    assert message.ByteSize() == 996
    assert [queues[0].push(message) for _ in range(5)] == [True] * 4 + [False]
    assert [queues[1].push(message) for _ in range(3)] == [True, True, False]
    await queues[0].pop()
    assert queues[1].push(message)
    queues[1].discard()
    assert not queues[1].push(message)
    assert shared.count == 3 * 996
    queues[0].discard()
    assert shared.count == 0


def test_recent_messages_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(router, "RECENT_BYTES_MAX", 1_000)
    cache = router._BoundedCache(2, 3)
    for number in range(20):
        cache.put(rpc_pb2.Message(from_id=b"a", seqno=bytes([number]), data=bytes(100), topicIDs=[TOPIC]))
    assert list(cache.msgs) == [b"a" + bytes([number]) for number in range(10, 20)]
    cache.put(rpc_pb2.Message(from_id=b"a", seqno=bytes([19]), data=bytes(100), topicIDs=[TOPIC]))
    for _ in range(3):
        cache.shift()
    assert (cache.msgs, cache._bytes) == ({}, 0)


async def test_strangers_neither_get_gossip_nor_carry_it():
    async with open_pair(**UNPACED) as (a, b), open_rogue("rogue", a) as rogue:
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        graft = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=TOPIC)]))
        await stream.write(framed(sub()) + framed(graft))
        await gossip_until_heard(a, b, b"to the roster alone")
        await trio.sleep(1.1)  # a heartbeat, which would fill the mesh and tell of recent messages
        router = a._pubsub.router
        assert router.mesh[TOPIC] == {peer_id_of(b.node_key)}
        assert router._get_in_topic_gossipsub_peers_from_minus(TOPIC, 9, set()) == [peer_id_of(b.node_key)]


async def test_recent_messages_go_to_a_peer_of_the_roster_once():
    async with open_node("a", **UNPACED) as a, open_node("friend") as friend, open_node("stranger") as stranger:
        for number in range(20):
            await a.publish(b"%d" % number)
        a.set_roster({friend.node_key: ()})
        for other in (friend, stranger):
            other.set_roster({a.node_key: a.addresses})
        await eventually(lambda: friend.messages.statistics().current_buffer_used == 20)
        sent: list[int] = []
        push = rpc.BoundedRpcQueue.push
        for queue in a._pubsub.peer_queues.values():
            queue.push = lambda packet, queue=queue, **k: sent.append(len(packet.publish)) or push(queue, packet, **k)
        for other in (friend, stranger):
            own = other._pubsub.peers[peer_id_of(a.node_key)]
            for _ in range(5):
                await own.write(framed(sub(False)) + framed(sub()))
        await gossip_until_heard(friend, a, b"what came before it was read")
        await gossip_until_heard(stranger, a, b"this, too")
        assert sum(sent) < 3, "what was just said is passed on, and nothing again"
        assert stranger.messages.statistics().current_buffer_used == 0


async def test_a_newcomer_that_took_us_into_its_mesh_is_in_ours_once_the_roster_shows_it():
    async with open_node("a") as a, open_node("b") as b:
        b.set_roster({a.node_key: a.addresses})  # a does not know it yet
        await eventually(lambda: peer_id_of(b.node_key) in a._pubsub.router._grafted)
        assert not a._pubsub.router.mesh[TOPIC]
        a.set_roster({b.node_key: ()})
        assert a._pubsub.router.mesh[TOPIC] == {peer_id_of(b.node_key)}
        a.set_roster({})
        assert not a._pubsub.router.mesh[TOPIC]


async def test_a_message_asked_for_again_and_again_is_sent_once():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        a.set_roster({key_of("rogue"): ()})
        await a.publish(bytes(50_000))
        message_id = next(iter(a._pubsub.router.mcache.msgs))
        sent = []
        a._pubsub.router.send_rpc = lambda peer, packet, priority=False: sent.append(len(packet.publish))
        wants = [rpc_pb2.ControlIWant(messageIDs=[message_id.hex().encode()] * 250)]
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        await stream.write(framed(rpc_pb2.RPC(control=rpc_pb2.ControlMessage(iwant=wants))))
        await eventually(lambda: sent)
        assert sent == [1]


async def test_a_peer_that_pruned_us_still_hears_of_recent_messages():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        a.set_roster({key_of("rogue"): ()})
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        prune = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=60)]))
        await stream.write(framed(sub()) + framed(prune))
        router = a._pubsub.router
        await eventually(lambda: rogue.get_id() in router.back_off.get(TOPIC, ()))
        await takes_gossip(a, rogue)
        await a.publish(b"recent")
        assert list(router.gossip_heartbeat()) == [rogue.get_id()]


async def test_a_gossip_stream_that_ends_is_no_failure():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
        await stream.write(framed(sub()))
        await eventually(lambda: a._pubsub._inbound_streams[rogue.get_id()])
        await stream.close_write()
        await eventually(lambda: not a._pubsub._inbound_streams[rogue.get_id()])
        assert "stream_failed" not in a.counters


class Chunks:
    """A stream that yields these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def read(self, _count: int) -> bytes:
        return self._chunks.pop(0)


async def test_frames_that_are_not_complete_are_bounded_over_all_streams(monkeypatch):
    monkeypatch.setattr(rpc, "FRAMES_BYTES_MAX", 1_000)
    monkeypatch.setattr(rpc, "FRAME_BYTES_OF_ORDINARY_PEER", 500)
    shared = SharedBytes()
    length = encode_uvarint(2_000)
    long = rpc.FrameReader(Chunks(length + bytes(600), bytes(600)), lambda: True, shared)
    with pytest.raises(InvalidMessageError):
        await long.next()
    ordinary = rpc.FrameReader(Chunks(encode_uvarint(490) + bytes(100), bytes(390)), lambda: True, shared)
    assert await ordinary.next() == bytes(490)
    long.discard()
    ordinary.discard()
    assert shared.count == 0


EMPTY = b"\x12\x00"


@pytest.mark.parametrize(
    "frame",
    [
        EMPTY * (rpc.RPC_ENTRIES_MAX + 1),
        b"\x0a\x00" * (rpc.RPC_ENTRIES_MAX + 1),
        b"\x1a" + encode_uvarint(rpc.CONTROL_BYTES_MAX + 1) + bytes(rpc.CONTROL_BYTES_MAX + 1),
        b"\x12" + encode_uvarint(3000) + bytes(3000),
        b"\x08\x01",
        b"\x12",
        b"\x12\xff\xff\xff\xff\x0f",
    ],
    ids=["messages", "subscriptions", "control", "message", "number", "cut off", "length"],
)
def test_an_rpc_that_would_grow_when_parsed_is_refused_before(frame):
    with pytest.raises(InvalidMessageError):
        rpc.require_shape(frame, 1000)


def test_an_rpc_of_a_peer_of_ours_has_the_shape():
    control = rpc_pb2.ControlMessage(ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"00" * 46] * 256)])
    message = rpc_pb2.Message(
        data=bytes(1000), topicIDs=[TOPIC], from_id=bytes(38), seqno=bytes(8), signature=bytes(64)
    )
    packed = rpc_pb2.RPC(publish=[message] * 100, control=control, subscriptions=sub().subscriptions)
    frame = packed.SerializeToString()
    rpc.require_shape(frame, 1000)
    rpc.require_shape(b"", 1000)
    with pytest.raises(InvalidMessageError):
        rpc.require_shape(frame, 10)  # its messages are looked at


async def test_a_forwarder_of_invalid_messages_is_muted_or_sent_away():
    async with open_node("a") as a, open_rogue("friend", a) as friend, open_rogue("stranger", a) as stranger:
        a.set_roster({key_of("friend"): ()})
        nobody = bytes.fromhex("002408011220") + bytes(32)
        bad = rpc_pb2.Message(
            data=b"x",
            topicIDs=[TOPIC],
            from_id=nobody,
            seqno=bytes(8),
            signature=bytes(64),
        )
        for rogue in (friend, stranger):
            stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
            await stream.write(framed(rpc_pb2.RPC(publish=[bad] * 30)))
        await eventually(lambda: a.counters.get("gossip_of_muted_peer") == 10)
        await eventually(lambda: not any(view.connected for view in a.peers() if not view.in_roster))
        assert [view.connected for view in a.peers() if view.in_roster] == [True]
        assert a.counters["peer_refused"] >= 1
        assert a.counters["gossip_invalid"] >= 40


async def test_nothing_is_kept_of_strangers_that_left():
    async with open_node("a") as a:
        names = [f"passer-by {number}" for number in range(3)]
        for name in names:
            async with open_rogue(name, a) as rogue:
                stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
                control = rpc_pb2.ControlMessage(
                    graft=[rpc_pb2.ControlGraft(topicID=TOPIC)],
                    prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=10**6)],
                    ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"00" * 46])],
                    iwant=[rpc_pb2.ControlIWant(messageIDs=[b"11" * 46])],
                )
                await stream.write(framed(sub()) + framed(rpc_pb2.RPC(control=control)))
                await eventually(lambda rogue=rogue: a._pubsub.router.iwant_request_limits.get(rogue.get_id()))
            await eventually(lambda: not a.peers())
        gone = {peer_id_of(key_of(name)) for name in names}
        await eventually(lambda: not _containers_of(a, gone))
        assert not a._connection_admission._per_key


def _containers_of(node: object, gone: set) -> list[str]:
    """Dictionaries and sets that a node holds, however deep, in which one of these peers stands."""
    seen, queue, found = set(), [("node", node)], []
    while queue:
        path, value = queue.pop()
        if id(value) in seen or len(path) > 400:
            continue
        seen.add(id(value))
        if isinstance(value, dict | set | frozenset) and any(key in gone for key in value if type(key) in _KEYS):
            found.append(path)
        module = type(value).__module__
        if isinstance(value, dict):
            queue += [(f"{path}[{name!r:.40}]", inner) for name, inner in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            queue += [(f"{path}[]", inner) for inner in value]
        elif module.startswith(("gossip", "libp2p")):
            queue += [(f"{path}.{name}", inner) for name, inner in _attributes(value)]
    gc.collect()
    return found


_KEYS = (type(peer_id_of(bytes(32))), bytes, str)


def _attributes(value: object) -> list[tuple[str, object]]:
    names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


async def test_peers_of_the_roster_share_everything_though_strangers_were_there_first():
    async with open_node("a") as a, open_node("b") as b, open_rogue("one", a) as one, open_rogue("two", a) as two:
        for rogue in (one, two):
            stream = await rogue.new_stream(peer_id_of(a.node_key), [GOSSIP])
            await stream.write(framed(sub()))
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: ()})
        await eventually(lambda: connected(a, b))
        await gossip_until_heard(a, b, b"x")
        await gossip_until_heard(b, a, b"y")
        assert a._pubsub.router.mesh[TOPIC] == {peer_id_of(b.node_key)}
