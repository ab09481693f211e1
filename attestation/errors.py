"""Errors of the attestation package. The branch says who is at fault, `code` is stable for metrics and --json.

InvalidQuoteError       the sender made or altered the quote: drop it, score the peer
InvalidCollateralError  whoever brought the collateral: fetch another one, ask another peer
PlatformError           quote and collateral are genuine, the machine is not fit: its owner updates it
PolicyRefusedError      all genuine, the pool's policy does not want it: change host or policy
ConfigurationError      the local operator: mend the file, key or network that the message names
"""

from __future__ import annotations

from typing import ClassVar


class AttestationError(Exception):
    """Root of every error that this package raises on purpose."""

    code: ClassVar[str] = "attestation_error"


# --- the sender of the quote ---


class InvalidQuoteError(AttestationError):
    """The quote is not what an honest platform produces."""

    code = "quote_invalid"


class QuoteMalformedError(InvalidQuoteError):
    """Truncated, too long, slack bytes, or a length that does not add up."""

    code = "quote_malformed"


class QuoteUnsupportedError(InvalidQuoteError):
    """Another version, TEE, key type, QE vendor, body type or certification data type."""

    code = "quote_unsupported"


class PckChainError(InvalidQuoteError):
    """The quote's certificate chain is not exactly PCK leaf, PCK CA, pinned root."""

    code = "pck_chain_invalid"


class PckExtensionError(InvalidQuoteError):
    """The PCK certificate's SGX extension is missing or not strict DER of the expected form."""

    code = "pck_extension_invalid"


class PckExpiredError(InvalidQuoteError):
    """A certificate of the quote's chain is not valid at the time of verification."""

    code = "pck_expired"


class QeReportSignatureError(InvalidQuoteError):
    """The PCK did not sign the quoting enclave's report."""

    code = "qe_report_signature_invalid"


class QeReportDataError(InvalidQuoteError):
    """The quoting enclave's report does not vouch for the attestation key."""

    code = "qe_report_data_mismatch"


class QeIdentityMismatchError(InvalidQuoteError):
    """The quoting enclave is not the one that the QE identity describes."""

    code = "qe_identity_mismatch"


class TdxModuleMismatchError(InvalidQuoteError):
    """The TDX module is not one that the TCB info describes."""

    code = "tdx_module_mismatch"


class QuoteSignatureError(InvalidQuoteError):
    """The attestation key did not sign header and body."""

    code = "quote_signature_invalid"


class ReportDataMismatchError(InvalidQuoteError):
    """A genuine quote, made for another node key, pool, network or anchor."""

    code = "report_data_mismatch"


class EvidenceMalformedError(InvalidQuoteError):
    """A field of the evidence has the wrong length or range."""

    code = "evidence_malformed"


# --- the collateral ---


class InvalidCollateralError(AttestationError):
    """The collateral cannot be used; another one may do."""

    code = "collateral_invalid"


class CollateralMalformedError(InvalidCollateralError):
    """Not the expected JSON, PEM, DER or hex, or too long."""

    code = "collateral_malformed"


class CollateralChainError(InvalidCollateralError):
    """An issuer chain is not exactly [issuer, pinned root]."""

    code = "collateral_chain_invalid"


class CollateralSignatureError(InvalidCollateralError):
    """TCB info or QE identity is not signed by the TCB signing certificate."""

    code = "collateral_signature_invalid"


class CrlError(InvalidCollateralError):
    """A revocation list has another issuer or a wrong signature."""

    code = "crl_invalid"


class IssuerRevokedError(InvalidCollateralError):
    """The root's revocation list names an issuing certificate."""

    code = "issuer_revoked"


class TcbInfoError(InvalidCollateralError):
    """Signed TCB info or QE identity that is not of the expected kind or form."""

    code = "tcb_info_invalid"


class CollateralNotYetValidError(InvalidCollateralError):
    """A part of the collateral is issued after the time of verification."""

    code = "collateral_not_yet_valid"


class CollateralExpiredError(InvalidCollateralError):
    """A part of the collateral had to be renewed before the time of verification."""

    code = "collateral_expired"


class CollateralMismatchError(InvalidCollateralError):
    """Collateral of another processor family, PCE, PCK CA, or not the one that the evidence names."""

    code = "collateral_mismatch"


# --- the platform ---


class PlatformError(AttestationError):
    """The platform is genuine and not fit for attestation."""

    code = "platform_unfit"


class PckRevokedError(PlatformError):
    """The PCK certificate is revoked."""

    code = "pck_revoked"


class TcbLevelNotFoundError(PlatformError):
    """The platform, module or QE is below every level that the collateral lists."""

    code = "tcb_level_not_found"


class TcbRevokedError(PlatformError):
    """The TCB level of platform, module or QE is revoked."""

    code = "tcb_revoked"


# --- the policy ---


class PolicyRefusedError(AttestationError):
    """Genuine, and not what the pool's policy allows."""

    code = "policy_refused"


class MeasurementRefusedError(PolicyRefusedError):
    """MRTD and RTMRs match no measurement of the policy."""

    code = "measurement_refused"


class TcbStatusRefusedError(PolicyRefusedError):
    """The TCB status is not allowed, and the grace period does not cover it."""

    code = "tcb_status_refused"


class AdvisoryRefusedError(PolicyRefusedError):
    """The platform is subject to an advisory that the policy rejects."""

    code = "advisory_refused"


class EvaluationNumberError(PolicyRefusedError):
    """The collateral's TCB evaluation data number is below the policy's floor."""

    code = "evaluation_number_too_low"


class DebugRefusedError(PolicyRefusedError):
    """The TD can be debugged: it proves nothing."""

    code = "debug_refused"


class TdAttributesRefusedError(PolicyRefusedError):
    """A TD attribute is set that the policy does not allow, or one is missing that it demands."""

    code = "td_attributes_refused"


class XfamRefusedError(PolicyRefusedError):
    """XFAM has a bit that the policy does not allow, or lacks one that every TD has."""

    code = "xfam_refused"


class ServiceTdRefusedError(PolicyRefusedError):
    """A service TD is bound to this TD that the policy does not list."""

    code = "service_td_refused"


class MrSeamRefusedError(PolicyRefusedError):
    """The TDX module's measurement is not on the policy's list."""

    code = "mr_seam_refused"


class FmspcRefusedError(PolicyRefusedError):
    """The processor family is not on the policy's list."""

    code = "fmspc_refused"


class PpidRefusedError(PolicyRefusedError):
    """This machine is denied by the policy, or not on its list."""

    code = "ppid_refused"


class PlatformFlagRefusedError(PolicyRefusedError):
    """The PCK certificate carries a platform flag that the policy does not allow."""

    code = "platform_flag_refused"


class GpuEvidenceRefusedError(PolicyRefusedError):
    """The policy demands GPU evidence, and none is there that this version can verify."""

    code = "gpu_evidence_refused"


# --- the local operator ---


class ConfigurationError(AttestationError):
    """Something local is wrong; the message names it."""

    code = "configuration_invalid"


class InvalidPolicyError(ConfigurationError):
    """A policy has an unknown key, a wrong type or a value out of range."""

    code = "policy_invalid"


class RootRefusedError(ConfigurationError):
    """A root other than Intel's on a public network, or one that is no root certificate."""

    code = "root_refused"


class SoftwarePlatformError(ConfigurationError):
    """The software platform's directory is missing, incomplete or corrupt."""

    code = "software_platform_invalid"
