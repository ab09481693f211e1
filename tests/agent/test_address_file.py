"""The address file: a cache that is whole or not there, and whose damage stops nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import address_file
from agent.address_file import load_addresses, save_addresses
from gossip import codec


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    assert load_addresses(path) == ()
    for wires in ((b"one", b"two"), (), (b"three",)):
        save_addresses(path, wires)
        assert load_addresses(path) == wires
        assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["addresses"]


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", codec.encode(None), codec.encode((1,)), codec.encode((bytes(5000),)), codec.encode(((b"x",),))],
)
def test_a_damaged_file_is_left_aside_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "addresses"
    path.write_bytes(data)
    assert load_addresses(path) == ()
    assert f"{path}: not read" in caplog.text
    save_addresses(path, (b"new",))
    assert load_addresses(path) == (b"new",)


def test_a_file_that_is_too_long_is_not_read_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_file, "FILE_BYTES_MAX", 100)
    (tmp_path / "addresses").write_bytes(bytes(10_000))
    assert load_addresses(tmp_path / "addresses") == ()
    assert "101 bytes" in caplog.text


def test_what_cannot_be_written_or_read_is_said_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_addresses(tmp_path / "missing" / "addresses", (b"one",))
    assert "not written" in caplog.text
    (tmp_path / "folder").mkdir()
    assert load_addresses(tmp_path / "folder") == ()
    assert "not read" in caplog.text
