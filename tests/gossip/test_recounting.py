"""The own part of a settlement that others computed: counted again where it follows from the own log, else unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from epochs import Epochs, leaf_of, policy_receipts, policy_work
from pool_fixture import Pool, fill, key, log_book, participant, policy, write_work

from contracts.model import Address
from gossip.coverage import Verdict
from gossip.epoch_events import Anchor, CheckpointArrived, Settled
from gossip.errors import DataUnavailableError
from gossip.log_chain import LogBook
from gossip.policy import PoolPolicy
from gossip.recounting import with_own_part
from gossip.settlement import Base, Settlement, encode_checkpoint, verify_checkpoint
from gossip.tally import EpochFrame

OWN = key(0).public


def worked(pool: Epochs) -> None:
    for author in pool.authors:
        if not author.records:
            author.prove()
        author.work(tokens=1000)


def settled(pool: Epochs, **said: object) -> tuple[Settlement, EpochFrame, Base, LogBook]:
    """The next settlement, its frame, its base, and a log book as before it."""
    frame, base, logs = pool.frame(), pool.base, log_book(pool.n)
    for author in pool.authors:
        before = base.reading(key(author.i).public)
        logs.rebase(key(author.i).public, before.head, before.work_end_s)
        fill(logs, author.records[before.head.seq :])
    return pool.settle(**said), frame, base, logs  # type: ignore[arg-type]


def of_others(settlement: Settlement) -> Settlement:
    """The same as a peer serves it."""
    return verify_checkpoint(encode_checkpoint(settlement), settlement.payload_hash)


def test_a_participant_that_lost_the_race_knows_how_it_was_counted() -> None:
    pool = Pool(4)
    for _ in range(2):
        write_work(pool)
        pool.down, slow = {3}, pool.agents[3]
        while pool.chain.landed.epoch == slow.machine.base.epoch:
            slow.advance(pool.chain)  # it sees the chain, and hears nobody
            pool.step()
        pool.down = set()
        pool.step()
        served = of_others(pool.agents[0].settled[-1])
        assert not served.credits
        known = [a.settlement for a in slow.machine.handle(CheckpointArrived(served)) if isinstance(a, Settled)]
        assert [each.credits for each in known] == [{key(3).public: pool.agents[0].settled[-1].credits[key(3).public]}]
    assert slow.machine.base.payload_hash == pool.chain.landed.payload_hash


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (policy(), {}),
        (policy(), {"witnessed_s": 4}),
        (replace(policy(), receipts=policy_receipts(policy(), ceiling="worker-contract")), {"worker_tokens": None}),
        (replace(policy(), work=policy_work(policy(), tokens_per_s_max=1)), {}),
    ],
    ids=["in full", "seen for less", "by worker contract", "capped"],
)
def test_the_steps_are_those_of_the_tally(rules: PoolPolicy, said: dict[str, object]) -> None:
    pool = Epochs(2, rules)
    pool.participants = tuple(replace(each, worker=Address(0, bytes([7]) * 32)) for each in pool.participants)
    for paid in (1000, 1700, 9000):
        if "worker_tokens" in said:
            said["worker_tokens"] = [paid, paid]
        worked(pool)
        settlement, frame, base, logs = settled(pool, **said)
        found = with_own_part(of_others(settlement), frame, base, OWN, logs, pool.verdict)
        assert found.credits == {OWN: settlement.credits[OWN]}
        assert (found.payload, found.leaves, found.readings) == (
            settlement.payload,
            settlement.leaves,
            settlement.readings,
        )


def test_what_does_not_give_the_settled_figures_is_not_told() -> None:
    pool = Epochs(2)
    worked(pool)
    settlement, frame, base, logs = settled(pool)
    served = of_others(settlement)
    mine = leaf_of(served, 0)
    others = replace(served, leaves=(replace(mine, tokens=mine.tokens - 1), leaf_of(served, 1)))
    assert not with_own_part(others, frame, base, OWN, logs, pool.verdict).credits


def test_without_its_log_or_its_entry_or_of_another_epoch_it_stays_unknown() -> None:
    pool = Epochs(2)
    worked(pool)
    settlement, frame, base, logs = settled(pool)
    served = of_others(settlement)

    def refuses(_policy: PoolPolicy, _node_key: bytes, _body: object) -> None:
        raise DataUnavailableError("not looked up", frozenset({Anchor(seqno=1, root_hash=bytes(32), time_s=1)}))

    def told(
        frame: EpochFrame = frame, base: Base = base, logs: LogBook = logs, verdict: Verdict = pool.verdict
    ) -> Settlement:
        return with_own_part(served, frame, base, OWN, logs, verdict)

    assert told().credits
    for unknown in (
        told(logs=log_book(2)),
        told(frame=replace(frame, participants=(participant(1),))),
        told(frame=replace(frame, epoch=2)),
        told(base=replace(base, payload_hash=bytes([1]) * 32)),
        told(verdict=refuses),
    ):
        assert unknown is served
