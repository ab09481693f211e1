"""A chain that does not answer, as a command says it."""

from __future__ import annotations

import json

import pytest
from agent_on_disk import KEY_BASE64

from agent.cli import main
from agent.devnet.layout import free_ports


@pytest.mark.parametrize(("count", "many"), [(1, "the only one that is named"), (2, "none of the 2 named answers")])
def test_a_chain_that_is_away(capsys: pytest.CaptureFixture[str], count: int, many: str) -> None:
    ports = free_ports(count)
    servers = [text for port in ports for text in ("--liteserver", f"127.0.0.1:{port}:{KEY_BASE64}")]
    command = ["pool", "status", "--pool", "0:" + "ab" * 32, "--network", "-217", *servers]
    assert main([*command, "--json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(tuple(f"gpupool: liteserver 127.0.0.1:{port}: " for port in ports))
    assert said.err.endswith(f"; {many}: others go into [chain] of the settings\n")
    assert json.loads(said.out)["error"] == "chain_unavailable"
