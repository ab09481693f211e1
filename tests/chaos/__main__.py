"""Seven real agents in network namespaces, and everything that can go wrong around them.

    python -m tests.chaos [--quick] [--only NAME ...] [--list] [--seed 1] [--json] [--keep]
    python -m tests.chaos --rtt

Needs root and /dev/net/tun; says so and ends with 0 where they are missing. Every scenario of `tests.chaos.scenarios`
runs on one living pool; whatever settles is judged against the chain and every journal (`tests.chaos.books`), and at
the end everything is claimed and the books must balance. The exit code is 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from tests.chaos import cage
from tests.chaos.report import Report, table
from tests.chaos.rtt import measure
from tests.chaos.run import Settings, run
from tests.chaos.scenarios import SCENARIOS

EPOCH_S = 15


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS:
            quick = " (quick)" if scenario.is_quick else ""
            sys.stdout.write(f"{scenario.name}{quick}: {scenario.does}\n    {scenario.holds}\n")
        return 0
    reason = cage.hindrance()
    if reason is not None:
        sys.stdout.write(f"skipped: {reason}\n")
        return 0
    return cage.inside(lambda: _in_cage(options))


def _in_cage(options: argparse.Namespace) -> int:
    directory = Path(tempfile.mkdtemp(prefix="gpupool-chaos-"))
    keep = True
    try:
        if options.rtt:
            sys.stdout.write(json.dumps(trio.run(measure, directory, options.seed)) + "\n")
            code = 0
        else:
            names = options.only or [s.name for s in SCENARIOS if s.is_quick or not options.quick]
            report = trio.run(run, Settings(directory=directory, names=names, seed=options.seed, epoch_s=EPOCH_S))
            code = _tell(report, as_json=options.json)
        keep = options.keep or code != 0
    finally:
        if keep:
            sys.stderr.write(f"files and logs are in {directory}\n")
        else:
            cage.remove(directory)
    return code


def _tell(report: Report, *, as_json: bool) -> int:
    sys.stdout.write((json.dumps(report.value()) if as_json else table(report)) + "\n")
    return 0 if report.is_ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Real agents, hurt.")
    parser.add_argument("--quick", action="store_true", help="a few scenarios: three minutes")
    parser.add_argument(
        "--only", action="append", default=[], choices=[s.name for s in SCENARIOS], help="this one; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--keep", action="store_true", help="keep files and logs, also if everything held")
    parser.add_argument("--rtt", action="store_true", help="measure instead: the close in round-trip times")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
