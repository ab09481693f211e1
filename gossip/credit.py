"""Credit: what one participant's work of an epoch comes to, every step of it kept, so that it can be explained.

Pure. Every figure that comes in is the participant's own word, but for what operators witnessed, what receipts say
and what the chain paid; each step only takes away, but for tokens of before that are paid only now.

1. Of a window counts what the policy's kind of source said; one that it said nothing of is not even uptime.
2. uptime = min(length of the counted windows less their gaps, witnessed and not yet credited).
3. tokens: of the policy's units; at most the rate of the GPUs that the evidence in force proved, times uptime.
4. With receipts as the ceiling: at most what they cover in this epoch.
5. With the worker contract as the ceiling, both sides are cumulative, min(metered, paid): what is paid late is
   credited late, and never twice. The first reading of a contract is where counting begins. What is paid ahead of its
   work waits for late records, up to what they could hold in `witness_carry_s`; more than that paid for work that is
   not this participant's.
6. A task takes tokens: there are no more tasks than credited tokens allow, and without any there is no quality.

Elsewhere: which windows count (`gossip.coverage`), which receipts (`gossip.receipts`), scores (`gossip.score`).

Source: PROTOCOL, "Tally"; METERING.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.model import Address
from gossip.coverage import Covered
from gossip.policy import PoolPolicy
from gossip.records import Source, SourceWork, Unit, WorkBody
from gossip.score import Figures, quality, reliability
from gossip.settlement import Payments, Reading

_UINT32_MAX = (1 << 32) - 1
_UINT63_MAX = (1 << 63) - 1
"""What a checkpoint holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """The steps from what was metered to what counts."""

    windows: int = 0
    """Work windows that count."""
    windows_uncovered: int = 0
    """Windows of the cut that do not: no valid evidence covers them, or they are too long."""
    metered_tokens: int = 0
    """By the policy's source and units, in the windows that count."""
    uncovered_tokens: int = 0
    """In those that do not."""
    worked_s: int = 0
    """Length of the windows that count, less their gaps."""
    witnessed_s: int = 0
    """Witnessed by operators and not yet credited."""
    uptime_s: int = 0
    rate_tokens: int = 0
    """The most that policy and GPUs allow for that uptime."""
    backlog_tokens: int = 0
    """Metered in epochs before and not paid by then; with the worker contract as ceiling only."""
    receipted_tokens: int | None = None
    """What receipts cover, or what the chain paid and was not credited yet; None: the policy asks for neither."""
    tokens: int = 0
    tasks: int = 0
    failed: int | None = None
    """Requests that the sources say failed; None: none of them counts those."""
    quality: int = 0
    reliability: int = 0

    def figures(self, reputation: int) -> Figures:
        """What the score is made of."""
        return Figures(
            tokens=self.tokens,
            uptime_s=self.uptime_s,
            tasks=self.tasks,
            quality=self.quality,
            reliability=self.reliability,
            reputation=reputation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What the tally takes of one participant: its counted work, what others say of it, and what was counted before."""

    covered: Covered
    work: Sequence[WorkBody]
    """All work of the cut, the covered windows among it."""
    before: Reading
    witnessed_s: int
    """Cumulative."""
    receipted_tokens: int
    worker: Address | None
    """The Cocoon worker contract of the registry entry."""
    worker_tokens: int | None
    """Its cumulative reading; None: nobody read it."""


def credit(contribution: Contribution, policy: PoolPolicy, epoch_s: int) -> tuple[Credit, Payments]:
    """Credit a participant's work of an epoch that is `epoch_s` long; and where its payments stand then."""
    source = policy.work.kind
    counted = [body for body, _ in contribution.covered.work]
    seconds = [_watched_s(body, source) for body in counted]
    worked_s, witnessed_s = sum(seconds), contribution.witnessed_s - contribution.before.credited_s
    uptime_s = min(worked_s, witnessed_s, _UINT32_MAX)
    allowed = sum(
        min(window.tokens_per_s, policy.work.tokens_per_s_max) * watched_s
        for (_, window), watched_s in zip(contribution.covered.work, seconds, strict=True)
    )
    metered = _amount(counted, source, policy.work.token_units)
    everything = _amount(contribution.work, source, policy.work.token_units)
    found = Credit(
        windows=len(counted),
        windows_uncovered=len(contribution.work) - len(counted),
        metered_tokens=metered,
        uncovered_tokens=everything - metered,
        worked_s=worked_s,
        witnessed_s=witnessed_s,
        uptime_s=uptime_s,
        rate_tokens=allowed * uptime_s // worked_s if worked_s else 0,
        reliability=reliability(worked_s=worked_s, witnessed_s=witnessed_s, epoch_s=epoch_s),
    )
    found, payments = _ceiled(found, contribution, policy)
    return _judged(found, [r for body in counted for r in body.of(source)], policy), payments


def _ceiled(found: Credit, contribution: Contribution, policy: PoolPolicy) -> tuple[Credit, Payments]:
    """The tokens under the policy's ceiling (rules 3 to 5)."""
    capped = min(found.metered_tokens, found.rate_tokens)
    match policy.receipts.ceiling:
        case "none":
            return replace(found, tokens=capped), Payments()
        case "receipts":
            receipted = contribution.receipted_tokens
            return replace(found, receipted_tokens=receipted, tokens=min(capped, receipted)), Payments()
        case "worker-contract":
            before = contribution.before.payments
            ahead_max = policy.work.tokens_per_s_max * policy.work.witness_carry_s
            after = _pay(before, capped, contribution.worker, contribution.worker_tokens).at_most_ahead(ahead_max)
            found = replace(
                found,
                backlog_tokens=before.metered_tokens - before.credited_tokens,
                receipted_tokens=after.paid_tokens - before.credited_tokens,
                tokens=after.credited_tokens - before.credited_tokens,
            )
            return found, after


def _pay(before: Payments, metered_tokens: int, worker: Address | None, worker_tokens: int | None) -> Payments:
    """Add to both sides (rule 5); a contract that was not read stays where it was."""
    metered_tokens = min(before.metered_tokens + metered_tokens, _UINT63_MAX)
    if worker is None or worker_tokens is None:
        return replace(before, metered_tokens=metered_tokens)
    if worker.account != before.worker:
        return replace(before, metered_tokens=metered_tokens, worker=worker.account, worker_tokens=worker_tokens)
    more = max(0, worker_tokens - before.worker_tokens)
    return replace(
        before,
        metered_tokens=metered_tokens,
        paid_tokens=min(before.paid_tokens + more, _UINT63_MAX),
        worker_tokens=before.worker_tokens + more,
    )


def _judged(found: Credit, readings: Sequence[SourceWork], policy: PoolPolicy) -> Credit:
    """With tasks, failures and quality, by the readings that count; without uptime there are none."""
    if not found.uptime_s:
        return found
    metered = sum(reading.amount(Unit.TASK) for reading in readings)
    tasks = min(metered, found.tokens // policy.work.tokens_per_task_min, _UINT32_MAX)
    failures = [reading.amount(Unit.FAILED_TASK) for reading in readings if reading.counts(Unit.FAILED_TASK)]
    failed = sum(failures) if failures else None
    busy = [reading for reading in readings if reading.amount(Unit.TASK)]
    timed = [(r.latency_ms[1], r.amount(Unit.TASK)) for r in busy if r.latency_ms is not None]
    weight = sum(amount for _, amount in timed)
    told = [r for r in busy if r.latency_ms is not None or r.counts(Unit.FAILED_TASK)]
    return replace(
        found,
        tasks=tasks,
        failed=failed,
        quality=quality(
            tasks=metered,
            failed=failed,
            latency_p95_ms=sum(latency_ms * amount for latency_ms, amount in timed) // weight if weight else None,
            steady_windows=sum(_is_steady(reading, policy) for reading in told),
            timed_windows=len(told),
            targets=policy.quality,
        )
        if tasks
        else 0,
    )


def _is_steady(reading: SourceWork, policy: PoolPolicy) -> bool:
    """Whether a reading with tasks met both targets; what it did not measure is not held against it."""
    tasks, failed = reading.amount(Unit.TASK), reading.amount(Unit.FAILED_TASK)
    is_swift = reading.latency_ms is None or reading.latency_ms[1] <= policy.quality.latency_p95_target_ms
    return is_swift and 1000 * failed <= policy.quality.failure_max_per_mille * (tasks + failed)


def _watched_s(body: WorkBody, source: Source) -> int:
    """The seconds of the window in which at least one of the sources that count was watched, as far as they tell."""
    readings = body.of(source)
    return body.end_s - body.start_s - min(r.gap_s for r in readings) if readings else 0


def _amount(work: Sequence[WorkBody], source: Source, units: Sequence[int]) -> int:
    return sum(reading.amount(*units) for body in work for reading in body.of(source))
