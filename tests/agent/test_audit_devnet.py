"""End to end: an epoch that real agents settled on the embedded chain, exported by one of them and verified offline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.audit.bundle import read_bundle
from agent.audit.verifying import verify
from agent.config import load_config

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(240)]


@contextmanager
def chain_again(net: Path) -> Iterator[None]:
    """The dev network's chain, which ended with it, goes on where its agents look for it."""
    (server,) = load_config(net / "agent-0" / "agent.toml").chain.liteservers
    command = [
        "-m",
        "contracts.devchain",
        "--dir",
        str(net / "chain"),
        "--host",
        server.host,
        "--port",
        str(server.port),
    ]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["port"] == server.port
            yield
        finally:
            process.terminate()


def gpupool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments], capture_output=True, text=True, timeout=200, check=False
    )


def test_what_real_agents_settled_follows_from_what_one_of_them_exports(tmp_path: Path) -> None:
    net = tmp_path / "net"
    size = ("--agents", "4", "--epochs", "2", "--epoch-seconds", "15")
    ran = gpupool("devnet", *size, "--json", "--keep", "--dir", str(net))
    assert ran.returncode == 0, ran.stderr
    landed = {each["epoch"]: each["payload_hash"] for each in json.loads(ran.stdout)["settlements"]}
    with chain_again(net):
        for i, epoch in ((0, 1), (1, 2), (2, 2)):
            config, target = str(net / f"agent-{i}" / "agent.toml"), str(tmp_path / f"{i}.audit")
            done = gpupool("audit", "export", "--epoch", str(epoch), "--config", config, "--out", target)
            assert done.returncode == 0, done.stderr
            assert "is not what landed" not in done.stderr
    for i, epoch in ((0, 1), (1, 2), (2, 2)):
        done = gpupool("audit", "verify", str(tmp_path / f"{i}.audit"), "--json")
        found = json.loads(done.stdout)
        assert done.returncode == 0, found
        assert found["recomputed"] == found["landed"] == landed[epoch]
        assert all(check["holds"] for check in found["checks"])
    one, other = (read_bundle(tmp_path / f"{i}.audit") for i in (1, 2))
    assert one.settled == other.settled
    assert one.signatures == other.signatures
    assert verify(one).is_same
