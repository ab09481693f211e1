"""Address records: what may stand in one, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, key

from gossip import codec
from gossip.addresses import (
    ADDRESS_BYTES_MAX,
    ADDRESSES_MAX,
    TAG,
    host_addresses,
    make_address_record,
    own_addresses,
    parse_address_record,
    parse_tcp_address,
    peer_id_text,
    require_dialable,
    verify_address_record,
)
from gossip.errors import InvalidMessageError
from gossip.libp2p_patches.identity import peer_id_of
from gossip.records import PoolId

MAINNET, TESTNET, DEVNET = -239, -3, -217
PUBLIC = PoolId(MAINNET, POOL.account)
HERE = "/ip4/203.0.113.7/tcp/4001"


def wire_of(pool: PoolId = POOL, tag: object = TAG, issued_s: object = START_S, addresses: object = (HERE,)) -> bytes:
    body = (tag, pool.network, pool.account, key(0).public, issued_s, addresses)
    return codec.seal(codec.encode(body), key(0))


def test_a_record_reads_back() -> None:
    wire = make_address_record(key(0), POOL, issued_s=START_S, addresses=[HERE, "/dns4/a.example.org/tcp/4001"])
    record = verify_address_record(parse_address_record(wire, POOL))
    assert (record.node_key, record.issued_s) == (key(0).public, START_S)
    assert record.addresses == (HERE, "/dns4/a.example.org/tcp/4001")
    assert record.wire == wire
    assert parse_address_record(make_address_record(key(0), POOL, issued_s=0, addresses=[]), POOL).addresses == ()


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"garbage",
        codec.encode(None),
        bytes(ADDRESS_BYTES_MAX + 1),
        wire_of(tag="gpupool/record/1"),
        wire_of(pool=PoolId(POOL.network, bytes(32))),
        wire_of(pool=PUBLIC),
        wire_of(issued_s=-1),
        wire_of(issued_s=1 << 48),
        wire_of(issued_s="now"),
        wire_of(addresses=HERE),
        wire_of(addresses=(HERE,) * (ADDRESSES_MAX + 1)),
        wire_of(addresses=("/dns4/" + "a" * 250 + "/tcp/1",)),
        wire_of(addresses=(b"/ip4/203.0.113.7/tcp/4001",)),
        wire_of(addresses=("/ip4/203.0.113.7/udp/4001/quic",)),
        wire_of(addresses=(HERE + "/p2p/12D3KooWA1B2C3",)),
        wire_of(addresses=("/ip4/203.0.113.7/tcp/0",)),
        wire_of(addresses=("/dns4/127.0.0.1/tcp/4001",)),
        wire_of(addresses=("/ip4/0.0.0.0/tcp/1",)),
        wire_of(addresses=(HERE, "/unix/var/run/docker.sock")),
    ],
)
def test_anything_else_is_refused(wire: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        parse_address_record(wire, POOL)


def test_the_largest_record_fits() -> None:
    labels = ".".join(["a" * 59] * 3)
    longest = [f"/dns4/{labels}.{'b' * 58}{i}/tcp/65535" for i in range(ADDRESSES_MAX)]
    assert len(longest[0]) == 256 - len("x")
    wire = make_address_record(key(0), PUBLIC, issued_s=START_S, addresses=longest)
    assert len(wire) < ADDRESS_BYTES_MAX


def test_a_forged_record_is_refused() -> None:
    signed, _ = codec.open_envelope(wire_of(), bytes_max=ADDRESS_BYTES_MAX)
    for wire in (codec.seal(signed, key(1)), codec.encode((signed, bytes(64)))):
        with pytest.raises(InvalidMessageError, match="signature"):
            verify_address_record(parse_address_record(wire, POOL))


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda signed: codec.encode((signed, bytes(64)))))
def test_no_bytes_crash_it(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        parse_address_record(data, POOL)


@pytest.mark.parametrize(
    ("text", "public", "private"),
    [
        (HERE, True, True),
        ("/ip6/2001:db8::7/tcp/4001", True, True),
        ("/dns/agent.example.org/tcp/4001", True, True),
        ("/ip4/10.1.2.3/tcp/4001", True, True),  # of use within one data centre, if somebody announces it
        ("/ip4/127.0.0.1/tcp/4001", False, True),
        ("/ip4/127.9.9.9/tcp/22", False, True),
        ("/ip6/::1/tcp/4001", False, True),
        ("/ip6/::ffff:127.0.0.1/tcp/4001", False, True),
        ("/ip6/64:ff9b::7f00:1/tcp/4001", False, True),
        ("/ip6/64:ff9b::cb00:7107/tcp/4001", True, True),  # an IPv4 host by NAT64
        ("/ip4/169.254.169.254/tcp/80", False, True),
        ("/ip6/fe80::1/tcp/4001", False, True),
        ("/ip4/224.0.0.1/tcp/4001", False, True),
        ("/ip4/255.255.255.255/tcp/4001", False, True),
        ("/dns4/localhost/tcp/4001", False, True),
        ("/dns4/LOCALHOST./tcp/4001", False, True),
        ("/dns6/db.localhost/tcp/4001", False, True),
        ("/dns4/notlocalhost.example/tcp/4001", True, True),
        ("/ip4/0.0.0.0/tcp/4001", False, False),
        ("/ip6/::/tcp/4001", False, False),
    ],
)
def test_nobody_is_sent_to_the_own_host_on_a_public_network(text: str, public: bool, private: bool) -> None:
    for network, allowed in ((MAINNET, public), (TESTNET, public), (DEVNET, private)):
        if allowed:
            require_dialable(parse_tcp_address(text), network)
        else:
            with pytest.raises(InvalidMessageError):
                require_dialable(parse_tcp_address(text), network)


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_is_written_as_libp2p_writes_it(node_key: bytes) -> None:
    assert peer_id_text(node_key) == str(peer_id_of(node_key))


# Own addresses.

HOSTS = ("8.8.4.4", "192.168.1.5", "2606:4700::1111")
PEER = "/p2p/12D3KooWA1B2C3"


@pytest.mark.parametrize(
    ("listening", "network", "told"),
    [
        (["/ip4/0.0.0.0/tcp/4001" + PEER], MAINNET, ["/ip4/8.8.4.4/tcp/4001"]),
        (["/ip4/0.0.0.0/tcp/4001"], DEVNET, ["/ip4/8.8.4.4/tcp/4001", "/ip4/192.168.1.5/tcp/4001"]),
        (["/ip6/::/tcp/4001"], MAINNET, ["/ip6/2606:4700::1111/tcp/4001"]),
        (["/ip4/127.0.0.1/tcp/4001"], DEVNET, ["/ip4/127.0.0.1/tcp/4001"]),
        (["/ip4/127.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001"], MAINNET, []),
        (["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/1"], MAINNET, ["/ip4/8.8.8.8/tcp/1"]),
        ([], MAINNET, []),
    ],
)
def test_what_a_node_tells_of_what_it_listens_on(listening: list[str], network: int, told: list[str]) -> None:
    assert own_addresses(listening, network=network, hosts=HOSTS) == tuple(told)
    for text in told:
        require_dialable(parse_tcp_address(text), network)


def test_many_listeners_are_cut_to_what_a_record_takes() -> None:
    many = [f"/ip4/8.8.8.8/tcp/{port}" for port in range(1, 20)]
    assert own_addresses(many, network=MAINNET, hosts=()) == tuple(many[:ADDRESSES_MAX])


def test_the_host_says_from_where_it_reaches_others_and_sends_nothing() -> None:
    for address in host_addresses():
        assert address not in {"0.0.0.0", "::"}
