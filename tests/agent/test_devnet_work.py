"""End to end: dev networks whose work others vouch for, and one agent that claims more than it did.

Each test runs `gpupool devnet` as a user does and audits what is left on disk, as `test_devnet` does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devnet_audit import audit

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def run(directory: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "agent", "devnet", "--epochs", "2", "--epoch-seconds", "20", "--json"]
    done = subprocess.run(
        [*command, "--dir", str(directory), *arguments], capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_tokens_credited_to_cocoon_workers_are_tokens_paid_on_chain(tmp_path: Path) -> None:
    """Both schemas are among three workers; the devnet itself fails if the two sides differ."""
    report = run(tmp_path / "net", "--source", "cocoon", "--agents", "3")
    assert report["ok"], report["faults"]
    rows = report["credits"]["rows"]
    assert [row["name"] for row in rows] == ["agent-0", "agent-1", "agent-2"]
    for row, participant in zip(rows, report["participants"], strict=True):
        assert 0 < row["credited"] == row["vouched"] == participant["tokens"] < row["claimed"]
    assert audit(tmp_path / "net", report) == [each["payload_hash"] for each in report["settlements"]]


def test_who_reports_ten_times_its_tokens_is_credited_its_receipts(tmp_path: Path) -> None:
    report = run(tmp_path / "net", "--cheat", "inflate", "--policy-level", "receipted")
    assert report["ok"], report["faults"]
    rows = {row["name"]: row for row in report["credits"]["rows"]}
    cheat, liar = report["credits"]["cheat"], rows["agent-3"]
    honest = [row["claimed"] for name, row in rows.items() if name != "agent-3"]
    assert cheat["agents"] == ["agent-3"]
    assert liar["claimed"] > 5 * max(honest)
    assert 0 < liar["credited"] <= liar["vouched"] < max(honest) * 2
    assert cheat["percent"] < 110, "an honest share, give or take what loads differ by"
    assert audit(tmp_path / "net", report) == [each["payload_hash"] for each in report["settlements"]]
