"""Quotes and collateral with one thing wrong each, made with the `forge` of the tests of attestation.

A case is a function of the forge: it gives the quote, the collateral, and the time of the check.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.providers import software_builders as build

NOW = 1_800_000_000
DATA = build.build_usage(data=True)
PLATFORM_CA = "Intel SGX PCK Platform CA"
Case = Callable[[Any], tuple[bytes, Any, int]]


def of_quote(make: Callable[[Any], bytes]) -> Case:
    return lambda forge: (make(forge), forge.collateral(), forge.now)


def of_collateral(make: Callable[[Any], Any]) -> Case:
    return lambda forge: (forge.quote(), make(forge), forge.now)


def with_tcb(edit: Callable[[dict[str, Any]], object]) -> Case:
    return of_collateral(lambda forge: forge.collateral(edit))


def with_qe(edit: Callable[[dict[str, Any]], object]) -> Case:
    return of_collateral(lambda forge: forge.collateral(edit_qe=edit))


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def svn(*values: int) -> bytes:
    return bytes(values) + bytes(13)


def set_keys(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree.update(values)


def set_level(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["tcbLevels"][0].update(values)


def set_module_svn(isv_svn: int) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["tdxModuleIdentities"][0]["tcbLevels"][0]["tcb"].update(isvsvn=isv_svn)


def set_tcb(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["tcbLevels"][0]["tcb"].update(values)


def set_module(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["tdxModuleIdentities"][0].update(values)


def rate_module(status: str) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["tdxModuleIdentities"][0]["tcbLevels"][0].update(tcbStatus=status)


def raised(index: int, key: str) -> Callable[[dict[str, Any]], object]:
    def edit(tree: dict[str, Any]) -> None:
        tree["tcbLevels"][0]["tcb"][key][index]["svn"] += 1

    return edit


def pck_issued_by(issuer_name: str, **changes: Any) -> Callable[[Any], bytes]:
    def make(forge: Any) -> bytes:
        issuer = forge.certificate(issuer_name, forge.root, **({"is_ca": True} | changes))
        pck = forge.pck_of(issuer)
        return bytes(forge.quote(pck_key=pck.key, pck_chain=build.build_chain(pck, issuer, forge.root)))

    return make


def same_key_other_name(forge: Any) -> bytes:
    return pck_issued_by("Intel SGX PCK Processor CA", key=forge.pck_issuer.key)(forge)


def other_root(forge: Any) -> bytes:
    root = forge.certificate("Intel SGX Root CA", None, is_ca=True)
    issuer = forge.certificate(PLATFORM_CA, root, is_ca=True)
    pck = forge.pck_of(issuer)
    return bytes(forge.quote(pck_key=pck.key, pck_chain=build.build_chain(pck, issuer, root)))


def chain_of(*names: str) -> Callable[[Any], bytes]:
    return lambda forge: forge.quote(pck_chain=build.build_chain(*(getattr(forge, name) for name in names)))


def named_as(issuer: Any, other: Any) -> Any:
    """The key of `issuer` under the name of `other`: what it signs holds, and names another issuer."""
    return replace(issuer, certificate=other.certificate)


def twin(issuer: Any) -> Any:
    """An issuer of the same name with another key."""
    return replace(issuer, key=build.new_key())


def revocation_list(issuer: Any, algorithm: Any, *critical: x509.ExtensionType) -> bytes:
    moment, until = issuer.certificate.not_valid_before_utc, issuer.certificate.not_valid_after_utc
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, moment, until)
    for extension in critical:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer.key, algorithm).public_bytes(serialization.Encoding.DER)


def list_of_a_ca_without_lists(forge: Any) -> Any:
    issuer = forge.certificate(PLATFORM_CA, forge.root, is_ca=True, usage=build.build_usage(certificates=True))
    chain = build.build_chain(issuer, forge.root)
    return forge.collateral(pck_crl_issuer_chain=chain, pck_crl=forge.crl(issuer))


def revoked_renewed_ca(forge: Any) -> tuple[bytes, Any, int]:
    """The quote's chain has an older certificate of the same CA and key, and that one is revoked."""
    older = forge.certificate(PLATFORM_CA, forge.root, is_ca=True, key=forge.pck_issuer.key)
    pck = forge.pck_of(older)
    raw = forge.quote(pck_key=pck.key, pck_chain=build.build_chain(pck, older, forge.root))
    return raw, forge.collateral(root_ca_crl=forge.crl(forge.root, older.certificate.serial_number)), forge.now


def revoked_ca(forge: Any) -> Any:
    """The collateral has a newer certificate of the same CA and key, and that one is revoked."""
    newer = forge.certificate(PLATFORM_CA, forge.root, is_ca=True, key=forge.pck_issuer.key)
    return forge.collateral(
        pck_crl_issuer_chain=build.build_chain(newer, forge.root),
        root_ca_crl=forge.crl(forge.root, newer.certificate.serial_number),
    )


def delta_list(forge: Any) -> bytes:
    """A revocation list that says of itself, critically, that it is only a delta."""
    return revocation_list(forge.pck_issuer, hashes.SHA256(), x509.DeltaCRLIndicator(1))


def p384_pck(forge: Any) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    pck = forge.pck_of(forge.pck_issuer, key=key)
    return bytes(forge.quote(pck_chain=forge.chain(pck)))


def no_extension(forge: Any) -> bytes:
    return bytes(forge.quote_of(forge.certificate("Intel SGX PCK Certificate", forge.pck_issuer)))


def unknown_critical_extension(forge: Any) -> bytes:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"")
    return bytes(forge.quote_of(forge.pck_of(forge.pck_issuer, extensions=[(extension, True)])))


def signer(name: str = "Intel SGX TCB Signing", **changes: Any) -> Case:
    return of_collateral(lambda f: f.collateral(signer=f.certificate(name, f.root, **changes)))


def root_crl(make: Callable[[Any], bytes]) -> Case:
    return of_collateral(lambda f: f.collateral(root_ca_crl=make(f)))


def pck_crl(make: Callable[[Any], bytes]) -> Case:
    return of_collateral(lambda f: f.collateral(pck_crl=make(f)))


def chain(make: Callable[[Any], bytes]) -> Case:
    return of_quote(lambda f: f.quote(pck_chain=make(f)))


def pck(make: Callable[[Any], Any]) -> Case:
    return of_quote(lambda f: f.quote_of(make(f)))


def qe(**fields: Any) -> Case:
    return of_quote(lambda f: f.quote_with_qe(**fields))


def td(edit_tcb: Callable[[dict[str, Any]], object] = lambda tree: None, **fields: Any) -> Case:
    return lambda f: (f.quote(f.signed(**fields)), f.collateral(edit_tcb), f.now)


def after(make: Callable[[Any], bytes]) -> Callable[[Any], Any]:
    """Collateral whose TCB info is replaced after it was signed."""
    return lambda f: f.collateral(tcb_info=make(f))


def duplicate_key(forge: Any) -> Any:
    text = json.dumps(forge.tcb_info())
    return forge.collateral(tcb_text=text.replace('"pceId"', '"pceId": "0000", "pceId"', 1).encode())
