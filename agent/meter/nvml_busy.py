"""Busy time: the integral of a utilisation that is read about once a second.

Decides which time is credited. NVML says what share of the last sample period (a sixth of a second to one second)
saw a kernel run; nothing else on the device counts busy time.

1. Read often enough, a reading stands for the time since the last one.
2. After a longer pause, and after a reading that failed, it stands for nothing: no time is filled in.

Source: NVML API reference, `nvmlUtilization_t`.
"""

from __future__ import annotations

from dataclasses import dataclass

WATCH_INTERVAL_S = 1.0
_PAUSE_NS = 2_000_000_000
"""The sample period, and as much for a machine with much to do."""
_PERCENT_NS_IN_MS = 100 * 1_000_000


@dataclass(slots=True)
class BusyTime:
    """The sum of one GPU."""

    _percent_ns: int = 0
    _read_ns: int | None = None
    _is_known: bool = False

    def take(self, percent: int | None, now_ns: int) -> None:
        """Take a reading, 0 to 100, made at `now_ns` (a clock that never goes back); None is one that failed."""
        if percent is None or percent > 100:
            self._read_ns = None
            return
        if self._read_ns is not None and now_ns - self._read_ns <= _PAUSE_NS:
            self._percent_ns += percent * (now_ns - self._read_ns)
        self._read_ns = now_ns
        self._is_known = True

    @property
    def ms(self) -> int | None:
        """Milliseconds so far; None if the utilisation was never read."""
        return self._percent_ns // _PERCENT_NS_IN_MS if self._is_known else None
