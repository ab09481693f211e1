"""The tally: what was worked is paid once, never more than the pot, whatever the order of arrival."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from epochs import LONG_S, Epochs, leaf_of, observe_all, policy_receipts, policy_work
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_fixture import (
    POOL,
    POT_NANOTON,
    START_S,
    Author,
    fill,
    frame,
    key,
    log_book,
    participant,
    policy,
    verdict,
)

from contracts.model import Leaf, ParticipantStatus
from gossip.log_chain import GENESIS
from gossip.messages import ObservedLog, make_observation
from gossip.receipts import make_receipt
from gossip.records import CloseBody, ReceiptBody, Unit
from gossip.settlement import Base, Settlement
from gossip.tally import settle, tally


def test_figures_of_one_window() -> None:
    pool = Epochs()
    pool.authors[0].prove()
    pool.authors[0].work(seconds=10, tokens=1000, gap_s=2)
    settlement = pool.settle()
    leaf = leaf_of(settlement, 0)
    assert (leaf.uptime_s, leaf.tokens, leaf.tasks, leaf.quality) == (8, 1000, 10, 10_000)
    assert leaf.earned_nanoton == POT_NANOTON
    idle = leaf_of(settlement, 1)
    assert (idle.uptime_s, idle.tokens, idle.score, idle.earned_nanoton) == (0, 0, 0, 0)
    payload = settlement.payload
    assert (payload.tokens, payload.tasks, payload.count) == (1000, 10, 2)
    assert payload.total_earned_nanoton == POT_NANOTON
    assert payload.total_score == leaf.score


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_order_of_records_observations_and_participants_does_not_matter(data: st.DataObject) -> None:
    n = 4
    authors = [Author(i) for i in range(n)]
    for author in authors:
        author.prove()
        for _ in range(data.draw(st.integers(0, 4))):
            author.work(seconds=data.draw(st.integers(1, 60)), tokens=data.draw(st.integers(0, 90_000)))
    records = [record for author in authors for record in author.records]
    witnessed = data.draw(st.lists(st.integers(0, 200), min_size=n, max_size=n))

    def compute(shuffle: Callable[[list], list]) -> Settlement:
        logs = log_book(n)
        pending = shuffle(records)
        for _ in range(max(len(a.records) for a in authors)):
            fill(logs, pending)
        observations = shuffle(observe_all(logs, Base(), n, witnessed))
        shuffled = replace(frame(n), participants=tuple(shuffle(list(frame(n).participants))))
        return settle(shuffled, Base(), observations, logs, verdict)

    random = data.draw(st.randoms(use_true_random=False))
    expected = compute(list)
    other = compute(lambda items: random.sample(items, len(items)))
    assert other.payload == expected.payload
    assert other.leaves == expected.leaves
    assert other.payload_hash == expected.payload_hash


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 60)), min_size=1, max_size=6),
    st.lists(st.integers(0, 1000), min_size=6, max_size=6),
    st.integers(0, 10**18),
)
@settings(deadline=None)
def test_never_more_than_the_pot_and_dust_of_less_than_one_nano_each(
    work: list[tuple[int, int]], reputations: list[int], pot: int
) -> None:
    n = len(work)
    pool = Epochs(n)
    pool.participants = tuple(replace(participant(i), reputation=reputations[i]) for i in range(n))
    for author, (tokens, seconds) in zip(pool.authors, work, strict=True):
        author.prove()
        if seconds:
            author.work(seconds=seconds, tokens=tokens)
    fill(pool.logs, [record for author in pool.authors for record in author.records])
    framed = replace(pool.frame(), pot_nanoton=pot)
    settlement = settle(framed, Base(), observe_all(pool.logs, Base(), n), pool.logs, verdict)
    earned = sum(leaf.earned_nanoton for leaf in settlement.leaves)
    assert earned == settlement.payload.total_earned_nanoton <= pot
    if settlement.payload.total_score:
        assert earned > pot - n


def test_uptime_is_capped_by_what_was_witnessed_and_tokens_by_uptime() -> None:
    pool = Epochs()
    for author in pool.authors:
        author.prove()
        author.work(seconds=60, tokens=60_000)
    settlement = pool.settle(witnessed_s=(15, LONG_S))
    assert leaf_of(settlement, 0).uptime_s == 15
    assert leaf_of(settlement, 0).tokens == 15 * pool.policy.work.tokens_per_s_max
    assert leaf_of(settlement, 1).uptime_s == 60
    assert leaf_of(settlement, 1).tokens == 60_000


def test_more_tokens_per_second_than_the_policy_allows_are_not_credited() -> None:
    pool = Epochs()
    pool.authors[0].prove()
    pool.authors[0].work(seconds=10, tokens=10_000_000)
    assert leaf_of(pool.settle(), 0).tokens == 10 * pool.policy.work.tokens_per_s_max


def test_nobody_earns_without_being_witnessed() -> None:
    pool = Epochs()
    pool.authors[0].prove()
    pool.authors[0].work()
    leaf = leaf_of(pool.settle(witnessed_s=0), 0)
    assert (leaf.uptime_s, leaf.tokens, leaf.tasks, leaf.quality, leaf.score) == (0, 0, 0, 0, 0)


def test_witnessed_time_that_was_not_credited_covers_records_that_come_late() -> None:
    pool = Epochs()
    author = pool.authors[0]
    author.prove()
    author.work(seconds=10)
    assert leaf_of(pool.settle(witnessed_s=30), 0).uptime_s == 10
    author.work(seconds=30)
    assert leaf_of(pool.settle(witnessed_s=40), 0).uptime_s == 30  # 20 s of the first epoch, 10 s of the second
    author.work(seconds=30)
    assert leaf_of(pool.settle(witnessed_s=40), 0).uptime_s == 0


def test_witnessed_time_lapses_when_it_is_older_than_the_carry() -> None:
    pool = Epochs()
    pool.policy = dataclasses.replace(pool.policy, work=policy_work(pool.policy, witness_carry_s=20))
    author = pool.authors[0]
    author.prove()
    pool.settle(witnessed_s=100)
    for _ in range(5):
        author.work(seconds=10)
    assert leaf_of(pool.settle(witnessed_s=100), 0).uptime_s == 20


@given(
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.lists(st.integers(1, 60), min_size=6, max_size=6),
)
@settings(deadline=None)
def test_a_window_counts_once_however_the_epochs_cut_the_log(per_epoch: list[int], lengths: list[int]) -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    author.prove()
    total = worked = 0
    for count in per_epoch:
        for length in lengths[:count]:
            author.work(seconds=length, tokens=length)
            worked += length
        total += leaf_of(pool.settle(), 0).uptime_s
    assert total == worked


def test_a_record_that_missed_its_epoch_keeps_its_value() -> None:
    pools = Epochs(1), Epochs(1)
    for pool, is_late in zip(pools, (False, True), strict=True):
        author = pool.authors[0]
        author.prove()
        if is_late:
            pool.settle(witnessed_s=60)
        author.work(seconds=50, tokens=5000)
        settlement = pool.settle(witnessed_s=60)
        leaf = leaf_of(settlement, 0)
        assert (leaf.uptime_s, leaf.tokens) == (50, 5000)


def test_receipts_alone_earn_nothing() -> None:
    """They are a ceiling: what nobody metered is not work."""
    pool = Epochs(1)
    gateway = key(77)
    pool.policy = dataclasses.replace(
        pool.policy,
        receipts=policy_receipts(pool.policy, ceiling="receipts", signers=(gateway.public.hex(),)),
    )
    signed = make_receipt(gateway, POOL, key(0).public, job_id=b"job", time_s=START_S, tokens=10**6)
    pool.authors[0].prove()
    pool.authors[0].append(ReceiptBody((signed,)))
    leaf = leaf_of(pool.settle(), 0)
    assert (leaf.tokens, leaf.score) == (0, 0)


def test_who_leaves_keeps_what_was_earned_and_gets_nothing_more() -> None:
    pool = Epochs(2)
    for author in pool.authors:
        author.prove()
        author.work()
    before = leaf_of(pool.settle(), 1).earned_nanoton
    assert before > 0
    pool.participants = pool.participants[:1]
    pool.authors[0].work()
    pool.n = 1
    settlement = pool.settle()
    leaf = leaf_of(settlement, 1)
    assert leaf == Leaf(
        participant=participant(1).address,
        earned_nanoton=before,
        score=0,
        tokens=0,
        tasks=0,
        uptime_s=0,
        quality=0,
        reputation=0,
    )
    assert settlement.payload.total_earned_nanoton <= 2 * POT_NANOTON
    assert leaf_of(settlement, 0).earned_nanoton == POT_NANOTON // 2 + POT_NANOTON
    assert key(1).public in settlement.readings  # its log is not counted again if it comes back


def test_who_joins_starts_at_nothing() -> None:
    pool = Epochs(2)
    everyone, pool.participants, pool.n = pool.participants, pool.participants[:1], 1
    assert pool.settle().payload.count == 1
    pool.participants, pool.n = everyone, 2
    pool.authors[1].prove()
    pool.authors[1].work()
    settlement = pool.settle()
    assert (settlement.payload.count, leaf_of(settlement, 1).earned_nanoton) == (2, POT_NANOTON)


def test_nothing_after_a_close_counts_not_even_in_a_later_epoch() -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    author.prove()
    author.work()
    author.append(CloseBody())
    assert leaf_of(pool.settle(), 0).uptime_s == 10
    author.work()
    assert leaf_of(pool.settle(), 0).uptime_s == 0


def test_chained_epochs_name_their_predecessor() -> None:
    pool = Epochs(1)
    first = pool.settle()
    second = pool.settle()
    assert first.payload.prev == bytes(32)
    assert second.payload.prev == first.payload_hash
    assert (first.payload.epoch, second.payload.epoch) == (1, 2)


def test_a_participant_whose_log_nobody_named_has_a_leaf_without_work() -> None:
    settlement = tally(frame(2), Base(), {}, log_book(2), verdict)
    assert settlement.payload.count == 2
    assert settlement.readings == {}


def walk(value: object) -> Iterator[object]:
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from walk(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.items():
            yield from walk(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from walk(item)


def counters(tokens: int, tasks: int, failed: int) -> tuple[tuple[int, int], ...]:
    return ((Unit.GENERATION_TOKEN, tokens), (Unit.TASK, tasks), (Unit.FAILED_TASK, failed))


def test_there_is_no_float_in_a_settlement() -> None:
    pool = Epochs(3)
    for i, author in enumerate(pool.authors):
        author.prove()
        author.work(seconds=7, counters=counters(333 * (i + 1), i + 3, i), latency_ms=(1, 3001, 5000))
    settlement = pool.settle()
    assert not [value for value in walk(settlement) if isinstance(value, float)]
    assert settlement.payload.total_score > 0
    assert 0 < leaf_of(settlement, 1).quality < 10_000


def test_a_genesis_log_is_no_work() -> None:
    pool = Epochs(1)
    assert leaf_of(pool.settle(), 0).uptime_s == 0
    assert pool.base.reading(key(0).public).head == GENESIS


@pytest.mark.parametrize("status", [ParticipantStatus.SUSPENDED, ParticipantStatus.INACTIVE])
def test_who_is_suspended_or_inactive_earns_nothing_and_keeps_what_it_earned(status: ParticipantStatus) -> None:
    pool = Epochs(2)
    for author in pool.authors:
        author.prove()
        author.work()
    before = leaf_of(pool.settle(), 0).earned_nanoton
    assert before > 0
    pool.participants = (replace(participant(0), status=status), participant(1))
    for author in pool.authors:
        author.work()
    barred = pool.settle()
    leaf = leaf_of(barred, 0)
    assert (leaf.score, leaf.tokens, leaf.tasks, leaf.uptime_s, leaf.earned_nanoton) == (0, 0, 0, 0, before)
    assert leaf_of(barred, 1).earned_nanoton == before + POT_NANOTON
    # What it did meanwhile is counted: it is not paid when the bar is lifted, and lends its witnessed time to nobody.
    pool.participants = (participant(0), participant(1))
    lifted = pool.settle()
    assert (leaf_of(lifted, 0).score, leaf_of(lifted, 0).earned_nanoton) == (0, before)
    pool.authors[0].work(seconds=30)
    assert leaf_of(pool.settle(witnessed_s=LONG_S + 7), 0).uptime_s == 7


def test_who_is_withdrawing_still_earns() -> None:
    pool = Epochs(1)
    pool.participants = (replace(participant(0), status=ParticipantStatus.WITHDRAWING),)
    pool.authors[0].prove()
    pool.authors[0].work()
    assert leaf_of(pool.settle(), 0).earned_nanoton == POT_NANOTON


def test_who_left_the_registry_keeps_a_leaf_with_everything_it_earned() -> None:
    pool = Epochs(2)
    for author in pool.authors:
        author.prove()
        author.work()
    before = leaf_of(pool.settle(), 0).earned_nanoton
    pool.participants = (participant(1),)
    pool.authors[1].work()
    observed = [
        make_observation(
            key(i),
            POOL,
            epoch=2,
            set_id=1,
            policy_hash=pool.policy.hash,
            base=pool.base.payload_hash,
            logs={key(1).public: ObservedLog(head=pool.authors[1].head, witnessed_s=2 * LONG_S, worker_tokens=0)},
            forks=(),
        )
        for i in range(2)
    ]
    fill(pool.logs, pool.authors[1].records[-1:])
    settlement = settle(pool.frame(), pool.base, observed, pool.logs, verdict)
    gone = leaf_of(settlement, 0)
    assert (gone.earned_nanoton, gone.score, gone.tokens) == (before, 0, 0)
    assert settlement.payload.total_earned_nanoton == 2 * before + POT_NANOTON


def test_a_window_longer_than_the_policys_longest_does_not_count_and_spoils_nothing() -> None:
    pool = Epochs(1)
    pool.policy = replace(policy(), work=policy_work(policy(), window_max_s=30))
    pool.authors[0].prove()
    pool.authors[0].work(seconds=60)
    pool.authors[0].work(seconds=20)
    assert leaf_of(pool.settle(), 0).uptime_s == 20
