"""The pool's policy: the one document behind every total, committed on chain by its hash.

Decides whether a TOML document is a policy, and what its hash is. Two operators who read the same
document compute the same totals; two who do not find out before they sign, by the hash.

1. Unknown keys, missing keys, wrong types and values out of range are refused; nothing has a default.
2. The hash is SHA-256 of the canonical msgpack of the document; a table is an array of "table" and its [key, value]
   pairs, ascending by key.
3. No float: shares are per mille, times are whole seconds.

`attestation` is carried whole; the attestation package reads it.

Source: PROTOCOL, "Words" (policy), "Tally"; METERING.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from contracts.model import REPUTATION_MAX
from gossip import codec
from gossip.errors import InvalidPolicyError
from gossip.records import Source

TAG = "gpupool/policy/1"
POLICY_BYTES_MAX = 256 * 1024
DEPTH_MAX = 8
"""Of tables and lists in one another."""
WINDOW_S_MAX = 86_400
"""The longest work window that any policy may let count; a record with a longer one is invalid everywhere."""


GPU_MODELS_MAX = 64
"""Rates by GPU model in one policy."""
SIGNERS_MAX = 256
"""Keys of a kind that a policy names."""
_HASH = re.compile(r"[0-9a-f]{64}")


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the steps of an epoch's close happen, in seconds of chain time (PROTOCOL, "Epoch close")."""

    settle_delay_s: int
    """From the epoch's end to the observation: late records arrive in it."""
    collect_s: int
    """From the observation to view 0."""
    view_s: int
    """Length of a view: longer than fetching, attesting and landing take."""
    stage_s: int
    """Between two submitters' slots."""


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as work, and how much at most."""

    source: Literal["engine", "cocoon"]
    """The kind of source whose figures count; what others say is for comparison only."""
    window_max_s: int
    token_units: tuple[int, ...]
    """Units (`gossip.records.Unit`) that count as tokens in this pool; never raw and adjusted ones together."""
    tokens_per_s_max: int
    """More tokens per second of credited uptime than this are not credited."""
    gpu_tokens_per_s: dict[str, int]
    """The same for each GPU that the evidence proves, by the beginning of its model; a model that is not here brings
    none. Empty: `tokens_per_s_max` alone decides."""
    tokens_per_task_min: int
    """A task takes so many tokens at least: no more tasks are credited than credited tokens allow."""
    witness_bucket_s: int
    """Granularity of witnessed uptime."""
    witness_carry_s: int
    """Witnessed but not yet credited uptime of at most this length covers late records."""
    anchor_age_max_s: int
    """Evidence whose anchor is older than this at the epoch's end is void, unseen: so every anchor that decides
    something is one that liteservers still know. More than the evidence's age and an epoch together."""
    machine_nodes_max: int
    """So many nodes may earn on one machine: what a key that was taken out of one machine is worth at most."""

    @property
    def kind(self) -> Source:
        """The kind of source whose figures count."""
        return Source[self.source.upper()]

    def tokens_per_s(self, models: Sequence[str]) -> int:
        """The most tokens per second that GPUs of these models are believed."""
        if not self.gpu_tokens_per_s:
            return self.tokens_per_s_max
        rates = (
            max(((len(start), rate) for start, rate in self.gpu_tokens_per_s.items() if model.startswith(start)))[1]
            for model in models
            if any(model.startswith(start) for start in self.gpu_tokens_per_s)
        )
        return min(self.tokens_per_s_max, sum(rates))


class Receipts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose word besides the participant's own is asked for."""

    ceiling: Literal["none", "receipts", "worker-contract"]
    """What tokens are credited up to: what was metered; what receipts say; what the chain paid the Cocoon worker."""
    signers: tuple[str, ...]
    """Ed25519 keys (64 hex digits) of the gateways and clients whose receipts count."""
    per_participant_max: int
    """So many receipts are looked at per participant and epoch."""
    worker_codes: tuple[str, ...]
    """Code hashes (64 hex digits) of genuine Cocoon worker contracts."""
    worker_proxies: tuple[str, ...]
    """Ed25519 keys (64 hex digits) of the proxies whose payments count."""


class WeightedScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="weighted", tag_field="strategy"):
    """Each figure by its share of the pool's sum of it; weights per mille, 1000 together."""

    tokens: int
    uptime: int
    tasks: int
    quality: int


class ProportionalScore(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="proportional", tag_field="strategy"
):
    """By tokens alone."""


class TieredScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tiered", tag_field="strategy"):
    """A base by tokens, the rest as a bonus for those of the highest quality; all per mille."""

    base: int
    """Of the pot; what is left is the bonus."""
    top: int
    """Of the participants that worked: who has a whole bonus."""
    next: int
    """Of the participants that worked, after the top: who has a half."""


class GuaranteedScore(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="guaranteed-minimum", tag_field="strategy"
):
    """By tokens, but nobody who was up all the epoch has less than a part of the average; the others bring it up."""

    minimum: int
    """Per mille of the average share."""


class HybridScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hybrid", tag_field="strategy"):
    """Weights as "weighted", without quality, times a factor for quality and one for reliability; all per mille."""

    tokens: int
    uptime: int
    tasks: int
    quality_min: int
    quality_max: int
    reliability_min: int
    reliability_max: int


Score: TypeAlias = WeightedScore | ProportionalScore | TieredScore | GuaranteedScore | HybridScore


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose work the operators look at more closely; it never changes what is earned."""

    outlier_mads: int
    """Who is farther from the pool's median than so many median absolute deviations is flagged."""
    picks: int
    """So many participants are drawn each epoch besides, by a number that nobody knows before the cut."""


class Reputation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How reputation (0..1000) moves by what an epoch showed; steps that are proposed to the operators."""

    settled: int
    """For work that was settled."""
    evidence_failed: int
    """Off, for work that no valid evidence covered."""
    offline: int
    """Off, for not being seen `offline_after_s` long."""
    offline_after_s: int
    forked: int
    """Off, for a log that contradicts itself."""


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Targets of the quality figure (0..10000)."""

    latency_p95_target_ms: int
    failure_max_per_mille: int
    """At this share of failed requests the failure part of quality is 0."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timing: Timing
    work: Work
    receipts: Receipts
    score: Score
    quality: Quality
    audit: Audit
    reputation: Reputation
    attestation: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """A checked policy and its hash (32 bytes)."""

    timing: Timing
    work: Work
    receipts: Receipts
    score: Score
    quality: Quality
    audit: Audit
    reputation: Reputation
    attestation: Mapping[str, Any]
    hash: bytes


def parse_policy(text: str) -> PoolPolicy:
    """Read a policy document (TOML).

    Raises:
        InvalidPolicyError: it is not TOML, or breaks rule 1 or 3; the message names the key.
    """
    if len(text) > POLICY_BYTES_MAX:
        raise InvalidPolicyError(f"policy: longer than {POLICY_BYTES_MAX} characters")
    try:
        tree = tomllib.loads(text)
        canonical = _canonical(tree, "", DEPTH_MAX)
        document = msgspec.convert(tree, _Document, strict=True)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:  # also a number of too many digits
        raise InvalidPolicyError(f"policy: {error}") from error
    _require_ranges(document)
    return PoolPolicy(
        timing=document.timing,
        work=document.work,
        receipts=document.receipts,
        score=document.score,
        quality=document.quality,
        audit=document.audit,
        reputation=document.reputation,
        attestation=document.attestation,
        hash=hashlib.sha256(codec.encode((TAG, canonical))).digest(),
    )


def _require_ranges(document: _Document) -> None:
    for key, value, low, high in (*_ranges(document), *_score_ranges(document.score)):
        if not low <= value <= high:
            raise InvalidPolicyError(f"policy: {key}: expected {low} to {high}, got {value}")
    work, receipts = document.work, document.receipts
    units = ({3},) if work.source == "cocoon" else ({1}, {2}, {1, 2})
    if set(work.token_units) not in units or len(set(work.token_units)) != len(work.token_units):
        expected = "the adjusted one (3)" if work.source == "cocoon" else "raw units (1, 2)"
        raise InvalidPolicyError(f"policy: work.token_units: expected {expected} of {work.source}")
    if len(work.gpu_tokens_per_s) > GPU_MODELS_MAX:
        raise InvalidPolicyError(f"policy: work.gpu_tokens_per_s: more than {GPU_MODELS_MAX} models")
    for name in ("signers", "worker_codes", "worker_proxies"):
        _require_hashes(f"receipts.{name}", getattr(receipts, name))
    if receipts.ceiling == "receipts" and not receipts.signers:
        raise InvalidPolicyError("policy: receipts.signers: none, so that no work could count")
    if receipts.ceiling == "worker-contract" and not (receipts.worker_codes and receipts.worker_proxies):
        raise InvalidPolicyError("policy: receipts.worker_codes, worker_proxies: none, so that no work could count")
    if receipts.ceiling == "worker-contract" and work.source != "cocoon":
        raise InvalidPolicyError(
            'policy: receipts.ceiling: worker contracts count adjusted tokens: work.source "cocoon"'
        )


def _ranges(document: _Document) -> list[tuple[str, int, int, int]]:
    timing, work, quality, audit = document.timing, document.work, document.quality, document.audit
    reputation = document.reputation
    return [
        ("timing.settle_delay_s", timing.settle_delay_s, 0, 86_400),
        ("timing.collect_s", timing.collect_s, 1, 86_400),
        ("timing.view_s", timing.view_s, 1, 86_400),
        ("timing.stage_s", timing.stage_s, 1, 86_400),
        ("work.window_max_s", work.window_max_s, 1, WINDOW_S_MAX),
        ("work.tokens_per_s_max", work.tokens_per_s_max, 1, 1 << 32),
        *((f"work.gpu_tokens_per_s.{name}", rate, 0, 1 << 32) for name, rate in work.gpu_tokens_per_s.items()),
        ("work.tokens_per_task_min", work.tokens_per_task_min, 1, 1 << 32),
        ("work.witness_bucket_s", work.witness_bucket_s, 1, 3_600),
        ("work.witness_carry_s", work.witness_carry_s, 0, 1 << 31),
        ("work.anchor_age_max_s", work.anchor_age_max_s, 60, 31 * 86_400),
        ("work.machine_nodes_max", work.machine_nodes_max, 1, 1024),
        ("receipts.per_participant_max", document.receipts.per_participant_max, 1, 100_000),
        ("quality.latency_p95_target_ms", quality.latency_p95_target_ms, 1, 3_600_000),
        ("quality.failure_max_per_mille", quality.failure_max_per_mille, 1, 1000),
        ("audit.outlier_mads", audit.outlier_mads, 1, 1000),
        ("audit.picks", audit.picks, 0, 1000),
        ("reputation.settled", reputation.settled, 0, REPUTATION_MAX),
        ("reputation.evidence_failed", reputation.evidence_failed, 0, REPUTATION_MAX),
        ("reputation.offline", reputation.offline, 0, REPUTATION_MAX),
        ("reputation.offline_after_s", reputation.offline_after_s, 60, 31 * 86_400),
        ("reputation.forked", reputation.forked, 0, REPUTATION_MAX),
    ]


def _score_ranges(score: Score) -> list[tuple[str, int, int, int]]:
    """The ranges of the strategy's own keys; weights of a sum that does not hold are out of range."""
    values = msgspec.structs.asdict(score)
    match score:
        case WeightedScore() | HybridScore():
            weights = [name for name in ("tokens", "uptime", "tasks", "quality") if name in values]
            total = sum(values[name] for name in weights)
            ranges = [(f"score.{name}", value, 0, 2000 if "_" in name else 1000) for name, value in values.items()]
            if isinstance(score, HybridScore):  # a factor that falls would reward the worse
                ranges.append(("score.quality_min", score.quality_min, 0, score.quality_max))
                ranges.append(("score.reliability_min", score.reliability_min, 0, score.reliability_max))
            return [*ranges, (f"score: {', '.join(weights)} together", total, 1000, 1000)]
        case TieredScore():
            ranges = [(f"score.{name}", value, 0, 1000) for name, value in values.items()]
            return [*ranges, ("score.top + next", score.top + score.next, 1, 1000)]
        case GuaranteedScore():
            return [("score.minimum", score.minimum, 0, 1000)]
        case ProportionalScore():
            return []


def _require_hashes(key: str, values: Sequence[str]) -> None:
    if len(values) > SIGNERS_MAX or len(set(values)) != len(values):
        raise InvalidPolicyError(f"policy: {key}: expected at most {SIGNERS_MAX}, none twice")
    if not all(_HASH.fullmatch(value) for value in values):
        raise InvalidPolicyError(f"policy: {key}: expected 64 lower-case hex digits each")


def _canonical(value: Any, key: str, depth: int) -> codec.Value:
    """The form that is hashed: a table is ["table", [key, value], ...], so that none looks like a list."""
    if depth == 0:
        raise InvalidPolicyError(f"policy: {key.lstrip('.'):.80}...: more than {DEPTH_MAX} levels deep")
    if isinstance(value, dict):
        pairs = ((name, _canonical(value[name], f"{key}.{name}", depth - 1)) for name in sorted(value))
        return ("table", *pairs)
    if isinstance(value, list):
        return tuple(_canonical(item, key, depth - 1) for item in value)
    if type(value) in (bool, str) or (type(value) is int and -(1 << 63) <= value < 1 << 64):
        return value  # type: ignore[no-any-return]
    raise InvalidPolicyError(f"policy: {key.lstrip('.')}: a {type(value).__name__} is not allowed here")
