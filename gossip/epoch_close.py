"""The machine that closes an epoch: observe, propose, attest, certify, submit, adopt. Read PROTOCOL beside it.

Pure: `handle(event)` returns the actions to perform, in order; it has no clock, no randomness, no I/O and
no task. Time is the chain's (`Advanced.view.now_s`). One epoch is open at a time: the one after the base.
Messages come verified (signatures) from `gossip.messages`; that they may be acted upon is decided here.

1. Observe once, at max(end + settle_delay, landing of the epoch before). Only the leader of an open view that has
   too few usable observations says the same again, once in that view, and proves forks that stand in their way.
2. Views open by chain time and never close; the leader of an open view proposes every usable observation it
   has, if they carry more than two thirds of the weight.
3. A follower attests a proposal iff its own computation from what the proposal lists gives the same
   certificate hash; what it knows besides never matters. `Persist` goes before `Publish`.
4. A view has one proposal: of a leader that makes several, each follower judges the first it sees, and
   the view may come to nothing. Attests for one certificate hash add up across views; more than two thirds
   make the certificate.
5. Submitters take turns until the chain shows the epoch settled. What landed becomes the base, always.
6. When the frame of the open epoch changes (its operators count as lost, others settle in their place), the
   round begins anew: nothing that was said under the old frame counts under the new one.

All state is bounded: by the operator set, and by the limits of `gossip.round`, `gossip.needs` and `gossip.early`.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from contracts.model import Landed, OperatorSet, Signature
from contracts.permutation import TurnSchedule
from contracts.signing import SigningKey
from gossip.coverage import Verdict
from gossip.early import EarlyMessages
from gossip.epoch_events import (
    Action,
    Advanced,
    ChainView,
    CheckpointArrived,
    DataArrived,
    Event,
    Heard,
    Message,
    ObjectId,
    Persist,
    Progress,
    Publish,
    RecordsArrived,
    Refused,
    Settled,
    Submit,
    maker_of,
)
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.finalizing import Finalizing
from gossip.log_chain import LogBook
from gossip.messages import (
    Attest,
    ListedObservation,
    Observation,
    Proposal,
    make_attest,
    make_proposal,
)
from gossip.needs import Readiness, digests
from gossip.observing import forks_to_add, observe, observe_again
from gossip.policy import PoolPolicy
from gossip.records import PoolId
from gossip.recounting import with_own_part
from gossip.round import Round
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame, settle


class EpochClose:
    """The machine of one node. `base` is the last settlement that it adopted."""

    def __init__(
        self,
        key: SigningKey,
        pool: PoolId,
        *,
        policy: PoolPolicy,
        base: Base,
        logs: LogBook,
        verdict: Verdict,
    ) -> None:
        self.base = base
        self._key = key
        self._pool = pool
        self._logs = logs
        self._verdict = verdict
        self._round: Round | None = None
        self._readiness = Readiness(base, logs)
        self._checkpoint: frozenset[object] = frozenset()
        self._early = EarlyMessages()
        self._restored: tuple[Settlement, ...] = ()
        """What this node attested before it was started again: one of them may have landed meanwhile."""
        self._finalizing = Finalizing(key.public, policy.timing.stage_s)
        self._view: ChainView | None = None
        self._operators: OperatorSet | None = None
        self._witnessed_s: Mapping[bytes, int] = {}
        self._worker_tokens: Mapping[bytes, int] = {}

    def handle(self, event: Event) -> list[Action]:
        """Take one event; return what to do about it, in order.

        Raises:
            InvalidMessageError: the message in the event is one that no honest operator sends.
        """
        match event:
            case Advanced():
                return self._advance(event)
            case Heard(message):
                return self._hear(message)
            case RecordsArrived():
                return self._step()
            case DataArrived():
                self._readiness.unblock()
                return self._step()
            case CheckpointArrived(settlement):
                return self._adopt(settlement)

    def messages(self, epoch: int) -> tuple[Message, ...]:
        """What this node holds for the open epoch `epoch`: for peers that lost gossip."""
        if self._round is None or self.closing != epoch:
            return ()
        return (*self._round.observations.values(), *self._round.proposals.values(), *self._round.attests.values())

    def is_observer(self, node_key: bytes) -> bool:
        """Whether this is the key of an operator who settles the open epoch."""
        return self._round is not None and self._round.index_of(node_key) is not None

    @property
    def wanted(self) -> frozenset[object]:
        """What a decision waits for: `RecordRange`s and `ObjectId`s to fetch from peers."""
        return self._checkpoint | self._readiness.wanted

    @property
    def is_waiting(self) -> bool:
        """Whether a decision waits for anything: `wanted` is not empty, or was not when it was last looked."""
        return bool(self._checkpoint) or self._readiness.is_waiting

    @property
    def closing(self) -> int | None:
        """The epoch that is open here."""
        return self._round.frame.epoch if self._round is not None else None

    def observation(self, digest: bytes) -> Observation | None:
        """An observation of the open epoch that is held, whoever made it."""
        return self._round.observations.get(digest) if self._round is not None else None

    def holds(self, wire: bytes) -> bool:
        """Whether a proposal or attest of the open epoch with these bytes is held: saves its signature check."""
        return self._round is not None and self._round.holds(wire)

    # The chain moved.

    def _advance(self, event: Advanced) -> list[Action]:
        self._view, self._operators = event.view, event.operators
        self._witnessed_s, self._worker_tokens = event.witnessed_s, event.worker_tokens
        landed = event.view.landed
        actions: list[Action] = [*self._finalizing.take(event.view, event.operators)]
        if landed.epoch > self.base.epoch:
            outcomes = self._round.outcomes.values() if self._round is not None else ()
            held = (*outcomes, *self._restored)
            known = next((outcome for outcome in held if outcome.payload_hash == landed.payload_hash), None)
            if known is None:
                self._checkpoint = frozenset({ObjectId(kind="checkpoint", id=landed.payload_hash)})
                return actions
            actions += self._adopt(known)
        self._logs.date(landed.settled_s or self._logs.settled_s or event.view.now_s)
        frame = event.frame
        is_next = frame is not None and frame.epoch == self.base.epoch + 1
        if frame is not None and is_next and (self._round is None or self._round.frame != frame):
            self._open(frame, landed)
        return [*actions, *self._step()]

    def _adopt(self, settlement: Settlement) -> list[Action]:
        """What landed is the base, whether this node attested it or not (step 7)."""
        if settlement.payload.epoch <= self.base.epoch:
            return []
        if self._round is not None and not settlement.credits:
            frame = self._round.frame
            settlement = with_own_part(settlement, frame, self.base, self._key.public, self._logs, self._verdict)
        self.base = settlement.base()
        self._round = None
        self._readiness = Readiness(self.base, self._logs)
        self._restored = ()
        self._checkpoint = frozenset()
        for node_key, reading in settlement.readings.items():
            self._logs.rebase(node_key, reading.head, reading.work_end_s, is_dead=reading.dead)
        return [Persist(epoch=settlement.payload.epoch, landed=settlement), Settled(settlement)]

    def _open(self, frame: EpochFrame, landed: Landed) -> None:
        """Start the epoch's close with all that came early or was restored, before anything is done on it.

        In between, a node that was restarted would say anew what it had said already.
        """
        self._logs.open(participant.node_key for participant in frame.participants)
        observe_s = max(frame.end_s + frame.policy.timing.settle_delay_s, landed.settled_s)
        self._round = Round(frame, self._pool, observe_s)
        self._readiness = Readiness(self.base, self._logs)
        for message in self._early.take(frame.epoch):
            with suppress(InvalidMessageError):  # judged only now: its sender cannot be told any more
                self._take(self._round, message)

    # A message came.

    def _hear(self, message: Message) -> list[Action]:
        round_ = self._round
        if round_ is None or message.epoch > round_.frame.epoch:
            self._put_aside(message)
            return []
        if message.epoch < round_.frame.epoch:
            return []
        self._take(round_, message)
        return self._step()

    def _take(self, round_: Round, message: Message) -> None:
        match message:
            case Observation():
                view = round_.view_at(self._view.now_s) if self._view is not None else None
                self._readiness.add(message, in_place_of=round_.add_observation(message, self.base, view))
            case Proposal():
                round_.add_proposal(message)
                if message.leader == self._key.public:
                    round_.led.add(message.view)
            case Attest():
                round_.add_attest(message)

    def _put_aside(self, message: Message) -> None:
        """Keep a message of the next epoch, or the one after: a peer may have seen the chain move first.

        Before this node saw the chain, nobody is known to be an operator, and nothing is kept.
        """
        is_operator = self._operators is not None and self._operators.index_of(maker_of(message)) is not None
        if is_operator and 0 < message.epoch - self.base.epoch <= 2:
            self._early.put(message)

    def restore(self, messages: Iterable[Message], outcomes: Iterable[Settlement] = ()) -> None:
        """Take back what this node made durable of the epoch after the base, when it starts."""
        self._early.restore(messages)
        self._restored = tuple(outcomes)

    # What can be done now.

    def _step(self) -> list[Action]:
        """Do whatever the open epoch allows: observe, propose, attest, submit; note what is missing."""
        round_, view = self._round, self._view
        if round_ is None or view is None:
            return []
        self._readiness.begin()
        actions: list[Action] = []
        index = round_.index_of(self._key.public)
        if index is not None:
            actions += self._observe(round_, view.now_s)
            actions += self._propose(round_, view.now_s, index)
        actions += self._judge(round_, view.now_s, index)
        if index is not None:
            actions += self._submit(round_, view.now_s, index)
        return actions

    def _observe(self, round_: Round, now_s: int) -> list[Action]:
        if round_.has_observed(self._key.public) or now_s < round_.observe_s:
            return []
        observation = observe(
            self._key,
            self._pool,
            round_.frame,
            self.base,
            self._logs,
            witnessed_s=self._witnessed_s,
            worker_tokens=self._worker_tokens,
            now_s=now_s,
        )
        return self._say(round_, observation)

    def _observe_again(self, round_: Round, view: int) -> list[Action]:
        """Once in a view that this node leads: prove the forks that keep observations from being usable (rule 1)."""
        said = round_.latest_observation(self._key.public)
        if said is None or round_.observed_again == view or not self._readiness.is_waiting:
            return []
        forks = forks_to_add(said, self.base, self._logs, tuple(round_.observations.values()))
        if not forks:
            return []
        round_.observed_again = view
        return self._say(round_, observe_again(self._key, self._pool, said, forks))

    def _say(self, round_: Round, observation: Observation) -> list[Action]:
        self._take(round_, observation)
        return [Persist(epoch=round_.frame.epoch, messages=(observation,)), Publish(observation)]

    def _propose(self, round_: Round, now_s: int, index: int) -> list[Action]:
        """Propose once in each open view that this node leads (step 3)."""
        view = round_.view_to_lead(now_s, index)
        if view is None:
            return []
        usable, said = self._usable(round_), list[Action]()
        if not round_.is_quorum(usable) and (said := self._observe_again(round_, view)):
            usable = self._usable(round_)
        if not round_.is_quorum(usable):
            return said
        try:
            outcome = self._outcome(round_, list(usable.values()))
        except DataUnavailableError as error:
            self._readiness.note(error.missing)
            return said
        except InvalidMessageError:  # `usable` leaves nothing of which none follows; if it did, others may still lead
            return said
        proposal = make_proposal(
            self._key,
            self._pool,
            epoch=round_.frame.epoch,
            view=view,
            set_id=round_.frame.operators.set_id,
            listed=tuple(ListedObservation(index=i, digest=usable[i].digest) for i in sorted(usable)),
            cert_hash=round_.cert_hash(outcome),
        )
        round_.led.add(view)
        round_.add_proposal(proposal)
        return [*said, Persist(epoch=round_.frame.epoch, messages=(proposal, *usable.values())), Publish(proposal)]

    def _usable(self, round_: Round) -> dict[int, Observation]:
        """The observations that may be listed: of each operator the latest, which proves the most."""
        return self._readiness.usable(reversed(round_.observations.values()), round_.index_of)

    def _judge(self, round_: Round, now_s: int, index: int | None) -> list[Action]:
        """Recompute the pending proposals; attest those that hold (step 4)."""
        actions: list[Action] = []
        for proposal in round_.to_judge(now_s):
            try:
                observations = round_.listed(proposal)
                outcome = self._outcome(round_, observations)
                if round_.cert_hash(outcome) != proposal.cert_hash:
                    raise InvalidMessageError("proposal: its totals do not follow from its observations")
            except DataUnavailableError as error:
                self._readiness.note(error.missing)
                continue
            except InvalidMessageError as error:
                actions.append(Refused(proposal, str(error)))
            else:
                if index is not None:
                    actions += self._attest(round_, proposal, observations, outcome)
            del round_.pending[proposal.digest]
        return actions

    def _attest(
        self, round_: Round, proposal: Proposal, listed: list[Observation], outcome: Settlement
    ) -> list[Action]:
        epoch, cert_hash = round_.frame.epoch, proposal.cert_hash
        if round_.has_attested(self._key.public, cert_hash):
            return []
        attest = make_attest(self._key, self._pool, epoch=epoch, cert_hash=cert_hash)
        round_.add_attest(attest)
        return [Persist(epoch=epoch, messages=(proposal, *listed, attest), outcome=outcome), Publish(attest)]

    def _submit(self, round_: Round, now_s: int, index: int) -> list[Action]:
        """Once a known outcome has its certificate, send it when this node's turn comes (steps 5, 6)."""
        for cert_hash, signatures in round_.certified.items():
            outcome = round_.outcomes.get(cert_hash)
            if outcome is None:
                continue
            if round_.submission is None:
                slots = len(round_.frame.operators.operators)
                stage_s = round_.frame.policy.timing.stage_s
                round_.submission = TurnSchedule.of(cert_hash, index, slots, stage_s=stage_s, opened_s=now_s)
            turn = round_.submission.take(now_s)
            if turn is None:
                return []
            ordered = tuple(Signature(index=i, signature=signatures[i]) for i in sorted(signatures))
            return [Submit(settlement=outcome, set_id=round_.domain.set_id, signatures=ordered, turn=turn)]
        return []

    def _outcome(self, round_: Round, observations: list[Observation]) -> Settlement:
        """The settlement that follows from these observations, once all is here that it needs."""
        if digests(observations) not in round_.computed:
            self._readiness.require(observations)
        try:
            return self._compute(round_, observations)
        except DataUnavailableError as error:
            self._readiness.block(observations, error.missing)
            raise

    def _compute(self, round_: Round, observations: list[Observation]) -> Settlement:
        """The settlement that follows from these observations; computed once."""
        key = digests(observations)
        if key not in round_.computed:
            round_.remember(key, settle(round_.frame, self.base, observations, self._logs, self._verdict))
        return round_.computed[key]

    def progress(self) -> Progress | None:
        """Where the open epoch stands; None while none is open."""
        if self._round is None or self._view is None:
            return None
        return self._round.progress(self._key.public, self._view.now_s, len(self.wanted))
