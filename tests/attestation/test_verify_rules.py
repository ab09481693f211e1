"""One wrong thing at a time, in a world that otherwise verifies: each rule of the procedure refuses its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from wrong_quotes import (
    DATA,
    NOW,
    PLATFORM_CA,
    Case,
    after,
    chain,
    chain_of,
    delta_list,
    duplicate_key,
    flipped,
    list_of_a_ca_without_lists,
    named_as,
    no_extension,
    of_collateral,
    of_quote,
    other_root,
    p384_pck,
    pck,
    pck_crl,
    pck_issued_by,
    qe,
    raised,
    rate_module,
    revocation_list,
    revoked_ca,
    revoked_renewed_ca,
    root_crl,
    same_key_other_name,
    set_keys,
    set_level,
    set_module,
    set_module_svn,
    set_tcb,
    signer,
    svn,
    td,
    twin,
    unknown_critical_extension,
    with_qe,
    with_tcb,
)

from attestation import errors as e
from attestation.providers import software_builders as build
from attestation.verify import Verifier, verify_quote

CASES: list[tuple[str, Case, type[e.AttestationError]]] = [
    # 1: root and its revocation list
    ("other root", of_quote(other_root), e.PckChainRootError),
    ("collateral of another root", of_collateral(lambda f: type(f).new().collateral()), e.CollateralChainRootError),
    ("root list expired", root_crl(lambda f: f.crl(f.root, next_s=f.now - 1)), e.CrlExpiredError),
    ("root list from the future", root_crl(lambda f: f.crl(f.root, this_s=f.now + 1)), e.CrlNotYetValidError),
    ("root list of another issuer", root_crl(lambda f: f.crl(f.pck_issuer)), e.CrlIssuerError),
    ("root list forged", root_crl(lambda f: f.crl(twin(f.root))), e.CrlSignatureError),
    ("root list is garbage", root_crl(lambda f: b"\x30\x80garbage"), e.CrlMalformedError),
    # 2: PCK chain and revocation
    ("chain too short", of_quote(chain_of("pck", "pck_issuer")), e.PckChainFormError),
    ("chain too long", of_quote(chain_of("pck", "pck_issuer", "root", "root")), e.PckChainFormError),
    ("chain reordered", of_quote(chain_of("pck_issuer", "pck", "root")), e.PckChainNameError),
    ("chain empty", chain(lambda f: b""), e.PckChainFormError),
    ("text before the chain", chain(lambda f: b"Subject: x\n" + f.chain()), e.PckChainFormError),
    ("two NULs after the chain", chain(lambda f: f.chain() + bytes(2)), e.PckChainFormError),
    ("chain is not base64", chain(lambda f: f.chain().replace(b"\nMII", b"\n=II", 1)), e.PckChainFormError),
    ("certificate is garbage", chain(lambda f: f.chain().replace(b"\nMII", b"\nAII", 1)), e.PckCertificateError),
    ("unknown PCK CA", of_quote(pck_issued_by("Intel SGX PCK Other CA")), e.PckChainNameError),
    ("PCK CA is not a CA", of_quote(pck_issued_by(PLATFORM_CA, is_ca=False)), e.PckChainUsageError),
    (
        "PCK CA expired",
        of_quote(pck_issued_by(PLATFORM_CA, not_after_s=1_700_000_000, not_before_s=1_600_000_000)),
        e.PckExpiredError,
    ),
    (
        "PCK of another name",
        of_quote(lambda f: f.quote_of(f.certificate("Intel SGX TCB Signing", f.pck_issuer))),
        e.PckChainNameError,
    ),
    ("PCK is a CA", pck(lambda f: f.pck_of(f.pck_issuer, is_ca=True)), e.PckChainUsageError),
    (
        "PCK is a CA that signs data",
        pck(lambda f: f.pck_of(f.pck_issuer, is_ca=True, usage=DATA)),
        e.PckChainUsageError,
    ),
    ("PCK may not sign data", pck(lambda f: f.pck_of(f.pck_issuer, usage=build.build_usage())), e.PckChainUsageError),
    ("PCK names another issuer", pck(lambda f: f.pck_of(named_as(f.pck_issuer, f.root))), e.PckChainSignatureError),
    (
        "PCK CA may not sign lists",
        of_quote(pck_issued_by(PLATFORM_CA, usage=build.build_usage(certificates=True))),
        e.PckChainUsageError,
    ),
    ("PCK CA may not sign certificates", of_quote(pck_issued_by(PLATFORM_CA, usage=DATA)), e.PckChainUsageError),
    ("PCK signed by another key", pck(lambda f: f.pck_of(twin(f.pck_issuer))), e.PckChainSignatureError),
    ("PCK of the root", pck(lambda f: f.pck_of(f.root)), e.PckChainSignatureError),
    ("PCK expired", pck(lambda f: f.pck_of(f.pck_issuer, not_after_s=f.now - 1)), e.PckExpiredError),
    ("PCK not yet valid", pck(lambda f: f.pck_of(f.pck_issuer, not_before_s=f.now + 1)), e.PckNotYetValidError),
    ("PCK on P-384", of_quote(p384_pck), e.PckCertificateError),
    ("PCK with an unknown critical extension", of_quote(unknown_critical_extension), e.PckCertificateError),
    ("PCK revoked", pck_crl(lambda f: f.crl(f.pck_issuer, f.pck.certificate.serial_number)), e.PckRevokedError),
    (
        "PCK CA revoked",
        root_crl(lambda f: f.crl(f.root, f.pck_issuer.certificate.serial_number)),
        e.PckIssuerRevokedError,
    ),
    (
        "root revoked by itself",
        root_crl(lambda f: f.crl(f.root, f.root.certificate.serial_number)),
        e.RootRevokedError,
    ),
    ("PCK CA of the quote revoked, the collateral's not", revoked_renewed_ca, e.PckIssuerRevokedError),
    ("PCK CA of the collateral revoked, the quote's not", of_collateral(revoked_ca), e.PckIssuerRevokedError),
    ("PCK list of a CA without lists", of_collateral(list_of_a_ca_without_lists), e.CollateralChainUsageError),
    ("PCK list expired", pck_crl(lambda f: f.crl(f.pck_issuer, next_s=f.now - 1)), e.CrlExpiredError),
    ("PCK list of the root", pck_crl(lambda f: f.crl(f.root)), e.CrlIssuerError),
    ("PCK list forged", pck_crl(lambda f: f.crl(twin(f.pck_issuer))), e.CrlSignatureError),
    ("PCK list names another issuer", pck_crl(lambda f: f.crl(named_as(f.pck_issuer, f.root))), e.CrlIssuerError),
    (
        "PCK list with SHA-384",
        pck_crl(lambda f: revocation_list(f.pck_issuer, hashes.SHA384())),
        e.CrlMalformedError,
    ),
    ("PCK list is a delta", pck_crl(delta_list), e.CrlMalformedError),
    ("PCK of the other CA", of_quote(pck_issued_by("Intel SGX PCK Processor CA")), e.PckIssuerMismatchError),
    ("PCK of the other CA with the same key", of_quote(same_key_other_name), e.PckIssuerMismatchError),
    (
        "PCK CA of the same name, another key",
        of_quote(pck_issued_by(PLATFORM_CA)),
        e.PckIssuerMismatchError,
    ),
    # 3: TCB info and QE identity, signed and in time
    (
        "TCB info edited",
        of_collateral(after(lambda f: json.dumps(f.tcb_info() | {"x": 1}).encode())),
        e.TcbInfoSignatureError,
    ),
    (
        "TCB info re-serialised",
        of_collateral(after(lambda f: json.dumps(f.tcb_info(), indent=1).encode())),
        e.TcbInfoSignatureError,
    ),
    (
        "QE identity edited",
        of_collateral(lambda f: f.collateral(qe_identity=json.dumps(f.qe_identity() | {"x": 1}).encode())),
        e.QeIdentitySignatureError,
    ),
    ("signature zero", of_collateral(lambda f: f.collateral(tcb_info_signature=bytes(64))), e.TcbInfoSignatureError),
    (
        "signature of the other document",
        of_collateral(lambda f: f.collateral(qe_identity_signature=f.collateral().tcb_info_signature)),
        e.QeIdentitySignatureError,
    ),
    (
        "documents swapped",
        of_collateral(
            lambda f: f.collateral(
                tcb_text=json.dumps(f.qe_identity()).encode(), qe_text=json.dumps(f.tcb_info()).encode()
            )
        ),
        e.TcbInfoKindError,
    ),
    ("signer is the PCK CA", of_collateral(lambda f: f.collateral(signer=f.pck_issuer)), e.CollateralChainNameError),
    (
        "signer forged",
        of_collateral(lambda f: f.collateral(signer=f.certificate("Intel SGX TCB Signing", twin(f.root)))),
        e.CollateralChainSignatureError,
    ),
    (
        "signer issued by the PCK CA",
        of_collateral(lambda f: f.collateral(signer=f.certificate("Intel SGX TCB Signing", f.pck_issuer))),
        e.CollateralChainSignatureError,
    ),
    ("signer expired", signer(not_after_s=NOW - 1), e.CertificateExpiredError),
    ("signer revoked", root_crl(lambda f: f.crl(f.root, f.signer.certificate.serial_number)), e.SignerRevokedError),
    ("TCB info expired", with_tcb(set_keys(nextUpdate="2027-01-15T07:59:59Z")), e.TcbInfoExpiredError),
    ("TCB info from the future", with_tcb(set_keys(issueDate="2027-01-15T08:00:01Z")), e.TcbInfoNotYetValidError),
    ("QE identity expired", with_qe(set_keys(nextUpdate="2027-01-15T07:59:59Z")), e.TcbInfoExpiredError),
    ("QE identity from the future", with_qe(set_keys(issueDate="2027-01-15T08:00:01Z")), e.TcbInfoNotYetValidError),
    ("TCB info is not JSON", of_collateral(lambda f: f.collateral(tcb_text=b"{")), e.TcbInfoFormError),
    ("TCB info is too deep", of_collateral(lambda f: f.collateral(tcb_text=b"[" * 100_000)), e.TcbInfoFormError),
    ("TCB info has a key twice", of_collateral(duplicate_key), e.TcbInfoDuplicateKeyError),
    ("TCB info with a float", with_tcb(set_keys(tcbEvaluationDataNumber=1.0)), e.TcbInfoFormError),
    ("TCB info without levels", with_tcb(set_keys(tcbLevels=[])), e.TcbInfoFormError),
    (
        "TCB info with 15 components",
        with_tcb(lambda t: t["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop()),
        e.TcbInfoFormError,
    ),
    ("TCB info with an SVN of 256", with_tcb(set_tcb(pcesvn=65_536)), e.TcbInfoFormError),
    ("module with an SVN of 256", with_tcb(set_module_svn(256)), e.TcbInfoFormError),
    ("TCB info with a bad date", with_tcb(set_level(tcbDate="2024-02-30T00:00:00Z")), e.TcbInfoFormError),
    ("TCB info with a short date", with_tcb(set_level(tcbDate="2024-2-03T00:00:00Z")), e.TcbInfoFormError),
    ("TCB info with another date form", with_tcb(set_level(tcbDate="2024-02-03")), e.TcbInfoFormError),
    ("TCB info with an unknown status", with_tcb(set_level(tcbStatus="Fine")), e.TcbStatusUnknownError),
    ("TCB info with a status of ours", with_tcb(set_level(tcbStatus="TDRelaunchAdvised")), e.TcbStatusUnknownError),
    ("module with a platform's status", with_tcb(rate_module("SWHardeningNeeded")), e.TcbStatusUnknownError),
    (
        "a module twice",
        with_tcb(lambda t: t["tdxModuleIdentities"].append(t["tdxModuleIdentities"][0])),
        e.TcbInfoDuplicateKeyError,
    ),
    ("a module of another name", with_tcb(set_module(id="TDX_1")), e.TcbInfoFormError),
    # 4: of this family and PCE
    ("TCB info for SGX", with_tcb(set_keys(id="SGX")), e.TcbInfoKindError),
    ("TCB info v2", with_tcb(set_keys(version=2)), e.TcbInfoKindError),
    ("TCB info of another type", with_tcb(set_keys(tcbType=1)), e.TcbInfoKindError),
    ("QE identity for SGX", with_qe(set_keys(id="QE")), e.TcbInfoKindError),
    ("QE identity v1", with_qe(set_keys(version=1)), e.TcbInfoKindError),
    ("other FMSPC", with_tcb(set_keys(fmspc="000000000000")), e.FmspcMismatchError),
    ("FMSPC too short", with_tcb(set_keys(fmspc="0000")), e.TcbInfoFormError),
    ("other PCE", with_tcb(set_keys(pceId="0001")), e.PceIdMismatchError),
    # 5: SGX extension (its DER in test_pck)
    ("no SGX extension", of_quote(no_extension), e.PckExtensionMissingError),
    # 6: PCK -> QE report -> attestation key
    ("QE report signed by another key", of_quote(lambda f: f.quote(pck_key=build.new_key())), e.QeReportSignatureError),
    (
        "QE vouches for another key",
        of_quote(lambda f: f.quote_with_qe(report_data=build.vouch(build.new_key(), f.auth_data))),
        e.QeReportDataError,
    ),
    ("QE vouches for other data", of_quote(lambda f: f.quote(qe_auth_data=b"other")), e.QeReportDataError),
    (
        "QE report data with a tail",
        of_quote(lambda f: f.quote_with_qe(report_data=build.vouch(f.attestation_key, f.auth_data)[:63] + b"\x01")),
        e.QeReportDataError,
    ),
    # 7: QE identity
    ("QE MISCSELECT", qe(misc_select=b"\x01\0\0\0"), e.QeMiscSelectError),
    ("QE in debug mode", qe(attributes=bytes([0x13]) + bytes(15)), e.QeAttributesError),
    ("QE of another signer", qe(mr_signer=bytes(32)), e.QeMrSignerError),
    ("QE of another product", qe(isv_prod_id=1), e.QeProductError),
    ("QE below every level", qe(isv_svn=3), e.QeLevelNotFoundError),
    ("QE revoked", with_qe(set_level(tcbStatus="Revoked")), e.TcbRevokedError),
    # 8: TDX module
    ("module of another signer", td(mr_signer_seam=b"\x01" * 48), e.TdxModuleSignerError),
    ("module with attributes", td(seam_attributes=b"\x01" + bytes(7)), e.TdxModuleAttributesError),
    (
        "module attributes, though listed",
        td(set_module(attributes="0100000000000000"), seam_attributes=b"\x01" + bytes(7)),
        e.TdxModuleAttributesError,
    ),
    ("module without a listed attribute", with_tcb(set_module(attributes="01" + "00" * 7)), e.TdxModuleAttributesError),
    ("module of another version", td(tee_tcb_svn=svn(5, 2, 2)), e.TdxModuleVersionError),
    ("no modules listed", with_tcb(lambda t: t.pop("tdxModuleIdentities")), e.TdxModuleVersionError),
    (
        "version 0 module of another signer",
        td(lambda t: t["tdxModule"].update(mrsigner="01" * 48), tee_tcb_svn=svn(9, 0, 2)),
        e.TdxModuleSignerError,
    ),
    # 9: the quote's signature
    ("report data flipped", of_quote(lambda f: flipped(f.quote(), 48 + 520)), e.QuoteSignatureError),
    ("MRTD flipped", of_quote(lambda f: flipped(f.quote(), 48 + 136)), e.QuoteSignatureError),
    ("header's user data flipped", of_quote(lambda f: flipped(f.quote(), 40)), e.QuoteSignatureError),
    ("signature flipped", of_quote(lambda f: flipped(f.quote(), 48 + 584 + 4)), e.QuoteSignatureError),
    (
        "body of another quote",
        of_quote(lambda f: f.signed(report_data=b"\x01" * 64) + f.quote()[48 + 584 :]),
        e.QuoteSignatureError,
    ),
    # 10: TCB level
    *(
        (f"SGX component {i} too low", with_tcb(raised(i, "sgxtcbcomponents")), e.TcbLevelNotFoundError)
        for i in (0, 7, 15)
    ),
    *(
        (f"TDX component {i} too low", with_tcb(raised(i, "tdxtcbcomponents")), e.TcbLevelNotFoundError)
        for i in (2, 15)
    ),
    ("PCESVN too low", with_tcb(set_tcb(pcesvn=12)), e.TcbLevelNotFoundError),
    ("module below every level", td(tee_tcb_svn=svn(4, 1, 2)), e.TdxModuleLevelNotFoundError),
    ("platform revoked", with_tcb(set_level(tcbStatus="Revoked")), e.TcbRevokedError),
    ("module revoked", with_tcb(rate_module("Revoked")), e.TcbRevokedError),
]


@pytest.mark.parametrize(("case", "error"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(forge: Any, case: Case, error: type[e.AttestationError]) -> None:
    raw, collateral, now = case(forge)
    with pytest.raises(error) as caught:
        verify_quote(raw, collateral, now=now, root=forge.root.der)
    assert type(caught.value) is error
    verifier = Verifier(forge.root.der)
    for _ in range(2):  # the second time from memory, as far as it is remembered
        with pytest.raises(error):
            verifier.verify_quote(raw, collateral, now=now)
