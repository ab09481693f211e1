"""Bugs to inject: each breaks one rule of the protocol as somebody might. The simulation must notice every one.

A bug is in the honest agents' own machines, or in the order of their effects; hostile agents have it, too. The
auditor and the contracts never do.

Source: PROTOCOL, "Bugs that the checks must catch when injected".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from contracts.model import Landed, OperatorSet
from gossip import epoch_close, needs, tally
from gossip.coverage import Verdict
from gossip.credit import Contribution, Credit, credit
from gossip.cut import proven_forks
from gossip.epoch_close import EpochClose
from gossip.epoch_events import Action, Advanced, Persist, Refused
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import Head, LogBook
from gossip.messages import Attest, Observation
from gossip.policy import PoolPolicy
from gossip.records import ReceiptBody, Record
from gossip.round import Round
from gossip.settlement import Base, Payments, Settlement
from gossip.tally import EpochFrame, settle

Step = Callable[[Record], None]


def keep_then_show(keep: Step, show: Step) -> tuple[Step, Step]:
    return keep, show


def show_then_keep(keep: Step, show: Step) -> tuple[Step, Step]:
    return show, keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """What is broken: the machine, the order in which an own record is kept and shown; nothing, as it stands."""

    name: str
    machine: type[EpochClose] = EpochClose
    order: Callable[[Step, Step], tuple[Step, Step]] = keep_then_show


# The cut and the tally.


class _Settling(EpochClose):
    """Computes settlements in its own way; both as leader and as follower."""

    def _compute(self, round_: Round, observations: list[Observation]) -> Settlement:
        key = frozenset(observation.digest for observation in observations)
        if key not in round_.computed:
            outcome = self._settle(round_.frame, self.base, observations, self._logs, self._verdict)
            round_.remember(key, outcome)
        return round_.computed[key]

    def _settle(
        self, frame: EpochFrame, base: Base, observations: Sequence[Observation], logs: LogBook, verdict: Verdict
    ) -> Settlement:
        return settle(frame, base, observations, logs, verdict)


class _AnyWitness(OperatorSet):
    def is_witnessed(self, weight: int) -> bool:
        return weight > 0


class _ManyWitnesses(OperatorSet):
    def is_witnessed(self, weight: int) -> bool:
        return self.is_quorum(weight)


def _with_operators(frame: EpochFrame, kind: type[OperatorSet]) -> EpochFrame:
    return replace(frame, operators=kind(set_id=frame.operators.set_id, operators=frame.operators.operators))


class CutMaximum(_Settling):
    """Cuts at the highest head that anybody names."""

    def _settle(self, frame: EpochFrame, *rest: Any) -> Settlement:
        return settle(_with_operators(frame, _AnyWitness), *rest)


class WitnessTwoThirds(_Settling):
    """Counts only what more than two thirds saw."""

    def _settle(self, frame: EpochFrame, *rest: Any) -> Settlement:
        return settle(_with_operators(frame, _ManyWitnesses), *rest)


class IgnoreUnresolvable(_Settling):
    """Takes a head that it cannot resolve for the base."""

    def _step(self) -> list[Action]:
        with patch.object(needs.Needs, "are_met", _met_anyway):
            return super()._step()

    def _settle(
        self, frame: EpochFrame, base: Base, observations: Sequence[Observation], logs: LogBook, verdict: Verdict
    ) -> Settlement:
        seen = [
            replace(
                o,
                logs={
                    k: log if logs[k].holds(log.head) else replace(log, head=logs[k].base) for k, log in o.logs.items()
                },
            )
            for o in observations
        ]
        return settle(frame, base, seen, logs, verdict)


def _met_anyway(_needs: needs.Needs) -> bool:
    return True


class CutWithoutHash(_Settling):
    """Takes a head's number for its own record of that number."""

    def _settle(
        self, frame: EpochFrame, base: Base, observations: Sequence[Observation], logs: LogBook, verdict: Verdict
    ) -> Settlement:
        own = {k: {r.seq: Head(r.seq, r.hash) for r in logs[k].chain(logs[k].head)} for k in observations[0].logs}
        seen = [
            replace(o, logs={k: replace(log, head=own[k].get(log.head.seq, log.head)) for k, log in o.logs.items()})
            for o in observations
        ]
        return settle(frame, base, seen, logs, verdict)


class CapByEpoch(_Settling):
    """Credits at most the epoch's length as uptime."""

    def _settle(self, frame: EpochFrame, *rest: Any) -> Settlement:
        def capped(*arguments: Any) -> tuple[Credit, Payments]:
            found, payments = credit(*arguments)
            return replace(found, uptime_s=min(found.uptime_s, EPOCH_LENGTH_S)), payments

        with patch.object(tally, "credit", capped):
            return settle(frame, *rest)


EPOCH_LENGTH_S = 100


class ReceiptsAnywhere(_Settling):
    """Takes a trusted signer's receipt in any log, of any time, and any number of times."""

    def _settle(self, *arguments: Any) -> Settlement:
        def all_of(records: Mapping[bytes, Sequence[Record]], _: object, policy: PoolPolicy) -> dict[bytes, int]:
            signers = {bytes.fromhex(signer) for signer in policy.receipts.signers}
            held = {
                k: [r for e in own if isinstance(e.body, ReceiptBody) for r in e.body.receipts]
                for k, own in records.items()
            }
            return {k: sum(r.tokens for r in receipts if r.signer in signers) for k, receipts in held.items()}

        with patch.object(tally, "receipted_tokens", all_of):
            return settle(*arguments)


class PaidBefore(_Settling):
    """Credits what a worker contract was paid before it was first read, too."""

    def _settle(self, *arguments: Any) -> Settlement:
        def from_zero(contribution: Contribution, *rest: Any) -> tuple[Credit, Payments]:
            before, worker = contribution.before, contribution.worker
            if worker is not None and before.payments.worker is None:
                payments = replace(before.payments, worker=worker.account)
                contribution = replace(contribution, before=replace(before, payments=payments))
            return credit(contribution, *rest)

        with patch.object(tally, "credit", from_zero):
            return settle(*arguments)


class PrevTotalsRoot(_Settling):
    """Names the totals of the settlement before as what it builds on, not its payload."""

    def _settle(self, *arguments: Any) -> Settlement:
        outcome = settle(*arguments)
        landed: Landed = self._view.landed  # type: ignore[union-attr]
        return replace(outcome, payload=replace(outcome.payload, prev=landed.totals_root))


class DeltaReadings(EpochClose):
    """Observes what it witnessed since the base, not in all."""

    def _advance(self, event: Advanced) -> list[Action]:
        since = {k: max(0, s - self.base.reading(k).witnessed_s) for k, s in event.witnessed_s.items()}
        return super()._advance(replace(event, witnessed_s=since))


# The votes.


class _HalfQuorum(Round):
    def is_quorum(self, indexes: Collection[int]) -> bool:  # type: ignore[override]
        return 2 * self.weight(indexes) > self.frame.operators.total_weight

    def add_attest(self, attest: Attest) -> None:
        super().add_attest(attest)
        if not self.frame.operators.is_quorum(self.weight(self.signatures(attest.cert_hash))):
            self.certified.pop(attest.cert_hash, None)


class _ThirdCertifies(Round):
    def add_attest(self, attest: Attest) -> None:
        super().add_attest(attest)
        signatures = self.signatures(attest.cert_hash)
        if self.frame.operators.is_witnessed(self.weight(signatures)):
            self.certified[attest.cert_hash] = signatures


class ObservationHalf(EpochClose):
    """Proposes, and follows proposals, from observations of half the weight."""

    def _open(self, frame: EpochFrame, landed: Landed) -> None:
        with patch.object(epoch_close, "Round", _HalfQuorum):
            super()._open(frame, landed)


class AttestThird(EpochClose):
    """Takes attests of a third of the weight for a certificate."""

    def _open(self, frame: EpochFrame, landed: Landed) -> None:
        with patch.object(epoch_close, "Round", _ThirdCertifies):
            super()._open(frame, landed)


class NoRecompute(EpochClose):
    """Attests what a leader says, without a computation of its own."""

    def _judge(self, round_: Round, now_s: int, index: int | None) -> list[Action]:
        actions: list[Action] = []
        for proposal in list(round_.pending.values()) if index is not None else ():
            try:
                listed = round_.listed(proposal)
                actions += self._attest(round_, proposal, listed, self._compute(round_, listed))
            except (DataUnavailableError, InvalidMessageError):
                continue
        return [*actions, *super()._judge(round_, now_s, index)]


class RefusePrivateForks(EpochClose):
    """Refuses a proposal that does not show a fork which this node knows."""

    def _judge(self, round_: Round, now_s: int, index: int | None) -> list[Action]:
        refused: list[Action] = []
        for digest, proposal in list(round_.pending.items()):
            try:
                shown = proven_forks(round_.listed(proposal))
            except (DataUnavailableError, InvalidMessageError):
                continue
            known = {f.node_key for f in self._logs.forks() if not self.base.reading(f.node_key).dead}
            if known - shown.keys():
                del round_.pending[digest]
                refused.append(Refused(proposal, "hides a fork"))
        return [*refused, *super()._judge(round_, now_s, index)]


class BaseOfAttested(EpochClose):
    """Builds on what it attested last, when something of that epoch lands."""

    def _adopt(self, settlement: Settlement) -> list[Action]:
        round_ = self._round
        if round_ is not None and round_.frame.epoch == settlement.payload.epoch:
            own = [cert_hash for operator, cert_hash in round_.attests if operator == self._key.public]
            settlement = next((round_.outcomes[h] for h in reversed(own) if h in round_.outcomes), settlement)
        return super()._adopt(settlement)


class ForgetOutcome(EpochClose):
    """Does not make durable what it attests, but the messages alone."""

    def _attest(self, *arguments: Any) -> list[Action]:
        actions = super()._attest(*arguments)
        return [replace(action, outcome=None) if isinstance(action, Persist) else action for action in actions]


NONE = Bug(name="none")
FORGET_OUTCOME = Bug(name="forget-outcome", machine=ForgetOutcome)
"""Found by the simulation. It takes all to be killed between the landing and their next look at the chain."""
BUGS = (
    Bug(name="cut-maximum", machine=CutMaximum),
    Bug(name="witness-two-thirds", machine=WitnessTwoThirds),
    Bug(name="observation-half", machine=ObservationHalf),
    Bug(name="attest-third", machine=AttestThird),
    Bug(name="no-recompute", machine=NoRecompute),
    Bug(name="ignore-unresolvable", machine=IgnoreUnresolvable),
    Bug(name="base-of-attested", machine=BaseOfAttested),
    Bug(name="prev-totals-root", machine=PrevTotalsRoot),
    Bug(name="cut-without-hash", machine=CutWithoutHash),
    Bug(name="shown-before-durable", order=show_then_keep),
    Bug(name="refuse-private-forks", machine=RefusePrivateForks),
    Bug(name="delta-readings", machine=DeltaReadings),
    Bug(name="cap-by-epoch", machine=CapByEpoch),
    Bug(name="receipts-anywhere", machine=ReceiptsAnywhere),
    Bug(name="paid-before", machine=PaidBefore),
)
BY_NAME = {bug.name: bug for bug in (NONE, FORGET_OUTCOME, *BUGS)}
