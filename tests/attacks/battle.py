"""One node under attack, seen by two honest peers that it must go on serving.

The victim, the attacker and the honest peers are processes of their own: the victim, so that its memory
is its own; the attacker, so that its work does not slow down the honest ones, who are this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from pool_fixture import POOL, key

from gossip import sync
from gossip.epoch_events import ObjectId
from gossip.errors import PeerUnavailableError
from gossip.sync import ObjectRequest
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import topic
from tests.attacks.arsenal import HOSTILE_MEMBER

REPOSITORY = Path(__file__).parents[2]
ROSTER = (1, 2, HOSTILE_MEMBER)
"""Numbers of the victim's peers: who asks and gossips, who listens, and who is on the attacker's side."""
ATTACK_S = 4.0
SETTLE_TIMEOUT_S = 20.0
ASK_EVERY_S = 0.1
GOSSIP_EVERY_S = 0.5
MEMORY_BYTES_MAX = 512 << 20
"""What an agent's unit has to allow at least (MemoryMax); docs/transport.md adds it up."""


@dataclass
class Outcome:
    """What one attack did, and what the victim did meanwhile and afterwards."""

    name: str
    sent: dict[str, int]
    peak_bytes: int = 0
    answered: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    gossiped: int = 0
    heard: int = 0
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0

    def faults(self) -> list[str]:
        """What did not hold: nothing, if the node withstood the attack."""
        held = {
            "nothing was sent": bool(self.sent),
            f"more than {MEMORY_BYTES_MAX >> 20} MiB": self.peak_bytes < MEMORY_BYTES_MAX,
            "no honest request was answered": self.answered > 0,
            "an honest request failed": self.failed == 0,
            "no gossip between honest peers arrived": self.heard > 0,
            "it did not come back to where it was": is_level(self.before, self.after),
        }
        return [fault for fault, is_held in held.items() if not is_held]

    def counted(self) -> dict[str, int]:
        """What the victim counted during the attack, by reason."""
        before, after = self.before["counters"], self.after["counters"]
        return {
            name: count - before.get(name, 0) for name, count in sorted(after.items()) if count > before.get(name, 0)
        }


class Victim:
    """The attacked process, from outside."""

    def __init__(self, process: trio.Process, ready: dict[str, Any], lines: AsyncIterator[dict[str, Any]]) -> None:
        self._process = process
        self._lines = lines
        self.address: str = ready["address"]
        self.node_key = bytes.fromhex(ready["node_key"])

    @property
    def port(self) -> int:
        return int(self.address.split("/")[4])

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def figures(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"\n")
        return await anext(self._lines)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def memory(self, name: str = "VmHWM") -> int:
        """Resident bytes: the peak since `reset_peak`, or (VmRSS) now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(row.split()[1]) << 10 for row in status.splitlines() if row.startswith(name))

    def reset_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def open_victim(roster: Sequence[str]) -> AsyncIterator[Victim]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.attacks.victim", *roster],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        lines = _json_lines(process)
        with trio.fail_after(60):
            ready = await anext(lines)
        yield Victim(process, ready, lines)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _json_lines(process: trio.Process) -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    assert process.stdout is not None
    async for chunk in process.stdout:
        buffer += chunk
        while b"\n" in buffer:
            row, _, buffer = buffer.partition(b"\n")
            yield json.loads(row)


class Honest:
    """Two peers of the victim's roster that know only the victim: one asks and gossips, the other listens."""

    def __init__(self, asker: Transport, listener: Transport, victim: Victim) -> None:
        self._asker = asker
        self._listener = listener
        self._victim = victim
        self._number = 0

    def is_connected(self) -> bool:
        """Whether both are connected with the victim."""
        views = (view for node in (self._asker, self._listener) for view in node.peers())
        return all(view.connected for view in views if view.node_key == self._victim.node_key)

    async def ask(self, outcome: Outcome) -> None:
        """Ask for ever, one request after the other."""
        request = sync.encode_request(ObjectRequest(ObjectId(kind="checkpoint", id=bytes(32))))
        while True:
            began_s = trio.current_time()
            try:
                await self._asker.request(self._victim.node_key, request)
            except PeerUnavailableError:
                outcome.failed += 1
            else:
                outcome.answered += 1
            outcome.slowest_s = max(outcome.slowest_s, trio.current_time() - began_s)
            await trio.sleep(ASK_EVERY_S)

    async def gossip(self, outcome: Outcome) -> None:
        while True:
            self._number += 1
            await self._asker.publish(self._number.to_bytes(8, "big"))
            outcome.gossiped += 1
            await trio.sleep(GOSSIP_EVERY_S)

    async def listen(self, outcome: Outcome) -> None:
        async for message in self._listener.messages:
            if message.origin == self._asker.node_key:
                outcome.heard += 1

    async def until_heard(self) -> None:
        """Gossip until the mesh carries it."""
        outcome = Outcome("", {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.gossip, outcome)
            nursery.start_soon(self.listen, outcome)
            while not outcome.heard:  # noqa: ASYNC110 another process's doing
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_honest(victim: Victim) -> AsyncIterator[Honest]:
    config = TransportConfig(listen=(), topic=topic(POOL))
    async with (
        open_transport(key(1).seed, config, serve=_answer_nothing) as asker,
        open_transport(key(2).seed, config, serve=_answer_nothing) as listener,
    ):
        for node in (asker, listener):
            # They know one another's keys, as a pool does, and connect with the victim alone.
            node.set_roster({victim.node_key: [victim.address], **{key(number).public: () for number in ROSTER}})
        yield Honest(asker, listener, victim)


async def _answer_nothing(_peer: bytes, _request: bytes) -> bytes:
    return b""


async def fight(victim: Victim, honest: Honest, name: str) -> Outcome:
    """One attack, and the time until everything is as before it."""
    outcome = Outcome(name, {}, before=await victim.figures())
    victim.reset_peak()
    async with trio.open_nursery() as nursery:
        for habit in (honest.ask, honest.gossip, honest.listen):
            nursery.start_soon(habit, outcome)
        outcome.sent = await _attack(victim, name)
        outcome.peak_bytes = victim.memory()
        nursery.cancel_scope.cancel()
    with trio.move_on_after(SETTLE_TIMEOUT_S):
        while not is_level(outcome.before, await victim.figures()):  # noqa: ASYNC110 another process's doing
            await trio.sleep(0.5)
    outcome.after = await victim.figures()
    outcome.rss_bytes = victim.memory("VmRSS")
    return outcome


async def _attack(victim: Victim, name: str) -> dict[str, int]:
    arguments = [name, str(victim.port), victim.node_key.hex(), str(ATTACK_S)]
    done = await trio.run_process(
        [sys.executable, "-m", "tests.attacks.attacker", *arguments], capture_stdout=True, cwd=REPOSITORY
    )
    sent: dict[str, int] = json.loads(done.stdout)
    return sent


def is_level(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether what an attack can pile up is gone."""
    piles = ("connections", "streams", "unread", "tasks")
    return all(after[name] <= before[name] for name in piles) and after["serving"] == [0, 0]


@asynccontextmanager
async def open_field() -> AsyncIterator[tuple[Victim, Honest]]:
    """The victim and its honest peers, connected, with gossip flowing."""
    roster = [key(number).public.hex() for number in ROSTER]
    async with open_victim(roster) as victim, open_honest(victim) as honest:
        with trio.fail_after(60):
            await honest.until_heard()
            await trio.sleep(2)  # the meshes settle; what the victim holds then is its level
        yield victim, honest


def table(outcomes: Sequence[Outcome]) -> str:
    """What was done, and what it did."""
    rows = ["attack | sent | peak MiB | asked: answered, failed | slowest s | gossip heard | after MiB"]
    for o in outcomes:
        sent = ", ".join(f"{count:,} {what}" for what, count in o.sent.items())
        rows.append(
            f"{o.name} | {sent} | {o.peak_bytes >> 20} | {o.answered}, {o.failed} | {o.slowest_s:.2f} | "
            f"{o.heard}/{o.gossiped} | {o.rss_bytes >> 20}"
        )
    return "\n".join(rows)
