"""What the package is made of agrees with the project; it is built by `make deb`, tried by `make deb-test`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent.journal_file import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging" / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def test_what_is_not_shipped_is_locked_and_has_a_reason() -> None:
    lock = (ROOT / "requirements" / "run.lock").read_text()
    entries = [line for line in (DEBIAN / "not-shipped").read_text().splitlines() if not line.startswith("#")]
    assert entries
    for entry in entries:
        name, _, reason = entry.partition("#")
        assert f"\n{name.strip().replace('_', '-')}==" in lock, name
        assert reason.strip(), name


def test_what_is_not_shipped_is_imported_nowhere() -> None:
    names = [line.split()[0] for line in (DEBIAN / "not-shipped").read_text().splitlines() if not line.startswith("#")]
    modules = {"grpcio": "grpc"} | {name: name for name in names if name != "grpcio"}
    pattern = re.compile(rf"^\s*(?:import|from) ({'|'.join(modules.values())})\b", re.MULTILINE)
    sources = [path for top in ("agent", "attestation", "contracts", "gossip") for path in (ROOT / top).rglob("*.py")]
    assert [path for path in sources if pattern.search(path.read_text())] == []


def test_package_is_for_the_python_that_everything_is_checked_with() -> None:
    control = (DEBIAN / "control").read_text()
    assert control.count("python3 (>= 3.11), python3 (<< 3.12)") == 2  # to build, to run
    assert "version = 3.11\n" in (DEBIAN / "pyvenv.cfg").read_text()
    assert (DEBIAN / "gpupool").read_text().startswith("#!/opt/gpupool-agent/bin/python3 -I\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_maintainer_scripts_are_valid_and_stop_at_errors(script: str) -> None:
    path = DEBIAN / f"gpupool-agent.{script}"
    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
    text = path.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -e\n" in text
    assert "#DEBHELPER#" in text


def test_no_maintainer_script_starts_an_agent() -> None:
    """What stands still may have its key at work on another host."""
    text = "".join((DEBIAN / f"gpupool-agent.{script}").read_text() for script in SCRIPTS)
    assert set(re.findall(r"deb-systemd-invoke (\S+)", text)) == {"stop", "try-restart"}
    assert "dh_installsystemd --no-start --no-stop-on-upgrade" in (DEBIAN / "rules").read_text()


def test_state_is_purged_only_under_its_condition() -> None:
    text = (DEBIAN / "gpupool-agent.postrm").read_text()
    deletions = [line.strip() for line in text.splitlines() if "rm -r" in line]
    assert deletions == ["rm -rf /etc/gpupool /var/lib/gpupool"]
    assert text.index('[ "${GPUPOOL_PURGE_STATE:-}" = 1 ]') < text.index(deletions[0]) < text.index("else")


def test_downgrade_knows_where_a_journal_tells_its_schema() -> None:
    """The build puts `SCHEMA_VERSION` in; the query is that of `agent.journal_file`."""
    text = (DEBIAN / "gpupool-agent.preinst").read_text()
    assert SCHEMA_VERSION > 0
    assert "#SCHEMA#" in text
    assert "SELECT value FROM meta WHERE key = 'schema'" in text


def test_each_lintian_override_is_explained() -> None:
    blocks = (DEBIAN / "gpupool-agent.lintian-overrides").read_text().strip()
    assert blocks.startswith("#")
    previous = ""
    for line in blocks.splitlines():
        assert line.startswith("#") or previous, line
        previous = line


def test_no_python_file_lies_where_an_import_would_find_it() -> None:
    found = [path for folder in ("packaging", "systemd") for path in (ROOT / folder).rglob("*.py")]
    assert found == []
