"""How an agent of the simulation asks its peers and answers them: `gossip.pull` and `gossip.serve`, step by step.

An exchange is one packet each way. Whoever answers looks into its journal for records and objects, and into its
machine for what it holds of the epoch that is closing, as the real one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.signing import SigningKey
from gossip import sync
from gossip.epoch_close import EpochClose
from gossip.epoch_events import CheckpointArrived, Event, Heard, ObjectId
from gossip.errors import InvalidMessageError
from gossip.log_chain import GENESIS, Head, LogBook, RecordRange
from gossip.messages import Observation
from gossip.settlement import encode_checkpoint, verify_checkpoint
from gossip.wire import kind_of
from gossip.witness import Witness
from tests.sim.chain import key
from tests.sim.journal import ModelJournal
from tests.sim.network import Answer, Ask, read_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.sim.world import World

FETCH_MS = 1_000
RECORDS_MAX = 50


class Sharing:
    """The part of an agent that talks to peers in streams; `tests.sim.agent` is the rest."""

    world: World
    i: int
    life: int
    key: SigningKey
    journal: ModelJournal
    logs: LogBook
    machine: EpochClose
    witness: Witness
    heard: set[bytes]
    is_own_log_known: bool
    is_fetching: bool

    @property
    def now_s(self) -> int:
        raise NotImplementedError

    def handle(self, event: Event) -> None:
        raise NotImplementedError

    def take_message(self, kind: str, wire: bytes) -> None:
        raise NotImplementedError

    def take_records(self, wires: Sequence[bytes]) -> None:
        raise NotImplementedError

    def sync(self) -> None:
        """Anti-entropy with one peer."""
        self.journal.witness = dict(self.witness.seconds)
        self.ask(self.world.rng.choice(self.world.peers_of(self.i)), Ask(heads=True))

    def recover(self) -> None:
        """Ask everybody while the own log is not known."""
        if not self.is_own_log_known:
            self.ask_all()

    def pull_close(self) -> None:
        """Ask one peer what it holds of the epoch that is closing."""
        if self.closing is not None:
            self.ask(self.world.rng.choice(self.world.peers_of(self.i)), Ask(epoch=self.closing))

    def ask_all(self) -> None:
        """Ask everybody for everything, as after new connections."""
        for peer in self.world.peers_of(self.i):
            self.ask(peer, Ask(heads=True, epoch=self.closing))

    def fetch_soon(self) -> None:
        """Begin to fetch what a decision waits for, until it waits no more."""
        if self.machine.wanted and not self.is_fetching:
            self.is_fetching = True
            life = self.life
            self.world.after(FETCH_MS, f"{self.i} fetches", lambda: self.fetch() if self.life == life else None)

    def fetch(self) -> None:
        """Ask one peer for all that a decision waits for."""
        self.is_fetching = False
        wanted = self.machine.wanted
        ranges = [item for item in wanted if isinstance(item, RecordRange)]
        objects = [item for item in wanted if isinstance(item, ObjectId)]
        if wanted:
            ask = Ask(
                ranges=tuple(sorted(ranges, key=lambda r: (r.node_key, r.first, r.last))),
                objects=tuple(sorted(objects, key=lambda o: (o.kind, o.id))),
            )
            self.ask(self.world.rng.choice(self.world.peers_of(self.i)), ask)
        self.fetch_soon()

    def ask(self, peer: int, ask: Ask) -> None:
        self.world.network.send(self.i, peer, ask)

    @property
    def closing(self) -> int | None:
        """The epoch that is closing, as far as this agent knows."""
        progress = self.machine.progress()
        return progress.epoch if progress is not None else None

    def serve(self, peer: int, ask: Ask) -> None:
        """Answer a peer as `gossip.serve` does: objects and records from the journal, the rest from the machine."""
        records = [
            record.wire
            for wanted in ask.ranges
            for record in [*self.journal.records(wanted.node_key, wanted.first, wanted.last)][:RECORDS_MAX]
        ]
        answer = Answer(
            ask=ask,
            life=self.world.agents[peer].life,
            heads=self.shown_heads() if ask.heads else {},
            records=tuple(records),
            objects=tuple((wanted, found) for wanted in ask.objects if (found := self.find(wanted)) is not None),
            messages=self.machine.messages(ask.epoch) if ask.epoch is not None else (),
        )
        self.world.network.send(self.i, peer, answer)

    def shown_heads(self) -> dict[bytes, Head]:
        return {node_key: self.logs[node_key].head for node_key in self.logs}

    def find(self, wanted: ObjectId) -> bytes | None:
        if wanted.kind == "observation":
            held = (m for m in self.machine.messages(self.closing or 0) if isinstance(m, Observation))
            observation = next((m for m in held if m.digest == wanted.id), None) or self.journal.observation(wanted.id)
            return observation.wire if observation is not None else None
        landed = self.journal.checkpoint(wanted.id)
        return encode_checkpoint(landed) if landed is not None else None

    def take_answer(self, peer: int, answer: Answer) -> None:
        """Take over what a peer has more of, and ask it for the rest."""
        if answer.life != self.life:
            return  # whoever asked is gone
        self.witness.hear(key(peer).public, self.now_s)  # stands for `gossip.probing`: this agent drew the moment
        self.take_records(answer.records)
        for wanted, data in answer.objects:
            self.take_object(wanted, data)
        for message in answer.messages:
            if not isinstance(message, Observation) and not self.machine.holds(message.wire):
                self.take_message(kind_of(message), message.wire)
        known = {m.digest for m in self.machine.messages(self.closing or 0) if isinstance(m, Observation)}
        objects = tuple(
            ObjectId(kind="observation", id=m.digest)
            for m in answer.messages
            if isinstance(m, Observation) and m.digest not in known
        )
        ranges = sync.wanted_after(self.logs, answer.heads, self.now_s) + sync.branches_after(self.logs, answer.heads)
        if answer.ask.heads and not self.is_own_log_known:
            ranges += self.learn_own_log(peer, answer)
        if ranges or objects:
            self.ask(peer, Ask(ranges=ranges, objects=objects))

    def learn_own_log(self, peer: int, answer: Answer) -> tuple[RecordRange, ...]:
        """Count a peer all of whose knowledge of the own log is here, as `gossip.pull.recover_own_log` does."""
        log = self.logs[self.key.public]
        named = answer.heads.get(log.node_key, GENESIS)
        if named.seq > log.base.seq and not log.holds(named):
            return (RecordRange(log.node_key, log.base.seq + 1, named.seq),)
        self.heard.add(key(peer).public)
        operators = self.world.chain.operators
        weight = sum(o.weight for o in operators.operators if o.node_key in self.heard)
        self.is_own_log_known = operators.is_quorum(weight)
        return ()

    def take_object(self, wanted: ObjectId, data: bytes) -> None:
        try:
            if wanted.kind == "observation":
                message = read_message("observation", data)
                if isinstance(message, Observation) and message.digest == wanted.id:
                    self.handle(Heard(message))
            else:
                self.handle(CheckpointArrived(verify_checkpoint(data, wanted.id)))
        except InvalidMessageError as error:
            self.world.note(f"{self.i} refuses an object: {error}")
