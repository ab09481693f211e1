"""What the commands are made of: amounts, the question to the running agent, the settlement behind a claim."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agent import arguments, claims, client
from agent.claims import landed_settlement
from agent.client import NoAgentError, NotThereError, ask_agent, ask_status
from agent.config import Config
from agent.errors import ConfigError, JournalError, OperationError
from agent.output import note
from agent.screens import ton_exact
from agent.setup import Answers, init_agent
from contracts.model import NANO

KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="


def made_agent(folder: Path, web_port: int = 0) -> Config:
    answers = Answers(
        network=-217,
        pool="0:" + "ab" * 32,
        policy_file="policy.toml",
        liteservers=[("127.0.0.1", 4924, KEY_BASE64)],
        work={"engine": {"url": "http://127.0.0.1:8000/metrics"}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root.der"},
        web_port=web_port,
    )
    return init_agent(folder, answers).config


@contextmanager
def listener(code: int, body: bytes) -> Iterator[tuple[int, list[str]]]:
    """A server on loopback that answers everything with this; its port, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


# Amounts and other arguments.


@given(st.integers(1, 10**19 - 1))
def test_amounts_are_read_to_the_last_nanoton(nanoton: int) -> None:
    assert arguments.parse_ton("--stake", ton_exact(nanoton).removesuffix(" TON")) == nanoton


@given(st.text(max_size=24))
def test_no_text_is_an_amount_by_accident(text: str) -> None:
    try:
        nanoton = arguments.parse_ton("--stake", text)
    except ConfigError:
        return
    assert 0 < nanoton < 10**10 * NANO
    assert set(text) <= set("0123456789.")


@pytest.mark.parametrize(
    ("text", "host"), [("example.org", "example.org"), ("[2001:db8::1]", "2001:db8::1"), ("203.0.113.5", "203.0.113.5")]
)
def test_a_liteserver_may_stand_anywhere(text: str, host: str) -> None:
    assert arguments.parse_liteserver(f"{text}:4924:{KEY_BASE64}") == (host, 4924, KEY_BASE64)


@pytest.mark.parametrize(("text", "global_id"), [("mainnet", -239), ("testnet", -3), ("-217", -217)])
def test_networks(text: str, global_id: int) -> None:
    assert arguments.global_id(arguments.parse_network(text)) == global_id


# The running agent.


def test_a_status(tmp_path: Path) -> None:
    with listener(200, b'{"node_key": "ab"}') as (port, asked):
        assert ask_status(made_agent(tmp_path, port)) == {"node_key": "ab"}
    assert asked == ["/-/status"]


@pytest.mark.parametrize("body", [b"", b"hello", b"[1]", b'{"status": "ok"}', b"\xff"])
def test_what_answers_is_not_an_agent(tmp_path: Path, body: bytes) -> None:
    with listener(200, body) as (port, _), pytest.raises(OperationError, match=f"127.0.0.1:{port} is not an agent"):
        ask_status(made_agent(tmp_path, port))


def test_an_agent_that_refuses_says_why(tmp_path: Path) -> None:
    with listener(404, b"no such settlement here\n") as (port, _), pytest.raises(NotThereError) as refused:
        ask_agent(made_agent(tmp_path, port), "/-/checkpoint")
    assert str(refused.value).endswith("/-/checkpoint: no such settlement here")


def test_an_agent_that_refuses_without_a_word(tmp_path: Path) -> None:
    with listener(302, b"") as (port, _), pytest.raises(OperationError, match="/-/checkpoint: answered status 302"):
        ask_agent(made_agent(tmp_path, port), "/-/checkpoint")


def test_an_answer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES_MAX", 99)
    with listener(200, bytes(100)) as (port, _), pytest.raises(OperationError, match="longer than 99 bytes"):
        ask_agent(made_agent(tmp_path, port), "/-/checkpoint")


def test_an_answer_that_drips_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:

        def drip() -> None:
            stream, _ = server.accept()
            with stream, suppress(OSError):
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while stream.send(b" "):
                    if select.select([stream], [], [], 0.02)[0] and not stream.recv(4096):
                        return

        threads.submit(drip)
        with pytest.raises(NoAgentError, match="no answer within"):
            ask_agent(made_agent(tmp_path, server.getsockname()[1]), "/-/status")


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(NoAgentError, match="is it running"):
        ask_agent(made_agent(tmp_path), "/-/status")


# The settlement behind a claim.


class Reader:
    """A pool whose last settlement has this epoch."""

    def __init__(self, epoch: int) -> None:
        self._landed = SimpleNamespace(epoch=epoch, payload_hash=bytes([7]) * 32)

    async def rewards(self) -> Any:
        return SimpleNamespace(landed=self._landed)


async def landed(config: Config, monkeypatch: pytest.MonkeyPatch, epoch: int = 3) -> None:
    monkeypatch.setattr(claims, "PoolReader", lambda _chain, _pool: Reader(epoch))
    await landed_settlement(None, config, note)  # type: ignore[arg-type]


async def test_nothing_is_settled_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperationError, match="no epoch is settled yet"):
        await landed(made_agent(tmp_path), monkeypatch, epoch=0)


async def test_without_an_agent_its_journal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = made_agent(tmp_path)
    with pytest.raises(OperationError, match="does not know the settlement of epoch 3 yet"):
        await landed(config, monkeypatch)
    config.journal_file.unlink()
    with pytest.raises(OperationError, match="no agent answers, and its journal cannot be read") as refused:
        await landed(config, monkeypatch)
    assert isinstance(refused.value.__cause__, JournalError)


async def test_the_agent_is_asked_for_that_settlement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(200, b"garbage") as (port, asked), pytest.raises(OperationError, match="has not caught up"):
        await landed(made_agent(tmp_path, port), monkeypatch)
    assert asked == ["/-/checkpoint?payload_hash=" + "07" * 32]


async def test_an_agent_that_does_not_have_it_yet_is_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(claims, "CATCH_UP_S", 2.5)
    with (
        listener(404, b"") as (port, asked),
        pytest.raises(OperationError, match="does not know the settlement of epoch 3 yet"),
    ):
        await landed(made_agent(tmp_path, port), monkeypatch)
    assert len(asked) == 4
    assert capsys.readouterr().err.count("waiting for the agent to learn of the settlement of epoch 3") == 1


async def test_an_agent_that_fails_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(500, b"broken") as (port, asked), pytest.raises(OperationError, match="broken"):
        await landed(made_agent(tmp_path, port), monkeypatch)
    assert len(asked) == 1
