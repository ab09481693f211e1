"""The command line of `gpupool earnings`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.pool.parser import Verbs

_DETAIL = """Show what each settled epoch brought: tokens metered and credited, and why it was less; share, TON, claims.

It is read from the ledger beside the journal, whether the agent runs or not. What this agent did not see settle is a
dash. --csv and --plot write files besides; those that are there are replaced.
Exit codes: 0 done; 1 there is no ledger, or it cannot be read; 2 wrong usage or settings."""


def add_earnings(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `earnings` to the command line."""
    parser = verbs.add_parser(
        "earnings",
        help="show what each epoch brought, and why it was not more",
        description=_DETAIL,
        epilog="example:\n  gpupool earnings --from 100 --csv earnings.csv --plot earnings.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_show, parser=parser)
    parser.add_argument("--from", dest="first", type=int, metavar="EPOCH", help="from this epoch on (default: all)")
    parser.add_argument("--to", dest="last", type=int, metavar="EPOCH", help="up to this epoch (default: all)")
    parser.add_argument(
        "--csv", metavar="FILE", help="write a table for spreadsheets; - prints it in place of the text"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw what each epoch brought")
    parser.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _show(options: argparse.Namespace) -> int:
    from agent.earnings import verbs

    return verbs.show(options)
