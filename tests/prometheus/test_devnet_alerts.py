"""A real Prometheus watches a dev network: silent while all is well; then parts are broken, and mended again.

Needs Debian's package prometheus: `make alerts-test`. What is broken one by one, thirty things, is `make faults`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from devnet_beside import Devnet, held, run_devnet
from prometheus_run import Prometheus, missing_program, run_prometheus

from agent.identity import load_key
from agent.keys.marker import note_backup

AGENTS = tuple(f"agent-{number}" for number in range(4))
FIRED = 'count(max_over_time(ALERTS{alertstate="firing"}[20s]))'

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(missing_program() is not None, reason=str(missing_program())),
]


def test_alerts_fire_for_what_is_broken_and_for_nothing_else(tmp_path: Path) -> None:
    with run_devnet(tmp_path / "net", "--agents", "4", "--epochs", "40", "--epoch-seconds", "20") as net:
        net.wait(lambda: all((net.folder / name / "agent.toml").exists() for name in AGENTS), "agents are set up", 60)
        for name in AGENTS:
            back_up(net.folder / name)
        with run_prometheus({name: net.target(name) for name in AGENTS}) as prometheus:
            require_silence(net, prometheus)
            assert not prometheus.firing()
            require_sound_exposition(net)
            an_engine_stands_still(net, prometheus)
            the_chain_stands_still(net, prometheus)
            two_of_four_operators_stand_still(net, prometheus)


def back_up(folder: Path) -> None:
    """Note that the keys are backed up, as `gpupool keys backup` does; else an alert says that they are not."""
    for name in ("node.key", "wallet.key"):
        public = load_key(folder / name).public
        note_backup(folder / name, public_key=public, backup=folder / "backup", made_s=1)


def require_silence(net: Devnet, prometheus: Prometheus) -> None:
    """Once the first epochs are over, of which the agents were not there for all, nothing fires for a whole epoch."""
    settled = "count(gpupool_settled_epoch >= {}) == 4"
    net.wait(lambda: bool(prometheus.query(settled.format(3))), "epoch 3 is settled", 150)
    net.wait(lambda: not prometheus.firing(), "nothing fires", 30)
    epoch = int(prometheus.wait_value("min(gpupool_settled_epoch)"))
    net.wait(lambda: bool(prometheus.query(settled.format(epoch + 1))), "one more is settled", 60)
    assert prometheus.query(FIRED) == []
    assert prometheus.wait_value("sum(gpupool_own_score_ratio)") == pytest.approx(1, abs=0.01)
    assert prometheus.wait_value("min(gpupool_earned_ton_total)") > 0


def require_sound_exposition(net: Devnet) -> None:
    served = httpx.get(f"http://{net.target(AGENTS[0])}/metrics", trust_env=False)
    checked = subprocess.run(["promtool", "check", "metrics"], input=served.content, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def an_engine_stands_still(net: Devnet, prometheus: Prometheus) -> None:
    with held(net.pid("agent.devnet.engine", "1001")):
        prometheus.wait_firing("GpupoolSourceDown", "agent-1")
        assert prometheus.firing()["GpupoolSourceDown"] == {"agent-1"}
    prometheus.wait_resolved("GpupoolSourceDown", "agent-1")


def the_chain_stands_still(net: Devnet, prometheus: Prometheus) -> None:
    with held(net.pid("contracts.devchain")):
        for name in AGENTS:
            prometheus.wait_firing("GpupoolChainUnreachable", name)
    for name in AGENTS:
        prometheus.wait_resolved("GpupoolChainUnreachable", name)


def two_of_four_operators_stand_still(net: Devnet, prometheus: Prometheus) -> None:
    with held(net.agent_pid("agent-2")), held(net.agent_pid("agent-3")):
        prometheus.wait_firing("GpupoolAgentDown", "agent-3")
        prometheus.wait_firing("GpupoolQuorumOutOfReach", "agent-0", timeout_s=90)
        assert prometheus.firing()["GpupoolAgentDown"] == {"agent-2", "agent-3"}
    prometheus.wait_resolved("GpupoolAgentDown", "agent-3")
    prometheus.wait_resolved("GpupoolQuorumOutOfReach", "agent-0")
