"""The command line of `gpupool doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_verb, arg

DOCTOR = Verb(
    name="doctor",
    run="agent.doctor.verb.doctor",
    summary="say why this node does not earn, and what helps",
    detail="""One ordered diagnosis, first cause first, each with what helps.

It looks at settings, keys, journal, disk, clock, the running agent, the chain, evidence, sources, peers, and what
was settled; it changes nothing, and works while the agent, the chain or the settings are broken. It takes at most
15 seconds. Run it with sudo where keys are root's, as under systemd. docs/troubleshooting.md explains every code.

Exit codes, by the first problem: 0 none; 10 settings or keys; 11 this host (agent, journal, disk, clock, TDX);
12 sources (engine, Cocoon, GPU); 13 chain, pool, stake or wallet; 14 evidence; 15 network and peers;
16 settlement. Warnings and notes leave it 0.""",
    example="--all",
    arguments=(
        arg("--all", action="store_true", help="list every check, also what is fine, not made, or does not apply"),
    ),
)


def add_doctor(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `doctor` to the command line."""
    add_verb(verbs, DOCTOR, config=default_config)
