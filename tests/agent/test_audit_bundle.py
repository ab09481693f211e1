"""The bundle's file: what was written is read, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from audit_scene import AuditScene
from hypothesis import given
from hypothesis import strategies as st

from agent.audit import bundle as bundle_module
from agent.audit.bundle import (
    KINDS,
    MARK,
    Bundle,
    InvalidBundleError,
    decode_bundle,
    encode_bundle,
    read_bundle,
    write_bundle,
)
from agent.errors import OperationError
from gossip import codec
from gossip.epoch_events import Anchor


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    scene = AuditScene(tmp_path_factory.mktemp("pool"), 2)
    scene.run(2)
    made = trio.run(scene.export, 2)
    return replace(made, denied=(Anchor(seqno=7, root_hash=b"h" * 32, time_s=5),))


@pytest.fixture(scope="module")
def content(bundle: Bundle) -> bytes:
    return encode_bundle(bundle)


def frames(content: bytes) -> Iterator[tuple[object, ...]]:
    raw = io.BytesIO(gzip.decompress(content[len(MARK) + 32 :]))
    while head := raw.read(4):
        yield codec.decode(raw.read(int.from_bytes(head, "big")), bytes_max=1 << 24)


def packed(parts: list[tuple[object, ...]]) -> bytes:
    """A file of these frames, with the right digest."""
    encoded = [codec.encode(part) for part in parts]
    return sealed(b"".join(len(each).to_bytes(4, "big") + each for each in encoded))


def sealed(unpacked: bytes) -> bytes:
    rest = gzip.compress(unpacked, mtime=0)
    return MARK + hashlib.sha256(rest).digest() + rest


def test_what_was_written_is_read_and_the_same_parts_give_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "epoch.audit"
    length = write_bundle(path, bundle)
    assert path.stat().st_size == length
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_bundle(path) == bundle
    assert encode_bundle(read_bundle(path)) == path.read_bytes()
    first = replace(bundle, base=None)
    assert decode_bundle(io.BytesIO(encode_bundle(first))) == first


def test_a_file_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "epoch.audit"
    path.write_bytes(b"mine")
    with pytest.raises(OperationError, match="exists already"):
        write_bundle(path, bundle)
    assert path.read_bytes() == b"mine"
    with pytest.raises(OperationError, match="cannot be written"):
        write_bundle(tmp_path / "none" / "epoch.audit", bundle)


@given(data=st.data())
def test_a_flipped_bit_or_a_lost_end_is_always_noticed(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[at // 8] ^= 1 << at % 8
    with pytest.raises(InvalidBundleError):
        decode_bundle(io.BytesIO(bytes(flipped)))
    with pytest.raises(InvalidBundleError):
        decode_bundle(io.BytesIO(content[: at // 8]))
    with pytest.raises(InvalidBundleError):
        decode_bundle(io.BytesIO(content + b"\0"))


@given(data=st.data())
def test_bytes_that_unpack_to_anything_are_read_or_refused(content: bytes, data: st.DataObject) -> None:
    """Whoever changes a bundle on purpose gets the digest right."""
    unpacked = bytearray(gzip.decompress(content[len(MARK) + 32 :]))
    for _ in range(data.draw(st.integers(1, 3))):
        unpacked[data.draw(st.integers(0, len(unpacked) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_bundle(io.BytesIO(sealed(bytes(unpacked))))
    except InvalidBundleError as error:
        assert str(error)
    else:
        assert found.records is not None


@pytest.mark.parametrize("drop", ["policy", "root", "settled", "proposal"])
def test_what_a_settlement_cannot_do_without_stands_once(content: bytes, drop: str) -> None:
    parts = list(frames(content))
    with pytest.raises(InvalidBundleError, match=f"{drop}: missing"):
        decode_bundle(io.BytesIO(packed([part for part in parts if part[0] != drop])))
    twice = [part for part in parts for _ in range(2 if part[0] == drop else 1)]
    with pytest.raises(InvalidBundleError, match=f"{drop}: more than one"):
        decode_bundle(io.BytesIO(packed(twice)))


def test_small_parts_are_bounded_by_their_number(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [*frames(content), *[("denied", i, bytes(32), i) for i in range(3)]]
    decode_bundle(io.BytesIO(packed(parts)))
    monkeypatch.setitem(KINDS, "denied", 2)
    with pytest.raises(InvalidBundleError, match="denied: more than 2"):
        decode_bundle(io.BytesIO(packed(parts)))


def test_parts_stand_in_their_order_and_form(content: bytes) -> None:
    parts = list(frames(content))
    for wrong, message in (
        ([], "does not begin"),
        ([("gpupool/bundle/2", *parts[0][1:]), *parts[1:]], "does not begin"),
        ([parts[0], *parts[:0:-1]], "out of place"),
        ([*parts, ("more", b"")], "unknown"),
        ([*parts, ()], "no evidence bundle"),
        ([*parts, ("denied", 1, b"short", 2)], "root_hash"),
        ([*parts, ("denied", 1)], "part"),
        ([*parts[:-1], ("attachment", bytes(256 * 1024 + 1)), parts[-1]], "attachment"),
    ):
        with pytest.raises(InvalidBundleError, match=message):
            decode_bundle(io.BytesIO(packed(wrong)))


def test_what_unpacks_to_too_much_is_not_unpacked(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidBundleError, match="longer than it may be"):
        decode_bundle(io.BytesIO(sealed((1 << 30).to_bytes(4, "big") + bytes(1 << 20))))
    whole = decode_bundle(io.BytesIO(content))
    monkeypatch.setattr(bundle_module, "CONTENT_BYTES_MAX", 1000)
    with pytest.raises(OperationError, match="a bundle has at most 1000"):
        encode_bundle(whole)
    with pytest.raises(InvalidBundleError, match="longer than it may be"):
        decode_bundle(io.BytesIO(content))
    monkeypatch.setattr(bundle_module, "FILE_BYTES_MAX", len(content) // 2)
    with pytest.raises(InvalidBundleError, match="longer than"):
        decode_bundle(io.BytesIO(content))


def test_what_cannot_be_read_is_said_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError, match=r"none\.audit: cannot be read"):
        read_bundle(tmp_path / "none.audit")
    with pytest.raises(InvalidBundleError, match="cannot be read"):
        read_bundle(tmp_path)
    (tmp_path / "other").write_bytes(b"PK")
    with pytest.raises(InvalidBundleError, match="other: no evidence bundle"):
        read_bundle(tmp_path / "other")
