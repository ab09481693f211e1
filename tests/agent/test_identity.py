"""Key files: private, never overwritten, and read only if they are exactly what they should be."""

from __future__ import annotations

import base64
import errno
import os
import re
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, x25519

from agent.errors import KeyDeniedError, KeyFileError
from agent.identity import create_key, load_key
from contracts.signing import verify

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def write(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


def test_a_new_key_is_private_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "node.key"
    key = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_key(path)
    assert (again.public, again.seed) == (key.public, key.seed)
    verify(again.public, b"message", key.sign(b"message"))


def test_the_umask_does_not_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key(tmp_path / "node.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_two_keys_differ(tmp_path: Path) -> None:
    assert create_key(tmp_path / "a").public != create_key(tmp_path / "b").public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    create_key(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=f"{path}: exists already"):
        create_key(path)
    assert path.read_bytes() == before


def test_not_even_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists already"):
        create_key(tmp_path / "node.key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", b"")
    with pytest.raises(KeyFileError, match=str(tmp_path / "file")):
        create_key(tmp_path / "file" / "node.key")


def test_a_missing_key_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="gpupool init"):
        load_key(tmp_path / "node.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        load_key(path)


def test_a_read_only_key_loads(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = create_key(path)
    path.chmod(0o400)
    assert load_key(path).public == key.public


def test_a_key_that_everybody_can_replace_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    create_key(folder / "node.key")
    folder.chmod(0o757)
    with pytest.raises(KeyFileError, match=f"everybody can replace it.*chmod o-w {folder}$"):
        load_key(folder / "node.key")
    (tmp_path / "link.key").symlink_to(folder / "node.key")
    with pytest.raises(KeyFileError, match="everybody can replace it"):
        load_key(tmp_path / "link.key")
    for mode in (0o1777, 0o770):  # as /tmp has it, where nobody removes what is another's; a group is trusted
        folder.chmod(mode)
        assert load_key(folder / "node.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="a credential of systemd's is root's")
@pytest.mark.parametrize(("mode", "is_taken"), [(0o400, True), (0o440, True), (0o444, False), (0o460, False)])
def test_a_credential_may_show_the_mask_of_an_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_taken: bool
) -> None:
    path = tmp_path / "credentials" / "node.key"
    key = create_key(path)
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    if is_taken:
        assert load_key(path).public == key.public
    else:
        with pytest.raises(KeyFileError, match="readable by others"):
            load_key(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if mode != 0o400:
        with pytest.raises(KeyFileError, match="readable by others"):
            load_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    create_key(tmp_path / "node.key")
    assert (tmp_path / "node.key").stat().st_uid == 65534


def test_a_disk_without_links_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    key = create_key(tmp_path / "node.key")
    with pytest.raises(KeyFileError, match="exists already"):
        create_key(tmp_path / "node.key")
    assert load_key(tmp_path / "node.key").public == key.public
    assert [path.name for path in tmp_path.iterdir()] == ["node.key"]


ED25519 = ed25519.Ed25519PrivateKey.generate()
OTHER_KINDS = {
    "X25519": x25519.X25519PrivateKey.generate(),
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "P-256": ec.generate_private_key(ec.SECP256R1()),
}
GOOD = ED25519.private_bytes(PEM, PKCS8, PLAIN)
SECRET = ED25519.private_bytes_raw()
# An EC key on a curve that no library knows (an OID under 1.3.132.0 that is not assigned).
UNKNOWN_CURVE = (
    ec.generate_private_key(ec.SECP256K1())
    .private_bytes(DER, PKCS8, PLAIN)
    .replace(bytes.fromhex("06052b8104000a"), bytes.fromhex("06052b8104007f"))
)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="garbage"),
        pytest.param(SECRET, id="raw seed"),
        pytest.param(SECRET.hex().encode(), id="hex seed"),
        pytest.param(GOOD[:-40], id="cut short"),
        pytest.param(GOOD.replace(b"PRIVATE", b"PUBLIC"), id="label"),
        pytest.param(b"#" * 5000 + b"\n" + GOOD, id="behind the limit of 4096 bytes"),
        pytest.param(ED25519.private_bytes(DER, PKCS8, PLAIN), id="DER"),
        pytest.param(
            ED25519.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"password")), id="encrypted"
        ),
        pytest.param(ED25519.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN), id="OpenSSH's format"),
        pytest.param(
            ED25519.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), id="public key"
        ),
        *(pytest.param(other.private_bytes(PEM, PKCS8, PLAIN), id=name) for name, other in OTHER_KINDS.items()),
        pytest.param(
            b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(UNKNOWN_CURVE) + b"\n-----END PRIVATE KEY-----\n",
            id="unknown curve",
        ),
        pytest.param(dsa.generate_private_key(1024).private_bytes(PEM, PKCS8, PLAIN), id="DSA"),
    ],
)
def test_what_is_no_key_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "node.key", content)
    with pytest.raises(KeyFileError, match=str(path)) as caught:
        load_key(path)
    said = str(caught.value)
    assert "\n" not in said
    assert SECRET.hex() not in said
    assert said.startswith(f"{path}: not an")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_key(tmp_path)


def test_a_key_whose_curve_does_not_fit_its_length_is_refused(tmp_path: Path) -> None:
    """One changed byte: the curve is Ed448's, the key is as long as Ed25519's."""
    create_key(tmp_path / "node.key")
    changed = (tmp_path / "node.key").read_bytes().replace(b"MC4CAQAwBQYDK2Vw", b"MC4CAQAwBQYDK2Vx")
    path = write(tmp_path / "changed.key", changed)
    with pytest.raises(KeyFileError, match=r"/changed[.]key: not an unencrypted"):
        load_key(path)


@pytest.mark.parametrize(
    ("number", "said", "kind"),
    [
        (errno.EACCES, "this user may not read it; run the command with sudo", KeyDeniedError),
        (errno.ENOENT, "missing; a lost key comes from its backup alone (`gpupool keys restore`)", KeyFileError),
        (errno.EIO, "cannot be read: Input/output error", KeyFileError),
    ],
)
def test_what_cannot_be_read_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, kind: type[KeyFileError]
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(kind, match=re.escape(said)) as caught:
        load_key(tmp_path / "node.key")
    assert type(caught.value) is kind
