"""The hello: what is read of one, what is refused, and what a newer peer may say besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, key

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.hello import (
    HELLO_BYTES_MAX,
    HELLO_ITEMS_MAX,
    SIGHTINGS_MAX,
    TAG,
    Hello,
    Instance,
    Sighting,
    encode_hello,
    is_hello,
    make_instance,
    open_instance,
    parse_hello,
)
from gossip.records import PoolId

NOW_S = 1_800_000_000
PEER, OWN = key(1), key(2)


def instance(who: int = 1, number: int = 1, others: tuple[bytes, ...] = ()) -> Instance:
    named = bytes([number]) * 16
    return make_instance(key(who), POOL, instance=named, started_s=NOW_S - 100, said_s=NOW_S, others=others)


def hello(**changes: Any) -> Hello:
    said: dict[str, Any] = {
        "protocols": (1,),
        "tallies": (1, 3),
        "agent": "gpupool-agent/0.1.0",
        "policies": (bytes(32),),
        "instance": instance(),
        "sightings": (Sighting(instance=instance(2, 9), ago_s=7, address="203.0.113.9:4001"),),
    }
    return Hello(**(said | changes))


def parse(data: bytes) -> Hello:
    return parse_hello(data, POOL, peer=PEER.public, own=OWN.public)


def test_a_hello_is_read_as_it_was_written() -> None:
    assert parse(encode_hello(hello())) == hello()


def test_the_largest_hello_fits() -> None:
    told = tuple(bytes([number]) * 16 for number in range(SIGHTINGS_MAX))
    sighting = Sighting(instance=instance(2, 9, told), ago_s=(1 << 32) - 1, address="[" + "f" * 56 + "]:65535"[:7])
    largest = hello(
        protocols=tuple(range(65_500, 65_516)),
        tallies=tuple(range(65_500, 65_516)),
        agent="a" * 64,
        instance=instance(others=told),
        policies=(bytes(32),) * 8,
        sightings=(sighting,) * SIGHTINGS_MAX,
    )
    assert len(encode_hello(largest)) < HELLO_BYTES_MAX
    assert parse(encode_hello(largest)) == largest


def items(changed: dict[int, codec.Value] | None = None, more: tuple[codec.Value, ...] = ()) -> bytes:
    """The items of a hello, some of them changed, and more behind them."""
    read = list(codec.as_array(codec.decode(encode_hello(hello()), bytes_max=HELLO_BYTES_MAX), "hello"))
    for at, value in (changed or {}).items():
        read[at] = value
    return codec.encode((*read, *more))


def test_what_a_newer_peer_says_besides_is_left_alone() -> None:
    assert parse(items(more=("something new", (1, (2, b"x")), None))) == hello()


def test_a_hello_is_known_by_its_first_bytes() -> None:
    assert is_hello(encode_hello(hello()))
    assert is_hello(items(more=(None,) * (HELLO_ITEMS_MAX - 7)))
    assert not any(is_hello(data) for data in (b"", b"\x97", codec.encode(("gpupool/sync/1", ("ping", bytes(32))))))


REFUSED: list[tuple[str, Callable[[], bytes]]] = [
    ("another tag", lambda: items({0: "gpupool/hello/2"})),
    ("too few items", lambda: codec.encode((TAG, (1,), (1,), "a", (), instance().wire))),
    ("too many items", lambda: items(more=(None,) * HELLO_ITEMS_MAX)),
    ("no version", lambda: items({1: ()})),
    ("versions not ascending", lambda: items({2: (2, 1)})),
    ("a version twice", lambda: items({2: (1, 1)})),
    ("a version too large", lambda: items({1: (1 << 16,)})),
    ("too many versions", lambda: items({1: tuple(range(17))})),
    ("a version that drives a terminal", lambda: items({3: "\x1b[2Jgpupool"})),
    ("a version in other letters", lambda: items({3: "gpup\u00f6\u00f6l"})),
    ("a version without end", lambda: items({3: "a" * 65})),
    ("too many policies", lambda: items({4: (bytes(32),) * 9})),
    ("a policy too short", lambda: items({4: (bytes(31),)})),
    ("an instance of another key", lambda: items({5: instance(3).wire})),
    ("an instance that is none", lambda: items({5: b"\x92\xc4\x00\xc4\x00"})),
    ("an instance that names too many", lambda: items({5: naming(*range(SIGHTINGS_MAX + 1))})),
    ("an instance that names one twice", lambda: items({5: naming(3, 3)})),
    ("too many sightings", lambda: items({6: ((instance(2).wire, 1, None),) * (SIGHTINGS_MAX + 1)})),
    ("a sighting of another key", lambda: items({6: ((instance(1).wire, 1, None),)})),
    ("a sighting with a forged signature", lambda: items({6: ((forged(instance(2).wire), 1, None),)})),
    ("an address that drives a terminal", lambda: items({6: ((instance(2).wire, 1, "\x1b[2J"),)})),
    ("too long", lambda: items(more=(bytes(HELLO_BYTES_MAX),))),
    ("cut short", lambda: encode_hello(hello())[:-1]),
]


def naming(*others: int) -> bytes:
    """An instance of the peer that names these, signed."""
    return instance(others=tuple(bytes([each]) * 16 for each in others)).wire


def forged(wire: bytes) -> bytes:
    return wire[:-1] + bytes([wire[-1] ^ 1])


@pytest.mark.parametrize("make", [make for _, make in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_no_honest_peer_says_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(InvalidMessageError):
        parse(make())


@pytest.mark.parametrize(
    "pool", [PoolId(POOL.network + 1, POOL.account), PoolId(POOL.network, bytes(32))], ids=["network", "pool"]
)
def test_an_instance_counts_in_its_pool(pool: PoolId) -> None:
    wire = make_instance(PEER, pool, instance=bytes(16), started_s=NOW_S, said_s=NOW_S).wire
    with pytest.raises(InvalidMessageError, match="network or pool"):
        open_instance(wire, POOL, node_key=PEER.public)


def test_no_clock_makes_an_instance_that_others_refuse() -> None:
    """Set back since the start, or years ahead: times are for people."""
    for said_s in (0, NOW_S - 50, 2 * NOW_S):
        made = make_instance(PEER, POOL, instance=bytes(16), started_s=NOW_S, said_s=said_s)
        assert open_instance(made.wire, POOL, node_key=PEER.public) == made


@given(st.data())
def test_whatever_is_changed_a_hello_is_read_or_refused(data: st.DataObject) -> None:
    wire = bytearray(encode_hello(hello()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire) - 1))
        wire[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    try:
        read = parse(bytes(wire[:cut] if data.draw(st.booleans()) else wire))
    except InvalidMessageError:
        return
    assert read.instance.node_key == PEER.public
    assert all(each.instance.node_key == OWN.public for each in read.sightings)
    assert read.agent.isprintable()
