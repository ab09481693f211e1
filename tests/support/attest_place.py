"""The files that a user of `gpupool attest` has: a quote of a software platform, its collateral, root and policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.setup import toml_table
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SoftwarePlatform, SoftwareRoot

NOW = 1_800_000_000
REPORT_DATA = bytes(range(64))


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder with quote.bin, collateral.json, root.der, policy.toml (whole), table.toml, and platform/."""

    folder: Path
    platform: SoftwarePlatform

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def verify(self, *more: str, quote: str = "quote.bin", collateral: str = "collateral.json") -> list[str]:
        """Arguments that verify, and may be said otherwise by `more`."""
        return [
            *("attest", "verify", str(self / quote), "--collateral", str(self / collateral)),
            *("--root", str(self / "root.der"), "--at", str(NOW)),
            *more,
        ]

    @property
    def quote(self) -> bytes:
        return (self / "quote.bin").read_bytes()


def make_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Make the files, and turn this host's clock to `NOW`."""
    root = SoftwareRoot.create(folder / "root", now_s=NOW)
    platform = SoftwarePlatform.create(folder / "platform", root=root)
    place = Place(folder=folder, platform=platform)
    place.write("quote.bin", trio.run(platform.quote, REPORT_DATA).quote)
    place.write("collateral.json", root.collateral.to_json())
    place.write("root.der", root.certificate)
    place.write("policy.toml", POLICY_TEXT + table_text())
    place.write("table.toml", table_text(header="[attestation]"))
    monkeypatch.setattr("time.time", lambda: float(NOW))
    return place


def table_text(header: str = "", **changes: Any) -> str:
    """An attestation table that allows the software platform; keys of tables come last, as TOML has it."""
    table = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,)).to_mapping() | changes
    scalars = {key: value for key, value in table.items() if value not in (None, [])}
    return toml_table(header, scalars)


def run_json(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, Any]:
    """Run a command with --json; its exit code and what it printed."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)
