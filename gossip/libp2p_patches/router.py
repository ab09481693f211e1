"""The router of GossipSub: who is in the mesh, what is remembered for whom, and what only grew.

Decides to whom gossip goes: to peers of the roster alone. Strangers may hand us messages, but neither get any nor
carry ours. Untrusted: what peers say of their subscriptions and meshes.

Source: libp2p specs (gossipsub v1.1); py-libp2p 0.8.1, whose classes these are.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import MessageCache

from gossip.libp2p_patches.identity import node_key_of
from gossip.libp2p_patches.standing import Standing

log = logging.getLogger(__name__)

CONTROL_IDS_MAX = 256
RECENT_BYTES_MAX = 16 << 20
"""Messages kept for peers that ask for them later, whatever the heartbeats say."""


class SafeGossipSub(GossipSub):  # type: ignore[misc]
    """A router that outlives its heartbeat's errors and keeps no list that only grows."""

    def __init__(self, counters: Counter[str], standing: Standing, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._counters = counters
        self._standing = standing
        self._grafted: set[ID] = set()
        """Connected strangers that took us into their mesh."""
        self._caught_up: dict[ID, Any] = {}
        """By peer of the roster: the stream over which it got the recent messages."""
        # Seen: 12 heartbeats of whatever arrives, however large.
        self.mcache: Any = _BoundedCache(kwargs["gossip_window"], kwargs["gossip_history"])
        # Scores would shut out honest peers after a reconnect (GRAFT soon after PRUNE); ours count elsewhere.
        self.scorer = None
        # Seen: one entry per message, for ever, when adaptive gossip is off.
        self.recent_message_deliveries: Any = defaultdict(partial(deque, maxlen=1))

    async def heartbeat(self) -> None:
        while True:
            try:
                await super().heartbeat()
            except Exception:
                self._counters["heartbeat_failed"] += 1
                log.exception("a gossip heartbeat failed; the next one follows")
                await trio.sleep(self.heartbeat_interval)

    def _get_in_topic_gossipsub_peers_from_minus(
        self, topic: str, num_to_select: int, minus: Iterable[ID], backoff_check: bool = False
    ) -> list[ID]:
        # Seen: 12 strangers fill the mesh of a small pool, and its members do not hear one another.
        peers = {
            peer
            for peer in self.pubsub.peer_topics[topic]
            if peer in self.peer_protocol
            and self._is_wanted(peer)
            and not (backoff_check and self._check_back_off(peer, topic))
        }
        selected: list[ID] = self.select_from_minus(num_to_select, peers, minus)
        return selected

    def gossip_heartbeat(self) -> Any:
        # Seen: no word of recent messages, for a minute, to a peer outside of the mesh that pruned us, as if
        # the back-off were about more than GRAFT.
        chosen: Any = defaultdict(dict)
        for topic, mesh in self.mesh.items():
            ids = self.mcache.window(topic)[-CONTROL_IDS_MAX:]
            if ids and topic in self.pubsub.peer_topics:
                for peer in self._get_in_topic_gossipsub_peers_from_minus(topic, self.degree, mesh):
                    chosen[peer][topic] = ids
        return chosen

    async def handle_graft(self, graft_msg: Any, sender_peer_id: ID) -> None:
        if self._is_wanted(sender_peer_id):
            await super().handle_graft(graft_msg, sender_peer_id)
        else:
            # Not answered by a PRUNE: its back-off would outlast the moment until the roster shows a newcomer.
            self._grafted.add(sender_peer_id)

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        if self._is_wanted(peer_id):
            await super().on_peer_subscribed(peer_id, topic)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        # Seen: the whole window to whoever subscribes, as often as it does: 150 messages for 38 bytes.
        stream = self.pubsub.peers.get(peer_id)
        if self._is_wanted(peer_id) and self._caught_up.get(peer_id) is not stream:
            self._caught_up[peer_id] = stream
            await super().send_recent_messages(peer_id, topic)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        if self._is_wanted(peer_id):
            await super().flush_pending_messages(peer_id)
        else:
            self._pending_messages.pop(peer_id, None)

    def _is_wanted(self, peer_id: ID) -> bool:
        return self._standing.in_roster(node_key_of(peer_id.to_bytes()))

    def forget(self, peer_id: ID) -> None:
        """Drop what is kept of a peer that is neither connected nor in the roster."""
        # Seen: an entry per peer that ever sent a PRUNE or asked for a message, for ever.
        for waits in self.back_off.values():
            waits.pop(peer_id, None)
        for limits in (self.iwant_request_limits, self.ihave_message_limits, self.graft_flood_tracking):
            limits.pop(peer_id, None)
        self._grafted.discard(peer_id)
        self._caught_up.pop(peer_id, None)

    def follow_roster(self) -> None:
        """Take out of the mesh who left the roster, and in who joined it and has us in its own."""
        joined = {peer for peer in self._grafted if self._is_wanted(peer)}
        self._grafted -= joined
        for peers in self.mesh.values():
            peers.difference_update([peer for peer in peers if not self._is_wanted(peer)])
            peers.update(joined & self.peer_protocol.keys())

    def _check_equivocation(self, msg: Any) -> bool:
        # A second message with one id is a duplicate, dropped long before; the table is not needed.
        return True


class _BoundedCache(MessageCache):  # type: ignore[misc]
    """Recent messages, of at most `RECENT_BYTES_MAX` bytes: the oldest go first."""

    def __init__(self, window_size: int, history_size: int) -> None:
        super().__init__(window_size, history_size)
        self._bytes = 0

    def put(self, msg: Any) -> None:
        if msg.from_id + msg.seqno in self.msgs:
            return
        super().put(msg)
        self._bytes += len(msg.data)
        while self._bytes > RECENT_BYTES_MAX:
            oldest = next(iter(self.msgs))
            self._bytes -= len(self.msgs.pop(oldest).data)

    def shift(self) -> None:
        for entry in self.history[-1]:
            if (message := self.msgs.get(entry.mid)) is not None:
                self._bytes -= len(message.data)
        super().shift()
