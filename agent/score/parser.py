"""The command line of `gpupool score`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.pool.parser import Verbs

STRATEGIES = ("weighted", "proportional", "tiered", "guaranteed-minimum", "hybrid")
"""Those of `agent.score.simulating`, which is not imported for a command line that is not about them."""

_SIMULATE = """Show what each score strategy would have paid for an epoch that settled.

Read from this agent's journal, which keeps the last 16 epochs; an agent may run meanwhile, and needs not. The column
"settled" is what the epoch paid. A strategy that is in force has the parameters of the pool's policy, the others have
their usual ones. A settlement holds neither pot nor reliability: the pot is what was paid altogether (or --pot), and
reliability is taken as uptime over the epoch's length, which it is at least."""

_EXAMPLE = """example:
  gpupool score simulate --epoch 42 --plot epoch-42.png
  gpupool score simulate --epoch 42 --strategy tiered --strategy hybrid --json"""


def add_score(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `score` and all below it to the command line."""
    score = verbs.add_parser(
        "score",
        help="what other score strategies would have paid",
        description="Score strategies: how figures of work become shares of the pot.",
    )
    own = score.add_subparsers(title="commands", required=True, metavar="COMMAND")
    simulate = own.add_parser(
        "simulate",
        help="what each strategy would have paid for a past epoch",
        description=_SIMULATE,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.set_defaults(run=_simulate, parser=simulate)
    simulate.add_argument("--epoch", type=int, metavar="E", help="(default: the last one that settled)")
    simulate.add_argument("--strategy", action="append", choices=STRATEGIES, help="only this one; repeat for several")
    simulate.add_argument("--pot", metavar="TON", help="share out so much instead of what the epoch paid")
    simulate.add_argument(
        "--epoch-seconds", type=int, metavar="S", help="the epoch's length (default: the longest that anybody was seen)"
    )
    simulate.add_argument("--plot", type=Path, metavar="FILE.png", help="write a plot, too (needs matplotlib)")
    simulate.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    simulate.add_argument("--json", action="store_true", help="print JSON instead of text")


def _simulate(options: argparse.Namespace) -> int:
    """The function of `agent.score.verbs`, imported when it is called."""
    from agent.score import verbs

    return verbs.simulate(options)
