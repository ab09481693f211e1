"""One process of the mesh that `benchmarks.gossip` measures, on our transport.

It prints its address; then answers two lines on stdin, one line of JSON each: the addresses of all, once it is
connected with them; and a load, with what came of it (see `Load`). `gossip_node.mjs` is the same on js-libp2p.
"""

from __future__ import annotations

import cProfile
import hashlib
import json
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import trio

from gossip.transport import Transport, TransportConfig, open_transport

CONNECT_TIMEOUT_S = 30.0
STRAGGLERS_S = 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """Publish `per_s` messages of `size` bytes a second until `until_ns`; count those sent after `from_ns`.

    Times are of CLOCK_MONOTONIC, which all processes of a machine share.
    """

    per_s: float
    size: int
    from_ns: int
    until_ns: int


class Meter:
    """What one process sent and received: a message is its time (8 bytes), its sender's number (4), filling."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: list[int] = []
        self.received: list[tuple[int, float]] = []

    def message(self, size: int) -> bytes:
        now_ns = time.monotonic_ns()
        self.sent.append(now_ns)
        return (now_ns.to_bytes(8, "big") + self.number.to_bytes(4, "big")).ljust(size, b"\0")

    def count(self, data: bytes) -> None:
        sent_ns = int.from_bytes(data[:8], "big")
        self.received.append((sent_ns, (time.monotonic_ns() - sent_ns) / 1e6))

    def result(self, load: Load, cpu_s: float) -> dict[str, Any]:
        return {
            "sent": sum(load.from_ns <= sent_ns < load.until_ns for sent_ns in self.sent),
            "latencies_ms": [ms for sent_ns, ms in self.received if load.from_ns <= sent_ns < load.until_ns],
            "cpu_s": cpu_s,
        }


async def _main(number: int) -> None:
    config = TransportConfig(listen=("/ip4/127.0.0.1/tcp/0",), topic="gpupool/benchmark")
    lines = trio.wrap_file(sys.stdin)
    async with open_transport(hashlib.sha256(b"%d" % number).digest(), config, serve=_refuse) as transport:
        _say([transport.node_key.hex(), transport.addresses[0]])
        await _connect(transport, dict(json.loads(await lines.readline())))
        _say("connected")
        load, meter = Load(**json.loads(await lines.readline())), Meter(number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_receive, transport, meter)
            await _sleep_until(time.monotonic_ns() + int(random.random() / load.per_s * 1e9))
            nursery.start_soon(_publish, transport, meter, load)
            await _sleep_until(load.from_ns)
            before_s = time.process_time()
            await _sleep_until(load.until_ns)
            cpu_s = time.process_time() - before_s
            await trio.sleep(STRAGGLERS_S)
            nursery.cancel_scope.cancel()
        _say(meter.result(load, cpu_s))
        await lines.readline()


async def _connect(transport: Transport, addresses: dict[str, str]) -> None:
    transport.set_roster({bytes.fromhex(node_key): (address,) for node_key, address in addresses.items()})
    with trio.fail_after(CONNECT_TIMEOUT_S):
        while not all(peer.connected for peer in transport.peers()):  # noqa: ASYNC110 what it looks at has no event
            await trio.sleep(0.1)


async def _publish(transport: Transport, meter: Meter, load: Load) -> None:
    due_ns = time.monotonic_ns()
    while due_ns < load.until_ns:
        await transport.publish(meter.message(load.size))
        due_ns += int(1e9 / load.per_s)
        await _sleep_until(due_ns)


async def _receive(transport: Transport, meter: Meter) -> None:
    async for message in transport.messages:
        meter.count(message.data)


async def _refuse(_peer: bytes, _request: bytes) -> bytes:
    raise NotImplementedError("this benchmark asks nothing")


async def _sleep_until(time_ns: int) -> None:
    await trio.sleep(max(0, time_ns - time.monotonic_ns()) / 1e9)


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    """Run the process; PROFILE names a file into which the first one's profile is written."""
    number, path = int(sys.argv[1]), os.environ.get("PROFILE")
    if path is None or number != 0:
        trio.run(_main, number)
        return
    with cProfile.Profile() as profile:
        trio.run(_main, number)
    profile.dump_stats(path)


if __name__ == "__main__":
    main()
