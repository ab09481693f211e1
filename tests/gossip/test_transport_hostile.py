"""The transport on loopback against peers that hold on to what they are given, and links that break silently."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from raw_peer import open_raw_peer, open_tcp
from transport_nodes import (
    LOOPBACK,
    TOPIC,
    connected,
    echo,
    eventually,
    gossip_until_heard,
    key_of,
    open_node,
    open_rogue,
    seed_of,
)

from gossip.admission import IDLE_AFTER_S, ConnectionLimits
from gossip.buckets import ByteLimits
from gossip.errors import InvalidMessageError, PeerUnavailableError
from gossip.libp2p_patches import connections
from gossip.libp2p_patches.identity import peer_id_of
from gossip.serving import ServeLimits
from gossip.transport import Transport, TransportConfig, exchange, links, open_transport

REQUESTS = "/gpupool/sync/1"


def port_of(node: Transport) -> int:
    return int(node.addresses[0].split("/")[4])


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


async def test_answers_that_nobody_reads_hold_bounded_memory_and_hold_up_nobody_else(monkeypatch):
    made = []

    async def serve(_peer: bytes, request: bytes) -> bytes:
        made.append(len(request))
        return bytes(1 << 20) if request == b"much" else request

    sizes = ByteLimits(total_max=4 << 20, strangers_max=2 << 20, peer_max=2 << 20, stranger_max=1 << 20)
    limits = ServeLimits(answers=sizes)
    async with open_node("a", serve=serve, serving=limits, response_bytes_max=1 << 20) as a, open_node("b") as b:
        b.set_roster({a.node_key: a.addresses})
        a.set_roster({b.node_key: (), key_of("hog"): ()})
        await eventually(lambda: connected(a, b))
        async with (
            open_raw_peer(port_of(a), seed_of("hog"), a.node_key, greedy=True) as hog,
            open_raw_peer(port_of(a), seed_of("stranger"), a.node_key, greedy=True) as stranger,
        ):
            for peer in (hog, stranger):
                for _ in range(10):
                    await peer.write(await peer.open(REQUESTS), frame(b"much"))
            await eventually(lambda: a.counters.get("serve_refused") == 8)  # of a stranger's ten
            await eventually(lambda: len(made) == 3)
            for _ in range(5):
                assert await b.request(a.node_key, b"little") == b"little"
            assert made.count(4) == 3  # two of the hog, one of the stranger
            assert a._exchange.admission.held()[1] <= sizes.total_max + 12 * 4
        await eventually(lambda: a._exchange.admission.held() == (0, 0))


async def test_whoever_takes_all_places_and_asks_nothing_holds_up_nobody_else(monkeypatch):
    monkeypatch.setattr(exchange, "REQUEST_READ_TIMEOUT_S", 1.0)
    limits = ServeLimits(places_max=4, per_peer_max=4)
    async with open_node("a", serving=limits) as a, open_node("b") as b:
        b.set_roster({a.node_key: a.addresses})
        a.set_roster({b.node_key: (), key_of("hog"): ()})
        await eventually(lambda: connected(a, b))
        async with open_raw_peer(port_of(a), seed_of("hog"), a.node_key) as hog:
            for _ in range(4):
                await hog.open(REQUESTS)
            await eventually(lambda: a._exchange.admission.held()[0] == 4)
            assert await b.request(a.node_key, b"well") == b"well"
            assert a.counters["serve_gave_way"] == 1
            await eventually(lambda: a.counters.get("serve_timed_out") == 3)
        await eventually(lambda: a._exchange.admission.held() == (0, 0))


async def test_a_small_request_is_answered_while_all_places_are_at_work_and_no_other_one():
    go = trio.Event()

    async def serve(_peer: bytes, request: bytes) -> bytes:
        if request == b"work":
            await go.wait()
        return request

    def answer_bytes_max(request: bytes) -> int:
        return len(request) if request == b"ping" else 1 << 20

    limits = ServeLimits(
        places_max=1, answers=ByteLimits(total_max=1 << 20, strangers_max=0, peer_max=1 << 20, stranger_max=0)
    )
    config = TransportConfig(listen=(LOOPBACK,), topic=TOPIC, serving=limits)
    async with (
        open_transport(seed_of("a"), config, serve=serve, answer_bytes_max=answer_bytes_max) as a,
        open_node("b") as b,
        open_node("c") as c,
    ):
        a.set_roster({b.node_key: (), c.node_key: ()})
        for node in (b, c):
            node.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(a, b) and connected(a, c))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.request, a.node_key, b"work")
            await eventually(lambda: a._exchange.admission.held()[1] > 1 << 20)
            assert await c.request(a.node_key, b"ping") == b"ping"
            with pytest.raises(PeerUnavailableError):
                await c.request(a.node_key, b"more")
            assert a.counters["serve_refused"] == 1
            go.set()


async def test_an_answer_that_is_longer_than_room_was_held_for_is_not_sent():
    config = TransportConfig(listen=(LOOPBACK,), topic=TOPIC)
    async with open_transport(seed_of("a"), config, serve=echo, answer_bytes_max=lambda _: 4) as a, open_node("b") as b:
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(b, a))
        assert await b.request(a.node_key, b"four") == b"four"
        with pytest.raises(PeerUnavailableError):
            await b.request(a.node_key, b"fiver")
        assert a.counters["serve_failed"] == 1


async def test_those_that_come_first_are_dialled_while_others_lead_nowhere(monkeypatch):
    monkeypatch.setattr(links, "DIALS_MAX", 1)
    dialled = trio.Event()

    async def say_nothing(_stream: trio.SocketStream) -> None:
        dialled.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, open_node("a") as a, open_node("b") as b:
        mute = (await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1")))[0]
        nowhere = {key_of("nobody"): [f"/ip4/127.0.0.1/tcp/{mute.socket.getsockname()[1]}"]}
        a.set_roster(nowhere)
        with trio.fail_after(5):
            await dialled.wait()
        a.set_roster({**nowhere, b.node_key: b.addresses}, first={b.node_key})
        await eventually(lambda: connected(a, b))
        assert not a.counters.get("dial_failed")
        nursery.cancel_scope.cancel()


async def test_a_malformed_request_is_its_peers_fault_and_not_logged_as_ours(caplog):
    async def serve(_peer: bytes, _request: bytes) -> bytes:
        raise InvalidMessageError("request: of an unknown name")

    async with open_node("a", serve=serve) as a, open_node("b") as b:
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(b, a))
        for _ in range(5):
            with pytest.raises(PeerUnavailableError):
                await b.request(a.node_key, b"junk")
        assert a.counters["serve_malformed"] == a.counters["fault_malformed"] == 5
        await eventually(lambda: not connected(a, b))
        assert a.counters["peer_refused"] >= 1
        assert not [record for record in caplog.records if record.name.startswith("gossip")]


async def test_a_handshake_that_takes_its_time_is_given_up(monkeypatch):
    monkeypatch.setattr(connections, "HANDSHAKE_TIMEOUT_S", 0.2)
    async with open_node("a") as a, await open_tcp(port_of(a), "127.0.0.1") as silent:
        await eventually(lambda: a.counters.get("connection_inbound_failed"))
        assert not a._connection_admission._handshakes
        with trio.fail_after(5):
            while await silent.receive_some(100):
                pass


async def test_handshakes_of_many_do_not_keep_a_peer_out():
    limits = ConnectionLimits(handshakes_max=10, per_address_max=5)
    async with open_node("a", connections=limits) as a, open_node("b") as b:
        mute = [await open_tcp(port_of(a), f"127.0.1.{number % 2 + 1}") for number in range(10)]
        await eventually(lambda: len(a._connection_admission._handshakes) == 10)
        a.set_roster({b.node_key: ()})
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(a, b))
        assert a.counters["connection_evicted"] == 1
        for stream in mute:
            await stream.aclose()


async def test_an_idle_stranger_gives_way(monkeypatch):
    async with open_node("a", connections=ConnectionLimits(strangers_max=1)) as a, open_rogue("idle", a):
        for slot in a._connection_admission._strangers:
            slot.heard_s -= IDLE_AFTER_S
        async with open_rogue("next", a):
            await eventually(lambda: [view.node_key for view in a.peers()] == [key_of("next")])
        assert a.counters["connection_evicted"] == 1


async def test_a_peer_behind_a_refused_address_is_still_let_in():
    async with open_node("a") as a, open_node("b") as b:
        a.set_roster({b.node_key: ()})
        async with open_raw_peer(port_of(a), seed_of("stranger"), a.node_key) as stranger:
            await stream_of_ours(stranger)
            await stranger.closed.wait()
        with pytest.raises(Exception):  # noqa: B017 however the library says that it was cut off
            async with open_raw_peer(port_of(a), seed_of("another"), a.node_key) as another:
                with trio.fail_after(5):
                    await another.closed.wait()
                raise ConnectionError
        assert a.counters["connection_of_refused_address"] >= 1
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(a, b))


async def stream_of_ours(peer) -> None:
    """Break a rule of Yamux: open a stream whose number is the other end's to give."""
    peer._next = 2
    await peer.open()


@asynccontextmanager
async def link_that_freezes(to: Transport):
    """A way to a node that can go silent without a word: yields its address and what freezes it."""
    frozen = trio.Event()

    async def carry(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            if frozen.is_set():
                break
            await sink.send_all(data)
        if frozen.is_set():
            await trio.sleep_forever()

    async def serve(inbound: trio.SocketStream) -> None:
        outbound = await trio.open_tcp_stream("127.0.0.1", port_of(to))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, inbound, outbound)
            nursery.start_soon(carry, outbound, inbound)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield f"/ip4/127.0.0.1/tcp/{port}", frozen.set
        nursery.cancel_scope.cancel()


async def test_gossip_goes_on_when_a_peer_comes_back_before_its_old_connection_is_known_to_be_dead():
    async with open_node("a") as a, open_node("b") as b, link_that_freezes(b) as (address, freeze):
        a.set_roster({b.node_key: [address]})
        b.set_roster({a.node_key: ()})
        await gossip_until_heard(a, b, b"over the link")
        old = a._links._live(peer_id_of(b.node_key))
        freeze()
        a._links.set_roster({b.node_key: ()})
        async with open_node("c"):  # b's farewell does not get through
            pass
        b._links.set_roster({})
        await _vanish(b)
        async with open_node("b") as again:
            again.set_roster({a.node_key: a.addresses})
            await gossip_until_heard(a, again, b"to the new one")
            await gossip_until_heard(again, a, b"and back")
            assert not set(old) & set(a._links._live(peer_id_of(b.node_key)))


async def _vanish(node: Transport) -> None:
    """Close a node's listeners, so that another one may take its place; its connections stay, silent."""
    for listener in list(node._host.get_network().listeners.values()):
        await listener.close()
