"""GPUs in the tally: each earns for one node, at the rate of its model; and the order of arrival decides nothing."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from epochs import Epochs, leaf_of, observe_all, policy_receipts, policy_work
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_fixture import (
    EPOCH_S,
    POOL,
    START_S,
    Author,
    evidence,
    fill,
    gpu,
    key,
    log_book,
    participant,
    reading,
    verdict,
)

from contracts.model import Address, ParticipantStatus
from gossip.policy import PoolPolicy
from gossip.receipts import make_receipt
from gossip.records import ReceiptBody, Source, Unit, WorkBody
from gossip.settlement import GPU_ID_BYTES, Base, Settlement, encode_checkpoint, verify_checkpoint
from gossip.tally import settle

LATE_S = START_S - 10
RATES = {"H100": 300, "H100 PCIe": 200, "A100": 150}


def on(pool: Epochs, i: int, quote: bytes, time_s: int = LATE_S, *, tokens: int = 100) -> None:
    """Let participant `i` prove what the quote says (`pool_fixture.verdict`), and work for ten seconds."""
    author = pool.authors[i]
    author.evidence_hash = author.append(replace(evidence(time_s), quote=quote)).hash
    author.work(seconds=10, tokens=tokens)


def uptimes(pool: Epochs) -> list[int]:
    settlement = pool.settle()
    return [leaf_of(settlement, i).uptime_s for i in range(pool.n)]


def test_a_gpu_that_is_shown_on_two_nodes_earns_for_one() -> None:
    pool = Epochs(3)
    on(pool, 0, b"on a with H100:0", LATE_S)
    on(pool, 1, b"on b with H100:0", LATE_S - 1)
    on(pool, 2, b"on c with H100:1", LATE_S)
    assert uptimes(pool) == [0, 10, 10], "the older anchor first"
    assert pool.base.reading(key(0).public).evidence == ()
    (kept,) = pool.base.reading(key(1).public).evidence
    assert kept.gpus == (gpu(b"H100:0").identity[:GPU_ID_BYTES],)


def test_a_clone_earns_nothing_whatever_else_it_has() -> None:
    pool = Epochs(2)
    on(pool, 0, b"on a with H100:0", LATE_S - 1)
    on(pool, 1, b"on b with H100:0,H100:1,H100:2", LATE_S)
    settlement = pool.settle()
    assert leaf_of(settlement, 1).earned_nanoton == 0
    credited = settlement.credits[key(1).public]
    assert (credited.windows, credited.windows_uncovered, credited.tokens) == (0, 1, 0)


def test_whoever_earned_with_a_gpu_keeps_it_against_older_anchors() -> None:
    pool = Epochs(2)
    on(pool, 0, b"on a with H100:0", LATE_S)
    assert uptimes(pool) == [10, 0]
    on(pool, 1, b"on b with H100:0", START_S - 5000)
    on(pool, 0, b"on a with H100:0", START_S + 10)
    assert uptimes(pool) == [10, 0]
    on(pool, 1, b"on b with H100:0", START_S - 5000)
    assert uptimes(pool) == [0, 10], "but not against one that works, in an epoch in which it does not itself"


def test_who_has_no_place_itself_takes_none_from_others() -> None:
    pool = Epochs(3)
    on(pool, 2, b"on c with H100:1", LATE_S - 2)
    on(pool, 0, b"on a with H100:1,H100:2", LATE_S - 1)
    on(pool, 1, b"on b with H100:2", LATE_S)
    assert uptimes(pool) == [0, 10, 10], "a gets all its GPUs or none"


def test_a_gpu_that_moves_is_free_when_the_evidence_of_before_is_over() -> None:
    pool = Epochs(2)
    on(pool, 0, b"on a with H100:0", START_S - 86_350)
    assert uptimes(pool) == [10, 0]
    pool.authors[1].end_s = START_S + 60
    on(pool, 1, b"on b with H100:0", START_S + 10)
    assert uptimes(pool) == [0, 10]


def test_what_is_taken_back_with_one_gpu_leaves_the_evidence_without_it() -> None:
    pool = Epochs(2)
    on(pool, 0, b"on a with H100:0", LATE_S - 5)
    on(pool, 1, b"on b with H100:1", LATE_S - 5)
    on(pool, 1, b"on b with H100:0,H100:1", LATE_S)
    assert uptimes(pool) == [10, 10], "the window under the first evidence still counts"
    (kept,) = pool.base.reading(key(1).public).evidence
    assert kept.gpus == (gpu(b"H100:1").identity[:GPU_ID_BYTES],)


def test_who_is_barred_holds_no_gpu() -> None:
    pool = Epochs(2)
    on(pool, 0, b"on a with H100:0", LATE_S - 5)
    on(pool, 1, b"on b with H100:0", LATE_S)
    pool.participants = (replace(participant(0), status=ParticipantStatus.SUSPENDED), participant(1))
    assert uptimes(pool) == [0, 10]


def test_machines_are_shared_out_first_and_gpus_among_those_who_are_left() -> None:
    """Else a clone that has no place on its machine could keep a GPU from the node that has it."""
    pool = Epochs(3)
    on(pool, 0, b"on a with H100:0", LATE_S - 9)  # has the machine
    on(pool, 1, b"on a with H100:1", LATE_S - 5)  # has no place on it, and so no claim on the GPU
    on(pool, 2, b"on c with H100:1", LATE_S)
    assert uptimes(pool) == [10, 0, 10]


def test_many_nodes_of_one_machine_still_need_a_gpu_each() -> None:
    pool = Epochs(3)
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, machine_nodes_max=3))
    on(pool, 0, b"on a with H100:0", LATE_S - 2)
    on(pool, 1, b"on a with H100:1", LATE_S - 1)
    on(pool, 2, b"on a with H100:1", LATE_S)
    assert uptimes(pool) == [10, 10, 0]


def test_nodes_without_gpus_claim_none() -> None:
    pool = Epochs(3)
    for i in range(3):
        on(pool, i, b"on %d with " % i)
    assert uptimes(pool) == [10, 10, 10]


@pytest.mark.parametrize(
    ("rates", "gpus", "tokens_per_s"),
    [
        ({}, b"", 1000),
        ({}, b"H100:0", 1000),
        (RATES, b"", 0),
        (RATES, b"T4:0", 0),
        (RATES, b"H100 SXM:0", 300),
        (RATES, b"H100 PCIe:0", 200),
        (RATES, b"H100:0,T4:0,A100:0,A100:1", 600),
        (RATES, b"H100:0,H100:1,H100:2,H100:3", 1000),
    ],
)
def test_tokens_are_credited_at_the_rate_of_the_gpus_proven(
    rates: dict[str, int], gpus: bytes, tokens_per_s: int
) -> None:
    pool = Epochs(1)
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, gpu_tokens_per_s=rates))
    on(pool, 0, b"on a with " + gpus, tokens=10**6)
    settlement = pool.settle()
    assert leaf_of(settlement, 0).tokens == 10 * tokens_per_s
    assert settlement.credits[key(0).public].rate_tokens == 10 * tokens_per_s
    assert [w.tokens_per_s for w in pool.base.reading(key(0).public).evidence] == [tokens_per_s]


def test_evidence_keeps_the_rate_that_it_was_judged_by_within_todays_cap() -> None:
    pool = Epochs(1)
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, gpu_tokens_per_s=RATES))
    on(pool, 0, b"on a with H100:0,H100:1", tokens=10**6)
    assert leaf_of(pool.settle(), 0).tokens == 6000
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, gpu_tokens_per_s={"H100": 1}))
    pool.authors[0].work(seconds=10, tokens=10**6)
    assert leaf_of(pool.settle(), 0).tokens == 6000
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, tokens_per_s_max=7))
    pool.authors[0].work(seconds=10, tokens=10**6)
    assert leaf_of(pool.settle(), 0).tokens == 70


# All of it at once, in any order.

GATEWAY = key(90)
QUOTES = [b"on %s with %s" % pair for pair in itertools.product((b"a", b"b", b"c"), (b"", b"H100:0", b"H100:0,A100:1"))]


def ruled(base: PoolPolicy, ceiling: str) -> PoolPolicy:
    receipts = policy_receipts(base, ceiling=ceiling, signers=(GATEWAY.public.hex(),))
    units = {"source": "cocoon", "token_units": (3,)} if ceiling == "worker-contract" else {}
    return replace(base, receipts=receipts, work=policy_work(base, gpu_tokens_per_s=RATES, **units))


@st.composite
def logs_of(draw: st.DrawFn, n: int) -> list[Author]:
    authors = [Author(i) for i in range(n)]
    for author in authors:
        for _ in range(draw(st.integers(0, 2))):
            quote, age_s = draw(st.sampled_from([*QUOTES, b"bad"])), draw(st.integers(0, 3))
            author.evidence_hash = author.append(replace(evidence(LATE_S - age_s), quote=quote)).hash
        for _ in range(draw(st.integers(0, 3))):
            seconds, tokens = draw(st.integers(1, 30)), draw(st.integers(0, 9000))
            counted = (
                reading(tokens),
                reading(tokens // 2, instance=1, gap_s=draw(st.integers(0, seconds))),
                reading(source=Source.COCOON, counters=((Unit.ADJUSTED_TOKEN, tokens), (Unit.TASK, tokens // 99))),
            )
            author.append(
                WorkBody(
                    start_s=author.end_s,
                    end_s=author.end_s + seconds,
                    readings=tuple(each for each in counted if draw(st.booleans())),
                    evidence=author.evidence_hash,
                )
            )
            author.end_s += seconds
        for _ in range(draw(st.integers(0, 2))):
            claim = make_receipt(
                GATEWAY if draw(st.booleans()) else key(author.i),
                POOL,
                key(author.i).public,
                job_id=b"job %d" % draw(st.integers(0, 3)),
                time_s=START_S + draw(st.integers(0, 40)),
                tokens=draw(st.integers(0, 5000)),
            )
            author.append(ReceiptBody((claim,)))
    return authors


@given(st.data(), st.sampled_from(["none", "receipts", "worker-contract"]))
@settings(max_examples=60, deadline=None)
def test_order_does_not_matter_with_gpus_receipts_and_contracts(data: st.DataObject, ceiling: str) -> None:
    n = 5
    authors = data.draw(logs_of(n))
    records = [record for author in authors for record in author.records]
    rules = ruled(Epochs(1).policy, ceiling)
    people = [
        replace(participant(i), worker=data.draw(st.sampled_from([None, Address(0, bytes([i]) * 32)])))
        for i in range(n)
    ]
    read: list[Sequence[int | None]] = [
        data.draw(st.lists(st.none() | st.integers(0, 9000), min_size=n, max_size=n)) for _ in range(2)
    ]

    def compute(shuffle: object) -> list[Settlement]:
        logs, base, settled = log_book(n), Base(), []
        pending = shuffle(records)
        for _ in range(max(len(author.records) for author in authors)):
            fill(logs, pending)
        for epoch, tokens in enumerate(read, 1):
            observations = shuffle(observe_all(logs, base, n, 200 * epoch, tokens))
            made = replace(
                Epochs(n, policy=rules).frame(),
                epoch=epoch,
                end_s=START_S + EPOCH_S * epoch,
                participants=tuple(shuffle(people)),
            )
            settled.append(settle(made, base, observations, logs, verdict))
            base = settled[-1].base()
            for node_key, counted in settled[-1].readings.items():
                logs.rebase(node_key, counted.head, counted.work_end_s)
        return settled

    random = data.draw(st.randoms(use_true_random=False))
    expected = compute(list)
    other = compute(lambda items: random.sample(items, len(items)))
    assert [each.payload_hash for each in other] == [each.payload_hash for each in expected]
    assert [(each.leaves, each.readings, each.credits) for each in other] == [
        (each.leaves, each.readings, each.credits) for each in expected
    ]
    for each in expected:
        assert verify_checkpoint(encode_checkpoint(each), each.payload_hash) == each
        shown = [gpu for r in each.readings.values() for gpu in {gpu for w in r.evidence for gpu in w.gpus}]
        assert set(Counter(shown).values()) <= {1}
