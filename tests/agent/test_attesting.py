"""Verdicts on evidence: what is missing is named, what is refused stays refused, anchors are the chain's word."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from pool_fixture import policy

from agent.attesting import Attesting, OwnEvidence
from agent.journal import create_journal, open_journal
from agent.metrics import Metrics
from agent.policies import Policies
from attestation.binding import report_data
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from contracts.chain import Block
from contracts.errors import ChainUnavailableError
from gossip.epoch_events import Anchor, ObjectId
from gossip.errors import DataUnavailableError
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId

NOW_S = 1_800_000_000
POOL = PoolId(-217, b"p" * 32)
NODE_KEY = b"k" * 32
AGE_S = 600


class FakeChain:
    """A chain of blocks 1..10, one second apart; block 10 is the head."""

    def __init__(self) -> None:
        self.is_up = True

    def block(self, seqno: int) -> Block:
        return Block(seqno=seqno, root_hash=bytes([seqno]) * 32, file_hash=bytes(32), time_s=NOW_S - 10 + seqno)

    async def head(self) -> Block:
        if not self.is_up:
            raise ChainUnavailableError("down")
        return self.block(10)

    async def block_by_seqno(self, seqno: int) -> Block:
        return self.block(seqno)


class Scene:
    def __init__(self, directory: Path) -> None:
        path = directory / "journal.sqlite"
        create_journal(path, node_key=NODE_KEY, pool=POOL)
        self.journal = open_journal(path, node_key=NODE_KEY, pool=POOL)
        root = SoftwareRoot.create(directory / "root", now_s=NOW_S)
        self.platform = SoftwarePlatform.create(directory / "machine", root=root)
        self.policy, self.next_policy = attestation_policy(AGE_S), attestation_policy(2 * AGE_S)
        self.policies = Policies(self.policy, self.next_policy)
        self.attesting = Attesting(
            POOL, self.policies, root.certificate, self.platform, self.journal, Metrics(version="0", process=False)
        )
        self.chain = FakeChain()

    async def evidence(self, anchor: Block, node_key: bytes = NODE_KEY) -> EvidenceBody:
        quote = await self.platform.quote(report_data(POOL.network, POOL.account, node_key, anchor.root_hash))
        collateral = await self.platform.collateral()
        return EvidenceBody(
            quote=quote,
            gpu_report=None,
            collateral_digest=collateral.digest,
            anchor_seqno=anchor.seqno,
            anchor_root_hash=anchor.root_hash,
            anchor_time_s=anchor.time_s,
        )

    async def keep_collateral(self) -> None:
        collateral = await self.platform.collateral()
        self.journal.keep_collateral(collateral.digest, collateral.to_json())

    async def confirm(self, body: EvidenceBody) -> None:
        await self.attesting._confirm(self.chain, anchor_of(body))


def attestation_policy(age_s: int) -> PoolPolicy:
    rules = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=age_s)
    return replace(policy(), attestation=rules.to_mapping(), hash=hashlib.sha256(b"%d" % age_s).digest())


def anchor_of(body: EvidenceBody) -> Anchor:
    return Anchor(seqno=body.anchor_seqno, root_hash=body.anchor_root_hash, time_s=body.anchor_time_s)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_good_evidence_holds_from_its_anchor_for_the_policys_age(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.attesting.verdict(scene.policy, NODE_KEY, body) == (body.anchor_time_s, body.anchor_time_s + AGE_S)


async def test_each_policy_judges_the_same_evidence_by_its_own_rules(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.attesting.verdict(scene.policy, NODE_KEY, body) == (body.anchor_time_s, body.anchor_time_s + AGE_S)
    assert scene.attesting.verdict(scene.next_policy, NODE_KEY, body) == (
        body.anchor_time_s,
        body.anchor_time_s + 2 * AGE_S,
    )


async def test_what_is_missing_is_named_anchor_first_then_collateral(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    with pytest.raises(DataUnavailableError) as missing:
        scene.attesting.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {anchor_of(body)}
    await scene.confirm(body)
    with pytest.raises(DataUnavailableError) as missing:
        scene.attesting.verdict(scene.policy, NODE_KEY, body)
    assert missing.value.missing == {ObjectId(kind="collateral", id=body.collateral_digest)}


async def test_evidence_of_another_key_is_refused_and_the_reason_shown(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    await scene.keep_collateral()
    await scene.confirm(body)
    other = b"o" * 32
    assert scene.attesting.verdict(scene.policy, other, body) is None
    assert other.hex() in scene.attesting.status(NOW_S)["refused"]


@pytest.mark.parametrize(
    "change", [{"anchor_root_hash": b"x" * 32}, {"anchor_time_s": NOW_S - 100}, {"anchor_seqno": 6}]
)
async def test_an_anchor_that_is_not_that_block_is_refused(scene: Scene, change: dict[str, object]) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), **change)
    await scene.keep_collateral()
    await scene.confirm(body)
    assert scene.attesting.verdict(scene.policy, NODE_KEY, body) is None


async def test_a_number_above_the_head_at_an_earlier_time_cannot_exist(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=99)
    await scene.confirm(body)
    assert scene.attesting.verdict(scene.policy, NODE_KEY, body) is None


async def test_a_number_above_the_head_at_a_later_time_is_asked_for_again(scene: Scene) -> None:
    body = replace(await scene.evidence(scene.chain.block(7)), anchor_seqno=11, anchor_time_s=NOW_S + 3)
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)
    with pytest.raises(DataUnavailableError):
        scene.attesting.verdict(scene.policy, NODE_KEY, body)


async def test_an_anchor_is_not_judged_while_the_chain_is_away(scene: Scene) -> None:
    body = await scene.evidence(scene.chain.block(7))
    scene.chain.is_up = False
    with pytest.raises(ChainUnavailableError):
        await scene.confirm(body)
    with pytest.raises(DataUnavailableError):
        scene.attesting.verdict(scene.policy, NODE_KEY, body)


def test_own_evidence_is_due_at_two_thirds_of_its_time_and_at_once_under_another_policy(scene: Scene) -> None:
    own = OwnEvidence(record=bytes(32), from_s=NOW_S, until_s=NOW_S + AGE_S, policy_hash=scene.policy.hash)
    assert scene.attesting._due_in_s(NOW_S) == 0
    scene.attesting._own = [own]
    assert scene.attesting._due_in_s(NOW_S) == 2 * AGE_S / 3
    scene.policies.turn_to(scene.next_policy.hash)
    assert scene.attesting._due_in_s(NOW_S) == 0
    assert scene.attesting.covering(NOW_S, NOW_S + 1) == own.record, "what is open stays covered by what covered it"
