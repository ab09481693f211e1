"""`gpupool attest show` and `pin`: what is in a file, recognised by its content. Nothing is verified, nothing fetched.

Recognised, binary ones also in hex or base64: a quote, collateral, a bundle of collateral, the certificate of an
attested guest (RA-TLS, with the quote in it), other certificates and chains, a GPU's report, GPU evidence (a
container of reports).

What is shown is what the file claims, in whatever state it is; the first line says so. `pin` prints the table alone
that a policy would pin it by.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from agent.attest.certificates import PEM_HEAD, pem_blocks, x509_value
from agent.attest.inputs import decode_text, read_bytes
from agent.attest.kinds import Kind, kind_of
from agent.attest.report import table
from agent.attest.values import Tree, collateral_value, gpu_report_value, moment, quote_value
from agent.errors import ConfigError, OperationError
from agent.output import answer
from agent.setup import toml_table
from attestation.collateral import Collateral
from attestation.collateral_store import BUNDLE_BYTES_MAX, read_bundle_entry, split_bundle
from attestation.errors import InvalidPolicyError
from attestation.gpu import VerifiedGpu, decode_gpu_evidence
from attestation.gpu_policy import golden_of
from attestation.gpu_report import GpuReport, parse_gpu_report
from attestation.guest_certificate import parse_guest_certificate
from attestation.quote import parse_quote
from attestation.types import TdReport

NOTHING_VERIFIED = "nothing here is verified"
_NAME = "a name for it"
_NAME_MAX = 128
_OID_OF_GUESTS = bytes.fromhex("06082b06010401e03901")
"""DER of `attestation.guest_certificate.OID_QUOTE`: what has it claims to be a guest's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a file holds: its kind in words, its tree, and a table to pin it by in a policy (TOML), if any."""

    kind: str
    value: Tree
    pin: str | None = None


def show(options: argparse.Namespace) -> int:
    """Show what is in a file."""
    shown = _read(options.file, _NAME)
    value: Tree = {"kind": shown.kind, "verified": False, **shown.value, "pin": shown.pin}
    text = f"{shown.kind}: {NOTHING_VERIFIED}\n\n{table(shown.value)}"
    if shown.pin is not None:
        text += f"\n\nto pin it in a policy, once you trust where it comes from:\n\n{shown.pin.rstrip()}"
    return answer(options, value, text)


def pin(options: argparse.Namespace) -> int:
    """Print the table of a policy that a file is pinned by, and nothing else."""
    if not 1 <= len(options.name) <= _NAME_MAX:
        raise ConfigError(f"--name: {len(options.name)} characters, expected 1 to {_NAME_MAX}")
    shown = _read(options.file, options.name)
    if shown.pin is None:
        raise OperationError(f"{options.file}: {shown.kind}: it measures nothing that could be pinned")
    return answer(options, {"kind": shown.kind, "verified": False, "pin": shown.pin}, shown.pin.rstrip())


def _read(path: Path, name: str) -> Shown:
    data = read_bytes(path, BUNDLE_BYTES_MAX)
    if len(data) > BUNDLE_BYTES_MAX:
        raise OperationError(f"{path}: more than {BUNDLE_BYTES_MAX} bytes")
    shown = recognise(data, name)
    if shown is None:
        raise OperationError(
            f"{path}: neither a quote, collateral, a bundle, certificates, nor a GPU's report or evidence"
        )
    return shown


def recognise(data: bytes, name: str = _NAME) -> Shown | None:
    """Say what `data` is and read it, None if it is nothing that is known here; `name` is that of a table to pin.

    Raises:
        AttestationError: it looks like something, and is malformed.
        OperationError: it looks like a certificate, and cannot be read as one.
    """
    match kind_of(data):
        case Kind.QUOTE:
            return _quote(decode_text(data), name)
        case Kind.COLLATERAL:
            return _collateral(data)
        case Kind.BUNDLE:
            return _bundle(data)
        case Kind.CERTIFICATE:
            return _certificates(data, name)
        case Kind.GPU_REPORT:
            return _gpu_report(decode_text(data), name)
        case Kind.GPU_EVIDENCE:
            return _gpu_evidence(decode_text(data), name)
        case None:
            return None


def _quote(raw: bytes, name: str) -> Shown:
    quote = parse_quote(raw)
    return Shown(kind="TDX quote", value=quote_value(raw, quote), pin=measurement_table(quote.td, name))


def measurement_table(td: TdReport, name: str) -> str:
    """The table of a policy (TOML) that allows what this TD runs, and nothing else."""
    entry: Tree = {"name": name, "mr_td": td.mr_td.hex()}
    entry |= {f"rtmr{i}": rtmr.hex() for i, rtmr in enumerate(td.rtmrs)}
    return toml_table("[[attestation.measurements]]", entry)


def _certificates(data: bytes, name: str) -> Shown:
    """A guest's certificate with its quote; of all others, whom they name."""
    text = data.lstrip()
    ders = pem_blocks(text) if text.startswith(PEM_HEAD) else [decode_text(data)]
    if len(ders) == 1 and _OID_OF_GUESTS in ders[0]:
        return _guest(ders[0], name)
    values = [x509_value(der) for der in ders]
    if len(values) == 1:
        return Shown(kind="certificate", value=values[0])
    return Shown(kind="chain of certificates", value={"certificates": values})


def _guest(der: bytes, name: str) -> Shown:
    guest = parse_guest_certificate(der)
    quote = parse_quote(guest.quote)
    value = {
        "key": guest.key.hex(),
        "not_before": moment(guest.not_before_s),
        "not_after": moment(guest.not_after_s),
        "quote": quote_value(guest.quote, quote),
    }
    return Shown(kind="certificate of an attested guest", value=value, pin=measurement_table(quote.td, name))


def _collateral(data: bytes) -> Shown:
    return Shown(kind="collateral", value=collateral_value(Collateral.from_json(data)))


def _bundle(data: bytes) -> Shown:
    entries = [read_bundle_entry(line) for _, line in split_bundle(data)]
    collateral = [{"update": entry.update, **collateral_value(entry.collateral)} for entry in entries]
    return Shown(kind="bundle of collateral", value={"collateral": collateral})


def _gpu_report(raw: bytes, name: str) -> Shown:
    report = parse_gpu_report(raw)
    return Shown(kind="GPU report", value=gpu_report_value(report), pin=gpu_table([report], name))


def _gpu_evidence(raw: bytes, name: str) -> Shown:
    entries = decode_gpu_evidence(raw)
    reports = [parse_gpu_report(entry.report) for entry in entries]
    gpus = [
        {"certificates": len(entry.chain), "report": gpu_report_value(report)}
        for entry, report in zip(entries, reports, strict=True)
    ]
    return Shown(kind="GPU evidence", value={"bytes": len(raw), "gpus": gpus}, pin=gpu_table(reports, name))


def gpu_table(reports: list[GpuReport], name: str) -> str | None:
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
        entry = golden_of(claimed, name=name)
    except InvalidPolicyError:
        return None
    entry["fwid"] = [fwid for fwid in entry["fwid"] if fwid] or None
    blocks = entry.pop("blocks")
    return toml_table("[[attestation.gpu_measurements]]", entry) + toml_table(
        "[attestation.gpu_measurements.blocks]", blocks
    )
