"""An agent of the version before: `python -m tests.faults.old_agent CLOCK run ...`.

There is one version in this repository: the program is that of `tests.chaos.skewed_agent`, and says another number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata

from tests.chaos import skewed_agent

OLD = "0.0.9"


def main(arguments: Sequence[str]) -> int:
    true_version = metadata.version

    def version(distribution_name: str) -> str:
        return OLD if distribution_name == "gpupool-agent" else true_version(distribution_name)

    metadata.version = version
    return skewed_agent.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
