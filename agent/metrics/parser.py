"""The command line of `gpupool metrics`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verbs

VERBS = (
    Verb(
        name="catalog",
        run="agent.metrics.verbs.catalog",
        summary="print every metric: name, kind, labels, what it says, what to do with it",
        detail="""No agent is asked. What an agent serves stands at http://127.0.0.1:9464/metrics; what is not known yet
is absent there.""",
        example="--json",
        has_config=False,
    ),
)


def add_metrics(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `metrics` and all below it to the command line."""
    own = add_family(verbs, "metrics", "what the agent counts and shows", "The metrics that an agent serves.")
    add_verbs(own, VERBS, {}, config=default_config)
