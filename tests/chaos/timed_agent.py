"""An agent that notes when it took each step of an epoch's close: `python -m tests.chaos.timed_agent FILE run ...`.

FILE gets one line of JSON for each: {"step", "epoch", "at_s"}, by the machine's monotonic clock, which all processes
share. Steps: "observe", "propose", "attest" (published by this agent) and "certified" (it holds a certificate).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from agent.cli import main as run_cli
from gossip.epoch_close import EpochClose
from gossip.epoch_events import Action, Event, Publish
from gossip.messages import Attest, Observation, Proposal

STEPS = {Observation: "observe", Proposal: "propose", Attest: "attest"}


def time_steps(file: TextIO) -> None:
    """Write down the steps of every `EpochClose` of this process from now on."""
    handle = EpochClose.handle
    certified: set[int] = set()

    def note(step: str, epoch: int) -> None:
        file.write(json.dumps({"step": step, "epoch": epoch, "at_s": time.monotonic()}) + "\n")
        file.flush()

    def timed(machine: EpochClose, event: Event) -> list[Action]:
        actions = handle(machine, event)
        for action in actions:
            if isinstance(action, Publish):
                note(STEPS[type(action.message)], action.message.epoch)
        progress = machine.progress()
        if progress is not None and progress.certified and progress.epoch not in certified:
            certified.add(progress.epoch)
            note("certified", progress.epoch)
        return actions

    EpochClose.handle = timed  # type: ignore[assignment, method-assign]


def main(arguments: Sequence[str]) -> int:
    with Path(arguments[0]).open("a") as file:
        time_steps(file)
        return run_cli(list(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
