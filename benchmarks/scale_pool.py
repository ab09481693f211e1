"""A pool of nodes on a network in memory, for `benchmarks.scale`: who takes part, and what it costs whom."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import trio

from benchmarks.scale_parts import LATE, POOL, RECORDS, START_S, MemoryStore, approve, make_participant, write_log
from contracts.model import NANO, ZERO_HASH, Landed, Operator, OperatorSet
from contracts.signing import SigningKey
from gossip import serve, sync
from gossip.epoch_events import Advanced, ChainView, Message, Submit
from gossip.messages import ObservedLog, make_attest, make_observation, parse_proposal
from gossip.node import Node, open_node
from gossip.policy import parse_policy
from gossip.pull import Puller
from gossip.round import Round
from gossip.sync import ObjectRequest
from gossip.tally import EpochFrame
from gossip.wire import ATTEST, PROPOSAL, RECORD, announce, encode_gossip, parse_gossip

DELAY_S = 0.05
POLL_S = 3.0
SYNC_S = 30.0
CLOSE_S = 10.0
STALLED_S = 600
POLICY = """
timing = {settle_delay_s = 600, collect_s = 120, view_s = 300, stage_s = 1}
quality = {latency_p95_target_ms = 2000, failure_max_per_mille = 100}
attestation = {}
receipts = {ceiling = "none", signers = [], per_participant_max = 1000, worker_codes = [], worker_proxies = []}
audit = {outlier_mads = 6, picks = 1}
reputation = {settled = 2, evidence_failed = 20, offline = 10, offline_after_s = 86400, forked = 200}
[work]
source = "engine"
window_max_s = 300
token_units = [1, 2]
tokens_per_s_max = 20000
gpu_tokens_per_s = {}
tokens_per_task_min = 10
witness_bucket_s = 300
witness_carry_s = 86400
anchor_age_max_s = 259200
machine_nodes_max = 1
[score]
strategy = "weighted"
tokens = 500
uptime = 200
tasks = 200
quality = 100
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A pool of so many operators and participants; `nodes` of the operators run, the others stand in.

    Where it is `stalled`, half of the operators are silent, the late records come when view 0 is open, and the run
    ends `STALLED_S` later.
    """

    operators: int
    participants: int
    nodes: int
    is_stalled: bool = False


# Who pays for what the process does.

_paying: ContextVar[tuple[Counter[str], str] | None] = ContextVar("paying", default=None)


class Spending(trio.abc.Instrument):
    """Books the CPU of each task's steps on the account that its context names."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        account = task.context.get(_paying)
        if account is not None:
            account[0][account[1]] += time.thread_time_ns() - self._began


# The pool.


class World:
    """The chain, the network, the participants' records, and the operators: members, and those that stand in."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.policy = parse_policy(POLICY)
        self.keys = [SigningKey(hashlib.sha256(b"%d" % i).digest()) for i in range(size.participants)]
        self.participants = tuple(make_participant(key) for key in self.keys)
        self.operators = OperatorSet(
            set_id=1, operators=tuple(Operator(node_key=key.public, weight=1) for key in self.keys[: size.operators])
        )
        self.frame = EpochFrame(
            epoch=1,
            start_s=START_S - 86_400,
            end_s=START_S,
            pot_nanoton=1000 * NANO,
            operators=self.operators,
            policy=self.policy,
            participants=self.participants,
        )
        timing = self.policy.timing
        self.observe_s = timing.settle_delay_s
        self.view_s = self.observe_s + timing.collect_s
        self.records = [write_log(key) for key in self.keys]
        leader = Round(self.frame, POOL, 0).leader_of(0)
        order = sorted(range(size.operators), key=lambda index: index != leader)
        self.running = [self.keys[index] for index in order[: size.nodes]]
        """The first of them leads view 0."""
        standing_in = order[size.nodes : size.operators // 2 if size.is_stalled else None]
        self.stand_ins = {self.keys[index].public: StandIn(self, self.keys[index]) for index in standing_in}
        self.landed: Submit | None = None
        self._began = 0.0
        self.ended_s = 0.0

    def now_s(self) -> int:
        """Chain time, and that of every clock."""
        return START_S + int(trio.current_time() - self._began)

    def elapsed_s(self) -> float:
        """Since the epoch's end."""
        return trio.current_time() - self._began

    async def run(self) -> None:
        """From the epoch's end until every member has the base that landed."""
        self._began = trio.current_time()
        self.members = [Member(self, key) for key in self.running]
        self.by_key = {member.node.key.public: member for member in self.members}
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.run)
            nursery.start_soon(self._work)
            for stand_in in self.stand_ins.values():
                nursery.start_soon(stand_in.run)
            while self._is_open():  # noqa: ASYNC110 a mock clock
                await trio.sleep(POLL_S)
            self.ended_s = self.elapsed_s()
            nursery.cancel_scope.cancel()

    def _is_open(self) -> bool:
        if self.size.is_stalled:
            return self.elapsed_s() < self.view_s + STALLED_S
        return any(member.node.machine.base.epoch == 0 for member in self.members)

    async def _work(self) -> None:
        """The participants' records: most before the observations, the last ones while the epoch closes."""
        for late in (False, True):
            if late:
                await trio.sleep(self.view_s if self.size.is_stalled else self.observe_s)
            for number in range(RECORDS - LATE, RECORDS) if late else range(RECORDS - LATE):
                for records in self.records:
                    await trio.sleep(self.frame.policy.timing.collect_s / 4 / len(self.records))
                    self.broadcast(encode_gossip(RECORD, records[number].wire))

    def broadcast(self, data: bytes, sender: bytes = b"") -> None:
        """Deliver a gossip message to every member but its maker."""
        for member in self.members:
            if member.node.key.public != sender:
                member.deliver(data, sender)

    def view(self) -> ChainView:
        landed = Landed(
            epoch=0,
            payload_hash=ZERO_HASH,
            totals_root=ZERO_HASH,
            previous_root=ZERO_HASH,
            total_earned_nanoton=0,
            settled_s=START_S - 86_400,
        )
        if self.landed is not None:
            payload = self.landed.settlement.payload
            landed = replace(
                landed,
                epoch=1,
                payload_hash=self.landed.settlement.payload_hash,
                totals_root=payload.totals_root,
                total_earned_nanoton=payload.total_earned_nanoton,
                settled_s=self.now_s(),
            )
        return ChainView(
            now_s=self.now_s(), current_epoch=2, current_end_s=START_S + 86_400, open_epochs=(), landed=landed
        )


class Member:
    """A node with its puller, and what it spends."""

    def __init__(self, world: World, key: SigningKey) -> None:
        self.world = world
        self.cpu_ns: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.certified_s = math.inf
        store: Any = MemoryStore()
        self.node: Node = open_node(
            key,
            POOL,
            world.policy,
            store,
            approve,
            participants=[participant.node_key for participant in world.participants],
            now_s=world.now_s,
        )
        peers = [operator.node_key for operator in world.operators.operators if operator.node_key != key.public]
        self.puller = Puller(self.node, self, lambda: peers, sync_interval_s=SYNC_S, close_interval_s=CLOSE_S)
        self._inbox_send, self._inbox = trio.open_memory_channel[tuple[bytes, bytes]](math.inf)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for loop in (self._receive, self._publish, self._follow, self.puller.run):
                nursery.start_soon(loop)

    def deliver(self, data: bytes, origin: bytes) -> None:
        trio.lowlevel.spawn_system_task(self._arrive, data, origin)

    async def _arrive(self, data: bytes, origin: bytes) -> None:
        await trio.sleep(DELAY_S)
        self._inbox_send.send_nowait((data, origin))

    async def _receive(self) -> None:
        async for data, origin in self._inbox:
            kind, _ = parse_gossip(data)
            _paying.set((self.cpu_ns, kind))
            self.received_bytes[kind] += len(data)
            await self.node.take_gossip(data, origin)
            self._note_certificate(kind)

    def _note_certificate(self, kind: str) -> None:
        progress = self.node.machine.progress() if kind == ATTEST else None
        if progress is not None and progress.certified:
            self.certified_s = min(self.certified_s, self.world.elapsed_s())

    async def _publish(self) -> None:
        async for data in self.node.outbox:
            kind, _ = parse_gossip(data)
            self.sent_bytes[kind] += len(data)
            self.world.broadcast(data, self.node.key.public)
            if kind == PROPOSAL:
                for stand_in in self.world.stand_ins.values():
                    stand_in.attest(data)

    async def _follow(self) -> None:
        """What `agent.settling` does."""
        witnessed_s = {key.public: 86_400 for key in self.world.keys}
        while True:
            _paying.set((self.cpu_ns, "chain"))
            await trio.lowlevel.checkpoint()
            frame = self.world.frame if self.world.landed is None else None
            await self.node.handle(
                Advanced(view=self.world.view(), operators=self.world.operators, frame=frame, witnessed_s=witnessed_s)
            )
            _paying.set(None)
            await trio.sleep(POLL_S)
            while self.node.chain_actions.statistics().current_buffer_used:
                action = self.node.chain_actions.receive_nowait()
                if isinstance(action, Submit):
                    self.world.landed = self.world.landed or action

    async def request(self, peer: bytes, payload: bytes) -> bytes:
        """The transport's part. What is asked of one that stands in is answered here, at the asker's cost (rule 1)."""
        kind = f"asks {sync.parse_request(payload).__class__.__name__.removesuffix('Request').lower()}"
        server = self.world.by_key.get(peer, self)
        self.sent_bytes[kind] += len(payload)
        server.received_bytes[kind] += len(payload)
        await trio.sleep(DELAY_S)
        _paying.set((server.cpu_ns, f"serves{kind[4:]}"))
        await trio.lowlevel.checkpoint()
        stand_in = self.world.stand_ins.get(peer)
        answer = stand_in.answer(payload) if stand_in is not None else None
        if answer is None:
            answer = await serve.serve(server.node, self.node.key.public, payload)
        _paying.set((self.cpu_ns, kind))
        server.sent_bytes[kind] += len(answer)
        self.received_bytes[kind] += len(answer)
        await trio.sleep(DELAY_S)
        return answer


class StandIn:
    """An operator that is no node here: it signs what an honest one would."""

    def __init__(self, world: World, key: SigningKey) -> None:
        self._world = world
        self._key = key
        self._observed = (b"", b"")
        """Digest and wire of its observation."""
        self._attested: set[bytes] = set()

    async def run(self) -> None:
        """Observe when it is due: the heads that the first member has, and its own seconds."""
        world = self._world
        await trio.sleep(world.observe_s)
        logs = world.members[0].node.logs
        own = int.from_bytes(self._key.public[:2], "big")
        observation = make_observation(
            self._key,
            POOL,
            epoch=1,
            set_id=1,
            policy_hash=world.policy.hash,
            base=ZERO_HASH,
            logs={
                key.public: ObservedLog(head=logs[key.public].head, witnessed_s=86_400 - own % 600, worker_tokens=0)
                for key in world.keys
            },
            forks=(),
        )
        self._observed = (observation.digest, observation.wire)
        self._say(observation)

    def attest(self, gossip: bytes) -> None:
        """Agree with a proposal: what it says is computed by the members."""
        proposal = parse_proposal(parse_gossip(gossip)[1], POOL)
        if proposal.cert_hash not in self._attested:
            self._attested.add(proposal.cert_hash)
            trio.lowlevel.spawn_system_task(self._attest, proposal.cert_hash)

    async def _attest(self, cert_hash: bytes) -> None:
        await trio.sleep(DELAY_S)
        self._say(make_attest(self._key, POOL, epoch=1, cert_hash=cert_hash))

    def _say(self, message: Message) -> None:
        self._world.broadcast(announce(message), self._key.public)

    def answer(self, request: bytes) -> bytes | None:
        """Its own observation; all else a member answers."""
        match sync.parse_request(request):
            case ObjectRequest(wanted) if wanted.id == self._observed[0]:
                return sync.encode_object(self._observed[1])
            case _:
                return None
