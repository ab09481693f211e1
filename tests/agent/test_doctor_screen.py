"""The doctor's findings for people: which are shown, in which order, and how wide."""

from __future__ import annotations

from doctor_facts import PASSED_BY, source, told

from agent.doctor.diagnosis import CHECKS, diagnose, verdict
from agent.doctor.findings import Finding, FindingClass, Severity, stands_above, worst_first
from agent.doctor.screen import findings_text


def test_the_screen_shows_what_matters_and_counts_the_rest() -> None:
    facts = told(sources=[source(error="\x1b[2Jrefused")])
    findings = diagnose(facts)
    text = findings_text(findings, verdict(facts, findings).text, shows_all=False).plain
    assert text.splitlines() == [
        "problem  source-failing: 'engine 0: \\x1b[2Jrefused'",
        "         fix: start it, or mend its address in the settings; what it counts meanwhile is a gap",
        "'you do not earn: engine 0: \\x1b[2Jrefused'",
        f"({len(CHECKS) - 1 - len(PASSED_BY)} checks are fine, 0 could not be made, {len(PASSED_BY)} do not apply; "
        "--all shows them)",
    ]
    everything = findings_text(findings, "", shows_all=True).plain
    assert everything.startswith("problem  source-failing: "), "the worst comes first"
    assert everything.count("\nok       ") == len(CHECKS) - 1 - len(PASSED_BY)
    assert "n/a      p2p-port-taken: does not apply: the agent runs" in everything


def of(severity: Severity, code: str, cause: str = "it is so", fix: str = "") -> Finding:
    return Finding(code=code, severity=severity, clazz=FindingClass.HOST, cause=cause, fix=fix)


def test_problems_stand_above_warnings_and_these_above_notes() -> None:
    words = (Severity.NOTE, Severity.OK, Severity.PROBLEM, Severity.WARNING, Severity.UNKNOWN, Severity.PROBLEM)
    findings = [of(severity, f"{severity}-{i}") for i, severity in enumerate(words)]
    lines = findings_text(findings, "so it is", shows_all=True).plain.splitlines()
    codes = [line.split()[1].rstrip(":") for line in lines[:-1]]
    assert codes == ["problem-2", "problem-5", "warning-3", "note-0", "ok-1", "unknown-4"]
    assert [each.code for each in worst_first(findings)] == codes
    assert stands_above(findings[2], findings[3])
    assert not stands_above(findings[0], findings[2]), "a note stands below a problem"
    assert not stands_above(findings[1], findings[4]), "what is fine asks for nothing"


def test_lines_keep_to_the_width_and_a_command_is_not_broken_before_its_settings() -> None:
    command = "sudo gpupool pool claim --config /etc/gpupool/two/agent.toml"
    cause = "18.402113905 TON wait to be claimed, as they did before"
    finding = of(Severity.NOTE, "unclaimed", cause, f"now: {command}")
    text = findings_text([finding], "you earn", shows_all=False, width=40).plain
    assert text.splitlines() == [
        "note     unclaimed: 18.402113905 TON",
        "         wait to be claimed, as they did",
        "         before",
        "         fix: now: sudo",
        "         gpupool pool claim --config /etc/gpupool/two/agent.toml",
        "you earn",
    ]
    assert len(findings_text([finding], "you earn", shows_all=False).plain.splitlines()) == 3
