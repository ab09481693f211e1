"""The transport on loopback: what its users rely on, and what a failing or hostile peer cannot do."""

from __future__ import annotations

import logging
import resource
import socket

import pytest
import trio
from transport_nodes import (
    LOOPBACK,
    TOPIC,
    connected,
    echo,
    eventually,
    gossip_until_heard,
    key_of,
    open_node,
    open_pair,
    open_rogue,
    seed_of,
)

from gossip.admission import ConnectionLimits, MessageLimits
from gossip.errors import ListenFailedError, PeerMisbehavedError, PeerUnavailableError
from gossip.libp2p_patches.identity import peer_id_of
from gossip.serving import ServeLimits
from gossip.transport import TransportConfig, open_transport


async def test_gossip_reaches_peers_that_are_connected_only_through_another():
    async with open_node("a") as a, open_node("b") as b, open_node("c") as c:
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: (), c.node_key: c.addresses})
        c.set_roster({b.node_key: ()})
        await gossip_until_heard(a, c, b"over b")
        assert not connected(a, c)
        await gossip_until_heard(c, a, b"and back")


async def test_publishing_without_peers_is_not_an_error():
    async with open_node("a") as a:
        await a.publish(b"nobody hears this")
        assert a.messages.statistics().current_buffer_used == 0  # nor does a node hear itself


async def test_a_message_larger_than_agreed_is_the_callers_error():
    async with open_node("a", gossip_bytes_max=10) as a:
        with pytest.raises(ValueError, match="11 bytes"):
            await a.publish(bytes(11))


async def test_an_unread_queue_drops_the_newest_and_counts():
    async with open_pair(gossip_queue_max=2) as (a, b):
        await gossip_until_heard(a, b, b"mesh is up")
        for number in range(6):
            await a.publish(bytes([number]))
        await eventually(lambda: b.counters.get("gossip_dropped_full", 0) >= 4)
        assert b.messages.statistics().current_buffer_used == 2


async def test_an_origin_over_its_allowance_is_dropped_and_counted():
    limits = MessageLimits(origin_per_s=0.001, origin_burst=1)
    async with open_node("a") as a, open_node("b", messages=limits) as b:
        a.set_roster({b.node_key: b.addresses})
        b.set_roster({a.node_key: ()})
        await gossip_until_heard(a, b, b"within")
        await a.publish(b"over")
        await eventually(lambda: b.counters.get("gossip_over_origin_rate"))
        assert b.messages.statistics().current_buffer_used == 0


async def test_requests_are_answered_both_ways_and_name_the_asker():
    async def serve(peer: bytes, request: bytes) -> bytes:
        return peer + request

    async with open_pair(serve) as (a, b):
        assert await a.request(b.node_key, b"one") == a.node_key + b"one"
        assert await b.request(a.node_key, b"") == b.node_key
        assert all(view.last_heard_s is not None for node in (a, b) for view in node.peers())


async def test_many_requests_at_once_share_a_few_places():
    running, most = 0, 0

    async def serve(_peer: bytes, request: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.lowlevel.checkpoint()
        running -= 1
        return request

    async with open_pair(serve, requests_per_peer_max=3) as (a, b):
        answers = []

        async def ask(number: int) -> None:
            answers.append(await a.request(b.node_key, number.to_bytes(2, "big")))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
        assert sorted(answers) == [number.to_bytes(2, "big") for number in range(40)]
        assert most <= 3


async def test_a_big_response_arrives_whole():
    body = bytes(range(256)) * 12_000  # several windows of Yamux

    async def serve(_peer: bytes, _request: bytes) -> bytes:
        return body

    async with open_pair(serve) as (a, b):
        assert await a.request(b.node_key, b"all of it") == body


async def test_a_response_over_the_limit_is_misbehaviour():
    async def serve(_peer: bytes, _request: bytes) -> bytes:
        return bytes(1001)

    async with open_pair(serve) as (a, b):
        with pytest.raises(PeerMisbehavedError, match="1001 bytes"):
            await a.request(b.node_key, b"", response_bytes_max=1000)
        assert a.counters["response_too_long"] == 1
        assert await a.request(b.node_key, b"", response_bytes_max=1001) == bytes(1001)


async def test_a_request_over_the_limit_is_refused_here_and_there():
    async with open_node("a", request_bytes_max=100) as a, open_node("b", request_bytes_max=50) as b:
        a.set_roster({b.node_key: b.addresses})
        await eventually(lambda: connected(a, b))
        with pytest.raises(ValueError, match="101 bytes"):
            await a.request(b.node_key, bytes(101))
        with pytest.raises(PeerUnavailableError):
            await a.request(b.node_key, bytes(51))
        assert b.counters["stream_failed"] == 1
        assert await a.request(b.node_key, bytes(50)) == bytes(50)


async def test_a_handler_that_raises_or_answers_too_much_ends_its_own_stream(caplog):
    async def serve(_peer: bytes, request: bytes) -> bytes:
        if request == b"raise":
            raise RuntimeError("a bug")
        return bytes(300) if request == b"much" else request

    async with open_pair(serve, response_bytes_max=200) as (a, b):
        with caplog.at_level(logging.ERROR, logger="gossip"):
            for request in (b"raise", b"much"):
                with pytest.raises(PeerUnavailableError):
                    await a.request(b.node_key, request)
        assert b.counters["serve_failed"] == 2
        assert [record.exc_info[0] for record in caplog.records] == [RuntimeError, ValueError]
        assert await a.request(b.node_key, b"well") == b"well"


async def test_a_slow_handler_costs_both_ends_their_time_limit_and_no_more():
    async def serve(_peer: bytes, request: bytes) -> bytes:
        if request == b"hang":
            await trio.sleep_forever()
        return request

    async with open_node("a", serve=serve) as a, open_node("b", serve=serve, request_timeout_s=0.2) as b:
        a.set_roster({b.node_key: b.addresses})
        await eventually(lambda: connected(a, b))
        with pytest.raises(PeerUnavailableError):  # b gives up first, and says so by a reset
            await a.request(b.node_key, b"hang")
        assert b.counters["serve_timed_out"] == 1
        with pytest.raises(PeerUnavailableError, match=r"no response within 0\.1 s"):
            await a.request(b.node_key, b"hang", timeout_s=0.1)
        assert a.counters["request_timed_out"] == 1
        assert await a.request(b.node_key, b"well") == b"well"


async def test_serving_takes_a_place_per_peer():
    async def serve(_peer: bytes, _request: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with open_pair(serve, serving=ServeLimits(per_peer_max=2)) as (a, b), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_ask_in_vain, a, b.node_key)
        await eventually(lambda: b.counters.get("serve_refused"))
        assert b.counters["serve_refused"] == 1
        nursery.cancel_scope.cancel()


async def _ask_in_vain(node, peer: bytes) -> None:
    with pytest.raises(PeerUnavailableError):
        await node.request(peer, b"")


async def test_cancelled_requests_leave_the_connection_usable():
    body = bytes(2 << 20)

    async def serve(_peer: bytes, request: bytes) -> bytes:
        return body if request == b"much" else request

    async with open_pair(serve) as (a, b):
        for checkpoints in range(0, 60, 3):  # cancelled at many points of the exchange
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.request, b.node_key, b"much")
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert await a.request(b.node_key, b"still here") == b"still here"
        assert a.counters.get("connection_duplicate", 0) == 0
        assert "connection_unresponsive" not in a.counters
        await eventually(lambda: b._exchange.admission.held() == (0, 0))


async def test_requests_to_whom_is_not_connected_fail_at_once():
    async with open_node("a") as a:
        with pytest.raises(PeerUnavailableError, match="not connected"):
            await a.request(key_of("nobody"), b"")


async def test_a_peer_that_does_not_speak_the_protocol_is_unavailable():
    async with open_node("a") as a, open_node("b", request_protocol="/other/1") as b:
        a.set_roster({b.node_key: b.addresses})
        await eventually(lambda: connected(a, b))
        with pytest.raises(PeerUnavailableError):
            await a.request(b.node_key, b"")


async def test_the_roster_is_dialled_again_after_a_restart_with_the_same_key_and_port():
    async with open_node("a") as a:
        async with open_node("b") as b:
            address = b.addresses[0]
            a.set_roster({b.node_key: [address]})
            await eventually(lambda: connected(a, b))
        await eventually(lambda: not connected(a, b))
        assert [(view.node_key, view.in_roster) for view in a.peers()] == [(b.node_key, True)]
        listen = address.split("/p2p/", maxsplit=1)[0]
        async with open_node("b", listen=(listen,)) as again:
            again.set_roster({a.node_key: ()})
            assert again.addresses == (address,)
            await eventually(lambda: connected(a, again))
            assert await a.request(again.node_key, b"back") == b"back"
            await gossip_until_heard(a, again, b"to the new one")
            await gossip_until_heard(again, a, b"from the new one")


async def test_crossed_dials_end_as_one_connection_that_carries_everything():
    async with open_node("a") as a, open_node("b") as b:
        ids = peer_id_of(a.node_key), peer_id_of(b.node_key)
        a.set_roster({b.node_key: ()})
        b.set_roster({a.node_key: ()})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_dial, a, b)
            nursery.start_soon(_dial, b, a)
        await eventually(lambda: len(a._links._live(ids[1])) == len(b._links._live(ids[0])) == 1)
        await gossip_until_heard(a, b, b"there")
        await gossip_until_heard(b, a, b"and back")
        assert await a.request(b.node_key, b"x") == b"x"
        assert await b.request(a.node_key, b"y") == b"y"
        assert len(a._links._live(ids[1])) == len(b._links._live(ids[0])) == 1


async def _dial(node, to) -> None:
    # As `_keep_connected` would, but without looking whether there is a connection already.
    peer = node._links._known(to.node_key)
    peer.addresses = node._links._usable_addresses(peer, to.addresses)
    await node._links._dial(peer)


async def test_an_address_where_somebody_else_answers_is_not_that_peer():
    async with open_node("a") as a, open_node("b") as b:
        somebody_else = b.addresses[0].split("/p2p/", maxsplit=1)[0]
        a.set_roster({key_of("c"): [somebody_else]})
        await eventually(lambda: a.counters.get("dial_failed"))
        assert not any(view.connected for view in a.peers() if view.node_key == key_of("c"))


async def test_addresses_that_name_nothing_usable_are_counted_and_skipped():
    async with open_node("a") as a, open_node("b") as b:
        bad = ["", "junk", "/ip4/1.2.3.4/udp/1/quic-v1", "\x00", f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id_of(a.node_key)}"]
        a.set_roster({b.node_key: [*bad, *b.addresses], a.node_key: ["junk of our own is not looked at"]})
        assert a.counters["roster_address_unusable"] == len(bad)
        await eventually(lambda: connected(a, b))
        assert [view.node_key for view in a.peers()] == [b.node_key]


async def test_who_leaves_the_roster_stays_as_a_stranger_until_it_goes():
    async with open_node("a") as a:
        async with open_node("b") as b:
            a.set_roster({b.node_key: b.addresses})
            await eventually(lambda: connected(a, b))
            a.set_roster({})
            assert [(view.connected, view.in_roster) for view in a.peers()] == [(True, False)]
        await eventually(lambda: not a.peers())


async def test_strangers_compete_for_places_that_the_roster_does_not_need():
    limits = ConnectionLimits(strangers_max=1)
    async with open_node("a", connections=limits) as a, open_node("b") as b:
        a.set_roster({b.node_key: ()})
        async with open_rogue("stranger 1", a), open_node("stranger 2") as second:
            second.set_roster({a.node_key: a.addresses})
            await eventually(lambda: a.counters.get("connection_over_stranger_limit"))
            b.set_roster({a.node_key: a.addresses})
            await eventually(lambda: connected(a, b))
            assert sum(view.connected for view in a.peers() if not view.in_roster) == 1


async def test_connections_of_one_address_are_limited_and_their_places_given_back():
    limits = ConnectionLimits(per_address_max=2)
    async with open_node("a", connections=limits) as a:
        port = int(a.addresses[0].split("/")[4])
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        await eventually(lambda: a.counters.get("connection_over_address_limit") == 1)
        for stream in silent:
            await stream.aclose()
        async with open_node("b") as b:
            b.set_roster({a.node_key: a.addresses})
            await eventually(lambda: connected(b, a))
        assert not a._connection_admission._handshakes


async def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        with pytest.raises(ListenFailedError, match=address + ": taken") as caught:
            async with open_node("a", listen=(LOOPBACK, address)):
                raise AssertionError
        assert LOOPBACK not in str(caught.value)


async def test_a_port_of_another_transport_is_taken():
    async with open_node("a") as a:
        with pytest.raises(ListenFailedError):
            async with open_node("b", listen=(a.addresses[0].split("/p2p/", maxsplit=1)[0],)):
                raise AssertionError


@pytest.mark.parametrize("key", ["listen", "announce"])
async def test_a_malformed_address_is_named(key):
    with pytest.raises(ListenFailedError, match=r"^127.0.0.1:4001: not a multiaddr"):
        async with open_node("a", **{key: ("127.0.0.1:4001",)}):
            raise AssertionError


async def test_announced_addresses_stand_in_for_those_listened_on():
    async with open_node("a", announce=("/dns4/pool.example/tcp/4001",)) as a:
        assert a.addresses == (f"/dns4/pool.example/tcp/4001/p2p/{peer_id_of(a.node_key)}",)


async def test_errors_of_the_block_pass_through_unchanged_even_under_traffic():
    async with open_node("b") as b:
        with pytest.raises(KeyError, match="mine"):
            async with open_node("a") as a:
                a.set_roster({b.node_key: b.addresses})
                b.set_roster({a.node_key: ()})
                await gossip_until_heard(a, b, b"traffic")
                raise KeyError("mine")
        await eventually(lambda: not connected(b, a))


async def test_cancelling_the_block_closes_the_sockets():
    with trio.move_on_after(0):
        async with open_node("a"):
            raise AssertionError  # cancelled before
    async with open_node("a") as a:
        port = int(a.addresses[0].split("/")[4])
        with trio.CancelScope() as scope:
            async with open_node("b") as b:
                b.set_roster({a.node_key: a.addresses})
                await eventually(lambda: connected(b, a))
                b_port = int(b.addresses[0].split("/")[4])
                scope.cancel()
                await trio.sleep_forever()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", b_port)
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()


async def test_there_are_descriptors_for_the_roster_of_a_large_pool():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 8192:
        pytest.skip("the hard limit of this process is lower")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        async with open_node("a"):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (8192, limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_seed_of_another_length_is_the_callers_error():
    with pytest.raises(ValueError, match="31"):
        async with open_transport(seed_of("a")[:31], TransportConfig(listen=(), topic=TOPIC), serve=echo):
            raise AssertionError
