"""Where quotes come from: a guest's handshake (its sender is at fault), the kernel, a guest's TLS port."""

from __future__ import annotations

from attestation.errors.base import ConfigurationError, InvalidQuoteError, ServiceError

# --- a guest's handshake as evidence: the sender ---


class HandshakeError(InvalidQuoteError):
    """The handshake does not prove that the guest was talked to for this challenge."""

    code = "handshake_invalid"
    remedy = "drop it; the sender has to make a new handshake with its guest"


class HandshakeFormError(HandshakeError):
    """Not the messages from ClientHello to CertificateVerify: truncated, too long, another order, slack bytes."""


class HandshakeChallengeError(HandshakeError):
    """A genuine handshake perhaps, made for another challenge: its server name is another one."""


class HandshakeVersionError(HandshakeError):
    """Not TLS 1.3, a cipher suite that it does not have, or a hello retry request."""

    remedy = "have the guest speak TLS 1.3 with X25519, and one of its AES-GCM or ChaCha20 suites"


class HandshakeSignatureError(HandshakeError):
    """The guest's key did not sign this handshake."""


class GuestCertificateError(HandshakeError):
    """The certificate is not that of an attested guest."""

    code = "guest_certificate_invalid"
    remedy = "drop it; the guest has to present the self-signed RA-TLS certificate that Cocoon makes"


class GuestCertificateFormError(GuestCertificateError):
    """Malformed, too long, of another key type, or an extension is missing or unknown and critical."""


class GuestCertificateSignatureError(GuestCertificateError):
    """Not signed by its own key."""


class GuestCertificateTimeError(GuestCertificateError):
    """It does not hold at the time of the anchor."""

    remedy = "make new evidence: Cocoon renews the certificate every day"


class GuestClaimsError(GuestCertificateError):
    """The claims are not the certificate's public key."""


class GuestReportDataError(GuestCertificateError):
    """The quote is not over these claims: it is another guest's, or was not made for this certificate."""


# --- the kernel's report interface (configfs-tsm) ---


class TsmMissingError(ConfigurationError):
    """The kernel offers no report interface here."""

    remedy = (
        "run this inside a TDX guest with Linux 6.7 or later, mount configfs "
        "(mount -t configfs none /sys/kernel/config) and load the driver (modprobe tdx_guest)"
    )


class TsmAccessError(ConfigurationError):
    """The report interface is there, and this process may not use it."""

    remedy = "run as root, or give the unit write access (ReadWritePaths=/sys/kernel/config/tsm/report)"


class TsmProviderError(ConfigurationError):
    """The reports are those of another TEE than TDX."""

    remedy = "run this inside a TDX guest: other TEEs are not supported"


class TsmRefusedError(ConfigurationError):
    """The kernel does not take the request."""

    remedy = "update the guest's kernel: its TDX driver takes 64 bytes of report data and no other option"


class TsmBusyError(ServiceError):
    """Another request is under way, and stays so."""

    remedy = "wait; if it lasts, restart the quoting service on the host: a request of this guest hangs there"


class TsmRaceError(TsmBusyError):
    """Somebody else wrote to our request, or it was not taken, each time that it was tried."""

    remedy = "find what else writes below the report folder: each request there belongs to who made it"


class TsmAnswerError(ServiceError):
    """The kernel answers with an error, with nothing, or with what can be no quote."""

    remedy = "look at the guest's kernel log, and whether the host's quoting service (qgs) runs"


# --- a guest's TLS port ---


class GuestUnavailableError(ServiceError):
    """No handshake with the guest came about; it is tried again."""

    remedy = "check that the worker runs, and that host and port are those of its TLS port"


class GuestConnectError(GuestUnavailableError):
    """No connection, or it was closed early."""


class GuestTimeoutError(GuestUnavailableError):
    """The guest did not finish the handshake in time."""


class GuestProtocolError(GuestUnavailableError):
    """What answers there does not speak TLS 1.3 as a guest does."""


class GuestProofOfWorkError(GuestUnavailableError):
    """The port asks for no proof of work although it should, or for more than is done for it."""

    remedy = "check whether the port asks for a proof of work (Cocoon's router does), and lower its difficulty"
