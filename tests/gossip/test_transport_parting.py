"""Two hosts with one key at the transport: a connection that goes has a last word, and each new one is told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from transport_nodes import LOOPBACK, TOPIC, echo, eventually, key_of, open_node, seed_of

from gossip.transport import Transport, TransportConfig, open_transport
from gossip.transport import links as module

pytestmark = pytest.mark.slow

Ask = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def victim(part: Callable[[bytes, Ask, str | None], Awaitable[None]]) -> AsyncIterator[Transport]:
    config = TransportConfig(listen=(LOOPBACK,), topic=TOPIC)
    async with open_transport(seed_of("victim"), config, serve=echo, part=part) as transport:
        transport.set_roster({key_of("twin"): []})
        yield transport


def first(_peer: bytes, request: bytes) -> Awaitable[bytes]:
    return echo(_peer, b"first: " + request)


def second(_peer: bytes, request: bytes) -> Awaitable[bytes]:
    return echo(_peer, b"second: " + request)


async def test_of_two_connections_the_one_that_goes_is_asked_over_itself() -> None:
    heard: list[tuple[bytes, bytes]] = []
    came_from: list[str | None] = []

    async def part(peer: bytes, ask: Ask, address: str | None) -> None:
        came_from.append(address)
        heard.append((peer, await ask(b"who?")))

    async with victim(part) as transport, open_node("twin", serve=first) as one:
        one.set_roster({transport.node_key: transport.addresses})
        await eventually(lambda: transport.connected() == [key_of("twin")])
        assert transport.connection_numbers() == {key_of("twin"): 1}
        address = transport.remote_address(key_of("twin"))
        assert (address or "").startswith("127.0.0.1:")
        async with open_node("twin", serve=second) as other:
            other.set_roster({transport.node_key: transport.addresses})
            await eventually(lambda: heard)
            assert heard[0] == (key_of("twin"), b"first: who?"), "of two that it dialled the newer one stays"
            assert came_from[0] == address
            assert transport.connection_numbers()[key_of("twin")] >= 2


async def test_a_last_word_that_nobody_answers_delays_the_end_by_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_TIMEOUT_S", 0.1)
    asked: list[bytes] = []

    async def part(peer: bytes, _ask: Ask, _address: str | None) -> None:
        asked.append(peer)
        await trio.sleep_forever()

    async with victim(part) as transport, open_node("twin") as one:
        one.set_roster({transport.node_key: transport.addresses})
        await eventually(lambda: transport.connected() == [key_of("twin")])
        async with open_node("twin") as other:
            other.set_roster({transport.node_key: transport.addresses})
            await eventually(lambda: len(asked) >= 2)
            assert transport.counters["connection_duplicate"] >= 1


async def test_who_is_gone_has_no_address_and_no_number() -> None:
    async def part(_peer: bytes, _ask: Ask, _address: str | None) -> None:
        raise AssertionError("there is nothing to close")

    async with victim(part) as transport:
        assert transport.remote_address(key_of("twin")) is None
        assert transport.connection_numbers() == {}
