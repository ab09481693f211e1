"""Verdicts: judges everybody's evidence, for the tally and for whoever looks at the status.

The verdict is part of consensus: a pure function of the evidence, of what that names by digest, and of the
pool's policy and root; and of whether its anchor is a block of the masterchain, which is asked only if all else
holds. What is not here yet is named, and fetched; it is never guessed.

1. Evidence is judged when its record is placed, so that the tally finds the verdict in memory; after a start,
   what the logs hold is judged again.
2. All memory is bounded; what was forgotten is judged anew, with the same verdict. A verdict takes some hundred
   bytes: a refusal is kept as its words, not as the error, which would keep what it was raised over.

Source: ATTESTATION, "Binding"; PROTOCOL, "Tally" (evidence).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import trio

from agent.anchors import Anchors
from agent.policies import Policies
from agent.standings import Refusal, Standing
from attestation.appraisal import Appraisal
from attestation.collateral import Collateral
from attestation.errors import AnchorUnknownError, AttestationError
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from attestation.verify import Verifier
from contracts.chain import Chain
from gossip.coverage import Approval, Gpu
from gossip.epoch_events import Anchor, DataArrived, ObjectId
from gossip.errors import DataUnavailableError
from gossip.node import Node
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId, Record

INTERVAL_S = 0.5
VERDICTS_MAX = 262_144
PENDING_MAX = 65_536
COLLATERAL_MAX = 64
NOTHING: Mapping[bytes, bytes] = MappingProxyType({})

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """Evidence that was placed and waits for its standing; `found` is what the pure part says, if it could."""

    record: Record
    body: EvidenceBody
    found: Appraisal | Refusal | None = None


class AttachmentStore(Protocol):
    """What holds the attachments of evidence: the journal, or an audited bundle."""

    def attachment(self, digest: bytes) -> bytes | None:
        """What is kept under this SHA-256."""


class Verdicts:
    """Judges evidence by the policies held, up to `root` (DER); `standings` tells how everybody stands."""

    def __init__(self, pool: PoolId, policies: Policies, root: bytes, attachments: AttachmentStore) -> None:
        self._pool = pool
        self._policies = policies
        self.rules = {policy.hash: AttestationPolicy.from_mapping(policy.attestation) for policy in policies}
        """The attestation part of each policy held, by the policy's hash."""
        self.anchors = Anchors()
        self._verifier = Verifier(root)
        self._store = attachments
        self._verdicts: dict[bytes, Approval | None] = {}
        """By digest of policy and evidence: the pure part of the verdict, None if it is a refusal."""
        self._collateral: dict[bytes, Collateral] = {}
        self._pending: dict[bytes, _Pending] = {}
        self.standings: dict[bytes, Standing] = {}
        """By node key: the latest evidence of a participant, as far as it was judged since the start."""

    # The verdict.

    def verdict(self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        """In which time this evidence holds, or None if it is refused (`gossip.coverage.Verdict`).

        `policy` is one of those held.

        Raises:
            DataUnavailableError: something that it names, or the word on its anchor, is not here yet.
        """
        key = _digest(policy.hash, node_key, body)
        if key not in self._verdicts:
            try:
                self._appraise(policy, node_key, body)
            except AttestationError:
                return None
        approval = self._verdicts[key]
        return approval if approval is not None and self._is_block(anchor_of(body)) else None

    def judge(
        self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody, named: Mapping[bytes, bytes] = NOTHING
    ) -> Appraisal:
        """The same verdict anew, with all that is behind it.

        `named` is what the evidence names, by its SHA-256, as far as it is not in the store yet.

        Raises:
            AttestationError: it is refused.
            DataUnavailableError: as `verdict`.
        """
        appraisal = self._appraise(policy, node_key, body, named)
        if not self._is_block(anchor_of(body)):
            raise _unknown(anchor_of(body))
        return appraisal

    def _is_block(self, anchor: Anchor) -> bool:
        word = self.anchors.word_on(anchor)
        if word is None:
            raise DataUnavailableError("an anchor is not confirmed yet", frozenset({anchor}))
        return word

    def _appraise(
        self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody, named: Mapping[bytes, bytes] = NOTHING
    ) -> Appraisal:
        """The pure part of the verdict, kept in short for the tally."""
        key = _digest(policy.hash, node_key, body)
        _make_room(self._verdicts, VERDICTS_MAX)
        try:
            appraisal = appraise_evidence(
                _evidence(body),
                self._attachments(body, named),
                self.rules[policy.hash],
                network=self._pool.network,
                pool=self._pool.account,
                node_key=node_key,
                root=self._verifier,
            )
        except AttestationError:
            self._verdicts[key] = None
            raise
        self._verdicts[key] = approval_of(appraisal)
        return appraisal

    def _attachments(self, body: EvidenceBody, named: Mapping[bytes, bytes]) -> Attachments:
        """What the evidence names: collateral from memory, all else as given or from the journal, by primary key."""
        collateral = self._collateral.get(body.collateral_digest)
        if collateral is None:
            collateral = Collateral.from_json(self._found(body.collateral_digest, named))
            _make_room(self._collateral, COLLATERAL_MAX)
            self._collateral[body.collateral_digest] = collateral
        gpu, handshake = (
            None if digest is None else self._found(digest, named)
            for digest in (body.gpu_digest, body.handshake_digest)
        )
        return Attachments(collateral=collateral, gpu=gpu, handshake=handshake)

    def _found(self, digest: bytes, named: Mapping[bytes, bytes]) -> bytes:
        found = named.get(digest) or self._store.attachment(digest)
        if found is None:
            missing = ObjectId(kind="attachment", id=digest)
            raise DataUnavailableError("what evidence names is not here yet", frozenset({missing}))
        return found

    # Looking at evidence as it comes in (rule 1).

    def note(self, record: Record) -> None:
        """Have this evidence record judged soon."""
        assert isinstance(record.body, EvidenceBody)
        _make_room(self._pending, PENDING_MAX)
        self._pending[record.hash] = _Pending(record, record.body)

    async def examine(self, node: Node, chain: Chain) -> None:
        """Judge, for ever, what came in, and look up the anchors that it and the machine's decisions need."""
        node.on_evidence = self.note
        for node_key in node.logs:
            held = node.logs[node_key]
            for record in reversed(list(held.chain(held.head))):
                if isinstance(record.body, EvidenceBody):
                    self.note(record)
        while True:
            await self._judge_pending(node.now_s())
            decisive = {wanted for wanted in node.machine.wanted if isinstance(wanted, Anchor)}
            needed = {anchor_of(each.body) for each in self._pending.values() if isinstance(each.found, Appraisal)}
            unknown = [anchor for anchor in decisive | needed if self.anchors.word_on(anchor) is None]
            await self.anchors.confirm_all(chain, unknown)
            self._settle_pending()
            if any(self.anchors.word_on(anchor) is not None for anchor in decisive):
                await node.handle(DataArrived())
            await trio.sleep(INTERVAL_S)

    async def _judge_pending(self, now_s: int) -> None:
        """The pure part, one after another; others have their turn between two."""
        policy = self._policies.in_force
        for pending in list(self._pending.values()):
            if pending.found is not None:
                continue
            await trio.lowlevel.checkpoint()
            try:
                appraisal = self._appraise(policy, pending.record.node_key, pending.body)
                appraisal.require_current(now_s)
                pending.found = appraisal
            except DataUnavailableError:
                continue  # it comes in later; until then nobody can say
            except AttestationError as error:
                pending.found = Refusal.of(error)

    def _settle_pending(self) -> None:
        """Note the standing of whoever's evidence is decided."""
        for key, pending in list(self._pending.items()):
            found = pending.found
            word = self.anchors.word_on(anchor_of(pending.body))
            if found is None or (isinstance(found, Appraisal) and word is None):
                continue
            if isinstance(found, Appraisal) and not word:
                found = Refusal.of(_unknown(anchor_of(pending.body)))
            del self._pending[key]
            self._stand(pending.record, found)

    def _stand(self, record: Record, found: Appraisal | Refusal) -> None:
        known = self.standings.get(record.node_key)
        if known is not None and known.seq > record.seq:
            return
        self.standings[record.node_key] = Standing(record=record.hash, seq=record.seq, found=found)
        if isinstance(found, Refusal):
            log.warning("evidence of %s refused (%s): %s", record.node_key.hex()[:16], found.code, found.message)


def approval_of(appraisal: Appraisal) -> Approval:
    """What the tally needs of an appraisal."""
    return Approval(
        from_s=appraisal.valid_from_s,
        until_s=appraisal.valid_until_s,
        machine=appraisal.machine,
        gpus=tuple(Gpu(identity=gpu.identity, model=gpu.model) for gpu in appraisal.gpus),
    )


def anchor_of(body: EvidenceBody) -> Anchor:
    """The block that the evidence claims."""
    return Anchor(seqno=body.anchor_seqno, root_hash=body.anchor_root_hash, time_s=body.anchor_time_s)


def _unknown(anchor: Anchor) -> AnchorUnknownError:
    return AnchorUnknownError(f"anchor: {anchor.seqno} with this hash and time is no block of the masterchain")


def _evidence(body: EvidenceBody) -> Evidence:
    return Evidence(
        quote=body.quote,
        collateral_digest=body.collateral_digest,
        gpu_digest=body.gpu_digest,
        handshake_digest=body.handshake_digest,
        anchor_seqno=body.anchor_seqno,
        anchor_root_hash=body.anchor_root_hash,
        anchor_time_s=body.anchor_time_s,
    )


def _digest(policy_hash: bytes, node_key: bytes, body: EvidenceBody) -> bytes:
    """Names a piece of evidence under a policy in 32 bytes instead of the many that it has."""
    named = (policy_hash, node_key, body.quote, body.collateral_digest, body.anchor_root_hash)
    numbers = f"{body.anchor_seqno} {body.anchor_time_s}".encode()
    more = (body.gpu_digest or b"-", body.handshake_digest or b"-", numbers)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (*named, *more))).digest()


def _make_room(cache: dict[Any, Any], most: int) -> None:
    while len(cache) >= most:
        del cache[next(iter(cache))]
