"""Coverage-guided fuzzing of all in attestation and on gossip's wire that reads bytes, with atheris (libFuzzer).

    python -m tests.attestation.tools.fuzz [--seconds 600] [--target quote ...] [--jobs 2]

Each target (`fuzz_targets`, here and in `tests.gossip.tools`) runs in a process of its own (`fuzz_one`); the seconds
are those of the whole run, divided among the targets. The corpus grows in `build/fuzz/<target>`, so that a run goes on
where the last one stopped. Prints one line per target; exit code 1 if one crashed, with the path of the input that did
it. To see such a crash again, without atheris:

    python -m tests.attestation.tools.fuzz --target quote --input build/fuzz/crashes/quote-...
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attestation.errors import AttestationError
from gossip.errors import GossipError
from tests.attestation.tools import fuzz_targets
from tests.gossip.tools import fuzz_targets as wire_targets

TARGETS = fuzz_targets.TARGETS | wire_targets.TARGETS
FOLDER = Path("build") / "fuzz"
BYTES_MAX = 32 * 1024
"""Of an input; more only makes it slow. Every parser's own bound is below, or has its test."""
INPUT_SECONDS_MAX = 10
MEMORY_MIB_MAX = 2_048
START_SECONDS = 60
"""What a process may take besides fuzzing."""

_DONE = re.compile(r"^#(\d+)\s+DONE.*?cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_CRASH = re.compile(r"Test unit written to (\S+)")


def fuzz(name: str, seconds: int) -> str | None:
    """Fuzz one target in a new process and print its line; what went wrong, or None."""
    corpus, crashes = FOLDER / name, FOLDER / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    before = len(list(corpus.iterdir()))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={crashes}/{name}-",
    ]
    command = (sys.executable, "-m", "tests.attestation.tools.fuzz_one", name, str(corpus), *options)
    longest = seconds + INPUT_SECONDS_MAX + START_SECONDS
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=longest)
    figures = _DONE.search(done.stderr)
    if done.returncode != 0 or figures is None:
        written = _CRASH.search(done.stderr)
        where = f"input: {written[1]}" if written else f"no input was written (exit code {done.returncode})"
        return f"{name}: {where}\n{_crash_of(done.stdout + done.stderr)}"
    executions, blocks, features, kept = (int(figure) for figure in figures.groups())
    grown = len(list(corpus.iterdir())) - before
    sys.stdout.write(
        f"{name:18} {executions:>10,} executions  coverage {blocks:>5,} ({features:,} features)  "
        f"corpus {kept:,} ({grown:,} new)\n"
    )
    sys.stdout.flush()
    return None


def _crash_of(output: str) -> str:
    at = output.find("=== Uncaught Python exception")
    return output[at:].split("\nINFO:")[0][:3_000] if at >= 0 else output[-2_000:]


def show(name: str, path: Path) -> None:
    """Give one input to a target; anything but an error of the package comes out."""
    try:
        TARGETS[name].run(path.read_bytes())
    except (AttestationError, GossipError) as error:
        sys.stdout.write(f"refused: {error}\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz the parsers of attestation and of gossip's wire.")
    parser.add_argument("--seconds", type=int, default=600, help="of the whole run (default: 600)")
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--input", type=Path, help="give this file to the target once, and show what comes out")
    options = parser.parse_args(arguments)
    if options.input:
        show(options.target[0], options.input)
        return 0
    each = max(1, options.seconds * options.jobs // len(options.target))
    with ThreadPoolExecutor(options.jobs) as pool:
        complaints = [it for it in pool.map(fuzz, options.target, [each] * len(options.target)) if it]
    for complaint in complaints:
        sys.stdout.write(f"CRASH {complaint}\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
