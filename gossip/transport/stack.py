"""Builds the libp2p objects of one node: TCP, Noise and Yamux, GossipSub 1.1, and nothing besides.

Decides every setting of the library that is not its default. What its classes do wrong is mended in
`gossip.libp2p_patches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from gossip.admission import ConnectionAdmission, MessageAdmission
from gossip.libp2p_patches.connections import SafeHost, SafeMuxer, SafeSwarm
from gossip.libp2p_patches.naming import NamingTcp
from gossip.libp2p_patches.pubsub import SafePubsub
from gossip.libp2p_patches.router import SafeGossipSub
from gossip.libp2p_patches.standing import Standing
from gossip.transport.values import TransportConfig

CONNECTIONS_MAX = 4096
"""More than `gossip.admission` ever lets in, and dials for the roster on top: never the limit that bites."""
PENDING_MESSAGES_MAX = 16
"""Messages kept for a peer that has not said yet what it subscribes to."""


def build_host(
    node_key_seed: bytes,
    announce: list[Multiaddr],
    admission: ConnectionAdmission,
    standing: Standing,
    counters: Counter[str],
    *,
    is_public: bool = False,
) -> SafeHost:
    """A host with the key of this seed (32 bytes); it listens on nothing yet. `is_public` is for `NamingTcp`."""
    key_pair = create_new_key_pair(node_key_seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peer_store = PeerStore()
    peer_store.add_key_pair(peer_id, key_pair)
    # Nothing but Noise: the library's default offers plaintext, where a peer id is only claimed.
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    upgrader = TransportUpgrader({TProtocol(NOISE_ID): noise}, {})
    upgrader.muxer_multistream = SafeMuxer(counters, standing)
    swarm = SafeSwarm(
        peer_id,
        peer_store,
        upgrader,
        [NamingTcp(is_public=is_public)],
        retry_config=RetryConfig(max_retries=0),
        # Places are counted by `admission`; the library's own accounting is kept out of the way.
        connection_config=ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=CONNECTIONS_MAX,
            max_connections=CONNECTIONS_MAX,
        ),
        admission=admission,
        counters=counters,
    )
    host = SafeHost(swarm, counters, standing, announce_addrs=announce or None, disable_identify_address_discovery=True)
    host.remove_stream_handler(ID_PUSH)
    return host


def build_pubsub(
    host: SafeHost,
    config: TransportConfig,
    admission: MessageAdmission,
    standing: Standing,
    counters: Counter[str],
    *,
    deliver: Callable[[bytes, bytes, bytes], None],
    heard: Callable[[bytes], None],
) -> SafePubsub:
    """Gossip over this host; its `router` is a service of its own. The callbacks are those of `SafePubsub`."""
    router = SafeGossipSub(
        counters,
        standing,
        # Not 1.2: with it the median delay among 10 nodes grew from 26 ms to 2.1 s.
        protocols=[PROTOCOL_ID_V11],
        # As the specification says: of 8, 6 and 12 a message was copied to more peers for 16 % more CPU.
        degree=6,
        degree_low=4,
        degree_high=12,
        # The default of 120 s forms the mesh in minutes.
        heartbeat_interval=1,
        gossip_window=6,
        gossip_history=12,
        adaptive_gossip_enabled=False,
        # The library limits forwarders, which silences the messages of others; `admission` limits origins.
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
        max_pending_messages_per_peer=PENDING_MESSAGES_MAX,
    )
    return SafePubsub(
        host,
        router,
        topic=config.topic,
        message_bytes_max=config.gossip_bytes_max,
        admission=admission,
        standing=standing,
        counters=counters,
        deliver=deliver,
        heard=heard,
    )
