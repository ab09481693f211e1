"""Holds a lock until it is killed: `python -m tests.faults.hold FILE`; prints one JSON line when it has it."""

from __future__ import annotations

import fcntl
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    with Path(arguments[0]).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sys.stdout.write(json.dumps({"ready": True}) + "\n")
        sys.stdout.flush()
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
