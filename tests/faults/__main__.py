"""Thirty faults, one at a time, in real agents: does the doctor name the cause first, and does an alert fire?

    python -m tests.faults [--only NAME ...] [--ward WARD] [--list] [--json] [--keep]

Needs root and /dev/net/tun, as `tests.chaos` does; says so and ends with 0 where they are missing. Alerts are looked at
where Debian's package `prometheus` is installed, the lost GPU is played where there is a C compiler. A line is printed
as each fault is over. The exit code is 1 if something was not as `tests.faults.catalogue` has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from nvml_stub import COMPILER
from prometheus_run import missing_program

from tests.chaos import cage
from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault, Ward
from tests.faults.report import Outcome, head, line, value
from tests.faults.run import run

NEEDS_COMPILER = "GPU lost"


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for fault in FAULTS:
            sys.stdout.write(f"{fault.name} ({fault.ward}): {fault.injected}\n    {fault.severity} {fault.code}; ")
            sys.stdout.write(f"{' or '.join(fault.alerts) or f'costs nothing: {fault.free}'}\n")
        return 0
    reason = cage.hindrance()
    if reason is not None:
        sys.stdout.write(f"skipped: {reason}\n")
        return 0
    return cage.inside(lambda: _in_cage(options))


def _in_cage(options: argparse.Namespace) -> int:
    directory, started_s = Path(tempfile.mkdtemp(prefix="gpupool-faults-")), time.monotonic()
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if not options.json:
            sys.stdout.write(f"{line(outcome)}\n")
            sys.stdout.flush()

    faults = _chosen(options)
    if not options.json:
        sys.stdout.write(f"{head()}\n")
    wrong = trio.run(run, directory, faults, tell)
    if missing := [fault.name for fault in faults if fault.name not in {each.name for each in outcomes}]:
        wrong.append(f"not played: {', '.join(missing)}")
    result = value(outcomes, wrong, round(time.monotonic() - started_s))
    if options.json:
        sys.stdout.write(f"{json.dumps(result)}\n")
    else:
        sys.stdout.write("".join(f"WRONG: {each}\n" for each in wrong))
        sys.stdout.write(f"{'ok' if result['ok'] else 'FAILED'}: {len(outcomes)} faults, {result['took_s']} s\n")
    if result["ok"] and not options.keep:
        cage.remove(directory)
    else:
        sys.stderr.write(f"files and logs are in {directory}\n")
    return 0 if result["ok"] else 1


def _chosen(options: argparse.Namespace) -> list[Fault]:
    if (reason := missing_program()) is not None:
        sys.stderr.write(f"alerts are not looked at: {reason}\n")
    chosen = [each for each in FAULTS if each.name in (options.only or [each.name])]
    chosen = [each for each in chosen if options.ward in (None, each.ward)]
    if COMPILER is None:
        sys.stderr.write(f"not played: {NEEDS_COMPILER}: there is no C compiler\n")
        chosen = [each for each in chosen if each.name != NEEDS_COMPILER]
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Thirty faults in real agents.")
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="this one; may be repeated")
    parser.add_argument("--ward", type=Ward, choices=list(Ward), help="only those of this ward")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--keep", action="store_true", help="keep files and logs, also if all was named")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
