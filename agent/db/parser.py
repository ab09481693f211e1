"""The command line of `gpupool db`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verbs, arg

VERBS = (
    Verb(
        name="check",
        run="agent.db.verbs.check",
        summary="check the whole journal",
        detail="""Pages, every record and message, hash chains, own signatures, checkpoints. An agent may run
meanwhile; what it writes from then on is not looked at.

Exit codes: 0 sound; 1 damaged, or it cannot be read; 2 wrong usage or settings.""",
        example="--json",
    ),
    Verb(
        name="export",
        run="agent.db.verbs.export",
        summary="write the journal into one file",
        detail="""All that it holds; an agent may run meanwhile.

The file is complete as of one moment, bears checksums, and names node key and pool. It holds no secret key. It grows
old at once: of what the agent signs later, an agent that is restored from it learns from the operators.""",
        example="/backup/agent",
        arguments=(arg("file", type=Path, metavar="FILE", help="where to write it; never overwritten"),),
    ),
    Verb(
        name="import",
        run="agent.db.verbs.import_file",
        summary="make the journal anew from a file",
        detail="""A journal that is there is never overwritten.

Everything in the file is verified as if it came from a stranger. The agent then waits for operators of more than
two thirds of the weight, itself not counted: what this key signed after the export, only they know. If it may have
signed records that nobody else holds, replace the node key instead (gpupool keys rotate).""",
        example="/backup/agent",
        arguments=(arg("file", type=Path, metavar="FILE", help="what `gpupool db export` wrote"),),
    ),
)


def add_db(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `db` and all below it to the command line."""
    own = add_family(
        verbs,
        "db",
        "check the agent's journal, export and import it",
        "The journal: the agent's log and all that stands behind what it signed.",
    )
    add_verbs(own, VERBS, {}, config=default_config)
