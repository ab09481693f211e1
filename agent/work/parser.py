"""The command line of `gpupool work`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.pool.parser import Verbs

_EXPLAIN = """Explain this node's own work records: what each source said at both ends of the window, what was counted,
what went wrong meanwhile, what the record says, whether it counted, and why not.

The window is measured again from the readings that were kept, with the same code: "recomputed: same" says that the
record is what was measured. Readings are kept for a week, windows for four, records for 16 epochs; what is gone is
said. With --record every series is shown. An agent may run meanwhile.
Exit codes: 0 done; 1 there is no ledger, or not this epoch in it; 2 wrong usage or settings."""


def add_work(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `work` and all below it to the command line."""
    work = verbs.add_parser(
        "work",
        help="explain what this node's work records were made of",
        description="This node's own work, as it was measured and recorded.",
    )
    own = work.add_subparsers(title="commands", required=True, metavar="COMMAND")
    explain = own.add_parser(
        "explain",
        help="explain an epoch's own work records",
        description=_EXPLAIN,
        epilog="example:\n  gpupool work explain --epoch 120 --record 5311",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.set_defaults(run=_explain, parser=explain)
    explain.add_argument("--epoch", type=int, metavar="EPOCH", help="(default: that of --record, or the last settled)")
    explain.add_argument("--record", type=int, metavar="SEQ", help="this record alone, with every series")
    explain.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    explain.add_argument("--json", action="store_true", help="print JSON instead of text")


def _explain(options: argparse.Namespace) -> int:
    from agent.work import verbs

    return verbs.explain_records(options)
