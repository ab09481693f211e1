"""Key files: private, never overwritten, and read only if they are exactly what they should be."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, x25519

from agent.errors import KeyFileError
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
