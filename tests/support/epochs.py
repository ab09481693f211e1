"""A pool that settles epoch after epoch by the tally alone, for tests of what the tally pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
from pool_fixture import POOL, Author, fill, frame, key, log_book, participant, policy, verdict

from contracts.model import Leaf, Participant
from gossip.log_chain import LogBook
from gossip.messages import Observation, ObservedLog, make_observation
from gossip.policy import PoolPolicy, Receipts, Work
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame, settle

LONG_S = 10**6
"""More witnessed seconds than any test works."""


def observe_all(
    logs: LogBook,
    base: Base,
    n: int,
    witnessed_s: int | Sequence[int] = LONG_S,
    worker_tokens: Sequence[int | None] | None = None,
) -> list[Observation]:
    """Every operator names every head; what it says of the participants besides is as given."""
    seconds = [witnessed_s] * n if isinstance(witnessed_s, int) else witnessed_s
    tokens = worker_tokens or [None] * n
    return [
        make_observation(
            key(i),
            POOL,
            epoch=base.epoch + 1,
            set_id=1,
            policy_hash=policy().hash,
            base=base.payload_hash,
            logs={
                key(k).public: ObservedLog(
                    head=logs[key(k).public].head, witnessed_s=seconds[k], worker_tokens=tokens[k]
                )
                for k in range(n)
            },
            forks=(),
        )
        for i in range(n)
    ]


@dataclass
class Epochs:
    """A pool of `n` that settles one epoch after another, all heads seen by all."""

    n: int = 2
    policy: PoolPolicy = dataclasses.field(default_factory=policy)

    def __post_init__(self) -> None:
        self.logs = log_book(self.n)
        self.authors = [Author(i) for i in range(self.n)]
        self.base = Base()
        self.participants: tuple[Participant, ...] = tuple(participant(i) for i in range(self.n))
        self.verdict = verdict

    def frame(self) -> EpochFrame:
        made = frame(self.n, self.base.epoch + 1)
        return replace(made, participants=self.participants, policy=self.policy)

    def settle(
        self, witnessed_s: int | Sequence[int] = LONG_S, worker_tokens: Sequence[int | None] | None = None
    ) -> Settlement:
        for author in self.authors:
            fill(self.logs, [r for r in author.records if not self.logs[r.node_key].knows(r.hash)])
        observations = observe_all(self.logs, self.base, self.n, witnessed_s, worker_tokens)
        settlement = settle(self.frame(), self.base, observations, self.logs, self.verdict)
        self.base = settlement.base()
        for node_key, reading in settlement.readings.items():
            self.logs.rebase(node_key, reading.head, reading.work_end_s)
        return settlement


def leaf_of(settlement: Settlement, i: int) -> Leaf:
    return next(leaf for leaf in settlement.leaves if leaf.participant == participant(i).address)


def policy_work(base: PoolPolicy, **changes: object) -> Work:
    return msgspec.structs.replace(base.work, **changes)


def policy_receipts(base: PoolPolicy, **changes: object) -> Receipts:
    return msgspec.structs.replace(base.receipts, **changes)
