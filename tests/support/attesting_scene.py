"""A host with a software TDX machine, its journal and a chain of ten blocks: for tests of evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from pool_fixture import key, policy

from agent.attesting import Attesting
from agent.journal import create_journal, open_journal
from agent.metrics.registry import Metrics
from agent.policies import Policies
from agent.providers import Providers
from agent.verdicts import Verdicts, anchor_of
from attestation.binding import report_data
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot
from contracts.chain import Block
from contracts.errors import ChainUnavailableError
from gossip.node import Node, open_node
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId

NOW_S = 1_800_000_000
POOL = PoolId(-217, b"p" * 32)
NODE_KEY = key(0).public
AGE_S = 600


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a thread runs at once: a clock that jumps does not wait for threads."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


class FakeChain:
    """A chain of blocks from 1 on, one second apart; the head is block 10 at `NOW_S`, unless it moves."""

    def __init__(self) -> None:
        self.is_up = True
        self.head_seqno = 10
        self.forgotten = 0

    def block(self, seqno: int) -> Block:
        root_hash = hashlib.sha256(b"block %d" % seqno).digest()
        return Block(seqno=seqno, root_hash=root_hash, file_hash=bytes(32), time_s=NOW_S - 10 + seqno)

    async def head(self) -> Block:
        if not self.is_up:
            raise ChainUnavailableError("down")
        return self.block(self.head_seqno)

    async def block_at(self, time_s: int) -> Block:
        """The first block of `time_s` or later; below block `forgotten` nothing is known."""
        if not self.is_up or time_s < self.block(self.forgotten).time_s:
            raise ChainUnavailableError("not found")
        return self.block(max(1, time_s - NOW_S + 10))

    async def block_by_seqno(self, seqno: int) -> Block:
        if not self.is_up:
            raise ChainUnavailableError("down")
        return self.block(seqno)


class Scene:
    """`attesting` makes the evidence of `NODE_KEY` by `platform`, for `age_s`; `verdicts` judges everybody's."""

    def __init__(self, directory: Path, age_s: int = AGE_S, **providers: Any) -> None:
        self.journal_file = directory / "journal.sqlite"
        create_journal(self.journal_file, node_key=NODE_KEY, pool=POOL)
        self.journal = open_journal(self.journal_file, node_key=NODE_KEY, pool=POOL)
        root = SoftwareRoot.create(directory / "root", now_s=NOW_S)
        self.platform = SoftwarePlatform.create(directory / "machine", root=root)
        self.policy, self.next_policy = attestation_policy(age_s), attestation_policy(2 * age_s)
        self.root = root.certificate
        sources: dict[str, Any] = {"quotes": self.platform, "collateral": self.platform}
        self.providers = Providers(**(sources | providers))
        self.chain = FakeChain()
        self.now_s = NOW_S
        self.start()

    def start(self) -> None:
        """Start the host, with nothing in its memory but what its journal holds."""
        self.policies = Policies(self.policy, self.next_policy)
        self.verdicts = Verdicts(POOL, self.policies, self.root, self.journal)
        self.metrics = Metrics(version="0", process=False)
        self.attesting = Attesting(POOL, self.policies, self.verdicts, self.providers, self.journal, self.metrics)

    def node(self) -> Node:
        """The gossip node of this host, alone with the participant of key 1."""
        return open_node(
            key(0),
            POOL,
            self.policy,
            self.journal,
            self.verdicts.verdict,
            participants=[NODE_KEY, key(1).public],
            now_s=lambda: self.now_s,
        )

    async def evidence(self, anchor: Block, node_key: bytes = NODE_KEY) -> EvidenceBody:
        challenge = report_data(POOL.network, POOL.account, node_key, anchor.root_hash)
        quote = (await self.platform.quote(challenge)).quote
        collateral = await self.platform.collateral(quote, NOW_S)
        return EvidenceBody(
            quote=quote,
            collateral_digest=collateral.digest,
            gpu_digest=None,
            handshake_digest=None,
            anchor_seqno=anchor.seqno,
            anchor_root_hash=anchor.root_hash,
            anchor_time_s=anchor.time_s,
        )

    async def keep_collateral(self) -> None:
        collateral = await self.platform.collateral(b"", NOW_S)
        self.journal.keep_attachment(collateral.digest, collateral.to_json())

    async def confirm(self, body: EvidenceBody) -> None:
        await self.verdicts.anchors.confirm(self.chain, anchor_of(body))


def attestation_policy(age_s: int) -> PoolPolicy:
    rules = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), evidence_age_max_s=age_s)
    return replace(policy(), attestation=rules.to_mapping(), hash=hashlib.sha256(b"%d" % age_s).digest())
