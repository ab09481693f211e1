"""The gossip node: takes what peers send, keeps it durable, drives the epoch's close, performs its actions.

A thin shell: what is valid is decided by `records`, `log_chain`, `messages`, `epoch_close`; here things are
received, handed over, stored and sent. Three rules are its own:

1. One step at a time: a machine's actions are performed, in order, before the next event is handled, so
   that nothing is published whose `Persist` has not returned. A step that began is not cancelled half-way.
2. A message that fails is dropped and counted by reason; it never ends a loop. A store that fails ends
   the node: what cannot be made durable must not be said.
3. Evidence enters a log only once all that it names (collateral, GPU evidence, a handshake) is here. So
   whoever names a head can serve what the tally of it needs, and what nobody has delays its owner's log alone.

Elsewhere: asking peers (`gossip.pull`), answering them (`gossip.serve`), the network (`gossip.transport`).

Source: PROTOCOL, "Spreading", "Durable before sent".
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from contracts.signing import SigningKey
from gossip.address_book import AddressBook
from gossip.coverage import Verdict
from gossip.epoch_close import EpochClose
from gossip.epoch_events import (
    Action,
    DataArrived,
    Event,
    Finalize,
    Heard,
    Persist,
    Publish,
    RecordsArrived,
    Refused,
    Settled,
    Submit,
)
from gossip.errors import InvalidMessageError, OwnForkError
from gossip.fetching import Hints
from gossip.heads import HeadIndex
from gossip.log_chain import Head, LogBook, Placement
from gossip.policy import WINDOW_S_MAX, PoolPolicy
from gossip.records import Body, EvidenceBody, PoolId, Record, make_record, parse_record, trust_record, verify_record
from gossip.settlement import Base, Settlement
from gossip.store import Store
from gossip.wire import (
    ADDRESS,
    GOSSIP_BYTES_MAX,
    NOTICE,
    RECORD,
    announce,
    encode_gossip,
    parse_gossip,
    parse_message,
    parse_notice,
)
from gossip.witness import Witness

CHAIN_ACTIONS_MAX = 64
OUTBOX_MAX = 256
REASONS_MAX = 128
OTHER_REASON = "anything else"
ANY_TIME_S = 1 << 62
"""The clock for records that are this node's own or were taken already: one that stepped back undoes nothing."""

OWN_FORK = (
    "own log: it is forked, this key signed two records of one number: two agents ran with it, or an old database was "
    "restored. Nothing above the fork will count: stop every agent of this key, and replace the key: "
    "gpupool keys rotate"
)
OWN_LOG_ELSEWHERE = (
    "own log: a peer brought a record of this key that is not in this database: another agent signs with it, or a "
    "restored database lacked it. Stop every other agent of this key at once, then start this one again: it goes on "
    "from what peers hold"
)

ChainAction = Finalize | Submit

_T = TypeVar("_T")


class Node:
    """One agent's part in the pool. Create it with `open_node`."""

    def __init__(
        self,
        key: SigningKey,
        pool: PoolId,
        policy: PoolPolicy,
        store: Store,
        verdict: Verdict,
        *,
        base: Base,
        witness: Witness,
        now_s: Callable[[], int],
    ) -> None:
        self.key = key
        self.pool = pool
        self.policy = policy
        self.store = store
        self.witness = witness
        self.addresses = AddressBook(pool)
        self.head_index = HeadIndex()
        self.now_s = now_s
        self.logs = LogBook(window_max_s=WINDOW_S_MAX)
        self.machine = EpochClose(key, pool, policy=policy, base=base, logs=self.logs, verdict=verdict)
        self.registered: frozenset[bytes] = frozenset()
        self.wanted = trio.Event()
        """Set when `all_wanted` or `hints` are not empty: `gossip.pull` fetches what they name."""
        self.hints = Hints()
        self.on_evidence: Callable[[Record], None] = lambda record: None
        """Told of every evidence record that is placed, once."""
        self.on_settled: Callable[[Settlement], None] = lambda settlement: None
        """Told of every settlement that landed, once."""
        self.is_own_log_known = False
        """Set once operators said how far they know the own log: from then on nobody else may extend it."""
        self.drops: Counter[str] = Counter()
        self.verified = 0
        self.placed: Counter[str] = Counter()
        self._chain_send, self.chain_actions = trio.open_memory_channel[ChainAction](CHAIN_ACTIONS_MAX)
        self._outbox_send, self.outbox = trio.open_memory_channel[bytes](OUTBOX_MAX)
        self._turn = trio.Lock()

    # The own log.

    async def append(self, body: Body, *, window: int | None = None) -> Record:
        """Sign the next record of the own log, make it durable, then send it.

        `window` is the journal's number of the work window that becomes this record: it is struck off in
        the same transaction.

        Raises:
            OwnForkError: the own log is forked, or the record would not extend it.
            InvalidMessageError: the body breaks a rule of the log, as a window that starts too early does.
        """
        async with self._turn:
            log = self.logs[self.key.public]
            record = make_record(self.key, self.pool, log.head.seq + 1, log.head.hash, body)
            placement = log.place(record, now_s=ANY_TIME_S, window_max_s=self.logs.window_max_s)
            if log.fork is not None or self.machine.base.reading(self.key.public).dead:
                raise OwnForkError(OWN_FORK)
            if placement is not Placement.EXTENDED:
                raise OwnForkError(f"own record {record.seq} does not extend the own log: {placement.value}")
            await self._blocking(self.store.append_own, record, window)
            self.logs.insert(record, now_s=ANY_TIME_S)
        self._publish(encode_gossip(RECORD, record.wire))
        return record

    # What there is.

    def register(self, node_keys: Iterable[bytes]) -> None:
        """Keep the logs of these participants, who are in the registry now."""
        self.registered = frozenset(node_keys)
        self.logs.open(self.registered)

    def heads(self) -> dict[bytes, Head]:
        """How far each log is known that is registered, or has records that no settlement counted: not all ever."""
        logs = (self.logs[node_key] for node_key in self.logs)
        return {log.node_key: log.head for log in logs if log.node_key in self.registered or len(log)}

    # What peers send.

    async def take_gossip(self, data: bytes, origin: bytes | None = None) -> None:
        """Handle one message of the topic; a bad one is dropped and counted.

        `origin` is the node key that signed it as a message of the topic, if it is known.
        """
        try:
            kind, wire = parse_gossip(data)
        except InvalidMessageError as error:
            self.drop("gossip", error)
            return
        if kind == RECORD:
            await self.take_records([wire])
        elif kind == ADDRESS:
            self.take_address(wire)
        elif kind == NOTICE:
            self._take_notice(wire, origin)
        else:
            await self.take_message(kind, wire)

    async def take_message(self, kind: str, wire: bytes) -> None:
        """Handle a message of an epoch's close; a bad one is dropped and counted."""
        try:
            await self.handle(Heard(parse_message(kind, wire, self.pool)))
        except InvalidMessageError as error:
            self.drop(kind, error)

    def _take_notice(self, wire: bytes, origin: bytes | None) -> None:
        try:
            epoch, digest = parse_notice(wire)
        except InvalidMessageError as error:
            self.drop("notice", error)
            return
        if origin is not None and self.machine.is_observer(origin) and self._lacks(epoch, digest):
            self.hints.note_announced(digest, origin)
            self.wanted.set()

    def hear_of(self, epoch: int, digests: Iterable[bytes], source: bytes) -> None:
        """Peer `source` has observations of `epoch` by these digests: have those fetched that are not here."""
        for digest in digests:
            if self._lacks(epoch, digest):
                self.hints.note_observation(digest, source, is_operator=self.machine.is_observer(source))
                self.wanted.set()

    def _lacks(self, epoch: int, digest: bytes) -> bool:
        return epoch == self.machine.closing and self.machine.observation(digest) is None

    def take_address(self, wire: bytes) -> None:
        """Handle an address record; a bad one is dropped and counted."""
        try:
            self.addresses.take(wire, registered=self.registered, now_s=self.now_s())
        except InvalidMessageError as error:
            self.drop("address", error)

    async def take_records(self, wires: Sequence[bytes]) -> Counter[Placement]:
        """Verify, place and store records of peers; those that fail are dropped and counted.

        Raises:
            OwnForkError: one is of the own log, which was known, and new: another agent signs with this key.
        """
        fresh = []
        for wire in wires:
            try:
                parsed = parse_record(wire, self.pool)
                if parsed.node_key not in self.logs:
                    raise InvalidMessageError("participant: the key is not in the registry")
                if self.logs[parsed.node_key].knows(parsed.hash):
                    continue
                if self.machine.base.reading(parsed.node_key).dead:
                    raise InvalidMessageError("of a log that ended: it was forked or closed")
                fresh.append(verify_record(parsed))
            except InvalidMessageError as error:
                self.drop("record", error)
            await trio.lowlevel.checkpoint()  # a record of receipts takes milliseconds: others have their turn between
        self.verified += len(fresh)
        async with self.step():
            return await self._place(fresh)

    async def _has_attachments(self, record: Record) -> bool:
        """Whether the record may be placed: evidence waits for all that it names (rule 3).

        Nothing is fetched for a record that could not be placed then.
        """
        if not isinstance(record.body, EvidenceBody):
            return True
        placement = self.logs[record.node_key].place(record, now_s=self.now_s(), window_max_s=self.logs.window_max_s)
        if placement not in (Placement.EXTENDED, Placement.FORKED):
            return True
        named = record.body.attachments
        missing = frozenset([d for d in named if await self._blocking(self.store.attachment, d) is None])
        if missing:
            self.hints.note_attachments(record.node_key, missing)
            self.wanted.set()
        return not missing

    @property
    def all_wanted(self) -> frozenset[object]:
        """What to fetch from peers: for the machine's decisions, and what new evidence names."""
        return self.machine.wanted | self.hints.attachments

    async def take_attachment(self, digest: bytes, body: bytes) -> None:
        """Keep an attachment (whose digest was checked); evidence that waited for it may be placed from now on."""
        await self._blocking(self.store.keep_attachment, digest, body)
        self.hints.forget_attachment(digest)
        await self.handle(DataArrived())

    async def _place(self, records: Sequence[Record]) -> Counter[Placement]:
        placed: Counter[Placement] = Counter()
        kept = []
        for record in records:
            try:
                if not await self._has_attachments(record):
                    continue
                placement = self.logs.insert(record, now_s=self.now_s())
            except InvalidMessageError as error:
                self.drop("record", error)
                continue
            if placement is Placement.GAP:
                self.hints.note_gap(self.logs[record.node_key], record.seq, self.now_s())
                self.wanted.set()
            placed[placement] += 1
            self.placed[placement.value] += 1
            if placement in (Placement.EXTENDED, Placement.FORKED):
                kept.append(record)
                if isinstance(record.body, EvidenceBody):
                    self.on_evidence(record)
        if kept:
            await self._blocking(self.store.append, kept)
            if self.is_own_log_known and any(record.node_key == self.key.public for record in kept):
                raise OwnForkError(OWN_FORK if self.logs[self.key.public].fork is not None else OWN_LOG_ELSEWHERE)
            if self.machine.closing is not None:
                await self._perform(self.machine.handle(RecordsArrived()))
        return placed

    async def handle(self, event: Event) -> None:
        """Give an event to the machine and perform what it asks for.

        Raises:
            InvalidMessageError: the event's message is one that no honest operator sends.
        """
        async with self.step():
            await self._perform(self.machine.handle(event))

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """A turn that is not cancelled half-way: what the machine takes for durable would not be."""
        async with self._turn:
            with trio.CancelScope(shield=True):
                yield

    def drop(self, what: str, error: InvalidMessageError) -> None:
        """Count a dropped message: by what it was and the part of it that was wrong."""
        reason = f"{what}: {str(error).partition(':')[0][:40]}"
        self.drops[reason if reason in self.drops or len(self.drops) < REASONS_MAX else OTHER_REASON] += 1

    # What the machine asks for.

    async def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Persist(epoch=epoch, messages=messages, outcome=outcome, landed=landed):
                    await self._blocking(self.store.keep_messages, epoch, messages, outcome)
                    if landed is not None:
                        await self._blocking(self.store.keep_landed, landed)
                case Publish(message):
                    self._publish(announce(message))
                case Refused(_, reason):
                    self.drop("proposal", InvalidMessageError(reason))
                case Settled(settlement):
                    self.hints.forget_notices()
                    self.on_settled(settlement)
                case Finalize() | Submit():
                    self._hand_over(action)
        if self.machine.is_waiting:
            self.wanted.set()

    def publish_address(self, wire: bytes) -> None:
        """Tell the own address record; peers that miss it learn it when they are asked for others'."""
        self._publish(encode_gossip(ADDRESS, wire))

    def _hand_over(self, action: ChainAction) -> None:
        """Pass an action to whoever talks to the chain. Never waits: that task may wait for this turn."""
        try:
            self._chain_send.send_nowait(action)
        except trio.WouldBlock:
            self.drops["chain action: nobody took it"] += 1  # the machine asks again at its next turn

    def _publish(self, data: bytes) -> None:
        """Put a message in the outbox. Never waits for a slow peer: what does not fit goes by anti-entropy."""
        try:
            if len(data) <= GOSSIP_BYTES_MAX:
                self._outbox_send.send_nowait(data)
        except trio.WouldBlock:
            self.drops["outbox: full"] += 1

    async def _blocking(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await trio.to_thread.run_sync(functools.partial(function, *arguments))


def open_node(
    key: SigningKey,
    pool: PoolId,
    policy: PoolPolicy,
    store: Store,
    verdict: Verdict,
    *,
    participants: Sequence[bytes],
    now_s: Callable[[], int],
) -> Node:
    """Build a node from what its store holds: base, records, messages of the open epoch, witnessed uptime.

    `participants` are the registered node keys; the own one is among them or joins later.

    Raises:
        InvalidMessageError: the store holds a record that does not parse; it is damaged.
    """
    landed = store.last_landed()
    base = landed.base() if landed is not None else Base()
    witness = Witness(policy.work.witness_bucket_s, store.witness(), started_s=now_s())
    node = Node(key, pool, policy, store, verdict, base=base, witness=witness, now_s=now_s)
    node.register(participants)
    node.logs.open((key.public,))
    for node_key, reading in base.readings.items():
        node.logs.rebase(node_key, reading.head, reading.work_end_s, is_dead=reading.dead)
    for wire in store.all_records():
        record = trust_record(parse_record(wire, pool))
        if record.node_key in node.logs:
            node.logs.insert(record, now_s=ANY_TIME_S)
    messages = [parse_message(kind, wire, pool) for kind, wire in store.messages(base.epoch + 1)]
    node.machine.restore(messages, store.outcomes())
    return node
