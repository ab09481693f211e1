"""The topic's envelope: [kind, wire], small, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.wire import GOSSIP_BYTES_MAX, KINDS, encode_gossip, parse_gossip, topic


@given(st.sampled_from(KINDS), st.binary(max_size=500))
def test_round_trip(kind: str, wire: bytes) -> None:
    assert parse_gossip(encode_gossip(kind, wire)) == (kind, wire)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        ("record",),
        ("record", b"", 1),
        ("close", b""),
        (b"record", b""),
        ("record", "text"),
        (1, b""),
        (("record",), b""),
    ],
)
def test_anything_else_is_refused(value: codec.Value) -> None:
    with pytest.raises(InvalidMessageError):
        parse_gossip(codec.encode(value))


@given(st.binary(max_size=60))
def test_garbage_is_refused(data: bytes) -> None:
    try:
        kind, wire = parse_gossip(data)
    except InvalidMessageError:
        return
    assert encode_gossip(kind, wire) == data


def test_too_long_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="size"):
        parse_gossip(encode_gossip("record", bytes(GOSSIP_BYTES_MAX)))


def test_every_pool_and_network_has_its_own_topic() -> None:
    pools = [POOL, PoolId(-3, POOL.account), PoolId(POOL.network, bytes(32))]
    assert len({topic(pool) for pool in pools}) == 3
