"""Greeting: who is greeted when, what a refusal is worth, and when a node stops for the sake of its key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trio
from node_pool import NOW_S, MemoryStore
from pool_fixture import POOL, key, policy, verdict
from trio.testing import MockClock

from gossip import codec, sync
from gossip.acquaintances import TRIES, Acquaintances, Run, Terms
from gossip.errors import InvalidMessageError, KeyInUseError, PeerMisbehavedError, PeerUnavailableError
from gossip.greeting import (
    AGAIN_S,
    GREETED_AT_ONCE_MAX,
    HELLO_TIMEOUT_S,
    LISTEN_S,
    LOOK_S,
    SOON_S,
    Greeter,
    answer_bytes_max,
)
from gossip.hello import HELLO_BYTES_MAX, is_hello
from gossip.node import open_node
from gossip.sync import PingRequest

MEMBERS = [key(i).public for i in range(4)]
Answer = Callable[[bytes], Awaitable[bytes]]


@dataclass
class Wire:
    """Connections as a test makes them: whose number changes was made anew."""

    answer: dict[bytes, Answer] = field(default_factory=dict)
    numbers: dict[bytes, int] = field(default_factory=dict)
    asked: list[tuple[float, bytes]] = field(default_factory=list)

    async def request(self, peer: bytes, payload: bytes, *, response_bytes_max: int, timeout_s: float) -> bytes:
        assert response_bytes_max == HELLO_BYTES_MAX
        self.asked.append((trio.current_time(), peer))
        with trio.fail_after(timeout_s):
            return await self.answer[peer](payload)

    def connection_numbers(self) -> dict[bytes, int]:
        return self.numbers

    def remote_address(self, peer: bytes) -> str | None:
        return "203.0.113.7:4001" if peer in self.numbers else None

    def connect(self, peer: bytes, answer: Answer | None = None) -> None:
        """A new connection with `peer`, which answers thus from now on."""
        self.numbers[peer] = self.numbers.get(peer, 0) + 1
        if answer is not None:
            self.answer[peer] = answer


def host(i: int, run: int = 1, started_s: int = NOW_S) -> Greeter:
    """One run of participant `i`'s agent; all clocks show `NOW_S` when the mock clock begins."""
    node = open_node(
        key(i),
        POOL,
        policy(),
        MemoryStore(),
        verdict,
        participants=MEMBERS,
        now_s=lambda: NOW_S + int(trio.current_time()),
    )
    this = Run(agent=f"agent/{run}", id=bytes([run]) * 16, started_s=started_s)
    acquaintances = Acquaintances(key(i), POOL, this, policies=list)
    acquaintances.keep_only(MEMBERS)
    greeter = Greeter(node, acquaintances)
    greeter.transport = Wire()
    return greeter


def wire_of(greeter: Greeter) -> Wire:
    assert isinstance(greeter.transport, Wire)
    return greeter.transport


def peer_of(greeter: Greeter, asker: int) -> Answer:
    """How another agent answers requests of participant `asker`."""

    async def answer(request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return await greeter.serve(key(asker).public, request)

    return answer


async def reset(_: bytes) -> bytes:
    raise PeerUnavailableError("the stream was reset")


async def test_each_new_connection_is_greeted_once(autojump_clock: MockClock) -> None:
    one, other = host(0), host(1)
    wire, peer = wire_of(one), key(1).public
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        wire.connect(peer, peer_of(other, 0))
        await trio.sleep(10 * AGAIN_S)
        assert len(wire.asked) == 1
        wire.connect(peer)
        await trio.sleep(10 * AGAIN_S)
        assert len(wire.asked) == 2
        nursery.cancel_scope.cancel()
    assert one._acquaintances.terms(peer) is Terms.FELLOW
    assert other._acquaintances.terms(key(0).public) is Terms.FELLOW, "one exchange is enough for both"


async def misbehave(_: bytes) -> bytes:
    raise PeerMisbehavedError("too long")


async def lie(_: bytes) -> bytes:
    return codec.encode(("gpupool/hello/1", (1,), (1,), "no instance", (), b"", ()))


@pytest.mark.parametrize("answer", [reset, misbehave, lie], ids=["reset", "too long", "malformed"])
async def test_a_hello_in_vain_is_tried_again_soon_and_then_now_and_then(
    autojump_clock: MockClock, answer: Answer
) -> None:
    one = host(0)
    wire, peer = wire_of(one), key(1).public
    wire.connect(peer, answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(TRIES * (SOON_S + LOOK_S))
        assert len(wire.asked) == TRIES
        assert one._acquaintances.terms(peer) is Terms.SILENT
        await trio.sleep(5 * (AGAIN_S + LOOK_S))
        assert len(wire.asked) == TRIES + 5
        wire.answer[peer] = peer_of(host(1), 0)
        await trio.sleep(AGAIN_S + LOOK_S)
        assert one._acquaintances.terms(peer) is Terms.FELLOW
        nursery.cancel_scope.cancel()


async def test_who_went_away_is_not_greeted(autojump_clock: MockClock) -> None:
    one = host(0)
    wire = wire_of(one)
    wire.connect(key(1).public, reset)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(1)
        wire.numbers.clear()
        await trio.sleep(10 * AGAIN_S)
        nursery.cancel_scope.cancel()
    assert len(wire.asked) == 1
    assert one._courses == {}


async def test_requests_that_are_no_hello_are_served_as_ever_and_bad_hellos_are_counted() -> None:
    one = host(0)
    ping = sync.encode_request(PingRequest(bytes(32)))
    assert await one.serve(key(1).public, ping) == bytes.fromhex("c420") + bytes(32)
    assert answer_bytes_max(ping) < HELLO_BYTES_MAX
    bad = await lie(b"")
    assert is_hello(bad)
    assert answer_bytes_max(bad) == HELLO_BYTES_MAX
    with pytest.raises(InvalidMessageError):
        await one.serve(key(1).public, bad)
    assert one._node.drops.total() == 1


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


SHARED, OPERATOR = 3, 0


async def test_a_node_that_hears_of_no_other_signs_at_once(autojump_clock: MockClock) -> None:
    one, operator = host(SHARED), host(OPERATOR)
    wire_of(one).connect(key(OPERATOR).public, peer_of(operator, SHARED))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(1)
        assert not await one.listen()
        assert trio.current_time() < 2
        nursery.cancel_scope.cancel()


async def test_a_node_listens_while_the_former_host_is_silent_and_then_signs(autojump_clock: MockClock) -> None:
    operator, before = host(OPERATOR), host(SHARED, 1, NOW_S - 500)
    await before._greet(key(OPERATOR).public, peer_of(operator, SHARED), None)
    after = host(SHARED, 2)
    wire_of(after).connect(key(OPERATOR).public, peer_of(operator, SHARED))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(after.run)
        await trio.sleep(1)
        began_s = trio.current_time()
        assert await after.listen()
        after.require_alone()
        nursery.cancel_scope.cancel()
    assert LISTEN_S <= trio.current_time() - began_s < LISTEN_S + SOON_S + 1
    assert len(wire_of(after).asked) > LISTEN_S / SOON_S / 2, "operators are asked again and again meanwhile"


async def test_a_node_that_hears_the_other_host_stops_before_it_signs(autojump_clock: MockClock) -> None:
    operator, first, second = host(OPERATOR), host(SHARED, 1, NOW_S - 500), host(SHARED, 2)
    await first._greet(key(OPERATOR).public, peer_of(operator, SHARED), None)
    wire_of(second).connect(key(OPERATOR).public, peer_of(operator, SHARED))
    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run)
            await trio.sleep(5)
            for _ in range(2):  # told of the other one, it says so
                await first._greet(key(OPERATOR).public, peer_of(operator, SHARED), None)
            await second.listen()
            nursery.cancel_scope.cancel()
    (error,) = leaves(raised.value)
    assert isinstance(error, KeyInUseError)
    assert "this node key runs on another host" in str(error)
    assert "Stop one of them" in str(error)


async def test_the_host_that_signs_already_goes_on_and_says_so_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    operator, first, second = host(OPERATOR), host(SHARED, 1, NOW_S - 500), host(SHARED, 2)
    wire_of(first).connect(key(OPERATOR).public, peer_of(operator, SHARED))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await trio.sleep(1)
        first._node.is_own_log_known = True
        for _ in range(4):
            await second._greet(key(OPERATOR).public, peer_of(operator, SHARED), None)
            wire_of(first).connect(key(OPERATOR).public)
            await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert caplog.text.count("Stop that one") == 1


async def test_of_two_that_sign_the_later_one_stops(autojump_clock: MockClock) -> None:
    """They were cut off from each other when the second one began."""
    operator, first, second = host(OPERATOR), host(SHARED, 1, NOW_S - 500), host(SHARED, 2)
    second._node.is_own_log_known = True
    wire_of(second).connect(key(OPERATOR).public, peer_of(operator, SHARED))
    with pytest.raises(BaseExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run)
            await trio.sleep(5)
            for _ in range(2):
                await first._greet(key(OPERATOR).public, peer_of(operator, SHARED), None)
            wire_of(second).connect(key(OPERATOR).public)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    assert [type(error) for error in leaves(raised.value)] == [KeyInUseError]


async def test_slow_members_do_not_delay_that_an_operator_is_met(autojump_clock: MockClock) -> None:
    one, operator = host(0), host(OPERATOR + 1)
    one.operators = frozenset([key(OPERATOR + 1).public])
    wire = wire_of(one)

    async def drip(_: bytes) -> bytes:
        await trio.sleep(HELLO_TIMEOUT_S - 0.1)
        raise PeerUnavailableError("too slow")

    for i in range(2 * GREETED_AT_ONCE_MAX):
        wire.connect(bytes([i]) * 32, drip)
    wire.connect(key(OPERATOR + 1).public, peer_of(operator, 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(LOOK_S)
        assert one._acquaintances.terms(key(OPERATOR + 1).public) is Terms.FELLOW
        assert len(wire.asked) == GREETED_AT_ONCE_MAX + 1, "all others wait their turn"
        nursery.cancel_scope.cancel()


async def test_a_connection_that_goes_is_greeted_and_the_one_that_stays_again(autojump_clock: MockClock) -> None:
    """What an operator does with two hosts of which one connection survives."""
    operator, first, second = host(OPERATOR), host(SHARED, 1, NOW_S - 500), host(SHARED, 2)
    wire = wire_of(operator)
    wire.connect(key(SHARED).public, peer_of(first, OPERATOR))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operator.run)
        await trio.sleep(10)
        await operator.part(key(SHARED).public, peer_of(second, OPERATOR), None)
        await trio.sleep(10)
        assert len(wire.asked) == 3, "the first one is asked whether it still runs, and then told of the other"
        await operator.part(key(SHARED).public, peer_of(second, OPERATOR), None)
        nursery.cancel_scope.cancel()
    assert second._acquaintances.rival(NOW_S + 20) is not None


async def test_a_peer_that_is_another_one_each_time_is_greeted_now_and_then(autojump_clock: MockClock) -> None:
    """Whoever holds a key may sign as many instances as it likes."""
    one, peer = host(0), key(1).public
    wire, said = wire_of(one), 0

    async def another(request: bytes) -> bytes:
        nonlocal said
        said += 1
        return await host(1, 1 + said % 2).serve(key(0).public, request)

    wire.connect(peer, another)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        for run in range(200):
            await peer_of(one, 1)(host(1, 1 + run % 2)._acquaintances.say(key(0).public, NOW_S))
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert len(wire.asked) <= 20 / SOON_S + 1
