"""The command line of `gpupool doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.pool.parser import Verbs

_DETAIL = """Say why this node does not earn: one ordered diagnosis, first cause first, each with what helps.

It looks at settings, keys, journal, disk, clock, the running agent, the chain, evidence, sources, peers, and what
was settled; it changes nothing, and works while the agent, the chain or the settings are broken. It takes at most
15 seconds. Run it as the agent's user. docs/troubleshooting.md explains every code.

Exit codes, by the first problem: 0 none; 10 settings or keys; 11 this host (agent, journal, disk, clock, TDX);
12 sources (engine, Cocoon, GPU); 13 chain, pool, stake or wallet; 14 evidence; 15 network and peers;
16 settlement. Warnings and notes leave it 0."""


def add_doctor(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `doctor` to the command line."""
    parser = verbs.add_parser(
        "doctor",
        help="say why this node does not earn, and what helps",
        description=_DETAIL,
        epilog="example:\n  gpupool doctor --all",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run, parser=parser)
    parser.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    parser.add_argument(
        "--all", action="store_true", help="list every check, also what is fine, not made, or does not apply"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _run(options: argparse.Namespace) -> int:
    from agent.doctor.verb import doctor

    return doctor(options)
