"""The sender of a quote is at fault: what it sent is malformed, unsupported or not authentic."""

from __future__ import annotations

from attestation.errors.base import InvalidQuoteError


class QuoteMalformedError(InvalidQuoteError):
    """A length does not add up."""

    remedy = "drop it; check that the file is a whole quote and nothing else"


class QuoteTruncatedError(QuoteMalformedError):
    """It ends before a field that it must have, or is empty."""


class QuoteTooLongError(QuoteMalformedError):
    """More than 16 KiB."""


class QuoteSlackError(QuoteMalformedError):
    """Bytes are left over after the quote or inside its authentication data."""


class QuoteUnsupportedError(InvalidQuoteError):
    """Well-formed so far, of a kind that is not verified here."""

    remedy = "have the platform make a TDX quote of version 4 or 5 with Intel's quoting enclave"


class QuoteVersionError(QuoteUnsupportedError):
    """Another version than 4 and 5."""


class QuoteKeyTypeError(QuoteUnsupportedError):
    """An attestation key of another type than ECDSA P-256."""


class QuoteTeeError(QuoteUnsupportedError):
    """A quote of another TEE than TDX, as SGX."""


class QuoteVendorError(QuoteUnsupportedError):
    """A quoting enclave of another vendor than Intel."""


class QuoteBodyError(QuoteUnsupportedError):
    """A body that is no TD report."""


class CertificationDataError(QuoteUnsupportedError):
    """Other certification data than a QE report with a PCK chain."""


class PckChainError(InvalidQuoteError):
    """The quote's certificate chain is not PCK, PCK CA, pinned root."""

    remedy = "drop it; the platform must be provisioned by Intel, and send its whole PCK chain"


class PckChainFormError(PckChainError):
    """Not exactly three concatenated PEM certificates: too short, too long, or not PEM."""


class PckChainRootError(PckChainError):
    """It ends in another root than the pinned one."""


class PckChainNameError(PckChainError):
    """A certificate stands where another belongs: reordered, or of another PKI."""


class PckChainUsageError(PckChainError):
    """A certificate may not do what it does here: sign certificates, or sign data."""


class PckChainSignatureError(PckChainError):
    """A certificate is not issued by the next one."""


class PckCertificateError(PckChainError):
    """A certificate is malformed, or of a kind that Intel's PKI does not have."""


class PckExtensionError(InvalidQuoteError):
    """The PCK certificate's SGX extension is not strict DER of the expected form."""


class PckExtensionMissingError(PckExtensionError):
    """The PCK certificate has no SGX extension, or one without an entry that it must have."""


class PckExpiredError(InvalidQuoteError):
    """A certificate of the quote's chain is not valid any more at the time of verification."""

    remedy = "have the platform fetch its PCK certificate anew (register it again), then attest anew"


class PckNotYetValidError(InvalidQuoteError):
    """A certificate of the quote's chain is not valid yet at the time of verification."""

    remedy = "check the time of verification: the quote is newer"


class QeReportSignatureError(InvalidQuoteError):
    """The PCK did not sign the quoting enclave's report."""


class QeReportDataError(InvalidQuoteError):
    """The quoting enclave's report does not vouch for the attestation key."""


class QeIdentityMismatchError(InvalidQuoteError):
    """The quoting enclave is not the one that the QE identity describes."""

    remedy = "have the platform use Intel's TDX quoting enclave"


class QeMiscSelectError(QeIdentityMismatchError):
    """Its MISCSELECT is another one."""


class QeAttributesError(QeIdentityMismatchError):
    """Its attributes are others, as those of a debuggable enclave."""


class QeMrSignerError(QeIdentityMismatchError):
    """Somebody else signed it."""


class QeProductError(QeIdentityMismatchError):
    """Another enclave of the same signer."""


class TdxModuleMismatchError(InvalidQuoteError):
    """The TDX module is not one that the TCB info describes."""

    remedy = "have the platform load Intel's TDX module, in production mode"


class TdxModuleVersionError(TdxModuleMismatchError):
    """The TCB info lists no module of this version."""


class TdxModuleSignerError(TdxModuleMismatchError):
    """Its signer (MRSIGNERSEAM) is another one."""


class TdxModuleAttributesError(TdxModuleMismatchError):
    """Its attributes (SEAMATTRIBUTES) are not those of a production module."""


class AttestationKeyError(InvalidQuoteError):
    """The attestation key is no point of P-256."""


class QuoteSignatureError(InvalidQuoteError):
    """The attestation key did not sign header and body: a measurement or the report data was changed."""


class ReportDataMismatchError(InvalidQuoteError):
    """A genuine quote, made for another node key, pool, network, anchor or GPU report."""

    remedy = "drop it; the sender has to make a quote for its own key and this pool"


class EvidenceMalformedError(InvalidQuoteError):
    """A field of the evidence has the wrong length or range."""


class AnchorUnknownError(InvalidQuoteError):
    """The anchor is no block of the masterchain."""

    remedy = "the sender takes a new anchor from a chain that it verifies"


class AnchorStaleError(InvalidQuoteError):
    """The evidence was made so long ago, by its anchor, that it holds no more."""

    remedy = "make new evidence"
