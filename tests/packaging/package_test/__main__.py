"""The package on bare Debian 12 hosts, from installation to purge, beside a dev network that it joins.

    python -m tests.packaging.package_test --old OLD.deb --new NEW.deb [--keep]

`make package-test` builds both packages (the same tree, two versions) and runs it. Needs root and a Linux on which
containers can be made; the programs come from Debian (mmdebstrap, systemd-container, iproute2). Each step is printed
with what it took; the first that fails ends the run with exit code 1 and what the hosts said. All that was started is
stopped by its own process id, and the folder is removed, unless --keep is given or a step failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.packaging.package_test import unit_steps
from tests.packaging.package_test.host import CONFIG, NANO, UNIT, Host
from tests.packaging.package_test.machine import Machine, StepFailedError, bootstrap, require
from tests.packaging.package_test.pool import Pool

PASSPHRASE = "correct horse battery staple of package tests"
BACKUP, JOURNAL, SECRET = "/root/agent.age", "/root/agent.journal", "/root/passphrase"


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        sys.stdout.write("package-test: needs root, to make containers\n")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="gpupool-package-"))
    namespace = folder.name
    run = _Run(folder, namespace, old=options.old.resolve(), new=options.new.resolve())
    failed = True
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # an end like any other: all is stopped
    try:
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        subprocess.run(["ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up"], check=True)
        run.story()
        failed = False
    except (StepFailedError, subprocess.SubprocessError, OSError) as error:
        sys.stdout.write(f"FAILED  {error}\n")
        run.tell()
    finally:
        run.stop()
        subprocess.run(["ip", "netns", "delete", namespace], check=False)
        if failed or options.keep:
            sys.stdout.write(f"kept: {folder}\n")
        else:
            shutil.rmtree(folder)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="package-test", description=__doc__.partition("\n")[0])
    parser.add_argument("--old", type=Path, required=True, metavar="DEB", help="the package")
    parser.add_argument("--new", type=Path, required=True, metavar="DEB", help="the same as a later version")
    parser.add_argument("--keep", action="store_true", help="leave the hosts' files where they are")
    return parser


class _Run:
    """One run: the pool, two hosts, and the steps in their order."""

    def __init__(self, folder: Path, namespace: str, *, old: Path, new: Path) -> None:
        self._folder, self._namespace = folder, namespace
        self._old, self._new = old, new
        self._pool: Pool | None = None
        self._hosts: list[Host] = []

    def story(self) -> None:
        """Every step, the first things first. Raises StepFailedError at the first that fails."""
        tar = Path("build") / "package-test" / "bookworm.tar"
        self._step("two bare Debian 12 trees", lambda: bootstrap(tar))
        pool = self._pool = Pool(self._folder / "pool", self._namespace)
        first, second = self._hosts = [self._host(tar, name, pool) for name in ("host-a", "host-b")]
        self._step("a dev network of one agent", pool.wait_until_up)
        self._step("host-a boots", first.machine.boot)
        self._step("the package is installed, without a network; nothing starts", lambda: self._install(first))
        self._step("gpupool init; gpupool pool register", first.join)
        self._step("systemctl start: READY=1", first.start)
        self._step("it takes part, and says so", lambda: first.wait_for_line("earning"))
        self._step("sandbox, credentials", lambda: unit_steps.the_sandbox(first))
        self._step("journal, metrics, watchdog", lambda: unit_steps.what_it_says(first))
        self._step("it earns", lambda: _ton(first.wait_until_earning()))
        self._step("gpupool doctor finds nothing in the way", lambda: first.machine.run("gpupool", "doctor") and None)
        self._step("keys encrypted to the host", lambda: unit_steps.keys_that_are_encrypted(first))
        self._step("gpupool pool claim", lambda: first.machine.run("gpupool", "pool", "claim").strip())
        for name, step in (
            ("what hangs or dies comes back", unit_steps.what_hangs_or_dies_comes_back),
            ("what a person must mend is not tried again", unit_steps.what_a_person_must_mend_is_not_tried_again),
            ("a second agent on the host", unit_steps.a_second_agent_on_the_host),
        ):
            self._step(name, lambda step=step: step(first))  # type: ignore[misc]
        self._step("an upgrade restarts it, and changes no file of ours", lambda: self._upgrade(first))
        self._step("it earns on", lambda: _ton(first.wait_until_earning_more()))
        self._step("keys and journal are backed up, and the host is shut down", lambda: self._back_up(first))
        self._step("host-b boots, and gets the package", lambda: self._second(second))
        self._step("the keys are restored there, and it takes part", lambda: self._restore(first, second))
        self._step("the restored key earns on", lambda: _ton(second.wait_until_earning_more()))
        self._step("a purge leaves keys and state, and nothing else", lambda: self._purge(second))
        self._step("a purge that is told to removes them, too", lambda: self._purge_state(second))

    def tell(self) -> None:
        """What the hosts' agents said last."""
        for host in self._hosts:
            try:
                sys.stdout.write(f"--- {host.machine.name}\n{host.machine.journal('gpupool-agent*', '--lines=40')}\n")
            except (StepFailedError, subprocess.SubprocessError, AssertionError) as error:
                sys.stdout.write(f"--- {host.machine.name}: {error}\n")

    def stop(self) -> None:
        for host in self._hosts:
            host.machine.stop()
        if self._pool is not None:
            self._pool.stop()

    def _host(self, tar: Path, name: str, pool: Pool) -> Host:
        return Host(Machine(name, tar, self._folder, self._namespace, pool.folder), pool)

    def _step(self, name: str, perform: Callable[[], str | None]) -> None:
        began_s = time.monotonic()
        outcome = perform()
        sys.stdout.write(f"ok {time.monotonic() - began_s:6.1f} s  {name}{f': {outcome}' if outcome else ''}\n")
        sys.stdout.flush()

    def _install(self, host: Host) -> str:
        host.install(self._old)
        machine = host.machine
        require(machine.show(UNIT, "ActiveState") == "inactive", "it does not start without settings")
        require(machine.attempt("systemctl", "start", UNIT)[0] == 0, "a start without settings is no failure")
        require(machine.show(UNIT, "ConditionResult") == "no", "but a condition that is not met")
        folders = machine.run("stat", "--format=%U:%G %a", "/etc/gpupool", "/var/lib/gpupool").split("\n")
        require(
            folders[:2] == ["root:gpupool 750", "gpupool:gpupool 700"], f"the folders are as they should be: {folders}"
        )
        return machine.run("gpupool", "version").strip()

    def _upgrade(self, host: Host) -> str:
        machine = host.machine
        before, pid = self._settings(host), machine.show(UNIT, "MainPID")
        host.install(self._new)
        require(machine.show(UNIT, "ActiveState") == "active", "it runs after the upgrade")
        require(machine.show(UNIT, "MainPID") != pid, "and was started anew")
        require(self._settings(host) == before, "settings and keys are as they were")
        require(machine.show("gpupool-agent@two.service", "ActiveState") == "inactive", "what stood still stands still")
        version = machine.run("dpkg-query", "--show", "--showformat=${Version}", "gpupool-agent")
        require(str(host.status()["version"]) in version, f"the agent that runs is version {version}")
        host.wait_for_line("earning")
        machine.run("gpupool", "upgrade", "check")
        return version

    def _settings(self, host: Host) -> str:
        return host.machine.run("sh", "-c", "cd /etc/gpupool && find . -type f | sort | xargs sha256sum")

    def _back_up(self, host: Host) -> None:
        machine = host.machine
        _put(machine, SECRET, PASSPHRASE.encode() + b"\n")
        machine.run("gpupool", "keys", "backup", BACKUP, "--passphrase-file", SECRET)
        machine.run("gpupool", "db", "export", JOURNAL)
        host.stop()
        machine.stop()

    def _second(self, host: Host) -> None:
        host.machine.boot()
        host.install(self._new)

    def _restore(self, old: Host, new: Host) -> str:
        for name in (BACKUP, JOURNAL, SECRET):
            _put(new.machine, name, (old.machine.root / name[1:]).read_bytes())
        options = ("--passphrase-file", SECRET, "--journal", JOURNAL, "--yes")
        new.machine.run("gpupool", "keys", "restore", BACKUP, *options)
        new.bring_platform()
        new.start()
        return new.wait_for_line("earning")

    def _purge(self, host: Host) -> None:
        machine = host.machine
        output = machine.run("dpkg", "--purge", "gpupool-agent")
        require("/var/lib/gpupool" in output, "it says what stays")
        for path in ("/opt/gpupool-agent", "/usr/bin/gpupool", "/usr/lib/systemd/system/gpupool-.service.d"):
            require(not (machine.root / path[1:]).exists(), f"{path} is gone")
        require(machine.run("systemctl", "list-units", "--plain", "--no-legend", "gpupool*") == "", "no unit is left")
        for path in (CONFIG, "/etc/gpupool/node.key", "/etc/gpupool/wallet.key", "/var/lib/gpupool/journal.sqlite"):
            require((machine.root / path[1:]).exists(), f"{path} is still there")

    def _purge_state(self, host: Host) -> None:
        host.install(self._new)
        host.machine.run("dpkg", "--purge", "gpupool-agent", environment=("GPUPOOL_PURGE_STATE=1",))
        for path in ("/etc/gpupool", "/var/lib/gpupool"):
            require(not (host.machine.root / path[1:]).exists(), f"{path} is gone")


def _put(machine: Machine, path: str, content: bytes) -> None:
    file = machine.root / path[1:]
    file.touch(mode=0o600)
    file.write_bytes(content)


def _ton(nanoton: int) -> str:
    return f"{nanoton / NANO:.3f} TON"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
