"""The GPU report's parser: constants, exact lengths, nothing but its own errors on any input."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors.gpu import GpuReportMalformedError, GpuReportUnsupportedError, InvalidGpuEvidenceError
from attestation.gpu_report import GPU_REPORT_BYTES_MAX, parse_gpu_report
from tests.support import gpu_forge as forge
from tests.support.gpu_forge import BLOCKS, FIELDS, FWID, NONCE

VALID = forge.report()


def test_fields_stand_where_they_belong() -> None:
    report = parse_gpu_report(VALID)
    assert report.nonce == NONCE
    assert report.measurements == BLOCKS
    assert report.fields == FIELDS
    assert (report.driver, report.vbios, report.fwid) == ("550.90.07", "96.00.9F.00.01", FWID)
    assert not report.protected_pcie
    assert report.signed + report.signature == VALID
    assert len(report.signature) == 96


def test_every_shortening_is_refused() -> None:
    for length in range(len(VALID)):
        with pytest.raises(GpuReportMalformedError):
            parse_gpu_report(VALID[:length])


def test_slack_is_refused_wherever_it_hides() -> None:
    record = b"".join(forge.block(index, value) for index, value in BLOCKS.items())
    opaque = b"".join(forge.field(kind, value) for kind, value in FIELDS.items())
    for raw in (
        forge.report(tail=b"\0"),
        forge.report(record=record + b"\0"),
        forge.report(count=len(BLOCKS) - 1),
        forge.report(opaque=opaque + b"\0"),
    ):
        with pytest.raises(GpuReportMalformedError):
            parse_gpu_report(raw)


def test_too_long_is_refused_unread() -> None:
    with pytest.raises(GpuReportMalformedError, match="at most 8192 are read"):
        parse_gpu_report(bytes(GPU_REPORT_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "parts",
    [
        {"request": b"\x12\xe0\x01\xff"},
        {"request": b"\x11\xe1\x01\xff"},
        {"request": b"\x11\xe0\x00\xff"},
        {"request": b"\x11\xe0\x01\x01"},
        {"response": b"\x12\x60\x00\x00"},
        {"response": b"\x11\x7f\x00\x00"},
        {"record": forge.block(1, bytes(48), specification=2), "count": 1},
        {"record": forge.block(1, bytes(32)), "count": 1},
        {"record": forge.block(1, bytes(49)), "count": 1},
        {"record": b"\x01\x01\x34\x00\x01\x30\x00" + bytes(48), "count": 1},
        {"record": b"\x01\x01\x33\x00\x01\x20\x00" + bytes(32), "count": 1},
    ],
)
def test_other_kinds_of_reports(parts: dict[str, bytes]) -> None:
    with pytest.raises(GpuReportUnsupportedError):
        parse_gpu_report(forge.report(**parts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        {"blocks": {}},
        {"record": forge.block(1, bytes(48)) * 2, "count": 2},
        {"record": forge.block(0, bytes(48)), "count": 1},
        {"record": forge.block(255, bytes(48)), "count": 1},
        {"opaque": forge.field(3, FIELDS[3]) * 2 + forge.field(6, FIELDS[6])},
        {"fields": FIELDS | {20: FWID[1:]}},
        {"fields": FIELDS | {6: bytes(7)}},
        {"fields": FIELDS | {3: b""}},
        {"fields": FIELDS | {3: b"550.90.07\0x"}},
        {"fields": FIELDS | {3: b"\xff\xff.1"}},
        {"fields": {}},
    ],
)
def test_parts_without_meaning(parts: dict[str, bytes]) -> None:
    with pytest.raises(GpuReportMalformedError):
        parse_gpu_report(forge.report(**parts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({21: b"\x55"}, False),
        ({21: b"\xaa"}, True),
        ({21: b""}, True),
        ({21: b"\x55", 36: b"\x00\x00"}, False),
        ({36: b"\x01\x00", 21: b"\x55"}, False),
        ({36: b"\x02\x00", 21: b"\x55"}, True),
        ({36: b"\x07\x00", 21: b"\x55"}, True),
    ],
)
def test_what_counts_as_protected_pcie(fields: dict[int, bytes], expected: bool) -> None:
    assert parse_gpu_report(forge.report(fields=FIELDS | fields)).protected_pcie is expected


def test_an_old_report_names_no_firmware() -> None:
    fields = {kind: value for kind, value in FIELDS.items() if kind not in (20, 21)}
    report = parse_gpu_report(forge.report(fields=fields))
    assert (report.fwid, report.protected_pcie) == (None, False)


@given(st.binary(max_size=300), st.integers(0, len(VALID)))
def test_any_bytes_parse_or_are_refused(tail: bytes, kept: int) -> None:
    with contextlib.suppress(InvalidGpuEvidenceError):
        report = parse_gpu_report(VALID[:kept] + tail)
        assert report.signed + report.signature == VALID[:kept] + tail


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_any_changed_byte_parses_or_is_refused(at: int, value: int) -> None:
    changed = VALID[:at] + bytes([value]) + VALID[at + 1 :]
    with contextlib.suppress(InvalidGpuEvidenceError):
        report = parse_gpu_report(changed)
        assert report.signed + report.signature == changed
