"""Attack one node and print what happened.

python -m tests.attacks [--only NAME ...] [--json]; exit code 1: it did not withstand one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

import trio

from tests.attacks.arsenal import ATTACKS
from tests.attacks.battle import Outcome, fight, open_field, table


async def run(names: list[str]) -> list[Outcome]:
    outcomes = []
    async with open_field() as (victim, honest):
        for name in names:
            outcomes.append(await fight(victim, honest, name))
            print(table(outcomes[-1:]).splitlines()[1], file=sys.stderr)  # noqa: T201
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    outcomes = trio.run(run, arguments.only)
    if arguments.json:
        print(json.dumps([{**asdict(outcome), "counted": outcome.counted()} for outcome in outcomes]))  # noqa: T201
    else:
        print(table(outcomes))  # noqa: T201
    faults = [f"{outcome.name}: {fault}" for outcome in outcomes for fault in outcome.faults()]
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
