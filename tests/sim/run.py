"""Simulate many seeds.

    python -m tests.sim.run [--seeds 2000] [--start 0] [--bug NAME] [--trace] [--processes 2]

A seed is a pool of agents in a world that loses, delays, cuts off, kills and lies (`tests.sim.plan`); every
invariant is checked after every step (`tests.sim.watch`). A violation is printed with the last lines of its trace
and the command that replays it. The last line is a JSON object; the exit code is 0 only if everything held.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from tests.sim.bugs import BY_NAME
from tests.sim.plan import draw_plan_of
from tests.sim.world import Outcome, simulate

CHUNK = 8


def simulate_by_name(seed: int, bug: str, keep_all: bool) -> Outcome:
    return simulate(seed, BY_NAME[bug], keep_all=keep_all)


def outcomes(
    seeds: Sequence[int], bug: str = "none", *, processes: int = 1, keep_all: bool = False
) -> Iterator[Outcome]:
    """Simulate all of `seeds`, in their order, in so many processes."""
    one = partial(simulate_by_name, bug=bug, keep_all=keep_all)
    if processes == 1 or len(seeds) == 1:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap(one, seeds, CHUNK)


def report(found: Iterable[Outcome], bug: str, *, with_traces: bool) -> dict[str, object]:
    """Print what failed, and all traces if asked to; return the summary."""
    started_s = time.perf_counter()
    seeds = steps = settled = 0
    traces = hashlib.sha256()
    failed = []
    for outcome in found:
        seeds, steps, settled = seeds + 1, steps + outcome.steps, settled + outcome.settled
        traces.update(outcome.trace.encode())
        if with_traces:
            sys.stdout.write(f"{draw_plan_of(outcome.seed)}\n")
        if with_traces or outcome.violation is not None:
            sys.stdout.writelines(f"    {line}\n" for line in outcome.lines)
        if outcome.violation is not None:
            failed.append(outcome.seed)
            named = "" if bug == "none" else f" --bug {bug}"
            sys.stdout.write(f"{outcome.violation}\n")
            sys.stdout.write(f"replay: python -m tests.sim.run --start {outcome.seed} --seeds 1 --trace{named}\n")
    return {
        "seeds": seeds,
        "steps": steps,
        "settled": settled,
        "traces": traces.hexdigest(),
        "bug": bug,
        "violations": failed,
        "seconds": round(time.perf_counter() - started_s, 1),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sim", description="A pool in a hostile world; every invariant at every step."
    )
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--bug", choices=BY_NAME, default="none", help="inject this bug: seeds are expected to fail")
    parser.add_argument("--trace", action="store_true", help="print plan and whole trace of every seed")
    parser.add_argument("--processes", type=int, default=2, help="how many work at once (default: 2)")
    options = parser.parse_args(arguments)
    seeds = range(options.start, options.start + options.seeds)
    found = outcomes(seeds, options.bug, processes=options.processes, keep_all=options.trace)
    summary = report(found, options.bug, with_traces=options.trace)
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if summary["violations"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
