"""Verdicts on evidence: what is missing is named, what is refused stays refused, anchors are the chain's word."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from attesting_scene import AGE_S, NODE_KEY, NOW_S, POOL, Scene, without_threads
from pool_fixture import key

from agent import verdicts
from agent.verdicts import anchor_of, standing_value
from attestation.errors import CollateralMalformedError, ReportDataMismatchError
from contracts.errors import ChainUnavailableError
from gossip.epoch_events import ObjectId
from gossip.errors import DataUnavailableError
from gossip.records import EvidenceBody, make_record
from gossip.tally import Approval

__all__ = ["without_threads"]

pytestmark = pytest.mark.usefixtures("without_threads")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def approval(scene: Scene, body: EvidenceBody, age_s: int) -> Approval:
    machine = scene.verdicts.judge(scene.policy, NODE_KEY, body).machine
    return Approval(from_s=body.anchor_time_s, until_s=body.anchor_time_s + age_s, machine=machine)


async def test_good_evidence_holds_from_its_anchor_for_the_policys_age(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) == approval(scene, body, AGE_S)


async def test_each_policy_judges_the_same_evidence_by_its_own_rules(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) == approval(scene, body, AGE_S)
    assert scene.verdicts.verdict(scene.next_policy, NODE_KEY, body) == approval(scene, body, 2 * AGE_S)


async def test_what_is_missing_is_named_anchor_first_then_collateral(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    with pytest.raises(DataUnavailableError) as missing:
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {anchor_of(body)}
    await scene.confirm(body)
    with pytest.raises(DataUnavailableError) as missing:
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {ObjectId(kind="attachment", id=body.collateral_digest)}


async def test_evidence_of_another_key_is_refused_and_the_reason_shown(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    other = b"o" * 32
    assert scene.verdicts.verdict(scene.policy, other, body) is None
    for _ in range(2):
        with pytest.raises(ReportDataMismatchError):
            scene.verdicts.judge(scene.policy, other, body)


@pytest.mark.parametrize(
    "change", [{"anchor_root_hash": b"x" * 32}, {"anchor_time_s": NOW_S - 100}, {"anchor_seqno": 6}]
)
async def test_an_anchor_that_is_not_that_block_is_refused(scene: Scene, change: dict[str, object]) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), **change)
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


async def test_a_number_above_the_head_at_an_earlier_time_cannot_exist(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=99)
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


async def test_a_number_above_the_head_at_a_later_time_is_asked_for_again(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=11, anchor_time_s=NOW_S + 3)
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)
    with pytest.raises(DataUnavailableError):
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)


async def test_an_anchor_is_not_judged_while_the_chain_is_away(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    scene.chain.is_up = False
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)
    with pytest.raises(DataUnavailableError):
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)


async def test_attachments_that_are_garbage_are_refused(scene: Scene) -> None:
    garbage = hashlib.sha256(b"{").digest()
    scene.journal.keep_attachment(garbage, b"{")
    body = replace(await scene.evidence(scene.chain.block(7)), collateral_digest=garbage)
    await scene.confirm(body)
    with pytest.raises(CollateralMalformedError):
        scene.verdicts.judge(scene.policy, NODE_KEY, body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


# Evidence is looked at when it comes in.


@asynccontextmanager
async def examining(scene: Scene) -> AsyncIterator[None]:
    node = scene.node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.verdicts.examine, node, scene.chain)
        yield
        nursery.cancel_scope.cancel()


async def test_each_piece_is_judged_once_as_it_comes_in(
    scene: Scene, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = key(1)
    body = await scene.evidence(scene.chain.block(7), other.public)
    record = make_record(other, POOL, 1, bytes(32), body)
    judged = []
    appraise = verdicts.appraise_evidence
    monkeypatch.setattr(verdicts, "appraise_evidence", lambda *a, **k: judged.append(1) or appraise(*a, **k))
    async with examining(scene):
        scene.verdicts.note(record)
        await trio.sleep(5)
        assert scene.verdicts.standings == {}, "its collateral is not here yet"
        await scene.keep_collateral()
        await trio.sleep(5)
    standing = scene.verdicts.standings[other.public]
    assert (standing.record, standing.holds(NOW_S), standing.holds(NOW_S + AGE_S)) == (record.hash, True, False)
    assert standing_value(standing, NOW_S)["tcb_status"] == "UpToDate"
    expired = standing_value(standing, NOW_S + AGE_S)
    assert (expired["valid"], expired["error"], expired["tcb_status"]) == (False, "anchor_stale", "UpToDate")
    assert scene.verdicts.verdict(scene.policy, other.public, body) is not None
    assert judged == [1]


async def test_refusals_are_shown_with_code_and_fault(scene: Scene, autojump_clock: object) -> None:
    other = key(1)
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    async with examining(scene):
        scene.verdicts.note(make_record(other, POOL, 1, bytes(32), body))
        await trio.sleep(5)
    standing = scene.verdicts.standings[other.public]
    assert not standing.holds(NOW_S)
    value = standing_value(standing, NOW_S)
    assert (value["valid"], value["error"], value["fault"]) == (False, "report_data_mismatch", "sender")
    assert set(scene.verdicts.refused) == {other.public}


async def test_the_chain_may_be_away_while_evidence_comes_in(scene: Scene, autojump_clock: object) -> None:
    other = key(1)
    body = await scene.evidence(scene.chain.block(7), other.public)
    await scene.keep_collateral()
    scene.chain.is_up = False
    async with examining(scene):
        scene.verdicts.note(make_record(other, POOL, 1, bytes(32), body))
        await trio.sleep(5)
        assert scene.verdicts.standings == {}
        scene.chain.is_up = True
        await trio.sleep(5)
    assert scene.verdicts.standings[other.public].holds(NOW_S)
