"""Whether the loops that do the agent's work come round: what the watchdog and `/-/healthy` go by.

Decides when a loop counts as stuck. A loop that waits for its own time, or for others who do not answer, comes round
all the same; one that hangs in a call does not.

1. A loop is watched from its first beat on.
2. A round is complete when every watched loop has beaten since the last one was: one that is stuck ends all rounds.
3. Time is trio's: monotonic, whatever happens to the host's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

Loop = Literal["measure", "gossip", "chain"]

REST_S = 15.0
"""How long a loop that rests goes without a beat."""


class Pulse:
    """The loops' beats. `on_beat` is told of each, for the metrics."""

    def __init__(self, on_beat: Callable[[Loop], None] = lambda loop: None) -> None:
        self._on_beat = on_beat
        self._at_s: dict[Loop, float] = {}
        self._missing: set[Loop] = set()

    def beat(self, loop: Loop) -> None:
        """The loop came round."""
        self._at_s[loop] = trio.current_time()
        self._missing.discard(loop)
        self._on_beat(loop)

    async def rest(self, loop: Loop, seconds: float) -> None:
        """Sleep so long (>= 0), and beat meanwhile. Cancelled, it leaves nothing behind."""
        until_s = trio.current_time() + seconds
        while True:
            self.beat(loop)
            left_s = until_s - trio.current_time()
            await trio.sleep(max(0.0, min(left_s, REST_S)))
            if left_s <= REST_S:
                return

    def take_round(self) -> bool:
        """Whether all loops came round since this last said so (rule 2); no loop, no round."""
        if not self._at_s or self._missing:
            return False
        self._missing = set(self._at_s)
        return True

    def most_silent(self) -> tuple[Loop, float] | None:
        """The loop whose last beat is farthest back, and how many seconds; None before the first beat."""
        if not self._at_s:
            return None
        loop, at_s = min(self._at_s.items(), key=lambda item: item[1])
        return loop, trio.current_time() - at_s
