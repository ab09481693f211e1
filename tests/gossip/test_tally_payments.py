"""Worker contracts in the tally: what the chain paid is credited once, to whoever may earn when it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from epochs import LONG_S, Epochs, leaf_of, policy_receipts, policy_work
from pool_fixture import START_S, key, participant, reading

from contracts.model import Address, ParticipantStatus
from gossip.records import Source, Unit, WorkBody
from gossip.settlement import Payments, encode_checkpoint, verify_checkpoint

WORKER, OTHER_WORKER = Address(0, b"w" * 32), Address(0, b"x" * 32)
OWN = key(0).public


def paid_pool(n: int = 1) -> Epochs:
    """A pool whose policy counts by worker contracts; each participant names one, and proved its machine."""
    pool = Epochs(n)
    pool.policy = replace(
        pool.policy,
        receipts=policy_receipts(pool.policy, ceiling="worker-contract"),
        work=policy_work(pool.policy, source="cocoon", token_units=(3,)),
    )
    pool.participants = tuple(replace(participant(i), worker=WORKER) for i in range(n))
    for author in pool.authors:
        author.prove()
    return pool


def meter(pool: Epochs, tokens: int, i: int = 0) -> None:
    """Let participant `i` have so many adjusted tokens metered in ten seconds."""
    author = pool.authors[i]
    counted = reading(source=Source.COCOON, counters=((Unit.ADJUSTED_TOKEN, tokens), (Unit.TASK, tokens // 100)))
    author.append(
        WorkBody(start_s=author.end_s, end_s=author.end_s + 10, readings=(counted,), evidence=author.evidence_hash)
    )
    author.end_s += 10


def credited(pool: Epochs, worker_tokens: Sequence[int | None]) -> list[int]:
    """Tokens that the next settlement credits, by participant."""
    settlement = pool.settle(worker_tokens=worker_tokens)
    return [leaf_of(settlement, i).tokens for i in range(pool.n)]


def test_what_is_paid_later_is_credited_later_also_by_a_node_that_was_away() -> None:
    pool = paid_pool()
    meter(pool, 5000)
    assert credited(pool, [100]) == [0]
    settlement = pool.settle(worker_tokens=[3100])
    assert leaf_of(settlement, 0).tokens == 3000
    restored = verify_checkpoint(encode_checkpoint(settlement), settlement.payload_hash).base()
    assert restored == pool.base
    assert pool.base.reading(OWN).payments == Payments(
        metered_tokens=5000, paid_tokens=3000, worker=WORKER.account, worker_tokens=3100
    )
    assert credited(pool, [9999]) == [2000]
    assert credited(pool, [9999]) == [0]


def test_the_steps_say_what_waits_for_payment() -> None:
    pool = paid_pool()
    meter(pool, 5000)
    credited(pool, [0])
    meter(pool, 2000)
    steps = pool.settle(worker_tokens=[6000]).credits[OWN]
    assert (steps.backlog_tokens, steps.metered_tokens, steps.receipted_tokens, steps.tokens) == (
        5000,
        2000,
        6000,
        6000,
    )


def test_a_participant_that_only_gets_paid_late_has_tokens_and_no_more() -> None:
    pool = paid_pool()
    meter(pool, 5000)
    credited(pool, [0])
    leaf = leaf_of(pool.settle(worker_tokens=[4000]), 0)
    assert (leaf.tokens, leaf.uptime_s, leaf.tasks, leaf.quality) == (4000, 0, 0, 0)
    assert leaf.earned_nanoton > 0


def test_another_contract_in_the_registry_begins_where_it_is_read() -> None:
    pool = paid_pool()
    meter(pool, 9000)
    credited(pool, [0])
    pool.participants = (replace(participant(0), worker=OTHER_WORKER),)
    assert credited(pool, [8000]) == [0]
    assert credited(pool, [8070]) == [70]
    pool.participants = (replace(participant(0), worker=None),)
    assert credited(pool, [9000]) == [0]


def test_an_owner_who_goes_from_key_to_key_is_credited_once_for_what_was_paid() -> None:
    """Keys take turns in one entry; each has metered more than was paid, so each could take all that comes."""
    pool = paid_pool(2)
    mine = participant(0).address
    keys = [replace(each, address=mine) for each in pool.participants]

    def paid(i: int, tokens: int) -> int:
        pool.participants = (keys[i],)
        settlement = pool.settle(worker_tokens=[tokens, tokens])
        return next(leaf.tokens for leaf in settlement.leaves if leaf.participant == mine)

    for i in (0, 1):
        meter(pool, 9000, i)
    assert [paid(0, 0), paid(0, 1000)] == [0, 1000]
    assert [paid(1, 1000), paid(1, 2000)] == [0, 1000]
    assert [paid(0, 2000), paid(0, 2500)] == [0, 500], "the 1000 that were paid to the other key are counted"


def test_what_was_done_while_barred_lapses_although_it_is_paid_when_the_bar_is_lifted() -> None:
    pool = paid_pool(2)
    for i in (0, 1):
        meter(pool, 3000, i)
    assert credited(pool, [0, 0]) == [0, 0]
    allowed = pool.participants
    pool.participants = (replace(allowed[0], status=ParticipantStatus.SUSPENDED), allowed[1])
    for i in (0, 1):
        meter(pool, 2000, i)
    assert credited(pool, [500, 500]) == [0, 500]
    pool.participants = allowed
    assert credited(pool, [5000, 5000]) == [0, 4500]
    meter(pool, 1000)
    settlement = pool.settle(LONG_S + 10, worker_tokens=[9000, 5000])
    assert leaf_of(settlement, 0).tokens == 1000, "what is done after the bar counts"


def test_a_reading_of_too_few_operators_is_none() -> None:
    pool = paid_pool(4)
    meter(pool, 1000)
    credited(pool, [0, 0, 0, 0])
    assert credited(pool, [None, 500, 500, 500])[0] == 0
    assert pool.base.reading(OWN).payments.worker_tokens == 0
    assert pool.base.reading(OWN).work_end_s == START_S + 10
    assert credited(pool, [700, 500, 500, 500])[0] == 700
