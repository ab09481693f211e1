"""The command line of `gpupool upgrade`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verbs

VERBS = (
    Verb(
        name="check",
        run="agent.upgrade.verb.check",
        summary="say whether the agent may be restarted with the installed version now",
        detail="""It compares the installed version with the agent that runs, its settings, its journal, the versions
of other operators, and what the pool is about to change; it changes nothing. Run it after a package was installed and
before the agent is restarted, and once more afterwards. docs/upgrading.md has the whole order.

Exit codes: 0 nothing stands against it; 1 something does, or the journal cannot be read; 2 wrong usage or settings.""",
        example="--json",
    ),
)


def add_upgrade(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `upgrade` and all below it to the command line."""
    own = add_family(verbs, "upgrade", "go over to another version of the agent")
    add_verbs(own, VERBS, {}, config=default_config)
