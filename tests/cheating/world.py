"""A small pool that settles by the real tally, in which one owner may cheat: what would it gain?

Nothing is random, and nothing of the tally is replaced: records are signed, logs refuse what they refuse, operators
observe, `gossip.tally.settle` counts. What a host truly did and what it claims are two things here; only honest
operators' probes, a gateway's receipts and the chain's payments follow the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pool_fixture import POLICY_TEXT, POOL, START_S, Author, evidence, key, operator_set, participant, reading

from contracts.model import NANO, Address, Participant
from contracts.signing import SigningKey
from gossip.coverage import Approval, Gpu
from gossip.errors import InvalidMessageError
from gossip.log_chain import LogBook
from gossip.messages import Observation, ObservedLog, make_observation
from gossip.policy import PoolPolicy, parse_policy
from gossip.receipts import make_receipt
from gossip.records import EvidenceBody, Receipt, ReceiptBody, SourceWork, Unit, WorkBody
from gossip.settlement import Base
from gossip.tally import EpochFrame, settle

OPERATORS = 7
"""Honest hosts, each an operator as well; the cheater's nodes come besides."""
EPOCH_S, WINDOW_S = 3600, 600
RATE = 100
"""Tokens per second that every host's GPU truly serves."""
TASK_TOKENS = 200
CARRY_S = 600
"""Witnessed seconds that a late record may still use."""
LATENCY_MS = (500, 1500, 1900)
GATEWAY = SigningKey(hashlib.sha256(b"gateway").digest())
PROXY = "22" * 32
CODE = "33" * 32

LEVELS = {
    "open": "each host's own figures count, within limits that nobody reaches",
    "capped": "tokens at most as the attested GPUs can serve, and a task takes so many: both with a quarter to spare; "
    "records are late for at most ten minutes",
    "receipted": "besides, tokens at most as gateways signed for",
    "paid": "besides, tokens at most as the chain paid the Cocoon worker",
}
STRATEGIES = {
    "weighted": 'strategy = "weighted"\ntokens = 500\nuptime = 200\ntasks = 200\nquality = 100',
    "proportional": 'strategy = "proportional"',
    "tiered": 'strategy = "tiered"\nbase = 850\ntop = 500\nnext = 300',
    "guaranteed-minimum": 'strategy = "guaranteed-minimum"\nminimum = 500',
    "hybrid": 'strategy = "hybrid"\ntokens = 700\nuptime = 200\ntasks = 100\nquality_min = 500\nquality_max = 1500\n'
    "reliability_min = 800\nreliability_max = 1200",
}


def level_policy(level: str, strategy: str = "weighted") -> PoolPolicy:
    """The policy of a level, under a score strategy."""
    changes = {
        "window_max_s = 60": f"window_max_s = {WINDOW_S}",
        "tokens_per_s_max = 1000": f"tokens_per_s_max = {100 * RATE}",
        "tokens_per_task_min = 10": "tokens_per_task_min = 1",
        "signers = []": f'signers = ["{GATEWAY.public.hex()}"]',
        "worker_codes = []": f'worker_codes = ["{CODE}"]',
        "worker_proxies = []": f'worker_proxies = ["{PROXY}"]',
        STRATEGIES["weighted"]: STRATEGIES[strategy],
    }
    if level != "open":
        changes |= {
            "tokens_per_task_min = 10": f"tokens_per_task_min = {TASK_TOKENS * 4 // 5}",
            "gpu_tokens_per_s = {}": f"gpu_tokens_per_s = {{GH100 = {RATE * 5 // 4}}}",
            "witness_carry_s = 86400": f"witness_carry_s = {CARRY_S}",
        }
    if level == "receipted":
        changes['ceiling = "none"'] = 'ceiling = "receipts"'
    if level == "paid":
        changes |= {
            'ceiling = "none"': 'ceiling = "worker-contract"',
            'source = "engine"': 'source = "cocoon"',
            "token_units = [1, 2]": "token_units = [3]",
        }
    text = POLICY_TEXT
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return parse_policy(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A window as it truly was, and as its host tells it; `claims` False: it is not recorded."""

    start_s: int
    is_up: bool = True
    served: int = RATE * WINDOW_S
    claimed: int | None = None
    """Tokens; None: what was served."""
    claimed_tasks: int | None = None
    claims: bool = True
    latency_ms: tuple[int, int, int] = LATENCY_MS

    @property
    def end_s(self) -> int:
        return self.start_s + WINDOW_S


@dataclass(slots=True)
class Node:
    """A node of some owner, with its log; `gpu` and `machine` are what it proves."""

    index: int
    machine: bytes
    gpu: bytes
    author: Author = field(init=False)
    witnessed_s: int = 0
    paid: int = 0
    receipts: list[Receipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.author = Author(self.index)

    @property
    def entry(self) -> Participant:
        return replace(participant(self.index), worker=Address(0, key(self.index).public))

    def receipt(self, stretch: Stretch, tokens: int, signer: SigningKey = GATEWAY) -> Receipt:
        job = b"%d %d" % (self.index, stretch.start_s)
        return make_receipt(signer, POOL, key(self.index).public, job_id=job, time_s=stretch.start_s, tokens=tokens)


class World:
    """One pool under one policy. `cheaters` are the nodes of the owner whose gain is measured."""

    def __init__(self, policy: PoolPolicy, cheaters: Sequence[Node]) -> None:
        self.policy = policy
        self.cheaters = list(cheaters)
        honest = [Node(i, b"machine %d" % i, b"gpu %d" % i) for i in range(OPERATORS)]
        self.nodes = [*honest, *self.cheaters]
        self.by_key = {key(node.index).public: node for node in self.nodes}
        self.logs = LogBook(window_max_s=WINDOW_S)
        self.logs.open(key(node.index).public for node in self.nodes)
        self.base = Base()
        self.began_nanoton = 0
        """What the cheaters had earned when they began to cheat."""
        self.refused = 0
        """Records that logs did not take."""

    def prove(self, node: Node, time_s: int) -> None:
        """The node proves its machine and GPU by an anchor of that time."""
        node.author.evidence_hash = self._write(node, evidence(time_s)) or bytes(32)

    def record(self, node: Node, stretch: Stretch, forged: SigningKey | None = None) -> None:
        """The window goes into the node's log, if it claims it; probes, gateway and chain go by the truth."""
        if stretch.is_up:
            node.witnessed_s += WINDOW_S
        node.paid += stretch.served
        if stretch.claims:
            body = WorkBody(
                start_s=stretch.start_s,
                end_s=stretch.end_s,
                readings=(self._told(stretch),),
                evidence=node.author.evidence_hash,
            )
            self._write(node, body)
        receipts = [node.receipt(stretch, stretch.served)] if stretch.served else []
        if forged is not None:
            receipts.append(node.receipt(stretch, stretch.claimed or 0, forged))
        if receipts:
            self._write(node, ReceiptBody(tuple(sorted(receipts, key=lambda receipt: receipt.id))))

    def replay(self, node: Node) -> None:
        """The node puts its last window and its last receipts into its log once more."""
        bodies = {type(record.body): record.body for record in node.author.records}
        for body in (bodies[WorkBody], bodies.get(ReceiptBody)):
            if body is not None:
                self._write(node, body)

    def settle(self, epoch: int, pot_ton: int, liars: int = 0) -> None:
        """Close an epoch; `liars` of the operators tell what suits the cheaters."""
        frame = EpochFrame(
            epoch=epoch,
            start_s=START_S + EPOCH_S * (epoch - 1),
            end_s=START_S + EPOCH_S * epoch,
            pot_nanoton=pot_ton * NANO,
            operators=operator_set(OPERATORS),
            policy=self.policy,
            participants=tuple(node.entry for node in self.nodes),
        )
        observations = [self._observation(i, frame, lies=i < liars) for i in range(OPERATORS)]
        settlement = settle(frame, self.base, observations, self.logs, self._verdict)
        self.base = settlement.base()
        for node_key, settled in settlement.readings.items():
            self.logs.rebase(node_key, settled.head, settled.work_end_s)

    def income(self) -> int:
        """What the cheaters earned since they began to cheat, in nanoTON."""
        earned = sum(self.base.earned_nanoton.get(node.entry.address, 0) for node in self.cheaters)
        return earned - self.began_nanoton

    def begin(self) -> None:
        """From here on is what counts: all have lived honestly through an epoch."""
        self.began_nanoton += self.income()

    def _write(self, node: Node, body: object) -> bytes | None:
        author = node.author
        head, end_s = author.head, author.end_s
        record = author.append(body)
        try:
            self.logs.insert(record, now_s=START_S + 10**9)
        except InvalidMessageError:
            self.refused += 1
            author.head, author.end_s = head, end_s
            author.records.pop()
            return None
        return record.hash

    def _told(self, stretch: Stretch) -> SourceWork:
        tokens = stretch.served if stretch.claimed is None else stretch.claimed
        tasks = tokens // TASK_TOKENS if stretch.claimed_tasks is None else stretch.claimed_tasks
        if self.policy.work.source == "cocoon":
            counters = ((Unit.ADJUSTED_TOKEN.value, tokens), (Unit.TASK.value, tasks), (Unit.FAILED_TASK.value, 0))
            return reading(0, source=2, provenance="cocoon", counters=counters, latency_ms=stretch.latency_ms)
        counters = ((Unit.GENERATION_TOKEN.value, tokens), (Unit.TASK.value, tasks), (Unit.FAILED_TASK.value, 0))
        return reading(0, counters=counters, latency_ms=stretch.latency_ms)

    def _observation(self, index: int, frame: EpochFrame, *, lies: bool) -> Observation:
        logs = {}
        for node in self.nodes:
            lie = lies and node in self.cheaters
            logs[key(node.index).public] = ObservedLog(
                head=self.logs[key(node.index).public].head,
                witnessed_s=10**6 * frame.epoch if lie else node.witnessed_s,
                worker_tokens=10**12 * frame.epoch if lie else node.paid,
            )
        return make_observation(
            key(index),
            POOL,
            epoch=frame.epoch,
            set_id=1,
            policy_hash=self.policy.hash,
            base=self.base.payload_hash,
            logs=logs,
            forks=(),
        )

    def _verdict(self, _policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval:
        node = self.by_key[node_key]
        return Approval(
            from_s=body.anchor_time_s,
            until_s=body.anchor_time_s + 10**6,
            machine=hashlib.sha256(node.machine).digest(),
            gpus=(Gpu(identity=hashlib.sha256(node.gpu).digest(), model="GH100 A01"),),
        )
