"""Decides which libp2p peer ids are node keys: the identity hash of an Ed25519 key, and nothing else.

Untrusted: any peer id that came from a peer. Hashed ids (RSA and other keys) are refused: an operator's
key must be readable from its id. Source: libp2p specs, peer-ids/peer-ids.md.
"""

from __future__ import annotations

from libp2p.peer.id import ID

from gossip.errors import InvalidMessageError

_ED25519_ID_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash of 36 bytes; in it a protobuf PublicKey of type Ed25519 with 32 bytes of data."""


def node_key_of(peer_id_bytes: bytes) -> bytes:
    """The Ed25519 node key (32 bytes) inside a peer id.

    Raises:
        InvalidMessageError: the id is not the identity hash of an Ed25519 key.
    """
    if len(peer_id_bytes) != 38 or not peer_id_bytes.startswith(_ED25519_ID_PREFIX):
        raise InvalidMessageError(f"peer id: not an inlined Ed25519 key: {peer_id_bytes[:48].hex()}")
    return peer_id_bytes[6:]


def peer_id_of(node_key: bytes) -> ID:
    """The libp2p peer id of an Ed25519 node key (32 bytes)."""
    return ID(_ED25519_ID_PREFIX + node_key)
