"""Keys that systemd hands over, and a process that shows them to nobody."""

from __future__ import annotations

import resource
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from agent.commands import _data_dir
from agent.credentials import key_file
from agent.errors import KeyFileError

_HARDENED = """
import ctypes, resource
from agent.undumpable import forbid_dumps
from prometheus_client.process_collector import ProcessCollector
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
print(sorted(metric.name for metric in ProcessCollector(registry=None).collect()))
"""

_IN_A_VERB = """
import ctypes, resource, sys
import agent.keys.verbs
from agent.cli import main

def show(options):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
    return 0

agent.keys.verbs.show = show
sys.exit(main())
"""


def test_the_credential_of_the_same_name_is_read(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "node.key").write_text("")
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert key_file(Path("/etc/gpupool/node.key"), environment) == credentials / "node.key"
    assert key_file(Path("/etc/gpupool/wallet.key"), environment) == Path("/etc/gpupool/wallet.key")


@pytest.mark.parametrize("environment", [{}, {"CREDENTIALS_DIRECTORY": "/nowhere"}])
def test_without_credentials_the_file_is_read(environment: dict[str, str]) -> None:
    assert key_file(Path("/etc/gpupool/node.key"), environment) == Path("/etc/gpupool/node.key")


def test_no_core_is_dumped_and_process_metrics_are_still_served() -> None:
    done = subprocess.run([sys.executable, "-c", _HARDENED], capture_output=True, text=True, check=True)
    dumpable, metrics = done.stdout.splitlines()
    assert dumpable == "0 0"
    assert all(name in metrics for name in ("process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds"))


@pytest.mark.parametrize("options", [[], ["--debug"]])
def test_no_command_can_be_dumped(options: list[str]) -> None:
    """Any may hold a key: asked from within a verb of the real command, whose shell allows dumps."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_VERB, *options, "keys", "show"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )
    assert done.stdout == "0 0\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_credential_does_not_hide_that_its_file_is_open_to_others(tmp_path: Path, mode: int) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "node.key").write_text("")
    key = tmp_path / "node.key"
    key.write_text("")
    key.chmod(0o600)
    assert key_file(key, {"CREDENTIALS_DIRECTORY": str(credentials)}) == credentials / "node.key"
    key.chmod(mode)
    with pytest.raises(KeyFileError, match="readable by others"):
        key_file(key, {"CREDENTIALS_DIRECTORY": str(credentials)})


@pytest.mark.parametrize(
    ("folder", "given", "expected"),
    [
        ("/etc/gpupool", None, "/var/lib/gpupool"),
        ("/etc/gpupool/two", None, "/var/lib/gpupool/two"),
        ("/etc/gpupool", Path("/srv/data"), "/srv/data"),
        ("/home/me/agent", None, "data"),
    ],
)
def test_a_packaged_agents_journal_goes_where_its_unit_lets_it_write(
    folder: str, given: Path | None, expected: str
) -> None:
    assert _data_dir(Namespace(dir=Path(folder), data_dir=given)) == expected
