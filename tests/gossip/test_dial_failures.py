"""Why a peer is not reached: each kind of failure has its own words, on real sockets where there are any."""

from __future__ import annotations

import errno
import socket
from functools import partial

import pytest
import trio
from libp2p.network.exceptions import SwarmException
from libp2p.transport.exceptions import OpenConnectionError
from transport_nodes import LOOPBACK, connected, eventually, key_of, open_node

from gossip.transport import Transport
from gossip.transport.dial_failures import TEXT_MAX, TIMED_OUT, dial_failure


def dial_errors(node: Transport, of: bytes) -> tuple[str, ...]:
    return next(peer.dial_errors for peer in node.peers() if peer.node_key == of)


def wrapped(*causes: Exception) -> Exception:
    error = SwarmException("fail to open connection")
    error.__cause__ = OSError("all attempts to connect failed")
    error.__cause__.__cause__ = ExceptionGroup("all attempts", list(causes))
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "x")), "connection refused"),
        (wrapped(OSError(errno.EHOSTUNREACH, "x"), OSError(errno.ECONNREFUSED, "y")), "no route to host"),
        (wrapped(socket.gaierror(socket.EAI_NONAME, "\x1b[2J")), "the name is not known"),
        (wrapped(UnicodeError("label too long")), "the name is not known"),
        (
            wrapped(OpenConnectionError("points to 127.0.0.1: not dialled" + "x" * 999)),
            "points to 127.0.0.1: not dialled",
        ),
        (wrapped(TimeoutError()), TIMED_OUT),
        (SwarmException("a stranger's words"), "SwarmException"),
    ],
)
def test_the_most_telling_cause_is_said_in_the_systems_words(error: Exception, said: str) -> None:
    assert dial_failure(error).rstrip("x") == said
    assert len(dial_failure(error)) <= TEXT_MAX


def test_errors_that_lead_to_each_other_come_to_an_end() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert dial_failure(first) == "KeyError"


async def test_a_peer_that_is_away_shows_what_is_wrong_with_each_address() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with open_node("a") as a, open_node("b") as b, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        closing = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
        other = b.addresses[0].split("/p2p/")[0]
        away = key_of("c")
        addresses = ("/ip4/127.0.0.1/tcp/1", other, closing)
        a.set_roster({away: addresses})
        await eventually(lambda: len(dial_errors(a, away)) == 3)
        assert dial_errors(a, away) == (
            "/ip4/127.0.0.1/tcp/1: connection refused",
            f"{other}: another node key answers",
            f"{closing}: what answers is no agent, or refused the connection",
        )
        async with open_node("c", listen=(LOOPBACK,)) as c:
            c.set_roster({a.node_key: ()})
            a.set_roster({away: c.addresses})
            await eventually(lambda: connected(a, c))
            assert dial_errors(a, away) == ()
        nursery.cancel_scope.cancel()
