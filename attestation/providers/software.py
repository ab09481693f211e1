"""A TDX platform in software, for a network whose configuration names its root.

It makes what Intel and a TDX machine make (root, PCK CA, TCB signing, revocation lists, TCB info, QE
identity, PCK, quotes v4), under its own root, and is accepted by the *unmodified* verifier only because the
root is a parameter; `attestation.roots` refuses any such root on a public network. Its quotes prove that
their maker holds a file, nothing else.

One `SoftwareRoot` serves a whole pool; each agent has its own `SoftwarePlatform` (own PPID and PCK), whose
directory needs nothing of the root's but two public files. Private keys are 0600 and never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.certs import CN_PCK, CN_ROOT, CN_TCB_SIGNING
from attestation.collateral import Collateral
from attestation.errors import AttestationError, SoftwarePlatformError
from attestation.policy import Measurement
from attestation.providers.software_builders import (
    Issuer,
    build_certificate,
    build_chain,
    build_enclave_report,
    build_header,
    build_qe_identity,
    build_quote,
    build_revocation_list,
    build_sgx_extension,
    build_tcb_info,
    build_td_report,
    new_key,
    sign,
    vouch,
)
from attestation.types import PckPlatform, ProvidedQuote, TdAttribute, TdReport

LIFETIME_S = 3650 * 86_400
_SKEW_S = 86_400
"""Everything is dated back by a day: a chain's clock may be behind the one that made the root."""

_CN_PCK_ISSUER = "Intel SGX PCK Platform CA"
_QE_AUTH_DATA = bytes(range(32))


def _measure(what: str) -> bytes:
    return hashlib.sha384(f"gpupool software {what}".encode()).digest()


SOFTWARE_MEASUREMENT = Measurement(
    name="software",
    mr_td=_measure("guest"),
    rtmrs=(_measure("rtmr0"), _measure("rtmr1"), _measure("rtmr2"), _measure("rtmr3")),
)
"""What every software platform claims to run; a pool that accepts them lists it in its policy."""

SOFTWARE_TD = TdReport(
    tee_tcb_svn=bytes([5, 1, 2]) + bytes(13),
    mr_seam=_measure("module"),
    mr_signer_seam=bytes(48),
    seam_attributes=bytes(8),
    td_attributes=int(TdAttribute.SEPT_VE_DISABLE),
    xfam=0x000602E7,
    mr_td=SOFTWARE_MEASUREMENT.mr_td,
    mr_config_id=bytes(48),
    mr_owner=bytes(48),
    mr_owner_config=bytes(48),
    rtmrs=(_measure("rtmr0"), _measure("rtmr1"), _measure("rtmr2"), _measure("rtmr3")),
    report_data=bytes(64),
    tee_tcb_svn2=None,
    mr_service_td=None,
)

SOFTWARE_MACHINE = PckPlatform(
    ppid=bytes(16),
    fmspc=b"SWTDX\x00",
    pce_id=bytes(2),
    sgx_svns=(2, 2, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0),
    pce_svn=11,
    flags=frozenset(),
)
"""All machines under one root are of one family; their PPIDs differ."""


def software_qe_report(report_data: bytes) -> bytes:
    """The software quoting enclave's report (384 bytes) over `report_data` (64 bytes)."""
    return build_enclave_report(
        mr_signer=hashlib.sha256(b"gpupool software quoting enclave").digest(),
        report_data=report_data,
        attributes=bytes([0x11]) + bytes(15),
        misc_select=bytes(4),
        isv_prod_id=2,
        isv_svn=4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareRoot:
    """Root, PCK CA and TCB signer of one pool, and the collateral for all machines under it."""

    root: Issuer
    pck_issuer: Issuer
    collateral: Collateral

    @property
    def certificate(self) -> bytes:
        """DER of the root certificate: what a configuration names and `roots.root_for` is given."""
        return self.root.der

    @classmethod
    def create(cls, directory: Path, *, now_s: int) -> SoftwareRoot:
        """Make a root in `directory` (created 0700), valid for ten years from `now_s` (Unix seconds).

        Raises:
            SoftwarePlatformError: the directory holds a root already, or cannot be written.
        """
        since, until = now_s - _SKEW_S, now_s + LIFETIME_S
        root = build_certificate(CN_ROOT, None, not_before_s=since, not_after_s=until, is_ca=True)
        ca = build_certificate(_CN_PCK_ISSUER, root, not_before_s=since, not_after_s=until, is_ca=True)
        signer = build_certificate(CN_TCB_SIGNING, root, not_before_s=since, not_after_s=until, is_ca=False)
        tcb_info = build_tcb_info(SOFTWARE_MACHINE, SOFTWARE_TD, issued_s=since, next_s=until)
        qe_identity = build_qe_identity(software_qe_report(bytes(64)), issued_s=since, next_s=until)
        documents = [json.dumps(tree, separators=(",", ":")).encode() for tree in (tcb_info, qe_identity)]
        collateral = Collateral(
            pck_crl_issuer_chain=build_chain(ca, root),
            root_ca_crl=build_revocation_list(root, this_s=since, next_s=until),
            pck_crl=build_revocation_list(ca, this_s=since, next_s=until),
            tcb_info_issuer_chain=build_chain(signer, root),
            tcb_info=documents[0],
            tcb_info_signature=sign(signer.key, documents[0]),
            qe_identity_issuer_chain=build_chain(signer, root),
            qe_identity=documents[1],
            qe_identity_signature=sign(signer.key, documents[1]),
        )
        _write(
            directory,
            {
                "root.key": _key_pem(root.key),
                "root.der": root.der,
                "pck_issuer.key": _key_pem(ca.key),
                "pck_issuer.der": ca.der,
                "tcb_signing.key": _key_pem(signer.key),
                "collateral.json": collateral.to_json(),
            },
        )
        return cls(root=root, pck_issuer=ca, collateral=collateral)

    @classmethod
    def load(cls, directory: Path) -> SoftwareRoot:
        """Read what `create` wrote, or raise `SoftwarePlatformError`."""
        return cls(
            root=_read_issuer(directory, "root"),
            pck_issuer=_read_issuer(directory, "pck_issuer"),
            collateral=_read_collateral(directory),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwarePlatform:
    """One machine under a `SoftwareRoot`; a `QuoteProvider` and a `CollateralProvider`."""

    root: bytes
    """DER of the root certificate."""
    pck_chain: bytes
    pck_key: ec.EllipticCurvePrivateKey
    attestation_key: ec.EllipticCurvePrivateKey
    _collateral: Collateral

    @classmethod
    def create(cls, directory: Path, *, root: SoftwareRoot) -> SoftwarePlatform:
        """Make a machine with a PPID of its own in `directory` (created 0700).

        Raises:
            SoftwarePlatformError: the directory holds a platform already, or cannot be written.
        """
        machine = replace(SOFTWARE_MACHINE, ppid=secrets.token_bytes(16))
        span = root.pck_issuer.certificate
        pck = build_certificate(
            CN_PCK,
            root.pck_issuer,
            not_before_s=int(span.not_valid_before_utc.timestamp()),
            not_after_s=int(span.not_valid_after_utc.timestamp()),
            is_ca=False,
            sgx_extension=build_sgx_extension(machine),
        )
        platform = cls(
            root=root.certificate,
            pck_chain=build_chain(pck, root.pck_issuer, root.root),
            pck_key=pck.key,
            attestation_key=new_key(),
            _collateral=root.collateral,
        )
        _write(
            directory,
            {
                "root.der": platform.root,
                "pck_chain.pem": platform.pck_chain,
                "pck.key": _key_pem(platform.pck_key),
                "attestation.key": _key_pem(platform.attestation_key),
                "collateral.json": platform._collateral.to_json(),
            },
        )
        return platform

    @classmethod
    def load(cls, directory: Path) -> SoftwarePlatform:
        """Read what `create` wrote, or raise `SoftwarePlatformError`."""
        return cls(
            root=_read(directory, "root.der"),
            pck_chain=_read(directory, "pck_chain.pem"),
            pck_key=_read_key(directory, "pck.key"),
            attestation_key=_read_key(directory, "attestation.key"),
            _collateral=_read_collateral(directory),
        )

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        """Return a quote v4 over `challenge` (64 bytes) for a TD of `SOFTWARE_TD`."""
        await trio.lowlevel.checkpoint()
        if len(challenge) != 64:
            raise SoftwarePlatformError(f"challenge: {len(challenge)} bytes, expected 64")
        quote = build_quote(
            build_header() + build_td_report(replace(SOFTWARE_TD, report_data=challenge)),
            attestation_key=self.attestation_key,
            qe_report=software_qe_report(vouch(self.attestation_key, _QE_AUTH_DATA)),
            pck_key=self.pck_key,
            pck_chain=self.pck_chain,
            qe_auth_data=_QE_AUTH_DATA,
        )
        return ProvidedQuote(quote=quote)

    @property
    def error(self) -> None:
        """Its collateral is always there."""
        return

    async def collateral(self, raw_quote: bytes, now_s: int) -> Collateral:
        """Return the root's collateral, which fits every quote under it at any time."""
        await trio.lowlevel.checkpoint()
        return self._collateral


def _write(directory: Path, files: dict[str, bytes]) -> None:
    """Write new files; the keys come first, so that an interrupted run is seen as a platform that exists."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in files.items():
            mode = 0o600 if name.endswith(".key") else 0o644
            with os.fdopen(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
    except FileExistsError as error:
        raise SoftwarePlatformError(f"{error.filename}: exists already; choose an empty directory") from error
    except OSError as error:
        raise SoftwarePlatformError(f"{directory}: {error.strerror}") from error


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise SoftwarePlatformError(f"{directory / name}: {error.strerror}") from error


def _read_key(directory: Path, name: str) -> ec.EllipticCurvePrivateKey:
    data = _read(directory, name)
    try:
        key = serialization.load_pem_private_key(data, None)
    except ValueError as error:
        raise SoftwarePlatformError(f"{directory / name}: not a private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SoftwarePlatformError(f"{directory / name}: not an elliptic curve key")
    return key


def _read_issuer(directory: Path, name: str) -> Issuer:
    try:
        certificate = x509.load_der_x509_certificate(_read(directory, f"{name}.der"))
    except ValueError as error:
        raise SoftwarePlatformError(f"{directory / name}.der: not a DER certificate") from error
    return Issuer(certificate=certificate, key=_read_key(directory, f"{name}.key"))


def _read_collateral(directory: Path) -> Collateral:
    try:
        return Collateral.from_json(_read(directory, "collateral.json"))
    except AttestationError as error:
        raise SoftwarePlatformError(f"{directory / 'collateral.json'}: {error}") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
