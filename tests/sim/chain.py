"""The contracts as the simulation needs them: blocks that agents read late, and every rule of a settlement.

A transaction is judged when it arrives, against the state of that moment. What refuses it is named, so that the
watch can tell a hostile or late submission from one that no honest agent makes.

Source: CONTRACTS, "Rules"; `contracts/src/reward_distribution.tolk`, which is the judge.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pool_fixture
from pool_fixture import POOL, START_S

from contracts import certificate, signing
from contracts.model import Address, CertificateDomain, OperatorSet
from contracts.signing import InvalidSignatureError
from gossip.epoch_events import ChainView, Submit
from gossip.tally import EpochFrame
from tests.sim import working
from tests.sim.working import key, paid, worker_of

__all__ = ["key"]

BLOCK_MS = 3_000

participant = functools.cache(pool_fixture.participant)


def domain(set_id: int) -> CertificateDomain:
    return CertificateDomain(global_id=POOL.network, pool=Address(0, POOL.account), set_id=set_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What an agent reads of the chain at once."""

    view: ChainView
    operators: OperatorSet
    frame: EpochFrame | None

    def worker_tokens(self) -> Mapping[bytes, int]:
        """What the worker contracts of the frame's registry say, by node key."""
        participants = self.frame.participants if self.frame is not None else ()
        return {p.node_key: paid(p.worker, self.view.now_s) for p in participants if p.worker is not None}


class SimChain(pool_fixture.Chain):
    """A chain whose blocks are kept and whose refusals have names."""

    def __init__(self, operators: OperatorSet, registered: int, ceiling: str = "none") -> None:
        super().__init__(operators, working.policy(ceiling))
        self.participants = tuple(participant(i) for i in range(registered))
        self.frames: dict[int, EpochFrame] = {}
        """As an epoch was opened; by epoch."""
        self.landed_s: dict[int, int] = {}
        self.blocks: list[Block] = []
        self.add_block()

    def add_block(self) -> None:
        """Finalize what happened since the last one."""
        self.blocks.append(Block(view=self.view(), operators=self.operators, frame=self.frame()))

    def register(self, i: int) -> None:
        """One more participant, from the next epoch that is opened on."""
        self.participants = (*self.participants, participant(i))

    def frame(self) -> EpochFrame | None:
        """The frame of the oldest open epoch."""
        operators = self.settling_set()
        if operators is None:
            return None
        oldest = self.open[0]
        known = self.frames.get(oldest.epoch)
        if known is None:
            known = self.frames[oldest.epoch] = EpochFrame(
                epoch=oldest.epoch,
                start_s=oldest.start_s,
                end_s=oldest.end_s,
                pot_nanoton=oldest.pot_nanoton,
                operators=operators,
                policy=self.policy,
                participants=tuple(
                    replace(entry, worker=worker_of(i, oldest.epoch, self.policy.receipts.ceiling))
                    for i, entry in enumerate(self.participants)
                ),
            )
        return known if known.operators == operators else replace(known, operators=operators)

    def judge(self, submit: Submit) -> str:
        """Take a settlement: "landed", or the name of the rule that it breaks."""
        payload = submit.settlement.payload
        if payload.epoch <= self.landed.epoch:
            return "settled already"
        operators = self.settling_set()
        if operators is None or payload.epoch != self.open[0].epoch:
            return "not the oldest open epoch"
        if submit.set_id != operators.set_id:
            return "not the pinned set"
        indexes = [signature.index for signature in submit.signatures]
        if indexes != sorted(set(indexes)) or not all(index < len(operators.operators) for index in indexes):
            return "indexes"
        if not operators.is_quorum(sum(operators.operators[index].weight for index in indexes)):
            return "no quorum"
        signed = bytes(certificate.settle_certificate(domain(submit.set_id), payload).hash)
        try:
            for signature in submit.signatures:
                signing.verify(operators.operators[signature.index].node_key, signed, signature.signature)
        except InvalidSignatureError:
            return "bad signature"
        if payload.prev != self.landed.payload_hash:
            return "built on another settlement"
        if payload.policy_hash != self.policy.hash:
            return "another policy"
        earned = payload.total_earned_nanoton - self.landed.total_earned_nanoton
        if not 0 <= earned <= self.open[0].pot_nanoton:
            return "more than the pot"
        assert self.submit(submit)
        self.landed_s[payload.epoch] = self.now_s - START_S
        return "landed"
