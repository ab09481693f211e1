"""Collateral cannot be fetched or kept: Intel's service or a cache of it, the way to it, or the local folder."""

from __future__ import annotations

from attestation.errors.base import ConfigurationError, ServiceError

# --- the service ---


class CollateralUnavailableError(ServiceError):
    """The service gave no collateral; the message names the URL."""


class PcsTimeoutError(CollateralUnavailableError):
    """No whole answer in time."""


class PcsConnectionError(CollateralUnavailableError):
    """No connection, or it broke: refused, unreachable, name unknown."""

    remedy = "check network, DNS and firewall; a host without internet uses a PCCS or a bundle"


class PcsTlsError(CollateralUnavailableError):
    """The server's certificate is not trusted, or of another name."""

    remedy = "check the service's URL; for a PCCS with a certificate of its own, name its CA file in the settings"


class PcsStatusError(CollateralUnavailableError):
    """Answered with another status than 200 that no repetition changes."""

    remedy = "check the service's URL; it must speak the PCS API v4 without redirection"


class PcsNotFoundError(PcsStatusError):
    """Status 404: the service has nothing for this platform."""

    remedy = "check the FMSPC; have the PCCS fetch the platform's collateral, or ask Intel's service itself"


class PcsBusyError(PcsStatusError):
    """Status 429 or 5xx. `retry_after_s` is the pause in seconds that the service asks for, None if it does not."""

    remedy = "wait; it is tried again"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PcsAnswerError(CollateralUnavailableError):
    """Status 200 with something else than what was asked for: truncated, too long, another form, a header missing."""

    remedy = "check that the URL is that of a PCS or PCCS, API v4, and that no proxy answers in its place"


# --- the local operator ---


class PcsSettingsError(ConfigurationError):
    """A URL of the service is not an HTTPS one, or the CA file cannot be used."""


class CollateralStoreError(ConfigurationError):
    """The folder of the collateral cannot be written."""

    remedy = "make room on the disk, or make the folder writable for the agent"


class CollateralUnknownError(ConfigurationError):
    """Collateral of this digest is not held."""

    remedy = "fetch it first, or leave the digest out"


class CollateralBundleError(ConfigurationError):
    """A bundle, or a line of it, has another form, or is too long."""

    remedy = "export the bundle anew on a host that is online"
