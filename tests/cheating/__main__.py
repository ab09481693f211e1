"""What each way to cheat gains under each policy level: prints it, or writes it into `docs/cheating.md`.

    PYTHONPATH=tests/support python -m tests.cheating [--write] [--json]

Deterministic: a test compares the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

from tests.cheating.page import DOCUMENT, gains, page, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {DOCUMENT.name}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.write:
        DOCUMENT.write_text(page(DOCUMENT.read_text()))
    elif options.json:
        print(json.dumps(gains()))  # noqa: T201
    else:
        print(table(gains()))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
