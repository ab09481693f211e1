"""Credit: every step from what was metered to what counts only takes away, and nothing is credited twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_fixture import EPOCH_S, START_S, policy, reading

from contracts.model import Address
from gossip.coverage import Covered
from gossip.credit import Contribution, Credit, credit
from gossip.policy import PoolPolicy
from gossip.records import Source, Unit, WorkBody
from gossip.settlement import EvidenceWindow, Payments, Reading, cut_root

WORKERS = tuple(Address(0, bytes([i]) * 32) for i in range(3))
RATE = 1000
"""`tokens_per_s_max` of the policy."""


def ruled(ceiling: str = "none", **work: object) -> PoolPolicy:
    made = policy()
    rules = msgspec.structs.replace(made.receipts, ceiling=ceiling)
    return replace(made, receipts=rules, work=msgspec.structs.replace(made.work, **work))


PAID = ruled("worker-contract", source="cocoon", token_units=(3,))


def proven(tokens_per_s: int = RATE) -> EvidenceWindow:
    return EvidenceWindow(
        record=bytes(32), from_s=0, until_s=(1 << 33) - 1, machine=bytes(32), tokens_per_s=tokens_per_s
    )


def window(start_s: int, seconds: int, *, tokens: int, gap_s: int = 0, source: Source = Source.ENGINE) -> WorkBody:
    counters = (
        ((Unit.ADJUSTED_TOKEN, tokens), (Unit.TASK, tokens // 100))
        if source == Source.COCOON
        else reading(tokens).counters
    )
    counted = reading(source=source, counters=counters, gap_s=gap_s)
    return WorkBody(start_s=start_s, end_s=start_s + seconds, readings=(counted,), evidence=bytes(32))


def contributed(
    work: Sequence[tuple[WorkBody, EvidenceWindow]], uncovered: Sequence[WorkBody] = (), **changes: object
) -> Contribution:
    fields = {
        "covered": Covered(evidence=(), work=tuple(work)),
        "work": [body for body, _ in work] + list(uncovered),
        "before": Reading(),
        "witnessed_s": 10**6,
        "receipted_tokens": 0,
        "worker": None,
        "worker_tokens": None,
    }
    return Contribution(**(fields | changes))


def found(contribution: Contribution, rules: PoolPolicy | None = None) -> Credit:
    return credit(contribution, rules or ruled(), EPOCH_S)[0]


def test_every_step_of_an_epoch_is_kept() -> None:
    work = [(window(START_S, 30, tokens=5000, gap_s=5), proven()), (window(START_S + 30, 15, tokens=9000), proven(100))]
    other = window(START_S + 50, 10, tokens=700)
    credited = found(contributed(work, [other], before=Reading(credited_s=80), witnessed_s=100))
    assert credited == Credit(
        windows=2,
        windows_uncovered=1,
        metered_tokens=14_000,
        uncovered_tokens=700,
        worked_s=40,
        witnessed_s=20,
        uptime_s=20,
        rate_tokens=(25 * 1000 + 15 * 100) * 20 // 40,
        tokens=13_250,
        tasks=140,
        failed=0,
        quality=10_000,
        reliability=10_000 * (40 + 20) // 200,
    )


def test_the_rate_is_of_the_gpus_that_were_proven_and_of_the_policy() -> None:
    for tokens_per_s, expected in ((0, 0), (1, 10), (RATE, 10_000), (5 * RATE, 10_000)):
        work = [(window(START_S, 10, tokens=10**6), proven(tokens_per_s))]
        assert found(contributed(work)).tokens == expected
    assert found(contributed(work), ruled(tokens_per_s_max=7)).tokens == 70


def test_a_gap_takes_tokens_with_it_only_by_the_rate() -> None:
    work = [(window(START_S, 10, tokens=5000, gap_s=4), proven())]
    credited = found(contributed(work))
    assert (credited.uptime_s, credited.rate_tokens, credited.tokens) == (6, 6000, 5000)
    assert found(contributed([(window(START_S, 10, tokens=5000, gap_s=10), proven())])).tokens == 0


def test_receipts_are_a_ceiling_and_none_means_that_nobody_asked() -> None:
    work = [(window(START_S, 10, tokens=5000), proven())]
    for receipted, expected in ((0, 0), (4999, 4999), (10**9, 5000)):
        credited = found(contributed(work, receipted_tokens=receipted), ruled("receipts"))
        assert (credited.receipted_tokens, credited.tokens) == (receipted, expected)
    assert found(contributed(work)).receipted_tokens is None


amounts = st.integers(0, 10**6)


@st.composite
def contributions(draw: st.DrawFn) -> Contribution:
    at_s, work, uncovered = START_S, [], []
    for _ in range(draw(st.integers(0, 4))):
        seconds = draw(st.integers(1, 60))
        source = draw(st.sampled_from([Source.ENGINE, Source.COCOON]))
        body = window(at_s, seconds, tokens=draw(amounts), gap_s=draw(st.integers(0, seconds)), source=source)
        if draw(st.booleans()):
            work.append((body, proven(draw(st.integers(0, 2 * RATE)))))
        else:
            uncovered.append(body)
        at_s += seconds
    credited_s, metered, paid = (draw(amounts) for _ in range(3))
    return contributed(
        work,
        uncovered,
        before=Reading(credited_s=credited_s, payments=Payments(metered_tokens=metered, paid_tokens=paid)),
        witnessed_s=credited_s + draw(amounts),
        receipted_tokens=draw(amounts),
        worker=draw(st.sampled_from([None, WORKERS[0]])),
        worker_tokens=draw(st.none() | amounts),
    )


@given(contributions(), st.sampled_from([ruled(), ruled("receipts"), PAID]))
@settings(deadline=None)
def test_every_step_only_takes_away(contribution: Contribution, rules: PoolPolicy) -> None:
    credited, payments = credit(contribution, rules, EPOCH_S)
    assert credited.windows + credited.windows_uncovered == len(contribution.work)
    assert 0 <= credited.uptime_s <= min(credited.worked_s, credited.witnessed_s)
    assert credited.rate_tokens <= RATE * credited.uptime_s
    if rules.receipts.ceiling == "worker-contract":
        capped = credited.backlog_tokens + min(credited.metered_tokens, credited.rate_tokens)
    else:
        capped = min(credited.metered_tokens, credited.rate_tokens)
        assert payments == Payments()
    assert 0 <= credited.tokens <= capped
    assert credited.receipted_tokens is None or credited.tokens <= credited.receipted_tokens
    assert credited.tasks <= credited.tokens // rules.work.tokens_per_task_min
    assert 0 <= credited.quality <= (10_000 if credited.tasks else 0)
    assert 0 <= credited.reliability <= 10_000


@given(contributions(), contributions(), st.sampled_from([ruled(), ruled("receipts"), PAID]))
@settings(deadline=None)
def test_no_more_of_one_input_ever_takes_tokens_away(one: Contribution, other: Contribution, rules: PoolPolicy) -> None:
    """Whoever says, is witnessed or is paid more has no less: nobody gains by hiding something."""
    more = {
        "witnessed_s": one.witnessed_s + other.witnessed_s,
        "receipted_tokens": one.receipted_tokens + other.receipted_tokens,
    }
    for name, value in more.items():
        assert found(replace(one, **{name: value}), rules).tokens >= found(one, rules).tokens


# The worker contract.


class Paid:
    """A participant whose policy counts by its worker contract, epoch after epoch."""

    def __init__(self) -> None:
        self.at_s = START_S
        self.before = Reading()
        self.credited: list[int] = []

    def epoch(
        self,
        metered: int,
        tokens: int | None,
        *,
        worker: Address | None = WORKERS[0],
        rules: PoolPolicy = PAID,
        seconds: int = 60,
    ) -> int:
        """Settle an epoch with so many tokens metered and this cumulative reading of the contract."""
        self.at_s += seconds
        work = [(window(self.at_s, seconds, tokens=metered, source=Source.COCOON), proven())] if metered else []
        credited, payments = credit(
            contributed(work, before=self.before, worker=worker, worker_tokens=tokens), rules, EPOCH_S
        )
        self.before = replace(self.before, payments=payments)
        self.credited.append(credited.tokens)
        assert credited.tokens >= 0
        return credited.tokens


def test_what_is_paid_late_is_credited_late_and_once() -> None:
    pool = Paid()
    assert pool.epoch(0, 5000) == 0, "the first reading is where counting begins"
    assert pool.epoch(1000, 5000) == 0
    assert pool.epoch(1000, 5600) == 600
    assert pool.epoch(0, 6900) == 1300, "1900 were paid, 2000 metered"
    assert pool.epoch(0, 6900) == 0
    assert pool.epoch(0, 9000) == 100, "no more than was metered"
    assert pool.epoch(500, 9000) == 500, "what was paid ahead covers later work"


def test_a_contract_that_was_not_read_loses_nothing() -> None:
    pool = Paid()
    pool.epoch(0, 100)
    assert [pool.epoch(1000, None) for _ in range(3)] == [0, 0, 0]
    assert pool.epoch(0, 2600) == 2500
    assert pool.epoch(0, 3100) == 500


def test_a_reading_that_falls_takes_nothing_back_and_gives_nothing_twice() -> None:
    pool = Paid()
    pool.epoch(10_000, 100)
    assert [pool.epoch(0, tokens) for tokens in (600, 200, 600, 700)] == [500, 0, 0, 100]


def test_without_a_contract_nothing_is_credited() -> None:
    pool = Paid()
    assert [pool.epoch(1000, tokens, worker=None) for tokens in (None, 0, 10**6)] == [0, 0, 0]
    assert pool.epoch(0, 10**6) == 0
    assert pool.epoch(0, 10**6 + 700) == 700, "its backlog waits for a contract that pays"


def test_another_contract_begins_where_it_is_first_read_and_so_does_the_former_one_again() -> None:
    pool = Paid()
    pool.epoch(50_000, 100)
    assert pool.epoch(0, 400) == 300
    assert pool.epoch(0, 10**6, worker=WORKERS[1]) == 0, "what a contract was paid for elsewhere counts for nothing"
    assert pool.epoch(0, 10**6 + 50, worker=WORKERS[1]) == 50
    assert pool.epoch(0, 400, worker=WORKERS[0]) == 0
    assert pool.epoch(0, 10**6 + 50, worker=WORKERS[1]) == 0
    assert pool.epoch(0, 900, worker=WORKERS[0]) == 0, "read anew, it begins anew"
    assert pool.epoch(0, 960, worker=WORKERS[0]) == 60


def test_what_is_metered_counts_after_the_rate() -> None:
    pool = Paid()
    pool.epoch(0, 0)
    assert pool.epoch(10**6, 10**7, seconds=5) == 5 * RATE
    assert pool.epoch(0, 10**8) == 0


def test_what_is_paid_far_ahead_of_any_work_of_this_host_is_nobodys() -> None:
    """Else one attested host could collect what its owner's other machines were paid for."""
    rules = replace(PAID, work=msgspec.structs.replace(PAID.work, witness_carry_s=2))
    pool = Paid()
    pool.epoch(0, 0, rules=rules)
    pool.epoch(0, 10**9, rules=rules)
    assert pool.epoch(10**6, 10**9, seconds=100, rules=rules) == 2 * RATE
    assert pool.epoch(10**6, 10**9, seconds=100, rules=rules) == 0


def test_whatever_a_proxy_signs_for_fits_a_checkpoint() -> None:
    """Else one proxy could keep a whole pool from settling."""
    pool, most = Paid(), (1 << 63) - 1
    for worker in WORKERS:
        pool.epoch(1000, 0, worker=worker)
        pool.epoch(0, most, worker=worker)
    ahead = PAID.work.tokens_per_s_max * PAID.work.witness_carry_s
    assert pool.before.payments.paid_tokens == pool.before.payments.metered_tokens + ahead
    assert pool.before.payments.worker_tokens == most
    assert sum(pool.credited) == 3000
    assert cut_root({bytes(32): pool.before}) != cut_root({})


def test_a_switch_of_ceilings_never_credits_twice() -> None:
    free = replace(PAID, receipts=msgspec.structs.replace(PAID.receipts, ceiling="none"))
    pool = Paid()
    pool.epoch(0, 0)
    assert pool.epoch(1000, 400) == 400
    assert pool.epoch(1000, 400, rules=free) == 1000
    assert pool.epoch(0, 400) == 0, "what was metered before is forgotten with the ceiling"
    assert pool.epoch(0, 9000) == 0
    assert pool.epoch(500, 9000) == 500


STEPS = st.tuples(
    st.sampled_from(["worker-contract", "worker-contract", "worker-contract", "none", "receipts"]),
    st.integers(0, 70_000),
    st.integers(0, 30_000),
    st.booleans(),
    st.sampled_from([None, *WORKERS[:2]]),
)


@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 30_000), st.booleans()), max_size=12))
@settings(deadline=None)
def test_credited_is_the_less_of_both_sums_at_every_epoch(epochs: list[tuple[int, int, bool]]) -> None:
    pool, metered, paid, seen = Paid(), 0, 0, 0
    pool.epoch(0, 0)
    for tokens, more, read in epochs:
        paid += more
        seen = paid if read else seen
        metered += min(tokens, 60 * RATE)
        pool.epoch(tokens, paid if read else None)
        assert sum(pool.credited) == min(metered, seen)


@given(st.lists(STEPS, max_size=12))
@settings(deadline=None)
def test_whatever_changes_no_token_is_credited_twice(steps: list[tuple[str, int, int, bool, Address | None]]) -> None:
    pool, metered = Paid(), 0
    paid = {worker.account: 0 for worker in WORKERS}
    for ceiling, tokens, more, read, worker in steps:
        rules = replace(PAID, receipts=msgspec.structs.replace(PAID.receipts, ceiling=ceiling))
        if worker is not None:
            paid[worker.account] += more
        free = min(tokens, 60 * RATE) if ceiling == "none" else 0
        metered += min(tokens, 60 * RATE)
        pool.epoch(tokens, paid[worker.account] if worker is not None and read else None, worker=worker, rules=rules)
        if free:
            assert pool.credited[-1] == free
        assert sum(pool.credited) <= metered
    unpaid = [c for c, (ceiling, *_) in zip(pool.credited, steps, strict=True) if ceiling == "worker-contract"]
    assert sum(unpaid) <= sum(paid.values())
