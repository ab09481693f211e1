"""What the doctor finds: a code that stays, how bad it is, whose field it lies in, the cause and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be checked; the cause says why."""
    NOT_APPLICABLE = "not-applicable"
    """There is nothing to check here; the cause says why."""
    NOTE = "note"
    """Worth knowing; it costs nothing."""
    WARNING = "warning"
    """It costs something, or soon will; work still earns."""
    PROBLEM = "problem"
    """While it lasts the work of this node earns nothing, or nothing that it does is settled."""


class FindingClass(IntEnum):
    """Where the cause lies. The value is the exit code of a doctor whose first problem lies there."""

    SETTINGS = 10
    """Settings, keys and other files that the operator provides."""
    HOST = 11
    """This host: the agent's process, its journal, disk, clock, and what proves the host."""
    SOURCES = 12
    """What counts the work: engine, Cocoon worker, GPUs."""
    CHAIN = 13
    """The chain, the pool on it, the own entry there, the wallet."""
    EVIDENCE = 14
    """The proof of what this host is."""
    NETWORK = 15
    """Other agents."""
    SETTLEMENT = 16
    """The close of epochs, and what came of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check. `fix` says what helps; empty where nothing has to be done."""

    code: str
    severity: Severity
    clazz: FindingClass
    cause: str
    fix: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether nobody needs to hear of it unasked."""
        return self.severity in (Severity.OK, Severity.UNKNOWN, Severity.NOT_APPLICABLE)

    def value(self) -> dict[str, str]:
        """As JSON."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "class": self.clazz.name.lower(),
            "cause": self.cause,
            "fix": self.fix,
        }


_WORST_FIRST = (Severity.PROBLEM, Severity.WARNING, Severity.NOTE)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Problems, warnings, notes, and then the rest; within each as they were found, first cause first."""
    return sorted(findings, key=_rank)


def stands_above(one: Finding, other: Finding) -> bool:
    """Whether `one`, which was found before `other`, is shown before it and needs to be heard of."""
    return not one.is_fine and _rank(one) <= _rank(other)


def _rank(finding: Finding) -> int:
    is_heard = finding.severity in _WORST_FIRST
    return _WORST_FIRST.index(finding.severity) if is_heard else len(_WORST_FIRST)
