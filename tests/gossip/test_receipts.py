"""Receipts in the tally: only what a trusted signer said of this participant, of work that counts, and only once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from epochs import Epochs, leaf_of, policy_receipts
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, Author, key, participant, policy

from contracts.model import ParticipantStatus
from contracts.signing import SigningKey
from gossip.errors import InvalidMessageError
from gossip.policy import PoolPolicy
from gossip.receipts import make_receipt, receipted_tokens, require_receipt
from gossip.records import PoolId, Receipt, ReceiptBody, WorkBody

GATEWAY, CLIENT, STRANGER = (SigningKey(hashlib.sha256(b"signer %d" % i).digest()) for i in range(3))
OWN, OTHER = key(0).public, key(1).public
WINDOW = WorkBody(start_s=START_S, end_s=START_S + 10, readings=(), evidence=None)


def counting(**changes: object) -> PoolPolicy:
    """A policy with receipts as the ceiling, of a gateway and a client."""
    signers = tuple(signer.public.hex() for signer in (GATEWAY, CLIENT))
    table = {"ceiling": "receipts", "signers": signers, "per_participant_max": 100} | changes
    return replace(policy(), receipts=policy_receipts(policy(), **table))


def receipt(
    job: int = 1, *, signer: SigningKey = GATEWAY, node_key: bytes = OWN, pool: PoolId = POOL, **changes: int
) -> Receipt:
    fields = {"time_s": START_S + 5, "tokens": 100} | changes
    return make_receipt(signer, pool, node_key, job_id=b"job %d" % job, **fields)


def logged(i: int, *held: Receipt) -> Author:
    """The author of participant `i`, its log holding these receipts, each in a record of its own."""
    author = Author(i)
    for each in held:
        author.append(ReceiptBody((each,)))
    return author


def covered(*authors: Author, rules: PoolPolicy | None = None, windows: Sequence[WorkBody] = (WINDOW,)) -> list[int]:
    """Tokens that the receipts of each author cover, all having these windows counted."""
    found = receipted_tokens(
        {key(author.i).public: author.records for author in authors},
        {key(author.i).public: windows for author in authors},
        rules or counting(),
    )
    return [found.get(key(author.i).public, 0) for author in authors]


def test_receipts_of_trusted_signers_add_up() -> None:
    assert covered(logged(0, receipt(1), receipt(2, tokens=7), receipt(1, signer=CLIENT, tokens=30))) == [137]


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(receipt(signer=STRANGER), id="of a signer that the policy does not name"),
        pytest.param(receipt(signer=key(0)), id="of the participant itself"),
        pytest.param(receipt(time_s=START_S - 1), id="before the window"),
        pytest.param(receipt(time_s=START_S + 10), id="when the window is over"),
        pytest.param(receipt(time_s=0), id="at the beginning of time"),
        pytest.param(receipt(time_s=2**32 - 1), id="at its end"),
    ],
)
def test_what_covers_nothing(held: Receipt) -> None:
    assert covered(logged(0, held)) == [0]
    assert covered(logged(0, held, receipt(9, tokens=3))) == [3], "and spoils nothing"


@pytest.mark.parametrize(
    ("at_s", "tokens"), [(-1, 0), (0, 100), (9, 100), (10, 0), (19, 0), (20, 100), (29, 100), (30, 0)]
)
def test_a_receipt_is_dated_inside_a_window_that_counts(at_s: int, tokens: int) -> None:
    windows = [WINDOW, replace(WINDOW, start_s=START_S + 20, end_s=START_S + 30)]
    assert covered(logged(0, receipt(time_s=START_S + at_s)), windows=windows) == [tokens]


def test_without_windows_that_count_or_signers_there_is_nothing() -> None:
    assert covered(logged(0, receipt()), windows=()) == [0]
    assert covered(logged(0, receipt()), rules=policy()) == [0]


def test_a_job_counts_once_in_a_log() -> None:
    assert covered(logged(0, receipt(tokens=100), receipt(tokens=100), receipt(tokens=100))) == [100]
    assert covered(logged(0, receipt(tokens=100), receipt(tokens=900))) == [100], "of one time the smallest"
    assert covered(logged(0, receipt(tokens=900, time_s=START_S + 6), receipt(tokens=100))) == [100], "the earliest"


def test_a_job_counts_once_in_a_pool_for_who_has_the_earliest() -> None:
    early, late = START_S + 1, START_S + 2
    first = logged(0, receipt(time_s=late))
    second = logged(1, receipt(node_key=OTHER, time_s=early, tokens=70))
    assert covered(first, second) == covered(second, first)[::-1] == [0, 70]


def test_a_job_of_one_time_counts_for_the_lowest_node_key() -> None:
    found = covered(logged(0, receipt()), logged(1, receipt(node_key=OTHER)))
    assert found == ([100, 0] if OWN < OTHER else [0, 100])


def test_jobs_of_two_signers_are_two() -> None:
    assert covered(logged(0, receipt(1)), logged(1, receipt(1, node_key=OTHER, signer=CLIENT))) == [100, 100]


def test_a_receipt_that_does_not_count_takes_the_job_from_nobody() -> None:
    stranger = receipt(node_key=OTHER, time_s=START_S, signer=STRANGER)
    for hostile in (stranger, receipt(node_key=OTHER, time_s=START_S - 1)):
        assert covered(logged(0, receipt()), logged(1, hostile)) == [100, 0]


def test_so_many_are_looked_at_in_the_order_of_the_log() -> None:
    held = [receipt(job, tokens=job) for job in (5, 1, 9, 3)]
    assert covered(logged(0, *held), rules=counting(per_participant_max=2)) == [6]
    assert covered(logged(0, *held), rules=counting(per_participant_max=4)) == [18]
    strange = [receipt(job, signer=STRANGER) for job in range(2)]
    assert covered(logged(0, *strange, *held), rules=counting(per_participant_max=2)) == [0], "whatever they are"
    other = logged(1, receipt(20, node_key=OTHER))
    assert covered(logged(0, *held), other, rules=counting(per_participant_max=2)) == [6, 100], "of each log"


def test_a_receipt_is_checked_by_whoever_is_handed_it() -> None:
    require_receipt(POOL, OWN, receipt())
    for pool, node_key in ((POOL, OTHER), (PoolId(POOL.network, bytes(32)), OWN)):
        with pytest.raises(InvalidMessageError, match="signature"):
            require_receipt(pool, node_key, receipt())


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_participants_nor_of_records_matters(data: st.DataObject) -> None:
    """As long as no log holds more than are looked at."""
    made = {
        i: [
            receipt(
                job,
                node_key=key(i).public,
                signer=data.draw(st.sampled_from([GATEWAY, CLIENT, STRANGER])),
                time_s=START_S + data.draw(st.integers(-1, 11)),
                tokens=data.draw(st.integers(0, 50)),
            )
            for job in data.draw(st.lists(st.integers(0, 3), max_size=4))
        ]
        for i in range(3)
    }
    random = data.draw(st.randoms(use_true_random=False))
    expected = covered(*(logged(i, *held) for i, held in made.items()))
    shuffled = random.sample(list(made), 3)
    found = covered(*(logged(i, *random.sample(made[i], len(made[i]))) for i in shuffled))
    assert dict(zip(shuffled, found, strict=True)) == dict(zip(made, expected, strict=True))
    jobs = {each.id: each.tokens for held in made.values() for each in held}
    most = {id_: max(r.tokens for held in made.values() for r in held if r.id == id_) for id_ in jobs}
    assert sum(expected) <= sum(tokens for (signer, _), tokens in most.items() if signer != STRANGER.public)


# In the tally.


def receipted_pool(n: int = 1) -> Epochs:
    pool = Epochs(n, policy=counting())
    for author in pool.authors:
        author.prove()
    return pool


def test_tokens_are_credited_up_to_the_receipts() -> None:
    pool = receipted_pool()
    pool.authors[0].work(seconds=10, tokens=1000)
    pool.authors[0].append(ReceiptBody((receipt(tokens=300),)))
    settlement = pool.settle()
    leaf = leaf_of(settlement, 0)
    assert (leaf.tokens, leaf.tasks) == (300, 10)
    credited = settlement.credits[OWN]
    assert (credited.metered_tokens, credited.receipted_tokens, credited.tokens) == (1000, 300, 300)
    pool.authors[0].work(seconds=10, tokens=1000)
    pool.authors[0].append(ReceiptBody((receipt(2, tokens=5000, time_s=START_S + 15),)))
    assert leaf_of(pool.settle(), 0).tokens == 1000, "nobody is paid for more than was metered"


def test_a_receipt_does_not_count_again_in_a_later_epoch() -> None:
    pool = receipted_pool()
    author = pool.authors[0]
    author.work(seconds=10, tokens=1000)
    author.append(ReceiptBody((receipt(tokens=300),)))
    assert leaf_of(pool.settle(), 0).tokens == 300
    author.work(seconds=10, tokens=1000)
    author.append(ReceiptBody((receipt(tokens=300),)))
    settlement = pool.settle()
    assert (leaf_of(settlement, 0).tokens, settlement.credits[OWN].receipted_tokens) == (0, 0)


def test_a_receipt_that_comes_before_its_window_does_not_wait_for_it() -> None:
    pool = receipted_pool()
    author = pool.authors[0]
    author.append(ReceiptBody((receipt(tokens=300),)))
    assert leaf_of(pool.settle(), 0).tokens == 0
    author.work(seconds=10, tokens=1000)
    assert leaf_of(pool.settle(), 0).tokens == 0
    author.work(seconds=10, tokens=1000)
    author.append(ReceiptBody((receipt(tokens=300, time_s=START_S + 15),)))
    assert leaf_of(pool.settle(), 0).tokens == 300, "said again by the signer, of a window of that epoch, it counts"


def test_a_receipt_in_a_window_that_no_evidence_covers_counts_for_nothing() -> None:
    pool = receipted_pool()
    author, proven = pool.authors[0], pool.authors[0].evidence_hash
    author.evidence_hash = bytes(32)
    author.work(seconds=10, tokens=1000)
    author.evidence_hash = proven
    author.work(seconds=10, tokens=1000)
    author.append(ReceiptBody((receipt(1, tokens=300), receipt(2, tokens=40, time_s=START_S + 15))))
    assert leaf_of(pool.settle(), 0).tokens == 40


def test_who_is_barred_takes_no_job_from_others() -> None:
    for status, expected in ((ParticipantStatus.ACTIVE, [0, 70]), (ParticipantStatus.SUSPENDED, [100, 0])):
        pool = receipted_pool(2)
        pool.participants = (participant(0), replace(participant(1), status=status))
        for author, claim in zip(
            pool.authors, (receipt(), receipt(node_key=OTHER, time_s=START_S, tokens=70)), strict=True
        ):
            author.work(seconds=10, tokens=1000)
            author.append(ReceiptBody((claim,)))
        settlement = pool.settle()
        assert [leaf_of(settlement, i).tokens for i in (0, 1)] == expected


def test_receipts_change_nothing_where_the_policy_asks_for_none() -> None:
    pool = Epochs(1, policy=counting(ceiling="none"))
    pool.authors[0].prove()
    pool.authors[0].work(seconds=10, tokens=1000)
    pool.authors[0].append(ReceiptBody((receipt(tokens=3),)))
    settlement = pool.settle()
    assert (leaf_of(settlement, 0).tokens, settlement.credits[OWN].receipted_tokens) == (1000, None)
