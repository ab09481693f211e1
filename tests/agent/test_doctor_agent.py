"""The doctor at the running agent: it is found wherever it listens, and a stranger at its port is told from it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from agent_on_disk import agent_on_disk, answering
from doctor_facts import status_tree
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from agent import client
from agent.client import ask_status
from agent.doctor import probing_agent
from agent.doctor.facts import (
    DaemonFacts,
    DaemonState,
    Unknown,
)
from agent.doctor.probing_agent import ask_running
from agent.identity import load_key
from agent.journal import open_journal
from agent.web import Probes, WebConfig, serve_web
from gossip.records import PoolId


async def asked(tmp_path: Path, pages: dict[str, tuple[int, bytes]]) -> DaemonFacts:
    with answering(pages) as port:
        daemon = await ask_running(agent_on_disk(tmp_path, web_port=port))
    assert isinstance(daemon, DaemonFacts)
    return daemon


async def test_an_agent_that_is_not_ready(tmp_path: Path) -> None:
    status = json.dumps(status_tree()).encode()
    pages = {"/-/status": (200, status), "/-/healthy": (200, b"ok\n"), "/-/ready": (503, b"waiting for the chain\n")}
    daemon = await asked(tmp_path, pages)
    assert (daemon.state, daemon.healthy, daemon.ready) == (DaemonState.UP, None, "waiting for the chain")
    assert not isinstance(daemon.status, Unknown)
    assert daemon.status.reach == msgspec.convert({"weight": 4, "total_weight": 4}, type(daemon.status.reach))


async def test_only_a_refusal_is_a_no(tmp_path: Path) -> None:
    """A page that is not there says nothing of an agent's health."""
    status = json.dumps(status_tree()).encode()
    daemon = await asked(tmp_path, {"/-/status": (200, status), "/-/ready": (421, b"not that host")})
    assert daemon.healthy == Unknown("/-/healthy: answered status 404")
    assert daemon.ready == Unknown("/-/ready: answered status 421")


async def test_a_probe_that_hangs_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def fetch(_: object, path: str, __: float) -> tuple[int, bytes]:
        if path == "/-/healthy":
            await trio.sleep_forever()
        return (200, json.dumps(status_tree()).encode()) if path == "/-/status" else (503, b"no evidence\n")

    monkeypatch.setattr(probing_agent, "fetch", fetch)
    daemon = await ask_running(agent_on_disk(tmp_path))
    assert isinstance(daemon, DaemonFacts)
    assert daemon.healthy == Unknown("/-/healthy: not answered within 0.5 s")
    assert daemon.ready == "no evidence"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1"])
async def test_an_agent_is_found_wherever_it_listens(tmp_path: Path, host: str) -> None:
    """Its listener serves this host by name alone, so it must not be asked by the address that it listens on."""
    probes = Probes(healthy=lambda: None, ready=lambda: None, status=lambda: {"node_key": "ab"}, page=no_page)
    web = WebConfig(host=host, port=0, allowed_hosts=("node.example",))
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(serve_web, web, CollectorRegistry(), probes)
        config = agent_on_disk(tmp_path)
        there = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, host=host, port=port))
        daemon = await ask_running(there)
        assert isinstance(daemon, DaemonFacts)
        assert (daemon.state, daemon.healthy, daemon.ready) == (DaemonState.UP, None, None)
        assert await trio.to_thread.run_sync(ask_status, there) == {"node_key": "ab"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("page", [(200, b"hello"), (200, b"[1]"), (200, b"{}"), (500, b"{}"), (200, b"[" * 100_000)])
async def test_what_answers_is_no_agent(tmp_path: Path, page: tuple[int, bytes]) -> None:
    daemon = await asked(tmp_path, {"/-/status": page})
    assert daemon.state is DaemonState.STRANGER
    assert "is not an agent" in daemon.detail


async def test_an_answer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES_MAX", 99)
    daemon = await asked(tmp_path, {"/-/status": (200, bytes(100))})
    assert daemon.state is DaemonState.STRANGER
    assert "longer than 99 bytes" in daemon.detail


async def test_nobody_answers(tmp_path: Path) -> None:
    config = agent_on_disk(tmp_path)
    public = load_key(config.resolve(config.identity.node_key_file)).public
    down = await ask_running(config)
    with closing(open_journal(config.journal_file, node_key=public, pool=PoolId(-217, b"\xab" * 32))):
        silent = await ask_running(config)
    assert isinstance(down, DaemonFacts)
    assert isinstance(silent, DaemonFacts)
    assert (down.state, silent.state) == (DaemonState.DOWN, DaemonState.SILENT)


async def no_page() -> str:
    return ""
