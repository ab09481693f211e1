"""Values of the attestation package. `Quote` is parsed and not trusted; `VerifiedQuote` is authentic;
what a policy allows is an `attestation.appraisal.Appraisal`. Only `attestation.verify` makes the second.

Source: Intel TDX DCAP Quoting Library API, appendix 3 (quote); Intel PCS API v4 (TCB status).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum

QUOTE_BYTES_MAX = 16 * 1024
HANDSHAKE_BYTES_MAX = 56 * 1024


class TcbStatus(StrEnum):
    """Outcome of the TCB evaluation. `REVOKED` never leaves `verify_quote`: it is an error there."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


class TdAttribute(IntFlag):
    """Named bits of TDATTRIBUTES (Intel TDX Module 1.5 ABI, TD_ATTRIBUTES)."""

    DEBUG = 1 << 0
    HGS_PLUS_PROF = 1 << 4
    PERF_PROF = 1 << 5
    PMT_PROF = 1 << 6
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PKS = 1 << 30
    KL = 1 << 31
    TPA = 1 << 62
    PERFMON = 1 << 63


class PlatformFlag(StrEnum):
    """What a Platform CA certificate says of a machine; a Processor CA certificate says nothing."""

    DYNAMIC_PLATFORM = "dynamic_platform"
    CACHED_KEYS = "cached_keys"
    SMT_ENABLED = "smt_enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """Body of a TDX quote. Measurements are 48 bytes; attributes are little-endian u64 read as integers.

    `tee_tcb_svn2` and `mr_service_td` exist from body 1.5 on (quote v5) and are None before.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: int
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None
    mr_service_td: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """The quoting enclave's SGX report (384 bytes), the fields that are checked."""

    raw: bytes
    misc_select: bytes
    attributes: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed quote: lengths and constants hold, nothing else is known about it.

    `signed` is header + body, what `signature` (r || s, 64 bytes) covers under `attestation_key`
    (x || y, 64 bytes); only these bytes may identify a quote, the rest can be altered by anyone.
    """

    version: int
    signed: bytes
    td: TdReport
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedQuote:
    """What a provider gives for a challenge: a quote (at most 16 KiB) and how it is tied to the challenge.

    `handshake` None: the quote's report data is the challenge. Otherwise the report data ties the quote to a
    guest's TLS key, and the handshake (at most 56 KiB, see `attestation.handshake`) that key to the challenge.
    """

    quote: bytes
    handshake: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PckPlatform:
    """What a PCK certificate says of its machine: identity (16, 6, 2 bytes) and its TCB."""

    ppid: bytes
    fmspc: bytes
    pce_id: bytes
    sgx_svns: tuple[int, ...]
    pce_svn: int
    flags: frozenset[PlatformFlag]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """An authentic quote and the TCB status that its collateral gives it at `verified_s`.

    `tcb_date_s` is the oldest date among the TCB levels used; `advisories` is their sorted union;
    `signed_digest` (SHA-256 of the signed region) identifies the quote; `collateral_issued_s` is when the oldest
    part of the collateral was issued, the root's revocation list aside.
    """

    td: TdReport
    platform: PckPlatform
    status: TcbStatus
    advisories: tuple[str, ...]
    tcb_date_s: int
    tcb_evaluation: int
    qe_evaluation: int
    quote_version: int
    signed_digest: bytes
    collateral_digest: bytes
    collateral_issued_s: int
    verified_s: int
