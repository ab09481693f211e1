"""Peers behind a DNS name: it is resolved anew for each dial, so that a dynamic address is found again."""

from __future__ import annotations

import pytest
from libp2p.transport.tcp import tcp
from multiaddr import Multiaddr
from transport_nodes import connected, eventually, open_node

from gossip.admission import Backoff


async def test_a_name_is_resolved_anew_for_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    current: list[str] = ["/ip4/127.0.0.1/tcp/1"]

    async def resolve(_self: object, address: Multiaddr) -> list[Multiaddr]:
        asked.append(str(address))
        return [Multiaddr(text) for text in current]

    monkeypatch.setattr(tcp.DNSResolver, "resolve", resolve)
    async with open_node("a") as a, open_node("b") as b:
        name = "/dns4/agent.example.org/tcp/4001"
        a.set_roster({b.node_key: [name]})
        b.set_roster({a.node_key: ()})
        await eventually(lambda: len(asked) >= 2)
        assert not connected(a, b)
        current[:] = [str(b.addresses[0])]
        await eventually(lambda: connected(a, b))
        assert all(address.startswith(name) for address in asked)


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
