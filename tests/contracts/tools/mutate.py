"""Takes the asserts out of the contracts one at a time and sees whether a test notices.

    python -m tests.contracts.tools.mutate [--file quorum.tolk] [--only NoQuorum] [--jobs 2] [--retry] [--exits FILE]

A mutant is the sources without one `assert (...) throw Err.X` or one `throw Err.X`. It is compiled in a copy of
the tree (Node is needed), never in this one. Without the assert, only those tests can behave otherwise in which
the contract refuses with X as it stands; so exactly these run, and a refusal that no test sees survives at once.
Tests that state gas or code hashes would fail for every mutant and are left out, and so is the fuzzing.

The result stands in `contracts/mutants.json`, in the order of the sources, with every survivor's reason out of
`survivors.json`. A run goes on where the last one stopped, as long as the sources are the same; `--retry` takes
the survivors once more. Exit code 1: a survivor without a reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "contracts" / "src"
RESULT = ROOT / "contracts" / "mutants.json"
REASONS = Path(__file__).with_name("survivors.json")
TREE = ("contracts", "tests", "agent", "attestation", "gossip", "pyproject.toml")
LEFT_OUT = ("test_fuzz.py", "test_gas_table.py", "test_registry_storage.py", "test_rewards_gas.py")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
SECONDS_MAX = 900

_STORED = ("file", "line", "error", "statement", "status", "why")
_THROW = re.compile(r"throw Err\.(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`status`: killed, survived, or does not compile; `why`: the test that noticed, or the reason why none can."""

    file: str
    line: int
    error: str
    statement: str
    status: str = ""
    why: str = ""
    start: int = 0
    end: int = 0

    @property
    def key(self) -> tuple[str, int, str]:
        return self.file, self.line, self.statement


def mutants(text: str, file: str) -> Iterator[Mutant]:
    """Every statement of this source that throws one of the pool's errors, outside comments."""
    for found in _THROW.finditer(text):
        line_start = text.rfind("\n", 0, found.start()) + 1
        if "//" in text[line_start : found.start()]:
            continue
        start, end = found.span()
        before = text[: found.start()].rstrip()
        if before.endswith(")"):
            start = _assert_of(before)
        if text[end : end + 1] == ";":
            end += 1
        statement = " ".join(text[start:end].split())
        line = text.count("\n", 0, start) + 1
        yield Mutant(file=file, line=line, error=found[1], statement=statement, start=start, end=end)


def _assert_of(before: str) -> int:
    """Where the assert begins whose condition ends `before`."""
    depth = 0
    for at in range(len(before) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(before[at], 0)
        if depth == 0:
            return before.rindex("assert", 0, at)
    raise ValueError("an assert whose parentheses do not match")


class Workplace:
    """A copy of the tree to break."""

    def __init__(self, path: Path) -> None:
        self.path = path
        skipped = shutil.ignore_patterns("node_modules", "__pycache__", "vectors", ".hypothesis")
        for name in TREE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, path / name, ignore=skipped)
            else:
                shutil.copy(source, path / name)
        (path / "contracts" / "node_modules").symlink_to(ROOT / "contracts" / "node_modules")

    def build(self) -> str | None:
        """Compile what stands here; the compiler's complaint, or None."""
        done = self._run("node", "contracts/build.mjs")
        return None if done.returncode == 0 else done.stderr

    def code_hashes(self) -> dict[str, str]:
        artifacts = (self.path / "contracts" / "artifacts").glob("*.json")
        return {path.stem: json.loads(path.read_text())["code_hash"] for path in artifacts}

    def baseline(self) -> dict[str, list[str]]:
        """`contract:exit code` -> the tests that see it, with the contracts as they are."""
        exits = self.path / "exits.json"
        plugin = ("-p", "tests.contracts.tools.tracing", f"--vm-exits={exits}")
        done = self._run(*PYTEST, *plugin, "-m", "not slow", *self._tests())
        if done.returncode != 0:
            raise SystemExit(f"the tests must pass before anything is taken out:\n{done.stdout[-3000:]}")
        table: dict[str, list[str]] = json.loads(exits.read_text())
        return table

    def _tests(self) -> Iterator[str]:
        """The files whose tests run the contracts."""
        for path in sorted((self.path / "tests" / "contracts").glob("test_*.py")):
            if path.name not in LEFT_OUT and "pool_scene import" in path.read_text():
                yield str(path.relative_to(self.path))

    def first_failure(self, tests: Sequence[str]) -> str | None:
        """The first of these tests that fails here."""
        done = self._run(*PYTEST, "-x", *tests)
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode == 0:
            return None
        return failed[1] if failed else f"pytest ended with {done.returncode}"

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)


class Hunt:
    """Tries mutants, several at a time, and keeps the result on disk."""

    def __init__(self, jobs: int, folder: Path, exits: Path | None) -> None:
        self._free: queue.Queue[Workplace] = queue.Queue()
        for job in range(jobs):
            self._free.put(Workplace(folder / str(job)))
        self._lock = Lock()
        self._codes = dict(re.findall(r"^\s*(\w+) = (\d+)", (SOURCES / "errors.tolk").read_text(), re.MULTILINE))
        self._digest = _digest()
        self.done: dict[tuple[str, int, str], Mutant] = {}
        if RESULT.exists():
            stored = json.loads(RESULT.read_text())
            if stored["sources"] == self._digest:
                self.done = {it.key: it for it in (Mutant(**entry) for entry in stored["mutants"])}
        first = self._free.get()
        complaint = first.build()
        if complaint is not None:
            raise SystemExit(complaint)
        self._hashes = first.code_hashes()
        self._seen: dict[str, list[str]] = json.loads(exits.read_text()) if exits else first.baseline()
        self._free.put(first)

    def attempt(self, mutant: Mutant) -> None:
        workplace = self._free.get()
        source = workplace.path / "contracts" / "src" / mutant.file
        text = source.read_text()
        try:
            source.write_text(text[: mutant.start] + text[mutant.end :])
            self._record(self._judge(mutant, workplace))
        finally:
            source.write_text(text)
            self._free.put(workplace)

    def _judge(self, mutant: Mutant, workplace: Workplace) -> Mutant:
        complaint = workplace.build()
        if complaint is not None:
            found = re.search(r"error: (.*)", complaint)
            return replace(mutant, status="does not compile", why=found[1] if found else "")
        hashes = workplace.code_hashes()
        changed = [name for name in hashes if hashes[name] != self._hashes[name]]
        code = self._codes[mutant.error]
        tests = sorted({test for name in changed for test in self._seen.get(f"{name}:{code}", ())})
        if not tests:
            return replace(mutant, status="survived", why="no test sees this refusal")
        noticed = workplace.first_failure(tests)
        status = "survived" if noticed is None else "killed"
        return replace(mutant, status=status, why=noticed or f"{len(tests)} tests pass without it")

    def _record(self, mutant: Mutant) -> None:
        with self._lock:
            self.done[mutant.key] = mutant
            sys.stdout.write(f"{mutant.status:16} {mutant.file}:{mutant.line} {mutant.error}: {mutant.why}\n")
            sys.stdout.flush()
            entries = [{name: getattr(self.done[key], name) for name in _STORED} for key in sorted(self.done)]
            RESULT.write_text(json.dumps({"sources": self._digest, "mutants": entries}, indent=1) + "\n")


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.tolk")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _unexplained(done: Sequence[Mutant]) -> list[Mutant]:
    reasons = json.loads(REASONS.read_text())
    survivors = [it for it in done if it.status == "survived"]
    return [it for it in survivors if it.statement not in reasons.get(it.file, {})]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="mutate", description="Does a test notice when an assert is missing?")
    parser.add_argument("--file", help="only this source, e.g. quorum.tolk")
    parser.add_argument("--only", help="only asserts that throw this error, e.g. NoQuorum")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--exits", type=Path, help="what tools/tracing.py wrote of these sources; else the tests run")
    parser.add_argument("--retry", action="store_true", help="try the survivors of the last run again")
    options = parser.parse_args(arguments)
    every = [m for path in sorted(SOURCES.glob("*.tolk")) for m in mutants(path.read_text(), path.name)]
    wanted = [m for m in every if options.file in (None, m.file) and options.only in (None, m.error)]
    with tempfile.TemporaryDirectory() as folder:
        hunt = Hunt(options.jobs, Path(folder), options.exits)
        again = {"survived"} if options.retry else set()
        open_ = [m for m in wanted if m.key not in hunt.done or hunt.done[m.key].status in again]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(hunt.attempt, open_))
    done = [hunt.done[m.key] for m in wanted]
    sys.stdout.write(f"{dict(Counter(it.status for it in done))}\n")
    unexplained = _unexplained(done)
    for it in unexplained:
        sys.stdout.write(f"no reason given: {it.file}:{it.line} {it.statement}\n")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
