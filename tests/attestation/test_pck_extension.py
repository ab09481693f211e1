"""The PCK's SGX extension: strict DER, every entry demanded, nothing but its own error on any input."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import PckExtensionError
from attestation.pck import parse_sgx_extension
from attestation.providers.software import SOFTWARE_MACHINE
from attestation.providers.software_builders import build_sgx_extension
from attestation.types import PckPlatform, PlatformFlag

GOOD = build_sgx_extension(SOFTWARE_MACHINE)
OID = bytes.fromhex("2a864886f84d010d01")

platforms = st.builds(
    PckPlatform,
    ppid=st.binary(min_size=16, max_size=16),
    fmspc=st.binary(min_size=6, max_size=6),
    pce_id=st.binary(min_size=2, max_size=2),
    sgx_svns=st.tuples(*[st.integers(0, 255)] * 16),
    pce_svn=st.integers(0, 65_535),
    flags=st.frozensets(st.sampled_from(PlatformFlag)),
)


@given(platforms)
def test_what_is_built_is_read(platform: PckPlatform) -> None:
    assert parse_sgx_extension(build_sgx_extension(platform)) == platform


def tlv(tag: int, value: bytes) -> bytes:
    if len(value) < 0x80:
        return bytes([tag, len(value)]) + value
    if len(value) < 0x100:
        return bytes([tag, 0x81, len(value)]) + value
    return bytes([tag, 0x82]) + len(value).to_bytes(2, "big") + value


def entry(oid: bytes, value: bytes) -> bytes:
    return tlv(0x30, tlv(0x06, OID + oid) + value)


TCB = {bytes([2, 1 + i]): tlv(0x02, bytes([i])) for i in range(16)} | {
    b"\x02\x11": tlv(0x02, b"\x0b"),
    b"\x02\x12": tlv(0x04, bytes(range(16))),
}
FLAGS = {bytes([7, 1 + i]): tlv(0x01, b"\xff") for i in range(3)}
TOP = {
    b"\x01": tlv(0x04, bytes(16)),
    b"\x03": tlv(0x04, bytes(2)),
    b"\x04": tlv(0x04, bytes(6)),
    b"\x05": tlv(0x0A, b"\x01"),
}
Entries = dict[bytes, bytes | None]


def content(top: Entries | None = None, tcb: Entries | None = None, flags: Entries | None = None) -> bytes:
    """The entries of an extension with some values changed, added, or (None) left out."""

    def join(entries: Mapping[bytes, bytes | None]) -> bytes:
        return b"".join(entry(oid, value) for oid, value in entries.items() if value is not None)

    nested = {b"\x02": tlv(0x30, join(TCB | (tcb or {}))), b"\x07": tlv(0x30, join(FLAGS | (flags or {})))}
    return join(TOP | nested | (top or {}))


def made(*changes: Entries | None) -> bytes:
    return tlv(0x30, content(*changes))


def test_the_tests_own_form_is_read() -> None:
    platform = parse_sgx_extension(made())
    assert (platform.sgx_svns, platform.pce_svn) == (tuple(range(16)), 11)
    assert platform.flags == frozenset(PlatformFlag)


@pytest.mark.parametrize(
    "change",
    [
        *(({oid: None},) for oid in TOP),
        *((None, {oid: None}) for oid in TCB),
        ({b"\x01": tlv(0x04, bytes(15))},),
        ({b"\x01": tlv(0x0C, bytes(16))},),
        ({b"\x03": tlv(0x04, bytes(3))},),
        ({b"\x04": tlv(0x04, bytes(5))},),
        ({b"\x05": tlv(0x0A, b"\x03")},),
        ({b"\x05": tlv(0x02, b"\x01")},),
        ({b"\x02": tlv(0x31, b"")},),
        (None, {b"\x02\x01": tlv(0x02, b"\x01\x00")}),
        (None, {b"\x02\x01": tlv(0x02, b"\x00\x01")}),
        (None, {b"\x02\x01": tlv(0x02, b"\x81")}),
        (None, {b"\x02\x01": tlv(0x02, b"")}),
        (None, {b"\x02\x11": tlv(0x02, b"\x01\x00\x00")}),
        (None, {b"\x02\x11": tlv(0x02, b"\x00\x0b")}),
        (None, {b"\x02\x01": tlv(0x02, b"\x01")}),
        (None, {b"\x02\x12": tlv(0x04, bytes(16))}),
        (None, {b"\x02\x12": tlv(0x04, bytes(range(15)))}),
        (None, None, {b"\x07\x01": tlv(0x01, b"\x01")}),
        (None, None, {b"\x07\x02": tlv(0x02, b"\x01")}),
    ],
)
def test_an_entry_missing_or_of_another_form(change: tuple[Entries | None, ...]) -> None:
    with pytest.raises(PckExtensionError):
        parse_sgx_extension(made(*change))


PPID = entry(b"\x01", TOP[b"\x01"])


@pytest.mark.parametrize(
    "der",
    [
        None,
        b"",
        b"\x30",
        made() + b"\0",
        made()[:-1],
        tlv(0x31, content()),
        b"\x30\x83\x00" + len(content()).to_bytes(2, "big") + content(),
        b"\x30\x80" + content() + b"\0\0",
        tlv(0x30, content() + PPID),
        tlv(0x30, content() + tlv(0x30, tlv(0x06, b"\x2a\x03") + tlv(0x04, b""))),
        tlv(0x30, content() + tlv(0x30, tlv(0x04, OID + b"\x63") + tlv(0x04, b""))),
        tlv(0x30, content() + tlv(0x30, tlv(0x06, OID + b"\x63"))),
        tlv(0x30, content() + tlv(0x30, tlv(0x06, OID + b"\x63") + tlv(0x04, b"") * 2)),
        tlv(0x30, content() + tlv(0x04, b"")),
        tlv(0x30, content() + entry(b"\x63", b"\x04\x81\x01\x00")),
        tlv(0x30, content() + entry(b"\x63", b"\x04\x82\x00\x80" + bytes(128))),
        tlv(0x30, content() + entry(b"\x63", b"\x04\x05\x00")),
        tlv(0x30, content() + entry(b"\x63", b"\x04\x82\x01")),
        tlv(0x30, content() + entry(b"\x63", b"\x04\x83\x01\x00\x00" + bytes(256))),
        tlv(0x30, content() + entry(b"\x63", b"\x1f\x01\x00")),
    ],
)
def test_not_strict_der(der: bytes | None) -> None:
    with pytest.raises(PckExtensionError):
        parse_sgx_extension(der)


def test_a_processor_ca_says_nothing_of_flags() -> None:
    assert parse_sgx_extension(made({b"\x07": None})).flags == frozenset()


def test_unknown_entries_are_skipped() -> None:
    assert parse_sgx_extension(made({b"\x06": tlv(0x04, bytes(16))})) == parse_sgx_extension(made())


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(at: int, value: int) -> None:
    with contextlib.suppress(PckExtensionError):
        platform = parse_sgx_extension(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])
        assert len(platform.sgx_svns) == 16
