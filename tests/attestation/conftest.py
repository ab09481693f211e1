"""A forge that makes a whole valid world (PKI, collateral, quote) in which a test gets one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from attestation.collateral import Collateral
from attestation.providers import software_builders as build
from attestation.providers.software import SOFTWARE_MACHINE, SOFTWARE_TD, software_qe_report
from attestation.providers.software_builders import Issuer
from attestation.types import PckPlatform, TdReport, VerifiedQuote
from attestation.verify import verify_quote

NOW = 1_800_000_000
DAY = 86_400
AUTH_DATA = b"authentication data".ljust(32)


@dataclass
class Forge:
    """Issuers valid for a year around `NOW`, and builders whose defaults verify."""

    root: Issuer
    pck_issuer: Issuer
    signer: Issuer
    pck: Issuer
    attestation_key: Any = field(default_factory=build.new_key)
    now: int = NOW
    auth_data: bytes = AUTH_DATA

    @classmethod
    def new(cls) -> Forge:
        root = cls.certificate("Intel SGX Root CA", None, is_ca=True)
        issuer = cls.certificate("Intel SGX PCK Platform CA", root, is_ca=True)
        return cls(
            root=root,
            pck_issuer=issuer,
            signer=cls.certificate("Intel SGX TCB Signing", root, is_ca=False),
            pck=cls.pck_of(issuer),
        )

    @staticmethod
    def certificate(name: str, issuer: Issuer | None, **changes: Any) -> Issuer:
        span = {"not_before_s": NOW - 100 * DAY, "not_after_s": NOW + 100 * DAY, "is_ca": False}
        return build.build_certificate(name, issuer, **(span | changes))

    @classmethod
    def pck_of(cls, issuer: Issuer, machine: PckPlatform = SOFTWARE_MACHINE, **changes: Any) -> Issuer:
        extension = {"sgx_extension": build.build_sgx_extension(machine)}
        return cls.certificate("Intel SGX PCK Certificate", issuer, **(extension | changes))

    def crl(self, issuer: Issuer, *serials: int, this_s: int = NOW - DAY, next_s: int = NOW + DAY) -> bytes:
        return build.build_revocation_list(issuer, this_s=this_s, next_s=next_s, serials=serials)

    def tcb_info(self) -> dict[str, Any]:
        return build.build_tcb_info(SOFTWARE_MACHINE, SOFTWARE_TD, issued_s=NOW - DAY, next_s=NOW + DAY)

    def qe_identity(self) -> dict[str, Any]:
        return build.build_qe_identity(software_qe_report(bytes(64)), issued_s=NOW - DAY, next_s=NOW + DAY)

    def collateral(
        self,
        edit_tcb: Callable[[dict[str, Any]], object] = lambda tree: None,
        edit_qe: Callable[[dict[str, Any]], object] = lambda tree: None,
        *,
        tcb_text: bytes | None = None,
        qe_text: bytes | None = None,
        signer: Issuer | None = None,
        **changes: bytes,
    ) -> Collateral:
        """Valid collateral; `edit_*` change the documents before they are signed, `changes` any part after."""
        info, identity = self.tcb_info(), self.qe_identity()
        edit_tcb(info)
        edit_qe(identity)
        info_text = tcb_text if tcb_text is not None else json.dumps(info).encode()
        identity_text = qe_text if qe_text is not None else json.dumps(identity).encode()
        signer = signer or self.signer
        parts = {
            "pck_crl_issuer_chain": build.build_chain(self.pck_issuer, self.root),
            "root_ca_crl": self.crl(self.root),
            "pck_crl": self.crl(self.pck_issuer),
            "tcb_info_issuer_chain": build.build_chain(signer, self.root),
            "tcb_info": info_text,
            "tcb_info_signature": build.sign(signer.key, info_text),
            "qe_identity_issuer_chain": build.build_chain(signer, self.root),
            "qe_identity": identity_text,
            "qe_identity_signature": build.sign(signer.key, identity_text),
        }
        return Collateral(**(parts | changes))

    def signed(self, header: bytes | None = None, **td: Any) -> bytes:
        """Header and body of a quote v4 over `SOFTWARE_TD` with changed fields."""
        return (header or build.build_header()) + build.build_td_report(replace(SOFTWARE_TD, **td))

    def signed_v5(self, body_type: int = 3, **td: Any) -> bytes:
        later = {"tee_tcb_svn2": SOFTWARE_TD.tee_tcb_svn, "mr_service_td": bytes(48)}
        body = build.build_td_report(replace(SOFTWARE_TD, **(later | td)))
        prefix = body_type.to_bytes(2, "little") + len(body).to_bytes(4, "little")
        return build.build_header(version=5) + prefix + body

    def quote(self, signed: bytes | None = None, **changes: Any) -> bytes:
        """A valid quote; `changes` go to `build_quote`."""
        parts = {
            "attestation_key": self.attestation_key,
            "qe_report": software_qe_report(build.vouch(self.attestation_key, AUTH_DATA)),
            "pck_key": self.pck.key,
            "pck_chain": self.chain(),
            "qe_auth_data": AUTH_DATA,
        }
        return build.build_quote(self.signed() if signed is None else signed, **(parts | changes))

    def chain(self, pck: Issuer | None = None) -> bytes:
        return build.build_chain(pck or self.pck, self.pck_issuer, self.root)

    def quote_of(self, pck: Issuer) -> bytes:
        """A quote that `pck` certifies."""
        return self.quote(pck_key=pck.key, pck_chain=self.chain(pck))

    def quote_with_qe(self, **fields: Any) -> bytes:
        """A quote whose QE report has changed fields, duly signed."""
        report = {
            "mr_signer": software_qe_report(bytes(64))[128:160],
            "report_data": build.vouch(self.attestation_key, AUTH_DATA),
            "attributes": bytes([0x11]) + bytes(15),
            "misc_select": bytes(4),
            "isv_prod_id": 2,
            "isv_svn": 4,
        }
        return self.quote(qe_report=build.build_enclave_report(**(report | fields)))

    def verify(self, raw: bytes | None = None, collateral: Collateral | None = None, now: int = NOW) -> VerifiedQuote:
        raw = self.quote() if raw is None else raw
        return verify_quote(raw, collateral or self.collateral(), now=now, root=self.root.der)


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge.new()


@pytest.fixture(scope="session")
def td() -> TdReport:
    return SOFTWARE_TD


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real quotes, which stands beside the repository where it is to be had."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "tdx"
    if not folder.is_dir():
        pytest.skip("the TDX vectors (../shared/vectors/tdx) are not here")
    return folder
