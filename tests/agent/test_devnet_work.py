"""End to end: a dev network whose work the chain vouches for, one agent that claims more than it did, evidence bundles.

The network is run by `gpupool devnet` as a user does, and what is left on disk is audited as in `test_devnet`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from devnet_audit import audit

from agent.audit.bundle import read_bundle
from agent.audit.verifying import verify
from agent.config import load_config

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def gpupool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=220, check=False)


def run(directory: Path, *arguments: str) -> dict[str, Any]:
    done = gpupool("devnet", "--epochs", "2", "--epoch-seconds", "20", "--json", "--dir", str(directory), *arguments)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def cocoon(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A network of three Cocoon workers, both schemas among them, of which the last lies, and what it reported."""
    net = tmp_path_factory.mktemp("cocoon") / "net"
    return net, run(net, "--source", "cocoon", "--agents", "3", "--cheat", "inflate")


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


def test_tokens_credited_to_cocoon_workers_are_tokens_paid_on_chain(cocoon: tuple[Path, dict[str, Any]]) -> None:
    """The devnet itself fails if the two sides differ."""
    net, report = cocoon
    assert report["ok"], report["faults"]
    rows = report["credits"]["rows"]
    assert [row["name"] for row in rows] == ["agent-0", "agent-1", "agent-2"]
    for row, participant in zip(rows, report["participants"], strict=True):
        assert 0 < row["credited"] == row["vouched"] == participant["tokens"] < row["claimed"]
    liar, honest = rows[-1], rows[:-1]
    assert report["credits"]["cheat"]["agents"] == [liar["name"]]
    assert liar["claimed"] > 5 * max(row["claimed"] for row in honest)
    assert report["credits"]["cheat"]["percent"] < 115, "an honest share, give or take what loads differ by"
    assert audit(net, report) == [each["payload_hash"] for each in report["settlements"]]


def test_what_real_agents_settled_follows_from_what_one_of_them_exports(
    cocoon: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    net, report = cocoon
    landed = {each["epoch"]: each["payload_hash"] for each in report["settlements"]}
    exported = {i: tmp_path / f"{i}.audit" for i in range(3)}
    with chain_again(net):
        for i, epoch in ((0, 1), (1, 2), (2, 2)):
            config = str(net / f"agent-{i}" / "agent.toml")
            done = gpupool("audit", "export", "--epoch", str(epoch), "--config", config, "--out", str(exported[i]))
            assert done.returncode == 0, done.stderr
            assert "is not what landed" not in done.stderr
    for i, epoch in ((0, 1), (1, 2), (2, 2)):
        done = gpupool("audit", "verify", str(exported[i]), "--json")
        found = json.loads(done.stdout)
        assert done.returncode == 0, found
        assert found["recomputed"] == found["landed"] == landed[epoch]
        assert all(check["holds"] for check in found["checks"])
    one, other = read_bundle(exported[1]), read_bundle(exported[2])
    assert one.settled == other.settled
    first, second = ({each.index: each.signature for each in bundle.signatures} for bundle in (one, other))
    shared = first.keys() & second.keys()
    assert shared, "each has a quorum, not always the same one"
    assert {index: first[index] for index in shared} == {index: second[index] for index in shared}
    assert verify(one).is_same
