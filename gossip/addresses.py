"""Address records: where a node says that it can be dialled, signed by its node key.

Decides whether bytes are such a record of this pool, and which addresses may stand in one. Every byte comes from
a peer. What it says is a hint: whoever is dialled still has to prove its key.

1. `signed` is the canonical array ["gpupool/address/1", network, pool, node_key, issued_s, addresses].
2. At most `ADDRESSES_MAX` addresses: multiaddrs of an IP address or a DNS name and a TCP port, without a peer id.
   None is a node that only dials. A name does not end in a number: it would be an IP address in disguise.
3. On TON's public networks no address points to the host that reads it, nor to nobody in particular: loopback,
   unspecified, link-local (where clouds serve credentials), multicast, reserved, `localhost`. A name that resolves
   to one of them is not dialled there.

Elsewhere: which record is the newest (`gossip.address_book`), dialling (`gossip.transport`).

Source: multiaddr specification (multiformats/multiaddr); RFC 6890 for special addresses; RFC 6052 for NAT64; RFC 5890
for names; URL standard, "ends in a number"; libp2p specs, peer-ids/peer-ids.md.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from contracts.signing import SigningKey
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.records import PoolId

TAG = "gpupool/address/1"
ADDRESSES_MAX = 8
"""Addresses in an address record."""
ADDRESS_TEXT_MAX = 256
"""Characters of one of them."""
ADDRESS_BYTES_MAX = 4096
"""An address record."""
PUBLIC_NETWORKS = frozenset({-239, -3})
"""Global ids of TON's mainnet and testnet."""

_TCP_ADDRESS = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[0-9A-Za-z.:_-]{1,253})/tcp/(?P<port>[0-9]{1,5})"
    r"(?:/p2p/(?P<peer>[0-9A-Za-z]{1,128}))?"
)
_LABEL = re.compile(r"(?!(?![xX][nN])..--)[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_NAT64 = IPv6Network("64:ff9b::/96")
_ED25519_ID_PREFIX = bytes.fromhex("002408011220")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ROUTE_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses of documentation networks (RFC 5737, RFC 3849): nothing is sent to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """A multiaddr that the transport can use."""

    kind: str
    """ip4, ip6, dns, dns4 or dns6."""
    host: IPv4Address | IPv6Address | str
    port: int
    peer: str | None
    """The libp2p peer id that it names, if any."""

    @property
    def text(self) -> str:
        """As multiaddr, without the peer id."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedAddressRecord:
    """A well-formed address record whose signature nobody checked yet."""

    node_key: bytes
    issued_s: int
    addresses: tuple[str, ...]
    signed: bytes
    signature: bytes
    wire: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRecord(UnverifiedAddressRecord):
    """An address record whose signature holds. Made by `verify_address_record` only."""


def parse_address_record(wire: bytes, pool: PoolId) -> UnverifiedAddressRecord:
    """Read an address record's wire form: the envelope [signed, signature].

    Raises:
        InvalidMessageError: malformed, of another pool or network, or an address that may not stand in it.
    """
    signed, signature = codec.open_envelope(wire, bytes_max=ADDRESS_BYTES_MAX)
    fields = codec.as_array(codec.decode(signed, bytes_max=ADDRESS_BYTES_MAX), "address record", 6)
    tag, network, account, node_key, issued_s, addresses = fields
    if tag != TAG or network != pool.network or account != pool.account:
        raise InvalidMessageError("address record: of another protocol version, network or pool")
    texts = [
        codec.as_text(item, "address", length_max=ADDRESS_TEXT_MAX)
        for item in codec.as_array(addresses, "addresses", length_max=ADDRESSES_MAX)
    ]
    for text in texts:
        require_dialable(parse_tcp_address(text), pool.network)
    return UnverifiedAddressRecord(
        node_key=codec.as_bytes(node_key, "node_key", 32),
        issued_s=codec.as_uint(issued_s, "issued_s", 48),
        addresses=tuple(texts),
        signed=signed,
        signature=signature,
        wire=wire,
    )


def verify_address_record(record: UnverifiedAddressRecord) -> AddressRecord:
    """Check the signature.

    Raises:
        InvalidMessageError: it does not hold under the record's node key.
    """
    codec.require_signature(record.node_key, record.signed, record.signature)
    return AddressRecord(**{name: getattr(record, name) for name in UnverifiedAddressRecord.__slots__})


def make_address_record(key: SigningKey, pool: PoolId, *, issued_s: int, addresses: Sequence[str]) -> bytes:
    """Sign where this node can be dialled; returns the wire form.

    Raises:
        InvalidMessageError: an address may not stand in a record of this network, or there are too many.
    """
    body = (TAG, pool.network, pool.account, key.public, issued_s, tuple(addresses))
    wire = codec.seal(codec.encode(body), key)
    return parse_address_record(wire, pool).wire


def parse_tcp_address(text: str) -> TcpAddress:
    """Read a multiaddr that the transport can use: an IP address or DNS name, TCP, perhaps a peer id.

    By itself, not through the transport: that would load libp2p for every command.

    Raises:
        InvalidMessageError: it is none.
    """
    found = _TCP_ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise InvalidMessageError("address: not a multiaddr of an IP address or name, and a TCP port")
    kind, host = found["kind"], found["host"]
    try:
        place = IPv4Address(host) if kind == "ip4" else IPv6Address(host) if kind == "ip6" else host
    except ValueError as error:
        raise InvalidMessageError("address: not an IP address of its kind") from error
    if isinstance(place, str) and not _is_name(place):
        raise InvalidMessageError(
            "address: not a DNS name of letters, digits and hyphens; an IP address stands behind /ip4 or /ip6"
        )
    return TcpAddress(kind=kind, host=place, port=int(found["port"]), peer=found["peer"])


def _is_name(text: str) -> bool:
    """Whether the transport takes this for a DNS name, and the resolver for no IP address."""
    labels = text.removesuffix(".").split(".")
    return all(map(_LABEL.fullmatch, labels)) and _NUMBER.fullmatch(labels[-1]) is None


def require_dialable(address: TcpAddress, network: int) -> None:
    """Check that others may be told to dial this (rules 2 and 3).

    Raises:
        InvalidMessageError: they may not; the message says why.
    """
    if address.peer is not None:
        raise InvalidMessageError("address: with a peer id; it goes without")
    _require_place(address)
    special = _is_localhost(address.host) if isinstance(address.host, str) else is_special(address.host)
    if special and network in PUBLIC_NETWORKS:
        raise InvalidMessageError(
            "address: loopback, link-local, multicast or reserved: on a public network it points to the reader's own "
            "host or to nobody"
        )


def require_leads_to(address: TcpAddress, node_key: bytes, network: int) -> None:
    """Check that an address which this node's owner wrote down can lead to the peer with this key (32 bytes).

    Loopback may: an owner has tunnels. But then as IP address, because names that resolve to it are not dialled
    on a public network.

    Raises:
        InvalidMessageError: it cannot; the message says why.
    """
    _require_place(address)
    if address.peer is not None and address.peer != peer_id_text(node_key):
        raise InvalidMessageError(f"address: with the peer id of another key; this key's is {peer_id_text(node_key)}")
    if isinstance(address.host, str) and _is_localhost(address.host) and network in PUBLIC_NETWORKS:
        raise InvalidMessageError("address: a name of this host, not dialled on a public network; write /ip4/127.0.0.1")


def _require_place(address: TcpAddress) -> None:
    if address.port == 0:
        raise InvalidMessageError("address: port 0 is none that can be dialled")
    if not isinstance(address.host, str) and address.host.is_unspecified:
        raise InvalidMessageError("address: unspecified: points to the reader's own host or to nobody")


def _is_localhost(name: str) -> bool:
    return name.rstrip(".").lower().rpartition(".")[2] == "localhost"


def is_special(host: IPv4Address | IPv6Address) -> bool:
    """Whether this address points to the host that reads it, to its link, or to nobody in particular."""
    inner: IPv4Address | IPv6Address = host
    if isinstance(host, IPv6Address):
        if host.ipv4_mapped is not None:
            inner = host.ipv4_mapped
        elif host in _NAT64:  # an IPv4 host, as one sees it that has IPv6 alone
            inner = IPv4Address(host.packed[12:])
    return any((inner.is_loopback, inner.is_unspecified, inner.is_link_local, inner.is_multicast, inner.is_reserved))


def peer_id_text(node_key: bytes) -> str:
    """The libp2p peer id of a node key (32 bytes), as it stands in multiaddrs: base58. Without loading libp2p."""
    number, digits = int.from_bytes(_ED25519_ID_PREFIX + node_key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" + digits  # the one leading zero byte of the prefix


# Own addresses.


def own_addresses(listening: Iterable[str], *, network: int, hosts: Sequence[str]) -> tuple[str, ...]:
    """Where others can dial a node that announces nothing: what it listens on, as far as that can be told.

    `listening` are multiaddrs; an unspecified one (0.0.0.0, ::) stands for the `hosts` (IP addresses) of its kind.
    On a public network only addresses that are routed there are told: a private one is of no use to strangers,
    and nothing that they should know.
    """
    told: dict[str, None] = {}
    for text in listening:
        address = parse_tcp_address(text)
        is_wildcard = not isinstance(address.host, str) and address.host.is_unspecified
        for host in _of_kind(address.kind, hosts) if is_wildcard else (address.host,):
            if network not in PUBLIC_NETWORKS or isinstance(host, str) or host.is_global:
                told[TcpAddress(kind=address.kind, host=host, port=address.port, peer=None).text] = None
    return tuple(told)[:ADDRESSES_MAX]


def _of_kind(kind: str, hosts: Sequence[str]) -> list[IPv4Address | IPv6Address]:
    wanted = IPv4Address if kind == "ip4" else IPv6Address
    return [place for place in map(ip_address, hosts) if isinstance(place, wanted)]


def host_addresses() -> tuple[str, ...]:
    """The addresses from which this host reaches others, IPv4 and IPv6: those of its default routes, if it has any.

    The kernel is asked for a route; nothing is sent. Bridges and other interfaces of the host are nobody's business.
    """
    found = []
    for family, target in _ROUTE_PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue  # no such route, or no such kind of address here
    return tuple(found)
