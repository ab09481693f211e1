"""What the journal lets go of as epochs settle, and what it keeps."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from journal_scene import OWN, attest_evidence, settle_at_heads
from pool_fixture import START_S, Author, key

from agent import retention
from agent.journal import Journal, create_journal, open_journal
from agent.retention import EPOCHS_KEPT
from gossip.settlement import Base, EvidenceWindow, Reading, Settlement, cut_root


def resealed(settlement: Settlement, readings: Mapping[bytes, Reading]) -> Settlement:
    """The settlement with these readings in place of its own."""
    payload = replace(settlement.payload, cut_root=cut_root(readings))
    return replace(settlement, readings=readings, payload=payload)


def sweep(kept: Journal) -> int:
    """Prune the journal; how many slices it took."""
    after, slices = kept.prune(b""), 1
    while after is not None:
        after, slices = kept.prune(after), slices + 1
    return slices


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


class Life:
    """Epochs of one participant and the owner of the journal, each with a new piece of evidence."""

    def __init__(self, kept: Journal, *, first_stays: bool = False) -> None:
        self.journal = kept
        self.first_stays = first_stays
        self.authors = [Author(0), Author(1)]
        self.base = Base()
        self.epoch = 0

    def settle(self, *, dead: bool = False) -> Settlement:
        """One more epoch: evidence over collateral of its own, a work window, the settlement of both."""
        self.epoch += 1
        body = b"collateral %d" % self.epoch
        self.journal.keep_attachment(digest(body), body)
        for author in self.authors:
            attest_evidence(author, body, anchor_time_s=START_S + self.epoch)
            author.work()
        self.journal.append(self.authors[1].records[-2:])
        for record in self.authors[0].records[-2:]:
            self.journal.append_own(record)
        settlement = settle_at_heads(self.authors, self.epoch, self.base)
        settlement = self._with_readings(settlement, dead=dead)
        self.journal.keep_landed(settlement)
        self.base = settlement.base()
        return settlement

    def settle_nothing(self) -> None:
        """One more epoch in which no log grows."""
        self.epoch += 1
        settlement = settle_at_heads(self.authors[:1], self.epoch, Base())
        settlement = resealed(settlement, self.base.readings)
        self.journal.keep_landed(settlement)
        self.base = settlement.base()

    def _with_readings(self, settlement: Settlement, *, dead: bool) -> Settlement:
        """The first evidence of each log stays in force, or none is; with `dead`, both logs ended."""
        readings = {
            key(author.i).public: replace(
                settlement.readings[key(author.i).public],
                dead=dead,
                evidence=(
                    EvidenceWindow(
                        record=author.records[0].hash, from_s=0, until_s=1 << 32, machine=bytes(32), tokens_per_s=1
                    ),
                )[: self.first_stays],
            )
            for author in self.authors
        }
        return resealed(settlement, readings)

    def held(self) -> list[int]:
        """The epochs whose collateral is kept, after a sweep."""
        sweep(self.journal)
        held = [self.journal.attachment(digest(b"collateral %d" % e)) is not None for e in range(1, self.epoch + 1)]
        return [epoch for epoch, is_held in enumerate(held, 1) if is_held]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Journal]:
    create_journal(tmp_path / "journal.sqlite", **OWN)
    with closing(open_journal(tmp_path / "journal.sqlite", **OWN)) as opened:
        yield opened


def test_attachments_go_with_the_last_record_that_names_them(kept: Journal) -> None:
    life = Life(kept)
    for _ in range(EPOCHS_KEPT + 4):
        life.settle()
    # The oldest settlement kept is that of epoch 5; the journal holds what follows the one before it.
    assert life.held() == list(range(5, EPOCHS_KEPT + 5))


def test_evidence_in_force_keeps_what_it_names(kept: Journal) -> None:
    life = Life(kept, first_stays=True)
    for _ in range(EPOCHS_KEPT + 4):
        life.settle()
    assert life.held() == [1, *range(5, EPOCHS_KEPT + 5)]
    life.first_stays = False
    life.settle()
    assert life.held() == list(range(6, EPOCHS_KEPT + 6))


def test_what_nobody_names_yet_is_kept_a_while(kept: Journal) -> None:
    life = Life(kept)
    for _ in range(3):
        life.settle()
    kept.keep_attachment(digest(b"new"), b"new")
    for _ in range(EPOCHS_KEPT - 1):
        life.settle()
        sweep(kept)
        assert kept.attachment(digest(b"new")) == b"new"
    life.settle()
    sweep(kept)
    assert kept.attachment(digest(b"new")) is None


def test_what_is_kept_again_is_not_pruned_before_its_record_comes(kept: Journal) -> None:
    life = Life(kept)
    for _ in range(EPOCHS_KEPT):
        life.settle()
        kept.keep_attachment(digest(b"old"), b"old")
    for _ in range(EPOCHS_KEPT - 1):
        life.settle()
    sweep(kept)
    assert kept.attachment(digest(b"old")) == b"old"


def test_a_slice_looks_at_no_more_than_a_bound_and_slices_leave_nothing_old(
    kept: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_MAX", 2)
    old = [digest(b"%d" % i) for i in range(5)]
    for each in old:
        kept.keep_attachment(each, b"")
    life = Life(kept)
    for _ in range(EPOCHS_KEPT - 1):
        life.settle_nothing()
    assert sweep(kept) == 4, "nothing is old: it is looked at, and stays"
    kept.keep_attachment(digest(b"new"), b"new")
    life.settle_nothing()
    left, after = [], b""
    while (seen := kept.prune(after)) is not None:
        after = seen
        left.append(sum(1 for (each,) in kept._read("SELECT digest FROM attachments") if each in old))
    assert sorted(left, reverse=True) == left
    assert all(before - now <= 2 for before, now in itertools.pairwise([5, *left]))
    assert left[-1] == 0
    assert kept.attachment(digest(b"new")) == b"new"


def test_nothing_is_pruned_before_anything_settled(kept: Journal) -> None:
    kept.keep_attachment(digest(b"body"), b"body")
    sweep(kept)
    assert kept.attachment(digest(b"body")) == b"body"


def test_a_log_that_ended_is_forgotten_but_for_the_own_one(kept: Journal) -> None:
    life = Life(kept)
    life.settle()
    life.settle(dead=True)
    late = [author.work() for author in life.authors]  # signed after the end: these never count
    kept.append_own(late[0])
    kept.append([late[1]])
    assert len(list(kept.records(key(1).public, 1, 1 << 62))) == len(life.authors[1].records)
    for _ in range(EPOCHS_KEPT):
        life.settle_nothing()
    assert list(kept.records(key(1).public, 1, 1 << 62)) == []
    assert list(kept.records(key(0).public, late[0].seq, late[0].seq)) == [late[0].wire]
