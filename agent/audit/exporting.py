"""Collects the bundle of a settled epoch: from the journal, which is only read, and from the chain.

An agent may run meanwhile. It decides only which of many good parts to take; whether they hold is for who verifies.

1. The chain part comes first: what landed, and on what. It is proven here as it will be by a verifier.
2. Of the proposals for what landed the one of the earliest view is taken whose observations are all here.
3. Records are those that these observations need, and no others; attachments and anchors those that the tally asks
   for, which is run for it.
4. What is gone is said: journals forget (`agent.journal`), liteservers forget old states.

Source: PROTOCOL, "Epoch close"; docs/adr/0029.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.anchors import Anchors
from agent.audit.bundle import Bundle, ChainPart
from agent.audit.facts import Facts, prove
from agent.audit.landing import Landing, find_landing, submitted_signatures
from agent.errors import OperationError
from agent.journal import Journal
from agent.policies import Policies
from agent.retention import EPOCHS_KEPT
from agent.verdicts import Verdicts
from contracts.chain import Chain
from contracts.chain_kept import KeptHeader, KeptLink
from contracts.errors import ChainUnavailableError, ContractsError
from contracts.model import Address, Signature
from gossip.coverage import Approval
from gossip.cut import needed_heads, proven_forks
from gossip.epoch_events import Anchor, ObjectId
from gossip.errors import DataUnavailableError
from gossip.log_chain import LogBook
from gossip.messages import Attest, Observation, Proposal
from gossip.policy import WINDOW_S_MAX, PoolPolicy, parse_policy
from gossip.records import EvidenceBody, PoolId, Record, parse_record, trust_record
from gossip.settlement import Base, Settlement, verify_checkpoint
from gossip.tally import settle
from gossip.wire import parse_message

LATE_S = 1 << 40
log = logging.getLogger(__name__)

_KEPT = f"a journal keeps {EPOCHS_KEPT} settled epochs, and an agent only what it attested: ask another operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A bundle; whether what landed follows from it, as computed here; what an operator should know of it."""

    bundle: Bundle
    is_same: bool
    notes: tuple[str, ...] = ()


class Exporter:
    """Makes bundles of one pool. `policies` are the texts of policy documents; `root` is the attestation's (DER)."""

    def __init__(self, chain: Chain, journal: Journal, pool: PoolId, policies: Sequence[str], root: bytes) -> None:
        self._chain = chain
        self._journal = journal
        self._pool = pool
        self._policies = {parse_policy(text).hash: text for text in policies}
        self._root = root

    async def export(self, epoch: int) -> Exported:
        """Collect the bundle of a settled epoch.

        Raises:
            OperationError: it is not settled, or something of it is gone; the message says what.
            ContractsError: the chain does not answer, or serves states so old no more.
            JournalError: the journal cannot be read.
            GossipError: what it holds does not fit together.
        """
        landing = await find_landing(self._chain, Address(0, self._pool.account), epoch)
        facts = prove(landing.part, self._pool, epoch)
        text = self._policies.get(facts.opened.policy_hash)
        if text is None:
            raise OperationError(
                f"epoch {epoch} was counted by policy {facts.opened.policy_hash.hex()}, whose document is not here: "
                "name it as pool.next_policy_file"
            )
        base_bytes = self._checkpoint(facts.before.payload_hash, epoch - 1) if facts.before.epoch else None
        base = Base() if base_bytes is None else verify_checkpoint(base_bytes, facts.before.payload_hash).base()
        settled_bytes = self._checkpoint(facts.landed.payload_hash, epoch)
        settled = verify_checkpoint(settled_bytes, facts.landed.payload_hash)
        close = self._close(facts, settled)
        logs = self._logs(facts, base, close.observations)
        records = _needed(base, close.observations, logs)
        judged = _Judged(self._chain, self._journal, self._pool, parse_policy(text), self._root)
        outcome = await judged.settle(facts, base, close.observations, logs)
        signatures = await self._signatures(facts, landing, close)
        bundle = Bundle(
            pool=self._pool,
            epoch=epoch,
            chain=await self._chain_part(landing, judged.headers),
            policy=text,
            root=self._root,
            base=base_bytes,
            settled=settled_bytes,
            proposal=close.proposal.wire,
            observations=tuple(observation.wire for observation in close.observations),
            signatures=signatures,
            records=tuple(record.wire for record in records),
            attachments=judged.attachments,
            denied=tuple(sorted(judged.denied, key=lambda anchor: (anchor.seqno, anchor.root_hash, anchor.time_s))),
        )
        notes = () if signatures else ("the operators' signatures cannot be had any more: the bundle has none",)
        return Exported(bundle=bundle, is_same=outcome.payload_hash == settled.payload_hash, notes=notes)

    async def _chain_part(self, landing: Landing, anchors: Sequence[KeptHeader]) -> ChainPart:
        """All headers, each linked to the block of the landing as far as liteservers show that."""
        headers = {header.seqno: header for header in (*landing.part.headers, *anchors)}
        links: list[KeptLink] = []
        for seqno in sorted(headers):
            if seqno + 1 in headers or seqno >= landing.landed_at.seqno:
                continue
            try:
                links.append(await self._chain.kept_link(landing.landed_at, headers[seqno].believe()[0]))
            except ContractsError as error:
                # A verifier has to believe one more block then. None is asked for another: it would say the same.
                log.info("block %d is not linked: %s", seqno, error)
                break
        return replace(landing.part, headers=tuple(headers[seqno] for seqno in sorted(headers)), links=tuple(links))

    def _checkpoint(self, payload_hash: bytes, epoch: int) -> bytes:
        data = self._journal.checkpoint(payload_hash)
        if data is None:
            raise OperationError(f"the settlement of epoch {epoch} is not in the journal (any more): {_KEPT}")
        return data

    def _close(self, facts: Facts, settled: Settlement) -> _Close:
        """The proposal that landed, with its observations (rule 2)."""
        operators, epoch = facts.operators, facts.opened.epoch
        hashed = facts.certificate_hash(self._pool, settled.payload)
        messages = [parse_message(kind, wire, self._pool) for kind, wire in self._journal.messages(epoch)]
        held = {message.digest: message for message in messages if isinstance(message, Observation)}
        attests = [m for m in messages if isinstance(m, Attest) and m.cert_hash == hashed]
        proposals = (m for m in messages if isinstance(m, Proposal) and m.cert_hash == hashed)
        for proposal in sorted(proposals, key=lambda each: (each.view, each.digest)):
            if all(item.digest in held for item in proposal.listed):
                return _Close(
                    proposal=proposal,
                    observations=[held[item.digest] for item in proposal.listed],
                    cert_hash=hashed,
                    signatures={
                        index: attest.cert_signature
                        for attest in attests
                        if (index := operators.index_of(attest.operator)) is not None
                    },
                )
        raise OperationError(f"the proposal behind the settlement of epoch {epoch} is not in the journal: {_KEPT}")

    def _logs(self, facts: Facts, base: Base, observations: Sequence[Observation]) -> LogBook:
        """The logs above the base, as far as observed."""
        logs = LogBook(window_max_s=WINDOW_S_MAX)
        for node_key, reading in base.readings.items():
            logs.rebase(node_key, reading.head, reading.work_end_s, is_dead=reading.dead)
        logs.open(participant.node_key for participant in facts.participants)
        for participant in facts.participants:
            node_key = participant.node_key
            heads = [o.logs[node_key].head.seq for o in observations if node_key in o.logs]
            for wire in self._journal.records(node_key, logs[node_key].base.seq + 1, max(heads, default=0)):
                logs.insert(trust_record(parse_record(wire, self._pool)), now_s=LATE_S)
        return logs

    async def _signatures(self, facts: Facts, landing: Landing, close: _Close) -> tuple[Signature, ...]:
        """A quorum's signatures, from attests in the journal and from the submission; none if that is less."""
        found = dict(close.signatures)
        try:
            for signature in await submitted_signatures(self._chain, landing, close.cert_hash):
                found[signature.index] = signature.signature
        except ChainUnavailableError as error:
            log.info("the submission cannot be read: %s", error)  # transactions may be forgotten before states are
        weights = [operator.weight for operator in facts.operators.operators]
        if not facts.operators.is_quorum(sum(weight for index, weight in enumerate(weights) if index in found)):
            return ()
        return tuple(Signature(index=index, signature=found[index]) for index in sorted(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Close:
    """How an epoch came to its certificate; signatures by operator index, as far as the journal has them."""

    proposal: Proposal
    observations: list[Observation]
    cert_hash: bytes
    signatures: dict[int, bytes]


def _needed(base: Base, observations: Sequence[Observation], logs: LogBook) -> list[Record]:
    """The records on the chains that the observations need (rule 3), by node key and number.

    Raises:
        OperationError: some are missing.
    """
    found: dict[tuple[bytes, int, bytes], Record] = {}
    for log, head in needed_heads(base, observations, logs, proven_forks(observations)):
        try:
            found.update({(record.node_key, record.seq, record.hash): record for record in log.chain(head)})
        except DataUnavailableError as error:
            raise OperationError(
                f"records {log.base.seq + 1} to {head.seq} of node {log.node_key.hex()} are not all here: {_KEPT}"
            ) from error
    return [found[key] for key in sorted(found)]


class _Judged:
    """Runs the tally for what it asks for: attachments, and the chain's word on anchors."""

    def __init__(self, chain: Chain, journal: Journal, pool: PoolId, policy: PoolPolicy, root: bytes) -> None:
        self._chain = chain
        self._journal = journal
        self._policy = policy
        self._verdicts = Verdicts(pool, Policies(policy), root, journal)
        self._judged: set[bytes] = set()
        """Digests of the attachments of all evidence that was judged."""
        self.headers: list[KeptHeader] = []
        self.denied: list[Anchor] = []

    async def settle(self, facts: Facts, base: Base, observations: Sequence[Observation], logs: LogBook) -> Settlement:
        """The settlement that follows, once the chain said all that it has to say about anchors."""
        frame = facts.frame(self._policy)
        while True:
            try:
                return settle(frame, base, observations, logs, self._verdict)
            except DataUnavailableError as error:
                missing = error.missing
            gone = sorted(each.id.hex() for each in missing if isinstance(each, ObjectId))
            if gone:
                raise OperationError(f"what evidence names is not here: attachment {gone[0]}: {_KEPT}")
            for anchor in missing:
                assert isinstance(anchor, Anchor)
                await self._ask(self._verdicts.anchors, anchor)

    def _verdict(self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        self._judged.update(body.attachments)
        return self._verdicts.verdict(policy, node_key, body)

    async def _ask(self, anchors: Anchors, anchor: Anchor) -> None:
        if not await anchors.confirm(self._chain, anchor):
            self.denied.append(anchor)
            return
        self.headers.append(await self._chain.kept_header(await self._chain.block_by_seqno(anchor.seqno)))

    @property
    def attachments(self) -> tuple[bytes, ...]:
        """The attachments that were looked at, ascending by digest."""
        found = (self._journal.attachment(digest) for digest in sorted(self._judged))
        return tuple(body for body in found if body is not None)
