"""sd_notify: what systemd hears, and silence where there is no systemd."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.notify import STATUS_CHARS_MAX, Notifier


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        yield path, receiver


def test_messages(supervisor: tuple[str, socket.socket]) -> None:
    path, receiver = supervisor
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": path})
    notifier.starting("checking the journal", 90)
    notifier.ready("epoch 7")
    notifier.status("waiting\nREADY=1")
    notifier.watchdog()
    notifier.stopping("stopping")
    assert [receiver.recv(1024) for _ in range(5)] == [
        b"STATUS=checking the journal\nEXTEND_TIMEOUT_USEC=90000000",
        b"READY=1\nSTATUS=epoch 7",
        b"STATUS=waiting READY=1",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=stopping",
    ]


def test_what_others_say_stays_in_its_line_and_short(supervisor: tuple[str, socket.socket]) -> None:
    path, receiver = supervisor
    Notifier(path).status("the chain: \r\nWATCHDOG=1\x1e\ud800" + "x" * 10_000)
    (line,) = receiver.recv(65_536).decode().split("\n")
    assert line.startswith("STATUS=the chain: WATCHDOG=1")
    assert len(line) <= STATUS_CHARS_MAX


def test_abstract_socket() -> None:
    name = f"gpupool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.setblocking(False)
        Notifier.from_environment({"NOTIFY_SOCKET": f"@{name}"}).watchdog()
        assert receiver.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_systemd_nothing_happens(environment: dict[str, str]) -> None:
    with capture_logs() as logs:
        Notifier.from_environment({**environment, "WATCHDOG_USEC": "1000000"}).ready("up")
    assert logs == []


def test_supervisor_that_is_gone_is_logged_only(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).watchdog()
    assert [line["event"] for line in logs] == ["systemd not notified"]


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "", 30.0),
        pytest.param("30000000", str(os.getpid()), 30.0, id="its own"),
        ("30000000", "1", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_watchdog_interval(usec: str, pid: str, expected: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environment).watchdog_s == expected
