"""The embedded chain as a process: start, stop, continue, and refuse with one line."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.chain import LiteServer, open_chain
from contracts.devchain.__main__ import main, read_genesis
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.storage import FILE_NAME
from contracts.errors import InvalidValueError
from tests.contracts.chain_scene import FUNDS, GENESIS, own_address

COMMAND = [sys.executable, "-m", "contracts.devchain", "--block-seconds", "0.1"]


@pytest.fixture
def genesis(tmp_path: Path) -> Path:
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps([{"address": str(a), "nanoton": n} for a, n in GENESIS.items()]))
    return path


class Process:
    """A running chain; `ready` is the line that it printed."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--dir", str(directory), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.server = LiteServer(
            host=self.ready["host"],
            port=self.ready["port"],
            public_key=base64.b64decode(self.ready["public_key"]),
        )

    def stop(self, how: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def started() -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for one in processes:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_it_starts_stops_and_continues(
    tmp_path: Path, genesis: Path, started: list[Process], how: signal.Signals
) -> None:
    directory, last = tmp_path / "chain", None
    for _ in range(2):
        chain_process = Process(directory, "--genesis", str(genesis))
        started.append(chain_process)
        assert json.loads((directory / "liteserver.json").read_text()) == chain_process.ready
        async with open_chain([chain_process.server]) as chain:
            assert await chain.global_id() == chain_process.ready["global_id"] == DEVNET_GLOBAL_ID
            assert (await chain.account(own_address())).balance_nanoton == FUNDS
            block = await chain.head()
            if last is not None:
                assert await chain.block_by_seqno(last.seqno) == last
            last = await chain.wait_next(block.seqno, 20)
        code, errors = chain_process.stop(how)
        assert code == (-how if how is signal.SIGKILL else 0)
        assert errors == ""
    assert started[0].ready["public_key"] == started[1].ready["public_key"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must refuse with exit code 1 and one line."""
    assert main(arguments) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    return errors


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal(capsys, "--dir", str(tmp_path), "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line


def test_a_damaged_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database " * 1000)
    assert "restore it from a copy" in refusal(capsys, "--dir", str(tmp_path))


def test_a_missing_genesis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "--dir", str(tmp_path), "--genesis", str(tmp_path / "none.json"))
    assert "none.json" in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "[3]",
        '[{"address": "0:12", "nanoton": 1}]',
        f'[{{"address": "{own_address()}"}}]',
        f'[{{"address": "{own_address()}", "nanoton": -1}}]',
        f'[{{"address": "{own_address()}", "nanoton": 1.5}}]',
        f'[{{"address": "{own_address()}", "nanoton": "1"}}]',
    ],
)
def test_a_bad_genesis(tmp_path: Path, text: str) -> None:
    path = tmp_path / "genesis.json"
    path.write_text(text)
    with pytest.raises(InvalidValueError):
        read_genesis(path)


def test_a_genesis_is_read(genesis: Path) -> None:
    assert read_genesis(genesis) == GENESIS


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "soon"])
def test_block_seconds_are_bounded(tmp_path: Path, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--dir", str(tmp_path), "--block-seconds", seconds])
    assert "--block-seconds" in capsys.readouterr().err
