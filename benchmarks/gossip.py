"""Gossip on our transport against a plain js-libp2p mesh: 10 processes each, the same load, one after the other.

All processes of a mesh are connected with one another and publish at random phases. Latency is from publishing in
one process to receipt in another; "CPU per delivery" is the CPU time of all processes, heartbeats included, by the
messages that arrived; memory is read from /proc at the end (PSS counts what processes share once). The js half is
left out, with a reason, where Node or its packages (`make interop` installs them) are missing.

    python -m benchmarks.gossip --per-s 4 --seconds 20 --processes 10 [--only ours|js]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INTEROP = HERE.parent / "tests" / "interop"
PROCESSES = 10
SECONDS = 20.0
SIZE = 400
RATES = (1.0, 4.0)
WARM_UP_S = 5.0
"""The meshes form, and just-in-time compilers work, before anything counts."""
GONE_AFTER_S = 3.0

COMMANDS = {
    "ours": [sys.executable, "-m", "benchmarks.gossip_node"],
    "js": ["node", str(HERE / "gossip_node.mjs")],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One mesh under one load."""

    delivered: float
    """Part of what should have arrived."""
    p50_ms: float
    p99_ms: float
    cpu_ms_per_delivery: float
    rss_mib: float
    pss_mib: float
    """Of one process, on average."""

    def rounded(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 3) for name in self.__slots__}


def run() -> Iterator[dict[str, Any]]:
    for per_s in RATES:
        yield compare(per_s, SECONDS, PROCESSES)


def compare(per_s: float, seconds: float, processes: int) -> dict[str, Any]:
    """Both meshes under one load, and ours by theirs."""
    ours = measure(COMMANDS["ours"], per_s, seconds, processes)
    result: dict[str, Any] = {
        "processes": processes,
        "messages_per_s_each": per_s,
        "bytes": SIZE,
        "seconds": seconds,
        "ours": ours.rounded(),
        "reference": "the same processes on js-libp2p with its own settings",
    }
    reason = js_missing()
    if reason is not None:
        return result | {"left_out": reason}
    theirs = measure(COMMANDS["js"], per_s, seconds, processes)
    ratios = {name: round(getattr(ours, name) / getattr(theirs, name), 2) for name in Measured.__slots__}
    return result | {"js": theirs.rounded(), "ratios": ratios}


def js_missing() -> str | None:
    """Why the js half cannot run, if it cannot."""
    if shutil.which("node") is None:
        return "Node is not installed"
    if not (INTEROP / "node_modules").is_dir():
        return "js-libp2p is not installed: make interop"
    return None


def measure(command: Sequence[str], per_s: float, seconds: float, processes: int) -> Measured:
    """Run one mesh under one load.

    Raises:
        RuntimeError: a process ended early; its errors are on stderr.
    """
    with ExitStack() as stack:
        mesh = [stack.enter_context(_Process([*command, str(number)])) for number in range(processes)]
        addresses = [process.read() for process in mesh]
        _tell_all(mesh, addresses)
        begin_ns = time.monotonic_ns() + int(WARM_UP_S * 1e9)
        until_ns = begin_ns + int(seconds * 1e9)
        results = _tell_all(mesh, {"per_s": per_s, "size": SIZE, "from_ns": begin_ns, "until_ns": until_ns})
        memory = [process.memory_mib() for process in mesh]
    latencies = sorted(ms for result in results for ms in result["latencies_ms"])
    sent = sum(result["sent"] for result in results)
    return Measured(
        delivered=len(latencies) / (sent * (processes - 1)),
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[len(latencies) * 99 // 100],
        cpu_ms_per_delivery=1000 * sum(result["cpu_s"] for result in results) / len(latencies),
        rss_mib=statistics.mean(rss for rss, _ in memory),
        pss_mib=statistics.mean(pss for _, pss in memory),
    )


def _tell_all(mesh: Sequence[_Process], line: object) -> list[Any]:
    for process in mesh:
        process.write(line)
    return [process.read() for process in mesh]


class _Process:
    """A process of the mesh: one line in, one line out."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # the last line that it waits for
        try:
            self._process.wait(timeout=GONE_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"process {self._process.pid} of the mesh ended early")
        return json.loads(line)

    def memory_mib(self) -> tuple[float, float]:
        """RSS and PSS."""
        fields = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {name: int(value.split()[0]) for name, _, value in (field.partition(":") for field in fields)}
        return kib["Rss"] / 1024, kib["Pss"] / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Gossip on our transport against js-libp2p.")
    parser.add_argument("--per-s", type=float, default=RATES[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--only", choices=sorted(COMMANDS))
    options = parser.parse_args()
    if options.only is None:
        print(json.dumps(compare(options.per_s, options.seconds, options.processes)))
        return
    measured = measure(COMMANDS[options.only], options.per_s, options.seconds, options.processes)
    print(json.dumps(measured.rounded()))


if __name__ == "__main__":
    main()
