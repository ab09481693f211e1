"""The root of every error of this package, and its branches: who is at fault, and what that one can do."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

Fault = Literal["sender", "collateral", "platform", "policy", "local", "service"]


class AttestationError(Exception):
    """Root of every error that this package raises on purpose.

    `code` is stable, for metrics and --json: the class's name in snake case without "Error", unless it says
    otherwise. `fault` names who is at fault, `remedy` what helps, in one sentence.
    """

    code: ClassVar[str] = "attestation"
    fault: ClassVar[Fault] = "local"
    remedy: ClassVar[str] = "look at the message"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__.removesuffix("Error")).lower()


class InvalidQuoteError(AttestationError):
    """The quote is not what an honest platform produces: drop it, score the peer."""

    code = "quote_invalid"
    fault = "sender"
    remedy = "drop it; the sender has to make a new quote on a genuine platform"


class InvalidCollateralError(AttestationError):
    """The collateral cannot be used; another one may do."""

    code = "collateral_invalid"
    fault = "collateral"
    remedy = "fetch the collateral anew, or ask another peer for it"


class PlatformError(AttestationError):
    """Quote and collateral are genuine, the machine is not fit for attestation: its owner updates it."""

    code = "platform_unfit"
    fault = "platform"
    remedy = "update the machine's BIOS, microcode and TDX module, then attest anew"


class PolicyRefusedError(AttestationError):
    """All is genuine, and not what the pool's policy allows: change the host, or agree on another policy."""

    fault = "policy"
    remedy = "change what the host runs, or have the operators agree on a policy that allows it"


class ConfigurationError(AttestationError):
    """Something local is wrong; the message names it."""

    code = "configuration_invalid"
    fault = "local"
    remedy = "mend the file, key or setting that the message names"


class ServiceError(AttestationError):
    """Something that this host needs (Intel's service, the kernel, a driver) does not answer: try again."""

    code = "service_unavailable"
    fault = "service"
    remedy = "wait; it is tried again"
