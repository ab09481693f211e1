"""A stream ends at both ends, however the work ended that it was opened for."""

from __future__ import annotations

import os
import struct

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamReset
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint
from transport_nodes import (
    PATIENCE_S,
    TOPIC,
    eventually,
    gossip_until_heard,
    key_of,
    open_node,
    open_pair,
    open_rogue,
)

from gossip.libp2p_patches.connections import SafeHost
from gossip.libp2p_patches.identity import peer_id_of
from gossip.libp2p_patches.pubsub import REATTACH_TO_STRANGER_S
from gossip.transport import Transport


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when this task is about to take its `step`-th step."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= task is self._task
        if not self._left:
            self._scope.cancel()


def streams(host: SafeHost) -> list[int]:
    """The numbers of all open streams."""
    return sorted(number for c in host.get_network().get_connections() for number in c.muxed_conn.streams)


def places(host: SafeHost) -> list[int]:
    """How many streams each connection can still open."""
    return [c.muxed_conn.stream_backlog_semaphore.value for c in host.get_network().get_connections()]


async def gossip_is_up(a: Transport, b: Transport) -> None:
    await gossip_until_heard(a, b, b"there")
    await gossip_until_heard(b, a, b"and back")


async def was_cancelled_at(step: int, a: Transport, b: Transport) -> bool:
    """Ask, and be cancelled at this step of the asking task; False if it takes fewer."""
    with trio.CancelScope() as scope:
        cancels = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(cancels)
        try:
            await a.request(b.node_key, b"")
        finally:
            trio.lowlevel.remove_instrument(cancels)
    return scope.cancelled_caught


async def test_a_request_cancelled_at_any_step_leaves_no_stream():
    async def serve(_peer: bytes, _request: bytes) -> bytes:
        return bytes(200_000)  # some of it is unread at many of the steps

    async with open_pair(serve) as (a, b):
        await gossip_is_up(a, b)
        hosts = (a._host, b._host)
        before = [(streams(host), places(host)) for host in hosts]
        step = 1
        while await was_cancelled_at(step, a, b):
            step += 1
        assert step > 20  # of so many that a request takes
        await eventually(lambda: [(streams(host), places(host)) for host in hosts] == before)
        assert "connection_violation" not in b.counters


async def test_an_answer_without_an_end_is_not_waited_for_and_holds_nothing():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:

        async def answer_and_stay(stream) -> None:
            await stream.read(4)
            await stream.write(struct.pack(">I", 6) + b"answer")
            await trio.sleep_forever()

        rogue.set_stream_handler(TProtocol(a._exchange._protocol), answer_and_stay)
        a.set_roster({key_of("rogue"): ()})
        before = streams(a._host)
        for _ in range(3):
            assert await a.request(key_of("rogue"), b"") == b"answer"
        # Between two tries to gossip with the rogue, which speaks no gossip.
        await eventually(lambda: set(streams(a._host)) <= set(before))


async def test_a_gossip_stream_that_its_peer_ends_is_ended_here():
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        before = streams(a._host)
        stream = await rogue.new_stream(peer_id_of(a.node_key), [PROTOCOL_ID_V11])
        await eventually(lambda: a._pubsub._inbound_streams[rogue.get_id()])
        await stream.close_write()
        await eventually(lambda: streams(a._host) == before and streams(rogue) == before)
        assert a._pubsub._inbound_streams[rogue.get_id()] == 0


async def lose_a_stream(a: Transport, b: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a's gossip stream to b take nothing any more, until another one carries gossip."""

    async def take_nothing(_data: bytes) -> None:
        raise StreamReset

    lost = a._pubsub.peers[peer_id_of(b.node_key)]
    monkeypatch.setattr(lost, "write", take_nothing)
    await gossip_until_heard(a, b, str(lost.muxed_stream.stream_id).encode())
    assert a._pubsub.peers[peer_id_of(b.node_key)] is not lost


async def test_a_gossip_stream_that_takes_no_bytes_is_ended_before_the_next_one(monkeypatch):
    async with open_pair() as (a, b):
        await gossip_is_up(a, b)
        count = len(streams(a._host))
        await lose_a_stream(a, b, monkeypatch)
        await eventually(lambda: len(streams(a._host)) == len(streams(b._host)) == count)
        assert a.counters["gossip_stream_lost"] >= 1


async def test_gossip_streams_that_are_lost_leave_no_tasks(monkeypatch):
    async with open_pair() as (a, b):
        await gossip_is_up(a, b)
        await lose_a_stream(a, b, monkeypatch)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(4):
            await lose_a_stream(a, b, monkeypatch)
        await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
        assert a.counters["gossip_stream_lost"] >= 5


async def test_a_stranger_that_lets_each_gossip_stream_go_is_offered_few():
    """It asks to be written to all the time, so that each loss is noticed at once."""
    async with open_node("a") as a, open_rogue("rogue", a) as rogue:
        offered_s = []

        async def let_go(stream) -> None:
            offered_s.append(trio.current_time())
            await stream.read(64)
            await stream.reset()

        rogue.set_stream_handler(PROTOCOL_ID_V11, let_go)
        theirs = await rogue.new_stream(peer_id_of(a.node_key), [PROTOCOL_ID_V11])
        with trio.fail_after(PATIENCE_S):
            while len(offered_s) < 3:
                unknown = rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[os.urandom(46)])
                body = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(ihave=[unknown])).SerializeToString()
                await theirs.write(encode_uvarint(len(body)) + body)
                await trio.sleep(0.05)
        assert offered_s[2] - offered_s[0] >= 2 * REATTACH_TO_STRANGER_S
