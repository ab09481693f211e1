"""Memory and CPU of an agent that has nothing to do but take part: 4 agents, engines without load.

Read from /proc of one agent over a minute in which epochs close, beside a bare Python that imports the
same libraries and sleeps: the floor below which no agent of these packages can come.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WARM_UP_S = 35
WATCHED_S = 60
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def run() -> Iterator[dict[str, Any]]:
    bare = subprocess.Popen([sys.executable, "-c", "import agent.daemon, time; time.sleep(600)"])
    net = subprocess.Popen(
        [sys.executable, "-m", "agent", "devnet", "--epochs", "6", "--epoch-seconds", "30", "--rate", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(WARM_UP_S)
        agent = _agent_of(net.pid)
        before, started = _cpu_s(agent), time.monotonic()
        time.sleep(WATCHED_S)
        used, elapsed = _cpu_s(agent) - before, time.monotonic() - started
        yield {
            "rss_mib": round(_rss(agent) / 2**20, 1),
            "cpu_percent": round(100 * used / elapsed, 2),
            "watched_s": round(elapsed),
            "reference": "a Python process that imports the same modules and sleeps",
            "reference_rss_mib": round(_rss(bare.pid) / 2**20, 1),
        }
    finally:
        for process in (bare, net):
            process.terminate()
            process.wait()


def _agent_of(net: int) -> int:
    """Process id of one agent that the dev network started."""
    for pid in _children(net):
        if b"run" in _command(pid):
            return pid
    raise LookupError(f"no agent runs under process {net} after {WARM_UP_S} s; try `gpupool devnet` to see why")


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _command(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
