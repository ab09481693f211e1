"""Verdicts on evidence: what is missing is named, what is refused stays refused, anchors are the chain's word."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from attesting_scene import AGE_S, NODE_KEY, NOW_S, POOL, Scene, without_threads
from pool_fixture import key

from agent import verdicts
from agent.standings import Holder, Standing, place_taken_by
from agent.verdicts import anchor_of
from attestation.appraisal import Appraisal
from attestation.errors import CollateralMalformedError, ReportDataMismatchError
from contracts.errors import ChainUnavailableError
from gossip.coverage import Approval
from gossip.epoch_events import ObjectId
from gossip.errors import DataUnavailableError
from gossip.records import EvidenceBody, make_record
from gossip.settlement import Base, EvidenceWindow, Reading

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


async def test_what_is_missing_is_named_attachments_first_then_the_anchor(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    with pytest.raises(DataUnavailableError) as missing:
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {ObjectId(kind="attachment", id=body.collateral_digest)}
    await scene.keep_collateral()
    with pytest.raises(DataUnavailableError) as missing:
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {anchor_of(body)}


async def test_no_anchor_is_asked_for_when_the_evidence_is_refused_anyway(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), quote=b"")
    await scene.keep_collateral()
    for _ in range(2):
        assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


async def test_evidence_of_another_key_is_refused_and_the_reason_shown(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    other = b"o" * 32
    assert scene.verdicts.verdict(scene.policy, other, body) is None
    for _ in range(2):
        with pytest.raises(ReportDataMismatchError):
            scene.verdicts.judge(scene.policy, other, body)


@pytest.mark.parametrize("change", [{"anchor_root_hash": b"x" * 32}, {"anchor_time_s": NOW_S - 2}, {"anchor_seqno": 6}])
async def test_an_anchor_that_is_not_that_block_is_refused(scene: Scene, change: dict[str, object]) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), **change)
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


@pytest.mark.parametrize("seqno", [1, 99])
async def test_a_number_that_lies_elsewhere_is_refused_without_a_lookup(scene: Scene, seqno: int) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=seqno)
    await scene.keep_collateral()
    scene.chain.forgotten = 5
    await scene.confirm(body)
    assert scene.verdicts.verdict(scene.policy, NODE_KEY, body) is None


async def test_another_block_of_the_heads_second_may_still_come(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(10)), anchor_seqno=11)
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)


async def test_a_number_above_the_head_at_a_later_time_is_asked_for_again(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=11, anchor_time_s=NOW_S + 3)
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)
    with pytest.raises(DataUnavailableError):
        scene.verdicts.verdict(scene.policy, NODE_KEY, body)


async def test_an_anchor_is_not_judged_while_the_chain_is_away(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
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
    assert (standing.record, standing.refusal(NOW_S)) == (record.hash, None)
    assert standing.value(NOW_S)["tcb_status"] == "UpToDate"
    expired = standing.value(NOW_S + AGE_S)
    assert (expired["valid"], expired["error"]["code"], expired["tcb_status"]) == (False, "anchor_stale", "UpToDate")
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
    value = standing.value(NOW_S)
    assert value["valid"] is False
    assert (value["error"]["code"], value["error"]["fault"]) == ("report_data_mismatch", "sender")


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
    assert scene.verdicts.standings[other.public].refusal(NOW_S) is None


async def test_after_a_start_what_the_logs_hold_is_judged_again(scene: Scene, autojump_clock: object) -> None:
    other, bodies = key(1), [await scene.evidence(scene.chain.block(i), key(1).public) for i in (6, 7)]
    await scene.keep_collateral()
    first = make_record(other, POOL, 1, bytes(32), bodies[0])
    second = make_record(other, POOL, 2, first.hash, bodies[1])
    scene.journal.append([first, second])
    scene.start()
    async with examining(scene):
        await trio.sleep(5)
    assert scene.verdicts.standings[other.public].seq == 2
    for body in bodies:
        assert scene.verdicts.verdict(scene.policy, other.public, body) is not None


async def test_a_thousand_anchors_are_looked_up_in_a_few_rounds(scene: Scene, autojump_clock: object) -> None:
    anchors = [anchor_of(replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=n)) for n in range(1000)]
    with trio.fail_after(1):
        await scene.verdicts.anchors.confirm_all(scene.chain, anchors)
    assert [scene.verdicts.anchors.word_on(anchor) for anchor in anchors].count(True) == 1


def test_the_place_on_a_machine(scene: Scene) -> None:
    mine, theirs = key(0).public, key(1).public

    def base(*holders: bytes, until_s: int = NOW_S) -> Base:
        window = EvidenceWindow(record=bytes(32), from_s=0, until_s=until_s, machine=b"m" * 32, tokens_per_s=1)
        return Base(readings={key: Reading(evidence=(window,)) for key in holders})

    standings = {mine: Standing(record=bytes(32), seq=1, found=Machine())}  # type: ignore[arg-type]
    for holders, nodes_max, taken_by in (
        ([], 1, None),
        ([mine], 1, None),
        ([theirs], 1, Holder(node_key=theirs, is_gpu=False)),
        ([theirs], 2, None),
        ([mine, theirs], 1, None),
    ):
        taken = functools.partial(place_taken_by, mine, standings, base(*holders), nodes_max=nodes_max, now_s=NOW_S)
        assert taken(registered={mine, theirs}) == taken_by
        assert taken(registered={mine}) is None, "the key before a rotation holds nothing"
    alone = functools.partial(place_taken_by, mine, registered={theirs}, nodes_max=1, now_s=NOW_S)
    assert alone(standings, base(theirs, until_s=NOW_S - 1)) is None
    assert alone({}, base(theirs)) is None


def test_a_gpu_that_earns_for_another_node_takes_the_place(scene: Scene) -> None:
    mine, theirs = key(0).public, key(1).public
    standings = {mine: Standing(record=bytes(32), seq=1, found=Machine(b"a" * 32, b"b" * 32))}

    def base(holder: bytes, *gpus: bytes, until_s: int = NOW_S) -> Base:
        window = EvidenceWindow(record=bytes(32), from_s=0, until_s=until_s, machine=holder, gpus=gpus, tokens_per_s=1)
        return Base(readings={holder: Reading(evidence=(window,))})

    def taken_by(settled: Base) -> Holder | None:
        return place_taken_by(mine, standings, settled, registered={mine, theirs}, nodes_max=1, now_s=NOW_S)

    assert taken_by(base(theirs, b"b" * 16)) == Holder(node_key=theirs, is_gpu=True)
    assert taken_by(base(theirs, b"c" * 16)) is None
    assert taken_by(base(theirs, b"b" * 16, until_s=NOW_S - 1)) is None
    assert taken_by(base(mine, b"a" * 16, b"b" * 16)) is None


class Machine(Appraisal):
    """An appraisal of which nothing but the machine and the GPUs is looked at."""

    machine = b"m" * 32  # type: ignore[assignment]

    def __init__(self, *gpus: bytes) -> None:
        """Nothing is appraised here."""
        found = tuple(SimpleNamespace(identity=gpu) for gpu in gpus)
        object.__setattr__(self, "gpus", found)
