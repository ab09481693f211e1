"""Evidence in the tally: work counts inside what it covers, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from epochs import Epochs, leaf_of, policy_work
from pool_fixture import EPOCH_S, START_S, evidence, key, participant, verdict, work

from contracts.model import ParticipantStatus
from gossip.coverage import Approval
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
    pool.verdict = lambda _policy, node_key, _body: Approval(
        from_s=START_S + start_s, until_s=START_S + end_s, machine=node_key
    )
    pool.authors[0].prove()
    pool.authors[0].work(seconds=10)
    assert leaf_of(pool.settle(), 0).uptime_s == (10 if counts else 0)


def test_work_without_with_refused_or_with_anothers_evidence_earns_nothing() -> None:
    pool = Epochs(2)
    good, bad = pool.authors
    good.prove()
    good.append(replace(work(good.end_s, good.end_s + 10, 1000, bytes(32)), evidence=None))
    good.end_s += 10
    bad.append(replace(good.records[0].body, quote=b"bad"))
    for named in (bad.records[0].hash, good.records[0].hash):
        bad.evidence_hash = named
        bad.work()
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


@pytest.mark.parametrize("is_taken_up", [False, True], ids=["by its owner", "by another"])
def test_who_takes_up_a_free_node_key_does_not_get_the_evidence_with_it(is_taken_up: bool) -> None:
    """A node key that was replaced is free, and may be known to a thief; its machine still stands with the owner."""
    pool = Epochs(1)
    author = pool.authors[0]
    author.prove()
    pool.settle()
    if is_taken_up:
        entry = replace(participant(0), address=participant(9).address, joined_s=pool.frame().start_s)
        pool.participants = (entry,)
    author.work(seconds=10)
    credit = pool.settle().credits[key(0).public]
    assert credit.uptime_s == (0 if is_taken_up else 10)
    assert len(pool.base.reading(key(0).public).evidence) == (0 if is_taken_up else 1)
    pool.participants = ()
    pool.settle()
    assert pool.base.reading(key(0).public).evidence == (), "nobody has it any more"


def test_who_comes_while_an_epoch_is_finalized_keeps_the_evidence_made_since() -> None:
    pool = Epochs(1)
    author = pool.authors[0]
    came_s = pool.frame().end_s
    pool.participants = (replace(participant(0), joined_s=came_s),)
    author.prove(came_s)
    pool.settle()
    assert pool.frame().start_s == came_s
    author.end_s = came_s
    author.work(seconds=10)
    assert leaf_of(pool.settle(), 0).uptime_s == 10


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

    def missing(_policy: PoolPolicy, _key: bytes, body: EvidenceBody) -> Approval | None:
        raise DataUnavailableError("collateral", frozenset({body.collateral_digest}))

    pool.verdict = missing
    pool.authors[0].prove()
    with pytest.raises(DataUnavailableError) as caught:
        pool.settle()
    assert caught.value.missing == {bytes(32)}


def on_machine(pool: Epochs, i: int, name: bytes, time_s: int = START_S - 1000) -> None:
    """Let participant `i` prove that it runs on the machine of this name, and work for ten seconds."""
    author = pool.authors[i]
    author.evidence_hash = author.append(replace(evidence(time_s), quote=b"on " + name)).hash
    author.work(seconds=10)


def uptimes(pool: Epochs, n: int) -> list[int]:
    settlement = pool.settle()
    return [leaf_of(settlement, i).uptime_s for i in range(n)]


def test_one_machine_earns_once_and_the_earlier_evidence_wins() -> None:
    pool = Epochs(3)
    on_machine(pool, 0, b"a", START_S - 10)
    on_machine(pool, 1, b"a", START_S - 11)
    on_machine(pool, 2, b"b")
    assert uptimes(pool, 3) == [0, 10, 10]
    assert pool.base.reading(key(0).public).evidence == ()


def test_whoever_holds_a_place_keeps_it_against_older_anchors() -> None:
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 10)
    pool.authors[1].prove()
    assert uptimes(pool, 2) == [10, 0]
    on_machine(pool, 1, b"a", START_S - 1000)
    on_machine(pool, 0, b"a", START_S + 10)
    assert uptimes(pool, 2) == [10, 0]


def test_a_place_is_free_once_its_evidence_expired() -> None:
    pool = Epochs(2)
    on_machine(pool, 0, b"a")
    pool.settle()
    pool.authors[0].end_s = pool.authors[1].end_s = START_S + 90_000
    pool.authors[0].work(seconds=10)
    pool.settle()
    on_machine(pool, 1, b"a", START_S + 90_000)
    assert uptimes(pool, 2) == [0, 10]


def test_the_policy_says_how_many_nodes_share_a_machine() -> None:
    for nodes_max in (1, 2, 3):
        pool = Epochs(3)
        pool.policy = replace(pool.policy, work=policy_work(pool.policy, machine_nodes_max=nodes_max))
        for i in range(3):
            on_machine(pool, i, b"a", START_S - 10 + i)
        assert uptimes(pool, 3) == [10] * nodes_max + [0] * (3 - nodes_max)


def test_who_is_barred_takes_no_place() -> None:
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 20)
    on_machine(pool, 1, b"a", START_S - 10)
    pool.participants = (replace(participant(0), status=ParticipantStatus.SUSPENDED), participant(1))
    assert uptimes(pool, 2) == [0, 10]


def test_a_former_tenant_holds_no_place() -> None:
    """Neither by evidence that ran out, nor by having worked there once."""
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 86_350)
    pool.settle()
    assert pool.base.reading(key(0).public).evidence, "a late window may still name it"
    on_machine(pool, 1, b"a", START_S - 10)
    assert uptimes(pool, 2) == [0, 10]


@pytest.mark.parametrize("age_s", [9, 5000])
def test_evidence_that_claims_nothing_is_not_held_against_who_has_the_place(age_s: int) -> None:
    """It would be kept by the settlement, and its anchor, dated back, then be the first of those who are known."""
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 10)
    pool.authors[1].append(replace(evidence(START_S - age_s), quote=b"on a"))
    backdated = pool.authors[1].records[-1].hash
    pool.authors[1].append(replace(evidence(START_S - 1), quote=b"on b"))
    assert uptimes(pool, 2) == [10, 0]
    assert [w.machine.strip() for w in pool.base.reading(key(1).public).evidence] == [b"on b"]
    pool.authors[0].work(seconds=10)
    pool.authors[1].evidence_hash = backdated
    pool.authors[1].work(seconds=10)
    assert uptimes(pool, 2) == [10, 0]


def test_a_late_window_of_a_former_tenant_takes_nothing_from_who_is_there_now() -> None:
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 86_350)
    pool.settle()
    pool.authors[1].end_s = START_S + 60
    on_machine(pool, 1, b"a", START_S + 60)
    assert uptimes(pool, 2) == [0, 10]
    for author in pool.authors:
        author.work(seconds=10)
    assert uptimes(pool, 2) == [0, 10]


def test_evidence_that_is_dead_already_blocks_nobody() -> None:
    pool = Epochs(2)
    pool.authors[0].evidence_hash = (
        pool.authors[0].append(replace(evidence(START_S - 200_000), quote=b"on " + b"a")).hash
    )
    on_machine(pool, 1, b"a", START_S - 10)
    assert uptimes(pool, 2) == [0, 10]


def test_a_participant_without_work_holds_no_machine_against_those_who_work() -> None:
    pool = Epochs(4)
    for name in (b"a", b"b", b"c"):
        pool.authors[0].append(replace(evidence(START_S - 1000), quote=b"on " + name))
    for i, name in ((1, b"a"), (2, b"b"), (3, b"c")):
        on_machine(pool, i, name, START_S - 10)
    assert uptimes(pool, 4) == [0, 10, 10, 10]


def test_a_participant_without_work_holds_its_machine_against_others_without() -> None:
    pool = Epochs(2)
    on_machine(pool, 0, b"a", START_S - 10)
    pool.settle()
    pool.authors[1].append(replace(evidence(START_S - 1000), quote=b"on a"))
    pool.settle()
    assert pool.base.reading(key(0).public).evidence
    assert not pool.base.reading(key(1).public).evidence


def test_evidence_over_an_old_anchor_is_void_unseen() -> None:
    pool = Epochs(1)
    pool.policy = replace(pool.policy, work=policy_work(pool.policy, anchor_age_max_s=2000))

    def judge(_policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        if body.anchor_time_s < START_S - 1000:
            raise DataUnavailableError("a block that no server knows any more", frozenset({body.anchor_root_hash}))
        return verdict(_policy, node_key, body)

    pool.verdict = judge
    pool.authors[0].prove(START_S + EPOCH_S - 2001)
    pool.authors[0].work(seconds=10)
    assert leaf_of(pool.settle(), 0).uptime_s == 0


def test_all_that_is_missing_is_named_at_once() -> None:
    pool = Epochs(3)

    def missing(_policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        raise DataUnavailableError("anchor", frozenset({(node_key, body.anchor_time_s)}))

    pool.verdict = missing
    for author in pool.authors:
        author.prove(START_S - 2)
        author.prove(START_S - 1)
    with pytest.raises(DataUnavailableError) as caught:
        pool.settle()
    assert len(caught.value.missing) == 6
