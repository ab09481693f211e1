"""What it costs to have an agent that has nothing to do but take part: 4 agents, engines without load.

Read from /proc of one agent over a minute in which epochs close, while it is scraped as a Prometheus would. Beside it
in the same run, scraped as often: Debian's prometheus-node-exporter, where it is installed, which an operator has on
each host anyway; and a bare Python that imports the same libraries and sleeps: the floor below which no agent of these
packages can come.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from agent.devnet.layout import free_ports

WARM_UP_S = 35
WATCHED_S = 60
SCRAPE_INTERVAL_S = 5
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Watched:
    """One process, and its metrics page if it has one."""

    name: str
    pid: int
    url: str | None = None
    cpu_before_s: float = 0.0
    scrape_ms: list[float] = field(default_factory=list)
    page: bytes = b""

    def scrape(self, client: httpx.Client) -> None:
        if self.url is not None:
            before = time.perf_counter()
            self.page = client.get(self.url).raise_for_status().content
            self.scrape_ms.append(1000 * (time.perf_counter() - before))

    def value(self, elapsed_s: float) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "rss_mib": round(_rss(self.pid) / 2**20, 1),
            "cpu_percent": round(100 * (_cpu_s(self.pid) - self.cpu_before_s) / elapsed_s, 2),
        }
        if self.scrape_ms:
            series = sum(not line.startswith(b"#") for line in self.page.splitlines())
            figures |= {
                "scrape_ms_median": round(statistics.median(self.scrape_ms), 1),
                "scrape_ms_max": round(max(self.scrape_ms), 1),
                "scrape_bytes": len(self.page),
                "scrape_series": series,
            }
        return figures


def run() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpupool-idle-"))) / "net"
        bare = _started(stack, [sys.executable, "-c", "import agent.daemon, time; time.sleep(600)"])
        exporter, port = shutil.which("prometheus-node-exporter"), free_ports(1)[0]
        options = ["--epochs", "6", "--epoch-seconds", "30", "--rate", "0", "--dir", str(folder), "--keep"]
        net = _started(stack, [sys.executable, "-m", "agent", "devnet", *options])
        watched = [_Watched("reference", bare)]
        if exporter is not None:
            pid = _started(stack, [exporter, f"--web.listen-address=127.0.0.1:{port}"])
            watched.append(_Watched("node_exporter", pid, f"http://127.0.0.1:{port}/metrics"))
        time.sleep(WARM_UP_S)
        web = tomllib.loads((folder / "agent-0" / "agent.toml").read_text())["web"]
        agent = _Watched("agent", _agent_of(net), f"http://127.0.0.1:{web['port']}/metrics")
        watched.append(agent)
        elapsed_s = _watch(watched)
        figures = {each.name: each.value(elapsed_s) for each in watched}
        yield {
            **figures.pop("agent"),
            "watched_s": round(elapsed_s),
            "reference": "a Python process that imports the same modules and sleeps",
            "reference_rss_mib": figures.pop("reference")["rss_mib"],
            "node_exporter": figures.get("node_exporter", "not installed: apt install prometheus-node-exporter"),
        }


def _watch(watched: list[_Watched]) -> float:
    """Scrape them now and then for a minute; how long it was."""
    started_s = time.monotonic()
    for each in watched:
        each.cpu_before_s = _cpu_s(each.pid)
    with httpx.Client(trust_env=False, timeout=10) as client:
        while time.monotonic() - started_s < WATCHED_S:
            for each in watched:
                each.scrape(client)
            time.sleep(SCRAPE_INTERVAL_S)
    return time.monotonic() - started_s


def _started(stack: ExitStack, command: list[str]) -> int:
    """Start a process that ends with the stack; its id."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def _agent_of(net: int) -> int:
    """Process id of the first agent that the dev network started."""
    for pid in _children(net):
        command = _command(pid)
        if b"run" in command and b"agent-0" in command[-2]:
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
