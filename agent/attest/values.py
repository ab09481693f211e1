"""Quotes, collateral and GPU reports as the trees that `--json` prints; `report` makes text of the same trees.

Nothing here decides or verifies anything. Bytes are hex, moments ISO 8601 in UTC, bits also by their names; a
part that cannot be read is shown as its error, so that the rest can be looked at.

Source: Intel TDX Module 1.5 ABI (TD attributes); Intel SDM 1, 13.1 (the bits of XCR0 and IA32_XSS, in XFAM).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from attestation.certs import Certificate, Validity, parse_certificate, parse_revocation_list, split_pem
from attestation.collateral import Collateral
from attestation.errors import (
    AttestationError,
    CollateralCertificateError,
    CollateralChainFormError,
    PckCertificateError,
    PckChainFormError,
)
from attestation.gpu import VerifiedGpu
from attestation.gpu_report import GpuReport
from attestation.pck import parse_sgx_extension
from attestation.tcb import Verdict
from attestation.tcb_json import parse_qe_identity, parse_tcb_info
from attestation.types import PckPlatform, Quote, TdAttribute, TdReport

Tree = dict[str, Any]
"""What `json.dumps` takes."""

_XFAM = {
    0: "X87",
    1: "SSE",
    2: "AVX",
    5: "AVX512_OPMASK",
    6: "AVX512_ZMM_HI256",
    7: "AVX512_HI16_ZMM",
    8: "PT",
    9: "PKRU",
    11: "CET_U",
    12: "CET_S",
    14: "UINTR",
    15: "LBR",
    17: "AMX_TILECFG",
    18: "AMX_TILEDATA",
}
_ATTRIBUTES = {bit.bit_length() - 1: str(bit.name) for bit in TdAttribute}
_UNMEASURED = bytes(48)


def moment(time_s: int | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC; None for a time before 1970, which a list without a next update has."""
    return (
        None if time_s is None or time_s < 0 else datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")
    )


def error_value(error: AttestationError) -> Tree:
    """What went wrong, who is at fault, and what helps."""
    return {"error": error.code, "fault": error.fault, "message": str(error), "remedy": error.remedy}


def fault_words(error: AttestationError) -> str:
    """Who is at fault, for people who have a file: its sender is whoever made it."""
    return "whoever made this file" if error.fault == "sender" else error.fault


def quote_value(raw: bytes, quote: Quote) -> Tree:
    """A parsed quote with its PCK certificate."""
    return {
        "version": quote.version,
        "bytes": len(raw),
        "signed_digest": hashlib.sha256(quote.signed).hexdigest(),
        "td": td_value(quote.td),
        "qe": {
            "mr_signer": quote.qe_report.mr_signer.hex(),
            "isv_prod_id": quote.qe_report.isv_prod_id,
            "isv_svn": quote.qe_report.isv_svn,
            "attributes": quote.qe_report.attributes.hex(),
            "misc_select": quote.qe_report.misc_select.hex(),
        },
        "pck": _readable(lambda: _pck(quote.pck_chain_pem)),
    }


def td_value(td: TdReport) -> Tree:
    """The TD report of a quote."""
    value: Tree = {
        "mr_td": td.mr_td.hex(),
        **{f"rtmr{i}": rtmr.hex() for i, rtmr in enumerate(td.rtmrs)},
        "report_data": td.report_data.hex(),
        "td_attributes": f"{td.td_attributes:#018x}",
        "td_attributes_set": _bits(td.td_attributes, _ATTRIBUTES),
        "xfam": f"{td.xfam:#018x}",
        "xfam_set": _bits(td.xfam, _XFAM),
        "mr_config_id": td.mr_config_id.hex(),
        "mr_owner": td.mr_owner.hex(),
        "mr_owner_config": td.mr_owner_config.hex(),
        "tee_tcb_svn": td.tee_tcb_svn.hex(),
        "mr_seam": td.mr_seam.hex(),
        "mr_signer_seam": td.mr_signer_seam.hex(),
        "seam_attributes": td.seam_attributes.hex(),
    }
    if td.tee_tcb_svn2 is not None and td.mr_service_td is not None:
        value |= {"tee_tcb_svn2": td.tee_tcb_svn2.hex(), "mr_service_td": td.mr_service_td.hex()}
    return value


def platform_value(platform: PckPlatform) -> Tree:
    """The machine that a PCK certificate is for."""
    return {
        "fmspc": platform.fmspc.hex(),
        "ppid": platform.ppid.hex(),
        "pce_id": platform.pce_id.hex(),
        "pce_svn": platform.pce_svn,
        "sgx_svns": list(platform.sgx_svns),
        "flags": sorted(flag.value for flag in platform.flags),
    }


def collateral_value(collateral: Collateral) -> Tree:
    """Collateral, part by part; a revocation list is held against the issuer that stands beside it."""
    return {
        "digest": collateral.digest.hex(),
        "bytes": len(collateral.to_json()),
        "tcb_info": _readable(lambda: _tcb_info(collateral.tcb_info)),
        "qe_identity": _readable(lambda: _qe_identity(collateral.qe_identity)),
        "pck_crl": _readable(lambda: _crl(collateral.pck_crl, collateral.pck_crl_issuer_chain, 0)),
        "root_crl": _readable(lambda: _crl(collateral.root_ca_crl, collateral.pck_crl_issuer_chain, 1)),
        "tcb_info_signer": _readable(lambda: _signer(collateral.tcb_info_issuer_chain)),
        "qe_identity_signer": _readable(lambda: _signer(collateral.qe_identity_issuer_chain)),
    }


def gpu_report_value(report: GpuReport) -> Tree:
    """A GPU's report; blocks that are not measured (zeros) are left out."""
    return {
        "driver": report.driver,
        "vbios": report.vbios,
        "nonce": report.nonce.hex(),
        "fwid": None if report.fwid is None else report.fwid.hex(),
        "protected_pcie": report.protected_pcie,
        "fields": {str(kind): value.hex() for kind, value in sorted(report.fields.items())},
        "blocks": {str(i): digest.hex() for i, digest in sorted(report.measurements.items()) if digest != _UNMEASURED},
    }


def gpu_value(gpu: VerifiedGpu) -> Tree:
    """A genuine GPU: which it is, and what it runs."""
    return {
        "identity": gpu.identity.hex(),
        "model": gpu.model,
        "driver": gpu.driver,
        "vbios": gpu.vbios,
        "fwid": gpu.fwid.hex(),
        "protected_pcie": gpu.protected_pcie,
    }


def certificate_value(certificate: Certificate) -> Tree:
    """Whom a certificate names, and when it is valid."""
    return {
        "name": certificate.common_name,
        "serial": f"{certificate.serial:x}",
        "not_before": moment(certificate.not_before_s),
        "not_after": moment(certificate.not_after_s),
    }


def _readable(read: Callable[[], Tree]) -> Tree:
    try:
        return read()
    except AttestationError as error:
        return error_value(error)


def _pck(chain_pem: bytes) -> Tree:
    pck, ca, root = (parse_certificate(der, PckCertificateError) for der in split_pem(chain_pem, 3, PckChainFormError))
    return {
        **platform_value(parse_sgx_extension(pck.sgx_extension)),
        "ca": ca.common_name,
        "certificates": [certificate_value(certificate) for certificate in (pck, ca, root)],
    }


def _tcb_info(text: bytes) -> Tree:
    info = parse_tcb_info(text)
    return {
        "fmspc": info.fmspc.hex(),
        "pce_id": info.pce_id.hex(),
        "evaluation": info.evaluation,
        **_span(info.validity),
        "modules": [f"TDX_{version:02x}" for version in sorted(info.modules)],
        "levels": _verdicts(level.verdict for level in info.levels),
    }


def _qe_identity(text: bytes) -> Tree:
    qe = parse_qe_identity(text)
    return {
        "evaluation": qe.evaluation,
        **_span(qe.validity),
        "mr_signer": qe.mr_signer.hex(),
        "isv_prod_id": qe.isv_prod_id,
        "levels": _verdicts(level.verdict for level in qe.levels),
    }


def _crl(der: bytes, issuer_chain: bytes, position: int) -> Tree:
    issuer = _issuers(issuer_chain)[position]
    crl = parse_revocation_list(der, issuer, "revocation list")
    return {"issuer": issuer.common_name, **_span(crl.validity), "revoked": len(crl.serials)}


def _signer(chain: bytes) -> Tree:
    return certificate_value(_issuers(chain)[0])


def _issuers(chain: bytes) -> list[Certificate]:
    ders = split_pem(chain, 2, CollateralChainFormError)
    return [parse_certificate(der, CollateralCertificateError) for der in ders]


def _span(validity: Validity) -> Tree:
    return {"issued": moment(validity.not_before_s), "next_update": moment(validity.not_after_s)}


def _verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    return [" ".join([str(moment(v.date_s)), v.status, *sorted(v.advisories)]) for v in verdicts]


def _bits(value: int, names: Mapping[int, str]) -> list[str]:
    return [names.get(i, f"bit {i}") for i in range(value.bit_length()) if value >> i & 1]
