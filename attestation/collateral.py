"""Collateral: what Intel publishes about a processor family, from untrusted bytes to verified values.

The value holds exactly what the PCS serves (certificate chains, revocation lists, TCB info and QE identity
with their signatures), in the JSON form that the DCAP tools exchange. It is addressed by its digest.

Rules of `verify_collateral` (steps 1 to 4 of the procedure; time is left to the caller, see `certs`)
1. Every chain ends in the pinned root; the root's revocation list is signed by it.
2. [TCB Signing, root] for TCB info and QE identity; signatures over the verbatim bytes, never over JSON
   that was read and written again.
3. [PCK Platform CA or Processor CA, root] for the PCK revocation list, which that CA signed.
4. Neither the root, nor the PCK CA, nor a TCB signing certificate is revoked by the root.

Source: Intel PCS API v4; `QuoteCollateralV3` is the name that dcap-qvl gives the JSON form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from attestation.certs import (
    CN_PCK_ISSUERS,
    CN_TCB_SIGNING,
    COLLATERAL_CHAIN,
    Certificate,
    RevocationList,
    Validity,
    parse_revocation_list,
    verify_chain,
    verify_raw_signature,
)
from attestation.errors import (
    CollateralMalformedError,
    IssuerRevokedError,
    PckIssuerRevokedError,
    QeIdentitySignatureError,
    RootRevokedError,
    SignerRevokedError,
    TcbInfoSignatureError,
)
from attestation.tcb import QeIdentity, TcbInfo
from attestation.tcb_json import parse_qe_identity, parse_tcb_info

COLLATERAL_BYTES_MAX = 256 * 1024
"""Real ones take 16 to 24 KiB; most of the room is for the PCK revocation list."""

_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Unverified collateral. Chains are PEM, lists DER, signatures r || s (64 bytes), documents verbatim."""

    pck_crl_issuer_chain: bytes
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: bytes
    tcb_info: bytes
    tcb_info_signature: bytes
    qe_identity_issuer_chain: bytes
    qe_identity: bytes
    qe_identity_signature: bytes
    digest: bytes = field(init=False, compare=False)
    """SHA-256 of the canonical form: the name by which evidence refers to it."""

    def __post_init__(self) -> None:
        encoded = self.to_json()
        if len(encoded) > COLLATERAL_BYTES_MAX:
            raise CollateralMalformedError(f"collateral: more than {COLLATERAL_BYTES_MAX} bytes")
        for name in ("tcb_info_signature", "qe_identity_signature"):
            if len(getattr(self, name)) != _SIGNATURE_BYTES:
                raise CollateralMalformedError(f"collateral: {name}: expected {_SIGNATURE_BYTES} bytes")
        object.__setattr__(self, "digest", hashlib.sha256(encoded).digest())

    def to_json(self) -> bytes:
        """The canonical form: UTF-8 JSON, keys in the order of the fields, no spaces, hex in lower case."""
        try:
            document = _Document(
                pck_crl_issuer_chain=self.pck_crl_issuer_chain.decode(),
                root_ca_crl=self.root_ca_crl.hex(),
                pck_crl=self.pck_crl.hex(),
                tcb_info_issuer_chain=self.tcb_info_issuer_chain.decode(),
                tcb_info=self.tcb_info.decode(),
                tcb_info_signature=self.tcb_info_signature.hex(),
                qe_identity_issuer_chain=self.qe_identity_issuer_chain.decode(),
                qe_identity=self.qe_identity.decode(),
                qe_identity_signature=self.qe_identity_signature.hex(),
            )
        except UnicodeDecodeError as error:
            raise CollateralMalformedError(f"collateral: not UTF-8: {error}") from error
        return msgspec.json.encode(document)

    @classmethod
    def from_json(cls, data: bytes) -> Collateral:
        """Read the JSON form, at most 256 KiB; key order and spaces are free, unknown keys are refused.

        Raises:
            CollateralMalformedError: too long, not JSON, or a field is missing, unknown or not hex.
        """
        if len(data) > COLLATERAL_BYTES_MAX:
            raise CollateralMalformedError(f"collateral: more than {COLLATERAL_BYTES_MAX} bytes")
        try:
            raw = msgspec.json.decode(data, type=_Document)
            return cls(
                pck_crl_issuer_chain=raw.pck_crl_issuer_chain.encode(),
                root_ca_crl=bytes.fromhex(raw.root_ca_crl),
                pck_crl=bytes.fromhex(raw.pck_crl),
                tcb_info_issuer_chain=raw.tcb_info_issuer_chain.encode(),
                tcb_info=raw.tcb_info.encode(),
                tcb_info_signature=bytes.fromhex(raw.tcb_info_signature),
                qe_identity_issuer_chain=raw.qe_identity_issuer_chain.encode(),
                qe_identity=raw.qe_identity.encode(),
                qe_identity_signature=bytes.fromhex(raw.qe_identity_signature),
            )
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CollateralMalformedError(f"collateral: {error}") from error


class _Document(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCollateral:
    """Authentic collateral. It may be used at a time that all of `validities` allow, and only then."""

    digest: bytes
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    pck_issuer: Certificate
    root_crl: RevocationList
    pck_crl: RevocationList
    validities: tuple[Validity, ...]

    @property
    def issued_s(self) -> int:
        """When its oldest part was issued (Unix seconds), the root's list aside: that one is renewed once a year."""
        parts = (self.pck_crl.validity, self.tcb_info.validity, self.qe_identity.validity)
        return min(part.not_before_s for part in parts)

    def require_valid(self, now: int) -> None:
        """Raise `CollateralNotYetValidError` or `CollateralExpiredError` unless every part holds at `now`."""
        for validity in self.validities:
            validity.require(now)


def verify_collateral(collateral: Collateral, *, root: bytes) -> VerifiedCollateral:
    """Verify every signature in `collateral` up to `root` (DER certificate); independent of time.

    Raises:
        InvalidCollateralError: a part is malformed, wrongly issued or signed, or its issuer is revoked.
    """
    pck_issuer, anchor = verify_chain(collateral.pck_crl_issuer_chain, root, [CN_PCK_ISSUERS], COLLATERAL_CHAIN)
    root_crl = parse_revocation_list(collateral.root_ca_crl, anchor, "root revocation list")
    _require_not_revoked(anchor, root_crl, RootRevokedError)
    _require_not_revoked(pck_issuer, root_crl, PckIssuerRevokedError)
    pck_crl = parse_revocation_list(collateral.pck_crl, pck_issuer, "PCK revocation list")
    tcb_chain, qe_chain = collateral.tcb_info_issuer_chain, collateral.qe_identity_issuer_chain
    tcb_signer = _verify_signer(tcb_chain, root, root_crl)
    qe_signer = tcb_signer if qe_chain == tcb_chain else _verify_signer(qe_chain, root, root_crl)
    verify_raw_signature(
        tcb_signer.key, collateral.tcb_info_signature, collateral.tcb_info, TcbInfoSignatureError, "TCB info"
    )
    verify_raw_signature(
        qe_signer.key, collateral.qe_identity_signature, collateral.qe_identity, QeIdentitySignatureError, "QE identity"
    )
    tcb_info = parse_tcb_info(collateral.tcb_info)
    qe_identity = parse_qe_identity(collateral.qe_identity)
    certificates = (anchor, pck_issuer, tcb_signer, qe_signer)
    return VerifiedCollateral(
        digest=collateral.digest,
        tcb_info=tcb_info,
        qe_identity=qe_identity,
        pck_issuer=pck_issuer,
        root_crl=root_crl,
        pck_crl=pck_crl,
        validities=(
            *(certificate.validity() for certificate in certificates),
            root_crl.validity,
            pck_crl.validity,
            tcb_info.validity,
            qe_identity.validity,
        ),
    )


def _verify_signer(chain: bytes, root: bytes, root_crl: RevocationList) -> Certificate:
    signer = verify_chain(chain, root, [frozenset({CN_TCB_SIGNING})], COLLATERAL_CHAIN)[0]
    _require_not_revoked(signer, root_crl, SignerRevokedError)
    return signer


def _require_not_revoked(certificate: Certificate, root_crl: RevocationList, revoked: type[IssuerRevokedError]) -> None:
    if certificate.serial in root_crl.serials:
        raise revoked(f'"{certificate.common_name}" is revoked by the root')
