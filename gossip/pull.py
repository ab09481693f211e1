"""Asking peers for what this node lacks: the loops that make gossip a mere shortcut.

Decides whom to ask and when; what an answer is worth is decided by the parsers and by `gossip.node`. Peers
are asked at random, because one that is silent or lies must not be asked for ever.

1. Anti-entropy: every `sync_interval_s` (jittered) with one random connected peer of the roster.
2. While an epoch closes: every `close_interval_s` one random peer for what it holds of the close.
3. What a decision waits for is asked of several peers at once until it comes (`gossip.fetching`).
4. Own log: before the first own record, operators of more than two thirds of the weight have said how
   far they know it, and all of that is here; a database that was restored must not fork the log.

Source: PROTOCOL, "Spreading", "Records" (own log).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio

from contracts.model import OperatorSet
from gossip import sync
from gossip.epoch_events import CheckpointArrived, Heard, ObjectId
from gossip.errors import InvalidMessageError, OwnForkError, PeerMisbehavedError, PeerUnavailableError
from gossip.fetching import NOTICE_TRIES, Fetch, FetchPlan, Item
from gossip.log_chain import GENESIS, Head, Placement, RecordRange
from gossip.messages import parse_observation
from gossip.node import OWN_FORK, Node
from gossip.records import ATTACHMENT_BYTES_MAX, parse_record
from gossip.settlement import verify_checkpoint
from gossip.sync import CloseRequest, ObjectRequest, RecordsRequest, Request, WatermarksRequest
from gossip.wire import ATTEST, PROPOSAL

BATCHES_PER_SYNC_MAX = 64
RETRY_S = 1.0


class Requester(Protocol):
    """The part of the transport through which peers are asked."""

    def request(self, peer: bytes, payload: bytes) -> Awaitable[bytes]: ...


def has_news(placed: Mapping[Placement, int]) -> bool:
    """Whether any of the records was new."""
    return bool(placed.get(Placement.EXTENDED) or placed.get(Placement.FORKED))


class Puller:
    """Asks peers on behalf of one node. `peers` gives the node keys that are connected now."""

    def __init__(
        self,
        node: Node,
        transport: Requester,
        peers: Callable[[], Sequence[bytes]],
        *,
        sync_interval_s: float,
        close_interval_s: float,
    ) -> None:
        self._node = node
        self._transport = transport
        self._peers = peers
        self._sync_interval_s = sync_interval_s
        self._close_interval_s = close_interval_s
        self._random = random.Random()
        self._plan = FetchPlan(self._random)
        self._turn = trio.Event()

    async def run(self) -> None:
        """Pull for ever. Cancellation leaves nothing behind."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, self._sync_interval_s, self.sync)
            nursery.start_soon(self._every, self._close_interval_s, self.pull_close)
            nursery.start_soon(self._fetch_wanted)

    async def recover_own_log(self, operators: OperatorSet, *, remembers: bool = True) -> None:
        """Learn how far operators of more than two thirds of the weight know the own log (rule 4).

        Without `remembers` the own database was made or restored: it speaks for nobody, and more than two thirds
        of the weight of the *other* operators have to answer.

        Raises:
            OwnForkError: a peer holds a record that this key signed and that contradicts the own log.
        """
        node = self._node
        heard = {node.key.public}
        asked = [o for o in operators.operators if remembers or o.node_key != node.key.public]
        while 3 * sum(o.weight for o in asked if o.node_key not in heard) >= sum(o.weight for o in asked) > 0:
            for peer in self._peers():
                if peer not in heard and await self._guarded(peer, self._learn_own_log):
                    heard.add(peer)
            self._require_own_log_alive()
            await trio.sleep(RETRY_S)
        self._require_own_log_alive()
        node.is_own_log_known = True

    def _require_own_log_alive(self) -> None:
        own = self._node.key.public
        if self._node.logs[own].fork is not None or self._node.machine.base.reading(own).dead:
            raise OwnForkError(OWN_FORK)

    async def _learn_own_log(self, peer: bytes) -> None:
        """Take over all that `peer` knows of the own log; one that names a head and does not show it is at fault."""
        log = self._node.logs[self._node.key.public]
        named = (await self.sync(peer)).get(log.node_key, GENESIS)
        if named.seq > log.base.seq and not log.holds(named):
            await self._fetch_range(RecordRange(log.node_key, log.base.seq + 1, named.seq), peer)
        if named.seq > log.base.seq and not log.holds(named):
            raise InvalidMessageError("watermarks: a head of the own log that the peer does not show")

    async def sync(self, peer: bytes) -> Mapping[bytes, Head]:
        """Compare heads with `peer` and fetch what it has more of; returns its heads where they differ."""
        node = self._node
        mine = sync.digest_heads(node.heads())
        theirs = sync.parse_heads(await self._ask(peer, WatermarksRequest(mine)))
        for _ in range(BATCHES_PER_SYNC_MAX):
            ranges = sync.wanted_after(node.logs, theirs, node.now_s())
            if not ranges or not await self._fetch_records(peer, ranges):
                break
        return theirs

    async def pull_close(self, peer: bytes) -> None:
        """Take over what `peer` holds of the epoch that is closing, if one is."""
        node = self._node
        progress = node.machine.progress()
        if progress is None:
            return
        have = sync.ids_of(node.machine.messages(progress.epoch))
        state = sync.parse_close(await self._ask(peer, CloseRequest(progress.epoch, have)))
        node.hear_of(progress.epoch, state.observations, peer)
        for kind, wires in ((PROPOSAL, state.proposals), (ATTEST, state.attests)):
            for wire in wires:
                if not node.machine.holds(wire):
                    await node.take_message(kind, wire)

    async def _fetch_wanted(self) -> None:
        """Rule 3: keep requests for what is missing under way, as `gossip.fetching` says, until nothing is."""
        node, plan = self._node, self._plan
        async with trio.open_nursery() as nursery:
            while True:
                await node.wanted.wait()
                self._turn = trio.Event()
                wanted, heard_of = node.machine.wanted, self._heard_of()
                for fetch in plan.next(wanted, heard_of, self._peers(), trio.current_time()):
                    nursery.start_soon(self._fetch, fetch)
                if not wanted and not heard_of:
                    node.wanted = trio.Event()
                with trio.move_on_after(RETRY_S / 4):
                    await self._turn.wait()

    def _heard_of(self) -> dict[Item, bytes | None]:
        """What to fetch besides what decisions wait for, with the peer that should have it."""
        node, hints = self._node, self._node.hints
        heard_of: dict[Item, bytes | None] = dict.fromkeys(node.attachments_wanted)
        for digest, source in list(hints.notices.items()):
            wanted = ObjectId(kind="observation", id=digest)
            if node.machine.observation(digest) is not None or self._plan.tries(wanted) >= NOTICE_TRIES:
                del hints.notices[digest]
            else:
                heard_of[wanted] = source
        return heard_of | dict.fromkeys(hints.take_gaps(node.now_s()))

    async def _fetch(self, fetch: Fetch) -> None:
        """Make one request of the plan, and tell it how that went."""
        brought = False

        async def ask(peer: bytes) -> None:
            nonlocal brought
            brought = await self._perform(fetch, peer)

        is_sound = await self._guarded(fetch.peer, ask)
        self._plan.done(fetch, trio.current_time(), has_brought=brought, has_failed=not is_sound)
        if brought:
            self._turn.set()

    async def _perform(self, fetch: Fetch, peer: bytes) -> bool:
        """Whether it brought anything new."""
        first = fetch.items[0]
        if isinstance(first, ObjectId):
            return await self._fetch_object(peer, first)
        ranges = tuple(item for item in fetch.items if isinstance(item, RecordRange))
        if fetch.is_whole:
            return await self._fetch_range(ranges[0], peer)
        return await self._fetch_records(peer, tuple(self._above_head(wanted) for wanted in ranges))

    def _above_head(self, wanted: RecordRange) -> RecordRange:
        """The part of a range that no record is here of, if any is."""
        head = self._node.logs[wanted.node_key].head
        return RecordRange(wanted.node_key, max(wanted.first, min(head.seq + 1, wanted.last)), wanted.last)

    async def _fetch_range(self, wanted: RecordRange, peer: bytes) -> bool:
        """Fetch a range to its end, what is here already included: a branch may begin anywhere in it."""
        first, brought = wanted.first, False
        for _ in range(BATCHES_PER_SYNC_MAX):
            rest = RecordRange(wanted.node_key, first, wanted.last)
            wires = sync.parse_records(await self._ask(peer, RecordsRequest((rest,))))
            brought |= has_news(await self._node.take_records(wires))
            last = parse_record(wires[-1], self._node.pool).seq if wires else wanted.last
            if last >= wanted.last:
                break
            first = max(last, first + 1)  # again from `last` on: its other branches may not have fitted
        return brought

    async def _fetch_records(self, peer: bytes, ranges: tuple[RecordRange, ...]) -> bool:
        """Fetch one batch; whether it brought anything new."""
        wires = sync.parse_records(await self._ask(peer, RecordsRequest(ranges)))
        return has_news(await self._node.take_records(wires))

    async def _fetch_object(self, peer: bytes, wanted: ObjectId) -> bool:
        """Fetch an object and hand it over; whether the peer has it."""
        node = self._node
        data = sync.parse_object(await self._ask(peer, ObjectRequest(wanted)))
        if data is None:
            return False
        match wanted.kind:
            case "observation":
                observation = parse_observation(data, node.pool)
                if observation.digest != wanted.id:
                    raise InvalidMessageError("object: not the observation that was asked for")
                await node.handle(Heard(observation))
            case "checkpoint":
                settlement = await trio.to_thread.run_sync(verify_checkpoint, data, wanted.id)
                await node.handle(CheckpointArrived(settlement))
            case _:
                if len(data) > ATTACHMENT_BYTES_MAX or hashlib.sha256(data).digest() != wanted.id:
                    raise InvalidMessageError("object: not the attachment that was asked for")
                await node.take_attachment(wanted.id, data)
                await self.sync(peer)  # the records that waited for it
        return True

    async def _every(self, interval_s: float, pull: Callable[[bytes], Awaitable[object]]) -> None:
        while True:
            await trio.sleep(interval_s * self._random.uniform(0.75, 1.25))
            peer = self._pick()
            if peer is not None:
                await self._guarded(peer, pull)

    def _pick(self) -> bytes | None:
        peers = self._peers()
        return self._random.choice(peers) if peers else None

    async def _ask(self, peer: bytes, request: Request) -> bytes:
        return await self._transport.request(peer, sync.encode_request(request))

    async def _guarded(self, peer: bytes, pull: Callable[[bytes], Awaitable[object]]) -> bool:
        """Pull from one peer; one that fails or lies is counted and left. Whether it answered well."""
        try:
            await pull(peer)
        except (PeerUnavailableError, PeerMisbehavedError) as error:
            self._node.drops[f"peer: {type(error).__name__}"] += 1
            return False
        except InvalidMessageError as error:
            self._node.drop("answer", error)
            return False
        return True
