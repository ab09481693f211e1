"""Real quotes and collateral with new keys: the same contents, signed again under a root of our own.

A change to signed bytes meets a signature that does not hold, and nothing behind that signature is ever asked. Here
the real contents (TD report, QE report, TCB info, QE identity, SGX extension) can be changed before they are signed
(`resigned_quotes`). The keys are fixed.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.certs import parse_certificate
from attestation.errors import PckChainError
from attestation.providers import software_builders as build
from attestation.providers.software_builders import Issuer
from tests.support.quote_mutations import DOCUMENTS, Input, Pieces

SINCE_S, UNTIL_S = 1_262_304_000, 2_493_072_000
"""2010 to 2049: whatever moment a case is verified at."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A world before it is signed. A change alters it in place; `sign` makes what a verifier is asked."""

    how: str
    signed: bytes
    qe_report: bytearray
    auth_data: bytes
    extension: bytes
    texts: dict[str, bytes]
    now: int
    vouch: bool = True
    pck: Issuer | None = None
    """None: made by `authority` for `extension`."""
    pck_signer: Issuer | None = None
    chain: Callable[[list[Issuer]], list[Issuer]] = lambda chain: chain
    parts: dict[str, bytes] = field(default_factory=dict)
    """What replaces parts of the collateral after it was signed."""

    def sign(self) -> Input:
        known = authority()
        pck = self.pck or pck_of(self.extension)
        if self.vouch:
            self.qe_report[320:384] = build.vouch(known.attestation_key, self.auth_data)
        raw = build.build_quote(
            self.signed,
            attestation_key=known.attestation_key,
            qe_report=bytes(self.qe_report),
            pck_key=pck.key,
            pck_chain=build.build_chain(*self.chain([pck, self.pck_signer or known.pck_ca, known.root])),
            qe_auth_data=self.auth_data,
        )
        parts = {**known.parts, **self.texts}
        for name in DOCUMENTS:
            parts[f"{name}_signature"] = _signature(self.texts[name])
        return Input(how=f"signed: {self.how}", raw=raw, parts=parts | self.parts, now=self.now, root=known.root.der)


@dataclass(frozen=True, slots=True)
class Authority:
    """The keys of everybody."""

    root: Issuer
    pck_ca: Issuer
    signer: Issuer
    attestation_key: ec.EllipticCurvePrivateKey
    parts: dict[str, bytes]
    """The collateral but for the documents."""


@lru_cache(maxsize=1)
def authority() -> Authority:
    root = certificate("Intel SGX Root CA", None, is_ca=True)
    pck_ca = certificate("Intel SGX PCK Platform CA", root, is_ca=True)
    signer = certificate("Intel SGX TCB Signing", root)
    parts = {
        "pck_crl_issuer_chain": build.build_chain(pck_ca, root),
        "root_ca_crl": revocations(root),
        "pck_crl": revocations(pck_ca),
        "tcb_info_issuer_chain": build.build_chain(signer, root),
        "qe_identity_issuer_chain": build.build_chain(signer, root),
    }
    return Authority(root, pck_ca, signer, key_of("attestation"), parts)


def certificate(name: str, issuer: Issuer | None, **changes: Any) -> Issuer:
    span: dict[str, Any] = {"not_before_s": SINCE_S, "not_after_s": UNTIL_S, "is_ca": False, "key": key_of(name)}
    return build.build_certificate(name, issuer, **(span | changes))


def revocations(issuer: Issuer, *serials: int, this_s: int = SINCE_S, next_s: int = UNTIL_S) -> bytes:
    return build.build_revocation_list(issuer, this_s=this_s, next_s=next_s, serials=serials)


def draft_of(case: Input) -> Draft:
    """`case` before it is signed again; signed as it is, it has the verdict of `case`."""
    pieces = Pieces.of(case.raw)
    return Draft(
        how="nothing",
        signed=pieces.signed,
        qe_report=bytearray(pieces.qe_report),
        auth_data=pieces.auth_data,
        extension=_extension(pieces.chain),
        texts={name: case.parts[name] for name in DOCUMENTS},
        now=case.now,
    )


@lru_cache(maxsize=64)
def pck_of(extension: bytes) -> Issuer:
    return certificate("Intel SGX PCK Certificate", authority().pck_ca, sgx_extension=extension)


@lru_cache(maxsize=256)
def _signature(text: bytes) -> bytes:
    return build.sign(authority().signer.key, text)


@lru_cache(maxsize=64)
def key_of(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest()[:31], "big") + 1, ec.SECP256R1())


@lru_cache(maxsize=64)
def _extension(chain: bytes) -> bytes:
    body = chain.split(b"-----")[2]
    extension = parse_certificate(b64decode(b"".join(body.split())), PckChainError).sgx_extension
    assert extension is not None
    return extension
