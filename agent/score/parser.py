"""The command line of `gpupool score`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verb, arg

STRATEGIES = ("weighted", "proportional", "tiered", "guaranteed-minimum", "hybrid")
"""Those of `agent.score.simulating`, which is not imported for a command line that is not about them."""

SIMULATE = Verb(
    name="simulate",
    run="agent.score.verbs.simulate",
    summary="what each strategy would have paid for a past epoch",
    detail="""Read from this agent's journal, which keeps the last 16 epochs; an agent may run meanwhile, and needs not.

The column "settled" is what the epoch paid; the row of this agent bears a star. A strategy that is in force has the
parameters of the pool's policy, the others have their usual ones. A settlement holds neither pot nor reliability: the
pot is what was paid altogether (or --pot), and reliability is taken as uptime over the epoch's length, which it is at
least.""",
    example="--epoch 42 --plot epoch-42.png\n--epoch 42 --strategy tiered --strategy hybrid --json",
    arguments=(
        arg("--epoch", type=int, metavar="E", help="(default: the last one that settled)"),
        arg("--strategy", action="append", choices=STRATEGIES, help="only this one; repeat for several"),
        arg("--pot", metavar="TON", help="share out so much instead of what the epoch paid"),
        arg(
            "--epoch-seconds",
            type=int,
            metavar="S",
            help="the epoch's length (default: the longest that anybody was seen)",
        ),
        arg("--plot", type=Path, metavar="FILE.png", help="write a plot, too (needs matplotlib)"),
    ),
)


def add_score(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `score` and all below it to the command line."""
    own = add_family(
        verbs,
        "score",
        "what other score strategies would have paid",
        "Score strategies: how figures of work become shares of the pot.",
    )
    add_verb(own, SIMULATE, config=default_config)
