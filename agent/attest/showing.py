"""`gpupool attest show`: what is in a file, recognised by its content. Nothing is verified, nothing is fetched.

Recognised, binary ones also in hex or base64: a quote, collateral, a bundle of collateral, the certificate of an
attested guest (RA-TLS, with the quote in it), a GPU's report, GPU evidence (a container of reports).

What is shown is what the file claims, in whatever state it is; the first line says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.attest.inputs import decode_text, read_bytes
from agent.attest.report import table
from agent.attest.values import Tree, collateral_value, gpu_report_value, moment, quote_value
from agent.errors import OperationError
from agent.output import answer
from agent.setup import toml_table
from attestation.certs import split_pem
from attestation.collateral import Collateral
from attestation.collateral_store import BUNDLE_BYTES_MAX, read_bundle_entry, split_bundle
from attestation.errors import InvalidPolicyError
from attestation.errors.providers import GuestCertificateFormError
from attestation.gpu import VerifiedGpu, decode_gpu_evidence
from attestation.gpu_policy import golden_of
from attestation.gpu_report import GpuReport, parse_gpu_report
from attestation.guest_certificate import parse_guest_certificate
from attestation.quote import parse_quote
from attestation.types import TdReport

NOTHING_VERIFIED = "nothing here is verified"
_NAME = "a name for it"
_PEM = b"-----BEGIN"
_BUNDLE = b'{"update":'
_DER_SEQUENCE = 0x30
_QUOTE_VERSIONS = (b"\3\0", b"\4\0", b"\5\0")
_GPU_REPORT = b"\x11\xe0"
_GPU_EVIDENCE = b"\x92\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a file holds: its kind in words, its tree, and a table to pin it by in a policy (TOML), if any."""

    kind: str
    value: Tree
    pin: str | None = None


def show(options: argparse.Namespace) -> int:
    """Show what is in a file."""
    path: Path = options.file
    data = read_bytes(path, BUNDLE_BYTES_MAX)
    if len(data) > BUNDLE_BYTES_MAX:
        raise OperationError(f"{path}: more than {BUNDLE_BYTES_MAX} bytes")
    shown = recognise(data)
    if shown is None:
        raise OperationError(
            f"{path}: neither a quote, collateral, a bundle, a guest's certificate, nor a GPU's report or evidence"
        )
    value: Tree = {"kind": shown.kind, "verified": False, **shown.value, "pin": shown.pin}
    text = f"{shown.kind}: {NOTHING_VERIFIED}\n\n{table(shown.value)}"
    if shown.pin is not None:
        text += f"\n\nto pin it in a policy, once you trust where it comes from:\n\n{shown.pin.rstrip()}"
    return answer(options, value, text)


def recognise(data: bytes) -> Shown | None:
    """Say what `data` is and read it, None if it is nothing that is known here.

    Raises:
        AttestationError: it looks like something, and is malformed.
    """
    text = data.lstrip()
    if text.startswith(b"{"):
        return _bundle(text) if text.startswith(_BUNDLE) else _collateral(text)
    if text.startswith(_PEM):
        return _guest(split_pem(text, 1, GuestCertificateFormError)[0])
    raw = decode_text(data)
    readers: list[tuple[bool, Callable[[bytes], Shown]]] = [
        (raw[:2] in _QUOTE_VERSIONS, _quote),
        (raw[:1] == bytes([_DER_SEQUENCE]), _guest),
        (raw.startswith(_GPU_REPORT), _gpu_report),
        (raw.startswith(_GPU_EVIDENCE), _gpu_evidence),
    ]
    return next((read(raw) for fits, read in readers if fits), None)


def _quote(raw: bytes) -> Shown:
    quote = parse_quote(raw)
    return Shown(kind="TDX quote", value=quote_value(raw, quote), pin=measurement_table(quote.td))


def measurement_table(td: TdReport) -> str:
    """The table of a policy (TOML) that allows what this TD runs, and nothing else."""
    entry: Tree = {"name": _NAME, "mr_td": td.mr_td.hex()}
    entry |= {f"rtmr{i}": rtmr.hex() for i, rtmr in enumerate(td.rtmrs)}
    return toml_table("[[attestation.measurements]]", entry)


def _guest(der: bytes) -> Shown:
    guest = parse_guest_certificate(der)
    quote = parse_quote(guest.quote)
    value = {
        "key": guest.key.hex(),
        "not_before": moment(guest.not_before_s),
        "not_after": moment(guest.not_after_s),
        "quote": quote_value(guest.quote, quote),
    }
    return Shown(kind="certificate of an attested guest", value=value, pin=measurement_table(quote.td))


def _collateral(data: bytes) -> Shown:
    return Shown(kind="collateral", value=collateral_value(Collateral.from_json(data)))


def _bundle(data: bytes) -> Shown:
    entries = [read_bundle_entry(line) for _, line in split_bundle(data)]
    collateral = [{"update": entry.update, **collateral_value(entry.collateral)} for entry in entries]
    return Shown(kind="bundle of collateral", value={"collateral": collateral})


def _gpu_report(raw: bytes) -> Shown:
    report = parse_gpu_report(raw)
    return Shown(kind="GPU report", value=gpu_report_value(report), pin=gpu_table([report]))


def _gpu_evidence(raw: bytes) -> Shown:
    entries = decode_gpu_evidence(raw)
    reports = [parse_gpu_report(entry.report) for entry in entries]
    gpus = [
        {"certificates": len(entry.chain), "report": gpu_report_value(report)}
        for entry, report in zip(entries, reports, strict=True)
    ]
    return Shown(kind="GPU evidence", value={"bytes": len(raw), "gpus": gpus}, pin=gpu_table(reports))


def gpu_table(reports: list[GpuReport]) -> str | None:
    """The table of a policy (TOML) that allows what these GPUs run; None if there is nothing to pin."""
    claimed = [
        VerifiedGpu(
            identity=bytes(32),
            model="",
            fwid=report.fwid or b"",
            driver=report.driver,
            vbios=report.vbios,
            measurements=report.measurements,
            protected_pcie=report.protected_pcie,
        )
        for report in reports
    ]
    try:
        entry = golden_of(claimed, name=_NAME)
    except InvalidPolicyError:
        return None
    entry["fwid"] = [fwid for fwid in entry["fwid"] if fwid] or None
    blocks = entry.pop("blocks")
    return toml_table("[[attestation.gpu_measurements]]", entry) + toml_table(
        "[attestation.gpu_measurements.blocks]", blocks
    )
