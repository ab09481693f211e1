"""Whole nodes joined in memory: a store in dictionaries, and direct streams that are function calls.

Nothing here is random and nothing runs in a thread (`inline_threads`), so that a test under the mock clock
takes the same course every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import trio
from pool_fixture import POOL, START_S, Chain, frame, key, policy, verdict

from gossip.coverage import Approval
from gossip.epoch_events import Advanced, Finalize, Message, Settled, Submit
from gossip.errors import InvalidMessageError, PeerUnavailableError
from gossip.messages import Attest
from gossip.node import Node, open_node
from gossip.policy import PoolPolicy
from gossip.pull import Puller
from gossip.records import EvidenceBody, Record
from gossip.serve import serve
from gossip.settlement import Settlement, encode_checkpoint
from gossip.wire import kind_of

NOW_S = START_S + 10_000


class DiskError(Exception):
    """What the store raises when the test takes its disk away."""


@dataclass
class MemoryStore:
    """`gossip.store.Store` in dictionaries; `writes` says in which order things became durable."""

    own: list[bytes] = field(default_factory=list)
    by_number: dict[tuple[bytes, int], list[Record]] = field(default_factory=dict)
    kept: dict[int, dict[bytes, tuple[str, bytes]]] = field(default_factory=dict)
    objects: dict[bytes, bytes] = field(default_factory=lambda: {bytes(32): b"collateral of pool_fixture.evidence"})
    landed: list[Settlement] = field(default_factory=list)
    attested: dict[bytes, Settlement] = field(default_factory=dict)
    seconds: dict[bytes, int] = field(default_factory=dict)
    windows: list[int] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    is_broken: bool = False

    def _write(self, what: str) -> None:
        if self.is_broken:
            raise DiskError(what)
        self.writes.append(what)

    def append_own(self, record: Record, window: int | None = None) -> None:
        self._write("own")
        assert (record.node_key, record.seq) not in self.by_number, "a second record for one number"
        self.by_number[record.node_key, record.seq] = [record]
        self.own.append(record.wire)
        if window is not None:
            self.windows.append(window)

    def append(self, records: Sequence[Record]) -> None:
        self._write("records")
        for record in records:
            same = self.by_number.setdefault((record.node_key, record.seq), [])
            if record not in same:
                same.append(record)

    def records(self, node_key: bytes, first: int, last: int) -> Iterator[bytes]:
        for (owner, seq), records in sorted(self.by_number.items()):
            if owner == node_key and first <= seq <= last:
                yield from (record.wire for record in records)

    def all_records(self) -> Iterator[bytes]:
        for _, records in sorted(self.by_number.items()):
            yield from (record.wire for record in records)

    def keep_messages(self, epoch: int, messages: Sequence[Message], outcome: Settlement | None = None) -> None:
        self._write("messages")
        if outcome is not None:
            self.attested[outcome.payload_hash] = outcome
        for message in messages:
            name = message.operator + message.cert_hash if isinstance(message, Attest) else message.digest
            self.kept.setdefault(epoch, {})[name] = (kind_of(message), message.wire)

    def messages(self, epoch: int) -> Sequence[tuple[str, bytes]]:
        return list(self.kept.get(epoch, {}).values())

    def observation(self, digest: bytes) -> bytes | None:
        held = {
            name: wire for kept in self.kept.values() for name, (kind, wire) in kept.items() if kind == "observation"
        }
        return held.get(digest)

    def outcomes(self) -> Sequence[Settlement]:
        return list(self.attested.values())

    def keep_landed(self, settlement: Settlement) -> None:
        self._write("landed")
        self.attested.clear()
        self.landed.append(settlement)

    def last_landed(self) -> Settlement | None:
        return self.landed[-1] if self.landed else None

    def checkpoint(self, payload_hash: bytes) -> bytes | None:
        held = [*self.landed, *self.attested.values()]
        return next((encode_checkpoint(s) for s in held if s.payload_hash == payload_hash), None)

    def keep_attachment(self, digest: bytes, body: bytes) -> None:
        self._write("attachment")
        self.objects[digest] = body

    def attachment(self, digest: bytes) -> bytes | None:
        return self.objects.get(digest)

    def keep_witness(self, seconds: Mapping[bytes, int], gone: Collection[bytes] = ()) -> None:
        self._write("witness")
        self.seconds = {key: value for key, value in self.seconds.items() if key not in gone}
        self.seconds.update(seconds)

    def witness(self) -> Mapping[bytes, int]:
        return dict(self.seconds)


async def inline(function: Callable[..., object], *arguments: object, **_options: object) -> object:
    """Stands in for `trio.to_thread.run_sync`: the mock clock must not run on while a thread works."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@dataclass
class Member:
    """One node of a `Network` with its store and its puller."""

    i: int
    network: Network
    store: MemoryStore = field(default_factory=MemoryStore)
    clock_offset_s: int = 0

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Start, or start again, from what the store holds."""
        self.node: Node = open_node(
            key(self.i),
            POOL,
            policy(),
            self.store,
            lambda policy, node_key, body: self.network.verdict(self.store, policy, node_key, body),
            participants=[key(i).public for i in range(self.network.n)],
            now_s=lambda: self.network.now_s() + self.clock_offset_s,
        )
        self.puller = Puller(
            self.node, self, self.network.peers_of(self.i), sync_interval_s=30.0, close_interval_s=10.0
        )
        self.puller._random.seed(self.i)

    async def request(self, peer: bytes, payload: bytes, **_limits: float) -> bytes:
        """The transport's part: ask a peer over a direct stream."""
        await trio.lowlevel.checkpoint()
        return await self.network.request(self.i, peer, payload)


class Network:
    """`n` members, made inside of a trio run.

    `hostile[i]` answers in place of member `i`; those in `down` neither ask nor answer.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.verdict: Callable[[MemoryStore, PoolPolicy, bytes, EvidenceBody], Approval | None] = (
            lambda _store, policy, node_key, body: verdict(policy, node_key, body)
        )
        self._began = trio.current_time()
        self.hostile: dict[int, Callable[[bytes], bytes]] = {}
        self.down: set[int] = set()
        self.requests = 0
        self.index = {key(i).public: i for i in range(n)}
        self.members = [Member(i, self) for i in range(n)]

    def now_s(self) -> int:
        """The time of every member's clock: `NOW_S` when the network was made."""
        return NOW_S + int(trio.current_time() - self._began)

    def peers_of(self, i: int) -> Callable[[], Sequence[bytes]]:
        return lambda: [key(k).public for k in range(self.n) if k not in {i, *self.down}]

    async def request(self, asker: int, peer: bytes, payload: bytes) -> bytes:
        self.requests += 1
        i = self.index[peer]
        if i in self.down or asker in self.down:
            raise PeerUnavailableError("down")
        if i in self.hostile:
            return self.hostile[i](payload)
        try:
            return await serve(self.members[i].node, key(asker).public, payload)
        except InvalidMessageError:
            raise PeerUnavailableError("the stream was reset") from None


LIMIT_S = 3600
"""In mock time: what did not happen by then does not happen."""


async def until(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Wait for `holds`; raises `trio.TooSlowError` after `limit_s`."""
    with trio.fail_after(limit_s):
        while not holds():  # noqa: ASYNC110 many nodes change it, and the clock is a mock
            await trio.sleep(1)


def advanced(chain: Chain, n: int) -> Advanced:
    """The chain as a node sees it now; at first the end of epoch 1, with view 0 of its close open."""
    if not chain.open and chain.epoch == 1:
        chain.now_s = chain.end_s
        chain.finalize(1)
        chain.now_s += 25
    open_frame = frame(n, chain.open[0].epoch) if chain.open else None
    seen = {key(i).public: 50 for i in range(n)}
    return Advanced(view=chain.view(), operators=chain.operators, frame=open_frame, witnessed_s=seen)


async def follow(member: Member, chain: Chain) -> None:
    """What an agent's settling loop does: tell the node about the chain, and the chain what the node wants."""
    while True:
        await member.node.handle(advanced(chain, member.network.n))
        await trio.sleep(3)
        while member.node.chain_actions.statistics().current_buffer_used:
            match member.node.chain_actions.receive_nowait():
                case Submit() as submit:
                    chain.submit(submit)
                case Finalize(epoch):
                    chain.finalize(epoch)
                case Settled():
                    pass


async def tick(chain: Chain) -> None:
    """Let the chain's time pass with the mock clock."""
    while True:
        await trio.sleep(5)
        chain.now_s += 5
