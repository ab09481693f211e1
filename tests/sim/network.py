"""The network: takes a message from one agent to another, late, twice or never.

Messages travel as bytes where bytes can be wrong (records, observations, proposals, attests) and are read at
their end. Reading is a pure function of the bytes, so it is remembered: seven agents check one signature once.

Source: PROTOCOL, "Spreading".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pool_fixture import POOL

from gossip.epoch_events import Message, ObjectId
from gossip.log_chain import Head, RecordRange
from gossip.records import Record, parse_record, verify_record
from gossip.wire import parse_message

if TYPE_CHECKING:
    from tests.sim.world import World

REMEMBERED_MAX = 4096


@functools.lru_cache(REMEMBERED_MAX)
def read_message(kind: str, wire: bytes) -> Message:
    return parse_message(kind, wire, POOL)


@functools.lru_cache(REMEMBERED_MAX)
def read_record(wire: bytes) -> Record:
    return verify_record(parse_record(wire, POOL))


@dataclass(frozen=True, slots=True)
class Gossip:
    """A message of the topic."""

    kind: str
    wire: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one agent asks of another in one stream: its heads, ranges, objects, what it holds of `epoch`."""

    heads: bool = False
    epoch: int | None = None
    ranges: tuple[RecordRange, ...] = ()
    objects: tuple[ObjectId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to `ask`, for whoever lives the life in which it asked."""

    ask: Ask
    life: int
    heads: Mapping[bytes, Head] = field(default_factory=dict)
    records: tuple[bytes, ...] = ()
    objects: tuple[tuple[ObjectId, bytes], ...] = ()
    messages: tuple[Message, ...] = ()


Packet: TypeAlias = Gossip | Ask | Answer


class Network:
    """Delivers packets between the agents of a world; what is lost or late is drawn."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, sender: int, receiver: int, packet: Packet) -> None:
        """Send one packet. Loss, delay and duplicates are as planned until the network heals."""
        world, plan, rng = self._world, self._world.plan, self._world.rng
        copies = 1
        if not world.is_healed:
            if any(
                sender in wall.senders and receiver in wall.receivers and wall.from_s <= world.elapsed_s < wall.until_s
                for wall in plan.partitions
            ):
                return
            loss = plan.gossip_loss if isinstance(packet, Gossip) and plan.gossip_loss else plan.loss
            if loss and rng.random() < loss:
                return
            copies += bool(plan.duplication and rng.random() < plan.duplication)
        elif isinstance(packet, Gossip) and plan.gossip_loss:
            return  # a pool without gossip stays one: streams alone must do
        for _ in range(copies):
            delay_ms = rng.randint(1, 200 if world.is_healed else plan.delay_ms_max)
            world.after(delay_ms, "", lambda: self._deliver(sender, receiver, packet))

    def _deliver(self, sender: int, receiver: int, packet: Packet) -> None:
        agent = self._world.agents[receiver]
        if not agent.is_up:
            return
        self._world.note(f"{sender} > {receiver} {_describe(packet)}")
        match packet:
            case Gossip():
                agent.take_gossip(packet)
            case Ask():
                agent.serve(sender, packet)
            case Answer():
                agent.take_answer(sender, packet)


def _describe(packet: Packet) -> str:
    match packet:
        case Gossip(kind, wire):
            return f"{kind} {wire[-64:-58].hex()}"
        case Ask():
            return f"asks {len(packet.ranges)} ranges, {len(packet.objects)} objects"
        case Answer():
            return (
                f"answers {len(packet.records)} records, {len(packet.objects)} objects, {len(packet.messages)} messages"
            )
