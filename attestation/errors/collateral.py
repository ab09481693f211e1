"""The collateral is at fault: another one, from Intel or from another peer, may do."""

from __future__ import annotations

from attestation.errors.base import InvalidCollateralError


class CollateralMalformedError(InvalidCollateralError):
    """Not the expected JSON, PEM, DER or hex, or too long."""


class CollateralChainError(InvalidCollateralError):
    """An issuer chain is not exactly [issuer, pinned root]."""


class CollateralChainFormError(CollateralChainError):
    """Not exactly two concatenated PEM certificates: too short, too long, or not PEM."""


class CollateralChainRootError(CollateralChainError):
    """It ends in another root than the pinned one."""

    remedy = "use collateral of the same PKI: Intel's on public networks, the software platform's on a dev network"


class CollateralChainNameError(CollateralChainError):
    """Another issuer than the one for this part: reordered, or a wrong signer."""


class CollateralChainUsageError(CollateralChainError):
    """The issuer may not sign what it signs here."""


class CollateralChainSignatureError(CollateralChainError):
    """The issuer's certificate is not issued by the root."""


class CollateralCertificateError(CollateralChainError):
    """A certificate is malformed, or of a kind that Intel's PKI does not have."""


class CollateralSignatureError(InvalidCollateralError):
    """A document is not signed by the TCB signing certificate: edited, swapped or signed by another."""


class TcbInfoSignatureError(CollateralSignatureError):
    """The signature on the TCB info does not hold."""


class QeIdentitySignatureError(CollateralSignatureError):
    """The signature on the QE identity does not hold."""


class CrlError(InvalidCollateralError):
    """A revocation list cannot be used."""

    code = "crl_invalid"


class CrlMalformedError(CrlError):
    """No complete revocation list in DER."""


class CrlIssuerError(CrlError):
    """A revocation list of another issuer than the one whose certificates it is for."""


class CrlSignatureError(CrlError):
    """The signature on a revocation list does not hold."""


class IssuerRevokedError(InvalidCollateralError):
    """The root's revocation list names an issuing certificate."""


class RootRevokedError(IssuerRevokedError):
    """The root revoked itself."""

    remedy = "stop: whoever publishes such a list says that this root is broken"


class PckIssuerRevokedError(IssuerRevokedError):
    """The PCK CA is revoked."""

    remedy = "have the platform provisioned anew: Intel revoked the CA that certified it"


class SignerRevokedError(IssuerRevokedError):
    """The TCB signing certificate is revoked."""


class TcbInfoError(InvalidCollateralError):
    """Signed TCB info or QE identity that cannot be used."""

    code = "tcb_info_invalid"


class TcbInfoFormError(TcbInfoError):
    """Not the expected JSON: a key is missing or of a wrong type or range, as a level without components."""


class TcbInfoDuplicateKeyError(TcbInfoError):
    """A key stands twice in one object: two readers could read two documents."""


class TcbInfoKindError(TcbInfoError):
    """Of another kind: SGX for TDX, an unknown version, TCB info for QE identity."""


class TcbStatusUnknownError(TcbInfoError):
    """A level has a status that is not known, or that such a level cannot have."""


class CollateralNotYetValidError(InvalidCollateralError):
    """A part of the collateral is issued after the time of verification."""

    remedy = "check the time of verification, or use collateral of that time"


class CertificateNotYetValidError(CollateralNotYetValidError):
    """An issuer's certificate is not valid yet."""


class CrlNotYetValidError(CollateralNotYetValidError):
    """A revocation list is of the future."""


class TcbInfoNotYetValidError(CollateralNotYetValidError):
    """TCB info or QE identity is issued in the future."""


class CollateralExpiredError(InvalidCollateralError):
    """A part of the collateral had to be renewed before the time of verification."""


class CertificateExpiredError(CollateralExpiredError):
    """An issuer's certificate is not valid any more."""


class CrlExpiredError(CollateralExpiredError):
    """A revocation list had to be renewed by now, or does not say until when it holds."""


class TcbInfoExpiredError(CollateralExpiredError):
    """TCB info or QE identity had to be renewed by now."""


class CollateralMismatchError(InvalidCollateralError):
    """Authentic collateral, for something else."""

    remedy = "fetch the collateral for this platform (FMSPC and PCK CA as `gpupool attest show` prints them)"


class FmspcMismatchError(CollateralMismatchError):
    """TCB info of another processor family than the PCK's."""


class PceIdMismatchError(CollateralMismatchError):
    """TCB info of another provisioning certification enclave than the PCK's."""


class PckIssuerMismatchError(CollateralMismatchError):
    """The PCK revocation list is not that of the CA that issued the PCK (Platform CA, Processor CA)."""


class CollateralDigestError(CollateralMismatchError):
    """Not the collateral that the evidence names."""


class CollateralRollbackError(InvalidCollateralError):
    """Older than what is held already for the same platform."""

    remedy = "keep what is held; whoever offers older collateral chooses a verdict of the past"
