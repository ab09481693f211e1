"""Derives an epoch's settlement again from a bundle, offline, with no trust in whoever exported it.

Pure: bytes in, a `Verification` out; no chain, no clock, no file.

1. One check after another (`agent.audit.checks`), each on what those before it proved. One that fails names the
   places; what needs it is not looked at; all others are.
2. "Same" means that every check holds: what landed on chain is what follows, bit by bit, from signed records and
   observations, with the evidence judged anew from its bytes.
3. What cannot be shown from bytes alone stands in `believed`, each with what hangs on it; nothing else is believed.

Untrusted: every byte of the bundle.
Source: PROTOCOL, "Invariants" 1; docs/adr/0029.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.audit.bundle import Bundle
from agent.audit.checks import CHECKS, Audit
from agent.audit.comparing import Difference
from agent.audit.facts import AuditFailedError
from agent.errors import AgentError
from agent.progress import Tell, silent
from attestation.errors import AttestationError
from contracts.errors import ContractsError
from gossip.errors import GossipError

FINDINGS_MAX = 50
"""Said of one check; more are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: whether it holds (None: not looked at), what it found, and each place where it does not."""

    name: str
    holds: bool | None
    text: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of it: payload hash that landed, and the one that follows; None for what could not be found out."""

    steps: tuple[Step, ...]
    differences: tuple[Difference, ...]
    believed: tuple[str, ...]
    notes: tuple[str, ...]
    """What an auditor should know besides: evidence that is refused, say."""
    landed: bytes | None
    recomputed: bytes | None

    @property
    def is_same(self) -> bool:
        return all(step.holds for step in self.steps)


def verify(bundle: Bundle, confirmed: Collection[tuple[int, bytes]] = (), *, tell: Tell = silent) -> Verification:
    """Check everything in `bundle`; `confirmed` are blocks (number, root hash) known to be of the masterchain.

    `tell` hears of each check as it begins.
    """
    audit = Audit(bundle, confirmed)
    steps: list[Step] = []
    held: set[str] = set()
    for name, needs, check in CHECKS:
        missing = [need for need in needs if need not in held]
        if missing:
            steps.append(Step(name=name, holds=None, text=f"not looked at, for {', '.join(missing)} does not hold"))
            continue
        tell(f"checking {name}")
        step = _run(name, check, audit)
        steps.append(step)
        if step.holds:
            held.add(name)
    return Verification(
        steps=tuple(steps),
        differences=audit.differences,
        believed=tuple(audit.believed),
        notes=tuple(audit.notes),
        landed=audit.facts.landed.payload_hash if "chain" in held else None,
        recomputed=audit.recomputed,
    )


def _run(name: str, check: Callable[[Audit], str], audit: Audit) -> Step:
    try:
        return Step(name=name, holds=True, text=check(audit))
    except AuditFailedError as error:
        findings = error.findings
    except (AgentError, AttestationError, ContractsError, GossipError) as error:
        findings = (str(error),)
    more = len(findings) - FINDINGS_MAX
    shown = (*findings[:FINDINGS_MAX], *((f"and {more} more",) if more > 0 else ()))
    text = "does not hold" if len(findings) == 1 else f"does not hold in {len(findings)} places"
    return Step(name=name, holds=False, text=text, findings=shown)
