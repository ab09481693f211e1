"""The watch: sees everything that happens in a world, and says when something does not hold.

Numbers are those of PROTOCOL, "Invariants":

1. Each epoch settles once, and what settles follows from the observations of more than two thirds of the weight:
   the auditor recomputes it from the journal of an honest attester alone, and attesters of more than a third hold it.
2. What every honest operator that is listed held when it observed is in the cut; nothing is that none of them held.
3. Each record counts once, in the order of its log; leaves add up; figures are those of the plain rules.
4. No honest node shows two records of one number, or anything that is not durable.
5. No honest node's log counts as forked, and none is accused.
6. Healed, an epoch settles within f + 2 views; what was recorded while it stalled is settled then.
7. So it does without any gossip: some seeds have none (`Plan.gossip_loss`).
8. No honest node adopts anything but what landed, sends what the contracts must refuse, or holds more than its limits.

What needs an honest majority (2, the holders of 1, and 6) is watched while the hostile have less than a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pool_fixture import EPOCH_S, START_S

from contracts import certificate
from contracts.model import Address, OperatorSet
from gossip.epoch_events import Message, Submit
from gossip.errors import GossipError
from gossip.log_chain import Head
from gossip.messages import Attest, Observation, Proposal
from gossip.records import Record
from gossip.round import (
    ATTESTS_PER_OPERATOR_MAX,
    OBSERVATIONS_PER_OPERATOR_MAX,
    OUTCOMES_MAX,
    PROPOSALS_PER_LEADER_MAX,
)
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame
from tests.sim.agent import CLOSE_MS, SimAgent, written_s
from tests.sim.audit import PlainBooks, PlainCut, plain_cut, recompute
from tests.sim.chain import domain, key
from tests.sim.plan import AHEAD_S, weight_of
from tests.sim.working import paid

if TYPE_CHECKING:
    from tests.sim.world import World

SPREAD_S = 50
"""So long after healing, whatever an honest node recorded before is everywhere."""
SLACK_S = 45
"""For blocks that are read late, fetching, and one's turn to submit."""
ADOPT_S = 60
MEMORY_STEPS = 50
BEYOND_F_S = 150
"""How long the world goes on when nothing need settle."""


class BrokenError(Exception):
    """An invariant does not hold."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise BrokenError(reason)


class Watch:
    """Everything that must hold in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._honest = [agent for agent in world.agents if agent.is_honest]
        self._hostile_keys = {agent.key.public for agent in world.agents if not agent.is_honest}
        self._shown: dict[tuple[bytes, int], bytes] = {}
        self._bases: dict[int, Base] = {}
        self._observed: dict[bytes, tuple[Observation, Mapping[bytes, int]]] = {}
        """Of honest operators, by digest: what they said, and the seconds that they had really witnessed."""
        self._settled: list[Base] = [Base()]
        """What landed, by epoch, as the auditor has it."""
        self.books = PlainBooks.empty()
        self._is_within_f = world.plan.is_within_f
        self._faulty = max(_operators_among(operators, {*world.plan.hostile}) for operators in world.plan.sets)
        # Without gossip each must meet the maker of every observation, and asks one peer at a time, drawn at random.
        self._spread_s = 3 * world.plan.agents * CLOSE_MS // 1000 if world.plan.gossip_loss else 0
        heal_s = world.plan.heal_s
        self._last_epoch = max(2, -(-(heal_s + SPREAD_S) // EPOCH_S))

    # What an honest agent does.

    def shown(self, agent: SimAgent, record: Record) -> None:
        """It sends a record of its own log (4)."""
        first = self._shown.setdefault((record.node_key, record.seq), record.hash)
        require(first == record.hash, f"{agent.i} shows two records with number {record.seq}")
        require(agent.journal.has_record(record), f"{agent.i} shows record {record.seq}, which is not durable")

    def kept(self, agent: SimAgent, messages: Iterable[Message]) -> None:
        """It made messages durable; what it observed is true, and so are the records that it names (4, 5)."""
        for message in messages:
            own = isinstance(message, Observation) and message.operator == agent.key.public and agent.is_honest
            if isinstance(message, Observation) and own and message.digest not in self._observed:
                # Said again, to prove another fork, it tells of the moment when it was said first.
                first = (
                    seen
                    for told, seen in self._observed.values()
                    if (told.operator, told.epoch, told.logs) == (message.operator, message.epoch, message.logs)
                )
                self._observed[message.digest] = message, next(first, None) or dict(agent.witnessed_s)
                for node_key, log in message.logs.items():
                    held = agent.logs[node_key]
                    require(held.holds(log.head), f"{agent.i} observes a head that it does not have")
                    durable = log.head == held.base or agent.journal.has_record(held.record(log.head.hash))
                    require(durable, f"{agent.i} observes a head that is not durable")
                for fork in message.forks:
                    require(fork.node_key in self._hostile_keys, f"{agent.i} accuses an honest node")

    def said(self, agent: SimAgent, message: Message) -> None:
        """It publishes a message; what stands behind an attest is durable (4)."""
        require(agent.journal.has_message(message), f"{agent.i} says what is not durable")
        if isinstance(message, Attest):
            require(bool(self._proofs(agent, message.epoch, message.cert_hash)), f"{agent.i} attests without its proof")

    def adopted(self, agent: SimAgent, settlement: Settlement) -> None:
        """It takes a settlement for what landed (8)."""
        epoch = settlement.payload.epoch
        require(
            epoch < len(self._settled) and settlement.payload_hash == self._settled[epoch].payload_hash,
            f"{agent.i} adopts for epoch {epoch} what did not land",
        )

    # What lands.

    def judged(self, sender: SimAgent, submit: Submit, outcome: str) -> None:
        """The contracts took or refused a settlement."""
        if outcome == "landed":
            self._landed(submit)
        elif sender.is_honest:
            require(outcome == "settled already", f"{sender.i} submits what is refused: {outcome}")

    def _landed(self, submit: Submit) -> None:
        world, settlement = self._world, submit.settlement
        epoch = settlement.payload.epoch
        require(epoch == len(self._settled), f"epoch {epoch} settles out of turn")
        operators = next(known for known in world.plan.sets if known.set_id == submit.set_id)
        frame = replace(world.chain.frames[epoch], operators=operators)
        cert_hash = bytes(certificate.settle_certificate(domain(submit.set_id), settlement.payload).hash)
        proofs = {agent.i: self._proofs(agent, epoch, cert_hash) for agent in self._honest}
        holders = [agent for agent in self._honest if proofs[agent.i]]
        held = weight_of(operators, {agent.i for agent in holders})
        require(held > 0, f"epoch {epoch} settles without any honest attester")
        if self._is_within_f:
            require(operators.is_witnessed(held), f"epoch {epoch} settles with too few honest holders")
        holder = holders[world.step % len(holders)]
        listed = proofs[holder.i][0]
        weight = sum(operators.operators[operators.index_of(o.operator) or 0].weight for o in listed)
        require(operators.is_quorum(weight), f"epoch {epoch} settles by observations of too little weight")
        if self._is_within_f:
            self._check_bounds(settlement, listed)
        self._audit(frame, settlement, listed, [*holder.journal.all_records()])
        for node_key, reading in settlement.readings.items():
            require(not reading.dead or node_key in self._hostile_keys, "the log of an honest node counts as forked")
        self._settled.append(settlement.base())

    def _audit(
        self, frame: EpochFrame, settlement: Settlement, listed: list[Observation], records: list[Record]
    ) -> None:
        """Recompute what landed by the real rules, and by the plain ones (1, 3)."""
        base = self._settled[-1]
        try:
            audited = recompute(frame, base, listed, records, self._world.rng)
        except GossipError as error:
            raise BrokenError(f"epoch {frame.epoch}: an attester's journal does not prove it: {error}") from error
        require(audited.payload == settlement.payload, f"epoch {frame.epoch}: an auditor finds other totals")
        by_hash = {record.hash: record for record in records}
        cuts: dict[bytes, PlainCut] = {
            participant.node_key: plain_cut(frame.operators, base, listed, participant.node_key, by_hash)
            for participant in frame.participants
        }
        for node_key, cut in cuts.items():
            reading = audited.readings[node_key]
            found = reading.head, reading.dead, reading.witnessed_s
            require(found == (cut.head, cut.dead, cut.witnessed_s), f"epoch {frame.epoch}: not cut by the plain rules")
            for record in cut.counted:
                known = self._shown.get((node_key, record.seq), record.hash)
                require(known == record.hash, "a record counts that its author never showed")
        figures = self.books.take(frame, cuts)
        for leaf in audited.leaves:
            figure = leaf.uptime_s, leaf.tokens, leaf.tasks
            require(figure == figures[leaf.participant], f"epoch {frame.epoch}: not the figures of the plain rules")
        earned = sum(leaf.earned_nanoton for leaf in audited.leaves)
        require(earned == settlement.payload.total_earned_nanoton, f"epoch {frame.epoch}: leaves do not add up")

    def _check_bounds(self, settlement: Settlement, listed: list[Observation]) -> None:
        """The cut lies between what all and what any honest operator held; so do the witnessed seconds (2)."""
        epoch, before = settlement.payload.epoch, self._settled[-1]
        true = [self._observed[o.digest] for o in listed if o.digest in self._observed]
        all_true = [pair for pair in self._observed.values() if pair[0].epoch == epoch]
        for node_key, reading in settlement.readings.items():
            if node_key not in listed[0].logs:
                continue
            old = before.reading(node_key)
            most = max((o.logs[node_key].head.seq for o, _ in all_true if node_key in o.logs), default=0)
            require(reading.head.seq <= max(most, old.head.seq), f"epoch {epoch} counts what no honest operator held")
            if node_key not in self._hostile_keys:
                least = min(o.logs[node_key].head.seq for o, _ in true)
                require(reading.head.seq >= least, f"epoch {epoch} loses what every honest operator held")
            seconds = [witnessed.get(node_key, 0) for _, witnessed in true]
            most_s = max(witnessed.get(node_key, 0) for _, witnessed in all_true)
            worker = reading.payments.worker
            most_paid = paid(Address(0, worker), self._world.now_s) if worker is not None else 0
            require(reading.payments.worker_tokens <= most_paid, f"epoch {epoch} credits what the chain did not pay")
            require(reading.witnessed_s >= min(seconds), f"epoch {epoch} loses witnessed uptime")
            require(reading.witnessed_s <= max(most_s, old.witnessed_s), f"epoch {epoch} credits what nobody witnessed")

    def _proofs(self, agent: SimAgent, epoch: int, cert_hash: bytes) -> list[list[Observation]]:
        """What a journal holds behind its own attest: the listed observations of each such proposal."""
        messages = agent.journal.messages(epoch)
        own = (m for m in messages if isinstance(m, Attest) and m.operator == agent.key.public)
        if not any(attest.cert_hash == cert_hash for attest in own):
            return []
        observations = {m.digest: m for m in messages if isinstance(m, Observation)}
        proposals = [m for m in messages if isinstance(m, Proposal) and m.cert_hash == cert_hash]
        return [
            [observations[item.digest] for item in proposal.listed]
            for proposal in proposals
            if all(item.digest in observations for item in proposal.listed)
        ]

    # After every step.

    def check(self) -> None:
        """What can be seen at any time; ends the world when there is nothing more to see."""
        for agent in self._honest:
            base = agent.machine.base
            if agent.is_up and self._bases.get(agent.i) is not base:
                self._bases[agent.i] = base
                landed = base.epoch < len(self._settled) and self._settled[base.epoch].payload_hash
                require(base.payload_hash == landed, f"{agent.i} builds on what did not land")
                forked = {fork.node_key for fork in agent.logs.forks()}
                require(forked <= self._hostile_keys, f"{agent.i} holds a fork of an honest log")
        world = self._world
        if world.step % MEMORY_STEPS == 0:
            self._check_memory()
        if not self._is_within_f:
            world.is_done = world.elapsed_s >= world.plan.heal_s + BEYOND_F_S
        elif world.is_healed:
            self._check_progress()

    def _check_memory(self) -> None:
        """What a machine holds of the open epoch stays within its limits (8)."""
        for agent in self._honest:
            round_ = agent.machine._round
            if agent.is_up and round_ is not None:
                n = len(round_.frame.operators.operators)
                require(len(round_.observations) <= n * OBSERVATIONS_PER_OPERATOR_MAX, "too many observations held")
                require(len(round_.proposals) <= n * PROPOSALS_PER_LEADER_MAX, "too many proposals held")
                require(round_.pending.keys() <= round_.proposals.keys(), "a proposal to judge is not held")
                require(len(round_.attests) <= n * ATTESTS_PER_OPERATOR_MAX, "too many attests held")
                require(len(round_.outcomes) <= OUTCOMES_MAX, "too many outcomes held")

    def _check_progress(self) -> None:
        """Epochs open, settle and are adopted in time (6)."""
        world, chain, timing = self._world, self._world.chain, self._world.chain.policy.timing
        now_s, heal_s, n = world.elapsed_s, world.plan.heal_s, len(world.plan.operators.operators)
        turns_s = n * timing.stage_s + SLACK_S
        require(now_s <= max(heal_s, chain.end_s - START_S) + turns_s, f"nobody finalizes epoch {chain.epoch}")
        if chain.open:
            oldest = chain.open[0]
            before_s = chain.landed_s.get(oldest.epoch - 1, 0)
            open_s = oldest.finalized_s - START_S
            start_s = max(heal_s, oldest.end_s - START_S + timing.settle_delay_s, before_s, open_s)
            views_s = timing.collect_s + (self._faulty + 2) * timing.view_s
            require(now_s <= start_s + views_s + turns_s + self._spread_s, f"epoch {oldest.epoch} does not settle")
        if chain.landed.epoch >= self._last_epoch:
            if all(agent.machine.base.epoch >= self._last_epoch for agent in self._honest):
                self._check_end()
                world.is_done = True
            adopt_s = max(heal_s, chain.landed_s[self._last_epoch]) + ADOPT_S
            require(now_s <= adopt_s, f"not all adopt epoch {self._last_epoch}")

    def _check_end(self) -> None:
        """What was recorded before things healed is settled (6)."""
        world = self._world
        base = self._settled[self._last_epoch]
        for agent in self._honest:
            if world.plan.join_s and agent.i == world.plan.agents - 1:
                continue  # its log is taken from an epoch on that may come after the exchange that heals
            head: Head = base.reading(agent.key.public).head
            written = 0
            for record in agent.journal.records(agent.key.public, max(1, head.seq), 1 << 30):
                written = max(written, written_s(record))  # receipts are written after the work that they are of
                late = written > START_S + world.plan.heal_s or world.plan.skew_s.get(agent.i) == AHEAD_S
                require(late or record.seq <= head.seq, f"record {record.seq} of {agent.i} is not settled")


def _operators_among(operators: OperatorSet, agents: set[int]) -> int:
    keys = {key(i).public for i in agents}
    return sum(operator.node_key in keys for operator in operators.operators)
