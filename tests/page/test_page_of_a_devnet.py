"""The status page of a real agent, from its first second to its last, as a browser and the listener's paths show it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser import browser, require_browser

require_browser()
pytestmark = pytest.mark.long

AGENTS = 4
START_S = 120
CHECKS = (Path(__file__).parent / "checks.js").read_text()


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pool that goes on for longer than the test."""
    command = [
        "devnet",
        "--agents",
        str(AGENTS),
        "--epochs",
        "60",
        "--epoch-seconds",
        "20",
        "--dir",
        str(tmp_path / "net"),
    ]
    with (tmp_path / "devnet.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "agent", *command], stderr=log, stdout=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def port_of(config: Path, process: subprocess.Popen[bytes]) -> int:
    """Where the agent of this file listens, once it does."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, "the devnet ended by itself"
        if config.exists():
            port = int(tomllib.loads(config.read_text())["web"]["port"])
            try:
                httpx.get(f"http://localhost:{port}/-/healthy", trust_env=False)
            except httpx.TransportError:
                continue
            return port
    raise AssertionError("no agent listens")


@pytest.mark.timeout(400)
def test_from_the_first_second_to_the_last(devnet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    port = port_of(tmp_path / "net" / "agent-0" / "agent.toml", devnet)
    with browser() as window:
        window.open(f"http://localhost:{port}/")
        window.wait_s = 150
        window.until(lambda: window.text("h1") == "You earn")
        window.until(lambda: "The doctor looked" in window.text("main"))
        window.until(lambda: "who heard whom in epoch" in window.text("#peers"))
        assert "Operators connected\n3 of 3" in window.text("#peers")
        rows = len(window.driver.find_elements("css selector", "#epochs tbody tr"))
        window.until(lambda: len(window.driver.find_elements("css selector", "#epochs tbody tr")) > rows)
        window.until(lambda: " closes: " in window.text("#close"))
        window.until(lambda: "of its time is over" in window.text("#close"))
        assert re.search(r"Close of epoch \d+\n\d+ of \d+ attested \(\d+ %\), \d+ needed", window.text("#close"))
        for width in (1280, 360):
            window.size(width)
            assert window.ask(CHECKS) == []
        assert window.complaints() == []
        with browser(has_scripts=False) as plain:
            plain.open(f"http://localhost:{port}/")
            assert plain.text("h1") == "You earn"
        devnet.send_signal(signal.SIGTERM)
        devnet.wait(timeout=60)
        window.until(lambda: "The agent stopped answering at" in window.text("[role=status]"))
        assert window.text("h1") == "You earn"
