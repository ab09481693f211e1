"""The software platform's files: keys private, nothing overwritten, damage told in one line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from attestation.errors import SoftwarePlatformError
from attestation.providers.software import SoftwarePlatform, SoftwareRoot
from attestation.types import TcbStatus
from attestation.verify import verify_quote

NOW = 1_800_000_000
YEARS = 365 * 86_400


async def test_what_was_created_is_loaded(tmp_path: Path) -> None:
    SoftwareRoot.create(tmp_path / "root", now_s=NOW)
    SoftwarePlatform.create(tmp_path / "a", root=SoftwareRoot.load(tmp_path / "root"))
    platform = SoftwarePlatform.load(tmp_path / "a")
    raw = (await platform.quote(b"\x05" * 64)).quote
    collateral = await platform.collateral(raw, NOW)
    assert platform.error is None
    for now in (NOW, NOW + 9 * YEARS):
        verified = verify_quote(raw, collateral, now=now, root=platform.root)
        assert (verified.status, verified.td.report_data) == (TcbStatus.UP_TO_DATE, b"\x05" * 64)


def test_keys_are_private_and_kept(tmp_path: Path) -> None:
    root = SoftwareRoot.create(tmp_path / "root", now_s=NOW)
    SoftwarePlatform.create(tmp_path / "a", root=root)
    keys = sorted(tmp_path.rglob("*.key"))
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 5
    before = [key.read_bytes() for key in keys]
    with pytest.raises(SoftwarePlatformError, match="exists already"):
        SoftwareRoot.create(tmp_path / "root", now_s=NOW)
    with pytest.raises(SoftwarePlatformError, match="exists already"):
        SoftwarePlatform.create(tmp_path / "a", root=root)
    assert [key.read_bytes() for key in keys] == before


@pytest.mark.parametrize("name", ["root.der", "pck_chain.pem", "pck.key", "attestation.key", "collateral.json"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    SoftwarePlatform.create(tmp_path / "a", root=SoftwareRoot.create(tmp_path / "root", now_s=NOW))
    path = tmp_path / "a" / name
    if path.suffix in (".key", ".json"):
        path.write_bytes(b"garbage")
        with pytest.raises(SoftwarePlatformError, match=name):
            SoftwarePlatform.load(tmp_path / "a")
    path.unlink()
    with pytest.raises(SoftwarePlatformError, match=name):
        SoftwarePlatform.load(tmp_path / "a")


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SoftwarePlatformError):
        SoftwareRoot.create(tmp_path / "file", now_s=NOW)
    with pytest.raises(SoftwarePlatformError):
        SoftwareRoot.load(tmp_path / "file")


async def test_report_data_of_another_length(tmp_path: Path) -> None:
    platform = SoftwarePlatform.create(tmp_path / "a", root=SoftwareRoot.create(tmp_path / "root", now_s=NOW))
    with pytest.raises(SoftwarePlatformError):
        await platform.quote(bytes(63))
