"""The epoch's close, and where a record stands, as the code shows them when it is driven.

Nothing here says what should be. A pool of machines closes one epoch, and who did what becomes a sequence diagram;
a machine is brought into each situation, each thing that can happen is tried in it, and what changed becomes an
arrow; a record of each sort is offered to a log, and the answer becomes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from pool_fixture import (
    EPOCH_S,
    POOL,
    START_S,
    Agent,
    Author,
    Chain,
    Pool,
    fill,
    frame,
    key,
    operator_set,
    run_epoch,
    work,
    write_work,
)

from contracts.model import ZERO_HASH, Landed
from gossip.epoch_events import (
    Action,
    CheckpointArrived,
    Event,
    Finalize,
    Heard,
    Message,
    Persist,
    Publish,
    Settled,
    Submit,
    maker_of,
)
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head, Log
from gossip.messages import Attest, Observation, Proposal
from gossip.records import CloseBody, Record, make_record
from gossip.round import Round
from gossip.settlement import Settlement

OPERATORS = 4
TIMING = frame(OPERATORS).policy.timing

# ---- one epoch, as a sequence ----


@dataclass(frozen=True, slots=True)
class Did:
    """One action of one operator at a time of the chain, in seconds after the epoch's end."""

    time_s: int
    operator: int
    action: Action


@cache
def one_epoch() -> tuple[tuple[Did, ...], int]:
    """What four operators did to settle the first epoch, in order; and who led view 0."""
    pool, did = Pool(OPERATORS), list[Did]()
    write_work(pool)
    end_s = pool.chain.end_s
    for agent in pool.agents:

        def handle(
            event: Event, agent: Agent = agent, real: Callable[[Event], list[Action]] = agent.machine.handle
        ) -> list[Action]:
            actions = real(event)
            did.extend(Did(pool.chain.now_s - end_s, agent.i, action) for action in actions)
            return actions

        agent.machine.handle = handle  # type: ignore[method-assign]
    run_epoch(pool)
    return tuple(did), Round(frame(OPERATORS), POOL, 0).leader_of(0)


def sequence() -> str:
    """The epoch as a Mermaid sequence diagram. What several followers do one after another is one arrow."""
    did, leader = one_epoch()
    lines = ["sequenceDiagram", "    participant L as leader of view 0", "    participant F as followers"]
    lines += ["    participant J as own journal", "    participant T as topic", "    participant C as chain"]
    now_s, said = None, set[str]()
    for each in did:
        if each.time_s != now_s:
            now_s, said = each.time_s, set()
            lines.append(f"    Note over L,C: the epoch's end + {now_s} s")
        who = "L" if each.operator == leader else "F"
        line = f"    {_arrow(who, each.action)}"
        if line not in said:
            lines.append(line)
        said.add(line)
    return _mermaid(lines)


def _arrow(who: str, action: Action) -> str:
    match action:
        case Finalize():
            return f"{who}->>C: finalize the epoch"
        case Persist(landed=landed) if landed is not None:
            return f"{who}->>J: the settlement that landed"
        case Persist(messages=messages):
            return f"{who}->>J: {_named(messages)}"
        case Publish(message):
            return f"{who}->>T: {_name(message)}"
        case Submit(signatures=signatures):
            return f"{who}->>C: certificate with {len(signatures)} signatures"
        case Settled():
            return f"Note over {who}: base of the next epoch"
        case refused:
            raise AssertionError(refused)


def _name(message: Message) -> str:
    return type(message).__name__.lower()


def _named(messages: Iterable[Message]) -> str:
    names = [_name(message) for message in messages]
    counted = [(name, names.count(name)) for name in dict.fromkeys(names)]
    return ", ".join(name if count == 1 else f"{count} {name}s" for name, count in counted)


# ---- one node's close, as states ----

IDLE, WAITING, OBSERVED, ATTESTED = "no epoch open", "finalized", "observed", "attested"
CERTIFIED, BEHIND = "certified", "behind the chain"


@dataclass(frozen=True, slots=True)
class Epoch:
    """Everything that was said of one epoch, and what landed: what any one node may hear of it."""

    messages: tuple[Message, ...]
    outcome: Settlement
    records: tuple[Record, ...]

    @property
    def another_outcome(self) -> Settlement:
        """What nobody computed here, as another list of observations may give it."""
        return replace(self.outcome, payload=replace(self.outcome.payload, tokens=self.outcome.payload.tokens + 1))

    def of(self, kind: type[Message], *, but: int) -> list[Message]:
        """The messages of one kind, without those of operator `but`."""
        return [m for m in self.messages if isinstance(m, kind) and maker_of(m) != key(but).public]


@cache
def said_of_one_epoch() -> Epoch:
    pool = Pool(OPERATORS)
    write_work(pool)
    said: dict[bytes, Message] = {}

    def listen(_sender: int, message: Message) -> Message:
        said[message.wire] = message
        return message

    pool.tamper = listen
    run_epoch(pool)
    records = tuple(record for author in pool.authors for record in author.records)
    return Epoch(tuple(said.values()), pool.agents[0].settled[0], records)


class Scene:
    """One machine of the pool and the chain that it sees; the others are what it hears of them."""

    def __init__(self, operator: int) -> None:
        self.epoch, self.chain, self.operator = said_of_one_epoch(), Chain(operator_set(OPERATORS)), operator
        self.agent = Agent(operator, OPERATORS)
        fill(self.agent.logs, self.epoch.records)
        self.look()

    def look(self) -> None:
        self.agent.advance(self.chain)

    def wait_until(self, after_end_s: int) -> None:
        """Let the chain's time come to so many seconds after the first epoch's end, and look at it."""
        self.chain.now_s = START_S + EPOCH_S + after_end_s
        self.look()

    def hear(self, kind: type[Message]) -> None:
        for message in self.epoch.of(kind, but=self.operator):
            self.agent.machine.handle(Heard(message))

    def land(self, settlement: Settlement) -> None:
        payload = settlement.payload
        self.chain.open.clear()
        self.chain.landed = Landed(
            epoch=payload.epoch,
            payload_hash=settlement.payload_hash,
            totals_root=payload.totals_root,
            previous_root=ZERO_HASH,
            total_earned_nanoton=payload.total_earned_nanoton,
            settled_s=self.chain.now_s,
        )
        self.look()

    @property
    def state(self) -> str:
        machine = self.agent.machine
        if any(getattr(wanted, "kind", None) == "checkpoint" for wanted in machine.wanted):
            return BEHIND
        progress = machine.progress()
        if progress is None:
            return IDLE
        held = machine.messages(progress.epoch)
        own = {type(message) for message in held if maker_of(message) == key(self.operator).public}
        if progress.certified:
            return CERTIFIED
        return ATTESTED if Attest in own else OBSERVED if Observation in own else WAITING


def finalized(scene: Scene) -> None:
    scene.wait_until(0)
    scene.chain.finalize(1)
    scene.look()


def observing(scene: Scene) -> None:
    finalized(scene)
    scene.wait_until(TIMING.settle_delay_s)


def view_opened(scene: Scene) -> None:
    scene.hear(Observation)
    scene.wait_until(TIMING.settle_delay_s + TIMING.collect_s)


def following(scene: Scene) -> None:
    observing(scene)
    view_opened(scene)


def voting(scene: Scene) -> None:
    following(scene)
    scene.hear(Proposal)


def certifying(scene: Scene) -> None:
    voting(scene)
    scene.hear(Attest)


def own_landed(scene: Scene) -> None:
    scene.land(scene.epoch.outcome)


def another_landed(scene: Scene) -> None:
    scene.land(scene.epoch.another_outcome)


def set_replaced(scene: Scene) -> None:
    scene.chain.open[0] = replace(scene.chain.open[0], pinned=replace(scene.chain.open[0].pinned, set_id=0))
    scene.chain.rotate(operator_set(OPERATORS, set_id=2))
    scene.look()


Happening = Callable[[Scene], object]

SITUATIONS: tuple[Happening, ...] = (
    lambda scene: None,
    finalized,
    observing,
    following,
    voting,
    certifying,
    another_landed,
)


@dataclass(frozen=True, slots=True)
class Try:
    """Something that can happen, and in which states it can."""

    happen: Happening
    states: tuple[str, ...]


HAPPENINGS: dict[str, Try] = {
    "the epoch is finalized": Try(finalized, (IDLE,)),
    "settle_delay_s passes": Try(lambda scene: scene.wait_until(TIMING.settle_delay_s), (WAITING,)),
    "a view opens that it leads": Try(view_opened, (OBSERVED,)),
    "a proposal of an open view holds": Try(lambda scene: scene.hear(Proposal), (OBSERVED, ATTESTED)),
    "attests exceed two thirds": Try(lambda scene: scene.hear(Attest), (OBSERVED, ATTESTED, CERTIFIED)),
    "what it computed lands": Try(own_landed, (ATTESTED, CERTIFIED)),
    "something else lands": Try(another_landed, (IDLE, WAITING, OBSERVED, ATTESTED, CERTIFIED)),
    "its checkpoint comes": Try(
        lambda scene: scene.agent.machine.handle(CheckpointArrived(scene.epoch.another_outcome)), (BEHIND,)
    ),
    "another set settles instead": Try(set_replaced, (WAITING, OBSERVED, ATTESTED, CERTIFIED)),
}


def close_edges() -> Iterator[tuple[str, str, str]]:
    """Arrows between the states of a machine: each happening in each situation, for a leader and for a follower."""
    leader = one_epoch()[1]
    for arrange in SITUATIONS:
        for label, attempt in HAPPENINGS.items():
            for operator in (leader, (leader + 1) % OPERATORS):
                scene = Scene(operator)
                arrange(scene)
                before = scene.state
                if before in attempt.states:
                    attempt.happen(scene)
                    if scene.state != before:
                        yield before, label, scene.state


def states() -> str:
    """The machine of one node as a Mermaid state diagram."""
    names = [IDLE, WAITING, OBSERVED, ATTESTED, CERTIFIED, BEHIND]
    labels: dict[tuple[int, int], list[str]] = {}
    for before, label, after in close_edges():
        known = labels.setdefault((names.index(before), names.index(after)), [])
        if label not in known:
            known.append(label)
    lines = ["stateDiagram-v2", *(f"    s{i} : {name}" for i, name in enumerate(names)), "    [*] --> s0"]
    lines += [f"    s{a} --> s{b} : {' / '.join(said)}" for (a, b), said in sorted(labels.items())]
    return _mermaid(lines)


# ---- where a record stands ----


def placements() -> str:
    """A table: what is offered to a log of records 1 (settled) to 4, and where the log says that it stands."""
    author = Author(0)
    author.prove()
    for _ in range(3):
        author.work()
    settled, second, third, last = author.records
    log = Log(key(0).public)
    for record in author.records:
        log.insert(record, now_s=START_S + 1000, window_max_s=60)
    log.rebase(Head(1, settled.hash), START_S)
    late = make_record(key(0), POOL, 5, last.hash, work(START_S + 2000, START_S + 2010, 1, settled.hash))
    offered = {
        "follows the last record": (5, last.hash, work(START_S + 30, START_S + 40, 1, settled.hash)),
        "is held already": None,
        "has the number of a settled one": (1, bytes(32), CloseBody()),
        "follows one that is not here": (7, bytes(32), CloseBody()),
        "is another one with a number that is held": (3, second.hash, CloseBody()),
        "has a window that ends in the future": None,
        "has a window that starts before the last one ended": (
            5,
            last.hash,
            work(START_S, START_S + 5, 1, settled.hash),
        ),
        "has a number that does not follow its predecessor's": (9, third.hash, CloseBody()),
    }
    rows = ["| a record that | stands |", "|---|---|"]
    for what, fields in offered.items():
        record = make_record(key(0), POOL, *fields) if fields else last if "already" in what else late
        try:
            stands = log.place(record, now_s=START_S + 1000, window_max_s=60).value
        except InvalidMessageError as error:
            stands = f"refused: {str(error).partition(': ')[2]}"
        rows.append(f"| {what} | {stands} |")
    return "\n".join(rows) + "\n"


def _mermaid(lines: Iterable[str]) -> str:
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"
