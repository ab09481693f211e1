"""Whether this host's clock was set back: wall time held against time that only goes on.

Decides nothing about which of two times was right; it notes that the clock fell behind itself. The meter adds no time
until the clock has passed the last accounted second again (`agent.meter.work`, rules 5 and 6): so much work is lost.

1. Between two looks the wall clock advances by as much as the monotonic one. Where it advances less by more than
   `STEP_S_MIN`, it was set back; slewing, as NTP does it, stays far below that.
2. A clock that leaps ahead is no step back: a host that was suspended wakes up so. That it is ahead is told by the
   chain (`agent.settling`).

Pure: no clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

STEP_S_MIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBack:
    """The clock was set back by `by_s` seconds, to `at_s` (Unix seconds)."""

    by_s: int
    at_s: int


class ClockWatch:
    """Looks at the clock now and then; `last` is the newest step back, None if none was seen."""

    def __init__(self) -> None:
        self.last: StepBack | None = None
        self._offset_s: float | None = None

    def look(self, wall_s: float, steady_s: float) -> StepBack | None:
        """Take the time of both clocks at one moment, in seconds; the step back since the look before, if any."""
        offset_s, before_s = wall_s - steady_s, self._offset_s
        self._offset_s = offset_s
        if before_s is None or before_s - offset_s <= STEP_S_MIN:
            return None
        self.last = StepBack(by_s=round(before_s - offset_s), at_s=int(wall_s))
        return self.last
