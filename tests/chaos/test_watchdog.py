"""The judge of real pools: it passes what an honest pool settles, and finds each thing that must not be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from devnet_audit import Auditor
from devnet_history import end_s, landing
from epochs import Epochs, leaf_of, observe_all
from pool_fixture import START_S, key

from gossip.messages import Observation
from gossip.records import Record
from gossip.settlement import Base, Settlement
from tests.chaos.books import LEVEL_S, Watchdog
from tests.chaos.errors import ViolationError


class Recomputed:
    """An auditor who agrees with whatever landed; only what the watchdog itself looks at is judged here."""

    configs = ()

    def __init__(self, pool: Epochs) -> None:
        self._pool = pool
        self.participants = pool.participants
        self.base = Base()
        self.forked: set[bytes] = set()
        self.settlements: dict[bytes, Settlement] = {}
        self.observed: dict[int, list[Observation]] = {}
        self.hidden: set[int] = set()
        """Numbers of records of the first log that stand nowhere."""

    @property
    def records(self) -> dict[bytes, dict[int, Record]]:
        found = {key(author.i).public: {r.seq: r for r in author.records} for author in self._pool.authors}
        for seq in self.hidden:
            del found[key(0).public][seq]
        return found

    def read(self) -> None:
        pass

    def observations(self, epoch: int) -> list[Observation]:
        return self.observed[epoch]

    def follow(self, epoch: int, payload_hash: bytes, books: Mapping[str, Any]) -> Settlement:
        settlement = self.settlements[payload_hash]
        self.base = settlement.base()
        return settlement


class Scene:
    """A pool of two that settles, and its watchdog; `change` may falsify what landed."""

    def __init__(self) -> None:
        self.pool = Epochs(2)
        self.auditor = Recomputed(self.pool)
        self.watchdog = Watchdog(cast(Auditor, self.auditor))
        self.landings: list[Any] = []
        for author in self.pool.authors:
            author.prove()

    def settle(self, change: Callable[[Settlement], Settlement] = lambda settlement: settlement) -> None:
        for author in self.pool.authors:
            author.work(tokens=1000)
        base = self.pool.base
        honest = self.pool.settle()
        self.auditor.observed[honest.payload.epoch] = observe_all(self.pool.logs, base, 2)
        landed = change(honest)
        self.auditor.settlements[landed.payload_hash] = landed
        self.landings.append(landing(landed))
        self.watchdog.follow(self.landings)


def changed_leaf(settlement: Settlement, **changes: int) -> Settlement:
    """The same, but for the leaf of participant 0."""
    honest = leaf_of(settlement, 0)
    leaves = tuple(
        dataclasses.replace(honest, **cast(Any, changes)) if leaf is honest else leaf for leaf in settlement.leaves
    )
    return dataclasses.replace(settlement, leaves=leaves)


def not_counted(settlement: Settlement, base: Base) -> Settlement:
    """The same, but nothing of the first log is counted and credited."""
    first = leaf_of(settlement, 0)
    payload = dataclasses.replace(
        settlement.payload,
        tokens=settlement.payload.tokens - first.tokens,
        tasks=settlement.payload.tasks - first.tasks,
        total_score=settlement.payload.total_score - first.score,
    )
    changed = changed_leaf(settlement, tokens=0, tasks=0, score=0, uptime_s=0)
    readings = {**settlement.readings, key(0).public: base.reading(key(0).public)}
    return dataclasses.replace(changed, payload=payload, readings=readings)


def test_what_an_honest_pool_settles_is_passed() -> None:
    scene = Scene()
    for epoch in range(1, 4):
        scene.watchdog.owe(START_S + 5)
        scene.settle()
        assert len(scene.watchdog.settlements) == epoch


def test_leaves_that_do_not_sum_up_are_found() -> None:
    scene = Scene()
    scene.settle()
    with pytest.raises(ViolationError, match="tokens do not sum up"):
        scene.settle(lambda s: changed_leaf(s, tokens=s.leaves[0].tokens + 1))


def test_time_that_no_window_holds_is_found() -> None:
    scene = Scene()
    with pytest.raises(ViolationError, match="more than its windows hold"):
        scene.settle(lambda s: changed_leaf(s, uptime_s=s.leaves[0].uptime_s + 1))


def test_records_that_everybody_saw_and_nobody_counted_are_found() -> None:
    scene = Scene()
    scene.settle()
    base = scene.auditor.base
    with pytest.raises(ViolationError, match="everybody saw more"):
        scene.settle(lambda s: not_counted(s, base))


def test_a_cut_that_leaves_a_record_out_or_stands_on_none_is_found() -> None:
    scene = Scene()
    scene.settle()
    author = scene.pool.authors[0]
    author.records[-1] = dataclasses.replace(author.records[-1], prev_hash=bytes(32))
    scene.auditor.base = Base()
    with pytest.raises(ViolationError, match="does not extend the one before"):
        Watchdog(cast(Auditor, scene.auditor)).follow(scene.landings)


def test_two_records_of_one_number_are_found_but_for_a_key_that_two_use() -> None:
    scene = Scene()
    scene.settle()
    scene.auditor.forked = {key(1).public}
    scene.watchdog.shared = {key(1).public}
    scene.settle()
    scene.watchdog.shared = set()
    with pytest.raises(ViolationError, match="two records of one number"):
        scene.settle()


def test_what_is_owed_and_not_counted_in_time_is_found() -> None:
    scene = Scene()
    scene.settle()
    scene.watchdog.owe(end_s(2) - LEVEL_S)
    assert not scene.watchdog.is_due(end_s(2) - 1)
    assert scene.watchdog.is_due(end_s(2))

    def overlook(settlement: Settlement) -> Settlement:
        scene.pool.authors[0].work(seconds=1)  # known by now, of long ago, and in no cut
        return settlement

    with pytest.raises(ViolationError, match="lost, or too late"):
        scene.settle(overlook)
