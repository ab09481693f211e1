"""The process that attacks: one attack of `tests.attacks.arsenal` for so many seconds.

    python -m tests.attacks.attacker NAME PORT NODE_KEY SECONDS

Prints what it sent as one JSON line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # as pytest does, by pyproject.toml

import trio

from gossip import libp2p_patches
from tests.attacks.arsenal import ATTACKS
from tests.attacks.target import Target


async def run(name: str, target: Target, seconds: float) -> None:
    libp2p_patches.install()
    with trio.move_on_after(seconds):
        await ATTACKS[name](target)
    print(json.dumps(target.sent), flush=True)  # noqa: T201


if __name__ == "__main__":
    _, name, port, node_key, seconds = sys.argv
    trio.run(run, name, Target(int(port), bytes.fromhex(node_key)), float(seconds))
