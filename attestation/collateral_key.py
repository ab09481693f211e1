"""Which collateral a platform needs, how old a piece of it is, and when it should be renewed.

Pure. A quote is untrusted; its PCK chain is verified before it says which collateral to fetch, so nobody but
Intel decides what is asked for. A key is a processor family, the CA of its PCKs and an update channel.

Source: Intel PCS API v4, "Get TDX TCB Info" (update), "Get PCK CRL" (ca).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from attestation.certs import Validity
from attestation.collateral import Collateral, VerifiedCollateral
from attestation.errors import CollateralRollbackError
from attestation.quote import parse_quote
from attestation.verify import verify_pck

RENEWAL_S_MIN = 3600
RENEWAL_S_MAX = 86_400
"""Near its end a part stays near its end until Intel issues the next one: no more than one look an hour. And no
less than one a day, since the pool's policy may bound how old collateral may be."""


class Update(StrEnum):
    """When Intel serves a new TCB level: at once (early), or when platforms had time to update (standard)."""

    EARLY = "early"
    STANDARD = "standard"


class PckCa(StrEnum):
    """Which CA issued a platform's PCK."""

    PLATFORM = "platform"
    PROCESSOR = "processor"


_CAS = {"Intel SGX PCK Platform CA": PckCa.PLATFORM, "Intel SGX PCK Processor CA": PckCa.PROCESSOR}


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralKey:
    """Which collateral: the processor family (`fmspc`, 6 bytes), the CA of its PCKs, the update channel."""

    fmspc: bytes
    ca: PckCa
    update: Update = Update.STANDARD

    def __post_init__(self) -> None:
        if len(self.fmspc) != 6:
            raise ValueError(f"FMSPC: {len(self.fmspc)} bytes, expected 6")

    def __str__(self) -> str:
        return f"FMSPC {self.fmspc.hex()}, {self.ca} CA, {self.update} update"


def collateral_key(raw_quote: bytes, *, root: bytes, update: Update = Update.STANDARD) -> CollateralKey:
    """Say which collateral `raw_quote` (at most 16 KiB) needs; its PCK chain must end in `root` (DER).

    Raises:
        InvalidQuoteError: malformed, unsupported, or its PCK chain does not verify.
    """
    pck = verify_pck(parse_quote(raw_quote).pck_chain_pem, root=root)
    return CollateralKey(fmspc=pck.platform.fmspc, ca=_CAS[pck.issuer.common_name], update=update)


def key_of(verified: VerifiedCollateral, update: Update) -> CollateralKey:
    """The key of `verified`, which `update` was fetched for: the documents do not say."""
    return CollateralKey(fmspc=verified.tcb_info.fmspc, ca=_CAS[verified.pck_issuer.common_name], update=update)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """How old collateral is: the issue time of each part (Unix seconds), and the evaluation numbers."""

    root_crl_s: int
    pck_crl_s: int
    tcb_info_s: int
    tcb_info_evaluation: int
    qe_identity_s: int
    qe_identity_evaluation: int


_PARTS = {
    "root_crl_s": "root revocation list: issued at",
    "pck_crl_s": "PCK revocation list: issued at",
    "tcb_info_s": "TCB info: issued at",
    "tcb_info_evaluation": "TCB info: evaluation number",
    "qe_identity_s": "QE identity: issued at",
    "qe_identity_evaluation": "QE identity: evaluation number",
}


def require_not_older(offered: Issue, held: Issue) -> None:
    """Raise `CollateralRollbackError`, which names each part, if any part of `offered` is older than in `held`."""
    older = [
        f"{what} {getattr(offered, name)}, held {getattr(held, name)}"
        for name, what in _PARTS.items()
        if getattr(offered, name) < getattr(held, name)
    ]
    if older:
        raise CollateralRollbackError(f"collateral: older than what is held: {'; '.join(older)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Collateral that was admitted for `key`, and since when it is held (Unix seconds)."""

    key: CollateralKey
    collateral: Collateral
    verified: VerifiedCollateral = field(repr=False)
    kept_s: int

    @property
    def issue(self) -> Issue:
        """How old it is."""
        root, pck, tcb_info, qe_identity = (part.not_before_s for part in _dated_parts(self.verified))
        return Issue(
            root_crl_s=root,
            pck_crl_s=pck,
            tcb_info_s=tcb_info,
            tcb_info_evaluation=self.verified.tcb_info.evaluation,
            qe_identity_s=qe_identity,
            qe_identity_evaluation=self.verified.qe_identity.evaluation,
        )

    @property
    def until_s(self) -> int:
        """Until when it can be used (Unix seconds, included)."""
        return min(part.not_after_s for part in self.verified.validities)

    @property
    def due_s(self) -> int:
        """When it should be renewed (Unix seconds): daily, or after half of what its shortest part still had."""
        ends_s = min(part.not_after_s for part in _dated_parts(self.verified))
        return self.kept_s + min(RENEWAL_S_MAX, max(RENEWAL_S_MIN, (ends_s - self.kept_s) // 2))


def _dated_parts(verified: VerifiedCollateral) -> tuple[Validity, Validity, Validity, Validity]:
    lists = verified.root_crl.validity, verified.pck_crl.validity
    return *lists, verified.tcb_info.validity, verified.qe_identity.validity
