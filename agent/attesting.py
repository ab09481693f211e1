"""Attesting: proves to the pool what this host runs on, and renews the proof before it expires.

1. Evidence is made over the chain's head, for the policy in force: quote, collateral and, where the settings
   say so, the GPUs' reports. It is judged here as everybody will judge it, and published only if it holds, and
   holds now: a chain that stands still gives anchors of long ago.
2. It is renewed when two thirds of its time are over, and when the pool's policy changed: what is counted
   from then on is judged by the new one. A window is covered by one piece or by none.
3. While it cannot be made, work goes on under what is in force; the alarm says why, and until when.
4. Evidence for which there was no room on its machine or GPUs when an epoch was counted is void for good. It is made
   anew at once: the place may be free by now.

Source: ATTESTATION, "Binding", "Guest side".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from agent.journal import Journal
from agent.metrics.registry import Metrics
from agent.policies import Policies
from agent.providers import Providers
from agent.standings import Refusal
from agent.verdicts import Verdicts, anchor_of
from attestation.binding import NO_GPU_EVIDENCE, report_data
from attestation.errors import AttestationError
from attestation.gpu import gpu_nonce
from contracts.chain import Chain
from contracts.errors import ContractsError
from gossip.coverage import Approval
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.node import Node
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId
from gossip.settlement import Reading

CHECK_INTERVAL_S = 5.0
OWN_KEPT_MAX = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEvidence:
    """A piece of this host's evidence: its record's hash, from when until when it holds, by which policy's word.

    `seq` is the record's number; 0 if a settlement alone knows of it.
    """

    record: bytes
    seq: int = 0
    from_s: int
    until_s: int
    policy_hash: bytes


class Attesting:
    """This host's evidence. `verdicts` judges it as everybody else does."""

    def __init__(
        self,
        pool: PoolId,
        policies: Policies,
        verdicts: Verdicts,
        providers: Providers,
        journal: Journal,
        metrics: Metrics,
    ) -> None:
        self._pool = pool
        self._policies = policies
        self._verdicts = verdicts
        self._providers = providers
        self._journal = journal
        self._metrics = metrics
        self._own: list[OwnEvidence] = []
        self._error: Exception | None = None
        self.on_begun: Callable[[int], None] = lambda from_s: None
        """Told from when (Unix seconds) new evidence holds, if there was none in force before it."""
        self.proven = trio.Event()
        """Set once this host's evidence stands in its log: work that becomes a record before counts nothing."""

    def covering(self, start_s: int, end_s: int) -> bytes | None:
        """Hash of the own evidence record that covers the window [start_s, end_s), if one does."""
        held = (e.record for e in reversed(self._own) if e.from_s <= start_s and end_s <= e.until_s)
        return next(held, None)

    def is_valid(self, now_s: int) -> bool:
        """Whether own evidence is in force."""
        return bool(self._own) and now_s <= self._own[-1].until_s

    async def renew(self, node: Node, chain: Chain) -> None:
        """Publish evidence now, unless the log holds some that is young; again when it is due (rule 2)."""
        while True:
            try:
                await self._recall(node, chain)
                self._forget_void(node.machine.base.reading(node.key.public))
                if self._due_in_s(node.now_s()) <= 0:
                    await self._prove(node, chain)
            except (AttestationError, ContractsError, DataUnavailableError, InvalidMessageError) as error:
                if str(self._error) != str(error):
                    log.error("no evidence can be made: %s%s", error, _advice(error))
                self._error = error
            else:
                self._error = None
                self.proven.set()
            self._metrics.evidence_failing.set(self._error is not None)
            # Short naps, by the wall clock: a machine that slept wakes up with evidence that is due.
            await trio.sleep(CHECK_INTERVAL_S)

    def _due_in_s(self, now_s: int) -> float:
        """Seconds until new evidence is due (rule 2); not positive without any in force."""
        policy_hash = self._policies.in_force.hash
        if not self._own or self._own[-1].policy_hash != policy_hash:
            return 0
        return self._own[-1].until_s - self._verdicts.rules[policy_hash].evidence_age_max_s / 3 - now_s

    def _forget_void(self, settled: Reading) -> None:
        """Drop what a settlement counted and did not keep (rule 4)."""
        kept = {window.record for window in settled.evidence}
        own = [each for each in self._own if each.seq > settled.head.seq or each.record in kept]
        if self._own and self._own[-1] not in own:
            log.warning("the last settlement gave this host's place to another node: proving it anew")
        self._own = own

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
                held = await self._recalled(policy, public, record.body, chain, node.now_s())
                if held is not None:
                    found.append(
                        OwnEvidence(
                            record=record.hash,
                            seq=record.seq,
                            from_s=held.from_s,
                            until_s=held.until_s,
                            policy_hash=policy.hash,
                        )
                    )
        self._own = found[-OWN_KEPT_MAX:]

    async def _recalled(
        self, policy: PoolPolicy, public: bytes, body: EvidenceBody, chain: Chain, now_s: int
    ) -> Approval | None:
        """The verdict on evidence of the own log; None, too, if it is over or the chain cannot say any more."""
        if body.anchor_time_s + self._verdicts.rules[policy.hash].evidence_age_max_s < now_s:
            return None
        try:
            await self._verdicts.anchors.confirm(chain, anchor_of(body))
        except ContractsError as error:
            log.warning("own evidence of block %d is not used: %s", body.anchor_seqno, error)
            return None
        return self._verdicts.verdict(policy, public, body)

    async def _prove(self, node: Node, chain: Chain) -> None:
        public, policy = node.key.public, self._policies.in_force
        body = await self._make(public, chain, now_s=node.now_s())
        appraisal = self._verdicts.judge(policy, public, body)
        appraisal.require_current(node.now_s())
        record = await node.append(body)
        self._verdicts.note(record)
        own = OwnEvidence(
            record=record.hash,
            seq=record.seq,
            from_s=appraisal.valid_from_s,
            until_s=appraisal.valid_until_s,
            policy_hash=policy.hash,
        )
        if not self.is_valid(node.now_s()):
            self.on_begun(own.from_s)
        self._own = [*self._own[1 - OWN_KEPT_MAX :], own]
        self._metrics.evidence_valid_until.set(own.until_s)
        log.info("evidence published: %s, valid for %d s", appraisal.verified.status, own.until_s - own.from_s)

    async def _make(self, node_key: bytes, chain: Chain, *, now_s: int) -> EvidenceBody:
        """Collect quote, collateral and GPU reports over the chain's head, and keep what the record will name."""
        anchor = await chain.head()
        gpu = None
        if self._providers.gpus is not None:
            gpu = await self._providers.gpus(gpu_nonce(node_key, anchor.root_hash))
        challenge = report_data(
            self._pool.network, self._pool.account, node_key, anchor.root_hash, _sha256(gpu) or NO_GPU_EVIDENCE
        )
        provided = await self._providers.quotes.quote(challenge)
        collateral = await self._providers.collateral.collateral(provided.quote, now_s)
        body = EvidenceBody(
            quote=provided.quote,
            collateral_digest=collateral.digest,
            gpu_digest=_sha256(gpu),
            handshake_digest=_sha256(provided.handshake),
            anchor_seqno=anchor.seqno,
            anchor_root_hash=anchor.root_hash,
            anchor_time_s=anchor.time_s,
        )
        for digest, data in (
            (body.collateral_digest, collateral.to_json()),
            (body.gpu_digest, gpu),
            (body.handshake_digest, provided.handshake),
        ):
            if digest is not None and data is not None:
                await trio.to_thread.run_sync(self._journal.keep_attachment, digest, data)
        self._verdicts.anchors.trust(anchor_of(body))
        return body

    def alarm(self, now_s: int) -> str | None:
        """What is wrong with the own evidence, until when work still counts, and what helps; None if all is well."""
        if self._error is None:
            return None
        left_s = self._own[-1].until_s - now_s if self._own else 0
        loss = f"work counts for {left_s} s more" if left_s > 0 else "work earns nothing"
        return f"no new evidence can be made, {loss}: {self._error}{_advice(self._error)}"

    def status(self, node_key: bytes, now_s: int) -> dict[str, Any]:
        """Own evidence, for the status."""
        latest = self._own[-1] if self._own else None
        standings = self._verdicts.standings
        return {
            "valid": self.is_valid(now_s),
            "valid_until_s": latest.until_s if latest is not None else None,
            "error": _error_value(self._error),
            "alarm": self.alarm(now_s),
            "collateral_error": _error_value(self._providers.collateral.error),
            "own": standings[node_key].value(now_s) if node_key in standings else None,
        }


def _advice(error: Exception) -> str:
    return f" ({error.remedy})" if isinstance(error, AttestationError) else ""


def _error_value(error: Exception | None) -> dict[str, str | None] | None:
    if error is None:
        return None
    if isinstance(error, AttestationError):
        return {**Refusal.of(error).value()}
    return {"code": None, "fault": "service", "message": str(error), "remedy": None}


def _sha256(data: bytes | None) -> bytes | None:
    return None if data is None else hashlib.sha256(data).digest()
