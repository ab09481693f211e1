"""What travels on the pool's gossip topic: [kind, wire], one small message each.

Gossip may lose anything: every kind also comes by anti-entropy. Bytes come from peers.

An observation that is too large for the topic is announced: its maker says which digest to fetch. A notice has no
signature of its own. It is worth no more than one request to its maker, which the transport's signature names.
"""

from __future__ import annotations

from gossip import codec
from gossip.epoch_events import Message
from gossip.errors import InvalidMessageError
from gossip.messages import Attest, Observation, Proposal, parse_attest, parse_observation, parse_proposal
from gossip.records import PoolId

GOSSIP_BYTES_MAX = 64 * 1024
NOTICE_BYTES_MAX = 64
"""What announces an observation."""

RECORD = "record"
OBSERVATION = "observation"
PROPOSAL = "proposal"
ATTEST = "attest"
ADDRESS = "address"
NOTICE = "notice"
KINDS = (RECORD, OBSERVATION, PROPOSAL, ATTEST, ADDRESS, NOTICE)


def topic(pool: PoolId) -> str:
    """Name of the pool's topic."""
    return f"gpupool/1/{pool.network}/{pool.account.hex()}"


def kind_of(message: Message) -> str:
    match message:
        case Observation():
            return OBSERVATION
        case Proposal():
            return PROPOSAL
        case Attest():
            return ATTEST


def encode_gossip(kind: str, wire: bytes) -> bytes:
    return codec.encode((kind, wire))


def announce(message: Message) -> bytes:
    """What to send on the topic for a message of an epoch's close: the message, or a notice of a large observation."""
    data = encode_gossip(kind_of(message), message.wire)
    if len(data) > GOSSIP_BYTES_MAX and isinstance(message, Observation):
        return encode_gossip(NOTICE, codec.encode((message.epoch, message.digest)))
    return data


def parse_notice(wire: bytes) -> tuple[int, bytes]:
    """Epoch and digest of an observation that somebody announces.

    Raises:
        InvalidMessageError: malformed.
    """
    epoch, digest = codec.as_array(codec.decode(wire, bytes_max=NOTICE_BYTES_MAX), "notice", 2)
    return codec.as_uint(epoch, "epoch", 32), codec.as_bytes(digest, "digest", 32)


def parse_gossip(data: bytes) -> tuple[str, bytes]:
    """Split a gossip message into its kind and the wire form inside.

    Raises:
        InvalidMessageError: malformed, too long, or of an unknown kind.
    """
    kind, wire = codec.as_array(codec.decode(data, bytes_max=GOSSIP_BYTES_MAX), "gossip", 2)
    if kind not in KINDS:
        raise InvalidMessageError("gossip: of an unknown kind")
    return str(kind), codec.as_bytes(wire, "wire", length_max=GOSSIP_BYTES_MAX)


def parse_message(kind: str, wire: bytes, pool: PoolId) -> Message:
    """Read and verify a message of an epoch's close.

    Raises:
        InvalidMessageError: malformed, of another pool, or a signature does not hold.
    """
    match kind:
        case "observation":
            return parse_observation(wire, pool)
        case "proposal":
            return parse_proposal(wire, pool)
        case "attest":
            return parse_attest(wire, pool)
        case _:
            raise InvalidMessageError(f"{kind}: no message of an epoch's close")
