"""The doctor's process: `python -I -m agent.page.diagnosing_child CONFIG`, run by `agent.page.diagnosing`.

For each line on stdin it looks once and answers with a line; it ends when stdin does. It remembers what it found, so
that what takes long is looked at once (`agent.doctor.collecting`, rule 4). A text that is too long is cut.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from agent.doctor.collecting import collect
from agent.doctor.diagnosis import Verdict, diagnose, verdict
from agent.doctor.facts import Facts, NotKnownError, known
from agent.doctor.findings import Finding, Severity, worst_first
from agent.page.diagnosing import FINDINGS_MAX, Answer, SaidForm
from agent.undumpable import forbid_dumps

_LOWEST_PRIORITY = 19
_FIRST_TO_GO = "1000"
_TEXT_CHARS = 2000


def main() -> None:
    """Answer until stdin ends."""
    _give_way()
    forbid_dumps()  # the doctor reads both keys; after giving way, which is forbidden then
    facts: Facts | None = None
    while sys.stdin.readline():
        facts = trio.run(_look, Path(sys.argv[1]), facts, strict_exception_groups=True)
        findings = diagnose(facts)
        line = msgspec.json.encode(answer(facts, findings, verdict(facts, findings)))
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()


def _give_way() -> None:
    """Let the agent, and all else on this host, go first; a sandbox may forbid to say so, and that is no obstacle."""
    with suppress(OSError):
        os.nice(_LOWEST_PRIORITY)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


async def _look(config: Path, before: Facts | None) -> Facts:
    return await collect(config, before=before)


def answer(facts: Facts, findings: Sequence[Finding], said: Verdict) -> Answer:
    """What is told of the findings: those that somebody needs to hear of, the worst first."""
    counts = Counter(each.severity for each in findings)
    shown = [each for each in worst_first(findings) if not each.is_fine]
    return Answer(
        found_s=facts.now_s,
        epoch=_settled_epoch(facts),
        earns=said.earns,
        verdict=said.text[:_TEXT_CHARS],
        findings=[
            SaidForm(
                severity=str(each.severity),
                code=each.code,
                cause=each.cause[:_TEXT_CHARS],
                fix=each.fix[:_TEXT_CHARS],
            )
            for each in shown[:FINDINGS_MAX]
        ],
        fine=counts[Severity.OK] + counts[Severity.NOT_APPLICABLE],
        unknown=counts[Severity.UNKNOWN],
    )


def _settled_epoch(facts: Facts) -> int | None:
    """The last epoch that the journal has as settled, 0 for none; None if the journal could not be read."""
    try:
        settled = known(known(facts.journal).settled)
    except NotKnownError:
        return None
    return 0 if settled is None else settled.epoch


if __name__ == "__main__":
    main()
