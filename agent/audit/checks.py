"""The checks of an audit, one after another: from the chain's word to the totals that follow.

Nothing here decides what counts: each check applies the functions that operators apply (`gossip.round`, `gossip.cut`,
`gossip.tally`, `agent.verdicts`) to what a bundle holds, and says where they refuse.

Untrusted: every byte of the bundle; what a check may rely on is in `CHECKS`.
Source: PROTOCOL, "Epoch close" and "Tally".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping

from agent.anchors import Anchors
from agent.audit.bundle import Bundle
from agent.audit.comparing import Difference, compare
from agent.audit.facts import AuditFailedError, Facts, prove, to_believe
from agent.policies import Policies
from agent.verdicts import Verdicts
from attestation.errors import AttestationError
from attestation.roots import INTEL_ROOT_SHA256, require_root_allowed
from contracts import certificate
from contracts.model import Address, Participant
from contracts.signing import InvalidSignatureError
from gossip.cut import CutPoint, compute_cut
from gossip.epoch_events import Anchor, ObjectId
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import LogBook, Placement, RecordRange
from gossip.messages import Observation, parse_observation, parse_proposal
from gossip.policy import WINDOW_S_MAX, PoolPolicy, parse_policy
from gossip.records import EvidenceBody, PoolId, Record, parse_record, verify_record
from gossip.round import Round
from gossip.settlement import Base, Settlement, verify_checkpoint
from gossip.tally import EpochFrame, tally

LATE_S = 1 << 40
"""A clock by which no record is early: lateness is no matter of validity."""
FAULTS_MAX = 1000
"""Records that do not hold; after so many the others are not looked at."""
_PLACED = (Placement.EXTENDED, Placement.FORKED)


class Audit:
    """A bundle, and what was proven of it so far: each check sets what it proves, for those that need it."""

    facts: Facts
    policy: PoolPolicy
    verdicts: Verdicts
    base: Base
    settled: Settlement
    observations: list[Observation]
    logs: LogBook
    cut: Mapping[bytes, CutPoint]

    def __init__(self, bundle: Bundle, confirmed: Collection[tuple[int, bytes]]) -> None:
        self._bundle = bundle
        self._confirmed = confirmed
        self.believed: list[str] = []
        self.notes: list[str] = []
        self.differences: tuple[Difference, ...] = ()
        self.recomputed: bytes | None = None

    @property
    def frame(self) -> EpochFrame:
        return self.facts.frame(self.policy)

    # The checks; each returns what it found, in one line, and raises what does not hold.

    def check_chain(self) -> str:
        """The chain's word on the epoch is proven from a few blocks."""
        bundle = self._bundle
        facts = prove(bundle.chain, bundle.pool, bundle.epoch)
        self.believed.append(f"the pool that is meant is {Address(0, bundle.pool.account)}")
        for block in to_believe(facts, self._confirmed):
            self.believed.append(
                f"block {block.seqno}:{block.root_hash.hex()}, {self._bears(facts, block.seqno)}, is of the "
                f"masterchain of network {bundle.pool.network}: compare it with an explorer, or give --block"
            )
        self.facts, opened = facts, facts.opened
        return (
            f"{len(facts.blocks)} blocks, {len(bundle.chain.accounts)} contract states; pot {opened.pot_nanoton} "
            f"nanoTON, {len(facts.participants)} participants, operator set {facts.operators.set_id} of "
            f"{len(facts.operators.operators)}; landed {facts.landed.payload_hash.hex()}"
        )

    def _bears(self, facts: Facts, seqno: int) -> str:
        """What rests on the block of this number."""
        if len(facts.roots) == 1:
            return "on which everything rests"
        chain = self._bundle.chain
        roles = {
            chain.registry_seqno: "the registry",
            chain.open_seqno: "pot, policy, operators and base",
            chain.landed_seqno: "what landed",
        }
        borne = [what for at, what in roles.items() if at in (seqno, seqno + 1)]
        return f"which bears {' and '.join(borne)}" if borne else "which evidence is anchored in"

    def check_policy(self) -> str:
        """The document is the one that was pinned to the epoch when it began."""
        policy, pinned = parse_policy(self._bundle.policy), self.facts.opened.policy_hash
        if policy.hash != pinned:
            raise AuditFailedError(f"policy: its hash is {policy.hash.hex()}, the epoch was pinned to {pinned.hex()}")
        require_root_allowed(self._bundle.pool.network, self._bundle.root)
        root = hashlib.sha256(self._bundle.root)
        if root.digest() != INTEL_ROOT_SHA256:
            self.believed.append(f"evidence counts up to the root certificate {root.hexdigest()}: not Intel's")
        held = _Held(self._bundle.attachments)
        self.verdicts = Verdicts(self._bundle.pool, Policies(policy), self._bundle.root, held)
        self.verdicts.anchors = _ShownAnchors(self.facts, self._bundle.denied)
        for anchor in self._bundle.denied:
            self.believed.append(
                f"{anchor.seqno}:{anchor.root_hash.hex()}, of {anchor.time_s}, is no block of the masterchain"
            )
        self.policy = policy
        return f"{policy.hash.hex()}, as pinned"

    def check_base(self) -> str:
        """The settlement before is the one that had landed."""
        before, data = self.facts.before, self._bundle.base
        if data is None and before.epoch != 0:
            raise AuditFailedError(f"base: the settlement of epoch {before.epoch} is missing")
        if data is not None and before.epoch == 0:
            raise AuditFailedError("base: one is here, but nothing had landed before")
        self.base = Base() if data is None else verify_checkpoint(data, before.payload_hash).base()
        if data is None:
            return "none: the first epoch"
        self.believed.append(f"what landed for epoch {before.epoch} and before is right: their own bundles show it")
        return f"epoch {before.epoch}, {before.payload_hash.hex()}"

    def check_settled(self) -> str:
        """The settlement is the one that landed."""
        self.settled = verify_checkpoint(self._bundle.settled, self.facts.landed.payload_hash)
        payload = self.settled.payload
        return f"{payload.count} leaves, {payload.total_earned_nanoton} nanoTON ever earned, as landed"

    def check_certificate(self) -> str:
        """Operators of more than two thirds of the weight signed what landed."""
        operators, findings, weight = self.facts.operators, [], 0
        if not self._bundle.signatures:
            self.believed.append("operators signed what landed: the chain took it, their signatures are not here")
            return "no signatures are here"
        hashed = self._certificate_hash()
        for each in {signature.index: signature for signature in self._bundle.signatures}.values():
            try:
                weight += certificate.verify_signature(operators, hashed, each)
            except InvalidSignatureError as error:
                findings.append(f"signature of operator {each.index}{self._name_of(each.index)}: {error}")
        if findings:
            raise AuditFailedError(*findings)
        if not operators.is_quorum(weight):
            raise AuditFailedError(f"signatures of weight {weight} of {operators.total_weight} are no quorum")
        return f"signed by weight {weight} of {operators.total_weight}"

    def _name_of(self, index: int) -> str:
        operators = self.facts.operators.operators
        return f", {operators[index].node_key.hex()}" if index < len(operators) else ""

    def _certificate_hash(self) -> bytes:
        return self.facts.certificate_hash(self._bundle.pool, self.settled.payload)

    def check_proposal(self) -> str:
        """The proposal is its leader's, of what landed, over signed observations of enough operators."""
        round_ = Round(self.frame, self._bundle.pool, observe_s=0)
        findings = []
        for i, wire in enumerate(self._bundle.observations):
            try:
                observation = parse_observation(wire, self._bundle.pool)
                if observation.epoch != self._bundle.epoch:
                    raise InvalidMessageError(f"of epoch {observation.epoch}")
                round_.add_observation(observation, self.base, None)
            except InvalidMessageError as error:
                findings.append(f"observation {i} of the bundle: {error}")
        proposal = parse_proposal(self._bundle.proposal, self._bundle.pool)
        round_.add_proposal(proposal)
        if proposal.epoch != self._bundle.epoch or proposal.cert_hash != self._certificate_hash():
            findings.append("proposal: of another certificate than the one that landed")
        try:
            self.observations = round_.listed(proposal)
        except DataUnavailableError as error:
            missing = {named.id for named in error.missing if isinstance(named, ObjectId)}
            findings += [
                f"observation {item.digest.hex()} of operator {item.index}{self._name_of(item.index)}: missing"
                for item in proposal.listed
                if item.digest in missing
            ]
        if findings:
            raise AuditFailedError(*findings)
        self.believed.append(
            "what operators say they saw, of whom more than a third of the weight has to agree: that participants "
            "answered (uptime), and what worker contracts paid"
        )
        return f"view {proposal.view}, {len(self.observations)} observations"

    def check_records(self) -> str:
        """All records that the observations name are here, signed, each on the one before it."""
        logs = LogBook(window_max_s=WINDOW_S_MAX)
        for node_key, reading in self.base.readings.items():
            logs.rebase(node_key, reading.head, reading.work_end_s, is_dead=reading.dead)
        logs.open(participant.node_key for participant in self.facts.participants)
        findings = []
        for i, wire in enumerate(self._bundle.records):
            try:
                _place(logs, wire, self._bundle.pool)
            except InvalidMessageError as error:
                findings.append(f"record {i} of the bundle: {error}")
                if len(findings) >= FAULTS_MAX:
                    raise AuditFailedError(*findings) from error
        try:
            self.cut = compute_cut(self.facts.operators, self.base, self.observations, logs)
        except DataUnavailableError as error:
            findings += sorted(
                f"records {each.first} to {each.last} of {self._who(each.node_key)}: observed, and not all here"
                for each in error.missing
                if isinstance(each, RecordRange)
            )
        if findings:
            raise AuditFailedError(*findings)
        self.logs = logs
        return f"{len(self._bundle.records)} records, signatures and chains hold"

    def _who(self, node_key: bytes) -> str:
        found = next((p for p in self.facts.participants if p.node_key == node_key), None)
        return f"node {node_key.hex()}" + ("" if found is None else f" ({found.address})")

    def check_evidence(self) -> str:
        """All evidence in the cut can be judged anew; what is refused is noted, for it is not the bundle's fault."""
        held, findings = 0, []
        for participant, record, body in self._evidence():
            where = f"evidence, record {record.seq} of {self._who(participant.node_key)}"
            try:
                self.verdicts.judge(self.policy, participant.node_key, body)
            except AttestationError as error:
                self.notes.append(f"{where}: refused: {error}")
            except DataUnavailableError as error:
                findings += [f"{where}: {_missing_text(each)}" for each in error.missing]
            else:
                held += 1
        if findings:
            raise AuditFailedError(*findings)
        if not held and not self.notes:
            return "no new pieces: what covers this epoch's work was settled before, and stands in the base"
        return f"{held} pieces judged anew and good, {len(self.notes)} refused"

    def _evidence(self) -> Iterator[tuple[Participant, Record, EvidenceBody]]:
        """The evidence that the tally looks at."""
        oldest_s = self.facts.opened.end_s - self.policy.work.anchor_age_max_s
        for participant in self.facts.participants:
            point = self.cut.get(participant.node_key)
            for record in () if point is None else self.logs[participant.node_key].chain(point.head):
                if isinstance(record.body, EvidenceBody) and record.body.anchor_time_s >= oldest_s:
                    yield participant, record, record.body

    def check_totals(self) -> str:
        """What follows from all of it is what landed."""
        found = tally(self.frame, self.base, self.cut, self.logs, self.verdicts.verdict)
        self.recomputed = found.payload_hash
        if found.payload_hash != self.settled.payload_hash:
            self.differences = compare(self.settled, found, self.base, self.facts.participants)
            raise AuditFailedError(*(difference.text for difference in self.differences))
        return f"what follows is what landed: {found.payload_hash.hex()}"


Check = tuple[str, tuple[str, ...], Callable[[Audit], str]]

CHECKS: tuple[Check, ...] = (
    ("chain", (), Audit.check_chain),
    ("policy", ("chain",), Audit.check_policy),
    ("base", ("chain",), Audit.check_base),
    ("settled", ("chain",), Audit.check_settled),
    ("certificate", ("chain", "settled"), Audit.check_certificate),
    ("proposal", ("policy", "base", "settled"), Audit.check_proposal),
    ("records", ("base", "proposal"), Audit.check_records),
    ("evidence", ("policy", "records"), Audit.check_evidence),
    ("totals", ("policy", "base", "settled", "records", "evidence"), Audit.check_totals),
)
"""Name, what it needs, and the check itself."""


class _ShownAnchors(Anchors):
    """The chain's word on anchors, from a bundle alone: blocks that it shows, and those that it says are none."""

    def __init__(self, facts: Facts, denied: Collection[Anchor]) -> None:
        super().__init__()
        self._facts = facts
        self._denied = frozenset(denied)

    def word_on(self, anchor: Anchor) -> bool | None:
        if self._facts.is_shown(anchor):
            return True
        return False if anchor in self._denied else None


class _Held:
    """Attachments by digest."""

    def __init__(self, bodies: Collection[bytes]) -> None:
        self._bodies = {hashlib.sha256(body).digest(): body for body in bodies}

    def attachment(self, digest: bytes) -> bytes | None:
        return self._bodies.get(digest)


def _place(logs: LogBook, wire: bytes, pool: PoolId) -> None:
    """Verify a record and put it into its log; errors name it as far as it can be read."""
    record = parse_record(wire, pool)
    try:
        placement = logs.insert(verify_record(record), now_s=LATE_S)
    except InvalidMessageError as error:
        raise InvalidMessageError(f"number {record.seq} of node {record.node_key.hex()}: {error}") from error
    if placement not in _PLACED:
        why = {Placement.GAP: "the one before it is missing", Placement.KNOWN: "it stands twice"}
        reason = why.get(placement, "it was counted before, or never counts")
        raise InvalidMessageError(f"number {record.seq} of node {record.node_key.hex()}: {reason}")


def _missing_text(missing: object) -> str:
    match missing:
        case ObjectId(id=digest):
            return f"names the attachment {digest.hex()}, which is missing"
        case Anchor(seqno=seqno, root_hash=root_hash):
            return (
                f"is anchored in block {seqno}:{root_hash.hex()}, of which the bundle does not say what the chain said"
            )
        case _:
            return f"needs {missing!r:.120}"
