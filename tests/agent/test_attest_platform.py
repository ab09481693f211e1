"""`gpupool attest platform`: a machine of its own for one more agent on a development network."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import trio

from agent.cli import main
from agent.providers import read_certificate
from attestation.providers.software import SoftwarePlatform
from attestation.verify import verify_quote


def test_machines_under_one_root_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "root")
    assert main(["attest", "platform", str(tmp_path / "a"), "--root-dir", root, "--new-root"]) == 0
    assert "can prove anything" in capsys.readouterr().err
    assert main(["attest", "platform", str(tmp_path / "b"), "--root-dir", root, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["software_dir"] == str(tmp_path / "b")
    certificate = read_certificate(Path(value["software_root_file"]))
    ppids = set()
    for name in ("a", "b"):
        platform = SoftwarePlatform.load(tmp_path / name)
        quote = trio.run(platform.quote, bytes(64)).quote
        collateral = trio.run(platform.collateral, quote, 0)
        now = collateral_time(collateral.tcb_info)
        ppids.add(verify_quote(quote, collateral, now=now, root=certificate).platform.ppid)
    assert len(ppids) == 2


def collateral_time(tcb_info: bytes) -> int:
    """A day after the collateral was issued."""
    return int(datetime.fromisoformat(json.loads(tcb_info)["issueDate"]).timestamp()) + 86_400


@pytest.mark.parametrize("arguments", [["--root-dir", "nothing"], ["--root-dir", "root", "--new-root"]])
def test_what_is_missing_or_there_already_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["attest", "platform", "first", "--root-dir", "root", "--new-root"]) == 0
    capsys.readouterr()
    assert main(["attest", "platform", "second", *arguments]) == 1
    assert ("No such file" if arguments[1] == "nothing" else "exists already") in capsys.readouterr().err
