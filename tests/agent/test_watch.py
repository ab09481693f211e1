"""The live screen: what it shows of each state, how it is left, and that an agent may go away and come back."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import termios
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from agent_on_disk import agent_on_disk, answering
from doctor_facts import NOW_S, evidence, healthy, own, peer, source, status_tree, told
from rich.console import Console
from trio.testing import MockClock

from agent.cli import main
from agent.doctor.diagnosis import diagnose
from agent.doctor.facts import Facts
from agent.doctor.status_form import read_status
from agent.watch import DOCTOR_INTERVAL_S, Seen, _Watch, look, watch
from agent.watch_view import Frame, watch_view

CLOSE = {"epoch": 2, "view": 0, "observations": 3, "attested_weight": 2, "total_weight": 4, "certified": False}


def drawn(tree: dict[str, Any] | None, **changes: Any) -> str:
    values: dict[str, Any] = {"away": None, "seen_ago_s": 0, "findings": diagnose(healthy()), "now_s": NOW_S}
    status = None if tree is None else read_status(tree)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(watch_view(Frame(status=status, **{**values, **changes})))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def test_a_healthy_agent() -> None:
    assert drawn(status_tree()).splitlines() == [
        f"agent     1.0, up 24 h 0 min, node {status_tree()['node_key'][:16]}",
        "chain     block 7, 2 s old; epoch 2 ends in 1:35",
        "evidence  in force for 1:00:00",
        "work      no window closed yet; 12,345 tokens in 6 tasks since start",
        "engine 0  vllm, read 3 s ago; requests_running 2",
        "peers     3 of 3 connected; operators' weight in reach: 4 of 4",
        "close     no epoch is closing",
        "settled   epoch 1; own share of epoch 1 25.0 %, 900 tokens, 2.000 TON in all, 0.000 TON to claim",
        "doctor    nothing is wrong",
        "",
        "q leaves",
    ]


@pytest.mark.parametrize(
    ("sections", "shown"),
    [
        ({"close": CLOSE}, "close     epoch 2 view 0, 3 observations\n          ███████████████░░░░░░░░░░░░░░░ 2 of 4"),
        ({"close": {**CLOSE, "attested_weight": 4, "certified": True}}, "4 of 4, quorum 3  certified"),
        ({"close": {**CLOSE, "attested_weight": 99}}, f"{'█' * 30} 4 of 4"),
        ({"close": {**CLOSE, "total_weight": 0}}, "close     no epoch is closing"),
        ({"chain": None}, "chain     the agent does not know `chain` yet"),
        ({"chain": {"seqno": None}}, "chain     not reached yet"),
        ({"chain": {"seqno": 7, "age_s": 3, "epoch": 2, "epoch_end_s": NOW_S - 61}}, "epoch 2 over since 1:01"),
        ({"chain": {"seqno": 7, "age_s": 3, "error": "refused"}}, "chain     block 7, 3 s old; refused"),
        ({"evidence": evidence(valid=False, alarm="no TDX")}, "evidence  none in force; no TDX"),
        ({"evidence": evidence(place_taken_by="ab" * 32)}, "abababababababab holds the place on this machine"),
        (
            {"evidence": evidence(place_taken_by="ab" * 32, is_gpu_taken=True)},
            "the place on a GPU that this host proves",
        ),
        ({"work": {"tokens": 7, "tokens_per_s": 41.25}}, "work      41.2 tokens/s; 7 tokens in 0 tasks since start"),
        ({"work": {"error": "refused"}}, "0 tasks since start; refused"),
        ({"sources": [source(error="\x1b[2J")]}, "engine 0  '\\x1b[2J'"),
        ({"sources": [source("nvml", notes=["GPU 0 throttles"])]}, "GPU 0 throttles"),
        ({"sources": [source(gauges={f"g{i}": i for i in range(9)})]}, "; g7 7; and 1 more"),
        ({"sources": [source(sampled_s=None)]}, "not read yet"),
        ({"sources": "many"}, "sources   the agent tells of `sources` in a form that this command does not know"),
        ({"peers": [peer(1), peer(2, connected=False)]}, "peers     1 of 2 connected"),
        (
            {"own": own(reasons=["2 windows without evidence"])},
            "0.000 TON to claim\n          2 windows without evidence",
        ),
        ({"own": None}, "settled   epoch 1\n"),
        ({"settled": {"epoch": 0}}, "settled   nothing yet"),
    ],
)
def test_what_is_to_be_seen_shows(sections: dict[str, Any], shown: str) -> None:
    assert shown in drawn(status_tree(**sections))


def test_an_agent_that_is_away_leaves_what_it_said_last() -> None:
    text = drawn(status_tree(), away="nothing answers", seen_ago_s=9)
    assert text.startswith("agent     away: nothing answers; what follows is 9 s old\nchain     block 7")
    never = drawn(None, away="nothing answers", seen_ago_s=None, findings=None)
    assert never.splitlines()[:2] == ["agent   away: nothing answers", "doctor  looking"]


def test_the_worst_finding_comes_first() -> None:
    facts = told(sources=[source(error="refused", notes=["a note"])], version="0.9")
    lines = drawn(None, findings=diagnose(facts)).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("doctor")] == ["problem", "warning", "note"]


def test_nothing_that_an_agent_says_breaks_the_screen() -> None:
    for value in (None, 7, "x", [], {}, [[]], {"a": {}}, -1, 1e308):
        assert "q leaves" in drawn(dict.fromkeys(status_tree(), value))


async def test_an_agent_that_goes_away_and_comes_back() -> None:
    seen = Seen()
    with answering({"/-/status": (200, json.dumps(status_tree()).encode())}) as port:
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            await look(client, seen)
    assert (seen.away, seen.status is not None) == (None, True)
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        await look(client, seen)
    assert "nothing answers" in str(seen.away)
    assert seen.status is not None, "what it said last is kept"
    with answering({"/-/status": (200, b"hello")}) as port:
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            await look(client, seen)
    assert "is not an agent" in str(seen.away)


async def test_the_doctor_looks_again_with_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    handed: list[Facts | None] = []

    async def collect(_: Path, *, before: Facts | None) -> Facts:
        handed.append(before)
        return healthy()

    monkeypatch.setattr("agent.watch.collect", collect)
    with trio.move_on_after(1.5 * DOCTOR_INTERVAL_S):
        await _Watch(agent_on_disk(tmp_path), 1.0)._diagnose()
    assert handed == [None, healthy()]


# The terminal.


class Screen(io.StringIO):
    """A terminal's output; the user presses q once something of the agent is on it."""

    def __init__(self, keyboard: int, key: bytes) -> None:
        super().__init__()
        self._keyboard = keyboard
        self._key = key

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "agent" in text:
            os.write(self._keyboard, self._key)
        return super().write(text)


@pytest.mark.parametrize("key", [b"q", b"\x1b[AxQ", b"\x04"])
def test_a_key_leaves_and_the_terminal_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    config = agent_on_disk(tmp_path)
    keyboard, terminal = os.openpty()
    with os.fdopen(keyboard, "rb", buffering=0), os.fdopen(terminal, "rb", buffering=0) as stdin:
        before = termios.tcgetattr(terminal)
        screen = Screen(keyboard, key)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", screen)
        code = watch(argparse.Namespace(config=config.path, interval=0.2, json=False))
        after = termios.tcgetattr(terminal)
    assert code == 0
    assert after == before
    assert "away: nothing answers" in screen.getvalue()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--watch: needs a terminal; without one: gpupool status, or --json"),
        (["--json"], "--watch: not with --json"),
        (["--interval", "0"], "--interval 0: expected 0.2 to 3600 seconds"),
        (["--interval", "nan"], "--interval nan: expected 0.2 to 3600 seconds"),
    ],
)
def test_what_cannot_be_watched(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["status", "--watch", *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_an_agent_whose_port_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = agent_on_disk(tmp_path, web_port=0)
    keyboard, terminal = os.openpty()
    with os.fdopen(keyboard, "rb", buffering=0), os.fdopen(terminal, "rb", buffering=0) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["status", "--watch", "--config", str(config.path)]) == 2
    assert "web.port is 0" in capsys.readouterr().err


def test_a_terminal_that_draws_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = agent_on_disk(tmp_path)
    keyboard, terminal = os.openpty()
    with os.fdopen(keyboard, "rb", buffering=0), os.fdopen(terminal, "rb", buffering=0) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")
        os.write(keyboard, b"q")
        assert main(["status", "--watch", "--config", str(config.path)]) == 2
    errors = capsys.readouterr().err
    assert "--watch: no screen can be drawn on this terminal (TERM=dumb): gpupool status, or" in errors
    assert errors.count("\n") == 1
