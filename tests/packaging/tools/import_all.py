"""Import every module of the agent from the interpreter that runs this: does what is shipped suffice?

Run by the package's build with the interpreter of the environment that it has just filled. Fails with the import's own
error; prints nothing.
"""

from __future__ import annotations

import importlib
import pkgutil

OPTIONAL = {"agent.plotting"}
"""Needs the extra `plot`, which the package leaves out."""


def main() -> None:
    """Import all modules of the four packages but the optional and the executable ones."""
    for package in ("agent", "attestation", "contracts", "gossip"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if module.name not in OPTIONAL and not module.name.endswith(".__main__"):
                importlib.import_module(module.name)


if __name__ == "__main__":
    main()
