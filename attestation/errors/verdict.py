"""All is genuine: the platform is not fit, or the pool's policy does not want it."""

from __future__ import annotations

from attestation.errors.base import PlatformError, PolicyRefusedError

# --- the platform ---


class PckRevokedError(PlatformError):
    """The PCK certificate is revoked."""

    remedy = "nothing helps this machine unless Intel certifies it anew: Intel withdrew its certificate"


class TcbLevelNotFoundError(PlatformError):
    """The platform is below every level that the collateral lists."""


class QeLevelNotFoundError(TcbLevelNotFoundError):
    """The quoting enclave is below every level that the QE identity lists."""

    remedy = "update the machine's quoting enclave (DCAP packages), then attest anew"


class TdxModuleLevelNotFoundError(TcbLevelNotFoundError):
    """The TDX module is below every level that the TCB info lists, or not listed at all."""

    remedy = "update the machine's TDX module, then attest anew"


class TcbRevokedError(PlatformError):
    """The TCB level of platform, module or QE is revoked."""


# --- the policy ---


class MeasurementRefusedError(PolicyRefusedError):
    """MRTD and RTMRs match no measurement of the policy."""

    remedy = "run an image that the pool lists, or have the operators add this one to the policy"


class TcbStatusRefusedError(PolicyRefusedError):
    """The TCB status is not allowed, and the grace period does not cover it."""

    remedy = "update the machine's BIOS, microcode and TDX module as the advisories say"


class AdvisoryRefusedError(PolicyRefusedError):
    """The platform is subject to an advisory that the policy rejects."""

    remedy = "mitigate the advisories that the message names on this machine"


class EvaluationNumberError(PolicyRefusedError):
    """The collateral's TCB evaluation data number is below the policy's floor."""

    code = "evaluation_number_too_low"
    remedy = "fetch newer collateral (`gpupool attest collateral fetch --update early`)"


class CollateralAgeError(PolicyRefusedError):
    """A part of the collateral is older than the policy allows: a newer revocation list may say otherwise."""

    code = "collateral_too_old"
    remedy = "fetch newer collateral (gpupool attest collateral fetch)"


class DebugRefusedError(PolicyRefusedError):
    """The TD can be debugged: it proves nothing."""

    remedy = "start the TD without debug"


class TdAttributesRefusedError(PolicyRefusedError):
    """A TD attribute is set that the policy does not allow, or one is missing that it demands."""

    remedy = "start the TD with the attributes that the policy demands"


class XfamRefusedError(PolicyRefusedError):
    """XFAM has a bit that the policy does not allow, or lacks one that every TD has."""

    remedy = "start the TD with the extended features that the policy allows"


class ServiceTdRefusedError(PolicyRefusedError):
    """A service TD is bound to this TD that the policy does not list."""

    remedy = "start the TD without a service TD, or have the operators list its measurement"


class MrSeamRefusedError(PolicyRefusedError):
    """The TDX module's measurement is not on the policy's list."""

    remedy = "load a TDX module that the policy lists"


class FmspcRefusedError(PolicyRefusedError):
    """The processor family is not on the policy's list."""


class PpidRefusedError(PolicyRefusedError):
    """This machine is denied by the policy, or not on its list."""


class PlatformFlagRefusedError(PolicyRefusedError):
    """The PCK certificate carries a platform flag that the policy does not allow."""


class GuestHandshakeRefusedError(PolicyRefusedError):
    """The quote is that of a guest which the node only talked to; the policy wants the node inside of it."""

    remedy = "run the agent inside the TD, or have the operators allow guests by handshake"


class GpuEvidenceMissingError(PolicyRefusedError):
    """The policy demands GPU evidence, and there is none."""

    remedy = "turn the GPUs' confidential mode on and set attestation.gpu = true"


class GpuMeasurementRefusedError(PolicyRefusedError):
    """A GPU matches no golden entry of the policy."""

    remedy = "install a driver and VBIOS that the pool lists, or have the operators add these"
