"""The command line of `gpupool db`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from agent.pool.parser import Verbs

_CHECK = """Check the whole journal: pages, every record and message, hash chains, own signatures, checkpoints.

An agent may run meanwhile; what it writes from then on is not looked at.
Exit codes: 0 sound; 1 damaged, or it cannot be read; 2 wrong usage or settings."""

_EXPORT = """Write all that the journal holds into one file; an agent may run meanwhile.

The file is complete as of one moment, bears checksums, and names node key and pool. It holds no secret key. It
grows old at once: of what the agent signs later, an agent that is restored from it learns from the operators."""

_IMPORT = """Make the journal anew from an exported file; one that is there is never overwritten.

Everything in the file is verified as if it came from a stranger. The agent then waits for operators of more than
two thirds of the weight, itself not counted: what this key signed after the export, only they know. If it may have
signed records that nobody else holds, start anew with a new wallet and node key instead."""


def add_db(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `db` and all below it to the command line."""
    db = verbs.add_parser(
        "db",
        help="check the agent's journal, export and import it",
        description="The journal: the agent's log and all that stands behind what it signed.",
    )
    own = db.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(own, "check", "check the whole journal", _CHECK, "check --json", default_config)
    export = _add(own, "export", "write the journal into one file", _EXPORT, "export /backup/agent", default_config)
    export.add_argument("file", type=Path, metavar="FILE", help="where to write it; never overwritten")
    imported = _add(own, "import", "make the journal anew from a file", _IMPORT, "import /backup/agent", default_config)
    imported.add_argument("file", type=Path, metavar="FILE", help="what `gpupool db export` wrote")


def _add(
    verbs: Verbs[argparse.ArgumentParser], name: str, summary: str, detail: str, example: str, default_config: Path
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=detail,
        epilog=f"example:\n  gpupool db {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_runner(name), parser=parser)
    parser.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def _runner(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of `agent.db.verbs`, imported when it is called."""

    def run(options: argparse.Namespace) -> int:
        from agent.db import verbs

        functions = {"check": verbs.check, "export": verbs.export, "import": verbs.import_file}
        return functions[name](options)

    return run
