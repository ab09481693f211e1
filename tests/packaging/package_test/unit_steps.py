"""What docs/systemd.md promises of the unit, tried on a running agent."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.packaging.package_test.host import UNIT, Host
from tests.packaging.package_test.machine import require, wait_for

HASTY = "[Service]\nWatchdogSec=20\nRestartSec=1\nTimeoutAbortSec=5\n"
ENCRYPT = """set -e; cd /etc/gpupool
for key in node.key wallet.key; do
    systemd-creds encrypt --with-key=host --name=$key $key $key.cred
    mv $key /root
done"""
ENCRYPTED = """[Service]
LoadCredential=
LoadCredentialEncrypted=node.key:/etc/gpupool/node.key.cred
LoadCredentialEncrypted=wallet.key:/etc/gpupool/wallet.key.cred
"""
JOURNAL = "/var/lib/gpupool/journal.sqlite"
QUIET_S = 5.0
"""How long nothing is restarted, with RestartSec=1, to count as never."""


def the_sandbox(host: Host) -> str:
    """No privilege, no foreign file, no dump; the exposure that systemd counts is below 2.0."""
    machine = host.machine
    report = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=19", UNIT)
    pid = machine.show(UNIT, "MainPID")
    status = dict(line.split(":\t", 1) for line in _read(host, f"/proc/{pid}/status").splitlines() if ":\t" in line)
    require(int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0, "the agent has no capability")
    require((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), "privileges and system calls are limited")
    require("Max core file size        0                    0" in _read(host, f"/proc/{pid}/limits"), "no core")
    owner = machine.run("stat", "--format=%U", f"/proc/{pid}/maps").strip()
    require(owner == "root", f"nobody but root may trace the agent: its memory map is {owner}'s")
    code, _, _ = machine.attempt("setpriv", "--reuid=gpupool", "--clear-groups", "cat", "/etc/gpupool/wallet.key")
    require(code != 0, "the agent's user cannot read the key's file")
    mode = machine.run("stat", "--format=%a %U", f"/run/credentials/{UNIT}/wallet.key").strip()
    require(mode in ("400 gpupool", "440 root"), f"the credential is the agent's alone, not {mode}")
    return report.strip().splitlines()[-1].removeprefix("→ ")


def what_it_says(host: Host) -> str:
    """The journal has levels and one time; the metrics of the process are served; the watchdog is fed."""
    machine = host.machine
    lines = [json.loads(line) for line in machine.journal(UNIT, "--output=json", "_COMM=gpupool").splitlines()]
    told = next(line for line in lines if "listens on" in line["MESSAGE"])
    require(told["PRIORITY"] == "6", f"what is no trouble is at level info, not {told['PRIORITY']}")
    require(not any(int(line["PRIORITY"]) < 4 for line in lines), "nothing is at level err or above")
    require(not any(line["MESSAGE"].startswith(("{", "<")) for line in lines), "no JSON and no prefix in the journal")
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    metrics = machine.run("python3", "-c", program)
    require("process_resident_memory_bytes" in metrics, "process metrics are served in the sandbox")
    fed = machine.show(UNIT, "WatchdogTimestampMonotonic")
    wait_for("the watchdog is fed", lambda: machine.show(UNIT, "WatchdogTimestampMonotonic") != fed, within_s=60)
    return machine.show(UNIT, "StatusText")


def keys_that_are_encrypted(host: Host) -> str:
    """With the plain key files gone, the agent runs, and a command can have a key for a moment."""
    machine = host.machine
    machine.run("sh", "-c", ENCRYPT)
    folder = _drop_in(host, "encrypted.conf", ENCRYPTED)
    machine.run("systemctl", "restart", UNIT)
    credential = "LoadCredentialEncrypted=wallet.key:/etc/gpupool/wallet.key.cred"
    command = ("sh", "-c", "exec gpupool pool claim --dry-run --config /etc/gpupool/agent.toml")
    said = machine.run("systemd-run", "--pipe", "--wait", "--collect", "--quiet", "-p", credential, *command)
    machine.run("sh", "-c", "mv /root/node.key /root/wallet.key /etc/gpupool; rm /etc/gpupool/*.cred")
    (folder / "encrypted.conf").unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)
    return said.strip().splitlines()[0]


def what_hangs_or_dies_comes_back(host: Host) -> str:
    """A process that hangs is ended by the watchdog, one that was killed is started again; no core, nothing lost."""
    machine = host.machine
    _drop_in(host, "hasty.conf", HASTY)
    machine.run("systemctl", "restart", UNIT)
    for signal_name, result in (("STOP", "watchdog"), ("KILL", "signal")):
        before = int(machine.show(UNIT, "NRestarts"))
        machine.run("kill", f"-{signal_name}", machine.show(UNIT, "MainPID"))
        wait_for(
            f"it is started again after SIG{signal_name}",
            lambda before=before: (  # type: ignore[misc]
                int(machine.show(UNIT, "NRestarts")) > before and machine.show(UNIT, "ActiveState") == "active"
            ),
            within_s=60,
        )
        said = machine.journal(UNIT, "--output=cat")
        require(f"Failed with result '{result}'" in said, f"systemd names the cause: {result}")
    require(not list((machine.root / "var" / "lib" / "gpupool").glob("core*")), "no core was written")
    return "watchdog and signal"


def what_a_person_must_mend_is_not_tried_again(host: Host) -> str:
    """A key that others can read, refused even as a credential, and a journal that is none."""
    machine = host.machine
    machine.run("systemctl", "stop", UNIT)
    machine.run("chmod", "644", "/etc/gpupool/wallet.key")
    of_key = _refusal(host, 2)
    require("chmod 600 /etc/gpupool/wallet.key" in of_key, f"its last word says what to do: {of_key}")
    machine.run("chmod", "600", "/etc/gpupool/wallet.key")
    machine.run("mv", JOURNAL, "/root/journal.kept")
    machine.run("install", "--owner=gpupool", "--group=gpupool", "--mode=600", "/etc/passwd", JOURNAL)
    of_journal = _refusal(host, 65)
    require(JOURNAL in of_journal, f"its last word names the file: {of_journal}")
    machine.run("mv", "/root/journal.kept", JOURNAL)
    (machine.root / "etc" / "systemd" / "system" / f"{UNIT}.d" / "hasty.conf").unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed", UNIT)
    host.start()
    return f"{of_key}\n{of_journal}"


def _refusal(host: Host, exit_code: int) -> str:
    """The last word of an agent that does not start, ends with this code, and is not tried again."""
    machine = host.machine
    machine.run("systemctl", "reset-failed", UNIT)
    code, _, _ = machine.attempt("systemctl", "start", UNIT)
    require(code != 0, "a start that fails says so")
    time.sleep(QUIET_S)
    state, tries = machine.show(UNIT, "ActiveState"), machine.show(UNIT, "NRestarts")
    require((state, tries) == ("failed", "0"), f"it is not tried again, but is {state} after {tries} restarts")
    status = machine.show(UNIT, "ExecMainStatus")
    require(status == str(exit_code), f"its exit code is {exit_code}, not {status}")
    return machine.journal(UNIT, "--output=cat", "--priority=err", "_COMM=gpupool").strip().splitlines()[-1]


def a_second_agent_on_the_host(host: Host) -> str:
    """The template runs another agent from a folder of its own, in the same sandbox."""
    machine, unit, folder = host.machine, "gpupool-agent@two.service", "/etc/gpupool/two"
    code, _, _ = machine.attempt("systemctl", "start", unit)
    require(code != 0, "an agent that is not there cannot be started")
    host.bring_platform(folder)
    host.init(folder, "/var/lib/gpupool/two", p2p_port=4002, web_port=9465)
    host.start(unit)
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=19", unit)
    line = machine.show(unit, "StatusText")
    require("not registered" in line, f"its line says what it lacks: {line}")
    owner = machine.run("stat", "--format=%U %a", "/var/lib/gpupool/two").strip()
    require(owner == "gpupool 700", f"its data is its own: {owner}")
    host.stop(unit)
    return line


def _drop_in(host: Host, name: str, text: str) -> Path:
    """Put it beside the unit; the folder it stands in."""
    folder = host.machine.root / "etc" / "systemd" / "system" / f"{UNIT}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    host.machine.run("systemctl", "daemon-reload")
    return folder


def _read(host: Host, path: str) -> str:
    return host.machine.run("cat", path)
