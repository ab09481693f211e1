"""Takes the rules of the attestation package out one at a time and sees whether a test notices.

    python -m tests.attestation.tools.mutate [--file verify.py] [--jobs 2] [--retry]

What is taken out: `mutations`. Each mutant is tried in a copy of the tree, never in this one. The copy has no real
quotes beside it, so that the tests that need them are skipped: the synthetic ones have to notice. Only tests that
run the changed line can behave otherwise, so exactly these run, the quick ones first.

The result stands in `tests/attestation/mutants.json`, in the order of the sources, and every survivor's reason in
`survivors.json`. A run goes on where the last one stopped for files that are the same; `--retry` takes the
survivors once more. Exit code 1: a survivor without a reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import queue
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from tests.attestation.tools.mutations import Mutant, mutants

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "attestation"
RESULT = ROOT / "tests" / "attestation" / "mutants.json"
REASONS = Path(__file__).with_name("survivors.json")
TREE = ("agent", "attestation", "contracts", "docs", "gossip", "tests", "pyproject.toml")
FILES = (
    "appraisal.py",
    "binding.py",
    "certs.py",
    "collateral.py",
    "collateral_key.py",
    "evidence.py",
    "gpu.py",
    "gpu_chain.py",
    "gpu_policy.py",
    "gpu_report.py",
    "guest_certificate.py",
    "handshake.py",
    "pck.py",
    "policy.py",
    "providers/cocoon_guest.py",
    "providers/tls_records.py",
    "quote.py",
    "roots.py",
    "tcb.py",
    "tcb_json.py",
    "verify.py",
)
PYTEST = ("-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--timeout=20")
TESTS = ("-m", "not slow and not long", "tests/attestation")
IMPORTED = ["pytest", "hypothesis", "pytest_trio.plugin", "trio", "cryptography.x509", "msgspec.json", "httpx"]
"""What every run of the tests would import again; nothing of this project."""
FIRST = 50
"""So many of the tests that run a line run before the slower rest of them does."""
SECONDS_MAX = 300

_STORED = ("file", "line", "function", "statement", "replacement", "count", "status", "why")


class Workplace:
    """A copy of the tree to break."""

    def __init__(self, path: Path) -> None:
        self.path = path / "tree"  # not directly in `path`: what stands beside the tree is for the tests to find
        skipped = shutil.ignore_patterns("node_modules", "__pycache__", ".hypothesis")
        for name in TREE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.path / name, ignore=skipped)
            else:
                shutil.copy(source, self.path / name)
        self._writes = 0

    def baseline(self) -> dict[str, Any]:
        """Which test runs which line, with the package as it is."""
        lines = self.path / "lines.json"
        code, output = self._run(*TESTS, "-p", "tests.attestation.tools.tracing", f"--lines={lines}")
        if code != 0:
            raise SystemExit(f"the tests must pass before anything is taken out:\n{output[-3000:]}")
        table: dict[str, Any] = json.loads(lines.read_text())
        return table

    def write(self, file: str, text: bytes) -> None:
        """Replace a source; its time is a new one, or Python would take the byte code of the last mutant."""
        path = self.path / "attestation" / file
        path.write_bytes(text)
        self._writes += 1
        os.utime(path, (self._writes, self._writes))

    def first_failure(self, *tests: str) -> str | None:
        """The first of these tests that fails here."""
        code, output = self._run("-x", *tests)
        if code is None:
            return "it does not end"
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
        if code == 0:
            return None
        return failed[1] if failed else f"pytest ended with {code}"

    def _run(self, *arguments: str) -> tuple[int | None, str]:
        """Run the tests here in a process of their own: its exit code (None: it had to be killed) and output."""
        output = self.path.parent / "output.txt"
        process = FORKS.Process(target=_run_tests, args=(self.path, (*PYTEST, *arguments), output))
        process.start()
        process.join(SECONDS_MAX)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None, ""
        return process.exitcode, output.read_text()


FORKS = multiprocessing.get_context("forkserver")


def _run_tests(path: Path, arguments: Sequence[str], output: Path) -> None:
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(path)
    sys.path[:] = [str(path), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    sys.exit(int(pytest.main([*arguments])))


class Hunt:
    """Tries mutants, several at a time, and keeps the result on disk."""

    def __init__(self, jobs: int, folder: Path) -> None:
        self._free: queue.Queue[Workplace] = queue.Queue()
        for job in range(jobs):
            self._free.put(Workplace(folder / str(job)))
        self._lock = Lock()
        self.texts = {name: (SOURCES / name).read_bytes() for name in sources()}
        self._digests = {name: hashlib.sha256(text).hexdigest() for name, text in self.texts.items()}
        self.done: dict[tuple[Any, ...], Mutant] = {}
        if RESULT.exists():
            stored = json.loads(RESULT.read_text())
            same = {name for name, digest in stored["sources"].items() if self._digests.get(name) == digest}
            known = (Mutant(**entry) for entry in stored["mutants"] if entry["file"] in same)
            self.done = {it.key: it for it in known}
        first = self._free.get()
        self._table = first.baseline()
        self._free.put(first)

    def attempt(self, mutant: Mutant) -> None:
        workplace = self._free.get()
        text = self.texts[mutant.file]
        try:
            workplace.write(mutant.file, text[: mutant.start] + mutant.inserted.encode() + text[mutant.end :])
            self._record(self._judge(mutant, workplace))
        finally:
            workplace.write(mutant.file, text)
            self._free.put(workplace)

    def _judge(self, mutant: Mutant, workplace: Workplace) -> Mutant:
        lines, seconds = self._table["lines"], self._table["seconds"]
        places = (f"{mutant.file}:{line}" for line in range(mutant.line, mutant.last_line + 1))
        tests = sorted({test for place in places for test in lines.get(place, ())}, key=lambda test: seconds[test])
        if not tests:
            return replace(mutant, status="survived", why="no test runs this line")
        some, rest = tests[:FIRST], tests[FIRST:]
        noticed = workplace.first_failure(*some) or (workplace.first_failure(*rest) if rest else None)
        return replace(
            mutant, status="killed" if noticed else "survived", why=noticed or f"{len(tests)} tests run it and pass"
        )

    def _record(self, mutant: Mutant) -> None:
        with self._lock:
            self.done[mutant.key] = mutant
            sys.stdout.write(f"{mutant.status:9} {mutant.file}:{mutant.line} {mutant.title}: {mutant.why}\n")
            sys.stdout.flush()
            self.store()

    def store(self) -> None:
        done = sorted(self.done.values(), key=lambda it: (it.file, it.line, it.key))
        entries = [{name: getattr(it, name) for name in _STORED} for it in done]
        RESULT.write_text(json.dumps({"sources": self._digests, "mutants": entries}, indent=1) + "\n")


def sources() -> list[str]:
    """The files with rules, of those that are there."""
    return [name for name in FILES if (SOURCES / name).exists()]


def _unexplained(done: Sequence[Mutant]) -> list[Mutant]:
    reasons = json.loads(REASONS.read_text())
    survivors = [it for it in done if it.status == "survived"]
    return [it for it in survivors if it.title not in reasons.get(it.file, {})]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="mutate", description="Does a test notice when a rule is missing?")
    parser.add_argument("--file", help="only this source, e.g. verify.py")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--retry", action="store_true", help="try the survivors of the last run again")
    options = parser.parse_args(arguments)
    FORKS.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        hunt = Hunt(options.jobs, Path(folder))
        wanted = [
            mutant
            for name, text in hunt.texts.items()
            if options.file in (None, name)
            for mutant in mutants(text, name)
        ]
        again = {"survived"} if options.retry else set()
        open_ = [m for m in wanted if m.key not in hunt.done or hunt.done[m.key].status in again]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(hunt.attempt, open_))
    done = [hunt.done[m.key] for m in wanted]
    sys.stdout.write(f"{dict(Counter(it.status for it in done))}\n")
    unexplained = _unexplained(done)
    for it in unexplained:
        sys.stdout.write(f"no reason given: {it.file}:{it.line} {it.title}\n")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
