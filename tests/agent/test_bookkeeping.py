"""The books of a host: what a settlement leaves in the ledger, in the status, and among the receipts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from epochs import Epochs
from pool_fixture import POOL, key, participant, policy
from prometheus_client import generate_latest
from trio.testing import MockClock

import agent.bookkeeping
from agent.bookkeeping import Bookkeeping
from agent.earnings.report import RESTART_REASON
from agent.journal import Journal, create_journal, open_journal
from agent.ledger import open_ledger
from agent.ledger_reader import read_ledger
from agent.metrics.registry import Metrics
from agent.pending import decode_pending
from agent.receipts import Receipts
from contracts.errors import ChainUnavailableError
from contracts.model import Address, Participant
from gossip.policy import PoolPolicy
from gossip.receipts import make_receipt
from gossip.records import ReceiptBody
from gossip.settlement import Settlement, encode_checkpoint, verify_checkpoint

GATEWAY = key(77)


def demanding(source: str = "engine") -> PoolPolicy:
    rules = policy()
    receipts = msgspec.structs.replace(rules.receipts, signers=(GATEWAY.public.hex(),))
    return replace(rules, receipts=receipts, work=msgspec.structs.replace(rules.work, source=source))


@dataclass
class Scene:
    """Participant 0 keeps its books while a pool of two settles."""

    journal: Journal
    path: Path
    policy: PoolPolicy = field(default_factory=demanding)
    entry: Participant = field(default_factory=lambda: participant(0))

    def __post_init__(self) -> None:
        self.pool = Epochs(2, self.policy)
        self.policies = {self.policy.hash: self.policy}
        self.metrics = Metrics(version="0", process=False)
        self.receipts = Receipts(
            POOL, key(0).public, lambda: self.policy, self.journal, self.metrics, lambda: self.pool.authors[0].end_s
        )
        self.ledger = open_ledger(self.path / "ledger.sqlite", node_key=key(0).public, pool=POOL)
        self.books = Bookkeeping(key(0).public, POOL, self.journal, self.ledger, self.receipts, self.metrics, 0.2)
        self.settling: Any = SimpleNamespace(
            frame=None, settled_s=lambda epoch: 7, view=SimpleNamespace(block=object(), rewards=None)
        )

    def restart(self, landed: Settlement) -> None:
        """Start anew from what is on disk."""
        self.receipts = Receipts(
            POOL, key(0).public, lambda: self.policy, self.journal, self.metrics, lambda: self.pool.authors[0].end_s
        )
        self.books = Bookkeeping(key(0).public, POOL, self.journal, self.ledger, self.receipts, self.metrics, 0.2)
        self.books.begin(landed, self.entry, self.settling)

    def work(self, *, receipts: int) -> None:
        """Each participant works for 1000 tokens, and receipts for so many come to participant 0."""
        for author in self.pool.authors:
            if not author.records:
                author.prove()
            author.work(tokens=1000)
        author = self.pool.authors[0]
        if receipts:
            number = b"%d" % len(author.records)
            time_s = author.end_s - 1
            signed = make_receipt(GATEWAY, POOL, key(0).public, job_id=number, time_s=time_s, tokens=receipts)
            author.append(ReceiptBody((signed,)))

    def settle(self) -> Settlement:
        head = self.journal.own_head()
        for record in self.pool.authors[0].records[head.seq if head is not None else 0 :]:
            self.journal.append_own(record)
        settlement = self.pool.settle()
        self.books.note(settlement, self.entry, self.settling)
        return settlement

    async def keep(self) -> None:
        """Work off what waits."""
        with trio.move_on_after(1):
            await self.books.run(None, self.settling, self.policies.get)  # type: ignore[arg-type]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    async def inline(function: Any, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    path = tmp_path / "journal.sqlite"
    create_journal(path, node_key=key(0).public, pool=POOL)
    journal = open_journal(path, node_key=key(0).public, pool=POOL)
    scene = Scene(journal, tmp_path)
    yield scene
    scene.ledger.close()
    journal.close()


async def test_every_settlement_is_a_row_and_the_last_one_is_shown(scene: Scene, autojump_clock: MockClock) -> None:
    scene.work(receipts=1000)
    first = scene.settle()
    scene.work(receipts=1000)
    second = scene.settle()
    await scene.keep()
    with read_ledger(scene.path / "ledger.sqlite", POOL) as reader:
        rows = reader.epochs()
    earned = [
        leaf.earned_nanoton for s in (first, second) for leaf in s.leaves if leaf.participant == scene.entry.address
    ]
    assert [(row.epoch, row.cumulative_nanoton, row.settled_s) for row in rows] == [
        (1, earned[0], 7),
        (2, earned[1], 7),
    ]
    assert rows[1].credit == second.credits[key(0).public]
    assert scene.books.own is not None
    assert (scene.books.own["epoch"], scene.books.own["tokens"], scene.books.own["reasons"]) == (2, 1000, [])


async def test_receipts_that_lag_behind_the_meter_raise_an_alarm(scene: Scene, autojump_clock: MockClock) -> None:
    for _ in range(3):
        scene.work(receipts=500)
        scene.settle()
    await scene.keep()
    found = scene.books.reconciliation
    assert found is not None
    assert (found.epochs, found.metered, found.receipts, found.paid) == (3, 3000, 1500, None)
    assert found.alarm is not None
    assert "work without receipts" in found.alarm


async def test_an_epoch_that_was_not_counted_here_begins_the_comparison_anew(
    scene: Scene, autojump_clock: MockClock
) -> None:
    for _ in range(2):
        scene.work(receipts=0)
        scene.settle()
    scene.work(receipts=0)
    settlement = scene.pool.settle()
    scene.books.note(replace(settlement, credits={}), scene.entry, scene.settling)
    scene.work(receipts=1000)
    scene.settle()
    await scene.keep()
    found = scene.books.reconciliation
    assert found is not None
    assert (found.epoch, found.epochs, found.metered, found.receipts) == (4, 1, 1000, 1000)


async def test_an_alarm_ends_with_the_comparison_that_raised_it(scene: Scene, autojump_clock: MockClock) -> None:
    for _ in range(3):
        scene.work(receipts=100)
        scene.settle()
    await scene.keep()
    assert scene.books.reconciliation is not None
    assert scene.books.reconciliation.alarm
    scene.work(receipts=1000)
    settlement = scene.pool.settle()
    scene.books.note(replace(settlement, credits={}), scene.entry, scene.settling)
    await scene.keep()
    assert scene.books.reconciliation is None
    served = generate_latest(scene.metrics.registry)
    assert b"gpupool_work_disagreement_ratio" not in served, "nothing is compared"
    assert b'gpupool_epochs_settled_total{share="some"} 4.0' in served


async def test_the_books_are_kept_by_the_policy_of_the_epoch(scene: Scene, autojump_clock: MockClock) -> None:
    scene.work(receipts=1000)
    scene.settle()
    scene.policies.clear()  # the document of that epoch is not here: what is in force now says nothing about it
    await scene.keep()
    assert scene.books.reconciliation is None


async def test_a_receipt_that_stands_twice_in_the_log_is_counted_once(scene: Scene, autojump_clock: MockClock) -> None:
    scene.work(receipts=600)
    author = scene.pool.authors[0]
    author.append(author.records[-1].body)
    scene.settle()
    await scene.keep()
    assert scene.books.reconciliation is not None
    assert scene.books.reconciliation.receipts == 600


@pytest.mark.parametrize("killed", [False, True], ids=["booked", "killed before the books"])
async def test_a_receipt_of_the_open_window_counts_in_the_next_epoch(
    scene: Scene, autojump_clock: MockClock, killed: bool
) -> None:
    scene.work(receipts=0)
    author = scene.pool.authors[0]
    early = make_receipt(GATEWAY, POOL, key(0).public, job_id=b"busy", time_s=author.end_s + 3, tokens=777)
    author.append(ReceiptBody((early,)))
    landed = scene.settle()
    if killed:
        scene.restart(landed)
        await scene.receipts.settled(landed.readings[key(0).public])
    else:
        await scene.keep()
    waiting = scene.journal.next_window()
    assert waiting is not None
    body = decode_pending(waiting[1])
    assert body == ReceiptBody((early,))
    assert scene.receipts.tokens == 777
    author.append(body)  # as `agent.measuring` does
    scene.journal.drop_window(waiting[0])
    scene.work(receipts=0)
    scene.settle()
    await scene.keep()
    assert scene.journal.windows_waiting() == 0
    assert scene.books.reconciliation is not None
    assert scene.books.reconciliation.receipts == 777


async def test_what_the_chain_paid_is_compared_by_differences(
    scene: Scene, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.policies[scene.policy.hash] = demanding("cocoon")
    scene.entry = replace(scene.entry, worker=Address(0, b"\x05" * 32))
    said: list[int | None] = [5000, 6000, None, 9000, 9500]

    async def paid(*_: object) -> int:
        await trio.lowlevel.checkpoint()
        tokens = said.pop(0)
        if tokens is None:
            raise ChainUnavailableError("away")
        return tokens

    monkeypatch.setattr(agent.bookkeeping, "paid_tokens", paid)
    for _ in range(5):
        scene.work(receipts=1000)
        scene.settle()
    await scene.keep()
    found = scene.books.reconciliation
    assert found is not None
    assert found.paid == 1000 + 500, "the first reading, and that after a hole, are where counting begins"
    assert found.epochs == 2


async def test_a_start_shows_the_last_settlement_that_is_known(scene: Scene, autojump_clock: MockClock) -> None:
    scene.work(receipts=0)
    settlement = scene.settle()
    after = Bookkeeping(key(0).public, POOL, scene.journal, scene.ledger, scene.receipts, scene.metrics, 0.2)
    after.begin(None, scene.entry, scene.settling)
    assert after.own is None
    kept = verify_checkpoint(encode_checkpoint(settlement), settlement.payload_hash)
    after.begin(kept, scene.entry, scene.settling)
    assert after.own is not None
    assert (after.own["epoch"], after.own["tokens"], after.own["reasons"]) == (1, 1000, [RESTART_REASON])
    with read_ledger(scene.path / "ledger.sqlite", POOL) as reader:
        assert [row.epoch for row in reader.epochs()] == [1]
    await scene.keep()
    scene.restart(kept)
    assert scene.books.own is not None
    assert scene.books.own["reasons"] == [], "a row that says how it was counted takes the place of one that does not"
