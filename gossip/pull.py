"""Asking peers for what this node lacks: the loops that make gossip a mere shortcut.

Decides whom to ask and when; what an answer is worth is decided by the parsers and by `gossip.node`. Peers
are asked at random, because one that is silent or lies must not be asked for ever.

1. Anti-entropy: every `sync_interval_s` (jittered) with one random connected peer of the roster. A log that does not
   grow by what the peer has of it keeps back no other; branches come last, a few at a time.
2. While an epoch closes: every `close_interval_s` one random peer for what it holds of the close.
3. What a decision waits for is asked of several peers at once until it comes (`gossip.fetching`).
4. Own log: before the first own record, operators of more than two thirds of the weight have said how
   far they know it, and all of that is here; a database that was restored must not fork the log. They are asked
   side by side; once they are enough, the others have `SLOW_S` more to answer. Whether it counts as known then is
   decided by the caller: until it does, own records that come are taken over, as those of a former host are.
5. An exchange with one peer takes `EXCHANGE_S` at most: what came by then is kept, and others are asked.

Source: PROTOCOL, "Spreading", "Records" (own log).
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio

from contracts.model import OperatorSet
from gossip import sync
from gossip.epoch_events import CheckpointArrived, Heard, ObjectId
from gossip.errors import InvalidMessageError, OwnForkError, PeerMisbehavedError, PeerUnavailableError
from gossip.fetching import ATTACHMENT_TRIES, NOTICE_TRIES, SLOW_S, Fetch, FetchPlan, Item
from gossip.log_chain import GENESIS, Head, Placement, RecordRange
from gossip.messages import parse_observation
from gossip.node import OWN_FORK, Node
from gossip.records import ATTACHMENT_BYTES_MAX, parse_record
from gossip.settlement import verify_checkpoint
from gossip.sync import CloseRequest, ObjectRequest, RecordsRequest, Request, WatermarksRequest
from gossip.wire import ATTEST, PROPOSAL

BATCHES_PER_SYNC_MAX = 64
BRANCHES_PER_SYNC_MAX = 4
"""Forked logs of which one exchange fetches what is above the base; which ones is drawn."""
BRANCH_PAUSE_S = 300.0
"""A branch may fit nowhere: of a log whose branches brought nothing, none is fetched for so long."""
EXCHANGE_S = 30.0
"""The longest exchange with one peer, of however many requests."""
OWN_LOG_ASKED_MAX = 16
"""Operators that are asked at once how far they know the own log."""
RETRY_S = 1.0
_log = logging.getLogger(__name__)


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
        self._random = random.Random()  # noqa: S311  (spreads load; no secret)
        self._plan = FetchPlan(self._random)
        self._turn = trio.Event()
        self._paused_until_s: dict[bytes, float] = {}
        """By node key: when branches of its log are fetched again."""

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
        own = self._node.key.public
        heard, had_turn = {own}, {own}
        asked = [o for o in operators.operators if remembers or o.node_key != own]
        answered = trio.Event()
        limiter = trio.CapacityLimiter(OWN_LOG_ASKED_MAX)

        async def learn(peer: bytes) -> None:
            while peer not in heard:
                async with limiter:
                    if peer in self._peers() and await self._guarded(peer, self._learn_own_log):
                        heard.add(peer)
                        known = sum(o.weight for o in asked if o.node_key in heard)
                        total = sum(o.weight for o in asked)
                        _log.info("own log: operators of %d of %d of the weight have answered", known, total)
                had_turn.add(peer)
                answered.set()
                await trio.sleep(RETRY_S)

        async with trio.open_nursery() as nursery:
            for operator in asked:
                nursery.start_soon(learn, operator.node_key)
            while 3 * sum(o.weight for o in asked if o.node_key not in heard) >= sum(o.weight for o in asked) > 0:
                await answered.wait()
                answered = trio.Event()
                if self._is_own_log_dead():
                    break
            with trio.move_on_after(SLOW_S):  # it is enough; but whoever answers soon may know more
                while any(o.node_key not in had_turn for o in asked):
                    await answered.wait()
                    answered = trio.Event()
            nursery.cancel_scope.cancel()
        if self._is_own_log_dead():
            raise OwnForkError(OWN_FORK)

    def _is_own_log_dead(self) -> bool:
        own = self._node.key.public
        return self._node.logs[own].fork is not None or self._node.machine.base.reading(own).dead

    async def _learn_own_log(self, peer: bytes) -> bool:
        """Take over all that `peer` knows of the own log; one that names a head and does not show it is at fault."""
        log = self._node.logs[self._node.key.public]
        named = (await self._differing_heads(peer)).get(log.node_key, GENESIS)
        if named.seq > log.base.seq and not log.holds(named):
            await self._extend(peer, {log.node_key: named})
        if named.seq > log.base.seq and not log.holds(named):
            await self._fetch_range(RecordRange(log.node_key, log.base.seq + 1, named.seq), peer)
        if named.seq > log.base.seq and not log.holds(named):
            raise InvalidMessageError("watermarks: a head of the own log that the peer does not show")
        return True

    async def sync(self, peer: bytes) -> bool:
        """Compare heads with `peer` and fetch what it has more of; whether that brought anything new."""
        named = list((await self._differing_heads(peer)).items())
        self._random.shuffle(named)
        theirs = dict(named)
        branches, brought = await self._extend(peer, theirs)
        branches += sync.branches_after(self._node.logs, theirs)
        now_s = trio.current_time()
        self._paused_until_s = {key: until_s for key, until_s in self._paused_until_s.items() if until_s > now_s}
        due = [branch for branch in branches if branch.node_key not in self._paused_until_s]
        for branch in due[:BRANCHES_PER_SYNC_MAX]:
            if await self._fetch_range(branch, peer):
                brought = True
            else:
                self._paused_until_s[branch.node_key] = now_s + BRANCH_PAUSE_S
        return brought

    async def _differing_heads(self, peer: bytes) -> Mapping[bytes, Head]:
        mine = sync.digest_heads(self._node.heads())
        return sync.parse_heads(await self._ask(peer, WatermarksRequest(mine)))

    async def _extend(self, peer: bytes, theirs: Mapping[bytes, Head]) -> tuple[tuple[RecordRange, ...], bool]:
        """Fetch what `peer` has above the heads here, in batches; a log that does not grow is not asked for again.

        Returns ranges of the logs whose next record follows another than the head here (a branch), and whether
        anything was new.
        """
        node, left, brought = self._node, dict(theirs), False
        branches: list[RecordRange] = []
        for _ in range(BATCHES_PER_SYNC_MAX):
            ranges = sync.wanted_after(node.logs, left, node.now_s())
            if not ranges:
                break
            heads = {wanted.node_key: node.logs[wanted.node_key].head for wanted in ranges}
            wires = sync.parse_records(await self._ask(peer, RecordsRequest(ranges)))
            brought |= has_news(await node.take_records(wires))
            records = [parse_record(wire, node.pool) for wire in wires]
            follows = {(record.node_key, record.seq - 1): record.prev_hash for record in records}
            last = records[-1].node_key if records else None
            # Ranges are answered in order, as far as one answer goes: those up to the last one had their turn.
            had_turn = list(heads)[: list(heads).index(last) + 1] if last in heads else list(heads)
            for log in (node.logs[node_key] for node_key in had_turn if node.logs[node_key].head == heads[node_key]):
                named = left.pop(log.node_key)
                if follows.get((log.node_key, log.head.seq), log.head.hash) != log.head.hash:
                    branches.append(RecordRange(log.node_key, log.base.seq + 1, named.seq))
        return tuple(branches), brought

    async def pull_close(self, peer: bytes) -> bool:
        """Take over what `peer` holds of the epoch that is closing, if one is; whether it named anything."""
        node = self._node
        progress = node.machine.progress()
        if progress is None:
            return True
        have = sync.ids_of(node.machine.messages(progress.epoch))
        state = sync.parse_close(await self._ask(peer, CloseRequest(progress.epoch, have)))
        node.hear_of(progress.epoch, state.observations, peer)
        for kind, wires in ((PROPOSAL, state.proposals), (ATTEST, state.attests)):
            for wire in wires:
                if not node.machine.holds(wire):
                    await node.take_message(kind, wire)
        return bool(state.observations or state.proposals or state.attests)

    async def _fetch_wanted(self) -> None:
        """Rule 3: keep requests for what is missing under way, as `gossip.fetching` says, until nothing is."""
        node, plan = self._node, self._plan
        async with trio.open_nursery() as nursery:
            while True:
                await node.wanted.wait()
                self._turn = trio.Event()
                wanted, announced, heard_of = node.machine.wanted, self._announced(), self._heard_of()
                now_s = trio.current_time()
                for fetch in plan.next(wanted, heard_of, self._peers(), now_s, announced=announced):
                    nursery.start_soon(self._fetch, fetch)
                if not wanted and not announced and not heard_of:
                    node.wanted = trio.Event()
                with trio.move_on_after(RETRY_S / 4):
                    await self._turn.wait()

    def _announced(self) -> dict[Item, bytes | None]:
        """What operators announced, each with its maker."""
        return self._still_lacked(self._node.hints.announced)

    def _heard_of(self) -> dict[Item, bytes | None]:
        """What to fetch besides what decisions wait for, with the peer that should have it, if one should."""
        hints = self._node.hints
        for attachment in hints.attachments:
            if self._plan.tries(attachment) >= ATTACHMENT_TRIES:
                hints.forget_attachment(attachment.id)
        gaps = hints.take_gaps(self._node.now_s())
        return self._still_lacked(hints.notices) | dict.fromkeys(hints.attachments) | dict.fromkeys(gaps)

    def _still_lacked(self, notices: Mapping[bytes, bytes]) -> dict[Item, bytes | None]:
        lacked: dict[Item, bytes | None] = {}
        for digest, source in list(notices.items()):
            wanted = ObjectId(kind="observation", id=digest)
            if self._node.machine.observation(digest) is not None or self._plan.tries(wanted) >= NOTICE_TRIES:
                self._node.hints.forget_notice(digest)
            else:
                lacked[wanted] = source
        return lacked

    async def _fetch(self, fetch: Fetch) -> None:
        """Make one request of the plan, and tell it how that went."""
        brought = False

        async def ask(peer: bytes) -> bool:
            nonlocal brought
            brought = await self._perform(fetch, peer)
            return brought

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
            has_any = has_news(await self._node.take_records(wires))
            brought |= has_any
            last = parse_record(wires[-1], self._node.pool).seq if wires else wanted.last
            if last >= wanted.last or (last <= first and not has_any):
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
            if wanted.kind == "observation":
                node.hints.disappoint(wanted.id, peer)
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

    async def _every(self, interval_s: float, pull: Callable[[bytes], Awaitable[bool]]) -> None:
        while True:
            await trio.sleep(interval_s * self._random.uniform(0.75, 1.25))
            peer = self._pick()
            if peer is not None:
                await self._guarded(peer, pull)

    def _pick(self) -> bytes | None:
        peers = self._plan.good(self._peers(), trio.current_time())
        return self._random.choice(peers) if peers else None

    async def _ask(self, peer: bytes, request: Request) -> bytes:
        return await self._transport.request(peer, sync.encode_request(request))

    async def _guarded(self, peer: bytes, pull: Callable[[bytes], Awaitable[bool]]) -> bool:
        """Pull from one peer, for `EXCHANGE_S` at most; whether it answered well.

        One that fails or lies is counted; that one, and one that was slow and brought nothing, is left alone a while.
        """
        began_s = trio.current_time()
        is_sound, brought = False, False
        try:
            with trio.move_on_after(EXCHANGE_S) as limit:
                brought = await pull(peer)
                is_sound = True
            if limit.cancelled_caught:
                self._node.drops["peer: took too long"] += 1
        except (PeerUnavailableError, PeerMisbehavedError) as error:
            self._node.drops[f"peer: {type(error).__name__}"] += 1
        except InvalidMessageError as error:
            self._node.drop("answer", error)
        now_s = trio.current_time()
        if not is_sound or (not brought and now_s - began_s > SLOW_S):
            self._plan.shun(peer, now_s)
        return is_sound
