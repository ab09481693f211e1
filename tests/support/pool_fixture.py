"""A pool in memory for tests of the gossip core: keys, policy, records, a chain that settles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from contract_states import nothing_landed, open_epoch, pool_state

from contracts.model import (
    NANO,
    ZERO_HASH,
    Address,
    Landed,
    OpenEpoch,
    Operator,
    OperatorSet,
    Participant,
    SettlePayload,
)
from contracts.signing import SigningKey
from gossip.coverage import Approval, Gpu
from gossip.epoch_close import EpochClose
from gossip.epoch_events import Action, Advanced, ChainView, Finalize, Heard, Message, Publish, Settled, Submit
from gossip.log_chain import GENESIS, Head, LogBook
from gossip.pinning import settling_set
from gossip.policy import PoolPolicy, parse_policy
from gossip.records import EvidenceBody, PoolId, Record, Source, SourceWork, Unit, WorkBody, make_record
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame

POOL = PoolId(-217, hashlib.sha256(b"pool").digest())
START_S = 1_800_000_000
EPOCH_S = 100
POT_NANOTON = 10 * NANO
POLICY_TEXT = """
[timing]
settle_delay_s = 10
collect_s = 10
view_s = 20
stage_s = 5
[work]
window_max_s = 60
source = "engine"
token_units = [1, 2]
tokens_per_s_max = 1000
gpu_tokens_per_s = {}
tokens_per_task_min = 10
witness_bucket_s = 5
witness_carry_s = 86400
anchor_age_max_s = 259200
machine_nodes_max = 1
[receipts]
ceiling = "none"
signers = []
per_participant_max = 1000
worker_codes = []
worker_proxies = []
[score]
strategy = "weighted"
tokens = 500
uptime = 200
tasks = 200
quality = 100
[quality]
latency_p95_target_ms = 2000
failure_max_per_mille = 100
[audit]
outlier_mads = 6
picks = 1
[reputation]
settled = 2
evidence_failed = 20
offline = 10
offline_after_s = 86400
forked = 200
[attestation]
"""


def policy() -> PoolPolicy:
    return parse_policy(POLICY_TEXT)


def key(i: int) -> SigningKey:
    return SigningKey(hashlib.sha256(b"node %d" % i).digest())


def participant(i: int) -> Participant:
    return Participant(
        address=Address(0, hashlib.sha256(b"owner %d" % i).digest()),
        node_key=key(i).public,
        stake_nanoton=100 * NANO,
        joined_s=START_S,
    )


def operator_set(n: int, weights: Sequence[int] | None = None, *, set_id: int = 1, first: int = 0) -> OperatorSet:
    """Operators `first` to `first + n - 1`."""
    weights = weights or [1] * n
    return OperatorSet(
        set_id=set_id,
        operators=tuple(Operator(node_key=key(i).public, weight=w) for i, w in enumerate(weights, first)),
    )


def frame(n: int, epoch: int = 1, *, weights: Sequence[int] | None = None) -> EpochFrame:
    return EpochFrame(
        epoch=epoch,
        start_s=START_S + EPOCH_S * (epoch - 1),
        end_s=START_S + EPOCH_S * epoch,
        pot_nanoton=POT_NANOTON,
        operators=operator_set(n, weights),
        policy=policy(),
        participants=tuple(participant(i) for i in range(n)),
    )


def evidence(time_s: int = START_S - 1000) -> EvidenceBody:
    return EvidenceBody(
        quote=b"quote",
        collateral_digest=bytes(32),
        gpu_digest=None,
        handshake_digest=None,
        anchor_seqno=1,
        anchor_root_hash=bytes(32),
        anchor_time_s=time_s,
    )


def reading(tokens: int = 1000, **changes: object) -> SourceWork:
    """What an engine says of a window: these tokens, half of them prompts, and a task for each hundred."""
    counted = SourceWork(
        source=Source.ENGINE,
        provenance="vllm",
        counters=(
            (Unit.PROMPT_TOKEN, tokens // 2),
            (Unit.GENERATION_TOKEN, tokens - tokens // 2),
            (Unit.TASK, tokens // 100),
            (Unit.FAILED_TASK, 0),
        ),
        latency_ms=(100, 200, 300),
        gap_s=0,
    )
    return replace(counted, **changes)


def work(start_s: int, end_s: int, tokens: int, evidence_hash: bytes, **changes: object) -> WorkBody:
    """A window in which an engine alone was read; `changes` are of that reading."""
    return WorkBody(start_s=start_s, end_s=end_s, readings=(reading(tokens, **changes),), evidence=evidence_hash)


def verdict(_policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
    """Every quote is good for 24 h from its anchor, but `b"bad"`.

    `b"on ..."` names its machine, else all differ; what follows `b" with "` are GPUs: `b"H100:0,H100:1"`.
    """
    if body.quote == b"bad":
        return None
    named, _, gpus = body.quote.partition(b" with ")
    return Approval(
        from_s=body.anchor_time_s,
        until_s=body.anchor_time_s + 86_400,
        machine=named.ljust(32) if named.startswith(b"on ") else node_key,
        gpus=tuple(gpu(each) for each in gpus.split(b",") if each),
    )


def gpu(name: bytes) -> Gpu:
    """The GPU of this name, model and number: `b"H100:0"`."""
    return Gpu(identity=hashlib.sha256(name).digest(), model=name.partition(b":")[0].decode())


@dataclass
class Author:
    """Writes the log of participant `i`."""

    i: int
    pool: PoolId = POOL
    head: Head = GENESIS
    end_s: int = START_S
    evidence_hash: bytes = ZERO_HASH
    records: list[Record] = field(default_factory=list)

    def append(self, body: object) -> Record:
        record = make_record(key(self.i), self.pool, self.head.seq + 1, self.head.hash, body)
        self.head = Head(record.seq, record.hash)
        self.records.append(record)
        return record

    def prove(self, time_s: int = START_S - 1000) -> Record:
        record = self.append(evidence(time_s))
        self.evidence_hash = record.hash
        return record

    def work(self, seconds: int = 10, tokens: int = 1000, **changes: object) -> Record:
        record = self.append(work(self.end_s, self.end_s + seconds, tokens, self.evidence_hash, **changes))
        self.end_s += seconds
        return record


def log_book(n: int) -> LogBook:
    logs = LogBook(window_max_s=60)
    logs.open(key(i).public for i in range(n))
    return logs


def fill(logs: LogBook, records: Sequence[Record]) -> None:
    for record in records:
        logs.insert(record, now_s=START_S + 10**6)


class Chain:
    """The contracts' part that the machine sees: pins the set when an epoch begins, settles what its quorum signed."""

    def __init__(self, operators: OperatorSet, rules: PoolPolicy | None = None) -> None:
        self.now_s = START_S
        self.policy = rules or policy()
        self.operators = operators
        self.previous: OperatorSet | None = None
        self.epoch = 1
        self.pinned_set = operators.set_id
        """Of the running epoch; 0: it began under the owner."""
        self.open: list[OpenEpoch] = []
        self.landed = nothing_landed()
        self.payloads: list[SettlePayload] = []
        self.settled_by: list[int] = []
        """Number of the set whose certificate settled each epoch."""

    def rotate(self, operators: OperatorSet) -> None:
        """Another set takes over; the running epoch stays with the one that it began under."""
        self.previous, self.operators = self.operators, operators

    def settling_set(self) -> OperatorSet | None:
        """Who settles the oldest open epoch."""
        state = pool_state(operator_set=self.operators, previous_set=self.previous)
        return settling_set(self.open[0], state, self.now_s) if self.open else None

    def finalize(self, epoch: int) -> None:
        if epoch == self.epoch and self.now_s >= self.end_s:
            self.open.append(
                open_epoch(
                    epoch,
                    start_s=self.end_s - EPOCH_S,
                    end_s=self.end_s,
                    pot_nanoton=POT_NANOTON,
                    finalized_s=self.now_s,
                    set_id=self.pinned_set,
                    policy_hash=self.policy.hash,
                )
            )
            self.epoch += 1
            self.pinned_set = self.operators.set_id

    def submit(self, submit: Submit) -> bool:
        payload = submit.settlement.payload
        if not self.open or payload.epoch != self.open[0].epoch or payload.prev != self.landed.payload_hash:
            return False
        operators = self.settling_set()
        assert operators is not None
        assert submit.set_id == operators.set_id
        assert operators.is_quorum(sum(operators.operators[s.index].weight for s in submit.signatures))
        self.settled_by.append(submit.set_id)
        assert payload.total_earned_nanoton - self.landed.total_earned_nanoton <= self.open[0].pot_nanoton
        self.open.pop(0)
        self.payloads.append(payload)
        self.landed = Landed(
            epoch=payload.epoch,
            payload_hash=submit.settlement.payload_hash,
            totals_root=payload.totals_root,
            previous_root=self.landed.totals_root,
            total_earned_nanoton=payload.total_earned_nanoton,
            settled_s=self.now_s,
        )
        return True

    @property
    def end_s(self) -> int:
        return START_S + EPOCH_S * self.epoch

    def view(self) -> ChainView:
        return ChainView(
            now_s=self.now_s,
            current_epoch=self.epoch,
            current_end_s=self.end_s,
            open_epochs=tuple(self.open),
            landed=self.landed,
        )


class Agent:
    """A machine with its logs in a pool of `n` participants."""

    def __init__(self, i: int, n: int, base: Base | None = None) -> None:
        self.i, self.n = i, n
        self.logs = log_book(n)
        self.settled: list[Settlement] = []
        self.machine = EpochClose(key(i), POOL, policy=policy(), base=base or Base(), logs=self.logs, verdict=verdict)

    def advance(self, chain: Chain, witnessed_s: int = 10**6) -> list[Action]:
        open_frame, operators = None, chain.settling_set()
        if operators is not None:
            oldest = chain.open[0]
            open_frame = replace(frame(self.n, oldest.epoch), operators=operators, pot_nanoton=oldest.pot_nanoton)
        return self.machine.handle(
            Advanced(
                view=chain.view(),
                operators=chain.operators,
                frame=open_frame,
                witnessed_s={key(i).public: witnessed_s for i in range(self.n)},
            )
        )

    def hear(self, message: Message) -> list[Action]:
        return self.machine.handle(Heard(message))


class Pool:
    """Machines joined by a perfect network; `step` moves the chain's time and delivers everything."""

    def __init__(self, n: int, weights: Sequence[int] | None = None, operators: OperatorSet | None = None) -> None:
        self.chain = Chain(operators or operator_set(n, weights))
        self.agents = [Agent(i, n) for i in range(n)]
        self.authors = [Author(i) for i in range(n)]
        self.down: set[int] = set()
        self.tamper = lambda sender, message: message

    def spread(self, records: Sequence[Record]) -> None:
        for agent in self.agents:
            fill(agent.logs, records)

    def step(self, seconds: int = 5) -> None:
        self.chain.now_s += seconds
        said: list[tuple[int, Action]] = []
        for agent in self.agents:
            if agent.i not in self.down:
                said += [(agent.i, action) for action in agent.advance(self.chain)]
        while said:
            sender, action = said.pop(0)
            match action:
                case Publish(message):
                    message = self.tamper(sender, message)
                    for agent in self.agents:
                        if agent.i != sender and agent.i not in self.down:
                            said += [(agent.i, a) for a in agent.hear(message)]
                case Finalize(epoch):
                    self.chain.finalize(epoch)
                case Submit():
                    self.chain.submit(action)
                case Settled(settlement):
                    self.agents[sender].settled.append(settlement)

    def exchange(self) -> None:
        """Anti-entropy: every live agent takes over what every other one holds of the open epoch."""
        live = [agent for agent in self.agents if agent.i not in self.down]
        for agent in live:
            for other in live:
                for message in other.machine.messages(other.machine.base.epoch + 1):
                    agent.hear(message)


def run_epoch(pool: Pool, *, steps: int = 60) -> None:
    """Step until one more epoch has settled on chain and every live agent knows."""
    target = pool.chain.landed.epoch + 1
    for _ in range(steps):
        pool.step()
        live = [agent for agent in pool.agents if agent.i not in pool.down]
        if pool.chain.landed.epoch >= target and all(a.machine.base.epoch >= target for a in live):
            return
    raise AssertionError(f"epoch {target} did not settle: {[a.machine.progress() for a in pool.agents]}")


def write_work(pool: Pool, windows: int = 3) -> None:
    """Everybody works; more, the higher its number."""
    for author in pool.authors:
        if author.head == GENESIS:
            pool.spread([author.prove()])
        pool.spread([author.work(tokens=1000 * (author.i + 1)) for _ in range(windows)])
