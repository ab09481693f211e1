"""Takes each fix of the transport out, one at a time, and sees whether its test notices.

    python -m tests.gossip.tools.take_out [--only N ...]

works in a copy of the tree, never in this one (three minutes). Exit code 1: a test that passes without its fix.
`--write` writes the table of docs/transport.md instead.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.gossip.tools.transport_rows import PAGE, ROOT, ROWS, Row, table

TREE = ("agent", "attestation", "contracts", "gossip", "tests", "pyproject.toml")
BEGIN, END = "<!-- rows: generated -->", "<!-- rows: end -->"


def notices(row: Row, tree: Path) -> bool:
    """Whether the row's test fails without the row's fix; `tree` is a copy that may be changed."""
    path = tree / row.file
    kept = path.read_text()
    path.write_text(kept.replace(row.before, row.after))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/gossip/{row.test}"],
            cwd=tree,
            capture_output=True,
            check=False,
        )
    finally:
        path.write_text(kept)
    return done.returncode == 1


def copy_tree(to: Path) -> None:
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, to / name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page and stop")
    parser.add_argument("--only", nargs="+", type=int, default=range(len(ROWS)), help="numbers of rows, from 0")
    options = parser.parse_args(arguments)
    if options.write:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}")
        return 0
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for number in options.only:
            is_noticed = notices(ROWS[number], Path(folder))
            survivors += not is_noticed
            print(f"{number:2} {'noticed ' if is_noticed else 'SURVIVED'} {ROWS[number].test}", flush=True)  # noqa: T201
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
