"""Attesting: proves to the pool what this host runs on, and judges the evidence of others for the tally.

The verdict is part of consensus: it is a pure function of the evidence, the collateral that it names, the
pool's policy and root, and of whether its anchor is a block of the masterchain. What is not here yet is
named, and fetched; it is never guessed.

1. Own evidence is renewed when two thirds of its time are over, and when the pool's policy changed: what
   is counted from then on is judged by the new one. A window is covered by one piece or by none.
2. An anchor is looked up at the chain once. One that claims a number above the head's at an earlier time
   cannot exist; any other unknown block is asked for again.

Source: ATTESTATION, "Binding"; PROTOCOL, "Tally" (evidence).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.config import Config
from agent.errors import ConfigError
from agent.journal import Journal
from agent.metrics import Metrics
from agent.policies import Policies
from attestation.binding import report_data
from attestation.collateral import Collateral
from attestation.errors import AttestationError
from attestation.evidence import Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from attestation.providers import QuoteProvider
from attestation.providers.software import SoftwarePlatform
from attestation.roots import root_for
from attestation.verify import Verifier
from contracts.chain import Chain
from contracts.errors import ChainUnavailableError, ContractsError
from gossip.epoch_events import Anchor, DataArrived, ObjectId
from gossip.errors import DataUnavailableError
from gossip.node import Node
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId

CHECK_INTERVAL_S = 5.0
CONFIRM_INTERVAL_S = 0.5
OWN_KEPT_MAX = 4
VERDICTS_MAX = 8192
ANCHORS_MAX = 8192
COLLATERAL_MAX = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEvidence:
    """A piece of this host's evidence: its record's hash, from when until when it holds, by which policy's word."""

    record: bytes
    from_s: int
    until_s: int
    policy_hash: bytes


class Attesting:
    """This host's evidence, and the verdicts on everybody's."""

    def __init__(
        self,
        pool: PoolId,
        policies: Policies,
        root: bytes,
        provider: QuoteProvider,
        journal: Journal,
        metrics: Metrics,
    ) -> None:
        self._pool = pool
        self._policies = policies
        self._rules = {policy.hash: AttestationPolicy.from_mapping(policy.attestation) for policy in policies}
        self._verifier = Verifier(root)
        self._provider = provider
        self._journal = journal
        self._metrics = metrics
        self._own: list[OwnEvidence] = []
        self._verdicts: dict[bytes, tuple[int, int] | None] = {}
        self._collateral: dict[bytes, Collateral] = {}
        self._anchors: dict[Anchor, bool] = {}
        self._refusals: dict[bytes, str] = {}
        self._error: str | None = None
        self.proven = trio.Event()
        """Set once this host's evidence stands in its log: work that becomes a record before counts nothing."""

    # The verdict, as the tally asks for it.

    def verdict(self, policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> tuple[int, int] | None:
        """From when until when this evidence holds, or None if it is refused (`gossip.tally.Verdict`).

        `policy` is one of those held.

        Raises:
            DataUnavailableError: its collateral or the word on its anchor is not here yet.
        """
        key = _digest(policy.hash, node_key, body)
        if key not in self._verdicts:
            verdict = self._judge(self._rules[policy.hash], node_key, body)
            _make_room(self._verdicts, VERDICTS_MAX)
            self._verdicts[key] = verdict
        return self._verdicts[key]

    def _judge(self, rules: AttestationPolicy, node_key: bytes, body: EvidenceBody) -> tuple[int, int] | None:
        anchor = _anchor(body)
        if anchor not in self._anchors:
            raise DataUnavailableError("an anchor is not confirmed yet", frozenset({anchor}))
        if not self._anchors[anchor]:
            self._refuse(node_key, "its anchor is no block of the masterchain")
            return None
        try:
            appraisal = appraise_evidence(
                _evidence(body),
                self._collateral_of(body.collateral_digest),
                rules,
                network=self._pool.network,
                pool=self._pool.account,
                node_key=node_key,
                root=self._verifier,
            )
        except AttestationError as error:
            self._refuse(node_key, str(error))
            return None
        self._refusals.pop(node_key, None)
        return appraisal.valid_from_s, appraisal.valid_until_s

    def _collateral_of(self, digest: bytes) -> Collateral:
        """From memory, else from the journal: a few kilobytes by primary key, once per digest."""
        if digest not in self._collateral:
            stored = self._journal.collateral(digest)
            if stored is None:
                missing = ObjectId(kind="collateral", id=digest)
                raise DataUnavailableError("collateral is not here yet", frozenset({missing}))
            _make_room(self._collateral, COLLATERAL_MAX)
            self._collateral[digest] = Collateral.from_json(stored)
        return self._collateral[digest]

    @property
    def refused(self) -> Mapping[bytes, str]:
        """Why the latest evidence of a participant was refused, by node key."""
        return self._refusals

    def _refuse(self, node_key: bytes, reason: str) -> None:
        self._refusals[node_key] = reason
        log.warning("evidence of %s refused: %s", node_key.hex()[:16], reason)

    # Anchors.

    async def confirm_anchors(self, node: Node, chain: Chain) -> None:
        """Look up, for ever, the anchors that a decision waits for (rule 2)."""
        while True:
            for wanted in [w for w in node.machine.wanted if isinstance(w, Anchor)]:
                try:
                    await self._confirm(chain, wanted)
                except ContractsError as error:
                    log.debug("anchor %d cannot be looked up now: %s", wanted.seqno, error)
                else:
                    await node.handle(DataArrived())
            await trio.sleep(CONFIRM_INTERVAL_S)

    async def _confirm(self, chain: Chain, anchor: Anchor) -> None:
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

    # Own evidence.

    def covering(self, start_s: int, end_s: int) -> bytes | None:
        """Hash of the own evidence record that covers the window [start_s, end_s), if one does."""
        held = (e.record for e in reversed(self._own) if e.from_s <= start_s and end_s <= e.until_s)
        return next(held, None)

    async def renew(self, node: Node, chain: Chain) -> None:
        """Publish evidence now, unless the log holds some that is young; again when two thirds of its time are over."""
        while True:
            try:
                await self._recall(node, chain)
                if self._due_in_s(node.now_s()) <= 0:
                    await self._prove(node, chain)
            except (AttestationError, ContractsError, DataUnavailableError) as error:
                if self._error != str(error):
                    log.error("no evidence can be made, work earns nothing meanwhile: %s", error)
                self._error = str(error)
            else:
                self._error = None
                self.proven.set()
            # Short naps, by the wall clock: a machine that slept wakes up with evidence that is due.
            await trio.sleep(CHECK_INTERVAL_S)

    def is_valid(self, now_s: int) -> bool:
        """Whether own evidence is in force."""
        return bool(self._own) and now_s <= self._own[-1].until_s

    def _due_in_s(self, now_s: int) -> float:
        """Seconds until new evidence is due (rule 1); not positive without any in force."""
        policy_hash = self._policies.in_force.hash
        if not self._own or self._own[-1].policy_hash != policy_hash:
            return 0
        return self._own[-1].until_s - self._rules[policy_hash].evidence_age_max_s / 3 - now_s

    async def _recall(self, node: Node, chain: Chain) -> None:
        """After a start: find what the own log already holds of evidence, settled or not."""
        if self._own:
            return
        public, policy = node.key.public, self._policies.in_force
        log_ = node.logs[public]
        found = [
            OwnEvidence(record=w.record, from_s=w.from_s, until_s=w.until_s, policy_hash=policy.hash)
            for w in node.machine.base.reading(public).evidence
        ]
        for record in reversed(list(log_.chain(log_.head))):
            if isinstance(record.body, EvidenceBody):
                await self._confirm(chain, _anchor(record.body))
                span = self.verdict(policy, public, record.body)
                if span is not None:
                    found.append(
                        OwnEvidence(record=record.hash, from_s=span[0], until_s=span[1], policy_hash=policy.hash)
                    )
        self._own = found[-OWN_KEPT_MAX:]

    async def _prove(self, node: Node, chain: Chain) -> None:
        anchor = await chain.head()
        public, policy = node.key.public, self._policies.in_force
        bound = report_data(self._pool.network, self._pool.account, public, anchor.root_hash)
        quote, collateral = await self._provider.quote(bound), await self._provider.collateral()
        body = EvidenceBody(
            quote=quote,
            gpu_report=None,
            collateral_digest=collateral.digest,
            anchor_seqno=anchor.seqno,
            anchor_root_hash=anchor.root_hash,
            anchor_time_s=anchor.time_s,
        )
        await trio.to_thread.run_sync(self._journal.keep_collateral, collateral.digest, collateral.to_json())
        self._anchors[_anchor(body)] = True
        span = self.verdict(policy, public, body)
        if span is None:
            raise AttestationError(f"the pool would refuse this host's evidence: {self._refusals.get(public)}")
        record = await node.append(body)
        own = OwnEvidence(record=record.hash, from_s=span[0], until_s=span[1], policy_hash=policy.hash)
        self._own = [*self._own[1 - OWN_KEPT_MAX :], own]
        self._metrics.evidence_valid_until.set(own.until_s)
        log.info("evidence published, valid for %d s", own.until_s - own.from_s)

    def status(self, now_s: int) -> Mapping[str, Any]:
        """Own evidence and who is refused, for the status."""
        latest = self._own[-1] if self._own else None
        return {
            "valid": self.is_valid(now_s),
            "valid_until_s": latest.until_s if latest is not None else None,
            "error": self._error,
            "refused": {key.hex(): reason for key, reason in self._refusals.items()},
        }


def open_attesting(config: Config, policies: Policies, pool: PoolId, journal: Journal, metrics: Metrics) -> Attesting:
    """Open this host's quote provider and the pool's attestation policy.

    Raises:
        ConfigError: a file of the attestation section cannot be read.
        AttestationError: a policy is not one, or the root is not allowed on this network.
    """
    table = config.attestation
    root = root_for(pool.network, _read_certificate(config.resolve(table.software_root_file)))
    return Attesting(
        pool,
        policies,
        root,
        SoftwarePlatform.load(config.resolve(table.software_dir)),
        journal,
        metrics,
    )


def _read_certificate(path: Path) -> bytes:
    """DER of a certificate file (DER or PEM)."""
    try:
        raw = path.read_bytes()
        certificate = (
            x509.load_pem_x509_certificate(raw) if raw.startswith(b"-----") else x509.load_der_x509_certificate(raw)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: attestation.software_root_file: not a certificate: {error}") from error
    return certificate.public_bytes(serialization.Encoding.DER)


def _evidence(body: EvidenceBody) -> Evidence:
    return Evidence(
        quote=body.quote,
        gpu_report=body.gpu_report,
        collateral_digest=body.collateral_digest,
        anchor_seqno=body.anchor_seqno,
        anchor_root_hash=body.anchor_root_hash,
        anchor_time_s=body.anchor_time_s,
    )


def _digest(policy_hash: bytes, node_key: bytes, body: EvidenceBody) -> bytes:
    """Names a piece of evidence under a policy in 32 bytes instead of the many that it has."""
    named = (policy_hash, node_key, body.quote, body.gpu_report or b"", body.collateral_digest, body.anchor_root_hash)
    numbers = f"{body.gpu_report is None} {body.anchor_seqno} {body.anchor_time_s}".encode()
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (*named, numbers))).digest()


def _anchor(body: EvidenceBody) -> Anchor:
    return Anchor(seqno=body.anchor_seqno, root_hash=body.anchor_root_hash, time_s=body.anchor_time_s)


def _make_room(cache: dict[Any, Any], most: int) -> None:
    while len(cache) >= most:
        del cache[next(iter(cache))]
