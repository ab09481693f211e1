"""Attesting: proves to the pool what this host runs on, and renews the proof before it expires.

1. Evidence is made over the chain's head, for the policy in force: quote, collateral and, where the settings
   say so, the GPUs' reports. It is judged here as everybody will judge it, and published only if it holds, and
   holds now: a chain that stands still gives anchors of long ago. What it names is durable before the record that
   names it, and is kept only once the verdict is good: what is refused leaves nothing on the disk.
2. It is renewed when two thirds of its time are over, and when the pool's policy changed: what is counted
   from then on is judged by the new one. A window is covered by one piece or by none.
3. While it cannot be made, work goes on under what is in force; the alarm says why, and until when.
4. Evidence for which there was no room on its machine or GPUs when an epoch was counted is void for good. It is made
   anew at once: the place may be free by now.
5. What was refused is not made anew each time that somebody looks: the waits double, from `CHECK_INTERVAL_S` to
   `RETRY_MAX_S`. They are shorter where evidence lives for minutes, and when the one in force nears its end. After
   success, and under another policy, it begins anew. What could not be made at all, for the chain or the machine did
   not answer, costs nobody anything, and is tried at each look.

Source: ATTESTATION, "Binding", "Guest side".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
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
from gossip.records import EvidenceBody, PoolId, Record
from gossip.settlement import Reading

CHECK_INTERVAL_S = 5.0
RETRY_MAX_S = 300.0
"""The longest wait after refusals: so soon a machine that was mended has evidence again."""
RETRIES_PER_AGE = 12
"""So often at least evidence is tried in the time for which a piece holds."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """The last of some refusals in a row: by which policy, how long is waited, and until when by trio's clock."""

    policy_hash: bytes
    wait_s: float
    until_s: float


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
        self._refused: _Refused | None = None
        self._retry_s = 0
        """After the last failure: in how many seconds it is tried again."""
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
                is_due = self._due_in_s(node.now_s()) <= 0
                is_waiting = is_due and self._waits_s() > 0
                if is_due and not is_waiting:
                    await self._prove(node, chain)
            except (AttestationError, ContractsError, DataUnavailableError, InvalidMessageError) as error:
                self._note_failure(error)
            else:
                if not is_waiting:
                    self._error = self._refused = None
                    self.proven.set()
            self._metrics.evidence_failing.set(self._error is not None)
            # Short naps, by the wall clock: a machine that slept wakes up with evidence that is due.
            waits_s = self._waits_s()
            await trio.sleep(min(CHECK_INTERVAL_S, waits_s) if waits_s > 0 else CHECK_INTERVAL_S)

    def _due_in_s(self, now_s: int) -> float:
        """Seconds until new evidence is due (rule 2); not positive without any in force."""
        policy_hash = self._policies.in_force.hash
        if not self._own or self._own[-1].policy_hash != policy_hash:
            return 0
        return self._own[-1].until_s - self._verdicts.rules[policy_hash].evidence_age_max_s / 3 - now_s

    def _waits_s(self) -> float:
        """Seconds for which nothing is made after a refusal (rule 5); not positive if it may be made now."""
        if self._refused is None or self._refused.policy_hash != self._policies.in_force.hash:
            return 0.0
        return self._refused.until_s - trio.current_time()

    def _note_refusal(self, policy_hash: bytes, now_s: int) -> None:
        """Have the next try wait, longer than the one before it (rule 5)."""
        before = self._refused
        is_first = before is None or before.policy_hash != policy_hash
        wait_s = CHECK_INTERVAL_S if before is None or is_first else 2 * before.wait_s
        longest_s = min(RETRY_MAX_S, self._verdicts.rules[policy_hash].evidence_age_max_s / RETRIES_PER_AGE)
        if self.is_valid(now_s):
            # Once it has run out, work is lost: what is mended before that shall be noticed before that.
            longest_s = min(longest_s, (self._own[-1].until_s - now_s) / 2)
        wait_s = max(CHECK_INTERVAL_S, min(wait_s, longest_s))
        self._refused = _Refused(policy_hash=policy_hash, wait_s=wait_s, until_s=trio.current_time() + wait_s)

    def _note_failure(self, error: Exception) -> None:
        retry_s = round(max(CHECK_INTERVAL_S, self._waits_s()))
        if (str(self._error), self._retry_s) != (str(error), retry_s):
            log.error("no evidence can be made: %s%s; next try within %d s", error, _advice(error), retry_s)
        self._error, self._retry_s = error, retry_s

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
        body, named = await self._make(public, chain, now_s=node.now_s())
        try:
            appraisal = self._verdicts.judge(policy, public, body, named)
            appraisal.require_current(node.now_s())
            record = await self._append(node, body, named)
        except (AttestationError, InvalidMessageError):
            self._note_refusal(policy.hash, node.now_s())
            raise
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

    async def _append(self, node: Node, body: EvidenceBody, named: Mapping[bytes, bytes]) -> Record:
        """Keep what the evidence names, then sign the record that names it; cancelled between, the former is pruned."""
        for digest, data in named.items():
            await trio.to_thread.run_sync(self._journal.keep_attachment, digest, data)
        return await node.append(body)

    async def _make(self, node_key: bytes, chain: Chain, *, now_s: int) -> tuple[EvidenceBody, dict[bytes, bytes]]:
        """Collect quote, collateral and GPU reports over the chain's head: the record's body, and what it names."""
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
        self._verdicts.anchors.trust(anchor_of(body))
        named = (
            (body.collateral_digest, collateral.to_json()),
            (body.gpu_digest, gpu),
            (body.handshake_digest, provided.handshake),
        )
        return body, {digest: data for digest, data in named if digest is not None and data is not None}

    def alarm(self, now_s: int) -> str | None:
        """What is wrong with the own evidence, until when work still counts, and what helps; None if all is well."""
        if self._error is None:
            return None
        left_s = self._own[-1].until_s - now_s if self._own else 0
        loss = f"work counts for {left_s} s more" if left_s > 0 else "work earns nothing"
        why = f"{self._error}{_advice(self._error)}"
        return f"no new evidence can be made, {loss}: {why}; next try within {self._retry_s} s"

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
