"""Evidence in the tally: work counts inside what it covers, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from epochs import Epochs, leaf_of
from pool_fixture import START_S, key

from gossip.errors import DataUnavailableError
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody
from gossip.settlement import EVIDENCE_KEPT_MAX


@pytest.mark.parametrize(
    ("start_s", "end_s", "counts"),
    [
        (0, 3600, True),
        (1, 3600, False),
        (0, 9, False),
        (0, 10, True),
        (-100, 10, True),
    ],
)
def test_a_window_counts_only_inside_the_evidence_that_it_names(start_s: int, end_s: int, counts: bool) -> None:
    pool = Epochs(1)
    pool.verdict = lambda _policy, _key, _body: (START_S + start_s, START_S + end_s)
    pool.authors[0].prove()
    pool.authors[0].work(seconds=10)
    assert leaf_of(pool.settle(), 0).uptime_s == (10 if counts else 0)


def test_work_without_with_refused_or_with_anothers_evidence_earns_nothing() -> None:
    pool = Epochs(2)
    good, bad = pool.authors
    good.prove()
    good.work(evidence=None)
    bad.append(replace(good.records[0].body, quote=b"bad"))
    bad.work(evidence=bad.records[0].hash)
    bad.work(evidence=good.records[0].hash)
    settlement = pool.settle()
    assert [leaf_of(settlement, i).uptime_s for i in (0, 1)] == [0, 0]
    assert settlement.payload.total_earned_nanoton == 0


def test_evidence_of_an_earlier_epoch_still_covers() -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    author.prove()
    pool.settle()
    author.work(seconds=10)
    assert leaf_of(pool.settle(), 0).uptime_s == 10
    assert [w.record for w in pool.base.reading(key(0).public).evidence] == [author.evidence_hash]


def test_kept_evidence_is_bounded_and_expired_one_is_forgotten() -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    for i in range(EVIDENCE_KEPT_MAX + 3):
        author.prove(START_S - 1000 + i)
    pool.settle()
    kept = pool.base.reading(key(0).public).evidence
    assert [w.record for w in kept] == [r.hash for r in author.records[-EVIDENCE_KEPT_MAX:]]
    author.end_s = START_S + 90_000
    author.work()
    pool.settle()
    assert pool.base.reading(key(0).public).evidence == ()


def test_collateral_that_is_missing_delays_the_tally_and_says_what_to_fetch() -> None:
    pool = Epochs(1)

    def missing(_policy: PoolPolicy, _key: bytes, body: EvidenceBody) -> tuple[int, int] | None:
        raise DataUnavailableError("collateral", frozenset({body.collateral_digest}))

    pool.verdict = missing
    pool.authors[0].prove()
    with pytest.raises(DataUnavailableError) as caught:
        pool.settle()
    assert caught.value.missing == {bytes(32)}
