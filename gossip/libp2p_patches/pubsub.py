"""Gossip: GossipSub 1.1 mended against messages that would end the process or grow its memory.

Decides which gossip messages are delivered and forwarded. Untrusted: every byte of a gossip stream.
Rules, cheapest first:
1. Lengths and the topic; then whether the message was seen; then the forwarder's allowance.
2. The origin's signature; only then its own allowance, which nobody else can spend.
3. Whatever fails ends the message or the stream that brought it, never more; the forwarder is charged.
4. What waits to be sent is bounded in bytes, per peer and overall; what does not fit is lost, as gossip may be.

Frames and queues, the bytes of it, are in `gossip.libp2p_patches.rpc`, the mesh in `gossip.libp2p_patches.router`.

What a message means is decided elsewhere, after its receipt: a slow validator delivers twice.
Source: libp2p specs (pubsub, gossipsub v1.1); py-libp2p 0.8.1, whose classes these are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator
from libp2p.utils.varint import encode_uvarint

from gossip.admission import MessageAdmission, Refusal, SeenMessages
from gossip.buckets import SharedBytes
from gossip.conduct import Fault
from gossip.errors import InvalidMessageError
from gossip.libp2p_patches.connections import SafeHost, reset_quietly
from gossip.libp2p_patches.identity import node_key_of
from gossip.libp2p_patches.router import CONTROL_IDS_MAX, SafeGossipSub
from gossip.libp2p_patches.rpc import BoundedRpcQueue, FrameReader, require_shape
from gossip.libp2p_patches.standing import Standing

log = logging.getLogger(__name__)

RPC_MESSAGES_MAX = 256
CONTROL_ENTRIES_MAX = 8
STREAMS_PER_PEER_MAX = 4
"""One is in use; more appear for a moment while duplicate connections are settled."""
ATTACH_RETRY_MIN_S = 0.1
ATTACH_RETRY_MAX_S = 10.0
REATTACH_S = 0.1
REATTACH_TO_STRANGER_S = 1.0
"""How long after the loss of a gossip stream its peer is offered another one."""
SEEN_TTL_S = 120.0
SEEN_MAX = 100_000


class SafePubsub(Pubsub):  # type: ignore[misc]
    """Gossip streams whose bytes cannot raise further than their own stream.

    `deliver(origin key, forwarder key, data)` gets each new message whose signature was checked.
    `heard(peer key)` is told of every well-formed RPC.
    """

    def __init__(
        self,
        host: SafeHost,
        router: SafeGossipSub,
        *,
        topic: str,
        message_bytes_max: int,
        admission: MessageAdmission,
        standing: Standing,
        counters: Counter[str],
        deliver: Callable[[bytes, bytes, bytes], None],
        heard: Callable[[bytes], None],
    ) -> None:
        super().__init__(host, router, allowed_topics={topic}, max_subscriptions_per_peer=1)
        self.seen_messages: Any
        self.seen_messages.stop()  # its sweeping thread would outlive the node
        self.seen_messages = _SeenCache()
        # Seen: counting from int(time()) after a burst and a quick restart repeats ids, and nothing arrives.
        self.counter = time.time_ns()
        self._topic = topic
        self._message_bytes_max = message_bytes_max
        self._admission = admission
        self._standing = standing
        self._counters = counters
        self._waiting, self._frames = SharedBytes(), SharedBytes()
        self._deliver = deliver
        self._heard = heard
        self._inbound_streams: Counter[ID] = Counter()
        self._attaching: set[ID] = set()

    async def run(self) -> None:
        # Seen: each gossip stream that a peer let go cost two tasks for as long as it stayed connected, being one
        # another's children, and every new task was looked for among all of them; after 490 the peer was deaf.
        self.manager._find_parent_task = _no_parent
        await super().run()

    async def stream_handler(self, stream: Any) -> None:
        # Seen: 50 bytes of garbage on this stream, or a message with a hashed id and a junk key, and
        # the process dies (DecodeError).
        peer_id = stream.muxed_conn.peer_id
        if self._inbound_streams[peer_id] >= STREAMS_PER_PEER_MAX:
            raise InvalidMessageError("too many gossip streams")
        self._inbound_streams[peer_id] += 1
        try:
            await self.continuously_read_stream(stream)
        except StreamEOF:
            log.debug("%s closed its gossip stream", peer_id)
        finally:
            self._inbound_streams[peer_id] -= 1
            if not self._inbound_streams[peer_id]:
                del self._inbound_streams[peer_id]
                self._forget_all_subscriptions(peer_id)
            await reset_quietly(stream)  # its other end is done with it, and so are we

    async def continuously_read_stream(self, stream: Any) -> None:
        peer_id = stream.muxed_conn.peer_id
        forwarder = node_key_of(peer_id.to_bytes())
        frames = FrameReader(stream, lambda: self._standing.in_roster(forwarder), self._frames)
        try:
            while True:
                rpc = _parse(await frames.next(), self._message_bytes_max)
                self._heard(forwarder)
                await self._take(rpc, peer_id)
        finally:
            frames.discard()

    async def _take(self, rpc: Any, peer_id: ID) -> None:
        for subscription in rpc.subscriptions[:CONTROL_ENTRIES_MAX]:
            self.handle_subscription(peer_id, subscription)
        for message in rpc.publish[:RPC_MESSAGES_MAX]:
            await self.push_msg(peer_id, message)
        if rpc.HasField("control"):
            await self.router.handle_rpc(self._own_topic_only(rpc.control), peer_id)

    def _own_topic_only(self, control: Any) -> Any:
        # Seen: per-topic state for whatever topic a peer names, and dials to peers that a PRUNE proposes.
        kept: Any = rpc_pb2.ControlMessage()
        for name in ("ihave", "graft", "prune"):
            entries = [e for e in getattr(control, name)[:CONTROL_ENTRIES_MAX] if e.topicID == self._topic]
            getattr(kept, name).extend(entries)
        kept.iwant.extend(control.iwant[:CONTROL_ENTRIES_MAX])
        for prune in kept.prune:
            prune.ClearField("peers")
        for entry in (*kept.ihave, *kept.iwant):
            # Seen: one message asked for 2,000 times in one RPC, and put 2,000 times into the answer.
            ids = list(dict.fromkeys(entry.messageIDs[:CONTROL_IDS_MAX]))
            del entry.messageIDs[:]
            entry.messageIDs.extend(ids)
        return rpc_pb2.RPC(control=kept)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        message_id = msg.from_id + msg.seqno
        if msg_forwarder != self.my_id:
            if msg.from_id == self.my_id.to_bytes() or self.seen_messages.has(message_id):
                self._counters["gossip_duplicate"] += 1
                return
            try:
                self._check(msg_forwarder, msg, message_id)
            except InvalidMessageError as error:
                self._counters["gossip_invalid"] += 1
                self._standing.blame(node_key_of(msg_forwarder.to_bytes()), Fault.INVALID_MESSAGE)
                log.debug("%s forwarded an invalid message: %s", msg_forwarder, error)
                return
            except _Refused as refused:
                self._counters[refused.refusal.value] += 1
                return
            self._deliver(node_key_of(msg.from_id), node_key_of(msg_forwarder.to_bytes()), msg.data)
        else:
            self.seen_messages.add(message_id)
        await self.router.publish(msg_forwarder, msg)

    def _check(self, forwarder: ID, msg: Any, message_id: bytes) -> None:
        now = trio.current_time()
        if list(msg.topicIDs) != [self._topic] or len(msg.data) > self._message_bytes_max:
            raise InvalidMessageError("topic or size")
        if len(msg.seqno) != 8 or len(msg.signature) != 64:
            raise InvalidMessageError("seqno or signature length")
        origin, forwarder_key = node_key_of(msg.from_id), node_key_of(forwarder.to_bytes())
        if self._standing.is_muted(forwarder_key):
            raise _Refused(Refusal.MUTED)
        if refusal := self._admission.admit_forwarder(forwarder_key, now):
            if not self._standing.in_roster(forwarder_key):  # what the roster passes on is no fault of its
                self._standing.blame(forwarder_key, Fault.OVER_RATE)
            raise _Refused(refusal)
        try:
            authentic = signature_validator(msg)
        except Exception as error:  # it raises whatever the protobuf and key decoders raise
            raise InvalidMessageError(f"signature: {error}") from error
        if not authentic:
            raise InvalidMessageError("signature")
        # From here on it counts as seen: its other copies would be charged to the origin again.
        self.seen_messages.add(message_id)
        if refusal := self._admission.admit_origin(origin, len(msg.data), now):
            raise _Refused(refusal)

    async def _handle_new_peer_with_retry(self, peer_id: ID, timeout: float | None = None) -> None:
        # Seen: while two connections with one peer become one, the stream is opened on the one that goes.
        # The library takes that for final, or keeps the dead stream: connected, and deaf for ever.
        if peer_id in self._attaching:
            return
        self._attaching.add(peer_id)
        try:
            delay_s = ATTACH_RETRY_MIN_S
            while peer_id not in self.peers and self._peer_is_connected(peer_id):
                try:
                    await self._handle_new_peer(peer_id)
                except Exception as error:  # noqa: BLE001 whatever failed, the peer is still connected
                    log.debug("no gossip stream to %s yet: %r", peer_id, error)
                stream = self.peers.get(peer_id)
                if stream is not None and not stream.muxed_conn.event_shutting_down.is_set():
                    return
                if stream is not None:
                    self._handle_dead_peer(peer_id)
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, ATTACH_RETRY_MAX_S)
        finally:
            self._attaching.discard(peer_id)

    async def _peer_stream_retry_task(self, peer_id: ID) -> None:
        # Seen: a stranger that resets each stream is offered 20 a second, for a fifteenth of a core.
        in_roster = self._standing.in_roster(node_key_of(peer_id.to_bytes()))
        await trio.sleep(REATTACH_S if in_roster else REATTACH_TO_STRANGER_S)
        await super()._peer_stream_retry_task(peer_id)

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: BoundedRpcQueue) -> None:
        queue.share(self._waiting, self._standing.in_roster(node_key_of(peer_id.to_bytes())))
        try:
            while (rpc := await queue.pop()) is not None:
                rpc.ClearField("senderRecord")
                body = rpc.SerializeToString()
                await stream.write(encode_uvarint(len(body)) + body)
        except Exception as error:  # noqa: BLE001 any failure to write ends this stream alone
            self._counters["gossip_stream_lost"] += 1
            log.debug("the gossip stream to %s is lost: %r", peer_id, error)
            # Not if a newer stream has taken over: the library would drop that one.
            if self.peers.get(peer_id) is stream:
                self._handle_dead_peer(peer_id)
        finally:
            queue.discard()
            # Seen: a peer that reads nothing made us open one stream after the other, and close none.
            await reset_quietly(stream)

    async def write_msg(self, stream: Any, rpc_msg: Any) -> bool:
        # Past the queue, two tasks would interleave their frames on one stream.
        queue = self.peer_queues.get(stream.muxed_conn.peer_id)
        return queue is not None and queue.push(rpc_msg)

    def get_hello_packet(self) -> Any:
        return rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=self._topic)])

    def rehome(self, peer_id: ID, lost: Any) -> None:
        """Move gossip to a peer's remaining connection if it ran over `lost` (a muxed connection)."""
        # Seen: zero gossip while the statistics look healthy, after a peer reconnected with the same key.
        stream = self.peers.get(peer_id)
        if stream is not None and stream.muxed_conn is lost:
            self._handle_dead_peer(peer_id)

    def _forget_all_subscriptions(self, peer_id: ID) -> None:
        # What a peer subscribes to it said on its own stream: ours may die without that, and a
        # subscription once forgotten is not repeated.
        if peer_id not in self._inbound_streams:
            super()._forget_all_subscriptions(peer_id)


class _Refused(Exception):  # noqa: N818 control flow inside this module, not an error
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class _SeenCache:
    """`SeenMessages` under the names that libp2p's router calls."""

    def __init__(self) -> None:
        self._seen = SeenMessages(SEEN_TTL_S, SEEN_MAX)

    def has(self, message_id: bytes) -> bool:
        return message_id in self._seen

    def add(self, message_id: bytes) -> None:
        self._seen.add(message_id, trio.current_time())


def _no_parent(_task: trio.lowlevel.Task) -> None:
    return None


def _parse(frame: bytes, message_bytes_max: int) -> Any:
    require_shape(frame, message_bytes_max)
    rpc: Any = rpc_pb2.RPC()
    try:
        rpc.ParseFromString(frame)
    except DecodeError as error:
        raise InvalidMessageError(f"an RPC: {error}") from error
    return rpc
