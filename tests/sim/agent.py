"""An agent of the simulation: the real machine, logs and witness in a model of the node's shell.

It does what `gossip.node`, `gossip.pull` and `gossip.serve` do, in their order, but one event at a time and with
a place to be killed before every effect. After a crash nothing is left but its journal.

Source: the three modules above; `agent.daemon` for what a start does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pool_fixture import POOL, evidence, verdict

from gossip.epoch_close import EpochClose
from gossip.epoch_events import (
    Action,
    Advanced,
    Event,
    Finalize,
    Heard,
    Message,
    Persist,
    Publish,
    RecordsArrived,
    Settled,
    Submit,
)
from gossip.errors import InvalidMessageError
from gossip.log_chain import GENESIS, LogBook, Placement
from gossip.policy import WINDOW_S_MAX
from gossip.records import Body, EvidenceBody, ReceiptBody, Record, WorkBody, make_record
from gossip.settlement import Base
from gossip.wire import RECORD, kind_of
from gossip.witness import Witness
from tests.sim.chain import key
from tests.sim.journal import ModelJournal
from tests.sim.network import Gossip, read_message, read_record
from tests.sim.sharing import Sharing
from tests.sim.working import draw_receipts, draw_work

if TYPE_CHECKING:
    from tests.sim.world import World

ANY_TIME_S = 1 << 62
POLL_MS, WORK_MS, SYNC_MS, CLOSE_MS, RECOVER_MS = 5_000, 25_000, 30_000, 8_000, 6_000
WINDOW_S = 60


class CrashedError(Exception):
    """The process of `agent` was killed here."""

    def __init__(self, agent: SimAgent) -> None:
        self.agent = agent


class SimAgent(Sharing):
    """An honest agent. `i` is its number, `life` counts its starts and crashes."""

    is_honest = True

    def __init__(self, world: World, i: int) -> None:
        self.world = world
        self.i = i
        self.key = key(i)
        self.journal = ModelJournal()
        self.life = 0
        self.is_up = False

    # Its life.

    def start(self) -> None:
        """Come up from the journal, as `gossip.node.open_node` does."""
        self.life += 1
        self.is_up = True
        landed = self.journal.last_landed()
        base = landed.base() if landed is not None else Base()
        self.logs = LogBook(window_max_s=WINDOW_S_MAX)
        rules = self.world.chain.policy
        self.witness = Witness(rules.work.witness_bucket_s, self.journal.witness)
        self.machine: EpochClose = self.world.bug.machine(
            self.key, POOL, policy=rules, base=base, logs=self.logs, verdict=verdict
        )
        self.logs.open([self.key.public, *(participant.node_key for participant in self.world.chain.participants)])
        for node_key, reading in base.readings.items():
            self.logs.rebase(node_key, reading.head, reading.work_end_s, is_dead=reading.dead)
        for record in self.journal.all_records():
            self.logs.insert(record, now_s=ANY_TIME_S)
        self.machine.restore(self.journal.messages(base.epoch + 1), self.journal.outcomes())
        self.witnessed_s: dict[bytes, int] = {}
        self.heard = {self.key.public}
        self.is_own_log_known = False
        self._block = 0
        self.is_fetching = False
        self.every(POLL_MS, "poll", self.poll)
        self.every(WORK_MS, "work", self.do_work)
        self.every(SYNC_MS, "syncs", self.sync)
        self.every(CLOSE_MS, "pulls", self.pull_close)
        self.every(RECOVER_MS, "recovers", self.recover)

    def crash(self) -> None:
        """Lose everything but the journal; come back later."""
        self.is_up = False
        self.life += 1
        self.world.after(self.world.down_ms(), f"{self.i} starts", self.start)

    def every(self, period_ms: int, what: str, call: Callable[[], None]) -> None:
        """Call from now on, every period, more or less, until this life ends."""
        life = self.life

        def tick() -> None:
            if self.life == life:
                self.world.after(self._jittered(period_ms), name, tick)
                call()

        name = f"{self.i} {what}"
        self.world.after(self.world.rng.randint(0, period_ms), name, tick)

    def _jittered(self, period_ms: int) -> int:
        return int(period_ms * self.world.rng.uniform(0.75, 1.25))

    def effect(self) -> None:
        """A place where the process may die."""
        if self.world.crashes():
            raise CrashedError(self)

    @property
    def now_s(self) -> int:
        """Its own clock."""
        return self.world.now_s + self.world.skew_s(self.i)

    # The chain.

    def poll(self) -> None:
        """Read the newest block, or one a little older, never one older than before."""
        if self.world.is_chain_away(self.i):
            return
        blocks = self.world.chain.blocks
        self._block = max(self._block, len(blocks) - 1 - self.world.rng.choice((0, 0, 0, 1, 2)))
        block = blocks[self._block]
        self.witness.hear(self.key.public, self.now_s)
        settled_s = {node_key: reading.witnessed_s for node_key, reading in self.machine.base.readings.items()}
        self.witness.settle(settled_s, list(self.logs), self.now_s)
        self.witnessed_s = dict(self.witness.seconds)
        self.effect()
        # Now and then a contract cannot be read: then nothing is said of it.
        read = {k: tokens for k, tokens in block.worker_tokens().items() if self.world.rng.random() < 0.9}
        self.handle(
            Advanced(
                view=block.view,
                operators=block.operators,
                frame=block.frame,
                witnessed_s=self.witnessed_s,
                worker_tokens=read,
            )
        )

    # The own log.

    def do_work(self) -> None:
        """Append what was done since the last record, as `gossip.node.Node.append` does."""
        log = self.logs[self.key.public]
        if not self.is_own_log_known or log.is_dead:
            return
        if log.head == GENESIS:
            self.append(evidence(self.now_s - 1))
        last_s = log.work_end_s(log.head)
        proof = self.evidence_record()
        if proof is not None and self.now_s > last_s:
            start_s = max(last_s, self.now_s - WINDOW_S, evidence_of(proof).anchor_time_s)
            if start_s < self.now_s:
                self.append(draw_work(self.world.rng, self.i, start_s, self.now_s, proof.hash))
                self.hand_in(start_s, self.now_s)

    def hand_in(self, start_s: int, end_s: int) -> None:
        """Write down what gateways say of this time, where the policy asks for it."""
        if self.world.chain.policy.receipts.ceiling == "receipts":
            receipts = draw_receipts(self.world.rng, self.i, start_s, end_s)
            if receipts is not None:
                self.append(receipts)

    def evidence_record(self) -> Record | None:
        """The own evidence: the first record ever."""
        return next(self.journal.records(self.key.public, 1, 1), None)

    def append(self, body: Body) -> None:
        """Sign the next record of the own log, keep it, show it."""
        log = self.logs[self.key.public]
        record = make_record(self.key, POOL, log.head.seq + 1, log.head.hash, body)
        try:
            placement = log.place(record, now_s=ANY_TIME_S, window_max_s=WINDOW_S_MAX)
        except InvalidMessageError:
            return
        assert placement is Placement.EXTENDED
        assert log.fork is None, "the own log of an honest agent forked"
        for step in self.world.bug.order(self.keep_own, self.show_own):
            self.effect()
            step(record)

    def keep_own(self, record: Record) -> None:
        """Make a record of the own log durable; then it stands in memory, too."""
        self.journal.append_own(record)
        self.logs.insert(record, now_s=ANY_TIME_S)

    def show_own(self, record: Record) -> None:
        self.world.watch.shown(self, record)
        self.say(Gossip(RECORD, record.wire))

    # What peers send.

    def take_gossip(self, gossip: Gossip) -> None:
        if gossip.kind == RECORD:
            self.take_records([gossip.wire])
        else:
            self.take_message(gossip.kind, gossip.wire)

    def take_message(self, kind: str, wire: bytes) -> None:
        try:
            message = read_message(kind, wire)
        except InvalidMessageError:
            return
        self.handle(Heard(message))

    def take_records(self, wires: Sequence[bytes]) -> None:
        """Place and keep what is valid and new."""
        kept: list[Record] = []
        for wire in wires:
            try:
                record = read_record(wire)
                if record.node_key not in self.logs or self.machine.base.reading(record.node_key).dead:
                    continue
                placement = self.logs.insert(record, now_s=self.now_s)
            except InvalidMessageError:
                continue
            if placement in (Placement.EXTENDED, Placement.FORKED):
                kept.append(record)
        if kept:
            self.effect()
            self.journal.append(kept)
            self.effect()
            if self.machine.progress() is not None:
                self.handle(RecordsArrived())

    def handle(self, event: Event) -> None:
        """Give an event to the machine and perform what it asks for."""
        try:
            actions = self.machine.handle(event)
        except InvalidMessageError as error:
            self.world.note(f"{self.i} refuses: {error}")
            return
        self.perform(actions)
        self.fetch_soon()

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self.effect()
            self.world.note(f"{self.i} {describe(action)}")
            match action:
                case Persist(epoch=epoch, messages=messages, outcome=outcome, landed=landed):
                    self.journal.keep_messages(epoch, messages, outcome)
                    self.world.watch.kept(self, messages)
                    if landed is not None:
                        self.effect()
                        self.journal.keep_landed(landed)
                case Publish(message):
                    self.publish(message)
                case Finalize(epoch):
                    if not self.world.is_chain_away(self.i):
                        self.world.transact(self.i, f"finalize {epoch}", partial(self.world.chain.finalize, epoch))
                case Submit():
                    self.submit(action)
                case Settled(settlement):
                    self.world.watch.adopted(self, settlement)
        self.effect()

    def publish(self, message: Message) -> None:
        self.world.watch.said(self, message)
        self.say(Gossip(kind_of(message), message.wire))

    def say(self, gossip: Gossip) -> None:
        """Send to everybody, once."""
        for peer in self.world.peers_of(self.i):
            self.world.network.send(self.i, peer, gossip)

    def submit(self, submit: Submit) -> None:
        """Send a settlement, unless the chain shows that it landed."""
        if self.world.is_chain_away(self.i) or self.world.chain.landed.epoch >= submit.settlement.payload.epoch:
            return
        self.world.transact(self.i, "submit", lambda: self.world.settle(self, submit))


def evidence_of(record: Record) -> EvidenceBody:
    assert isinstance(record.body, EvidenceBody)
    return record.body


def written_s(record: Record) -> int:
    """When the record was made, by its author's clock."""
    match record.body:
        case WorkBody(end_s=end_s):
            return end_s
        case ReceiptBody(receipts):
            return max(receipt.time_s for receipt in receipts)
        case _:
            return evidence_of(record).anchor_time_s


def describe(action: Action) -> str:
    """An action in a few words, for the trace."""
    match action:
        case Persist(epoch=epoch, messages=messages, landed=landed):
            return f"persists {len(messages)} of epoch {epoch}{', landed' if landed else ''}"
        case Publish(message):
            return f"publishes {kind_of(message)} {message.wire[-64:-58].hex()}"
        case Submit(settlement=settlement, signatures=signatures):
            return f"submits {settlement.payload_hash[:6].hex()} signed by {[s.index for s in signatures]}"
        case Settled(settlement):
            return f"adopts epoch {settlement.payload.epoch} {settlement.payload_hash[:6].hex()}"
        case _:
            return str(action)[:80]
