"""One epoch's close as one node knows it: the messages held, what was computed, whose turn it is.

Decides which messages of the epoch are kept: those of the pinned set, policy and base, within limits. The
senders are operators (signatures were checked), any of whom may be hostile: each fills only its own share,
and when that is full its own oldest message gives way.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import TypeVar

from contracts import certificate
from contracts.model import Address, CertificateDomain
from contracts.permutation import TurnSchedule, permutation
from gossip.epoch_events import ObjectId, Progress
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.messages import Attest, Observation, Proposal
from gossip.records import PoolId
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame

OBSERVATIONS_PER_OPERATOR_MAX = 4
PROPOSALS_PER_LEADER_MAX = 8
ATTESTS_PER_OPERATOR_MAX = 8
OUTCOMES_MAX = 64

_Held = TypeVar("_Held", Observation, Proposal, Attest)


class Round:
    """State of the open epoch's close. `observe_s` is when step 2 is due, in chain time."""

    def __init__(self, frame: EpochFrame, pool: PoolId, observe_s: int) -> None:
        self.frame = frame
        self.observe_s = observe_s
        self.domain = CertificateDomain(
            global_id=pool.network, pool=Address(0, pool.account), set_id=frame.operators.set_id
        )
        self.observations: dict[bytes, Observation] = {}
        """By digest."""
        self.proposals: dict[bytes, Proposal] = {}
        """By digest; those still to be judged are in `pending`, too."""
        self.pending: dict[bytes, Proposal] = {}
        self.attests: dict[tuple[bytes, bytes], Attest] = {}
        """By operator and certificate hash."""
        self.computed: dict[frozenset[bytes], Settlement] = {}
        """By the digests of the observations from which it follows."""
        self.outcomes: dict[bytes, Settlement] = {}
        """By certificate hash."""
        self.certified: dict[bytes, dict[int, bytes]] = {}
        """Signatures by operator index, by certificate hash: of more than two thirds of the weight."""
        self.led: set[int] = set()
        """Views in which this node proposed."""
        self.submission: TurnSchedule | None = None
        self.wanted: frozenset[object] = frozenset()
        seed = hashlib.sha256(frame.epoch.to_bytes(4, "big") + frame.operators.set_id.to_bytes(4, "big")).digest()
        self._leaders = permutation(seed, len(frame.operators.operators))

    def view_at(self, now_s: int) -> int | None:
        """The highest open view, or None before view 0."""
        timing = self.frame.policy.timing
        elapsed_s = now_s - self.observe_s - timing.collect_s
        return None if elapsed_s < 0 else elapsed_s // timing.view_s

    def leader_of(self, view: int) -> int:
        """Index of the operator that leads this view."""
        return self._leaders[view % len(self._leaders)]

    def view_to_lead(self, now_s: int, index: int) -> int | None:
        """The latest open view that operator `index` leads and did not propose in, if any."""
        latest = self.view_at(now_s)
        if latest is None:
            return None
        led = (
            view for view in range(latest, max(-1, latest - len(self._leaders)), -1) if self.leader_of(view) == index
        )
        view = next(led, None)
        return None if view in self.led else view

    def add_observation(self, observation: Observation, base: Base) -> None:
        """Keep an observation.

        Raises:
            InvalidMessageError: its maker is no operator of the pinned set, or it is of another set, policy
                or base, or does not name exactly the pinned registry's logs.
        """
        self._require_operator(observation.operator)
        frame = self.frame
        if observation.set_id != frame.operators.set_id or observation.policy_hash != frame.policy.hash:
            raise InvalidMessageError("observation: of another operator set or policy")
        if observation.base != base.payload_hash:
            raise InvalidMessageError("observation: built on another settlement")
        if observation.logs.keys() != {participant.node_key for participant in frame.participants}:
            raise InvalidMessageError("observation: does not name the registered participants")
        same = [o.digest for o in self.observations.values() if o.operator == observation.operator]
        _keep(self.observations, observation.digest, observation, same, OBSERVATIONS_PER_OPERATOR_MAX)

    def add_proposal(self, proposal: Proposal) -> None:
        """Keep a proposal, to be judged once.

        Raises:
            InvalidMessageError: it is not by its view's leader, of another set, or lists no quorum.
        """
        index = self._require_operator(proposal.leader)
        if proposal.set_id != self.frame.operators.set_id or index != self.leader_of(proposal.view):
            raise InvalidMessageError("proposal: not by the leader of its view")
        if any(item.index >= len(self.frame.operators.operators) for item in proposal.listed):
            raise InvalidMessageError("proposal: lists an operator that is not in the set")
        if not self.is_quorum(item.index for item in proposal.listed):
            raise InvalidMessageError("proposal: lists observations of too little weight")
        if proposal.digest in self.proposals:
            return
        if any(held.view == proposal.view for held in self.proposals.values()):
            raise InvalidMessageError("proposal: a second one for its view")
        same = [p.digest for p in self.proposals.values() if p.leader == proposal.leader]
        dropped = _keep(self.proposals, proposal.digest, proposal, same, PROPOSALS_PER_LEADER_MAX)
        self.pending.pop(dropped or b"", None)
        self.pending[proposal.digest] = proposal

    def add_attest(self, attest: Attest) -> None:
        """Keep an attest.

        Raises:
            InvalidMessageError: its maker is no operator of the pinned set.
        """
        self._require_operator(attest.operator)
        same = [key for key in self.attests if key[0] == attest.operator]
        _keep(self.attests, (attest.operator, attest.cert_hash), attest, same, ATTESTS_PER_OPERATOR_MAX)
        signatures = self.signatures(attest.cert_hash)
        if self.is_quorum(signatures):
            self.certified[attest.cert_hash] = signatures

    def has_attested(self, operator: bytes, cert_hash: bytes) -> bool:
        """Whether an attest of this operator for this hash is held."""
        return (operator, cert_hash) in self.attests

    def cert_hash(self, outcome: Settlement) -> bytes:
        """Hash of the certificate cell for an outcome: what operators sign."""
        return bytes(certificate.settle_certificate(self.domain, outcome.payload).hash)

    def remember(self, observations: frozenset[bytes], outcome: Settlement) -> None:
        """Keep a computed outcome; the oldest that has no certificate gives way."""
        if len(self.computed) >= OUTCOMES_MAX:
            oldest = next((k for k, o in self.computed.items() if self.cert_hash(o) not in self.certified), None)
            if oldest is not None:
                self.outcomes.pop(self.cert_hash(self.computed.pop(oldest)), None)
        self.computed[observations] = outcome
        self.outcomes[self.cert_hash(outcome)] = outcome

    def signatures(self, cert_hash: bytes) -> dict[int, bytes]:
        """Certificate signatures held for this hash, by operator index."""
        operators = self.frame.operators
        held = (a for a in self.attests.values() if a.cert_hash == cert_hash)
        return {index: a.cert_signature for a in held if (index := operators.index_of(a.operator)) is not None}

    def holds(self, wire: bytes) -> bool:
        """Whether a proposal or attest with these bytes is held."""
        held: tuple[Proposal | Attest, ...] = (*self.proposals.values(), *self.attests.values())
        return any(message.wire == wire for message in held)

    def listed(self, proposal: Proposal) -> list[Observation]:
        """The observations that a proposal lists.

        Raises:
            DataUnavailableError: some are not here; `missing` names them.
            InvalidMessageError: one is not by the operator that it is listed for.
        """
        missing = [item.digest for item in proposal.listed if item.digest not in self.observations]
        if missing:
            wanted = frozenset(ObjectId(kind="observation", id=digest) for digest in missing)
            raise DataUnavailableError("observations of a proposal are not here yet", wanted)
        for item in proposal.listed:
            if self.observations[item.digest].operator != self.frame.operators.operators[item.index].node_key:
                raise InvalidMessageError("proposal: lists an observation under another operator")
        return [self.observations[item.digest] for item in proposal.listed]

    def is_quorum(self, indexes: Iterable[int]) -> bool:
        """Whether these operators carry more than two thirds of the weight."""
        return self.frame.operators.is_quorum(self.weight(indexes))

    def weight(self, indexes: Iterable[int]) -> int:
        return sum(self.frame.operators.operators[index].weight for index in indexes)

    def progress(self, now_s: int) -> Progress:
        """Where the close stands, for people."""
        hashes = {cert_hash for _, cert_hash in self.attests}
        return Progress(
            epoch=self.frame.epoch,
            view=self.view_at(now_s),
            observations=len({o.operator for o in self.observations.values()}),
            attested_weight=max((self.weight(self.signatures(cert_hash)) for cert_hash in hashes), default=0),
            total_weight=self.frame.operators.total_weight,
            certified=self.submission is not None,
            waiting_for=len(self.wanted),
        )

    def _require_operator(self, node_key: bytes) -> int:
        index = self.frame.operators.index_of(node_key)
        if index is None:
            raise InvalidMessageError("operator: its maker is none of the pinned set")
        return index


_Key = TypeVar("_Key")


def _keep(held: dict[_Key, _Held], key: _Key, message: _Held, same: Collection[_Key], most: int) -> _Key | None:
    """Keep `message`; if its maker (whose keys are `same`, oldest first) is at its limit, drop its oldest one."""
    if key in held:
        return None
    dropped = next(iter(same)) if len(same) >= most else None
    if dropped is not None:
        del held[dropped]
    held[key] = message
    return dropped
