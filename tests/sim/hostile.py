"""Hostile agents: each runs the real machine and tampers with what goes in and out, by its vices.

They know everything that any of them knows (`Cabal`), sign whatever serves them, and never stop. What they cannot
do is break a signature.

Source: PROTOCOL, "Failures that must be tested".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from pool_fixture import POOL

from contracts.model import Signature
from contracts.signing import SigningKey
from gossip.epoch_close import EpochClose
from gossip.epoch_events import Message, ObjectId, Submit
from gossip.errors import GossipError, InvalidMessageError
from gossip.log_chain import Head, Placement
from gossip.messages import (
    Attest,
    ListedObservation,
    Observation,
    Proposal,
    make_attest,
    make_observation,
    make_proposal,
)
from gossip.records import Body, ReceiptBody, Record, WorkBody, make_record
from gossip.round import Round
from gossip.settlement import Settlement, totals_root
from gossip.wire import RECORD, kind_of
from tests.sim.agent import ANY_TIME_S, SimAgent
from tests.sim.chain import key
from tests.sim.network import Ask, Gossip, read_message
from tests.sim.plan import Vice
from tests.sim.working import falsely_receipted, hostile_receipts, varied

if TYPE_CHECKING:
    from tests.sim.world import World

MISCHIEF_MS = 9_000
STOLEN_NANOTON = 1_000_000
"""From an epoch in which nobody earned anything."""
JUST_BEFORE_MS, OBSERVED_MS = 500, 8_000
"""Before the observation is due, and when everybody has observed, blocks read late included."""


class ForkWhen(Enum):
    """When one with the vice forks its log: what others can know of it by then differs."""

    ANY_TIME = 0
    BEFORE_OBSERVATION = 1
    """Each half of the pool has another branch, and no time to compare."""
    AFTER_OBSERVATION = 2
    """Everybody sees both branches, when nobody can report it any more."""


@dataclass(slots=True)
class Cabal:
    """What the hostile agents of a world know together."""

    settlements: dict[bytes, tuple[int, Settlement]] = field(default_factory=dict)
    """Set and settlement by certificate hash, false ones included."""
    signatures: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    """Of certificates, by certificate hash and operator."""
    observations: dict[bytes, Observation] = field(default_factory=dict)
    """Those that they made, by digest."""

    def take(self, message: Message) -> None:
        if isinstance(message, Attest):
            self.signatures.setdefault(message.cert_hash, {})[message.operator] = message.cert_signature


class HostileAgent(SimAgent):
    """An agent with vices."""

    is_honest = False

    def __init__(self, world: World, i: int, vices: frozenset[Vice]) -> None:
        super().__init__(world, i)
        self.vices = vices - {Vice.HOARD, Vice.WITHHOLD} if Vice.FORK in vices else vices  # a fork must be seen
        self.fork_when = world.rng.choice(list(ForkWhen)) if Vice.FORK in vices else None
        self._forked_epochs: set[int] = set()

    def start(self) -> None:
        super().start()
        if Vice.SILENT not in self.vices:
            self.every(MISCHIEF_MS, "mischief", self.mischief)

    def effect(self) -> None:
        """Nobody kills it."""

    # What it says.

    def say(self, gossip: Gossip) -> None:
        for peer in self._audience(gossip.kind):
            self.world.network.send(self.i, peer, gossip)

    def _audience(self, kind: str) -> list[int]:
        peers = self.world.peers_of(self.i)
        if Vice.SILENT in self.vices or (kind == RECORD and Vice.HOARD in self.vices):
            return []
        if Vice.WITHHOLD in self.vices:
            return [peer for peer in peers if self.world.rng.random() < 0.5]
        return peers

    def publish(self, message: Message) -> None:
        """Tell the truth, or each peer something of its own."""
        variants: list[Message] = [message]
        match message:
            case Observation() if self.vices & {Vice.LIE, Vice.EQUIVOCATE}:
                variants = [self._lie(message) for _ in range(3 if Vice.EQUIVOCATE in self.vices else 1)]
            case Proposal() if self.vices & {Vice.FALSE_ROOT, Vice.EQUIVOCATE}:
                variants = [*self._false_proposals(message)] or [message]
            case Attest():
                self.world.cabal.take(message)
        self.journal.keep_messages(message.epoch, variants)
        for peer in self._audience(kind_of(message)):
            told = self.world.rng.choice(variants)
            self.world.network.send(self.i, peer, Gossip(kind_of(told), told.wire))

    def _lie(self, truth: Observation) -> Observation:
        rng = self.world.rng
        logs = {}
        for node_key, seen in truth.logs.items():
            held = [Head(r.seq, r.hash) for r in self.journal.records(node_key, 1, seen.head.seq + 1)] or [seen.head]
            heads = [seen.head, seen.head, rng.choice(held), self.machine.base.reading(node_key).head]
            if rng.random() < 0.1:
                heads = [Head(seen.head.seq + rng.randint(0, 3), rng.randbytes(32))]
            seconds = (seen.witnessed_s, seen.witnessed_s // 2, 0, seen.witnessed_s + 10_000)
            tokens = (seen.worker_tokens, seen.worker_tokens, None, 0, (seen.worker_tokens or 0) + 10**9)
            logs[node_key] = replace(
                seen, head=rng.choice(heads), witnessed_s=rng.choice(seconds), worker_tokens=rng.choice(tokens)
            )
        observation = make_observation(
            self.key,
            POOL,
            epoch=truth.epoch,
            set_id=truth.set_id,
            policy_hash=truth.policy_hash,
            base=truth.base if rng.random() < 0.9 else rng.randbytes(32),
            logs=logs,
            forks=truth.forks if rng.random() < 0.5 else (),
        )
        self.world.cabal.observations[observation.digest] = observation
        return observation

    def _false_proposals(self, truth: Proposal) -> Iterator[Proposal]:
        """Other lists than the true one, shorter than a quorum too, and totals that follow from none."""
        round_, rng = open_round(self.machine), self.world.rng
        if round_ is None:
            return
        settlement = round_.outcomes.get(truth.cert_hash)
        if Vice.FALSE_ROOT in self.vices and settlement is not None:
            stolen = self._steal(settlement)
            cert_hash = round_.cert_hash(stolen)
            self.world.cabal.settlements[cert_hash] = (truth.set_id, stolen)
            self._attest(truth.epoch, cert_hash)
            yield self._propose(truth, truth.listed, cert_hash)
        for _ in range(2 if Vice.EQUIVOCATE in self.vices else 0):
            listed = rng.sample(truth.listed, rng.randint(1, len(truth.listed)))
            known = [round_.observations[item.digest] for item in listed if item.digest in round_.observations]
            try:
                outcome = self.machine._compute(round_, known)
            except GossipError:
                continue
            self.world.cabal.settlements[round_.cert_hash(outcome)] = (truth.set_id, outcome)
            yield self._propose(truth, tuple(sorted(listed, key=lambda item: item.index)), round_.cert_hash(outcome))

    def _propose(self, truth: Proposal, listed: tuple[ListedObservation, ...], cert_hash: bytes) -> Proposal:
        return make_proposal(
            self.key, POOL, epoch=truth.epoch, view=truth.view, set_id=truth.set_id, listed=listed, cert_hash=cert_hash
        )

    def _steal(self, settlement: Settlement) -> Settlement:
        """The same settlement, but the first one named gets what others earned."""
        first, *others = settlement.leaves
        halves = [leaf.earned_nanoton // 2 for leaf in others]
        stolen = sum(halves) or STOLEN_NANOTON
        leaves = (
            replace(first, earned_nanoton=first.earned_nanoton + stolen),
            *(replace(o, earned_nanoton=o.earned_nanoton - half) for o, half in zip(others, halves, strict=True)),
        )
        payload = replace(
            settlement.payload,
            totals_root=totals_root(leaves),
            total_earned_nanoton=sum(leaf.earned_nanoton for leaf in leaves),
        )
        return replace(settlement, leaves=leaves, payload=payload)

    def _attest(self, epoch: int, cert_hash: bytes) -> None:
        attest = make_attest(self.key, POOL, epoch=epoch, cert_hash=cert_hash)
        self.world.cabal.take(attest)
        self.say(Gossip(kind_of(attest), attest.wire))

    # What it hears.

    def take_message(self, kind: str, wire: bytes) -> None:
        try:
            message = read_message(kind, wire)
        except InvalidMessageError:
            return
        self.world.cabal.take(message)
        if isinstance(message, Proposal) and message.leader != self.key.public:
            is_false = message.cert_hash in self.world.cabal.settlements
            if Vice.CONSENT in self.vices or (is_false and Vice.FALSE_ROOT in self.vices):
                self._attest(message.epoch, message.cert_hash)
        super().take_message(kind, wire)

    def serve(self, peer: int, ask: Ask) -> None:
        if Vice.SILENT in self.vices or (Vice.WITHHOLD in self.vices and self.world.rng.random() < 0.5):
            return
        super().serve(peer, ask)

    def shown_heads(self) -> dict[bytes, Head]:
        heads = super().shown_heads()
        if Vice.HOARD in self.vices:
            heads.pop(self.key.public, None)
        return heads

    def find(self, wanted: ObjectId) -> bytes | None:
        found = super().find(wanted)
        if found is None and wanted.id in self.world.cabal.observations:
            return self.world.cabal.observations[wanted.id].wire
        return self._garbled(found) if found is not None and Vice.FORGE in self.vices else found

    # Its log.

    def append(self, body: Body) -> None:
        head = self.logs[self.key.public].head
        forks = self.fork_when is ForkWhen.ANY_TIME and self.world.rng.random() < 0.3
        for twin in range(1 + forks):
            self._sign(head, varied(body, twin, self.key.public), self.world.peers_of(self.i)[twin :: 1 + forks])

    def poll(self) -> None:
        """Besides, fork the log once in the close of every epoch, if that is when."""
        super().poll()
        round_ = open_round(self.machine)
        if round_ is None or round_.frame.epoch in self._forked_epochs:
            return
        self._forked_epochs.add(round_.frame.epoch)
        to_observation_ms = (round_.observe_s - self.world.now_s) * 1000
        if self.fork_when is ForkWhen.BEFORE_OBSERVATION:
            self.world.after(max(0, to_observation_ms - JUST_BEFORE_MS), f"{self.i} splits its log", self._split)
        elif self.fork_when is ForkWhen.AFTER_OBSERVATION:
            self.world.after(max(0, to_observation_ms) + OBSERVED_MS, f"{self.i} forks its log", self._fork_the_last)

    def _split(self) -> None:
        """Continue the log for one half of the pool in one way, for the other in another."""
        last = self._last()
        for twin in range(2):
            if last is None:
                return
            body = self._next_work(last.body, twin)
            self._sign(Head(last.seq, last.hash), body, self.world.peers_of(self.i)[twin::2])

    def _fork_the_last(self) -> None:
        """Show everybody another last record than there was."""
        last = self._last()
        if last is not None:
            body = varied(last.body, 1, self.key.public)
            self._sign(Head(last.seq - 1, last.prev_hash), body, self.world.peers_of(self.i))

    def _last(self) -> Record | None:
        return next(reversed([*self.journal.records(self.key.public, 2, 1 << 30)]), None)

    def _next_work(self, body: Body, by: int) -> Body:
        """Work of one second more, so that it ends before now."""
        if not isinstance(body, WorkBody):
            return body
        made = varied(body, by, self.key.public)
        assert isinstance(made, WorkBody)
        watched = tuple(replace(reading, gap_s=0) for reading in made.readings)
        return replace(made, start_s=body.end_s, end_s=body.end_s + 1, readings=watched)

    def _sign(self, parent: Head, body: Body, peers: Iterable[int]) -> None:
        record = make_record(self.key, POOL, parent.seq + 1, parent.hash, body)
        try:
            placement = self.logs.insert(record, now_s=ANY_TIME_S)
        except InvalidMessageError:
            return
        self.logs[self.key.public].fork = None  # it does not accuse itself
        if placement in (Placement.EXTENDED, Placement.FORKED, Placement.SETTLED):
            self.journal.append([record])
            audience = set(self._audience(RECORD))
            for peer in peers:
                if peer in audience:
                    self.world.network.send(self.i, peer, Gossip(RECORD, record.wire))

    def hand_in(self, start_s: int, end_s: int) -> None:
        """Write down what serves it, and what its log has already; show beside its log what does not hold in it."""
        if Vice.RECEIPTS not in self.vices:
            super().hand_in(start_s, end_s)
            return
        false = falsely_receipted(self.world.rng, self.i, self.logs[self.key.public].head, end_s)
        for peer in self._audience(RECORD):
            self.world.network.send(self.i, peer, Gossip(RECORD, false))
        seen = [
            receipt
            for record in self.journal.records(self.key.public, 2, 1 << 30)
            if isinstance(record.body, ReceiptBody)
            for receipt in record.body.receipts
        ]
        self.append(hostile_receipts(self.world.rng, self.i, end_s, seen))

    # What it does unasked.

    def submit(self, submit: Submit) -> None:
        if Vice.SILENT not in self.vices and Vice.HOLD_BACK not in self.vices:
            super().submit(submit)

    def mischief(self) -> None:
        rng = self.world.rng
        if self.vices & {Vice.HOLD_BACK, Vice.FALSE_ROOT, Vice.EQUIVOCATE}:
            self._submit_something()
        if self.fork_when is ForkWhen.ANY_TIME and rng.random() < 0.5:
            self._fork_the_past()
        if Vice.FORGE in self.vices:
            kind, wire = self._forged()
            self.world.network.send(self.i, rng.choice(self.world.peers_of(self.i)), Gossip(kind, wire))

    def _submit_something(self) -> None:
        """Send a settlement with whatever signatures the cabal has for it, whenever that is."""
        cabal, round_ = self.world.cabal, open_round(self.machine)
        if round_ is not None:
            outcomes = {h: (round_.domain.set_id, outcome) for h, outcome in round_.outcomes.items()}
            cabal.settlements.update(outcomes)
        signed = [cert_hash for cert_hash in cabal.settlements if cabal.signatures.get(cert_hash)]
        if not signed:
            return
        cert_hash = self.world.rng.choice(signed[-3:])
        set_id, settlement = cabal.settlements[cert_hash]
        operators = next(known for known in self.world.plan.sets if known.set_id == set_id)
        indexed = {operators.index_of(o): signature for o, signature in cabal.signatures[cert_hash].items()}
        signatures = tuple(
            Signature(index=index, signature=indexed[index]) for index in sorted(i for i in indexed if i is not None)
        )
        submit = Submit(settlement=settlement, set_id=set_id, signatures=signatures, turn=0)
        self.world.transact(self.i, "submit", lambda: self.world.settle(self, submit))

    def _fork_the_past(self) -> None:
        """Sign another record for some number of the own log, and show it to one peer."""
        rng = self.world.rng
        past = [r for r in self.journal.records(self.key.public, 2, 1 << 30) if isinstance(r.body, WorkBody)]
        if past:
            old: Record = rng.choice(past[-6:])
            peer = rng.choice(self.world.peers_of(self.i))
            body = varied(old.body, rng.randint(1, 50), self.key.public)
            self._sign(Head(old.seq - 1, old.prev_hash), body, [peer])

    def _forged(self) -> tuple[str, bytes]:
        """Something that nobody may take: cut short, changed, or signed by another than it names."""
        rng = self.world.rng
        victim = rng.choice(self.world.peers_of(self.i))
        false = _FalseKey(self.key, key(victim).public)
        kept = [(kind_of(m), m.wire) for m in self.machine.messages(self.closing or 0)]
        known = [*self.journal.records(key(victim).public, 1, 1 << 30)]
        last = known[-1] if known else None
        if last is not None:
            kept.append((RECORD, forged_record(false, last)))
        kind, wire = rng.choice(kept or [(RECORD, rng.randbytes(200))])
        return kind, wire if kind == RECORD and rng.random() < 0.5 else self._garbled(wire)

    def _garbled(self, wire: bytes) -> bytes:
        rng = self.world.rng
        at = rng.randrange(len(wire))
        return rng.choice(
            (wire[:at], wire[:at] + bytes([wire[at] ^ rng.randint(1, 255)]) + wire[at + 1 :], wire + b"\0")
        )


class _FalseKey(SigningKey):
    """Signs with one's own key in the name of another."""

    __slots__ = ("_own",)

    def __init__(self, own: SigningKey, public: bytes) -> None:
        self._own = own
        self.public = public

    def sign(self, message: bytes) -> bytes:
        return self._own.sign(message)


def forged_record(false: SigningKey, last: Record) -> bytes:
    """A next record of somebody else's log."""
    return make_record(false, POOL, last.seq + 1, last.hash, varied(last.body, 1, last.node_key)).wire


def open_round(machine: EpochClose) -> Round | None:
    """The machine's state of the open epoch: the hostile read their own memory."""
    return machine._round
