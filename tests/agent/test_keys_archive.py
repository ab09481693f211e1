"""What a backup holds: the files that were put in come out, and no archive does harm."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import InvalidBackupError
from agent.keys.archive import BYTES_MAX, FILE_BYTES_MAX, keys_of, pack, unpack

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
FILES = {"agent.toml": b"data_dir = 1\n", "node.key": PEM, "wallet.key": PEM, "policy.toml": b"", "my-own.key": PEM}
PACKED = pack(FILES, made_s=1_700_000_000)


def archived(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry, content in entries:
            entry.size = len(content) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def test_what_was_put_in_comes_out() -> None:
    assert unpack(PACKED) == FILES
    assert list(keys_of(FILES)) == ["node.key", "wallet.key", "my-own.key"]
    assert pack(FILES, made_s=1_700_000_000) == PACKED, "nothing of this host or user is in it"


def test_the_command_tar_opens_it(tmp_path: Path) -> None:
    subprocess.run(["tar", "x", "-C", str(tmp_path)], input=PACKED, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_an_archive_that_was_made_by_hand_is_as_good(tmp_path: Path) -> None:
    for name in ("node.key", "agent.toml"):
        (tmp_path / name).write_bytes(FILES[name])
    made = subprocess.run(
        ["tar", "c", "-C", str(tmp_path), "node.key", "agent.toml"], capture_output=True, check=True
    ).stdout
    assert unpack(made) == {name: FILES[name] for name in ("node.key", "agent.toml")}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param([(entry("../node.key"), PEM)], id="above the folder"),
        pytest.param([(entry("/etc/node.key"), PEM)], id="absolute"),
        pytest.param([(entry("keys/node.key"), PEM)], id="in a folder"),
        pytest.param([(entry(".bashrc"), b"")], id="another name"),
        pytest.param([(entry(".key"), PEM)], id="no name"),
        pytest.param([(entry("a" * 80 + ".key"), PEM)], id="long name"),
        pytest.param([(entry("node.key\n.key"), PEM)], id="a line's end"),
        pytest.param([(entry("node.key", tarfile.SYMTYPE, "/etc/shadow"), b"")], id="symbolic link"),
        pytest.param([(entry("node.key", tarfile.LNKTYPE, "wallet.key"), b"")], id="hard link"),
        pytest.param([(entry("node.key", tarfile.DIRTYPE), b"")], id="folder"),
        pytest.param([(entry("node.key", tarfile.FIFOTYPE), b"")], id="pipe"),
        pytest.param([(entry("node.key"), PEM), (entry("node.key"), PEM)], id="twice"),
        pytest.param([(entry(f"{i}.key"), PEM) for i in range(17)], id="many"),
        pytest.param([(entry("node.key"), PEM), (entry("policy.toml"), bytes(FILE_BYTES_MAX + 1))], id="long file"),
        pytest.param([(entry("node.key"), b"no key")], id="no key"),
        pytest.param([(entry("agent.toml"), b"")], id="none"),
        pytest.param([], id="empty"),
    ],
)
def test_an_archive_with_anything_else_is_refused(made: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(InvalidBackupError):
        unpack(archived(*made))


@pytest.mark.parametrize("content", [b"", b"text", bytes(BYTES_MAX + 1), b"\xff" * 1024])
def test_what_is_no_archive(content: bytes) -> None:
    with pytest.raises(InvalidBackupError):
        unpack(content)


def test_a_size_below_zero_does_not_go_round_for_ever() -> None:
    """CVE-2025-8194: tarfile went back in the file."""
    header = bytearray(PACKED[:512])
    header[124:136] = b"\xff" * 12  # base-256: -1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(InvalidBackupError):
        unpack(bytes(header) * 3)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_upon_headers_are_no_backup(kind: bytes) -> None:
    """tarfile goes one call deeper with each."""
    header = entry("node.key", kind)
    header.size = 16
    again = header.tobuf(tarfile.USTAR_FORMAT) + b"16 path=node.ke\n".ljust(512, b"\0")
    with pytest.raises(InvalidBackupError):
        unpack(again * 3000)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_no_change_of_an_archive_ends_in_another_error(data: st.DataObject) -> None:
    changed = bytearray(PACKED)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, 511), st.integers(0, len(changed) - 1)))
        changed[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # past the checksum
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
    seen: object = None
    try:
        seen = unpack(bytes(changed))
    except InvalidBackupError as error:
        seen = str(error)
        assert PEM.split(b"\n")[1].decode() not in seen
    assert seen
