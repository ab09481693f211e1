"""End to end: a pool of real processes on the embedded chain, with what can go wrong in it.

Each test runs `gpupool devnet` as a user does (in a process of its own) and then audits what is left on disk:
what an auditor recomputes from records and observations must be what the chain settled.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devnet_audit import audit

from agent.address_file import load_addresses

SUPPORT = Path(__file__).parents[1] / "support"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def run(arguments: list[str], directory: Path, program: list[str] | None = None) -> dict[str, Any]:
    command = [sys.executable, *(program or ["-m", "agent", "devnet"])]
    done = subprocess.run(
        [*command, "--epoch-seconds", "15", "--json", "--dir", str(directory), *arguments],
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_seven_agents_settle_while_one_is_killed_and_all_of_them_are_paid(tmp_path: Path) -> None:
    report = run(["--agents", "7", "--epochs", "2", "--chaos", "kill"], tmp_path / "net")
    assert report["ok"], report["faults"]
    assert [each["epoch"] for each in report["settlements"]][:2] == [1, 2]
    assert all(each["submitter"].startswith("agent-") for each in report["settlements"])
    assert len(report["participants"]) == 7
    for participant in report["participants"]:
        assert participant["claimed_nanoton"] == participant["earned_nanoton"] > 0
        assert participant["tokens"] > 0
        assert participant["uptime_s"] > 0
    books = report["books"]
    pots = sum(epoch["pot_nanoton"] for epoch in books["epochs"])
    dust = sum(epoch["dust_nanoton"] for epoch in books["epochs"])
    assert books["claimed_nanoton"] == pots - dust
    assert books["contract_nanoton"] >= books["liabilities_nanoton"]
    for i in range(6):  # who was stopped, not killed: each found all the others through the one that its config names
        seat = tmp_path / "net" / f"agent-{i}"
        assert (seat / "agent.toml").read_text().count("[[p2p.peers]]") == 1
        assert len(load_addresses(seat / "data" / "addresses")) == 7
    log = (tmp_path / "net" / "agent-6" / "agent.log").read_text()
    assert "stopped" not in log.rstrip().splitlines()[-1], "it was killed, not stopped"
    assert audit(tmp_path / "net", report) == [each["payload_hash"] for each in report["settlements"]]


@pytest.mark.long
def test_a_killed_agent_does_not_stop_settlement_and_catches_up_when_it_returns(tmp_path: Path) -> None:
    report = run(["--agents", "4", "--epochs", "3", "--chaos", "restart"], tmp_path / "net")
    assert report["ok"], report["faults"]
    assert len(report["settlements"]) >= 3
    log = (tmp_path / "net" / "agent-3" / "agent.log").read_text()
    assert log.count("taking part from record") == 2
    assert log.rstrip().splitlines()[-1].count("stopped")
    assert "epoch 3 settled" in log


@pytest.mark.long
def test_a_liar_is_outvoted_and_a_chain_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    """Both in one network: each is a minute, and neither hides the other."""
    liar = [str(SUPPORT / "devnet_with_liar.py")]
    report = run(["--agents", "4", "--epochs", "2", "--chaos", "chain"], tmp_path / "net", liar)
    assert report["ok"], report["faults"]
    assert len(report["settlements"]) >= 2
    assert all(participant["earned_nanoton"] > 0 for participant in report["participants"])
    log = (tmp_path / "net" / "agent-0" / "agent.log").read_text()
    assert "the chain is away" in log
    assert "the chain answers again" in log
    assert "Traceback" not in log
    assert audit(tmp_path / "net", report) == [each["payload_hash"] for each in report["settlements"]]


def test_ctrl_c_leaves_neither_processes_nor_files(tmp_path: Path) -> None:
    net = subprocess.Popen(
        [sys.executable, "-m", "agent", "devnet"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with net:
        assert net.stderr is not None
        said = next(line for line in net.stderr if "TON chain on" in line)
        net.send_signal(signal.SIGINT)
        rest = net.stderr.read()
    assert net.returncode == 130
    assert rest.rstrip().splitlines()[-1] == "interrupted"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(said.rpartition(":")[2]))):
        pass
