"""The edges of the rules: the last value that still holds, and what only one condition of several refuses.

Each of these stands here because `tools.mutate` found that no other test noticed when the condition was gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from attestation import errors as e
from attestation.appraisal import Case, appraise, findings
from attestation.binding import report_data
from attestation.collateral import COLLATERAL_BYTES_MAX, Collateral
from attestation.collateral_key import CollateralKey, PckCa, Update
from attestation.collateral_store import BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX, split_bundle
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.gpu_chain import NVIDIA_ROOT
from attestation.guest_certificate import parse_guest_certificate
from attestation.handshake import server_name
from attestation.pck import parse_sgx_extension
from attestation.policy import AttestationPolicy
from attestation.providers import software_builders as build
from attestation.providers.software import SOFTWARE_MACHINE, SOFTWARE_MEASUREMENT, SOFTWARE_TD, software_qe_report
from attestation.quote import parse_quote
from attestation.roots import INTEL_ROOT
from attestation.types import QUOTE_BYTES_MAX, TcbStatus, VerifiedQuote
from attestation.verify import Verifier
from tests.support.ra_tls_guest import (
    ENCRYPTED_EXTENSIONS,
    NOT_AFTER_S,
    NOT_BEFORE_S,
    certificate_message,
    certificate_verify,
    client_hello,
    make_guest,
    server_hello,
)

NOW = 1_800_000_000
NOW_TEXT = "2027-01-15T08:00:00Z"
POOL, KEY, ANCHOR = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
PLATFORM_CA = "Intel SGX PCK Platform CA"


# Lengths and numbers: the greatest one is accepted.


def test_a_quote_of_exactly_the_greatest_length_is_read(forge: Any) -> None:
    filled = bytes(QUOTE_BYTES_MAX - len(forge.quote(qe_auth_data=b"")))
    assert len(parse_quote(forge.quote(qe_auth_data=filled)).qe_auth_data) == len(filled)
    with pytest.raises(e.QuoteTooLongError):
        parse_quote(forge.quote(qe_auth_data=filled + b"\0"))


def test_collateral_of_exactly_the_greatest_length_is_read(forge: Any) -> None:
    collateral = forge.collateral()
    encoded = collateral.to_json()
    assert Collateral.from_json(encoded.ljust(COLLATERAL_BYTES_MAX)).to_json() == encoded
    parts = {name: getattr(collateral, name) for name in json.loads(encoded)}
    room = COLLATERAL_BYTES_MAX - len(encoded)
    longest = Collateral(**(parts | {"tcb_info": parts["tcb_info"] + b" " * room}))
    assert len(longest.to_json()) == COLLATERAL_BYTES_MAX
    with pytest.raises(e.CollateralMalformedError):
        Collateral(**(parts | {"tcb_info": parts["tcb_info"] + b" " * (room + 1)}))


def test_evidence_of_the_greatest_and_smallest_values() -> None:
    evidence = Evidence(
        quote=bytes(QUOTE_BYTES_MAX),
        collateral_digest=bytes(32),
        anchor_seqno=0,
        anchor_root_hash=bytes(32),
        anchor_time_s=0,
        gpu_digest=None,
        handshake_digest=None,
    )
    assert replace(evidence, anchor_seqno=(1 << 32) - 1, anchor_time_s=(1 << 32) - 1).quote == evidence.quote
    with pytest.raises(e.EvidenceMalformedError):
        replace(evidence, anchor_time_s=1 << 32)


def test_a_bundle_of_the_greatest_length_or_number_is_read() -> None:
    assert len(split_bundle(b"x\n" * BUNDLE_ENTRIES_MAX)) == BUNDLE_ENTRIES_MAX
    assert len(split_bundle(b"x".ljust(BUNDLE_BYTES_MAX))) == 1
    for bundle in (b"x\n" * (BUNDLE_ENTRIES_MAX + 1), b"x".ljust(BUNDLE_BYTES_MAX + 1)):
        with pytest.raises(e.CollateralBundleError):
            split_bundle(bundle)


def test_report_data_for_the_smallest_network() -> None:
    assert len(report_data(-(1 << 31), bytes(32), bytes(32), bytes(32))) == 64
    with pytest.raises(e.EvidenceMalformedError):
        report_data(-(1 << 31) - 1, bytes(32), bytes(32), bytes(32))


def test_every_part_may_be_used_in_its_first_and_in_its_last_second(forge: Any) -> None:
    forms = {"issueDate": NOW_TEXT, "nextUpdate": NOW_TEXT}
    pck = forge.pck_of(forge.pck_issuer, not_before_s=NOW, not_after_s=NOW)
    collateral = forge.collateral(
        lambda tree: tree.update(forms),
        lambda tree: tree.update(forms),
        signer=forge.certificate("Intel SGX TCB Signing", forge.root, not_before_s=NOW, not_after_s=NOW),
        root_ca_crl=forge.crl(forge.root, this_s=NOW, next_s=NOW + 1),
        pck_crl=forge.crl(forge.pck_issuer, this_s=NOW - 1, next_s=NOW),
    )
    assert forge.verify(forge.quote_of(pck), collateral).status is TcbStatus.UP_TO_DATE


# The SGX extension.


def with_entry(value: bytes) -> bytes:
    """The software machine's extension with one more entry that nobody knows."""
    good = build.build_sgx_extension(SOFTWARE_MACHINE)
    return build._tlv(0x30, good[4:] + build._entry(b"\x63", value))


@pytest.mark.parametrize("length", [0, 0x7F, 0x80, 0xFF, 0x100])
def test_an_unknown_entry_of_any_length_is_skipped(length: int) -> None:
    value = build._tlv(0x05 if length == 0 else 0x04, bytes(length))
    assert parse_sgx_extension(with_entry(value)) == SOFTWARE_MACHINE


def test_an_indefinite_length_is_not_the_length_128() -> None:
    with pytest.raises(e.PckExtensionError):
        parse_sgx_extension(with_entry(b"\x04\x80" + bytes(128)))


def test_a_negative_number_is_refused() -> None:
    good, entry = build.build_sgx_extension(SOFTWARE_MACHINE), b"\x0d\x01\x02\x11\x02\x01"
    assert good.count(entry + b"\x0b") == 1
    with pytest.raises(e.PckExtensionError):
        parse_sgx_extension(good.replace(entry + b"\x0b", entry + b"\x8b"))


def test_the_greatest_numbers_of_a_machine_are_read() -> None:
    machine = replace(SOFTWARE_MACHINE, sgx_svns=(255,) * 16, pce_svn=65_535)
    assert parse_sgx_extension(build.build_sgx_extension(machine, sgx_type=2)) == machine


# Certificates.


def named(forge: Any, *names: str, algorithm: Any = None) -> Any:
    """A PCK with these common names, signed by the PCK CA."""
    key = build.new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    template = forge.pck.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(forge.pck_issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(4)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
    )
    for extension in template.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return build.Issuer(certificate=builder.sign(forge.pck_issuer.key, algorithm or hashes.SHA256()), key=key)


@pytest.mark.parametrize(
    ("names", "algorithm"),
    [
        ((), None),
        (("Intel SGX PCK Certificate", "Intel SGX PCK Certificate"), None),
        (("Intel SGX PCK Certificate",), hashes.SHA384()),
    ],
)
def test_a_certificate_that_intels_profile_does_not_have(forge: Any, names: tuple[str, ...], algorithm: Any) -> None:
    forge.verify(forge.quote_of(named(forge, "Intel SGX PCK Certificate")))
    with pytest.raises(e.PckCertificateError):
        forge.verify(forge.quote_of(named(forge, *names, algorithm=algorithm)))


def test_a_ca_by_usage_alone_is_none(forge: Any) -> None:
    usage = build.build_usage(certificates=True, lists=True)
    issuer = forge.certificate(PLATFORM_CA, forge.root, is_ca=False, usage=usage)
    pck = forge.pck_of(issuer)
    raw = forge.quote(pck_key=pck.key, pck_chain=build.build_chain(pck, issuer, forge.root))
    with pytest.raises(e.PckChainUsageError):
        forge.verify(raw)


def test_a_ca_that_may_sign_lists_alone_is_none(forge: Any) -> None:
    issuer = forge.certificate(PLATFORM_CA, forge.root, is_ca=True, usage=build.build_usage(lists=True))
    pck = forge.pck_of(issuer)
    raw = forge.quote(pck_key=pck.key, pck_chain=build.build_chain(pck, issuer, forge.root))
    with pytest.raises(e.PckChainUsageError):
        forge.verify(raw)


def with_unused_bit(make: Callable[[], bytes], load: Callable[[bytes], Any]) -> bytes:
    """The DER that `make` signs, saying that the last bit of its signature does not count; that bit is zero."""
    der = next(der for der in (make() for _ in range(100)) if not der[-1] & 1)
    signature: bytes = load(der).signature
    changed = der[: -len(signature) - 1] + b"\x01" + signature
    assert load(changed).signature == signature
    return changed


def test_a_signature_with_unused_bits_is_refused(forge: Any) -> None:
    """Anybody can change this count, and the library does not look at it."""
    load, load_list = x509.load_der_x509_certificate, x509.load_der_x509_crl
    der = with_unused_bit(lambda: forge.pck_of(forge.pck_issuer, key=forge.pck.key).der, load)
    pem = build.build_chain(build.Issuer(certificate=load(der), key=forge.pck.key))
    with pytest.raises(e.PckCertificateError):
        forge.verify(forge.quote(pck_chain=pem + build.build_chain(forge.pck_issuer, forge.root)))
    revoked = with_unused_bit(lambda: forge.crl(forge.pck_issuer), load_list)
    with pytest.raises(e.CrlMalformedError):
        forge.verify(collateral=forge.collateral(pck_crl=revoked))


def test_another_unknown_extension_is_not_the_sgx_extension(forge: Any) -> None:
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    pck = forge.pck_of(forge.pck_issuer, extensions=[(other, False)])
    assert forge.verify(forge.quote_of(pck)).platform == SOFTWARE_MACHINE


def test_an_attestation_key_that_is_no_point_is_refused(forge: Any) -> None:
    """The quoting enclave vouches for any 64 bytes; these are not on the curve."""
    nowhere = bytes(63) + b"\x01"
    vouched = hashlib.sha256(nowhere + forge.auth_data).digest() + bytes(32)
    raw = forge.quote(qe_report=software_qe_report(vouched))
    at = raw.index(build.point_of(forge.attestation_key))
    with pytest.raises(e.AttestationKeyError):
        forge.verify(raw[:at] + nowhere + raw[at + 64 :])


# TCB.


def test_a_float_is_refused_even_where_nobody_looks(forge: Any) -> None:
    for text in ("1.5", "NaN"):
        tcb_text = json.dumps(forge.tcb_info()).replace("{", f'{{"unknown": {text}, ', 1).encode()
        with pytest.raises(e.TcbInfoFormError):
            forge.verify(collateral=forge.collateral(tcb_text=tcb_text))


@pytest.mark.parametrize(
    ("statuses", "launch", "expected"),
    [
        (("UpToDate", "UpToDate", "OutOfDate"), 3, "UpToDate"),
        (("OutOfDate", "OutOfDate", "OutOfDate"), 3, "OutOfDate"),
        (("UpToDate", "OutOfDateConfigurationNeeded", "Revoked"), 3, "TDRelaunchAdvisedConfigurationNeeded"),
        (("ConfigurationNeeded", "OutOfDate", "Revoked"), 3, "TDRelaunchAdvisedConfigurationNeeded"),
    ],
)
def test_a_relaunch_is_advised_from_bad_to_good_only(
    forge: Any, statuses: tuple[str, ...], launch: int, expected: str
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        best = json.dumps(tree["tcbLevels"][0])
        tree["tcbLevels"] = []
        for svn, status in zip((4, 3, 2), statuses, strict=True):
            level = json.loads(best) | {"tcbStatus": status}
            level["tcb"]["tdxtcbcomponents"][2]["svn"] = svn
            tree["tcbLevels"].append(level)

    svns = {"tee_tcb_svn": bytes([5, 1, launch]) + bytes(13), "tee_tcb_svn2": bytes([5, 1, 4]) + bytes(13)}
    assert forge.verify(forge.quote(forge.signed_v5(**svns)), forge.collateral(edit)).status == expected


# Appraisal.

GOOD = VerifiedQuote(
    td=SOFTWARE_TD,
    platform=SOFTWARE_MACHINE,
    status=TcbStatus.UP_TO_DATE,
    advisories=(),
    tcb_date_s=NOW,
    tcb_evaluation=17,
    qe_evaluation=18,
    quote_version=4,
    signed_digest=bytes(32),
    collateral_digest=bytes(32),
    collateral_issued_s=NOW - 1000,
    verified_s=NOW,
)


def case(verified: VerifiedQuote, **policy: Any) -> Case:
    rules = AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), **policy)
    return Case(verified=verified, policy=rules, now=NOW, expected_report_data=bytes(64))


def test_without_grace_not_even_a_level_of_today_is_in_it() -> None:
    with pytest.raises(e.TcbStatusRefusedError):
        appraise(case(replace(GOOD, status=TcbStatus.OUT_OF_DATE)))
    assert appraise(case(replace(GOOD, status=TcbStatus.OUT_OF_DATE), out_of_date_grace_s=1)).measurement == "software"


def test_an_appraisal_is_current_up_to_its_last_second() -> None:
    appraisal = appraise(case(GOOD, evidence_age_max_s=600))
    appraisal.require_current(NOW + 600)
    with pytest.raises(e.AnchorStaleError):
        appraisal.require_current(NOW + 601)


def test_no_service_td_is_shown_as_none() -> None:
    for service in (None, bytes(48)):
        shown = {
            it.rule: it.seen for it in findings(case(replace(GOOD, td=replace(SOFTWARE_TD, mr_service_td=service))))
        }
        assert shown["service TD"] == "none"


@pytest.mark.parametrize("anchor_s", [NOT_BEFORE_S, NOT_AFTER_S])
def test_a_guests_certificate_holds_in_its_first_and_in_its_last_second(forge: Any, anchor_s: int) -> None:
    guest = make_guest(lambda data: forge.quote(forge.signed(report_data=data)))
    challenge = report_data(-217, POOL, KEY, ANCHOR)
    messages = client_hello(server_name(challenge).encode()) + server_hello() + ENCRYPTED_EXTENSIONS
    messages += certificate_message(guest.certificate)
    handshake = messages + certificate_verify(guest, messages)
    collateral = forge.collateral()
    evidence = Evidence(
        quote=parse_guest_certificate(guest.certificate).quote,
        collateral_digest=collateral.digest,
        anchor_seqno=1,
        anchor_root_hash=ANCHOR,
        anchor_time_s=anchor_s,
        gpu_digest=None,
        handshake_digest=hashlib.sha256(handshake).digest(),
    )
    appraisal = appraise_evidence(
        evidence,
        Attachments(collateral=collateral, handshake=handshake),
        AttestationPolicy(measurements=(SOFTWARE_MEASUREMENT,), guest_handshake_allowed=True),
        network=-217,
        pool=POOL,
        node_key=KEY,
        root=forge.root.der,
    )
    assert appraisal.valid_from_s == anchor_s


def test_a_public_network_takes_nvidias_root_only(forge: Any) -> None:
    collateral = forge.collateral()
    evidence = Evidence(
        quote=b"",
        collateral_digest=collateral.digest,
        anchor_seqno=1,
        anchor_root_hash=ANCHOR,
        anchor_time_s=NOW,
        gpu_digest=None,
        handshake_digest=None,
    )
    arguments: dict[str, Any] = {"pool": POOL, "node_key": KEY, "root": INTEL_ROOT}
    for gpu_root, error in [(b"other", e.RootRefusedError), (NVIDIA_ROOT, e.InvalidQuoteError)]:
        with pytest.raises(error):
            appraise_evidence(
                evidence,
                Attachments(collateral=collateral),
                AttestationPolicy(),
                network=-3,
                gpu_root=gpu_root,
                **arguments,
            )


def test_a_processor_family_has_6_bytes() -> None:
    with pytest.raises(ValueError, match="5 bytes"):
        CollateralKey(fmspc=bytes(5), ca=PckCa.PLATFORM, update=Update.STANDARD)


# Memory.


def test_what_is_remembered_is_not_checked_again(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, raw, collateral = Verifier(forge.root.der), forge.quote(), forge.collateral()
    first = verifier.verify_quote(raw, collateral, now=NOW)
    for name in ("verify_collateral", "verify_pck"):
        monkeypatch.delattr(f"attestation.verify.{name}")
    assert verifier.verify_quote(raw, collateral, now=NOW) == first
