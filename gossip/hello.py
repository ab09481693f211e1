"""The hello: what two connected peers tell each other of themselves before anything else, and who runs with a key.

Decides the bytes of a hello, and what is refused in one. Untrusted: every byte; Noise proved the peer's key.

    hello    = [tag, protocols, tallies, agent, policies, instance, sightings, ...]
    instance = envelope of [tag, network, pool, node_key, id, started_s, said_s, others]
    sighting = [instance, ago_s, address or nil]

1. A hello is a request of its own, beside those of `gossip.sync`, and the answer to one. It outlives all others: its
   tag and its first items never change, so that peers of any two versions understand each other's.
2. What follows the items known here is left alone: a newer peer may say more. An instance is signed, and strict.
3. An instance is one run of an agent: an id drawn when it started. It names the others of its key that it was told
   of. Who is named in one was there before that was signed: no clock is needed to know it, and no replay shows it.
   Times in it are for people; a clock may be wrong, and be set meanwhile.
4. Sightings are told to the key that they are of, and to nobody else: with whom it shares its key.

Pure. Elsewhere: what follows from them (`gossip.acquaintances`), when they are exchanged (`gossip.greeting`).

Source: ADR 0038.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from contracts.signing import SigningKey
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.tally import TALLY_VERSION

TAG = "gpupool/hello/1"
INSTANCE_TAG = "gpupool/instance/1"
PROTOCOLS = (1,)
"""Versions of the protocol that are spoken here: of all tags of records, messages and requests together."""
TALLIES = (TALLY_VERSION,)
"""Versions of the tally that can be computed here."""
HELLO_BYTES_MAX = 4096
"""A hello."""
HELLO_ITEMS_MAX = 15
"""Items of a hello, those of later versions included."""
VERSIONS_MAX = 16
"""Versions of one thing in a hello."""
AGENT_LENGTH_MAX = 64
"""Characters of an agent's version in a hello."""
POLICIES_MAX = 8
"""Policies that a hello says are held."""
SIGHTINGS_MAX = 4
"""Instances of one key that are told, and remembered."""
ADDRESS_LENGTH_MAX = 64
"""Characters of the address from which an instance was heard."""
INSTANCE_BYTES_MAX = 512
"""A signed instance."""
INSTANCE_ID_BYTES = 16

_ITEMS = 7
_PREFIX = codec.encode(TAG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One run of an agent, as its node key signed it; made by `make_instance` and `open_instance` only.

    `id` are 16 bytes drawn at its start, `started_s` and `said_s` Unix seconds by its clock, `others` the ids of other
    instances of its key that it knew of, ascending, at most `SIGHTINGS_MAX`.
    """

    node_key: bytes
    id: bytes
    started_s: int
    said_s: int
    others: tuple[bytes, ...]
    wire: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An instance that somebody heard `ago_s` seconds before it was told, from `address` if that is known."""

    instance: Instance
    ago_s: int
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a peer says of itself: versions ascending, its program's version as text, hashes of policies it holds."""

    protocols: tuple[int, ...]
    tallies: tuple[int, ...]
    agent: str
    policies: tuple[bytes, ...]
    instance: Instance
    sightings: tuple[Sighting, ...] = ()
    """Of the key of whoever is greeted, its own among them."""


def parse_hello(data: bytes, pool: PoolId, *, peer: bytes, own: bytes) -> Hello:
    """Read a hello of `peer` that greets `own` (node keys, 32 bytes).

    Raises:
        InvalidMessageError: malformed, of another pool, of another key, or a signature does not hold.
    """
    items = codec.as_array(codec.decode(data, bytes_max=HELLO_BYTES_MAX), "hello", length_max=HELLO_ITEMS_MAX)
    if len(items) < _ITEMS or items[0] != TAG:
        raise InvalidMessageError(f"hello: expected {TAG} and at least {_ITEMS - 1} items")
    _, protocols, tallies, agent, policies, instance, sightings = items[:_ITEMS]
    told = codec.as_array(sightings, "sightings", length_max=SIGHTINGS_MAX)
    return Hello(
        protocols=_read_versions(protocols, "protocols"),
        tallies=_read_versions(tallies, "tallies"),
        agent=_read_line(agent, "agent", AGENT_LENGTH_MAX),
        policies=tuple(
            codec.as_bytes(each, "policy", 32) for each in codec.as_array(policies, "policies", length_max=POLICIES_MAX)
        ),
        instance=open_instance(instance, pool, node_key=peer),
        sightings=tuple(_read_sighting(each, pool, own) for each in told),
    )


def is_hello(data: bytes) -> bool:
    """Whether a request claims to be a hello; which is all that is known of it then."""
    return data[1 : 1 + len(_PREFIX)] == _PREFIX


def encode_hello(hello: Hello) -> bytes:
    sightings = tuple((each.instance.wire, each.ago_s, each.address) for each in hello.sightings)
    known = (hello.protocols, hello.tallies, hello.agent, hello.policies, hello.instance.wire, sightings)
    return codec.encode((TAG, *known))


def make_instance(
    key: SigningKey, pool: PoolId, *, instance: bytes, started_s: int, said_s: int, others: Collection[bytes] = ()
) -> Instance:
    """Sign that this instance of the key (id of 16 bytes), which started at `started_s`, runs at `said_s`.

    `others` are the ids of at most `SIGHTINGS_MAX` others of the key that it knows of.
    """
    known = tuple(sorted(others))
    signed = codec.encode((INSTANCE_TAG, pool.network, pool.account, key.public, instance, started_s, said_s, known))
    wire = codec.seal(signed, key)
    return Instance(node_key=key.public, id=instance, started_s=started_s, said_s=said_s, others=known, wire=wire)


def open_instance(wire: codec.Value, pool: PoolId, *, node_key: bytes) -> Instance:
    """Read and verify an instance of `node_key`.

    Raises:
        InvalidMessageError: malformed, of another pool or key, or the signature does not hold.
    """
    wire = codec.as_bytes(wire, "instance", length_max=INSTANCE_BYTES_MAX)
    signed, signature = codec.open_envelope(wire, bytes_max=INSTANCE_BYTES_MAX)
    fields = codec.as_array(codec.decode(signed, bytes_max=INSTANCE_BYTES_MAX), "instance", 8)
    tag, network, account, owner, key, started_s, said_s, told = fields
    if tag != INSTANCE_TAG or network != pool.network or account != pool.account:
        raise InvalidMessageError("instance: of another version, network or pool")
    if owner != node_key:
        raise InvalidMessageError("instance: of another node key")
    started_s, said_s = codec.as_uint(started_s, "started_s", 48), codec.as_uint(said_s, "said_s", 48)
    key = codec.as_bytes(key, "id", INSTANCE_ID_BYTES)
    others = tuple(
        codec.as_bytes(each, "others", INSTANCE_ID_BYTES)
        for each in codec.as_array(told, "others", length_max=SIGHTINGS_MAX)
    )
    if any(a >= b for a, b in pairwise(others)):
        raise InvalidMessageError("others: expected ascending ids")
    codec.require_signature(node_key, signed, signature)
    return Instance(node_key=node_key, id=key, started_s=started_s, said_s=said_s, others=others, wire=wire)


def _read_sighting(value: codec.Value, pool: PoolId, own: bytes) -> Sighting:
    wire, ago_s, address = codec.as_array(value, "sighting", 3)
    return Sighting(
        instance=open_instance(wire, pool, node_key=own),
        ago_s=codec.as_uint(ago_s, "ago_s", 32),
        address=None if address is None else _read_line(address, "address", ADDRESS_LENGTH_MAX),
    )


def _read_versions(value: codec.Value, name: str) -> tuple[int, ...]:
    items: Sequence[codec.Value] = codec.as_array(value, name, length_max=VERSIONS_MAX)
    versions = tuple(codec.as_uint(item, name, 16) for item in items)
    if not versions or any(a >= b for a, b in pairwise(versions)):
        raise InvalidMessageError(f"{name}: expected at least one, ascending")
    return versions


def _read_line(value: codec.Value, name: str, length_max: int) -> str:
    """Text that may be shown as it is, on a terminal too."""
    text = codec.as_text(value, name, length_max=length_max)
    if not text.isascii() or not text.isprintable():
        raise InvalidMessageError(f"{name}: expected printable ASCII")
    return text
