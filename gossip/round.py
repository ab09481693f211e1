"""One epoch's close as one node knows it: the messages held, what was computed, whose turn it is.

Decides which messages of the epoch are kept: those of the pinned set, policy and base, within limits. The
senders are operators (signatures were checked), any of whom may be hostile: each fills only its own share,
and when that is full its own oldest message gives way; but never an observation that a proposal of the latest views
lists, which all have to find.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from contracts import certificate
from contracts.model import Address, CertificateDomain
from contracts.permutation import TurnSchedule, permutation
from gossip.epoch_events import ObjectId, Progress, maker_of
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import Head
from gossip.messages import Attest, Observation, ObservedLog, Proposal
from gossip.records import PoolId
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame

OBSERVATIONS_PER_OPERATOR_MAX = 4
PROPOSALS_PER_LEADER_MAX = 8
ATTESTS_PER_OPERATOR_MAX = 8
OUTCOMES_MAX = 64
JUDGED_MAX = 32
"""Proposals that wait to be judged and are looked at with everything that arrives; fewer than `needs.LISTS_MAX`."""

_Held = TypeVar("_Held", Observation, Proposal, Attest)


class Round:
    """State of the open epoch's close. `observe_s` is when step 2 is due, in chain time."""

    def __init__(self, frame: EpochFrame, pool: PoolId, observe_s: int) -> None:
        self.frame = frame
        self.observe_s = observe_s
        self.domain = CertificateDomain(
            global_id=pool.network, pool=Address(0, pool.account), set_id=frame.operators.set_id
        )
        self.pending: dict[bytes, Proposal] = {}
        """The proposals that are still to be judged, by digest."""
        self.computed: dict[frozenset[bytes], Settlement] = {}
        """By the digests of the observations from which it follows."""
        self.outcomes: dict[bytes, Settlement] = {}
        """By certificate hash."""
        self.certified: dict[bytes, dict[int, bytes]] = {}
        """Signatures by operator index, by certificate hash: of more than two thirds of the weight."""
        self.led: set[int] = set()
        """Views in which this node proposed."""
        self.observed_again: int | None = None
        """The view in which this node, its leader, said its observation again."""
        self.submission: TurnSchedule | None = None
        self._observations = Shelf[bytes, Observation](OBSERVATIONS_PER_OPERATOR_MAX)
        self._proposals = Shelf[bytes, Proposal](PROPOSALS_PER_LEADER_MAX)
        self._attests = Shelf[tuple[bytes, bytes], Attest](ATTESTS_PER_OPERATOR_MAX)
        self._signatures: dict[bytes, dict[int, bytes]] = {}
        """By certificate hash and operator index, of the attests held."""
        self._usual: dict[bytes, tuple[bytes, Head]] = {}
        """Of each log, its key and the head that the first observation named."""
        self._registered = frozenset(participant.node_key for participant in frame.participants)
        self._indexes = {operator.node_key: index for index, operator in enumerate(frame.operators.operators)}
        seed = hashlib.sha256(frame.epoch.to_bytes(4, "big") + frame.operators.set_id.to_bytes(4, "big")).digest()
        self._leaders = permutation(seed, len(frame.operators.operators))

    @property
    def observations(self) -> dict[bytes, Observation]:
        """By digest."""
        return self._observations.held

    @property
    def proposals(self) -> dict[bytes, Proposal]:
        """By digest."""
        return self._proposals.held

    @property
    def attests(self) -> dict[tuple[bytes, bytes], Attest]:
        """By operator and certificate hash."""
        return self._attests.held

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
        view = latest - (latest - self._leaders.index(index)) % len(self._leaders)
        return None if view < 0 or view in self.led else view

    def to_judge(self, now_s: int) -> list[Proposal]:
        """The pending proposals of open views, in the order of these; of many the latest `JUDGED_MAX`."""
        view = self.view_at(now_s)
        opened = [proposal for proposal in self.pending.values() if view is not None and proposal.view <= view]
        return sorted(opened, key=lambda proposal: proposal.view)[-JUDGED_MAX:]

    def add_observation(self, observation: Observation, base: Base, view: int | None) -> Observation | None:
        """Keep an observation; returns the one that had to give way for it, if any. `view` is the latest open one.

        Raises:
            InvalidMessageError: its maker is no operator of the pinned set, or it is of another set, policy
                or base, or does not name exactly the pinned registry's logs.
        """
        index = self._require_operator(observation.operator)
        frame = self.frame
        if observation.set_id != frame.operators.set_id or observation.policy_hash != frame.policy.hash:
            raise InvalidMessageError("observation: of another operator set or policy")
        if observation.base != base.payload_hash:
            raise InvalidMessageError("observation: built on another settlement")
        if observation.logs.keys() != self._registered:
            raise InvalidMessageError("observation: does not name the registered participants")
        return self._observations.put(
            observation.digest, self._sharing(observation), kept=self._listed_lately(index, view)
        )

    def _listed_lately(self, index: int, view: int | None) -> frozenset[bytes]:
        """What proposals of the latest open views list of this operator: one each, and one less than its share."""
        if view is None:
            return frozenset()
        lately = range(view - OBSERVATIONS_PER_OPERATOR_MAX + 2, view + 1)
        listed = (item for held in self.proposals.values() if held.view in lately for item in held.listed)
        return frozenset(item.digest for item in listed if item.index == index)

    def _sharing(self, observation: Observation) -> Observation:
        """The same, with the keys and heads that others named held once: a large pool's would fill the memory."""
        logs = {}
        for named, log in observation.logs.items():
            node_key, usual = self._usual.setdefault(named, (named, log.head))
            head = usual if usual == log.head else log.head
            logs[node_key] = ObservedLog(head=head, witnessed_s=log.witnessed_s, worker_tokens=log.worker_tokens)
        return replace(observation, logs=logs)

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
        dropped = self._proposals.put(proposal.digest, proposal)
        if dropped is not None:
            self.pending.pop(dropped.digest, None)
        self.pending[proposal.digest] = proposal

    def add_attest(self, attest: Attest) -> None:
        """Keep an attest.

        Raises:
            InvalidMessageError: its maker is no operator of the pinned set.
        """
        index = self._require_operator(attest.operator)
        if self.has_attested(attest.operator, attest.cert_hash):
            return
        dropped = self._attests.put((attest.operator, attest.cert_hash), attest)
        if dropped is not None:
            self._forget_signature(index, dropped.cert_hash)
        self._signatures.setdefault(attest.cert_hash, {})[index] = attest.cert_signature
        signatures = self.signatures(attest.cert_hash)
        if self.is_quorum(signatures):
            self.certified[attest.cert_hash] = signatures

    def _forget_signature(self, index: int, cert_hash: bytes) -> None:
        del self._signatures[cert_hash][index]
        if not self._signatures[cert_hash]:
            del self._signatures[cert_hash]

    def latest_observation(self, operator: bytes) -> Observation | None:
        """The last one that came of this operator."""
        digests = self._observations.of(operator)
        return self.observations[digests[-1]] if digests else None

    def has_observed(self, operator: bytes) -> bool:
        """Whether an observation of this operator is held."""
        return bool(self._observations.of(operator))

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
        return dict(self._signatures.get(cert_hash, {}))

    def holds(self, wire: bytes) -> bool:
        """Whether a proposal or attest with these bytes is held."""
        return self._proposals.holds(wire) or self._attests.holds(wire)

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

    def index_of(self, node_key: bytes) -> int | None:
        """Index of the operator with this key, or None if it is not in the set."""
        return self._indexes.get(node_key)

    def is_quorum(self, indexes: Iterable[int]) -> bool:
        """Whether these operators carry more than two thirds of the weight."""
        return self.frame.operators.is_quorum(self.weight(indexes))

    def weight(self, indexes: Iterable[int]) -> int:
        return sum(self.frame.operators.operators[index].weight for index in indexes)

    def progress(self, own: bytes, now_s: int, waiting_for: int) -> Progress:
        """Where the close stands, for people; `own` is this node's key."""
        operators = self.frame.operators.operators
        view, unseen = self.view_at(now_s), tuple(o.node_key for o in operators if not self.has_observed(o.node_key))
        most: Mapping[int, bytes] = max(self._signatures.values(), key=self.weight, default={})
        return Progress(
            epoch=self.frame.epoch,
            view=view,
            operators=len(operators),
            observations=len(operators) - len(unseen),
            proposals=len(self.proposals),
            has_observed=self.has_observed(own),
            has_attested=any(operator == own for operator, _ in self.attests),
            attested_weight=self.weight(most),
            total_weight=self.frame.operators.total_weight,
            certified=bool(self.certified),
            waiting_for=waiting_for,
            leader=None if view is None else operators[self.leader_of(view)].node_key,
            unseen=unseen,
            unattested=tuple(o.node_key for index, o in enumerate(operators) if index not in most),
        )

    def _require_operator(self, node_key: bytes) -> int:
        index = self.index_of(node_key)
        if index is None:
            raise InvalidMessageError("operator: its maker is none of the pinned set")
        return index


_Key = TypeVar("_Key", bytes, tuple[bytes, bytes])


class Shelf(Generic[_Key, _Held]):
    """Messages of one kind by key, at most `share_max` of each maker: its oldest gives way, never another's."""

    def __init__(self, share_max: int) -> None:
        self.held: dict[_Key, _Held] = {}
        self._share_max = share_max
        self._by_maker: dict[bytes, list[_Key]] = {}
        self._wires: set[bytes] = set()

    def put(self, key: _Key, message: _Held, *, kept: Collection[_Key] = ()) -> _Held | None:
        """Keep a message; returns the one that had to give way for it, if any: the oldest that is not of `kept`."""
        if key in self.held:
            return None
        own = self._by_maker.setdefault(maker_of(message), [])
        dropped = None
        if len(own) >= self._share_max:
            oldest = next((held for held in own if held not in kept), own[0])
            own.remove(oldest)
            dropped = self.held.pop(oldest)
            self._wires.discard(dropped.wire)
        own.append(key)
        self.held[key] = message
        self._wires.add(message.wire)
        return dropped

    def of(self, maker: bytes) -> Sequence[_Key]:
        """Keys of what is held of this maker, oldest first."""
        return self._by_maker.get(maker, ())

    def holds(self, wire: bytes) -> bool:
        """Whether a message of these bytes is held."""
        return wire in self._wires
