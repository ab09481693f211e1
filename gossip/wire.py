"""What travels on the pool's gossip topic: [kind, wire], one small message each.

Gossip may lose anything: every kind also comes by anti-entropy. Bytes come from peers.
"""

from __future__ import annotations

from gossip import codec
from gossip.epoch_events import Message
from gossip.errors import InvalidMessageError
from gossip.messages import Attest, Observation, Proposal, parse_attest, parse_observation, parse_proposal
from gossip.records import PoolId

GOSSIP_BYTES_MAX = 64 * 1024

RECORD = "record"
OBSERVATION = "observation"
PROPOSAL = "proposal"
ATTEST = "attest"
KINDS = (RECORD, OBSERVATION, PROPOSAL, ATTEST)


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
