"""Own evidence: made, judged as everybody will judge it, published, renewed in time; an alarm when it cannot be."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from attesting_scene import AGE_S, NODE_KEY, NOW_S, Scene, without_threads
from gpu_forge import GpuForge, report

from agent.attesting import CHECK_INTERVAL_S, OwnEvidence
from agent.journal_file import connect_reading
from attestation.errors import TsmMissingError
from attestation.gpu import encode_gpu_evidence
from attestation.types import ProvidedQuote
from gossip.log_chain import Head
from gossip.node import Node
from gossip.records import EvidenceBody, Record
from gossip.settlement import EvidenceWindow, Reading

__all__ = ["without_threads"]

pytestmark = pytest.mark.usefixtures("without_threads")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@asynccontextmanager
async def renewing(scene: Scene) -> AsyncIterator[Node]:
    """The host at work; `later` lets its time pass."""
    node = scene.node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.attesting.renew, node, scene.chain)
        nursery.start_soon(scene.verdicts.examine, node, scene.chain)
        yield node
        nursery.cancel_scope.cancel()


async def later(scene: Scene, seconds: int = 0) -> None:
    scene.now_s += seconds
    scene.chain.head_seqno += seconds
    await trio.sleep(2 * CHECK_INTERVAL_S)


def published(node: Node) -> list[EvidenceBody]:
    log = node.logs[node.key.public]
    return [record.body for record in reversed(list(log.chain(log.head)))]


async def test_evidence_is_published_and_renewed_when_two_thirds_of_its_time_are_over(
    scene: Scene, autojump_clock: object
) -> None:
    async with renewing(scene) as node:
        await scene.attesting.proven.wait()
        await later(scene, 2 * AGE_S // 3 - 1)
        assert len(published(node)) == 1
        await later(scene, 1)
        assert [body.anchor_time_s for body in published(node)] == [NOW_S, NOW_S + 2 * AGE_S // 3]
        assert scene.attesting.covering(NOW_S, NOW_S + 1) != scene.attesting.covering(scene.now_s, scene.now_s + 1)
        status = scene.attesting.status(NODE_KEY, scene.now_s)
    assert (status["valid"], status["error"], status["alarm"]) == (True, None, None)
    assert status["own"]["measurement"] == "software"


async def test_evidence_says_when_it_begins_but_not_when_it_goes_on(scene: Scene, autojump_clock: object) -> None:
    begun: list[int] = []
    scene.attesting.on_begun = begun.append
    async with renewing(scene) as node:
        await scene.attesting.proven.wait()
        await later(scene, 2 * AGE_S // 3)
        assert len(published(node)) == 2
        assert begun == [NOW_S], "the second piece took over from the first"
        scene.chain.is_up = False
        await later(scene, 2 * AGE_S)
        scene.chain.is_up = True
        await later(scene, 10)
        assert len(published(node)) == 3
    assert len(begun) == 2
    assert begun[1] > NOW_S + AGE_S


async def test_a_failure_raises_the_alarm_before_evidence_runs_out(tmp_path: Path, autojump_clock: object) -> None:
    scene = Scene(tmp_path, quotes=(quotes := Quotes()))
    quotes.platform = scene.platform
    async with renewing(scene):
        await later(scene)
        alarm = scene.attesting.alarm(scene.now_s)
        assert alarm is not None
        assert "work earns nothing: no TDX here" in alarm
        assert TsmMissingError.remedy in alarm
        assert not scene.attesting.proven.is_set()
        quotes.is_broken = False
        await later(scene)
        assert scene.attesting.alarm(scene.now_s) is None
        quotes.is_broken = True
        await later(scene, 2 * AGE_S // 3)
        assert f"work counts for {AGE_S // 3} s more" in str(scene.attesting.alarm(scene.now_s))
        assert scene.attesting.is_valid(scene.now_s)
        assert scene.metrics.registry.get_sample_value("gpupool_evidence_failing") == 1
        await later(scene, AGE_S)
        assert not scene.attesting.is_valid(scene.now_s)
        assert "work earns nothing" in str(scene.attesting.alarm(scene.now_s))


async def test_evidence_that_the_pool_would_refuse_is_not_published(tmp_path: Path, autojump_clock: object) -> None:
    forge = GpuForge.new()

    async def collect(nonce: bytes) -> bytes:
        return encode_gpu_evidence([forge.gpu()])

    scene = Scene(tmp_path, gpus=collect)
    async with renewing(scene) as node:
        await later(scene)
        assert published(node) == []
        assert "made for nonce" in str(scene.attesting.alarm(scene.now_s))


async def test_a_chain_that_stands_still_gives_no_evidence(scene: Scene, autojump_clock: object) -> None:
    scene.now_s += AGE_S + 1
    async with renewing(scene) as node:
        await later(scene)
        assert published(node) == []
        assert "of an anchor of" in str(scene.attesting.alarm(scene.now_s))


async def test_what_the_record_names_is_kept_for_peers(scene: Scene, autojump_clock: object) -> None:
    async with renewing(scene) as node:
        await scene.attesting.proven.wait()
        (body,) = published(node)
    for digest in body.attachments:
        stored = scene.journal.attachment(digest)
        assert stored is not None
        assert hashlib.sha256(stored).digest() == digest


async def test_after_a_start_the_evidence_of_the_log_is_used(scene: Scene, autojump_clock: object) -> None:
    async with renewing(scene) as node:
        await scene.attesting.proven.wait()
        head = node.logs[NODE_KEY].head
    scene.start()
    async with renewing(scene) as node:
        await scene.attesting.proven.wait()
        assert node.logs[NODE_KEY].head == head
        assert scene.attesting.covering(NOW_S, NOW_S + 1) == head.hash


class Quotes:
    """A TDX machine that comes and goes."""

    is_broken = True
    platform: object

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        if self.is_broken:
            raise TsmMissingError("no TDX here")
        return await self.platform.quote(challenge)  # type: ignore[attr-defined]


def test_own_evidence_is_due_at_two_thirds_of_its_time_and_at_once_under_another_policy(scene: Scene) -> None:
    own = OwnEvidence(record=bytes(32), from_s=NOW_S, until_s=NOW_S + AGE_S, policy_hash=scene.policy.hash)
    assert scene.attesting._due_in_s(NOW_S) == 0
    scene.attesting._own = [own]
    assert scene.attesting._due_in_s(NOW_S) == 2 * AGE_S / 3
    scene.policies.turn_to(scene.next_policy.hash)
    assert scene.attesting._due_in_s(NOW_S) == 0
    assert scene.attesting.covering(NOW_S, NOW_S + 1) == own.record, "what is open stays covered by what covered it"


def test_evidence_that_a_settlement_gave_no_place_is_made_anew(scene: Scene) -> None:
    def own(seq: int) -> OwnEvidence:
        return OwnEvidence(
            record=bytes([seq]) * 32, seq=seq, from_s=NOW_S, until_s=NOW_S + AGE_S, policy_hash=scene.policy.hash
        )

    def kept(*seqs: int) -> tuple[EvidenceWindow, ...]:
        return tuple(
            EvidenceWindow(record=bytes([seq]) * 32, from_s=0, until_s=1, machine=bytes(32), tokens_per_s=1)
            for seq in seqs
        )

    settled = Reading(head=Head(5, bytes(32)), evidence=kept(3))
    scene.attesting._own = [own(2), own(3), own(7)]
    scene.attesting._forget_void(settled)
    assert [each.seq for each in scene.attesting._own] == [3, 7], "what is not counted yet stays"
    scene.attesting._own = [own(4)]
    scene.attesting._forget_void(settled)
    assert not scene.attesting.is_valid(NOW_S)
    assert scene.attesting._due_in_s(NOW_S) == 0


class Refusable:
    """A TDX machine whose quotes are over something else while `is_wrong`, so that every pool refuses them."""

    def __init__(self) -> None:
        self.is_wrong = True
        self.asked_s: list[float] = []
        self.platform: Any = None

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        self.asked_s.append(trio.current_time())
        return await self.platform.quote(bytes(64) if self.is_wrong else challenge)

    def waits_s(self) -> list[int]:
        """How long it was waited between two quotes."""
        return [round(after - before) for before, after in itertools.pairwise(self.asked_s)]


DAY_S = 86_400


def refusable(folder: Path, age_s: int = DAY_S) -> tuple[Scene, Refusable]:
    machine = Refusable()
    scene = Scene(folder, age_s, quotes=machine)
    machine.platform = scene.platform
    return scene, machine


def attachments_kept(scene: Scene) -> int:
    with closing(connect_reading(scene.journal_file)) as database:
        return int(database.execute("SELECT count(*) FROM attachments").fetchone()[0])


async def test_evidence_that_is_refused_leaves_nothing_in_the_journal(tmp_path: Path, autojump_clock: object) -> None:
    forge, asked = GpuForge.new(), 0

    async def collect(nonce: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return encode_gpu_evidence([forge.gpu(raw=report(hashlib.sha256(b"%d" % asked).digest()))])

    scene = Scene(tmp_path, gpus=collect)
    async with renewing(scene) as node:
        await trio.sleep(1200)
        assert published(node) == []
    assert asked > 5
    assert attachments_kept(scene) == 0


async def test_what_evidence_names_is_durable_before_its_record(
    scene: Scene, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_own, held = scene.journal.append_own, []

    def append(record: Record, window: int | None = None) -> None:
        held.extend(scene.journal.attachment(digest) for digest in record.body.attachments)
        append_own(record, window)

    monkeypatch.setattr(scene.journal, "append_own", append)
    async with renewing(scene):
        await scene.attesting.proven.wait()
    assert held
    assert None not in held


async def test_after_refusals_the_waits_double_up_to_five_minutes(
    tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    scene, machine = refusable(tmp_path)
    async with renewing(scene) as node:
        await trio.sleep(1250)
        assert machine.waits_s() == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert "; next try within 300 s" in str(scene.attesting.alarm(scene.now_s))
        assert scene.metrics.registry.get_sample_value("gpupool_evidence_failing") == 1
        assert not scene.attesting.proven.is_set()
        machine.is_wrong = False
        with trio.fail_after(301):
            await scene.attesting.proven.wait()
        assert len(published(node)) == 1
        assert scene.attesting.alarm(scene.now_s) is None
        machine.is_wrong = True
        machine.asked_s.clear()
        await later(scene, 2 * DAY_S // 3)
        await later(scene)
        assert machine.waits_s()[:1] == [5], "success made the waits short again"
    said = [each.message.rpartition("; ")[2] for each in caplog.records if "no evidence can be made" in each.message]
    assert said[:7] == [f"next try within {wait_s} s" for wait_s in (5, 10, 20, 40, 80, 160, 300)], "each wait once"


async def test_another_policy_ends_the_wait(tmp_path: Path, autojump_clock: object) -> None:
    scene, machine = refusable(tmp_path)
    async with renewing(scene):
        await trio.sleep(700)
        asked = len(machine.asked_s)
        scene.policies.turn_to(scene.next_policy.hash)
        await trio.sleep(22)
    assert machine.waits_s()[asked:] == [5, 10]


async def test_the_waits_grow_short_while_the_evidence_in_force_runs_out(
    tmp_path: Path, autojump_clock: object
) -> None:
    scene, machine = refusable(tmp_path)
    machine.is_wrong = False
    async with renewing(scene):
        await scene.attesting.proven.wait()
        machine.is_wrong = True
        scene.now_s += DAY_S - 100
        scene.chain.head_seqno += DAY_S - 100
        machine.asked_s.clear()
        for _ in range(100):
            await trio.sleep(1)
            scene.now_s += 1
            scene.chain.head_seqno += 1
    assert machine.waits_s() == [5, 10, 20, 30, 15, 8, 5], "what is mended in the last seconds is in time"


async def test_evidence_that_lives_for_seconds_is_tried_all_the_time(tmp_path: Path, autojump_clock: object) -> None:
    scene, machine = refusable(tmp_path, 60)
    async with renewing(scene):
        await trio.sleep(61)
    assert set(machine.waits_s()) == {5}


async def test_what_cannot_be_made_at_all_is_tried_at_each_look(scene: Scene, autojump_clock: object) -> None:
    scene.chain.is_up = False
    async with renewing(scene):
        await trio.sleep(1000)
        scene.chain.is_up = True
        with trio.fail_after(CHECK_INTERVAL_S + 1):
            await scene.attesting.proven.wait()
    assert scene.attesting.alarm(scene.now_s) is None
