"""A bare Debian 12 under its own systemd, in a container: the host on which the package is tried.

The network is a namespace that all machines of one run and the pool beside them share; it has loopback and nothing
else, so nothing can be fetched from anywhere.

Source: systemd-nspawn(1), --notify-ready; sd_notify(3), X_NSPAWN_LEADER_PID; nsenter(1).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BOOT_S = 60.0
STOP_S = 30.0
COMMAND_S = 120.0
POLL_S = 0.25
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "adduser", "ca-certificates", "procps")
_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb", "LC_ALL=C.UTF-8", "HOME=/root", "SYSTEMD_COLORS=0")


class StepFailedError(Exception):
    """Something did not happen that should have; the message says what."""


def bootstrap(tar: Path) -> None:
    """Make a bare Debian 12 as a tar file, unless it is there. Raises CalledProcessError."""
    if not tar.exists():
        packages = ",".join(PACKAGES)
        aside = tar.with_suffix(".new.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", aside], check=True
        )
        aside.rename(tar)


class Machine:
    """One container. `shared` is seen at the same path in it, for reading."""

    def __init__(self, name: str, tar: Path, folder: Path, namespace: str, shared: Path) -> None:
        self.name = name
        self.root = folder / name
        self._namespace = namespace
        self._shared = shared
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        self.root.mkdir()
        subprocess.run(["tar", "--extract", f"--directory={self.root}", f"--file={tar}"], check=True)
        (self.root / "etc" / "hostname").write_text(f"{name}\n")

    def boot(self) -> None:
        """Start it, and wait until its systemd says that it is up.

        Raises:
            StepFailedError: it is not, within BOOT_S.
        """
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            path = f"{folder}/notify"
            notified.bind(path)
            notified.settimeout(BOOT_S)
            command = [
                "systemd-nspawn",
                "--quiet",
                "--boot",
                "--register=no",
                "--keep-unit",
                "--notify-ready=yes",
                f"--machine={self.name}",
                f"--directory={self.root}",
                f"--network-namespace-path=/run/netns/{self._namespace}",
                f"--bind-ro={self._shared}",
            ]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={"NOTIFY_SOCKET": path, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                )
            is_up = False
            while not (is_up and self._leader):
                try:
                    told = dict(line.split("=", 1) for line in notified.recv(4096).decode().splitlines() if "=" in line)
                except TimeoutError:
                    raise StepFailedError(f"{self.name} did not boot: see {self._log}") from None
                self._leader = int(told.get("X_NSPAWN_LEADER_PID", self._leader or 0))
                is_up = is_up or told.get("READY") == "1"

    def run(self, *command: str, environment: Sequence[str] = (), timeout_s: float = COMMAND_S) -> str:
        """What a command printed, which has to succeed. Raises StepFailedError."""
        code, output, errors = self.attempt(*command, environment=environment, timeout_s=timeout_s)
        if code != 0:
            raise StepFailedError(f"{self.name}: {' '.join(command)}: exit code {code}\n{output}{errors}".rstrip())
        return output

    def attempt(
        self, *command: str, environment: Sequence[str] = (), timeout_s: float = COMMAND_S
    ) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        assert self._leader is not None
        inside = ["nsenter", f"--target={self._leader}", "--all", "--", "env", "-i", *_ENVIRONMENT, *environment]
        done = subprocess.run(
            [*inside, *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def stop(self) -> None:
        """Shut it down; what does not end within STOP_S is killed."""
        if self._process is None:
            return
        if self._process.poll() is None and self._leader:
            subprocess.run(["kill", "-s", "RTMIN+4", str(self._leader)], check=False)  # systemd(1): power off
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None

    # What a service is asked.

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str, *options: str) -> str:
        """The unit's journal."""
        return self.run("journalctl", "--no-pager", f"--unit={unit}", *options)


def wait_for(what: str, holds: Callable[[], bool], *, within_s: float) -> None:
    """Look again and again. Raises StepFailedError if it does not hold within that time."""
    until_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until_s:
            raise StepFailedError(f"not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)


def require(holds: bool, what: str) -> None:
    """Raise StepFailedError if it does not hold; `what` says what should have."""
    if not holds:
        raise StepFailedError(what)
