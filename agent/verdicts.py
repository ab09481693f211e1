"""Verdicts: judges everybody's evidence, for the tally and for whoever looks at the status.

The verdict is part of consensus: it is a pure function of the evidence, of what that names by digest, of the
pool's policy and root, and of whether its anchor is a block of the masterchain. What is not here yet is named,
and fetched; it is never guessed.

1. Each piece is verified once per policy, as soon as its record is placed; the tally finds it in memory.
2. An anchor is looked up at the chain once. One that claims a number above the head's at an earlier time
   cannot exist; any other unknown block is asked for again.
3. All memory is bounded; what was forgotten is verified anew, with the same verdict.

Source: ATTESTATION, "Binding"; PROTOCOL, "Tally" (evidence).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from agent.journal import Journal
from agent.policies import Policies
from attestation.appraisal import Appraisal
from attestation.collateral import Collateral
from attestation.errors import AnchorStaleError, AnchorUnknownError, AttestationError
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from attestation.verify import Verifier
from contracts.chain import Chain
from contracts.errors import ChainUnavailableError, ContractsError
from gossip.epoch_events import Anchor, DataArrived, ObjectId
from gossip.errors import DataUnavailableError
from gossip.node import Node
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId, Record
from gossip.tally import Approval

CONFIRM_INTERVAL_S = 0.5
VERDICTS_MAX = 8192
ANCHORS_MAX = 8192
COLLATERAL_MAX = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The verdict on a participant's latest evidence: an appraisal, or the error that refused it."""

    record: bytes
    appraisal: Appraisal | None
    error: AttestationError | None

    def holds(self, now_s: int) -> bool:
        """Whether the evidence is in force."""
        return self.appraisal is not None and now_s <= self.appraisal.valid_until_s


class Verdicts:
    """Judges evidence by the policies held, up to `root` (DER); `standings` tells how everybody stands."""

    def __init__(self, pool: PoolId, policies: Policies, root: bytes, journal: Journal) -> None:
        self._pool = pool
        self._policies = policies
        self.rules = {policy.hash: AttestationPolicy.from_mapping(policy.attestation) for policy in policies}
        """The attestation part of each policy held, by the policy's hash."""
        self._verifier = Verifier(root)
        self._journal = journal
        self._verdicts: dict[bytes, Appraisal | AttestationError] = {}
        self._collateral: dict[bytes, Collateral] = {}
        self._anchors: dict[Anchor, bool] = {}
        self._unseen: dict[bytes, Record] = {}
        self.standings: dict[bytes, Standing] = {}
        """By node key; whose evidence has not come in since the start is not here."""

    # The verdict, as the tally asks for it.

    def verdict(self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        """In which time this evidence holds, or None if it is refused (`gossip.tally.Verdict`).

        `policy` is one of those held.

        Raises:
            DataUnavailableError: something that it names, or the word on its anchor, is not here yet.
        """
        try:
            appraisal = self.judge(policy, node_key, body)
        except AttestationError:
            return None
        return Approval(from_s=appraisal.valid_from_s, until_s=appraisal.valid_until_s, machine=appraisal.machine)

    def judge(self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Appraisal:
        """The same verdict with all that is behind it.

        Raises:
            AttestationError: it is refused.
            DataUnavailableError: as `verdict`.
        """
        key = _digest(policy.hash, node_key, body)
        if key not in self._verdicts:
            found = self._judge(self.rules[policy.hash], node_key, body)
            _make_room(self._verdicts, VERDICTS_MAX)
            self._verdicts[key] = found
        verdict = self._verdicts[key]
        if isinstance(verdict, AttestationError):
            # A new traceback each time: an error that is raised again and again would grow.
            raise verdict.with_traceback(None)
        return verdict

    def _judge(self, rules: AttestationPolicy, node_key: bytes, body: EvidenceBody) -> Appraisal | AttestationError:
        anchor = anchor_of(body)
        if anchor not in self._anchors:
            raise DataUnavailableError("an anchor is not confirmed yet", frozenset({anchor}))
        if not self._anchors[anchor]:
            return AnchorUnknownError(f"anchor: {anchor.seqno} with this hash and time is no block of the masterchain")
        try:
            return appraise_evidence(
                _evidence(body),
                self._attachments(body),
                rules,
                network=self._pool.network,
                pool=self._pool.account,
                node_key=node_key,
                root=self._verifier,
            )
        except AttestationError as error:
            return error

    def _attachments(self, body: EvidenceBody) -> Attachments:
        """What the evidence names: collateral from memory, all else from the journal, by primary key."""
        collateral = self._collateral.get(body.collateral_digest)
        if collateral is None:
            collateral = Collateral.from_json(self._stored(body.collateral_digest))
            _make_room(self._collateral, COLLATERAL_MAX)
            self._collateral[body.collateral_digest] = collateral
        gpu, handshake = (
            None if digest is None else self._stored(digest) for digest in (body.gpu_digest, body.handshake_digest)
        )
        return Attachments(collateral=collateral, gpu=gpu, handshake=handshake)

    def _stored(self, digest: bytes) -> bytes:
        stored = self._journal.attachment(digest)
        if stored is None:
            missing = ObjectId(kind="attachment", id=digest)
            raise DataUnavailableError("what evidence names is not here yet", frozenset({missing}))
        return stored

    # Looking at evidence as it comes in (rule 1).

    def note(self, record: Record) -> None:
        """Have this evidence record judged soon: it is the latest of its participant."""
        self._unseen[record.node_key] = record

    async def examine(self, node: Node, chain: Chain) -> None:
        """Judge, for ever, what came in, and look up the anchors that a decision waits for (rule 2)."""
        node.on_evidence = self.note
        while True:
            for node_key, record in list(self._unseen.items()):
                if await self._examine(record, chain) and self._unseen.get(node_key) is record:
                    del self._unseen[node_key]
            for wanted in [w for w in node.machine.wanted if isinstance(w, Anchor)]:
                if await self._confirmed(chain, wanted):
                    await node.handle(DataArrived())
            await trio.sleep(CONFIRM_INTERVAL_S)

    async def _examine(self, record: Record, chain: Chain) -> bool:
        """Whether the record's evidence could be judged; what is missing may come in later."""
        body = record.body
        assert isinstance(body, EvidenceBody)
        if anchor_of(body) not in self._anchors and not await self._confirmed(chain, anchor_of(body)):
            return False
        try:
            appraisal = self.judge(self._policies.in_force, record.node_key, body)
        except DataUnavailableError:
            return False
        except AttestationError as error:
            self.standings[record.node_key] = Standing(record=record.hash, appraisal=None, error=error)
            log.warning("evidence of %s refused (%s): %s", record.node_key.hex()[:16], error.code, error)
        else:
            self.standings[record.node_key] = Standing(record=record.hash, appraisal=appraisal, error=None)
        return True

    @property
    def refused(self) -> Mapping[bytes, AttestationError]:
        """Why the latest evidence of a participant is refused, by node key."""
        return {node_key: each.error for node_key, each in self.standings.items() if each.error is not None}

    # Anchors.

    def trust_anchor(self, anchor: Anchor) -> None:
        """Take this anchor as a block of the masterchain: it was read from there just now."""
        _make_room(self._anchors, ANCHORS_MAX)
        self._anchors[anchor] = True

    async def confirm(self, chain: Chain, anchor: Anchor) -> None:
        """Look an anchor up at the chain (rule 2).

        Raises:
            ContractsError: the chain cannot say now.
        """
        head = await chain.head()
        if anchor.seqno > head.seqno:
            exists = False
            if anchor.time_s > head.time_s:
                raise ChainUnavailableError(f"block {anchor.seqno} is ahead of the head")
        else:
            block = await chain.block_by_seqno(anchor.seqno)
            exists = (block.root_hash, block.time_s) == (anchor.root_hash, anchor.time_s)
        _make_room(self._anchors, ANCHORS_MAX)
        self._anchors[anchor] = exists

    async def _confirmed(self, chain: Chain, anchor: Anchor) -> bool:
        try:
            await self.confirm(chain, anchor)
        except ContractsError as error:
            log.debug("anchor %d cannot be looked up now: %s", anchor.seqno, error)
            return False
        return True


def anchor_of(body: EvidenceBody) -> Anchor:
    """The block that the evidence claims."""
    return Anchor(seqno=body.anchor_seqno, root_hash=body.anchor_root_hash, time_s=body.anchor_time_s)


def standing_value(standing: Standing, now_s: int) -> dict[str, Any]:
    """A standing as JSON, for the status; expired evidence is refused like any other."""
    error = standing.error
    value: dict[str, Any] = {"valid": False}
    if standing.appraisal is not None:
        verified = standing.appraisal.verified
        value = {
            "valid": True,
            "valid_until_s": standing.appraisal.valid_until_s,
            "tcb_status": str(verified.status),
            "tcb_date_s": verified.tcb_date_s,
            "advisories": list(verified.advisories),
            "measurement": standing.appraisal.measurement,
            "machine": standing.appraisal.machine.hex(),
            "gpus": len(standing.appraisal.gpus),
        }
        try:
            standing.appraisal.require_current(now_s)
        except AnchorStaleError as stale:
            error = stale
    if error is None:
        return value | {"error": None}
    return value | {"valid": False, "error": error.code, "fault": error.fault, "message": str(error)}


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
    more = (
        body.gpu_digest or b"-",
        body.handshake_digest or b"-",
        f"{body.anchor_seqno} {body.anchor_time_s}".encode(),
    )
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (*named, *more))).digest()


def _make_room(cache: dict[Any, Any], most: int) -> None:
    while len(cache) >= most:
        del cache[next(iter(cache))]
