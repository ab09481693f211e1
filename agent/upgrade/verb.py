"""What `gpupool upgrade check` does: look, judge, tell."""

from __future__ import annotations

import argparse
import time
from importlib import metadata

from agent.config import Config, load_config
from agent.doctor.findings import Severity
from agent.doctor.screen import findings_text
from agent.journal_file import SCHEMA_VERSION
from agent.output import EXIT_FAILED, answer
from agent.upgrade.checks import CHECKS, assess, not_made
from agent.upgrade.facts import Facts, ask_running, look_at_journal
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
    verdict = (
        f"do not restart the agent with {facts.installed} now: {problems[0].cause}"
        if problems
        else f"nothing stands against restarting the agent with {facts.installed}"
    )
    if unmade:
        verdict += f"; but {len(unmade)} of {len(CHECKS)} checks were not made"
    value = {
        "installed": facts.installed,
        "may_restart": not problems,
        "verdict": verdict,
        "first": problems[0].code if problems else None,
        "not_made": unmade,
        "findings": [each.value() for each in findings],
    }
    answer(options, value, findings_text(findings, verdict, shows_all=True).plain)
    return EXIT_FAILED if problems else 0


def collect(config: Config) -> Facts:
    """All that is known now. It blocks, for seconds at most."""
    return Facts(
        installed=metadata.version("gpupool-agent"),
        protocols=PROTOCOLS,
        tallies=TALLIES,
        schema=SCHEMA_VERSION,
        codes={name: layout.code(code).hash.hex() for name, code in CODES.items()},
        journal=look_at_journal(config),
        running=ask_running(config),
        now_s=int(time.time()),
    )
