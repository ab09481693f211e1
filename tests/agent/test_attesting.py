"""Own evidence: made, judged as everybody will judge it, published, renewed in time; an alarm when it cannot be."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attesting_scene import AGE_S, NODE_KEY, NOW_S, Scene, without_threads
from gpu_forge import GpuForge

from agent.attesting import CHECK_INTERVAL_S, OwnEvidence
from attestation.errors import TsmMissingError
from attestation.gpu import encode_gpu_evidence
from attestation.types import ProvidedQuote
from gossip.log_chain import Head
from gossip.node import Node
from gossip.records import EvidenceBody
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
