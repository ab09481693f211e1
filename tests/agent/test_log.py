"""Logs: one JSON line an event, nothing secret in it, libraries quiet."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.log import setup_logging
from gossip import libp2p_patches


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_event_is_one_json_line() -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream)
    structlog.get_logger("agent.x").info("epoch settled", epoch=7, peer="a\nb\x1b[31m")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("epoch settled", "info", "agent.x")
    assert (line["epoch"], line["peer"]) == (7, "a\nb\x1b[31m")
    assert line["timestamp"].endswith("Z")
    assert "\x1b" not in stream.getvalue()


def test_secrets_and_long_values_are_not_written() -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream)
    seed = bytes(range(32))
    structlog.get_logger("agent.test").info(
        "key loaded", seed=seed, wallet_seed="hunter2", node_key=seed, text="x" * 10_000
    )
    (line,) = lines(stream)
    assert (line["seed"], line["wallet_seed"], line["node_key"]) == ("(secret)", "(secret)", "0001020304050607…")
    assert len(line["text"]) < 3000
    assert "hunter2" not in stream.getvalue()
    assert seed.hex() not in stream.getvalue()


def test_libraries_log_through_the_same_lines_but_quietly() -> None:
    stream = io.StringIO()
    library = logging.getLogger("library.host")
    # As libp2p does when it is imported.
    logging.getLogger("library").propagate = False
    setup_logging("debug", stream=stream)
    library.info("chatter")
    library.warning("stream %d reset", 3)
    logging.getLogger("elsewhere").info("chatter of a library that nobody thought of")
    logging.getLogger("agent.daemon").info("told")
    assert [line["event"] for line in lines(stream)] == ["stream 3 reset", "told"]


@pytest.mark.parametrize("is_installed_before", [False, True])
def test_libp2p_tells_nothing_but_the_critical(is_installed_before: bool) -> None:
    """Its warnings are about single peers, and each peer could fill the log: libp2p_patches counts what matters."""
    stream = io.StringIO()
    if is_installed_before:
        libp2p_patches.install()
    setup_logging("debug", stream=stream)
    libp2p_patches.install()
    logging.getLogger("libp2p.host").error("a peer went")
    logging.getLogger("libp2p.host").critical("nothing goes any more")
    assert [line["event"] for line in lines(stream)] == ["nothing goes any more"]


def test_level_is_kept() -> None:
    stream = io.StringIO()
    setup_logging("warning", stream=stream)
    log = structlog.get_logger("agent.test")
    log.info("not this")
    log.warning("this")
    assert [line["event"] for line in lines(stream)] == ["this"]


def test_exception_is_in_the_line() -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream)
    try:
        raise KeyError("lost")
    except KeyError:
        structlog.get_logger("agent.test").exception("loop failed")
    (line,) = lines(stream)
    assert "KeyError: 'lost'" in line["exception"]


def test_terminal_gets_readable_lines() -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream, form="console")
    structlog.get_logger("agent.test").info("epoch settled", epoch=7, peer="\x1b[31m")
    assert "epoch settled" in stream.getvalue()
    assert "epoch=7" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        setup_logging("loud")


def test_the_journal_gets_levels_and_no_time() -> None:
    stream = io.StringIO()
    setup_logging("debug", stream=stream, form="journal")
    log = structlog.get_logger("agent.test")
    log.info("epoch settled", epoch=7, peer="a\n<0>b")
    log.warning("late")
    logging.getLogger("library").error("stream %d reset", 3)
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("loop failed")
    told = stream.getvalue().splitlines()
    assert told[:3] == [
        "<6>agent.test: epoch settled epoch=7 peer='a\\n<0>b'",
        "<4>agent.test: late",
        "<3>library: stream 3 reset",
    ]
    assert told[3] == "<3>agent.test: loop failed"
    assert all(line.startswith("<3>") for line in told[3:])
    assert told[-1] == "<3>KeyError: 'lost'"


@pytest.mark.parametrize(("is_this_stream", "begins_with"), [(True, "<6>agent.test: told"), (False, '{"event"')])
def test_the_journal_is_told_by_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_this_stream: bool, begins_with: str
) -> None:
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + (not is_this_stream)}")
        setup_logging("info", stream=stream)
        structlog.get_logger("agent.test").info("told")
        stream.seek(0)
        assert stream.read().startswith(begins_with)
