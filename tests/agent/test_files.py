"""Files that are whole or not there: whatever stands in a folder that somebody else can write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.files import write_durably


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_durably(tmp_path / "note", b"new", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "note").stat().st_mode & 0o777 == mode


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    """The folder may be the agent's user's, and root the one who writes."""
    shadow = tmp_path / "shadow"
    shadow.write_text("secret")
    shadow.chmod(0o600)
    (tmp_path / "note.new").symlink_to(shadow)
    with pytest.raises(OSError, match="symbolic links"):
        write_durably(tmp_path / "note", b"new", mode=0o644)
    assert (shadow.read_text(), shadow.stat().st_mode & 0o777) == ("secret", 0o600)


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "note").symlink_to(other)
    write_durably(tmp_path / "note", b"new", mode=0o644)
    assert ((tmp_path / "note").read_bytes(), other.read_text()) == (b"new", "kept")
    assert not (tmp_path / "note").is_symlink()
