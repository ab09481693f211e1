"""GPU evidence: its sender is at fault, the policy does not want it, or the local GPU cannot give any."""

from __future__ import annotations

from attestation.errors.base import ConfigurationError, InvalidQuoteError, PolicyRefusedError, ServiceError

# --- the sender ---


class InvalidGpuEvidenceError(InvalidQuoteError):
    """GPU evidence that no honest agent on a genuine GPU publishes."""

    code = "gpu_evidence_invalid"
    remedy = "drop it; the sender has to collect new evidence from its own, genuine GPUs"


class GpuEvidenceMalformedError(InvalidGpuEvidenceError):
    """Not the canonical container, or its size or number of GPUs is out of range."""


class GpuReportMalformedError(InvalidGpuEvidenceError):
    """A length in a report does not add up, or a field has no meaning."""


class GpuReportUnsupportedError(InvalidGpuEvidenceError):
    """A well-formed report of another SPDM version, or not of all measurements, signed."""


class GpuNonceMismatchError(InvalidGpuEvidenceError):
    """A report made for another node key or another anchor."""

    remedy = "drop it; the sender has to have its GPUs report anew, for its own key and a recent block"


class GpuChainError(InvalidGpuEvidenceError):
    """A GPU's certificates do not lead to the pinned root."""


class GpuCertificateError(GpuChainError):
    """A certificate is malformed, or of a kind that the GPU vendor's PKI does not have."""


class GpuChainFormError(GpuChainError):
    """Too few certificates, too many, or one is too long."""


class GpuChainUsageError(GpuChainError):
    """An issuer may not sign certificates, or the report's signer may not sign data."""


class GpuChainSignatureError(GpuChainError):
    """A certificate is not issued by the next one: reordered, of another GPU, or of another root."""

    remedy = "use evidence of the same PKI: NVIDIA's on public networks, the software platform's on a dev network"


class GpuCertificateNotYetValidError(GpuChainError):
    """A certificate is not yet valid at the time of verification."""


class GpuCertificateExpiredError(GpuChainError):
    """A certificate is no longer valid at the time of verification."""


class GpuFwidMismatchError(InvalidGpuEvidenceError):
    """The report names another firmware than the one that its signing key was made for."""


class GpuReportSignatureError(InvalidGpuEvidenceError):
    """The GPU's attestation key did not sign the report."""


class GpuDuplicateError(InvalidGpuEvidenceError):
    """The same GPU reports twice in one piece of evidence."""


# --- the policy ---


class GpuCountError(PolicyRefusedError):
    """Fewer GPUs than the policy demands."""

    code = "gpu_count_refused"
    remedy = "put more GPUs in confidential mode, or have the operators lower gpus_min"


class GpuDeniedError(PolicyRefusedError):
    """The policy denies this GPU by its identity."""

    remedy = "use another GPU; the operators have excluded this one"


# --- the local operator ---


class GpuMissingError(ConfigurationError):
    """There is no NVIDIA GPU on this host, or no driver for it."""

    code = "gpu_missing"
    remedy = "install the NVIDIA driver and pass the GPU to this guest, or set attestation.gpu = false"


class GpuNotConfidentialError(ConfigurationError):
    """The GPU is not in confidential mode, so it has no report to give."""

    remedy = "turn the GPU's confidential mode on from the host and reset it, or set attestation.gpu = false"


class GpuDevtoolsError(GpuNotConfidentialError):
    """Confidential mode is on with development tools: its memory can be read, so it proves nothing."""

    remedy = "set the mode to on instead of devtools, then reset the GPU"


class GpuSimulatedError(GpuNotConfidentialError):
    """The driver says that the confidential environment is a simulation."""

    remedy = "use a production GPU and driver"


# --- the device ---


class GpuUnavailableError(ServiceError):
    """The GPU or its driver does not answer."""

    remedy = "wait; it is tried again. If it stays so: look at dmesg for Xid errors, then reset the GPU"


class GpuDeviceDataError(GpuUnavailableError):
    """What the driver returned is out of bounds or no certificate chain."""
