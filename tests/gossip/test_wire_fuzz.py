"""Whatever bytes a peer sends are read or refused: the targets of `make fuzz`, without a fuzzer, and on a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from random import Random

import pytest
import trio
from node_pool import NOW_S, MemoryStore
from pool_fixture import POOL, key, policy, verdict
from raw_peer import open_raw_peer
from transport_nodes import LOOPBACK, eventually

from gossip import hello, sync
from gossip.acquaintances import Acquaintances, Run
from gossip.errors import GossipError, InvalidMessageError
from gossip.greeting import Greeter, answer_bytes_max
from gossip.node import open_node
from gossip.sync import PingRequest
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import topic
from tests.gossip.tools.fuzz_targets import TARGETS
from tests.support.quote_mutations import edited

EDITS = 60
"""Of each seed, in one run of the tests."""
REQUESTS = "/gpupool/sync/1"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_to_the_end(name: str) -> None:
    for seed in TARGETS[name].seeds():
        assert TARGETS[name].run(seed) is not NotImplemented


@pytest.mark.parametrize("name", TARGETS)
def test_edited_seeds_are_read_or_refused(name: str) -> None:
    dice, refused, total = Random(name), 0, 0
    for seed in TARGETS[name].seeds():
        for _ in range(EDITS):
            data, total = edited(dice, seed), total + 1
            try:
                TARGETS[name].run(data)
            except GossipError:
                refused += 1
    assert 0 < refused <= total


def greeter() -> Greeter:
    """A node with nothing in its store, and its part that answers."""
    node = open_node(key(0), POOL, policy(), MemoryStore(), verdict, participants=[key(1).public], now_s=lambda: NOW_S)
    run = Run(agent="test", id=bytes(16), started_s=NOW_S)
    return Greeter(node, Acquaintances(key(0), POOL, run, policies=list))


async def test_whatever_is_asked_it_is_answered_within_its_bound_or_refused() -> None:
    served, dice = greeter(), Random(7)
    seeds = [*TARGETS["wire_request"].seeds(), *TARGETS["wire_hello"].seeds()]
    answered = 0
    for _ in range(EDITS):
        for seed in seeds:
            request = edited(dice, seed)
            with contextlib.suppress(InvalidMessageError):
                answer = await served.serve(key(0).public, request)
                assert len(answer) <= answer_bytes_max(request)
                answered += 1
    assert 0 < answered < EDITS * len(seeds)


# On a stream of a real node.


@contextlib.asynccontextmanager
async def victim() -> AsyncIterator[Transport]:
    config = TransportConfig(
        listen=(LOOPBACK,), topic=topic(POOL), request_bytes_max=sync.REQUEST_BYTES_MAX, request_timeout_s=2.0
    )
    served = greeter()
    async with open_transport(
        key(0).seed, config, serve=served.serve, answer_bytes_max=answer_bytes_max, part=served.part
    ) as transport:
        transport.set_roster({key(1).public: []})
        yield transport


def framed(data: bytes, length: int | None = None) -> bytes:
    return (len(data) if length is None else length).to_bytes(4, "big") + data


def bad_frames() -> Sequence[bytes]:
    """Frames that are no requests: garbage, lengths that do not hold, ends before their time."""
    dice = Random(11)
    ping = sync.encode_request(PingRequest(bytes(32)))
    greeting = TARGETS["wire_hello"].seeds()[0]
    return [
        b"",
        b"\x00",
        framed(b""),
        framed(ping)[:-1],
        framed(ping, len(ping) + 1),
        framed(ping, sync.REQUEST_BYTES_MAX + 1),
        framed(ping, (1 << 32) - 1),
        framed(dice.randbytes(500)),
        framed(bytes(hello.HELLO_BYTES_MAX + 1)),
        framed(greeting + bytes(hello.HELLO_BYTES_MAX)),
        *(framed(edited(dice, seed)) for seed in (ping, greeting) for _ in range(6)),
    ]


def port_of(transport: Transport) -> int:
    return int(transport.addresses[0].split("/tcp/")[1].split("/")[0])


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["half-closed", "left open"])
async def test_bad_frames_end_their_stream_and_the_connection_goes_on_serving(ends: str, caplog) -> None:
    async with (
        victim() as transport,
        open_raw_peer(port_of(transport), key(1).seed, key(0).public, source="127.0.0.1") as peer,
    ):
        for data in bad_frames():
            stream = await peer.open(REQUESTS)
            await peer.write(stream, data)
            if ends == "half-closed":
                await peer.close_write(stream)
        ping = sync.encode_request(PingRequest(bytes(32)))
        asked = await peer.open(REQUESTS)
        await peer.write(asked, framed(ping))
        await peer.close_write(asked)
        await eventually(lambda: peer.received[asked] > len(ping))
        await eventually(lambda: transport._exchange.admission.held() == (0, 0))
        assert not peer.closed.is_set()
        assert transport.counters.get("serve_failed", 0) == 0
        assert transport.counters["serve_malformed"] >= 8
    assert "failed" not in caplog.text


@pytest.mark.slow
async def test_a_request_that_drips_is_given_up_and_holds_up_nobody() -> None:
    async with (
        victim() as transport,
        open_raw_peer(port_of(transport), key(1).seed, key(0).public, source="127.0.0.1") as peer,
        trio.open_nursery() as nursery,
    ):
        slow = await peer.open(REQUESTS)
        greeting = framed(TARGETS["wire_hello"].seeds()[0])

        async def drip() -> None:
            for byte in greeting:
                await peer.write(slow, bytes([byte]))
                await trio.sleep(0.1)

        nursery.start_soon(drip)
        await eventually(lambda: transport.counters.get("serve_timed_out", 0) == 1)
        asked = await peer.open(REQUESTS)
        await peer.write(asked, framed(sync.encode_request(PingRequest(bytes(32)))))
        await eventually(lambda: peer.received[asked] > 32)
        assert not peer.closed.is_set()
        nursery.cancel_scope.cancel()
