"""An agent whose wall clock can be set wrong while it runs: `python -m tests.chaos.skewed_agent FILE run --config ...`.

FILE holds by how many seconds the clock is ahead, as one little-endian double; `set_ahead` changes it, and the agent
sees that at once. Time namespaces shift monotonic clocks only, and the host's clock is everybody's.

Like `gpupool`, but for `time.time` and `time.time_ns`: whatever else is measured in the agent is monotonic.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_FORM = struct.Struct("<d")


def set_ahead(file: Path, ahead_s: float) -> None:
    """Make the clock of the agent of this file so many seconds wrong; negative: behind."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(_FORM.pack(ahead_s))  # one write: never half of it


def skew(file: Path) -> None:
    """Let the clock of this process follow the file from now on. Call it before anything else is imported."""
    with file.open("rb") as opened:
        held = mmap.mmap(opened.fileno(), _FORM.size, prot=mmap.PROT_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        ahead_s: float = _FORM.unpack_from(held)[0]
        return true_ns() + round(ahead_s * 1e9)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def main(arguments: Sequence[str]) -> int:
    skew(Path(arguments[0]))
    from agent.cli import main as run_cli  # not before the clock is set

    return run_cli(list(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
