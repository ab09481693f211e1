"""What a check is: one question to the facts, under a code that stays; and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.doctor.facts import DoesNotApplyError, Facts, NotKnownError, Trial, known
from agent.doctor.findings import Finding, FindingClass, Severity

ABOVE = "mend what stands above; then "
"""A fix may begin so: it is left away where nothing stands above."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a check found. `severity` None is the check's own."""

    cause: str
    fix: str
    severity: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`look` gives what is wrong, or None, and raises `NotKnownError` where a fact is missing, `DoesNotApplyError`
    where there is nothing to look at; `fine` says what holds if nothing is wrong."""

    code: str
    clazz: FindingClass
    severity: Severity
    fine: str
    look: Callable[[Facts], Trouble | None]

    def make(self, facts: Facts) -> Finding:
        """Make it; whatever the facts are, there is a finding."""
        severity, cause, fix = Severity.OK, self.fine, ""
        try:
            trouble = self.look(facts)
        except DoesNotApplyError as error:
            severity, cause = Severity.NOT_APPLICABLE, f"does not apply: {error}"
        except NotKnownError as error:
            severity, cause = Severity.UNKNOWN, f"not checked: {error}"
        else:
            if trouble is not None:
                severity, cause, fix = trouble.severity or self.severity, trouble.cause, trouble.fix
        return Finding(code=self.code, severity=severity, clazz=self.clazz, cause=cause, fix=fix)


def tried(trial: Trial, fix: str) -> Trouble | None:
    """What came of something that was tried.

    Raises:
        NotKnownError: it was not tried.
    """
    wrong = known(trial)
    return None if wrong is None else Trouble(wrong, fix)
