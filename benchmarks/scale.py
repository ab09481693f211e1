"""What a large pool costs one agent in an epoch: bytes, CPU and memory, by what they are spent on, and how that grows.

Real nodes (`gossip.node`, `pull`, `serve`, the machine and all signatures) on a network in memory, in virtual time,
with `DELAY_S` from one to another. Every participant writes `RECORDS` records in the epoch, the last of them while
the epoch closes; the epoch before is settled already. The tally's verdicts on evidence are given for nothing
(`benchmarks.attestation`), and so are the disk (`benchmarks.records`) and the transport (`benchmarks.gossip`).

1. In small pools every operator is a node. In large ones only `nodes` of them are, and the others *stand in*: they sign
   real observations and attests, and what is asked of them a node answers in their place. As everybody serves as much
   as it asks, that answer's bytes and CPU are counted for whoever asked.
2. A gossip message is counted once for its maker and once for each receiver; a mesh passes each on some more times.
3. Memory is how much the process grew at most, by the number of nodes in it.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from benchmarks.scale_parts import RECORDS
from benchmarks.scale_pool import DELAY_S, Size, Spending, World

DEFAULT = (
    Size(operators=10, participants=100, nodes=10),
    Size(operators=25, participants=250, nodes=4),
    Size(operators=50, participants=500, nodes=3),
    Size(operators=100, participants=1_000, nodes=2),
    Size(operators=100, participants=1_000, nodes=1, is_stalled=True),
)
LARGE = (
    Size(operators=10, participants=100, nodes=10),
    Size(operators=25, participants=250, nodes=25),
    Size(operators=50, participants=500, nodes=50),
    Size(operators=100, participants=1_000, nodes=10),
    Size(operators=100, participants=10_000, nodes=1),
)


FIGURES = (
    ("cpu_s", "cpu_ns", 10**9),
    ("received_bytes", "received_bytes", 1),
    ("sent_bytes", "sent_bytes", 1),
)


def run(sizes: Sequence[Size] = DEFAULT) -> Iterator[dict[str, Any]]:
    """Measure each size in a process of its own, and say how CPU and bytes grow with operators x participants."""
    measured = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            result = process.submit(measure, size).result()
        if not size.is_stalled:
            measured.append(result)
        yield result
    yield {"growth_with": "operators x participants", **_growth(measured)}


def _growth(measured: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Exponents k of cost ~ (operators x participants)^k, by least squares over the sizes."""
    found = {}
    for name in ("cpu_s", "received_bytes", "memory_bytes"):
        points = [(math.log(m["operators"] * m["participants"]), math.log(m[f"{name}_total"])) for m in measured]
        x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
        spread = sum((x - x_mean) ** 2 for x, _ in points)
        found[name] = round(sum((x - x_mean) * (y - y_mean) for x, y in points) / spread, 2)
    return found


def measure(size: Size) -> dict[str, Any]:
    """One epoch's close of a pool of this size, per node."""
    trio.to_thread.run_sync = _inline  # type: ignore[assignment]  # the mock clock must not run on while a thread works
    world = World(size)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux, proc(5))
    before = _memory_bytes("VmRSS")
    trio.run(world.run, clock=MockClock(autojump_threshold=0), instruments=[Spending()])
    memory = (_memory_bytes("VmHWM") - before) // size.nodes
    lags_s = [member.certified_s - world.view_s for member in world.members]
    result: dict[str, Any] = {
        "operators": size.operators,
        "participants": size.participants,
        "nodes": size.nodes,
        "stalled": size.is_stalled,
        "records": RECORDS,
        "seconds": round(world.ended_s),
    }
    for name, field, unit in FIGURES:
        total: Counter[str] = Counter()
        for member in world.members:
            total += getattr(member, field)
        each = unit * size.nodes
        result[name] = {kind: _rounded(amount / each) for kind, amount in sorted(total.items())}
        result[f"{name}_total"] = _rounded(total.total() / each)
    return result | {
        "memory_bytes_total": memory,
        "delays_from_view_to_certificate": None if size.is_stalled else round(max(lags_s) / DELAY_S, 1),
        "dropped": dict(sum((member.node.drops for member in world.members), Counter())),
    }


def _rounded(amount: float) -> float:
    return round(amount, 3) if amount < 1000 else round(amount)


def _memory_bytes(key: str) -> int:
    """ "VmRSS": what the process has now; "VmHWM": the most it had since that was reset."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


async def _inline(function: Callable[..., object], *arguments: object, **_options: object) -> object:
    await trio.lowlevel.checkpoint()
    return function(*arguments)
