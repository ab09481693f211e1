"""The local operator is at fault: a file, a key or a setting."""

from __future__ import annotations

from attestation.errors.base import ConfigurationError


class InvalidPolicyError(ConfigurationError):
    """A policy has an unknown key, a wrong type or a value out of range."""

    remedy = "mend the key that the message names; `gpupool attest policy check` looks at the whole file"


class RootRefusedError(ConfigurationError):
    """A root other than Intel's on a public network, or one that is no root certificate."""

    remedy = "remove the other root from the settings; only a development network may have its own"


class SoftwarePlatformError(ConfigurationError):
    """The software platform's directory is missing, incomplete or corrupt."""

    remedy = "make the folder anew, or name another one"
