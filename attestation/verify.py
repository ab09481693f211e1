"""Verify a TDX quote: the main path, from untrusted bytes to a `VerifiedQuote`.

A pure function of (quote bytes, collateral bytes, time, root), because its verdict is part of consensus:
every honest operator must reach the same one. What is *allowed* is decided later, in `policy`.

The procedure (numbers are those of the comments below)
 1. root and root revocation list        2. PCK chain, not revoked    3. TCB info and QE identity, signed, in time
 4. they are of this family and PCE      5. PCK SGX extension         6. PCK -> QE report -> attestation key
 7. QE identity                          8. TDX module                9. attestation key -> header + body
10. TCB level                           11. convergence, relaunch    12. evaluation number: in `policy`

Source: Intel SGX/TDX DCAP Quote Verification Library, API reference 4.1.2; Intel PCS API v4.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from attestation.certs import (
    CN_PCK,
    CN_PCK_ISSUERS,
    PCK_CHAIN,
    Certificate,
    Validity,
    load_point,
    verify_chain,
    verify_raw_signature,
)
from attestation.collateral import Collateral, VerifiedCollateral, verify_collateral
from attestation.errors import (
    AttestationKeyError,
    FmspcMismatchError,
    PceIdMismatchError,
    PckIssuerMismatchError,
    PckIssuerRevokedError,
    PckRevokedError,
    QeAttributesError,
    QeMiscSelectError,
    QeMrSignerError,
    QeProductError,
    QeReportDataError,
    QeReportSignatureError,
    QuoteSignatureError,
    TdxModuleAttributesError,
    TdxModuleSignerError,
    TdxModuleVersionError,
)
from attestation.pck import parse_sgx_extension
from attestation.quote import parse_quote
from attestation.tcb import QeIdentity, TcbInfo, evaluate_tcb
from attestation.types import EnclaveReport, PckPlatform, Quote, TdReport, VerifiedQuote


def verify_quote(raw: bytes, collateral: Collateral, *, now: int, root: bytes) -> VerifiedQuote:
    """Verify `raw` at `now` (Unix seconds) with `collateral`, up to `root` (DER of the root certificate).

    Raises:
        InvalidQuoteError: the quote is malformed, unsupported or not authentic.
        InvalidCollateralError: the collateral is not authentic, not valid at `now`, or of another platform.
        PlatformError: the platform is revoked, or below every TCB level.
    """
    quote = parse_quote(raw)
    return _verify(quote, verify_collateral(collateral, root=root), verify_pck(quote.pck_chain_pem, root=root), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPck:
    """A PCK certificate that chains to the root. Whether it is valid at some time, or revoked, is not decided."""

    certificate: Certificate
    issuer: Certificate
    platform: PckPlatform
    validities: tuple[Validity, ...]


def verify_pck(chain_pem: bytes, *, root: bytes) -> VerifiedPck:
    """Verify the PCK chain (steps 2 and 5) up to `root`; independent of time and of revocation lists.

    Raises:
        PckChainError: not exactly [PCK, PCK CA, root], or a signature does not hold.
        PckExtensionError: the SGX extension is missing or malformed.
    """
    chain = verify_chain(chain_pem, root, [frozenset({CN_PCK}), CN_PCK_ISSUERS], PCK_CHAIN)
    return VerifiedPck(
        certificate=chain[0],
        issuer=chain[1],
        platform=parse_sgx_extension(chain[0].sgx_extension),
        validities=tuple(certificate.validity(of_sender=True) for certificate in chain),
    )


def _verify(quote: Quote, collateral: VerifiedCollateral, pck: VerifiedPck, now: int) -> VerifiedQuote:
    info, qe = collateral.tcb_info, collateral.qe_identity
    collateral.require_valid(now)  # 1, 3
    _require_pck_good(pck, collateral, now)  # 2
    _require_same_platform(pck.platform, info)  # 4, 5
    _require_qe_report(quote, pck)  # 6
    _require_qe_identity(quote.qe_report, qe)  # 7
    _require_module(quote.td, info)  # 8
    attestation_key = load_point(quote.attestation_key, AttestationKeyError)  # 9
    verify_raw_signature(attestation_key, quote.signature, quote.signed, QuoteSignatureError, "quote")
    verdict = evaluate_tcb(  # 10, 11
        info, qe, pck.platform, quote.qe_report.isv_svn, quote.td.tee_tcb_svn, quote.td.tee_tcb_svn2
    )
    return VerifiedQuote(
        td=quote.td,
        platform=pck.platform,
        status=verdict.status,
        advisories=tuple(sorted(verdict.advisories)),
        tcb_date_s=verdict.date_s,
        tcb_evaluation=info.evaluation,
        qe_evaluation=qe.evaluation,
        quote_version=quote.version,
        signed_digest=hashlib.sha256(quote.signed).digest(),
        collateral_digest=collateral.digest,
        collateral_issued_s=collateral.issued_s,
        verified_s=now,
    )


def _require_pck_good(pck: VerifiedPck, collateral: VerifiedCollateral, now: int) -> None:
    for validity in pck.validities:
        validity.require(now)
    # The list must be the one of the CA that issued this PCK; a CA renewed under the same key stays the same CA.
    same_name = pck.issuer.subject == collateral.pck_issuer.subject == collateral.pck_crl.issuer
    if not same_name or pck.issuer.key != collateral.pck_issuer.key:
        raise PckIssuerMismatchError(
            f'PCK: issued by "{pck.issuer.common_name}", revocation list of "{collateral.pck_issuer.common_name}"'
        )
    # The quote's own certificate of that CA, which may be another one than the collateral's.
    if pck.issuer.serial in collateral.root_crl.serials:
        raise PckIssuerRevokedError(f'PCK: "{pck.issuer.common_name}" {pck.issuer.serial:x} is revoked by the root')
    if pck.certificate.serial in collateral.pck_crl.serials:
        raise PckRevokedError(f"PCK: certificate {pck.certificate.serial:x} is revoked")


def _require_same_platform(platform: PckPlatform, info: TcbInfo) -> None:
    if platform.fmspc != info.fmspc:
        raise FmspcMismatchError(f"TCB info: of FMSPC {info.fmspc.hex()}; the PCK is of {platform.fmspc.hex()}")
    if platform.pce_id != info.pce_id:
        raise PceIdMismatchError(f"TCB info: of PCE {info.pce_id.hex()}; the PCK is of {platform.pce_id.hex()}")


def _require_qe_report(quote: Quote, pck: VerifiedPck) -> None:
    report = quote.qe_report
    verify_raw_signature(
        pck.certificate.key, quote.qe_report_signature, report.raw, QeReportSignatureError, "QE report"
    )
    vouched = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    if report.report_data != vouched + bytes(32):
        raise QeReportDataError("QE report: its report data is not the hash of the attestation key")


def _require_qe_identity(report: EnclaveReport, qe: QeIdentity) -> None:
    if _masked(report.misc_select, qe.misc_select_mask) != qe.misc_select:
        raise QeMiscSelectError(f"QE: MISCSELECT {report.misc_select.hex()}")
    if _masked(report.attributes, qe.attributes_mask) != qe.attributes:
        raise QeAttributesError(f"QE: attributes {report.attributes.hex()}")
    if report.mr_signer != qe.mr_signer:
        raise QeMrSignerError(f"QE: MRSIGNER {report.mr_signer.hex()}")
    if report.isv_prod_id != qe.isv_prod_id:
        raise QeProductError(f"QE: product {report.isv_prod_id}, expected {qe.isv_prod_id}")


def _require_module(td: TdReport, info: TcbInfo) -> None:
    module = info.module_of(td.tee_tcb_svn)
    if module is None:
        raise TdxModuleVersionError(f"TDX module: version {td.tee_tcb_svn[1]} is not listed in the TCB info")
    if td.mr_signer_seam != module.mr_signer:
        raise TdxModuleSignerError(f"TDX module: MRSIGNERSEAM {td.mr_signer_seam.hex()}")
    # Intel's library demands zero besides: no module attribute is defined that a production module may have.
    if _masked(td.seam_attributes, module.attributes_mask) != module.attributes or any(td.seam_attributes):
        raise TdxModuleAttributesError(f"TDX module: SEAMATTRIBUTES {td.seam_attributes.hex()}")


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(a & b for a, b in zip(value, mask, strict=True))


_V = TypeVar("_V")


class _Recent(Generic[_V]):
    """At most `limit` values by key; the least recently used one goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[bytes, _V] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], _V]) -> _V:
        """Return the value for `key`, made by `make` if it is not here; what `make` raises is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
        return value


class Verifier:
    """`verify_quote` for one root, with certificate and collateral checks remembered by digest.

    Only what does not depend on time is remembered, and only successes, so the verdict is always that of
    `verify_quote`. Memory: some 50 KiB per collateral, 20 KiB per PCK chain. Not safe across threads.
    """

    def __init__(self, root: bytes, *, collaterals_max: int = 64, pcks_max: int = 1024) -> None:
        self.root = root
        self._collaterals: _Recent[VerifiedCollateral] = _Recent(collaterals_max)
        self._pcks: _Recent[VerifiedPck] = _Recent(pcks_max)

    def verify_quote(self, raw: bytes, collateral: Collateral, *, now: int) -> VerifiedQuote:
        """Verify as the function of this name does, and raise the same errors."""
        quote = parse_quote(raw)
        trusted = self._collaterals.get(collateral.digest, lambda: verify_collateral(collateral, root=self.root))
        chain = quote.pck_chain_pem
        pck = self._pcks.get(hashlib.sha256(chain).digest(), lambda: verify_pck(chain, root=self.root))
        return _verify(quote, trusted, pck, now)
