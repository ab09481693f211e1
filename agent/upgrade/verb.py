"""What `gpupool upgrade check` does: look, judge, tell."""

from __future__ import annotations

import argparse
import time
from importlib import metadata

from agent.config import Config, load_config
from agent.doctor.findings import Severity
from agent.doctor.screen import findings_text
from agent.journal_file import SCHEMA_VERSION
from agent.output import EXIT_FAILED, answer, terminal_columns
from agent.upgrade.checks import CHECKS, assess, missing_of_host, not_made
from agent.upgrade.facts import Facts, ask_running, look_at_journal, look_at_settings
from contracts import layout
from gossip.hello import PROTOCOLS, TALLIES

CODES = {"pool": "pool_operator", "rewards": "reward_distribution", "registry": "participant_registry"}
"""The contracts by the names that the status gives them."""


def check(options: argparse.Namespace) -> int:
    """Say whether the agent may be restarted with the installed version now."""
    facts = collect(load_config(options.config))
    findings = assess(facts)
    unmade = not_made(findings)
    problems = [each for each in findings if each.severity is Severity.PROBLEM]
    missing = missing_of_host(findings)
    may_restart = not problems and missing is None
    if problems:
        verdict = f"do not restart the agent with {facts.installed} now: {problems[0].cause}"
    elif missing is not None:
        verdict = f"it is not known whether the agent may be restarted with {facts.installed}: {missing.cause}"
    else:
        verdict = f"nothing stands against restarting the agent with {facts.installed}"
    if unmade:
        verdict += f"; {'but ' if may_restart else ''}{len(unmade)} of {len(CHECKS)} checks were not made"
    value = {
        "installed": facts.installed,
        "may_restart": may_restart,
        "verdict": verdict,
        "first": problems[0].code if problems else None,
        "not_made": unmade,
        "findings": [each.value() for each in findings],
    }
    text = findings_text(findings, verdict, shows_all=True, width=terminal_columns())
    answer(options, value, text.plain)
    return 0 if may_restart else EXIT_FAILED


def collect(config: Config) -> Facts:
    """All that is known now. It blocks, for seconds at most."""
    return Facts(
        installed=metadata.version("gpupool-agent"),
        protocols=PROTOCOLS,
        tallies=TALLIES,
        schema=SCHEMA_VERSION,
        codes={name: layout.code(code).hash.hex() for name, code in CODES.items()},
        unusable=look_at_settings(config.path),
        journal=look_at_journal(config),
        running=ask_running(config),
        now_s=int(time.time()),
    )
