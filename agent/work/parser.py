"""The command line of `gpupool work`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verb, arg

EXPLAIN = Verb(
    name="explain",
    run="agent.work.verbs.explain_records",
    summary="explain an epoch's own work records",
    detail="""What each source said at both ends of the window, what was counted, what went wrong meanwhile, what the
record says, whether it counted, and why not.

The window is measured again from the readings that were kept, with the same code: "recomputed: same" says that the
record is what was measured. Readings are kept for a week, windows for four, records for 16 epochs; what is gone is
said. With --record every series is shown. An agent may run meanwhile.

Exit codes: 0 done; 1 there is no ledger, or not this epoch in it; 2 wrong usage or settings.""",
    example="--epoch 120 --record 5311",
    arguments=(
        arg("--epoch", type=int, metavar="EPOCH", help="(default: that of --record, or the last settled)"),
        arg("--record", type=int, metavar="SEQ", help="this record alone, with every series"),
    ),
)


def add_work(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `work` and all below it to the command line."""
    own = add_family(
        verbs,
        "work",
        "explain what this node's work records were made of",
        "This node's own work, as it was measured and recorded.",
    )
    add_verb(own, EXPLAIN, config=default_config)
