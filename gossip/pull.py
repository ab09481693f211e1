"""Asking peers for what this node lacks: the loops that make gossip a mere shortcut.

Decides whom to ask and when; what an answer is worth is decided by the parsers and by `gossip.node`. Peers
are asked at random, because one that is silent or lies must not be asked for ever.

1. Anti-entropy: every `sync_interval_s` (jittered) with one random connected peer of the roster.
2. While an epoch closes: every `close_interval_s` one random peer for what it holds of the close.
3. What a decision waits for is asked of one peer after another until it comes.
4. Own log: before the first own record, operators of more than two thirds of the weight have said how
   far they know it, and all of that is here; a database that was restored must not fork the log.

Source: PROTOCOL, "Spreading", "Records" (own log).
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio

from contracts.model import OperatorSet
from gossip import sync
from gossip.epoch_events import CheckpointArrived, Heard, ObjectId
from gossip.errors import InvalidMessageError, OwnForkError, PeerMisbehavedError, PeerUnavailableError
from gossip.log_chain import GENESIS, Head, Placement, RecordRange
from gossip.messages import Observation, parse_observation
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

    async def run(self) -> None:
        """Pull for ever. Cancellation leaves nothing behind."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every, self._sync_interval_s, self.sync)
            nursery.start_soon(self._every, self._close_interval_s, self.pull_close)
            nursery.start_soon(self._fetch_wanted, lambda: self._node.machine.wanted)
            nursery.start_soon(self._fetch_wanted, lambda: self._node.attachments_wanted)

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
            if node.logs[node.key.public].fork is not None:
                raise OwnForkError(OWN_FORK)
            await trio.sleep(RETRY_S)
        node.is_own_log_known = True

    async def _learn_own_log(self, peer: bytes) -> None:
        """Take over all that `peer` knows of the own log; one that names a head and does not show it is at fault."""
        log = self._node.logs[self._node.key.public]
        named = (await self.sync(peer)).get(log.node_key, GENESIS)
        if named.seq > log.base.seq and not log.holds(named):
            await self._fetch_range(RecordRange(log.node_key, log.base.seq + 1, named.seq), peer)
        if named.seq > log.base.seq and not log.holds(named):
            raise InvalidMessageError("watermarks: a head of the own log that the peer does not show")

    async def sync(self, peer: bytes) -> Mapping[bytes, Head]:
        """Exchange watermarks with `peer` and fetch what it has more of; returns its watermarks."""
        node = self._node
        mine: dict[bytes, Head] = {node_key: node.logs[node_key].head for node_key in node.logs}
        theirs = sync.parse_heads(await self._ask(peer, WatermarksRequest(mine)))
        for _ in range(BATCHES_PER_SYNC_MAX):
            ranges = sync.wanted_after(node.logs, theirs)
            if not ranges or not await self._fetch_records(peer, ranges):
                break
        return theirs

    async def pull_close(self, peer: bytes) -> None:
        """Take over what `peer` holds of the epoch that is closing, if one is."""
        node = self._node
        progress = node.machine.progress()
        if progress is None:
            return
        state = sync.parse_close(await self._ask(peer, CloseRequest(progress.epoch)))
        known = {m.digest for m in node.machine.messages(progress.epoch) if isinstance(m, Observation)}
        for digest in state.observations:
            if digest not in known:
                await self._fetch_object(peer, ObjectId(kind="observation", id=digest))
        for kind, wires in ((PROPOSAL, state.proposals), (ATTEST, state.attests)):
            for wire in wires:
                if not node.machine.holds(wire):
                    await node.take_message(kind, wire)

    async def _fetch_wanted(self, missing: Callable[[], frozenset[object]]) -> None:
        """Rule 3; one task for decisions, one for attachments, so that evidence of nobody's delays no decision."""
        node = self._node
        while True:
            await node.wanted.wait()
            for wanted in missing():
                peer = self._pick()
                if peer is not None and wanted in missing():
                    await self._guarded(peer, functools.partial(self._fetch, wanted))
            if not node.all_wanted:
                node.wanted = trio.Event()
            await trio.sleep(RETRY_S / 4)

    async def _fetch(self, wanted: object, peer: bytes) -> None:
        if isinstance(wanted, ObjectId):
            await self._fetch_object(peer, wanted)
        elif isinstance(wanted, RecordRange):
            await self._fetch_range(wanted, peer)

    async def _fetch_range(self, wanted: RecordRange, peer: bytes) -> None:
        """Fetch a range to its end, what is here already included: a branch may begin anywhere in it."""
        first = wanted.first
        for _ in range(BATCHES_PER_SYNC_MAX):
            rest = RecordRange(wanted.node_key, first, wanted.last)
            wires = sync.parse_records(await self._ask(peer, RecordsRequest((rest,))))
            await self._node.take_records(wires)
            last = parse_record(wires[-1], self._node.pool).seq if wires else wanted.last
            if last >= wanted.last:
                return
            first = max(last, first + 1)  # again from `last` on: its other branches may not have fitted

    async def _fetch_records(self, peer: bytes, ranges: tuple[RecordRange, ...]) -> bool:
        """Fetch one batch; whether it brought anything new."""
        placed = await self._node.take_records(sync.parse_records(await self._ask(peer, RecordsRequest(ranges))))
        return bool(placed[Placement.EXTENDED] or placed[Placement.FORKED])

    async def _fetch_object(self, peer: bytes, wanted: ObjectId) -> None:
        """Fetch an object, if the peer has it, and hand it over."""
        node = self._node
        data = sync.parse_object(await self._ask(peer, ObjectRequest(wanted)))
        if data is None:
            return
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
        answer = await self._transport.request(peer, sync.encode_request(request))
        self._node.witness.hear(peer, self._node.now_s())
        return answer

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
