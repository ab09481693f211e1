"""An agent that lies about its totals: `python lying_agent.py run --config FILE`.

It does everything as an honest agent does, but whenever it computes a settlement it moves everything that
was earned to the first leaf. For tests alone; nothing in the shipped package can do this.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from agent.cli import main
from gossip import epoch_close
from gossip.settlement import Settlement, totals_root

_honest = epoch_close.settle


def _lie(*arguments: Any) -> Settlement:
    honest = _honest(*arguments)
    total = sum(leaf.earned_nanoton for leaf in honest.leaves)
    leaves = tuple(replace(leaf, earned_nanoton=0 if i else total) for i, leaf in enumerate(honest.leaves))
    return replace(honest, leaves=leaves, payload=replace(honest.payload, totals_root=totals_root(leaves)))


if __name__ == "__main__":
    epoch_close.settle = _lie
    sys.exit(main())
