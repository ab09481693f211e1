"""The command line of `gpupool earnings`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_verb, arg

EARNINGS = Verb(
    name="earnings",
    run="agent.earnings.verbs.show",
    summary="show what each epoch brought, and why it was not more",
    detail="""Tokens metered and credited, and why it was less; share, TON, claims.

It is read from the ledger beside the journal, whether the agent runs or not. What this agent did not see settle is a
dash. --csv and --plot write files besides; those that are there are replaced.

Exit codes: 0 done; 1 there is no ledger, or it cannot be read; 2 wrong usage or settings.""",
    example="--from 100 --csv earnings.csv --plot earnings.png",
    arguments=(
        arg("--from", dest="first", type=int, metavar="EPOCH", help="from this epoch on (default: all)"),
        arg("--to", dest="last", type=int, metavar="EPOCH", help="up to this epoch (default: all)"),
        arg("--csv", metavar="FILE", help="write a table for spreadsheets; - prints it in place of the text"),
        arg("--plot", type=Path, metavar="FILE.png", help="draw what each epoch brought"),
    ),
)


def add_earnings(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `earnings` to the command line."""
    add_verb(verbs, EARNINGS, config=default_config)
