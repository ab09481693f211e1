"""The pool's policy: the one document behind every total, committed on chain by its hash.

Decides whether a TOML document is a policy, and what its hash is. Two operators who read the same
document compute the same totals; two who do not find out before they sign, by the hash.

1. Unknown keys, missing keys, wrong types and values out of range are refused; nothing has a default.
2. The hash is SHA-256 of the canonical msgpack of the document as arrays of [key, value], ascending by key.
3. No float: shares are per mille, times are whole seconds.

`attestation` is carried whole; the attestation package reads it.

Source: PROTOCOL, "Words" (policy), "Tally"; METERING.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gossip import codec
from gossip.errors import InvalidPolicyError

TAG = "gpupool/policy/1"
POLICY_BYTES_MAX = 256 * 1024
WINDOW_S_MAX = 86_400
"""The longest work window that any policy may let count; a record with a longer one is invalid everywhere."""


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

    window_max_s: int
    token_units: tuple[int, ...]
    """Units (`gossip.records.Unit`) that count as tokens in this pool; never raw and adjusted ones together."""
    tokens_per_s_max: int
    """More tokens per second of credited uptime than this are not credited."""
    witness_bucket_s: int
    """Granularity of witnessed uptime."""
    witness_carry_s: int
    """Witnessed but not yet credited uptime of at most this length covers late records."""
    anchor_age_max_s: int
    """Evidence whose anchor is older than this at the epoch's end is void, unseen: so every anchor that decides
    something is one that liteservers still know. More than the evidence's age and an epoch together."""
    machine_nodes_max: int
    """So many nodes may earn on one machine: what a key that was taken out of one machine is worth at most."""


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the default strategy, per mille."""

    strategy: str
    tokens: int
    uptime: int
    tasks: int
    quality: int


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Targets of the quality figure (0..1000)."""

    latency_p95_target_ms: int
    failure_max_per_mille: int
    """At this share of failed requests the failure part of quality is 0."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timing: Timing
    work: Work
    score: Score
    quality: Quality
    attestation: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """A checked policy and its hash (32 bytes)."""

    timing: Timing
    work: Work
    score: Score
    quality: Quality
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
        document = msgspec.convert(tree, _Document, strict=True)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:  # also a number of too many digits
        raise InvalidPolicyError(f"policy: {error}") from error
    _require_ranges(document)
    return PoolPolicy(
        timing=document.timing,
        work=document.work,
        score=document.score,
        quality=document.quality,
        attestation=document.attestation,
        hash=hashlib.sha256(codec.encode((TAG, _canonical(tree, "")))).digest(),
    )


def _require_ranges(document: _Document) -> None:
    timing, work, score, quality = document.timing, document.work, document.score, document.quality
    ranges = [
        ("timing.settle_delay_s", timing.settle_delay_s, 0, 86_400),
        ("timing.collect_s", timing.collect_s, 1, 86_400),
        ("timing.view_s", timing.view_s, 1, 86_400),
        ("timing.stage_s", timing.stage_s, 1, 86_400),
        ("work.window_max_s", work.window_max_s, 1, WINDOW_S_MAX),
        ("work.tokens_per_s_max", work.tokens_per_s_max, 1, 1 << 32),
        ("work.witness_bucket_s", work.witness_bucket_s, 1, 3_600),
        ("work.witness_carry_s", work.witness_carry_s, 0, 1 << 31),
        ("work.anchor_age_max_s", work.anchor_age_max_s, 60, 31 * 86_400),
        ("work.machine_nodes_max", work.machine_nodes_max, 1, 1024),
        ("score.tokens", score.tokens, 0, 1000),
        ("score.uptime", score.uptime, 0, 1000),
        ("score.tasks", score.tasks, 0, 1000),
        ("score.quality", score.quality, 0, 1000),
        ("quality.latency_p95_target_ms", quality.latency_p95_target_ms, 1, 3_600_000),
        ("quality.failure_max_per_mille", quality.failure_max_per_mille, 1, 1000),
    ]
    for key, value, low, high in ranges:
        if not low <= value <= high:
            raise InvalidPolicyError(f"policy: {key}: expected {low} to {high}, got {value}")
    if score.strategy != "weighted":
        raise InvalidPolicyError(f'policy: score.strategy: expected "weighted", got "{score.strategy}"')
    if score.tokens + score.uptime + score.tasks + score.quality != 1000:
        raise InvalidPolicyError("policy: score: tokens, uptime, tasks and quality must add up to 1000")
    if not work.token_units or set(work.token_units) not in ({1}, {2}, {1, 2}, {3}):
        raise InvalidPolicyError("policy: work.token_units: expected raw units (1, 2) or the adjusted one (3)")


def _canonical(value: Any, key: str) -> codec.Value:
    if isinstance(value, dict):
        return tuple((name, _canonical(value[name], f"{key}.{name}")) for name in sorted(value))
    if isinstance(value, list):
        return tuple(_canonical(item, key) for item in value)
    if type(value) in (bool, str) or (type(value) is int and -(1 << 63) <= value < 1 << 64):
        return value  # type: ignore[no-any-return]
    raise InvalidPolicyError(f"policy: {key.lstrip('.')}: a {type(value).__name__} is not allowed here")
