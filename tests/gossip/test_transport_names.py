"""Peers behind a DNS name: the host resolves it, anew for each dial, so that a dynamic address is found again."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr
from transport_nodes import connected, eventually, open_node

from gossip.admission import Backoff
from gossip.libp2p_patches.naming import LOOKUPS_MAX, PLACES_MAX, NamingTcp

NAME = "agent.example.org"
ask_host = socket.getaddrinfo


class Resolver:
    """The host's resolver, with one more name, `NAME`; it stands for the addresses in `current`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, current: list[str]) -> None:
        self.asked: list[int] = []
        self.current = current
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, port: Any, family: int = 0, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return ask_host(host, port, family, *args, **kwargs)
        self.asked.append(family)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 0)) for text in self.current]


async def test_a_name_is_resolved_anew_for_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.2"])
    async with open_node("a") as a, open_node("b") as b:
        port = b.addresses[0].split("/")[4]
        a.set_roster({b.node_key: [f"/dns4/{NAME}/tcp/{port}"]})
        b.set_roster({a.node_key: ()})
        await eventually(lambda: len(resolver.asked) >= 2)
        assert not connected(a, b)
        resolver.current = ["127.0.0.1"]
        await eventually(lambda: connected(a, b))
        assert set(resolver.asked) == {socket.AF_INET}


@pytest.mark.parametrize("kind", ["dns", "dns4"])
async def test_names_of_the_hosts_file_are_known(kind: str) -> None:
    async with open_node("a") as a, open_node("b") as b:
        port = b.addresses[0].split("/")[4]
        a.set_roster({b.node_key: [f"/{kind}/localhost/tcp/{port}"]})
        b.set_roster({a.node_key: ()})
        await eventually(lambda: connected(a, b))
        assert await a.request(b.node_key, b"over a name") == b"over a name"


async def test_each_of_a_few_addresses_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = [f"127.0.0.{i}" for i in range(2, 2 + PLACES_MAX)]
    resolver = Resolver(monkeypatch, [*closed[: PLACES_MAX - 1], "127.0.0.1"])
    async with open_node("a") as a:
        address = Multiaddr(f"/dns/{NAME}/tcp/{a.addresses[0].split('/')[4]}")
        connection = await NamingTcp(is_public=False).dial(address)
        assert connection.get_remote_address()[0] == "127.0.0.1"
        await connection.close()
        resolver.current = [*closed, "127.0.0.1"]
        with pytest.raises(OpenConnectionError, match="no connection to"):
            await NamingTcp(is_public=False).dial(address)


@pytest.mark.parametrize(
    "current", [["127.0.0.1"], ["169.254.169.254", "0.0.0.0"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]]
)
async def test_a_name_that_points_to_the_own_host_is_not_dialled_on_a_public_network(
    monkeypatch: pytest.MonkeyPatch, current: list[str]
) -> None:
    Resolver(monkeypatch, current)
    async with open_node("a") as a:
        with pytest.raises(OpenConnectionError, match=r"points to .+: on a public network not dialled"):
            await NamingTcp(is_public=True).dial(Multiaddr(f"/dns/{NAME}/tcp/{a.addresses[0].split('/')[4]}"))


async def test_a_transport_on_a_public_network_does_not_dial_the_own_host_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    async with open_node("a", is_public=True) as a, open_node("b") as b:
        port = b.addresses[0].split("/")[4]
        a.set_roster({b.node_key: [f"/dns4/{NAME}/tcp/{port}"]})
        b.set_roster({a.node_key: ()})
        await eventually(lambda: len(resolver.asked) >= 2)
        assert not connected(a, b)


async def test_a_name_that_nobody_knows_is_a_failed_dial() -> None:
    with pytest.raises(OpenConnectionError, match=r"agent\.invalid: name unknown"):
        await NamingTcp(is_public=False).dial(Multiaddr("/dns4/agent.invalid/tcp/4001"))


async def test_names_that_resolve_slowly_hold_up_no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: released.wait() and [])
    tcp = NamingTcp(is_public=False)
    everywhere = trio.to_thread.current_default_thread_limiter()
    everywhere.total_tokens = 1
    try:
        async with trio.open_nursery() as nursery:
            for i in range(LOOKUPS_MAX + 1):
                nursery.start_soon(tcp.dial, Multiaddr(f"/dns4/slow{i}.example.org/tcp/4001"))
            await trio.testing.wait_all_tasks_blocked()
            assert await trio.to_thread.run_sync(lambda: "another thread") == "another thread"
            nursery.cancel_scope.cancel()
    finally:
        released.set()


async def test_a_node_that_listens_on_nothing_dials_and_is_reached_over_what_it_dialled() -> None:
    async with open_node("a") as a, open_node("b", listen=()) as b:
        assert b.addresses == ()
        a.set_roster({b.node_key: ()})
        b.set_roster({a.node_key: a.addresses})
        await eventually(lambda: connected(a, b) and connected(b, a))
        assert await a.request(b.node_key, b"are you there?") == b"are you there?"


async def test_an_address_that_changes_is_dialled_at_once_and_then_no_more_often_than_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer chooses its addresses: whoever changes them all the time must not get dials without end."""
    waits: list[int] = []
    wait_s = Backoff.next_s

    def counted(self: Backoff, jitter: float) -> float:
        waits.append(self._attempts)
        return wait_s(self, jitter)

    monkeypatch.setattr(Backoff, "next_s", counted)
    async with open_node("a") as a, open_node("b") as b:
        for port in range(1, 6):
            a.set_roster({b.node_key: [f"/ip4/127.0.0.1/tcp/{port}"]})
            await eventually(lambda port=port: len(waits) >= port)
        assert waits[:5] == sorted(waits[:5])
        assert waits[4] >= 4, "the waits grow on, whatever address it names"
