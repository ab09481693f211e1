"""Where the agent's listeners listen: a listener for receipts that cannot costs nothing else, and keys are named."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from agent_on_disk import agent_on_disk

from agent import daemon
from agent.cli import main
from agent.daemon import RECEIPTS_RETRY_S, Agent
from agent.errors import AddressAwayError, ConfigError, PortInUseError
from agent.listening import listen_address
from agent.tables import ReceiptsTable
from agent.web import WebConfig

NOT_OURS = "192.0.2.1"
"""Of a range for documentation: no host has it."""


@pytest.mark.parametrize("name", ["", "gpu7:9464", "http://gpu7", "[::1]", "*", "gpu 7", "a" * 254])
def test_names_that_no_host_header_bears(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^web\.allowed_hosts: expected names or addresses without port"):
        listen_address("web.", "127.0.0.1", ["gpu7.example", name])


def taking(table: ReceiptsTable) -> Any:
    """As much of an agent as takes receipts."""

    async def settled(_: object) -> None:
        pass

    return SimpleNamespace(
        config=SimpleNamespace(receipts=table),
        key=SimpleNamespace(public=bytes(32)),
        receipts=SimpleNamespace(settled=settled),
        receipts_error=None,
    )


NODE: Any = SimpleNamespace(
    logs={bytes(32): None}, machine=SimpleNamespace(base=SimpleNamespace(reading=lambda _key: None))
)


async def test_receipts_are_taken_once_their_address_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    away = AddressAwayError("host: cannot listen on 10.8.0.7 port 9470: Cannot assign requested address")
    failures: list[Exception] = [away, away, PortInUseError("10.8.0.7 port 9470 is in use by another process")]
    taken, errors = trio.Event(), []

    async def serve(_app: object, place: WebConfig) -> None:
        assert place == WebConfig(host="10.8.0.7", port=9470, allowed_hosts=("gpu7",))
        if failures:
            raise failures.pop(0)
        taken.set()
        await trio.sleep_forever()

    monkeypatch.setattr(daemon, "serve_local", serve)
    agent = taking(ReceiptsTable(port=9470, host="10.8.0.7", allowed_hosts=("gpu7",)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Agent._serve_receipts, agent, NODE)
        for _ in range(3):
            await trio.sleep(RECEIPTS_RETRY_S - 1)
            errors.append(agent.receipts_error)
            await trio.sleep(1.1)
        await taken.wait()
        assert agent.receipts_error is None
        nursery.cancel_scope.cancel()
    assert errors == [
        f"receipts.{away}",
        f"receipts.{away}",
        "receipts.port: 10.8.0.7 port 9470 is in use by another process",
    ]
    assert [each.message for each in caplog.records if each.levelno == logging.ERROR] == [
        f"no receipts are taken: {error}" for error in errors[1:]
    ], "each reason once"


async def test_an_address_that_is_not_this_hosts_does_not_end_the_agent(autojump_clock: object) -> None:
    agent = taking(ReceiptsTable(port=9470, host=NOT_OURS, allowed_hosts=(NOT_OURS,)))
    with trio.move_on_after(3 * RECEIPTS_RETRY_S) as scope:
        await Agent._serve_receipts(agent, NODE)
    assert scope.cancelled_caught
    assert agent.receipts_error.startswith(f"receipts.host: cannot listen on {NOT_OURS} port 9470: ")


def test_an_address_that_is_not_this_hosts_is_named_with_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "forbid_dumps", lambda: None)
    config = agent_on_disk(tmp_path)
    table = f'[web]\nhost = "{NOT_OURS}"\nallowed_hosts = ["{NOT_OURS}"]'
    config.path.write_text(config.path.read_text().replace("[web]", table))
    assert main(["run", "--config", str(config.path)]) == 1, "it may come: the unit tries again"
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"gpupool: {config.path}: web.host: cannot listen on {NOT_OURS} port ")
