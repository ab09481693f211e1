"""`gpupool devnet` whose first agent lies (`lying_agent.py`): same options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.cli import main
from agent.devnet import supervisor
from agent.devnet.layout import Seat

_LIAR = Path(__file__).parent / "lying_agent.py"


def _arguments(seat: Seat) -> Sequence[str]:
    program = [str(_LIAR)] if seat.index == 0 else ["-m", "agent"]
    return [*program, "run", "--config", str(seat.config)]


class _WithLiar(supervisor.DevnetOptions):
    """The options of the command line, with one agent exchanged."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{**options, "agent_arguments": _arguments})


if __name__ == "__main__":
    supervisor.DevnetOptions = _WithLiar
    sys.exit(main(["devnet", *sys.argv[1:]]))
