"""A backup's encryption: age's own command opens it, and no file costs more than its bound."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, InvalidBackupError
from agent.keys.sealing import WORK_FACTOR_MAX, Identities, Passphrase, Recipients, require_recipient, seal, unseal

OWNER = pyrage.x25519.Identity.generate()
TO_OWNER = Recipients((str(OWNER.to_public()),))
BY_OWNER = Identities((str(OWNER),))
SECRET = Passphrase("correct horse battery staple")
PLAIN = b"something that nobody else shall read"


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """With a passphrase: that takes seconds."""
    return seal(PLAIN, SECRET)


def test_a_passphrase_opens_what_it_closed_and_no_other_does(sealed: bytes) -> None:
    assert unseal(sealed, SECRET) == PLAIN
    with pytest.raises(InvalidBackupError, match=r"^wrong passphrase, or the file is damaged$") as caught:
        unseal(sealed, Passphrase("another passphrase"))
    assert caught.value.__cause__ is None


def test_a_public_key_closes_what_its_owner_opens() -> None:
    closed = seal(PLAIN, Recipients((str(pyrage.x25519.Identity.generate().to_public()), *TO_OWNER.keys)))
    assert unseal(closed, BY_OWNER) == PLAIN
    with pytest.raises(InvalidBackupError, match="encrypted to another key"):
        unseal(closed, Identities((str(pyrage.x25519.Identity.generate()),)))


def test_the_wrong_kind_of_secret_is_named(sealed: bytes) -> None:
    with pytest.raises(InvalidBackupError, match="give --identity FILE"):
        unseal(seal(PLAIN, TO_OWNER), SECRET)
    with pytest.raises(InvalidBackupError, match="leave --identity away"):
        unseal(sealed, BY_OWNER)


@pytest.mark.parametrize("factor", [WORK_FACTOR_MAX + 1, 24, 63, 64, 99])
def test_a_file_that_asks_for_too_much_work_is_refused_before_any(sealed: bytes, factor: int) -> None:
    first, stanza, rest = sealed.split(b"\n", 2)
    dear = b"\n".join([first, b" ".join([*stanza.split(b" ")[:3], b"%d" % factor]), rest])
    with pytest.raises(InvalidBackupError, match=rf"too much work \(2\^{factor}, at most 2\^22\)"):
        unseal(dear, SECRET)


def test_more_work_behind_another_stanza_is_not_done(sealed: bytes) -> None:
    first, stanza, rest = sealed.split(b"\n", 2)
    hidden = b"\n".join([first, b"-> X25519 " + b"A" * 43, b"A" * 43, stanza[:-2] + b"30", rest])
    with pytest.raises(InvalidBackupError, match="give --identity"):
        unseal(hidden, SECRET)


@pytest.mark.parametrize("content", [b"", b"age", b"-----BEGIN AGE ENCRYPTED FILE-----\n", b"\0" * 1000])
def test_what_is_no_age_file(content: bytes) -> None:
    for secret in (SECRET, BY_OWNER):
        with pytest.raises(InvalidBackupError, match="no age file"):
            unseal(content, secret)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_changed_byte_is_found(data: st.DataObject) -> None:
    closed = bytearray(CLOSED)
    place = data.draw(st.integers(0, len(closed) - 1))
    closed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidBackupError):
        unseal(bytes(closed), BY_OWNER)


@settings(deadline=None)
@given(st.integers(0, 250))
def test_a_cut_file_is_found(length: int) -> None:
    assert len(CLOSED) > 200
    with pytest.raises(InvalidBackupError):
        unseal(CLOSED[: min(length, len(CLOSED) - 1)], BY_OWNER)


CLOSED = seal(PLAIN, TO_OWNER)


@pytest.mark.parametrize(
    "text",
    ["", "age1", "AGE-SECRET-KEY-1", str(OWNER), "age1" + "q" * 58],
    ids=["nothing", "prefix", "secret prefix", "secret key", "wrong sum"],
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ConfigError, match="no age public key"):
        require_recipient(text)


def test_what_is_no_secret_key_is_not_quoted() -> None:
    broken = str(OWNER)[:-1] + "!"
    with pytest.raises(ConfigError, match="no age secret key") as caught:
        unseal(CLOSED, Identities((broken,)))
    assert str(OWNER)[20:40] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_are_not_printed() -> None:
    assert repr(SECRET) == "Passphrase()"
    assert repr(BY_OWNER) == "Identities()"


@pytest.mark.skipif(shutil.which("age") is None, reason="needs the command age (Debian package age)")
def test_the_command_age_opens_it(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(f"# mine\n{OWNER}\n")
    (tmp_path / "backup.age").write_bytes(CLOSED)
    command = ["age", "-d", "-i", str(tmp_path / "identity"), str(tmp_path / "backup.age")]
    opened = subprocess.run(command, capture_output=True, check=True)
    assert opened.stdout == PLAIN
