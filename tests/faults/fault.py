"""What a fault is: how it is brought about, what the doctor has to say of it first, and which alert has to fire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.doctor.findings import Severity


class Ward(StrEnum):
    """Where a fault is brought about: which pool, and which agent of it is hurt."""

    OPERATOR = "operator"
    """The last of four operators, whose work an inference engine counts. The other three settle without it."""
    NEWCOMER = "newcomer"
    """A fifth agent that joins the same pool, and is no operator: what is done to its entry harms nobody else."""
    COCOON = "cocoon"
    """The last of three operators of a pool that counts by Cocoon worker contracts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `code` is what `gpupool doctor` has to name first, with `severity`.

    It has `alerts`, one of which has to fire for the agent that is hurt, or says in `free` why it costs nothing.
    """

    name: str
    ward: Ward
    injected: str
    code: str
    severity: Severity
    alerts: tuple[str, ...] = ()
    free: str = ""
    healed: str
